//! What a turn of the agreement asks of its owner.

use bytes::Bytes;

use super::message::Message;
use super::types::{Entry, HardState};

/// What is ready to be written, sent and applied.
///
/// The owner does all of it, in any order, except that `committed` entries are applied in theirs. It
/// may go on feeding inputs and taking further `Ready`s before the write is on disk; writes must reach
/// the disk in the order of the `Ready`s.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ready {
    /// To append to the log on disk. If the first is not the next index, the log is first cut so that
    /// it is: another leader's entries replace those that follow.
    pub entries: Vec<Entry>,
    /// To write after `entries`, if it changed.
    pub hard_state: Option<HardState>,
    /// If set, `entries` and `hard_state` must be synced, and then this number given to
    /// [`Consensus::persisted`](super::Consensus::persisted). It acknowledges all lower ones too.
    ///
    /// If not, there is at most a `hard_state` with a new commit index. It may be written at any time,
    /// or replaced by the next one: forgetting it costs nothing but a little work at the next start.
    pub sync: Option<u64>,
    /// May leave at once. What would promise something that is not on disk yet is not here, but in the
    /// `Ready` after the write was reported.
    pub messages: Vec<Message>,
    /// To apply, in this order. Report progress by
    /// [`Consensus::applied`](super::Consensus::applied).
    pub committed: Vec<Entry>,
    /// Reads whose index is known now.
    pub read_states: Vec<ReadState>,
    /// Who leads and in which term, if any of that changed.
    pub soft_state: Option<SoftState>,
}

/// The answer to [`Consensus::read_index`](super::Consensus::read_index): a read may be served once
/// `index` is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// What the request was given.
    pub context: Bytes,
    /// The last index that was committed when the leader saw the request.
    pub index: u64,
}

/// What a member believes about leadership; gone at a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// The member's current term.
    pub term: u64,
    /// The leader of that term, 0 for unknown.
    pub leader_id: u64,
    /// Whether this member is it.
    pub is_leader: bool,
}
