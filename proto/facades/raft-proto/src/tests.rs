//! The messages on the wire: round trips and known bytes.

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message as _;

use crate::eraftpb::{ConfChangeTransition, ConfChangeType};
use crate::prelude::*;
use crate::{ConfChangeI as _, conf_state_eq, new_conf_change_single};

fn entry() -> Entry {
    Entry {
        entry_type: EntryType::EntryConfChange.into(),
        term: 5,
        index: 300,
        data: Bytes::from_static(b"put"),
        context: Bytes::from_static(b"c"),
        sync_log: true,
    }
}

fn conf_state() -> ConfState {
    ConfState {
        voters: vec![1, u64::MAX],
        learners: vec![4],
        voters_outgoing: vec![2],
        learners_next: vec![3],
        auto_leave: true,
    }
}

fn message() -> Message {
    Message {
        msg_type: MessageType::MsgAppend.into(),
        to: 1,
        from: 2,
        term: 3,
        log_term: 4,
        index: 5,
        entries: vec![entry(), Entry::default()],
        commit: 8,
        commit_term: 15,
        snapshot: Some(Snapshot {
            data: Bytes::from_static(b"rows"),
            metadata: Some(SnapshotMetadata { conf_state: Some(conf_state()), index: 2, term: 3 }),
        }),
        request_snapshot: 13,
        reject: true,
        reject_hint: 11,
        context: Bytes::from_static(b"read 7"),
        deprecated_priority: 14,
        priority: -1,
    }
}

fn conf_change() -> ConfChange {
    ConfChange {
        change_type: ConfChangeType::AddLearnerNode.into(),
        node_id: 9,
        context: Bytes::from_static(b"{}"),
        id: 1,
    }
}

fn round_trip<M: prost::Message + Default + PartialEq + Debug>(message: M) {
    let bytes = message.encode_to_vec();
    assert_eq!(M::decode(Bytes::from(bytes)).unwrap(), message);
}

#[test]
fn every_message_survives_its_own_bytes() {
    round_trip(entry());
    round_trip(message());
    round_trip(conf_state());
    round_trip(HardState { term: 1, vote: 2, commit: 3 });
    round_trip(conf_change());
    round_trip(ConfChangeV2 {
        transition: ConfChangeTransition::Explicit.into(),
        changes: vec![new_conf_change_single(7, ConfChangeType::RemoveNode)],
        context: Bytes::from_static(b"x"),
    });
}

/// Each field by hand: tag, wire type, value.
#[test]
fn the_known_bytes_of_an_entry_are_read_and_written() {
    let bytes: &[u8] = &[
        0x08, 0x01, // entry_type = EntryConfChange
        0x10, 0x05, // term
        0x18, 0xac, 0x02, // index = 300
        0x22, 0x03, b'p', b'u', b't', // data
        0x28, 0x01, // sync_log
        0x32, 0x01, b'c', // context
    ];
    assert_eq!(Entry::decode(bytes).unwrap(), entry());
    // Written in another order of fields, which means the same.
    assert_eq!(entry().encode_to_vec().len(), bytes.len());
}

#[test]
fn the_fields_of_a_message_have_the_numbers_of_the_protocol() {
    let numbers = |mut bytes: &[u8]| {
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            let (tag, wire_type) = prost::encoding::decode_key(&mut bytes).unwrap();
            let context = prost::encoding::DecodeContext::default();
            prost::encoding::skip_field(wire_type, tag, &mut bytes, context).unwrap();
            numbers.push(tag);
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let with = |change: fn(&mut Message)| {
        let mut message = Message::default();
        change(&mut message);
        numbers(&message.encode_to_vec())
    };
    assert_eq!(numbers(&message().encode_to_vec()), (1..=16).collect::<Vec<_>>());
    assert_eq!(with(|m| m.set_msg_type(MessageType::MsgRequestPreVote)), [1]);
    assert_eq!(with(|m| m.log_term = 1), [5]);
    assert_eq!(with(|m| m.index = 1), [6]);
    assert_eq!(with(|m| m.entries.push(entry())), [7]);
    assert_eq!(with(|m| m.commit = 1), [8]);
    assert_eq!(with(|m| m.reject = true), [10]);
    assert_eq!(with(|m| m.reject_hint = 1), [11]);
    assert_eq!(with(|m| m.context = Bytes::from_static(b"c")), [12]);
    assert_eq!(with(|m| m.commit_term = 1), [15]);
    assert_eq!(with(|m| m.priority = 1), [16]);
}

#[test]
fn the_data_of_a_decoded_entry_is_a_slice_of_what_arrived() {
    let bytes = Bytes::from(entry().encode_to_vec());
    let decoded = Entry::decode(bytes.clone()).unwrap();
    assert!(bytes.as_ptr_range().contains(&decoded.data.as_ptr()));
}

#[test]
fn accessors_read_and_write_their_fields() {
    let mut m = message();
    assert_eq!((m.get_from(), m.get_term(), m.get_commit()), (2, 3, 8));
    assert_eq!(m.take_entries().len(), 2);
    assert!(m.get_entries().is_empty());
    assert!(!m.get_snapshot().is_empty());
    let snapshot = m.take_snapshot();
    assert!(!m.has_snapshot() && m.get_snapshot().is_empty());
    assert_eq!(snapshot.get_metadata().get_conf_state().get_voters(), [1, u64::MAX]);
    m.mut_snapshot().mut_metadata().index = 4;
    assert_eq!(m.get_snapshot().get_metadata().get_index(), 4);
}

#[test]
fn configurations_are_compared_without_order() {
    let one = ConfState::from(([1, 2, 3], [4, 5]));
    assert!(conf_state_eq(&one, &ConfState::from(([3, 1, 2], [5, 4]))));
    assert!(!conf_state_eq(&one, &ConfState::from(([1, 2, 3, 4], [5]))));
}

#[test]
fn only_several_changes_or_an_explicit_wish_need_a_joint_configuration() {
    let v2 = |transition: ConfChangeTransition, changes: usize| ConfChangeV2 {
        transition: transition.into(),
        changes: vec![new_conf_change_single(1, ConfChangeType::AddNode); changes],
        context: Bytes::new(),
    };
    for (transition, changes, enter, leave) in [
        (ConfChangeTransition::Auto, 0, None, true),
        (ConfChangeTransition::Auto, 1, None, false),
        (ConfChangeTransition::Auto, 2, Some(true), false),
        (ConfChangeTransition::Implicit, 1, Some(true), false),
        (ConfChangeTransition::Explicit, 1, Some(false), false),
    ] {
        let change = v2(transition, changes);
        assert_eq!((change.enter_joint(), change.leave_joint()), (enter, leave), "{change:?}");
    }
    assert_eq!(conf_change().as_v2().enter_joint(), None);
    assert_eq!(conf_change().into_v2().changes[0].node_id, 9);
}
