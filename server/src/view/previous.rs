//! The versions that changes replaced, for watchers that want them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Gaps, Pin, View, step_keys};
use crate::mvcc::{Revision, Rows, RowsError};

impl View {
    /// For each key and main revision, the stored version that was visible just before it; `None` if
    /// there was none, or if that moment is compacted, as in etcd.
    ///
    /// # Errors
    /// [`RowsError`] if the store cannot be read.
    pub fn previous(
        self: &Arc<Self>,
        changes: &[(Bytes, i64)],
        rows: &dyn Rows,
    ) -> Result<Vec<Option<Bytes>>, RowsError> {
        let mut found = Vec::with_capacity(changes.len());
        for slice in changes.chunks(step_keys()) {
            self.previous_step(slice, rows, &mut found)?;
        }
        Ok(found)
    }

    fn previous_step(
        self: &Arc<Self>,
        changes: &[(Bytes, i64)],
        rows: &dyn Rows,
        found: &mut Vec<Option<Bytes>>,
    ) -> Result<(), RowsError> {
        let (mut gaps, mut stored) = (Gaps::default(), Vec::with_capacity(changes.len()));
        let mut exists = Vec::with_capacity(changes.len());
        let space = self.read();
        let compacted = space.compact_revision();
        let readable = changes.iter().map(|(_, main)| main - 1).filter(|at| *at >= compacted);
        // What is looked up here is still there when the store is read.
        let _pin = readable.min().map(|at| Pin::new(self.clone(), at));
        for (key, main) in changes {
            let at = Revision::end_of(main - 1);
            let version = (at.main >= compacted).then(|| space.index().at(key, at)).flatten();
            exists.push(version.is_some());
            if let Some(version) = version {
                gaps.push(version.revision, space.recent(version.revision).cloned(), &mut stored);
            }
        }
        drop(space);
        gaps.fill(rows, &mut stored)?;
        let mut stored = stored.into_iter();
        found.extend(exists.into_iter().map(|exists| exists.then(|| stored.next()).flatten()));
        Ok(())
    }
}
