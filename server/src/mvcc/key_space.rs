//! The key space: index, window and revisions, changed by one writer.

use super::{Applied, DeleteRange, MvccError, Put, Row, RowKey, Rows, RowsError, Txn};

/// Bounds of the key space's memory and steps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What the recent window may hold of flushed rows, in bytes. Unflushed rows always stay.
    pub window_bytes_max: u64,
}

/// Logical sizes in bytes, as quota and `Status` count them (row key, value and 16 per row).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Every stored revision, without those that compaction took out of the index.
    pub in_use_bytes: u64,
    /// `in_use_bytes`, and what is compacted but whose deletion is not flushed yet.
    pub total_bytes: u64,
}

/// Everything about keys that is in memory.
pub struct KeySpace {
    _limits: Limits,
}

/// Rows and deletions that belong into one flush.
#[derive(Debug, Default)]
pub struct Unflushed {
    /// New rows, ascending.
    pub rows: Vec<Row>,
    /// Rows that compaction deletes, ascending.
    pub deletions: Vec<RowKey>,
}

impl KeySpace {
    /// An empty key space at revision 1.
    pub fn new(limits: Limits) -> Self {
        Self { _limits: limits }
    }

    /// The revision of the last change, 1 if there was none.
    pub fn current_revision(&self) -> i64 {
        unimplemented!()
    }

    /// The revision up to which history was compacted; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        unimplemented!()
    }

    /// Logical sizes.
    pub fn sizes(&self) -> Sizes {
        unimplemented!()
    }

    /// Applies a put.
    ///
    /// # Errors
    /// Outer: the store cannot be read (the process ends). Inner: the deterministic refusal.
    pub fn put(
        &mut self,
        put: &Put,
        rows: &dyn Rows,
    ) -> Result<Result<Applied, MvccError>, RowsError> {
        let _ = (put, rows);
        unimplemented!()
    }

    /// Applies a deletion; one that deletes nothing leaves the revision as it is.
    pub fn delete_range(&mut self, request: &DeleteRange) -> Applied {
        let _ = request;
        unimplemented!()
    }

    /// Applies a transaction: checks first, then compares, then all of one branch, or nothing.
    /// `lease_known` decides [`MvccError::LeaseNotFound`] for puts with a lease, before anything is changed.
    ///
    /// # Errors
    /// As [`KeySpace::put`].
    pub fn txn(
        &mut self,
        txn: &Txn,
        lease_known: &dyn Fn(i64) -> bool,
        rows: &dyn Rows,
    ) -> Result<Result<Applied, MvccError>, RowsError> {
        let _ = (txn, lease_known, rows);
        unimplemented!()
    }

    /// Schedules a compaction: `compact_revision` moves at once, the index follows by [`KeySpace::compact_step`].
    ///
    /// # Errors
    /// `Compacted` at or below the present compact revision, `FutureRevision` above the current one.
    pub fn compact(&mut self, revision: i64) -> Result<(), MvccError> {
        let _ = revision;
        unimplemented!()
    }

    /// Whether a compaction has index work left (a pinned revision may hold it back).
    pub fn compaction_pending(&self) -> bool {
        unimplemented!()
    }

    /// Walks at most `keys_max` keys of a scheduled compaction, never dropping what a read pinned at
    /// `oldest_pin` or later still needs. Returns the revision of a compaction that this step finished in the index.
    pub fn compact_step(&mut self, keys_max: usize, oldest_pin: Option<i64>) -> Option<i64> {
        let _ = (keys_max, oldest_pin);
        unimplemented!()
    }

    /// Bytes of rows that no flush has taken yet.
    pub fn unflushed_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Takes what the next flush must write: all rows not taken yet, and up to `deletions_max`
    /// deletions of finished index compactions.
    pub fn take_unflushed(&mut self, deletions_max: usize) -> Unflushed {
        let _ = deletions_max;
        unimplemented!()
    }

    /// A flush up to `revision` can be seen by readers: the window may evict.
    pub fn flushed(&mut self, revision: i64, deleted: &[RowKey]) {
        let _ = (revision, deleted);
        unimplemented!()
    }
}
