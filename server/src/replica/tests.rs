//! A lone voter, driven as the owner drives it: what leaves when, and how often.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use super::*;
use crate::consensus::bootstrap_entries;
use crate::mvcc::tests::store::Store;
use crate::mvcc::{KeySpace, Limits};
use crate::state_machine::{FlushBatch, encode, with_id};

mod leases;

const MEMBER_ID: u64 = 7;
const REQUEST_TICKS: u64 = 50;
const LEASE: LeaseConfig =
    LeaseConfig { checkpoint_ms: Some(300_000), extend_ms: 1000, retry_ms: 7000 };
const TICK: Event = Event::Tick { elapsed_ms: 100 };

/// A flush is due at this many bytes of the log.
const LOG_BYTES: usize = 64 << 20;

/// A replica whose disk does nothing before it is told to.
struct Lone {
    replica: Replica,
    /// The newest number that a sync would report.
    unsynced: Option<u64>,
    /// Commands that went into the log.
    commands: Vec<Bytes>,
    /// Compactions that nobody asked for.
    compactions: Vec<i64>,
    /// Batches that were cut, to be reported as flushed.
    batches: Vec<Event>,
}

impl Lone {
    fn new() -> Self {
        Self::with(FlushLimits {
            batch_bytes: 1 << 20,
            log_bytes: LOG_BYTES,
            interval_ticks: 1 << 20,
            unflushed_bytes_max: 8 << 20,
        })
    }

    fn with(flush: FlushLimits) -> Self {
        let member = Member { id: MEMBER_ID, name: "seven".into(), ..Member::default() };
        let (hard_state, entries) = bootstrap_entries(&[(MEMBER_ID, member.encode())]);
        let log = consensus::Recovered { hard_state, entries, ..Default::default() };
        let recovered = Recovered { log, stored: Restored::default(), generation: 1 };
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 }));
        let config = Config {
            member,
            consensus: consensus::Config::new(MEMBER_ID, 1),
            request_ticks: REQUEST_TICKS,
            flush,
            auto_compaction: AutoCompaction::Off,
            disarm_below_bytes: None,
            lease: LEASE,
            boot_nonce: 1,
        };
        let replica = Replica::new(config, recovered, view, Arc::new(Store::default())).unwrap();
        let (commands, compactions, batches) = (Vec::new(), Vec::new(), Vec::new());
        Self { replica, unsynced: None, commands, compactions, batches }
    }

    /// One that leads and has said what it has to say of itself.
    fn leading() -> Self {
        Self::new().lead()
    }

    fn lead(mut self) -> Self {
        let lone = &mut self;
        for _ in 0..10 {
            lone.run([]);
            lone.sync();
        }
        assert!(lone.replica.published().raft.leads_alone);
        lone.commands.clear();
        self
    }

    /// Hands over events and settles; returns the replies.
    fn run(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<(RequestId, Reply)> {
        let mut effects = Vec::new();
        for event in events {
            self.replica.handle(event, &mut effects).unwrap();
        }
        self.replica.settle(&mut effects).unwrap();
        self.perform(effects)
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Vec<(RequestId, Reply)> {
        let mut replies = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(persist) => {
                    self.unsynced = persist.sync.or(self.unsynced);
                    self.commands.extend(persist.entries.into_iter().map(|entry| entry.data));
                }
                Effect::Reply { id, reply } => replies.push((id, reply)),
                Effect::Flush(FlushBatch { generation, applied_index, .. }) => {
                    self.batches.push(Event::Flushed { generation, applied_index });
                }
                Effect::AutoCompact { revision, .. } => self.compactions.push(revision),
                Effect::PersistConfState { .. } | Effect::ReleaseLog { .. } => {}
            }
        }
        replies
    }

    /// Whether everything is flushed; if not, what can be is handed to the flusher.
    fn flush_all(&mut self) -> bool {
        let mut effects = Vec::new();
        let is_flushed = self.replica.flush_all(&mut effects);
        assert!(self.perform(effects).is_empty());
        is_flushed
    }

    /// The disk has everything that was handed to it.
    fn sync(&mut self) -> Vec<(RequestId, Reply)> {
        let persisted = self.unsynced.take().map(|sync| Event::Persisted { sync });
        self.run(persisted)
    }
}

fn put(id: u64) -> Event {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    let command = encode(&pb::InternalRaftRequest { put: Some(put), ..Default::default() });
    Event::Propose { id: RequestId(id), command: with_id(command, id) }
}

fn put_of(id: u64, value_bytes: usize) -> Event {
    let value = vec![b'v'; value_bytes].into();
    let put = pb::PutRequest { key: "k".into(), value, ..Default::default() };
    let command = encode(&pb::InternalRaftRequest { put: Some(put), ..Default::default() });
    Event::Propose { id: RequestId(id), command: with_id(command, id) }
}

fn put_of_a_mib(id: u64) -> Event {
    put_of(id, 1 << 20)
}

#[test]
fn a_member_that_can_be_asked_is_listed_by_its_name() {
    let mut lone = Lone::new();
    while !lone.replica.published().raft.leads_alone {
        lone.run([]);
        lone.sync();
    }
    let names: Vec<String> = lone.replica.members().into_iter().map(|member| member.name).collect();
    assert_eq!(names, ["seven"]);
    assert_eq!(lone.replica.cluster_version(), Some(CLUSTER_VERSION));
}

/// It ended with the batch that was under way, and what came after that was applied again at the start.
#[test]
fn a_flush_of_everything_has_also_what_came_during_the_one_under_way() {
    let mut lone = Lone::leading();
    lone.run([put(1)]);
    lone.sync();
    assert!(!lone.flush_all());
    let first = lone.batches.pop().expect("a batch was cut");
    lone.run([put(2)]);
    lone.sync();
    assert!(!lone.flush_all());
    assert!(lone.batches.is_empty(), "one is under way at a time");
    lone.run([first]);
    let second = lone.batches.pop().expect("what came during the first follows it at once");
    assert!(!lone.flush_all());
    lone.run([second]);
    assert!(lone.flush_all());
    let published = lone.replica.published();
    assert_eq!(published.flushed_index, published.raft.applied_index);
    assert!(lone.batches.is_empty(), "and nothing after it");
}

#[test]
fn writes_are_refused_while_too_many_bytes_wait_to_be_applied() {
    const MIB: usize = 1 << 20;
    let limits = FlushLimits {
        batch_bytes: 1,
        log_bytes: LOG_BYTES,
        interval_ticks: 1 << 20,
        unflushed_bytes_max: 1,
    };
    let mut lone = Lone::with(limits).lead();
    // From here on the flusher does nothing.
    let mut refused = 0;
    for id in 1..=100 {
        let mut replies = lone.run([put_of(id, MIB)]);
        replies.append(&mut lone.sync());
        let is_refusal =
            |reply: &Reply| matches!(reply, Reply::Failed(RequestError::TooManyRequests));
        refused += replies.iter().filter(|(_, reply)| is_refusal(reply)).count();
    }
    let waiting_bytes = lone.replica.applier.progress.waiting_bytes();
    assert!((64 * MIB..66 * MIB).contains(&waiting_bytes), "{waiting_bytes}");
    assert!((25..40).contains(&refused), "{refused}");
    // It goes on once the flusher does.
    while let Some(flushed) = lone.batches.pop() {
        lone.run([flushed]);
    }
    assert_eq!(lone.replica.applier.progress.waiting_bytes(), 0);
}

#[test]
fn a_member_leads_alone_only_once_it_applied_an_entry_of_its_own_term() {
    let mut lone = Lone::new();
    assert!(!lone.replica.published().raft.leads_alone);
    lone.run([]);
    let published = lone.replica.published();
    assert_eq!((published.raft.leader_id, published.raft.leads_alone), (MEMBER_ID, false));
    lone.sync();
    assert!(lone.replica.published().raft.leads_alone);
}

#[test]
fn no_reply_and_no_reader_sees_a_write_before_its_sync() {
    let mut lone = Lone::leading();
    assert!(lone.run([put(1), put(2)]).is_empty());
    assert!(lone.run([TICK, put(3)]).is_empty());
    assert_eq!(lone.replica.view.current_revision(), 1);
    let replies = lone.sync();
    let ids: Vec<u64> = replies.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(replies.iter().all(|(_, reply)| matches!(reply, Reply::Committed(_))));
    assert_eq!(lone.replica.view.current_revision(), 4);
}

#[test]
fn a_write_that_timed_out_is_answered_once_and_may_still_be_applied() {
    let mut lone = Lone::leading();
    lone.run([put(1)]);
    let replies: Vec<_> = (0..=REQUEST_TICKS).flat_map(|_| lone.run([TICK])).collect();
    assert!(matches!(replies[..], [(_, Reply::Failed(RequestError::Timeout))]), "{replies:?}");
    assert!(lone.sync().is_empty());
    assert_eq!(lone.replica.view.current_revision(), 2);
}

#[test]
fn writes_and_reads_without_a_leader_end_in_time() {
    let mut lone = Lone::new();
    let id = RequestId(2);
    let replies = {
        let mut effects = Vec::new();
        lone.replica.handle(put(1), &mut effects).unwrap();
        lone.replica.handle(Event::ReadIndex { id }, &mut effects).unwrap();
        lone.run([])
    };
    assert!(matches!(replies[..], [(RequestId(1), Reply::Failed(RequestError::NoLeader))]));
    // It leads by now, but its disk is silent: nothing of its term is committed.
    let replies: Vec<_> = (0..=REQUEST_TICKS).flat_map(|_| lone.run([TICK])).collect();
    assert!(matches!(replies[..], [(RequestId(2), Reply::Failed(_))]), "{replies:?}");
}

#[test]
fn a_capture_is_of_what_was_applied_and_stays_as_it_is() {
    let mut lone = Lone::leading();
    lone.run([put(1)]);
    lone.sync();
    lone.run([put(2)]);
    let id = RequestId(3);
    let mut replies = lone.run([Event::Capture { id }]);
    let Some((_, Reply::Captured(capture))) = replies.pop() else { panic!("{replies:?}") };
    lone.sync();
    let published = lone.replica.published();
    assert_eq!(lone.replica.view.current_revision(), 3);
    assert_eq!((capture.history.revision(), capture.history.compact_revision()), (2, -1));
    assert_eq!(capture.inventory.applied_index, published.raft.applied_index - 1);
    assert_eq!(capture.inventory.applied_term, published.raft.term);
    assert_eq!(capture.inventory.conf_state.voters, [MEMBER_ID]);
    assert_eq!(capture.inventory.members, lone.replica.members());
    assert_eq!(capture.inventory.cluster_version.as_deref(), Some(CLUSTER_VERSION));
    assert_eq!(lone.replica.view.oldest_pin(), Some(-1));
    drop(capture);
    assert_eq!(lone.replica.view.oldest_pin(), None);
}

#[test]
fn a_thousand_refused_writes_propose_their_alarm_once() {
    let mut lone = Lone::leading();
    assert!(lone.run((1..=1000).map(refused)).is_empty(), "the alarm is not up yet");
    assert!(
        lone.run([TICK, refused(1001), Event::DiskSpace { is_low: true, is_tight: true }])
            .is_empty()
    );
    assert_eq!(lone.commands.len(), 1);
    let replies = lone.sync();
    assert_eq!(lone.replica.alarms().len(), 1);
    assert_eq!(replies.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), Vec::from_iter(1..=1001));
    assert!(replies.iter().all(|(_, reply)| is_no_space(reply)));
    assert_eq!(lone.run([refused(1002)]).len(), 1, "it is up already");
    assert_eq!(lone.commands.len(), 1);
}

#[test]
fn a_low_disk_on_which_nothing_happens_is_not_written_again_and_again() {
    let mut lone = Lone::leading();
    let low = || Event::DiskSpace { is_low: true, is_tight: true };
    for look in 0..100 {
        lone.run([low()]);
        lone.sync();
        while let Some(flushed) = lone.batches.pop() {
            assert!(look < 5, "the alarm was flushed long ago");
            lone.run([flushed]);
        }
    }
    assert_eq!(lone.replica.published().flushed_index, lone.replica.applied_index());
}

/// A write that found the quota used up.
fn refused(id: u64) -> Event {
    Event::RefuseForSpace { id: RequestId(id) }
}

fn is_no_space(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(RequestError::NoSpace))
}

#[test]
fn an_alarm_that_was_taken_back_is_raised_again_at_once() {
    let mut lone = Lone::leading();
    lone.run([refused(1)]);
    assert_eq!(lone.sync().len(), 1);
    let disarm = own::disarm(lone.replica.alarms()[0]);
    lone.run([Event::Propose { id: RequestId(2), command: with_id(disarm, 2) }]);
    lone.sync();
    assert_eq!(lone.replica.alarms().len(), 0);
    lone.run([refused(3)]);
    assert_eq!((lone.sync().len(), lone.replica.alarms().len()), (1, 1));
}

#[test]
fn a_refused_write_waits_no_longer_than_requests_do() {
    let mut lone = Lone::leading();
    lone.run([refused(1)]);
    for _ in 1..REQUEST_TICKS {
        assert!(lone.run([TICK]).is_empty(), "nothing is synced, so nothing is applied");
    }
    let replies = lone.run([TICK]);
    assert!(matches!(&replies[..], [(RequestId(1), reply)] if is_no_space(reply)));
}

#[test]
fn an_alarm_whose_proposal_was_lost_is_proposed_again() {
    let mut lone = Lone::new();
    lone.run([refused(1)]);
    lone.run([]);
    lone.sync();
    for _ in 0..=lone.replica.config.consensus.election_ticks {
        lone.run([TICK]);
        lone.sync();
    }
    assert_eq!(lone.replica.alarms().len(), 1);
}

#[test]
fn a_compaction_that_nobody_asked_for_is_told_once_and_proposed() {
    let mut lone = Lone::leading();
    let mode = AutoCompaction::Revision { retention: 2, interval_ticks: 5 };
    lone.replica.auto_compactor = AutoCompactor::new(mode);
    lone.run((1..=4).map(put));
    lone.sync();
    for _ in 0..30 {
        lone.run([Event::Tick { elapsed_ms: 100 }]);
        lone.sync();
    }
    assert_eq!(lone.compactions, [3], "the current revision is 5");
    assert_eq!(lone.replica.view.compact_revision(), 3);
}

/// What was heard of the entries that were applied.
#[derive(Clone, Default)]
struct Heard(Arc<std::sync::Mutex<Vec<String>>>);

impl Laps for Heard {
    fn begin(&mut self) {
        self.0.lock().unwrap().push("begin".to_owned());
    }

    fn applied(&mut self, _: u64, op: &'static str, success: bool) {
        self.0.lock().unwrap().push(format!("{op} {success}"));
    }
}

#[test]
fn a_stopwatch_hears_of_every_command_that_is_applied() {
    let Lone { replica, .. } = Lone::leading();
    let heard = Heard::default();
    let replica = replica.with_laps(Box::new(heard.clone()));
    let mut lone = Lone { replica, ..Lone::new() };
    let future = pb::CompactionRequest { revision: 99, physical: false };
    let command = pb::InternalRaftRequest { compaction: Some(future), ..Default::default() };
    let command = with_id(encode(&command), 2);
    lone.run([put(1), Event::Propose { id: RequestId(2), command }]);
    lone.sync();
    assert_eq!(*heard.0.lock().unwrap(), ["begin", "Put true", "Compaction false"]);
}

/// A transaction whose branch of a MiB is not taken.
fn failing_txn(id: u64) -> Event {
    let value = vec![b'v'; 1 << 20].into();
    let put = pb::PutRequest { key: "k".into(), value, ..Default::default() };
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let compare = pb::Compare {
        key: "k".into(),
        target: pb::compare::CompareTarget::Version.into(),
        target_union: Some(pb::compare::TargetUnion::Version(99)),
        ..Default::default()
    };
    let txn = pb::TxnRequest { compare: vec![compare], success: vec![op], failure: vec![] };
    let command = encode(&pb::InternalRaftRequest { txn: Some(txn), ..Default::default() });
    Event::Propose { id: RequestId(id), command: with_id(command, id) }
}

#[test]
fn the_log_in_memory_is_bounded_whatever_is_proposed() {
    for event in [put_of_a_mib, failing_txn] {
        let mut lone = Lone::leading();
        let mut flushes = 0;
        for id in 1..=200 {
            lone.run([event(id)]);
            assert_eq!(lone.sync().len(), 1);
            for flushed in std::mem::take(&mut lone.batches) {
                flushes += 1;
                lone.run([flushed]);
            }
        }
        let log_bytes = lone.replica.consensus.log_bytes();
        assert!(log_bytes <= 66 << 20, "{log_bytes} bytes");
        assert!(flushes > 1, "what a start applies again is bounded too");
    }
}

#[test]
fn one_turn_applies_a_bounded_part_of_what_is_committed() {
    let flush = FlushLimits {
        batch_bytes: 64 << 20,
        log_bytes: LOG_BYTES,
        interval_ticks: 1 << 20,
        unflushed_bytes_max: 512 << 20,
    };
    let mut lone = Lone::with(flush).lead();
    lone.run((1..=20).map(put_of_a_mib));
    assert_eq!(lone.sync().len(), 8);
    assert!(lone.replica.has_work());
    assert_eq!((lone.run([]).len(), lone.run([]).len(), lone.run([]).len()), (8, 4, 0));
}

#[test]
fn too_many_waits_for_a_compaction_are_refused() {
    let mut lone = Lone::leading();
    lone.run([put(1), put(2)]);
    lone.sync();
    let _pin = lone.replica.view.pin(2).unwrap();
    let compaction = Some(pb::CompactionRequest { revision: 3, physical: true });
    let command = encode(&pb::InternalRaftRequest { compaction, ..Default::default() });
    lone.run([Event::Propose { id: RequestId(3), command: with_id(command, 3) }]);
    lone.sync();
    let waits = (10..2010).map(|id| Event::AwaitCompaction { id: RequestId(id), revision: 3 });
    let replies = lone.run(waits);
    assert_eq!(replies.len(), 1000);
    let is_refused = |reply: &Reply| matches!(reply, Reply::Failed(RequestError::TooManyRequests));
    assert!(replies.iter().all(|(_, reply)| is_refused(reply)), "{:?}", replies[0]);
}
