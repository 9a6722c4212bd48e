//! What a reader sees: the key space behind the one lock, at a fixed revision, in short steps.
//!
//! A [`View`] is shared by the owner, who alone writes, and by every reader. A read is a step function:
//! each step takes the read lock for at most [`STEP_KEYS_MAX`] keys, collects revisions and what the
//! recent window holds, lets go of the lock, and only then asks [`Rows`] for the rest. In between
//! nothing can change under it: a revision, once written, never changes, and the read *pins* its
//! revision, so compaction leaves alone what it still needs.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::mvcc::{KeySpace, RangeQuery, Revision, Rows, RowsError};

/// The most keys that one step looks at under the lock.
pub const STEP_KEYS_MAX: usize = 1000;

/// The key space as owner and readers share it.
pub struct View {
    space: RwLock<KeySpace>,
}

/// A revision that compaction must leave readable until this is dropped or expires.
pub struct Pin {
    view: Arc<View>,
    revision: i64,
}

/// Why a read ends without a result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision was compacted, or the read's pin expired.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision has not happened yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The store cannot be read; the process must end.
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// What a finished range says beside its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeSummary {
    /// All keys in the range at its revision, whatever limit and bounds say.
    pub count: i64,
    /// Whether the limit cut something.
    pub more: bool,
}

/// The hash of a key space at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSummary {
    /// CRC-32C over the rows, as etcd's `HashKV` has it.
    pub hash: u32,
    /// The compact revision when the hash began.
    pub compact_revision: i64,
}

/// A hash being computed.
pub struct HashRead {
    _pin: Arc<Pin>,
}

/// A range being read.
pub struct RangeRead {
    _pin: Arc<Pin>,
}

impl View {
    /// Shares `space`.
    pub fn new(space: KeySpace) -> Arc<Self> {
        Arc::new(Self { space: RwLock::new(space) })
    }

    /// The key space for its owner. Lock order: nothing is locked while this is held but the pins.
    pub fn write(&self) -> RwLockWriteGuard<'_, KeySpace> {
        self.space.write()
    }

    /// The revision of the last visible change.
    pub fn current_revision(&self) -> i64 {
        unimplemented!()
    }

    /// See [`KeySpace::compact_revision`].
    pub fn compact_revision(&self) -> i64 {
        unimplemented!()
    }

    /// Pins `revision`; 0 or less pins the current one.
    ///
    /// # Errors
    /// `Compacted` below the compact revision, `FutureRevision` above the current one.
    pub fn pin(self: &Arc<Self>, revision: i64) -> Result<Pin, ReadError> {
        let _ = revision;
        unimplemented!()
    }

    /// Starts to read `query` as of `at` (inclusive), under a pin of `at.main` or earlier.
    pub fn range(self: &Arc<Self>, query: RangeQuery, at: Revision, pin: Arc<Pin>) -> RangeRead {
        let _ = (query, at);
        RangeRead { _pin: pin }
    }

    /// Starts to hash the key space at the revision of `pin`.
    pub fn hash(self: &Arc<Self>, pin: Arc<Pin>) -> HashRead {
        HashRead { _pin: pin }
    }

    /// Appends the rows at `revisions`, in order, to `out`: from the window, else from `rows`.
    ///
    /// # Errors
    /// `Compacted` if `pin` expired; `Rows` if the store cannot be read.
    pub fn stored(
        &self,
        revisions: &[Revision],
        pin: &Pin,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let _ = (revisions, pin, rows, out);
        unimplemented!()
    }

    /// One tick of the owner's clock; pins older than their bound expire.
    pub fn tick(&self) {
        unimplemented!()
    }

    /// The oldest pinned revision, for [`KeySpace::compact_step`].
    pub fn oldest_pin(&self) -> Option<i64> {
        unimplemented!()
    }
}

impl Pin {
    /// The pinned revision (main).
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let _ = &self.view;
    }
}

impl RangeRead {
    /// Reads on, appending `mvccpb.KeyValue`s in wire form to `out` (values cut off for `keys_only`);
    /// `Some` when the range is complete. Sorted or bounded reads may append everything in their last step.
    ///
    /// # Errors
    /// As [`View::stored`].
    pub fn step(
        &mut self,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<Option<RangeSummary>, ReadError> {
        let _ = (rows, out);
        unimplemented!()
    }
}

impl HashRead {
    /// Hashes on; `Some` when all rows are in.
    ///
    /// # Errors
    /// As [`View::stored`].
    pub fn step(&mut self, rows: &dyn Rows) -> Result<Option<HashSummary>, ReadError> {
        let _ = rows;
        unimplemented!()
    }
}
