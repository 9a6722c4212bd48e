//! The state store in memory: what flushes bring, and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::mvcc::{Revision, Row, RowKey, Rows, RowsError, ScanBounds};

/// Called in the middle of each read, when the reader holds nothing.
pub(crate) type Hook = Box<dyn FnMut(&Store) + Send>;

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) rows: Mutex<BTreeMap<Revision, Row>>,
    pub(crate) hook: Mutex<Option<Hook>>,
    /// The most stored bytes that one scan gave.
    pub(crate) largest_scan_bytes: Mutex<usize>,
    /// How many values each read asked for.
    pub(crate) asked: Mutex<Vec<usize>>,
}

impl Store {
    pub(crate) fn insert(&self, rows: &[Row]) {
        let mut stored = self.rows.lock();
        for row in rows {
            let last = stored.last_key_value().map(|(at, _)| *at);
            assert!(last.is_none_or(|last| last < row.key.revision()), "rows are appended");
            stored.insert(row.key.revision(), row.clone());
        }
    }

    /// Deletes in the order given, as far as `rows_max`: a flush that is cut short is not committed,
    /// but one compaction takes many of them.
    pub(crate) fn delete(&self, deletions: &[RowKey]) {
        assert!(deletions.windows(2).all(|pair| pair[0] < pair[1]), "deletions ascend");
        let mut stored = self.rows.lock();
        for deletion in deletions {
            let gone = stored.remove(&deletion.revision());
            assert!(gone.is_none_or(|row| row.key == *deletion), "the row that was meant");
        }
    }

    fn interrupt(&self) {
        let hook = self.hook.lock().take();
        if let Some(mut hook) = hook {
            hook(self);
        }
    }
}

impl Rows for Store {
    fn get_many(&self, revisions: &[Revision], out: &mut Vec<Bytes>) -> Result<(), RowsError> {
        self.interrupt();
        self.asked.lock().push(revisions.len());
        let stored = self.rows.lock();
        for &revision in revisions {
            let row = stored.get(&revision).ok_or(RowsError::Missing(revision))?;
            assert!(!row.key.is_tombstone(), "tombstones are never read as values");
            out.push(row.stored.clone());
        }
        Ok(())
    }

    fn scan_within(
        &self,
        from: Revision,
        bounds: ScanBounds,
        out: &mut Vec<Row>,
    ) -> Result<bool, RowsError> {
        self.interrupt();
        let (mut rows, mut bytes, mut has_more) = (0, 0, false);
        for row in self.rows.lock().range(from..).map(|(_, row)| row) {
            if rows == bounds.rows_max || bytes >= bounds.bytes_max {
                has_more = true;
                break;
            }
            rows += 1;
            bytes += row.stored.len();
            out.push(row.clone());
        }
        let mut largest = self.largest_scan_bytes.lock();
        *largest = bytes.max(*largest);
        Ok(has_more)
    }
}
