//! A compare of a read-only transaction, evaluated in steps like a range.
//!
//! Numbers are in the index. Only a compare of values reads rows, and none after the first that decides.

use std::sync::Arc;

use bytes::Bytes;

use super::{Gaps, Pin, ReadError, STEP_BYTES_MAX, View, step_keys};
use crate::mvcc::{Compare, Revision, Rows, RowsError, stored};

/// A compare being evaluated.
pub struct CompareRead {
    view: Arc<View>,
    pin: Arc<Pin>,
    compare: Compare,
    at: Revision,
    /// The last key looked at.
    after: Option<Bytes>,
    found_any: bool,
}

impl View {
    /// Starts to evaluate `compare` on the state at `at` (inclusive), under a pin of `at.main` or earlier.
    pub fn compare(self: &Arc<Self>, compare: Compare, at: Revision, pin: Arc<Pin>) -> CompareRead {
        CompareRead { view: self.clone(), pin, compare, at, after: None, found_any: false }
    }
}

impl CompareRead {
    /// Looks at some more keys; `Some` once it is decided.
    ///
    /// # Errors
    /// As [`View::stored`].
    pub fn step(&mut self, rows: &dyn Rows) -> Result<Option<bool>, ReadError> {
        let needs_values = self.compare.needs_values();
        let (mut revisions, mut read, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut gaps, mut holds) = (Gaps::default(), true);
        let Self { view, pin, compare, at, after, found_any } = self;
        let space = view.read_pinned(pin)?;
        let keys = &compare.keys;
        let visit = &mut |_: &[u8], version: &crate::mvcc::index::Version| {
            *found_any = true;
            if !needs_values {
                holds = compare.holds_for(Some(version));
                return holds;
            }
            let recent = space.recent(version.revision).cloned();
            bytes += if recent.is_some() { 0 } else { version.stored_bytes as usize };
            revisions.push(version.revision);
            gaps.push(version.revision, recent, &mut read);
            bytes < STEP_BYTES_MAX
        };
        *after = space.index().walk(keys, after.as_deref(), *at, step_keys(), visit);
        drop(space);
        gaps.fill(rows, &mut read).map_err(|error| pin.explain(error))?;
        for (row, revision) in read.iter().zip(revisions) {
            let row = stored::decode(row).ok_or(RowsError::Damaged(revision))?;
            holds = holds && compare.holds_for_value(&row.value);
        }
        if !holds {
            return Ok(Some(false));
        }
        let is_last = after.is_none();
        Ok(is_last.then(|| *found_any || compare.holds_for(None)))
    }
}
