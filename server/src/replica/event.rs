//! What goes into a replica and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;

use super::compaction::AutoCompaction;
use crate::consensus::{ConfState, Entry, HardState};
use crate::state_machine::{ApplyError, FlushBatch, Inventory, Response};
use crate::view::{History, Pin};

/// The name under which a request waits for its reply. Unique among all members and boots; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that happened to this member.
#[derive(Debug)]
pub enum Event {
    /// One heartbeat interval passed; after a delay one tick stands for all that were missed.
    Tick {
        /// Monotonic time since the last tick, in milliseconds, at most an election timeout: a member
        /// that was paused for a minute ends no lease for it.
        elapsed_ms: u64,
    },
    /// A client wants this command in the log; it carries the same id inside.
    Propose {
        /// Where the reply goes.
        id: RequestId,
        /// The encoded command.
        command: Bytes,
    },
    /// A client wants this change of the configuration; it carries the same id inside.
    ProposeConfChange {
        /// Where the reply goes.
        id: RequestId,
        /// The encoded `raftpb.ConfChange`.
        change: Bytes,
    },
    /// Somebody wants to read linearizably.
    ReadIndex {
        /// Where the reply goes.
        id: RequestId,
    },
    /// Somebody waits until the compaction at `revision` has deleted its rows durably.
    AwaitCompaction {
        /// Where the reply goes.
        id: RequestId,
        /// The compaction.
        revision: i64,
    },
    /// Somebody wants the whole state of one moment, keys and records alike.
    Capture {
        /// Where the reply goes.
        id: RequestId,
    },
    /// Somebody keeps a lease alive.
    Renew {
        /// Where the reply goes.
        id: RequestId,
        /// Which.
        lease: i64,
    },
    /// Somebody asks what is left of a lease.
    TimeToLive {
        /// Where the reply goes.
        id: RequestId,
        /// Which.
        lease: i64,
        /// Asks for its keys, at most [`LEASE_KEYS_MAX`](super::LEASE_KEYS_MAX) of those behind this one.
        keys_after: Option<Bytes>,
    },
    /// Somebody asks which leases there are.
    ListLeases {
        /// Where the reply goes.
        id: RequestId,
        /// Asks for those behind this one, at most [`LEASES_MAX`](super::LEASES_MAX).
        after: Option<i64>,
    },
    /// A write found the quota used up: it is refused with [`RequestError::NoSpace`] once this member's
    /// alarm says so, or after the time that requests have.
    RefuseForSpace {
        /// Where the reply goes.
        id: RequestId,
    },
    /// What is left of the file system, looked at now and then.
    DiskSpace {
        /// Whether writes that add have to be refused.
        is_low: bool,
        /// Whether there is so little that the log keeps nothing that is not needed.
        is_tight: bool,
    },
    /// The log is durable up to the [`Persist`] with this number, and all before it.
    Persisted {
        /// [`Persist::sync`].
        sync: u64,
    },
    /// The batch that was handed out last is durable, and readers of rows see it.
    Flushed {
        /// Its generation.
        generation: u64,
        /// Its applied index.
        applied_index: u64,
    },
}

/// Something to be done, in the order of the list.
#[derive(Debug)]
pub enum Effect {
    /// Append to the log; if it has a number, sync and report [`Event::Persisted`].
    Persist(Persist),
    /// Append a record of the configuration to the log and sync it.
    PersistConfState {
        /// The entry that made it.
        index: u64,
        /// Its term.
        term: u64,
        /// The configuration from there on.
        conf_state: ConfState,
    },
    /// Answer a request.
    Reply {
        /// Which.
        id: RequestId,
        /// What.
        reply: Reply,
    },
    /// Write a batch to the state store in one durable transaction, then report [`Event::Flushed`].
    Flush(FlushBatch),
    /// Nothing is left to do: a compaction was proposed without being asked for.
    AutoCompact {
        /// The revision to keep readable.
        revision: i64,
        /// The rule that chose it.
        mode: AutoCompaction,
    },
    /// Entries up to this index are flushed, so this member no longer needs them from the log. That holds
    /// for a lone one: none is kept for a follower that lags, which is what a cluster has to change.
    ReleaseLog {
        /// The last such entry.
        upto: u64,
        /// Keep none of them: the space is needed.
        is_tight: bool,
    },
}

/// What must be in the log before what depends on it leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// Contiguous; may overwrite the end of the log.
    pub entries: Vec<Entry>,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// If set, all of this and what came before must be synced, and then reported with this number.
    /// If not, losing it in a crash is harmless.
    pub sync: Option<u64>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// A command was committed and applied.
    Committed(Committed),
    /// A read of the view from now on is linearizable with the moment of the request.
    ReadReady,
    /// The compaction is finished.
    CompactionFinished,
    /// The whole state of one moment.
    Captured(Box<Capture>),
    /// A lease has its full time again.
    Renewed {
        /// What was granted, in seconds; 0 if there is no such lease.
        ttl_s: i64,
    },
    /// What is left of a lease; `None` if there is no such lease.
    TimeToLive(Option<TimeToLive>),
    /// A page of the leases by ID, each behind what is left of it in milliseconds. An empty one is the last.
    Leases(Vec<(u64, i64)>),
    /// There is no result.
    Failed(RequestError),
}

/// What is left of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// What was granted, in seconds.
    pub ttl_s: i64,
    /// What is left of it, in milliseconds.
    pub remaining_ms: u64,
    /// The page of its keys that was asked for, ascending.
    pub keys: Vec<Bytes>,
}

/// A proposal that was committed and applied.
pub struct Committed {
    /// The term in which this member answers, for `header.raft_term`.
    pub term: u64,
    /// What apply said.
    pub result: Result<Response, ApplyError>,
    /// Keeps the rows readable that the reply still needs.
    pub pin: Option<Arc<Pin>>,
}

impl std::fmt::Debug for Committed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committed")
            .field("term", &self.term)
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

/// The whole state of one moment between two entries.
pub struct Capture {
    /// Its keys, pinned until this is dropped.
    pub history: Arc<History>,
    /// Everything else.
    pub inventory: Inventory,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("revision", &self.history.revision())
            .field("inventory", &self.inventory)
            .finish_non_exhaustive()
    }
}

/// Why a request has no result. After a timeout a proposal may still be applied: it is *unknown*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The queue, or the gap between commit and apply, is full.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded command is larger than `--max-request-bytes`.
    #[error("request is too large")]
    TooLarge,
    /// The quota does not admit the command; a NOSPACE alarm is being raised.
    #[error("database space exceeded")]
    NoSpace,
    /// There was no answer in time.
    #[error("request timed out")]
    Timeout,
    /// There is no leader.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request waited.
    #[error("leader changed")]
    LeaderChanged,
    /// The proposal was dropped by raft.
    #[error("raft proposal dropped")]
    Dropped,
    /// The member is shutting down.
    #[error("server stopped")]
    Stopped,
}
