//! The messages: names, field numbers and types are those of the `raft` crate's wire format.

use bytes::Bytes;
use prost::Enumeration;

/// How the data of an entry is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)] // The names of the protocol.
pub enum EntryType {
    /// A command, or nothing.
    EntryNormal = 0,
    /// A [`ConfChange`].
    EntryConfChange = 1,
    /// A [`ConfChangeV2`].
    EntryConfChangeV2 = 2,
}

/// What a message asks or answers. Those marked local never travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)] // The names of the protocol.
pub enum MessageType {
    /// Local: start an election.
    MsgHup = 0,
    /// Local: send heartbeats.
    MsgBeat = 1,
    /// Append these entries, if you lead.
    MsgPropose = 2,
    /// These entries follow that index.
    MsgAppend = 3,
    /// They are on disk, or do not fit.
    MsgAppendResponse = 4,
    /// Vote for me.
    MsgRequestVote = 5,
    /// Yes or no.
    MsgRequestVoteResponse = 6,
    /// Replace your state by this one.
    MsgSnapshot = 7,
    /// I still lead.
    MsgHeartbeat = 8,
    /// I still follow.
    MsgHeartbeatResponse = 9,
    /// Local: a message did not arrive.
    MsgUnreachable = 10,
    /// Local: how sending a snapshot ended.
    MsgSnapStatus = 11,
    /// Local: see whether a quorum still answers.
    MsgCheckQuorum = 12,
    /// Hand the lead to the sender.
    MsgTransferLeader = 13,
    /// Start an election now.
    MsgTimeoutNow = 14,
    /// What index must a reader wait for?
    MsgReadIndex = 15,
    /// This one.
    MsgReadIndexResp = 16,
    /// Would you vote for me?
    MsgRequestPreVote = 17,
    /// I would, or not.
    MsgRequestPreVoteResponse = 18,
}

/// How a [`ConfChangeV2`] takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ConfChangeTransition {
    /// At once where that is safe, else as `Implicit`.
    Auto = 0,
    /// Through a joint configuration that raft leaves by itself.
    Implicit = 1,
    /// Through a joint configuration that is left by another change.
    Explicit = 2,
}

/// What happens to a member. The numbers are not etcd's, where 2 updates and 3 adds a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)] // The names of the protocol.
pub enum ConfChangeType {
    /// It votes from now on.
    AddNode = 0,
    /// It is gone.
    RemoveNode = 1,
    /// It only receives.
    AddLearnerNode = 2,
}

/// One slot of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// How to read `data`.
    #[prost(enumeration = "EntryType", tag = "1")]
    pub entry_type: i32,
    /// The term of the leader that proposed it.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Its position.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The command.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// Not used by us.
    #[prost(bytes = "bytes", tag = "6")]
    pub context: Bytes,
    /// Deprecated in the protocol.
    #[prost(bool, tag = "5")]
    pub sync_log: bool,
}

/// What a snapshot stands for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotMetadata {
    /// The configuration at `index`.
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    /// The last index that it contains.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// The term of that index.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// A state that replaces the log up to an index.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// Whatever the state machine put there.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// What it stands for.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

/// What members send each other. Which fields count depends on `msg_type`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// What this is.
    #[prost(enumeration = "MessageType", tag = "1")]
    pub msg_type: i32,
    /// The receiver's ID.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// The sender's ID.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// The sender's term, or the one it asks for.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// The term of the entry at `index`.
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    /// The position that the message is about.
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// The entries after `index`, or a request's payload.
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<Entry>,
    /// What the sender knows to be committed.
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    /// The term of the entry at `commit`.
    #[prost(uint64, tag = "15")]
    pub commit_term: u64,
    /// The state that replaces the receiver's.
    #[prost(message, optional, tag = "9")]
    pub snapshot: Option<Snapshot>,
    /// A follower wants a snapshot of at least this index.
    #[prost(uint64, tag = "13")]
    pub request_snapshot: u64,
    /// The answer is no.
    #[prost(bool, tag = "10")]
    pub reject: bool,
    /// Where the sender's log may agree.
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// What the answer is to carry back.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    /// `priority` in its older, unsigned place.
    #[prost(uint64, tag = "14")]
    pub deprecated_priority: u64,
    /// The sender's election priority.
    #[prost(int64, tag = "16")]
    pub priority: i64,
}

/// What a member must never forget.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HardState {
    /// The newest term it has seen.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Whom it voted for in that term.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// The last index known to be committed.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// Who votes and who learns.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfState {
    /// Who votes.
    #[prost(uint64, repeated, tag = "1")]
    pub voters: Vec<u64>,
    /// Who only receives.
    #[prost(uint64, repeated, tag = "2")]
    pub learners: Vec<u64>,
    /// Who voted before the joint configuration; empty outside one.
    #[prost(uint64, repeated, tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// Who becomes a learner when the joint configuration is left.
    #[prost(uint64, repeated, tag = "4")]
    pub learners_next: Vec<u64>,
    /// Whether raft leaves the joint configuration by itself.
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
}

/// One change of the configuration.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfChange {
    /// What happens.
    #[prost(enumeration = "ConfChangeType", tag = "2")]
    pub change_type: i32,
    /// To whom.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// Whatever the state machine put there.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
    /// The request that asked for it.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// One of several changes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfChangeSingle {
    /// What happens.
    #[prost(enumeration = "ConfChangeType", tag = "1")]
    pub change_type: i32,
    /// To whom.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
}

/// Several changes at once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfChangeV2 {
    /// How they take effect.
    #[prost(enumeration = "ConfChangeTransition", tag = "1")]
    pub transition: i32,
    /// The changes.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    /// Whatever the state machine put there.
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
}

impl Snapshot {
    /// Whether this stands for no snapshot: index 0 is before every log.
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }
}
