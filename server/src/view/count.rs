//! How many keys a range has, without a walk, in bounded steps.
//!
//! The index knows the number now. What a moment in the past differs by is in the window: which keys
//! began and ended since. There may be very many of those, so a step looks at some of them only.
//!
//! ```text
//! now 10 keys, at 8.0         changes since: 9.0 a began, 10.0 b ended, 11.0 c began
//! count as of 8.0             10 - (1 - 1 + 1) = 9
//! ```

use super::step_keys;
use crate::mvcc::{KeyRange, KeySpace, Revision};

/// A count under way.
#[derive(Default)]
pub(super) enum Count {
    #[default]
    Begun,
    /// The count as of `upto`, less what was added up of the changes up to `from`.
    Since {
        count: i64,
        from: Revision,
        upto: Revision,
    },
    Known(i64),
    /// The window has forgotten what it takes: the keys have to be walked.
    Unknown,
}

impl Count {
    /// Looks at some of the changes since `at`; whether it is clear what this comes to.
    pub(super) fn advance(&mut self, space: &KeySpace, range: &KeyRange, at: Revision) -> bool {
        let (count, from, upto) = match *self {
            Self::Begun => (space.count(range), at, Revision::end_of(space.current_revision())),
            Self::Since { count, from, upto } => (count, from, upto),
            Self::Known(_) | Self::Unknown => return true,
        };
        *self = match space.growth(range, from, upto, step_keys()) {
            None => Self::Unknown,
            Some((growth, None)) => Self::Known(count - growth),
            Some((growth, Some(from))) => Self::Since { count: count - growth, from, upto },
        };
        !matches!(self, Self::Since { .. })
    }

    /// The number, if there is one.
    pub(super) fn known(&self) -> Option<i64> {
        if let Self::Known(count) = self { Some(*count) } else { None }
    }
}
