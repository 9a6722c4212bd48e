//! The way to the owner thread: bounded lanes of events, request ids, replies.
//!
//! A [`Handle`] is what everyone but the owner holds. Requests go in as events and come back as
//! replies; reads go past the owner, to the [`View`](crate::view::View), after [`Handle::linearize`].

mod status;

use std::sync::Arc;

use bytes::Bytes;

use crate::mvcc::Rows;
use crate::state_machine::{Alarm, Member};
pub use crate::state_machine::{ApplyError, Response};
use crate::view::{Pin, View};

pub use status::Status;

/// The shared end of the owner's queue. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    view: Arc<View>,
    rows: Arc<dyn Rows>,
    status: Status,
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

/// Why a request has no result. What was proposed may still be applied after any but the first three.
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

impl Handle {
    /// Proposes an encoded `etcdserverpb.InternalRaftRequest` and waits until it is applied here.
    ///
    /// # Errors
    /// [`RequestError`]; after a timeout the outcome is unknown.
    pub async fn propose(&self, command: Bytes) -> Result<Committed, RequestError> {
        let _ = command;
        unimplemented!()
    }

    /// Waits until a read of the view is linearizable. One round serves all who wait.
    ///
    /// # Errors
    /// [`RequestError`]; the read may be tried again.
    pub async fn linearize(&self) -> Result<(), RequestError> {
        unimplemented!()
    }

    /// Waits until the compaction at `revision` has deleted its rows durably (`physical`).
    ///
    /// # Errors
    /// [`RequestError::Stopped`] if the member shuts down before.
    pub async fn compaction_finished(&self, revision: i64) -> Result<(), RequestError> {
        let _ = revision;
        unimplemented!()
    }

    /// Gives unused space of the state store back to the file system and waits until it is done.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] if the member shuts down before.
    pub async fn defragment(&self) -> Result<(), RequestError> {
        unimplemented!()
    }

    /// What readers see.
    pub fn view(&self) -> &Arc<View> {
        &self.shared.view
    }

    /// The flushed rows, for reads through the view.
    pub fn rows(&self) -> &Arc<dyn Rows> {
        &self.shared.rows
    }

    /// What the owner publishes about itself.
    pub fn status(&self) -> &Status {
        &self.shared.status
    }

    /// The members, by ID.
    pub fn members(&self) -> Arc<Vec<Member>> {
        unimplemented!()
    }

    /// The raised alarms, by member ID and kind.
    pub fn alarms(&self) -> Arc<Vec<Alarm>> {
        unimplemented!()
    }

    /// Ends the process: `reason` is what a person should read. For failures of the store in a read.
    pub fn fail(&self, reason: String) {
        let _ = reason;
        unimplemented!()
    }
}
