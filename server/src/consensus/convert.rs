//! Between our words and raft's.

use raft::eraftpb::{self, EntryType};

use super::types::{ConfState, Entry, EntryKind, HardState};

pub(super) fn to_raft_entry(entry: Entry) -> eraftpb::Entry {
    let mut raft_entry = eraftpb::Entry {
        term: entry.term,
        index: entry.index,
        data: entry.data,
        ..eraftpb::Entry::default()
    };
    raft_entry.set_entry_type(match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::ConfChange => EntryType::EntryConfChange,
    });
    raft_entry
}

pub(super) fn from_raft_entry(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange => EntryKind::ConfChange,
        EntryType::EntryConfChangeV2 => {
            unreachable!("no joint change is proposed, recovered, or let in by a message")
        }
    };
    Entry { index: entry.index, term: entry.term, kind, data: entry.data.clone() }
}

pub(super) fn to_raft_hard_state(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

pub(super) fn from_raft_hard_state(state: &eraftpb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

pub(super) fn to_raft_conf_state(state: ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState::from((state.voters, state.learners))
}

/// Raft keeps members in hash maps; ours are in order.
pub(super) fn from_raft_conf_state(state: eraftpb::ConfState) -> ConfState {
    assert!(state.voters_outgoing.is_empty(), "no joint configuration is ever entered");
    let (mut voters, mut learners) = (state.voters, state.learners);
    voters.sort_unstable();
    learners.sort_unstable();
    ConfState { voters, learners }
}
