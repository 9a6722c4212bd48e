//! The newest rows, as the recent window has them.

use super::View;
use crate::mvcc::{Revision, Row};

/// What the window said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Whether it holds everything from the asked revision on; else nothing was read.
    pub is_held: bool,
    /// Everything up to this main revision can be read from the store.
    pub floor: i64,
    /// The current revision.
    pub current: i64,
}

impl View {
    /// Appends up to `rows_max` rows from `from` on to `out`, if the window holds all from there on.
    /// Fewer than `rows_max` are all up to the current revision.
    pub fn recent_rows(&self, from: Revision, rows_max: usize, out: &mut Vec<Row>) -> Recent {
        let space = self.read();
        let rows = space.recent_rows(from);
        let is_held = rows.is_some();
        out.extend(rows.into_iter().flatten().take(rows_max).cloned());
        Recent { is_held, floor: space.window_floor(), current: space.current_revision() }
    }
}
