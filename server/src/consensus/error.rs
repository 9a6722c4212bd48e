//! What can go wrong, one type per question asked.

use prost::DecodeError as ProtobufError;

/// A member that cannot take part. The process must not go on with this state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(&'static str),
    /// The log has a hole, or an entry in the wrong place.
    #[error("the log has entry {found} where entry {expected} belongs")]
    LogHole {
        /// The index that would have been next.
        expected: u64,
        /// The index that is there.
        found: u64,
    },
    /// Terms never decrease along a log.
    #[error("entry {index} of the log has term {term}, the one before it {previous}")]
    LogTerm {
        /// Which entry.
        index: u64,
        /// Its term.
        term: u64,
        /// The term of the entry before.
        previous: u64,
    },
    /// The log lost what the member knew to be committed, or has applied.
    #[error("{what} {index} is outside of the log, which covers {first} to {last}")]
    OutsideLog {
        /// "commit index" or "applied index".
        what: &'static str,
        /// Its value.
        index: u64,
        /// The index before the first entry.
        first: u64,
        /// The last entry's index.
        last: u64,
    },
    /// A member twice, or member 0.
    #[error("the recovered configuration is not one: voters {voters:?}, learners {learners:?}")]
    ConfState {
        /// As recovered.
        voters: Vec<u64>,
        /// As recovered.
        learners: Vec<u64>,
    },
    /// Raft refuses it for a reason of its own.
    #[error("raft: {0}")]
    Raft(String),
}

/// A proposal that did not enter any log and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader is known: try again later.
    #[error("no leader")]
    NoLeader,
    /// This leader is handing over: try again later, the new one may take it.
    #[error("leadership is being transferred")]
    Transferring,
    /// Too many bytes wait for their quorum: try again later.
    #[error("too many bytes are uncommitted")]
    TooMuchUncommitted,
    /// Another change of the configuration has not been applied yet: try again later.
    #[error("another configuration change is pending")]
    ConfChangePending,
    /// Not a change of the configuration that can be made.
    #[error(transparent)]
    ConfChange(#[from] ConfChangeError),
}

/// A change of the configuration that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfChangeError {
    /// Not a `raftpb.ConfChange`.
    #[error("not a configuration change")]
    Malformed,
    /// A kind of change from the future.
    #[error("unknown kind {0} of configuration change")]
    UnknownKind(i32),
    /// Member 0 does not exist.
    #[error("a configuration change without a member")]
    NoMember,
    /// Raft refused it: it would leave no voter. When applying, the process must end.
    #[error("raft refused a committed configuration change")]
    Refused,
}

/// A linearizable read that cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// No leader is known: try again, with a fresh context.
    #[error("no leader")]
    NoLeader,
    /// This leader has not committed anything in its term yet: try again, with a fresh context.
    #[error("leader has not committed in its term")]
    NotYet,
    /// An empty context cannot be told from none.
    #[error("empty read context")]
    EmptyContext,
}

/// Bytes that are not a message which another member may send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a message at all.
    #[error("not a raft message: {0}")]
    Malformed(ProtobufError),
    /// A kind that never travels, or one from the future.
    #[error("kind {0} of message does not travel")]
    Kind(i32),
    /// An entry of a kind that is not understood here.
    #[error("kind {0} of entry")]
    EntryKind(i32),
    /// A message whose fields contradict each other or the protocol.
    #[error("{0}")]
    Field(&'static str),
    /// It proposes a change of the configuration that makes no sense.
    #[error(transparent)]
    ConfChange(#[from] ConfChangeError),
}

/// A message that was not taken. Drop it; the state is as if it never came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It is for another member.
    #[error("message for member {to:x}")]
    Misaddressed {
        /// The receiver that it names.
        to: u64,
    },
    /// It claims to come from this very member.
    #[error("message from myself")]
    FromMyself,
    /// An answer from somebody who is not in the configuration, perhaps no longer.
    #[error("answer from {from:x}, which is not a member")]
    UnknownSender {
        /// The sender that it names.
        from: u64,
    },
    /// A sender that knows more of this log than there is: one of the two lost data.
    #[error("the sender believes in entry {index}, but the log ends at {last_index}")]
    BeyondLog {
        /// The index that it names.
        index: u64,
        /// Where the log ends.
        last_index: u64,
    },
    /// A leader whose log contradicts what is committed here.
    #[error(
        "the sender has term {term} at entry {index}, but {committed_term} is committed before"
    )]
    BelowCommitted {
        /// The index that it names.
        index: u64,
        /// The term that it claims for it.
        term: u64,
        /// The term of the last committed entry.
        committed_term: u64,
    },
    /// A forwarded proposal that cannot be taken now.
    #[error("proposal dropped")]
    ProposalDropped,
    /// Raft refuses it for a reason of its own.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why leadership stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can hand over.
    #[error("not leader")]
    NotLeader,
    /// Only a voter can take over.
    #[error("{0:x} is not a voter")]
    NotVoter(u64),
}
