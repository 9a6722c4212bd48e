//! The log in our words, so that nobody else needs the raft crate.

use bytes::Bytes;

/// One slot of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log, from 1.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// How `data` is to be read.
    pub kind: EntryKind,
    /// The command; empty for the first entry of a leader.
    pub data: Bytes,
}

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// An `etcdserverpb.InternalRaftRequest`, or nothing.
    Normal,
    /// A `raftpb.ConfChange`.
    ConfChange,
}

/// What a member must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term, 0 for nobody.
    pub vote: u64,
    /// The last index known to be committed.
    pub commit: u64,
}

/// Who votes and who learns, each in ascending order of member ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Members that count for a quorum.
    pub voters: Vec<u64>,
    /// Members that only receive.
    pub learners: Vec<u64>,
}
