//! Stored rows, and the trait behind which the flushed ones are.

use bytes::Bytes;

use super::{Revision, RowKey};

/// One immutable change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it happened, and whether it was a deletion.
    pub key: RowKey,
    /// The `mvccpb.KeyValue` in wire form. Of a tombstone: its `key` field only.
    pub stored: Bytes,
}

impl Row {
    /// What the row counts for quota and window, in bytes: key, value and 16 for the tree.
    pub fn cost_bytes(&self) -> u64 {
        (self.key.as_bytes().len() + self.stored.len() + 16) as u64
    }
}

/// The flushed rows, as the state store holds them.
///
/// Implementations open what they need for one call and hold nothing between calls.
pub trait Rows: Send + Sync {
    /// Appends the stored bytes of the put at each of `revisions` to `out`, in the order given.
    ///
    /// # Errors
    /// [`RowsError::Missing`] if a row is not there; [`RowsError::Corrupt`] and [`RowsError::Io`] if
    /// the store cannot be read.
    fn get_many(&self, revisions: &[Revision], out: &mut Vec<Bytes>) -> Result<(), RowsError>;

    /// Appends rows (puts and tombstones) with revision at or above `from`, in ascending order, to `out`,
    /// as far as `bounds`; returns whether there may be more.
    ///
    /// # Errors
    /// [`RowsError::Corrupt`] and [`RowsError::Io`] if the store cannot be read.
    fn scan_within(
        &self,
        from: Revision,
        bounds: ScanBounds,
        out: &mut Vec<Row>,
    ) -> Result<bool, RowsError>;

    /// As [`Rows::scan_within`], without a bound on bytes. Fewer than `rows_max` rows means that there
    /// are no more.
    ///
    /// # Errors
    /// As [`Rows::scan_within`].
    fn scan(&self, from: Revision, rows_max: usize, out: &mut Vec<Row>) -> Result<(), RowsError> {
        self.scan_within(from, ScanBounds { rows_max, bytes_max: usize::MAX }, out).map(drop)
    }
}

/// Where a scan stops, at the latest after the row that reaches a bound.
#[derive(Clone, Copy, Debug)]
pub struct ScanBounds {
    /// Rows.
    pub rows_max: usize,
    /// Their stored bytes.
    pub bytes_max: usize,
}

/// Why rows could not be read. Never a reply to a client: the process ends with it.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The index knows a revision that the store does not hold.
    #[error("row {0} is in the index but not in the state store")]
    Missing(Revision),
    /// The store holds a row that is not one.
    #[error("row {0} in the state store cannot be read")]
    Damaged(Revision),
    /// The store does not hold what was written to it; the text names the file and what is wrong.
    #[error("cannot read the state store: {0}")]
    Corrupt(String),
    /// Reading failed.
    #[error("cannot read the state store: {0}")]
    Io(String),
}

impl RowsError {
    /// Whether the store is damaged, rather than the disk unwilling.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}
