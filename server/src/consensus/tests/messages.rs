//! What arrives from the network cannot make a member panic, nor believe what cannot be.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use raft::eraftpb::{self, MessageType};

use super::super::*;
use super::cluster::Disk;

fn entry(index: u64, term: u64) -> eraftpb::Entry {
    eraftpb::Entry { index, term, data: "x".into(), ..Default::default() }
}

/// Member 1 of three, at term 3, with entries 1 to 3 of the bootstrap committed and applied, and 4
/// and 5 of term 3.
fn follower() -> Consensus {
    let mut disk = Disk::new(&[1, 2, 3]);
    disk.append(&[4, 5].map(|index| Entry {
        index,
        term: 3,
        kind: EntryKind::Normal,
        data: "x".into(),
    }));
    disk.hard_state = HardState { term: 3, vote: 2, commit: 3 };
    disk.applied = 3;
    disk.conf_state.voters = vec![1, 2, 3];
    Consensus::new(Config::new(1, 1), disk.recovered()).unwrap()
}

/// The same member as the leader of term 4, with its entry 6 on disk.
fn leader() -> Consensus {
    let mut node = follower();
    node.campaign();
    for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
        persist_all(&mut node);
        step(&mut node, kind, |message| message.term = 4).unwrap();
    }
    persist_all(&mut node);
    assert!(node.is_leader());
    node
}

fn persist_all(node: &mut Consensus) {
    while let Some(ready) = node.take_ready() {
        ready.sync.into_iter().for_each(|sync| node.persisted(sync));
    }
}

/// A message from member 2 to member 1, as it would arrive.
fn message(kind: MessageType, change: impl FnOnce(&mut eraftpb::Message)) -> Bytes {
    let mut message = eraftpb::Message { from: 2, to: 1, term: 3, ..Default::default() };
    message.set_msg_type(kind);
    change(&mut message);
    message.encode_to_vec().into()
}

fn step(
    node: &mut Consensus,
    kind: MessageType,
    change: impl FnOnce(&mut eraftpb::Message),
) -> Result<(), StepError> {
    node.step(Message::decode(message(kind, change)).unwrap())
}

#[test]
fn what_no_member_sends_is_not_even_decoded() {
    use MessageType::*;
    let refused = |kind, change: fn(&mut eraftpb::Message)| {
        Message::decode(message(kind, change)).expect_err("it was decoded").to_string()
    };
    let gap = |m: &mut eraftpb::Message| {
        (m.index, m.log_term) = (5, 3);
        m.entries = vec![entry(6, 3), entry(8, 3)];
    };
    for (refusal, text) in [
        (refused(MsgHup, |_| ()), "kind 0 of message"),
        (refused(MsgBeat, |_| ()), "kind 1 of message"),
        (refused(MsgCheckQuorum, |_| ()), "kind 12 of message"),
        (refused(MsgSnapshot, |_| ()), "kind 7 of message"),
        (refused(MsgTransferLeader, |_| ()), "kind 13 of message"),
        (refused(MsgHeartbeat, |m| m.msg_type = 99), "kind 99 of message"),
        (refused(MsgHeartbeat, |m| m.from = 0), "without sender"),
        (refused(MsgHeartbeat, |m| m.term = 0), "a term where none"),
        (refused(MsgHeartbeat, |m| m.term = u64::MAX), "implausible"),
        (refused(MsgHeartbeat, |m| m.snapshot = Some(Default::default())), "a snapshot"),
        (refused(MsgPropose, |m| m.entries = vec![entry(0, 0)]), "a term where none"),
        (refused(MsgPropose, |m| m.term = 0), "a proposal of nothing"),
        (refused(MsgReadIndex, |m| m.term = 0), "not one read context"),
        (refused(MsgReadIndexResp, |m| m.entries = vec![Default::default()]), "not one read"),
        (refused(MsgAppend, |m| m.index = 5), "an entry without term"),
        (refused(MsgAppend, |m| m.log_term = 5), "a term without entry"),
        (refused(MsgAppend, gap), "entries with a gap"),
        (refused(MsgAppend, |m| m.entries = vec![entry(1, 0)]), "impossible term"),
        (refused(MsgAppend, |m| m.entries = vec![entry(1, 4)]), "impossible term"),
        (refused(MsgAppend, |m| m.entries = vec![entry(1, 3), entry(2, 2)]), "impossible term"),
        (refused(MsgAppend, |m| (m.index, m.log_term) = (9, 4)), "an earlier term than its log"),
        (refused(MsgAppendResponse, |m| m.request_snapshot = 1), "a snapshot"),
        (refused(MsgAppendResponse, |m| (m.reject, m.reject_hint) = (true, 1)), "a later entry"),
    ] {
        assert!(refusal.contains(text), "{refusal} instead of {text}");
    }
    assert!(Message::decode(Bytes::from_static(b"\xff\xff")).is_err());
}

#[test]
fn a_proposal_from_another_member_cannot_smuggle_in_a_change() {
    let refused = |kind: i32, data: &'static [u8]| {
        let entry =
            eraftpb::Entry { entry_type: kind, data: data.into(), ..eraftpb::Entry::default() };
        let bytes = message(MessageType::MsgPropose, |m| (m.term, m.entries) = (0, vec![entry]));
        Message::decode(bytes).expect_err("it was decoded")
    };
    assert_eq!(refused(2, b""), DecodeError::EntryKind(2)); // A joint change.
    assert_eq!(refused(7, b""), DecodeError::EntryKind(7));
    assert_eq!(refused(1, b""), DecodeError::ConfChange(ConfChangeError::NoMember));
    let unknown = DecodeError::ConfChange(ConfChangeError::UnknownKind(9));
    assert_eq!(refused(1, b"\x10\x09\x18\x01"), unknown);
}

#[test]
fn a_message_that_contradicts_the_log_is_refused_and_changes_nothing() {
    use MessageType::*;
    let mut node = follower();
    let before = node.status();
    let beyond = StepError::BeyondLog { index: 6, last_index: 5 };
    assert_eq!(step(&mut node, MsgHeartbeat, |m| m.commit = 6), Err(beyond));
    assert_eq!(step(&mut node, MsgHeartbeat, |m| m.to = 9), Err(StepError::Misaddressed { to: 9 }));
    assert_eq!(step(&mut node, MsgHeartbeat, |m| m.from = 1), Err(StepError::FromMyself));
    let stranger = StepError::UnknownSender { from: 9 };
    assert_eq!(step(&mut node, MsgHeartbeatResponse, |m| m.from = 9), Err(stranger));
    assert_eq!(node.status().last_index, before.last_index);
    assert_eq!(node.status().commit_index, before.commit_index);
}

#[test]
fn a_leader_does_not_believe_in_entries_that_it_never_had() {
    let mut node = leader();
    let last_index = node.status().last_index;
    let mut answer = |index, commit| {
        step(&mut node, MessageType::MsgAppendResponse, |m| {
            (m.term, m.index, m.commit) = (4, index, commit);
        })
    };
    let beyond = StepError::BeyondLog { index: last_index + 1, last_index };
    assert_eq!(answer(last_index + 1, 3), Err(beyond.clone()));
    assert_eq!(answer(3, last_index + 1), Err(beyond));
    assert_eq!(answer(last_index, 3), Ok(()));
    assert_eq!(node.status().commit_index, last_index);
}

#[test]
fn a_leader_whose_log_is_older_than_what_is_committed_is_refused() {
    let mut node = follower();
    step(&mut node, MessageType::MsgHeartbeat, |m| m.commit = 5).unwrap();
    let result = step(&mut node, MessageType::MsgAppend, |m| {
        (m.term, m.index, m.log_term) = (9, 7, 1);
    });
    let refused = StepError::BelowCommitted { index: 7, term: 1, committed_term: 3 };
    assert_eq!(result, Err(refused));
}

/// Entries 6 to 8 of term 4 are written; a leader of term 5 replaces them; one of term 6 brings them
/// back, and commits. When the first write is on disk, the second one still cuts what it wrote.
#[test]
fn entries_are_not_handed_out_while_a_write_under_way_cuts_them() {
    let mut node = follower();
    let mut syncs = Vec::new();
    for (term, entries, commit) in [
        (4, vec![entry(6, 4), entry(7, 4), entry(8, 4)], 3),
        (5, vec![entry(6, 5)], 3),
        (6, vec![entry(6, 4), entry(7, 4), entry(8, 4), entry(9, 6)], 9),
    ] {
        step(&mut node, MessageType::MsgAppend, |m| {
            (m.term, m.index, m.log_term, m.commit, m.entries) = (term, 5, 3, commit, entries);
        })
        .unwrap();
        let ready = node.take_ready().unwrap();
        syncs.push(ready.sync.unwrap());
        let known: Vec<_> = ready.committed.iter().map(|entry| entry.index).collect();
        assert_eq!(known, if commit == 9 { vec![4, 5] } else { vec![] });
    }
    let mut handed_out = |sync| {
        node.persisted(sync);
        let committed = node.take_ready().map_or(Vec::new(), |ready| ready.committed);
        committed.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(handed_out(syncs[0]), [0; 0]);
    assert_eq!(handed_out(syncs[1]), [0; 0]);
    assert_eq!(handed_out(syncs[2]), [6, 7, 8, 9]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Fields are drawn around the truth, where the dangerous values are.
    #[test]
    fn no_message_makes_a_member_panic(
        lead: bool,
        kind in 0_i32..20,
        (from, to) in (0_u64..4, prop_oneof![9 => Just(1_u64), 1 => 0_u64..4]),
        (term, log_term, commit_term) in (0_u64..6, 0_u64..6, 0_u64..6),
        (index, commit, reject_hint) in (number(), number(), number()),
        reject: bool,
        entries in prop::collection::vec((0_i32..3, number(), 0_u64..6, any::<bool>()), 0..4),
        follow: bool,
        context in prop::option::of(Just("CampaignTransfer")),
    ) {
        let mut node = if lead { leader() } else { follower() };
        let entries = entries.into_iter().zip(1_u64..).map(|((kind, at, term, empty), n)| {
            eraftpb::Entry {
                entry_type: kind,
                index: if follow { index.saturating_add(n) } else { at },
                term: if follow { log_term.max(1) } else { term },
                data: if empty { Bytes::new() } else { Bytes::from_static(b"\x10\x00\x18\x02") },
                ..eraftpb::Entry::default()
            }
        });
        let message = eraftpb::Message {
            msg_type: kind, from, to, term, log_term, commit_term, index, commit, reject, reject_hint,
            entries: entries.collect(),
            context: context.map_or(Bytes::new(), Bytes::from),
            ..eraftpb::Message::default()
        };
        if let Ok(message) = Message::decode(message.encode_to_vec().into()) {
            let _ = node.step(message);
            persist_all(&mut node);
            for _ in 0..30 {
                node.tick();
                persist_all(&mut node);
            }
        }
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..9, 1 => Just((1 << 62) - 1), 1 => Just(u64::MAX)]
}
