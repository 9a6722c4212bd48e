//! The rows that one step takes of a read that goes through all of them: bounded in number and bytes,
//! wherever they come from.

use super::{STEP_BYTES_MAX, step_keys};
use crate::mvcc::{Revision, Row, Rows, RowsError, ScanBounds};

/// The first of `recent`, the rows that the window holds.
pub(super) fn of_window<'a>(recent: impl Iterator<Item = &'a Row>) -> Vec<Row> {
    let (mut slice, mut bytes) = (Vec::new(), 0);
    for row in recent.take(step_keys()) {
        bytes += row.stored.len();
        slice.push(row.clone());
        if bytes >= STEP_BYTES_MAX {
            break;
        }
    }
    slice
}

/// The next rows of the store, which is sure to hold all up to `floor`, and where to read on.
///
/// It may already hold a part of what comes behind the floor: that is left to the window.
pub(super) fn of_store(
    rows: &dyn Rows,
    from: Revision,
    floor: i64,
) -> Result<(Vec<Row>, Revision), RowsError> {
    let bounds = ScanBounds { rows_max: step_keys(), bytes_max: STEP_BYTES_MAX };
    let mut slice = Vec::new();
    let has_more = rows.scan_within(from, bounds, &mut slice)?;
    let scanned = slice.len();
    slice.retain(|row| row.key.revision().main <= floor);
    let is_last = !has_more || slice.len() < scanned;
    let resume = match slice.last() {
        Some(last) if !is_last => last.key.revision().next(),
        _ => Revision::new(floor + 1, 0),
    };
    Ok((slice, resume))
}
