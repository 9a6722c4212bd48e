//! The newest rows, as the recent window has them.

use super::View;
use crate::mvcc::{Revision, Row, ScanBounds};

/// What the window said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Whether it holds everything from the asked revision on; else nothing was read.
    pub is_held: bool,
    /// Everything up to this main revision can be read from the store.
    pub floor: i64,
    /// The current revision.
    pub current: i64,
    /// Whether there are more rows than were read.
    pub has_more: bool,
}

impl View {
    /// Appends rows from `from` on to `out`, as far as `bounds`, if the window holds all from there on.
    pub fn recent_rows(&self, from: Revision, bounds: ScanBounds, out: &mut Vec<Row>) -> Recent {
        let space = self.read();
        let rows = space.recent_rows(from);
        let is_held = rows.is_some();
        let (mut rows, mut found, mut bytes) = (rows.into_iter().flatten(), 0, 0);
        while found < bounds.rows_max
            && bytes < bounds.bytes_max
            && let Some(row) = rows.next()
        {
            found += 1;
            bytes += row.stored.len();
            out.push(row.clone());
        }
        let has_more = rows.next().is_some();
        Recent { is_held, floor: space.window_floor(), current: space.current_revision(), has_more }
    }
}
