//! The rows of a key before its newest: few for most keys, millions for one that is written all the time.
//!
//! Few are one vector. Many are chunks of a fixed length, so that no step has to move them all: adding one
//! fills the last chunk or begins another, and dropping the oldest gives whole chunks back.
//!
//! ```text
//! few     [2.0  3.0]
//! many    [2.0 .. 1025.0] [1026.0 .. 2049.0] .. [3000.0  3001.0]      full, full, .., recent
//!          ^^^^^^^ dropped
//! ```

use std::collections::VecDeque;

use super::entry::Mark;

/// Marks of a chunk: moving them is some microseconds. Few in unit tests, so that short histories have
/// several.
pub(super) const CHUNK_MARKS: usize = if cfg!(test) { 4 } else { 1024 };

/// Marks, ascending.
#[derive(Clone, Debug)]
pub(super) enum Older {
    Few(Vec<Mark>),
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
pub(super) struct Many {
    /// Each of [`CHUNK_MARKS`]; at least one.
    full: VecDeque<Box<[Mark]>>,
    /// How many of the first chunk do not count any more, fewer than all.
    dropped: usize,
    /// Those after the full ones.
    recent: Vec<Mark>,
}

impl Default for Older {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Older {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(marks) => marks.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// The mark at a place below [`Older::len`].
    pub(super) fn get(&self, at: usize) -> Mark {
        match self {
            Self::Few(marks) => marks[at],
            Self::Many(many) => many.get(at),
        }
    }

    /// How many marks come before the first one for which `is_passed` is false. All that are passed come
    /// before all that are not.
    pub(super) fn count_passed(&self, is_passed: impl Fn(&Mark) -> bool) -> usize {
        match self {
            Self::Few(marks) => marks.partition_point(is_passed),
            Self::Many(many) => many.count_passed(is_passed),
        }
    }

    /// Adds the newest.
    pub(super) fn push(&mut self, mark: Mark) {
        match self {
            Self::Few(marks) if marks.len() == CHUNK_MARKS => {
                let full = VecDeque::from([std::mem::take(marks).into_boxed_slice()]);
                *self = Self::Many(Box::new(Many { full, dropped: 0, recent: vec![mark] }));
            }
            Self::Few(marks) => {
                if marks.is_empty() {
                    // Exactly one: most keys are compacted before they get a third row.
                    marks.reserve_exact(1);
                }
                marks.push(mark);
            }
            Self::Many(many) => many.push(mark),
        }
    }

    /// Drops so many of the oldest; there are as many.
    pub(super) fn drop_oldest(&mut self, count: usize) {
        match self {
            Self::Few(marks) => drop_first(marks, count),
            Self::Many(many) => {
                if let Some(few) = many.drop_oldest(count) {
                    *self = Self::Few(few);
                }
            }
        }
    }
}

impl Many {
    fn len(&self) -> usize {
        self.full.len() * CHUNK_MARKS - self.dropped + self.recent.len()
    }

    fn get(&self, at: usize) -> Mark {
        let at = at + self.dropped;
        match self.full.get(at / CHUNK_MARKS) {
            Some(chunk) => chunk[at % CHUNK_MARKS],
            None => self.recent[at - self.full.len() * CHUNK_MARKS],
        }
    }

    fn count_passed(&self, is_passed: impl Fn(&Mark) -> bool) -> usize {
        let whole = self.full.partition_point(|chunk| chunk.last().is_some_and(&is_passed));
        let chunk = self.full.get(whole).map_or(self.recent.as_slice(), AsRef::as_ref);
        // What was dropped does not count, passed or not.
        (whole * CHUNK_MARKS + chunk.partition_point(is_passed)).saturating_sub(self.dropped)
    }

    fn push(&mut self, mark: Mark) {
        if self.recent.len() == CHUNK_MARKS {
            self.full.push_back(std::mem::take(&mut self.recent).into_boxed_slice());
        }
        self.recent.push(mark);
    }

    /// As [`Older::drop_oldest`]. Returns what is left when no full chunk is.
    fn drop_oldest(&mut self, count: usize) -> Option<Vec<Mark>> {
        self.dropped += count;
        while self.dropped >= CHUNK_MARKS && self.full.pop_front().is_some() {
            self.dropped -= CHUNK_MARKS;
        }
        if !self.full.is_empty() {
            return None;
        }
        let mut few = std::mem::take(&mut self.recent);
        drop_first(&mut few, self.dropped);
        Some(few)
    }
}

fn drop_first(marks: &mut Vec<Mark>, count: usize) {
    marks.drain(..count);
    if marks.capacity() > 2 * marks.len() {
        marks.shrink_to_fit();
    }
}

// As large as a vector: what most keys with a history have.
const _: () = assert!(size_of::<Older>() == size_of::<Vec<Mark>>());

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::Revision;

    fn mark(main: i64) -> Mark {
        Mark::tombstone(Revision::new(main, 0), 1).unwrap()
    }

    proptest! {
        #[test]
        fn older_rows_are_a_queue_that_is_searched(
            steps in prop::collection::vec((0..9usize, 0..14usize), 1..40),
        ) {
            let (mut older, mut model) = (Older::default(), VecDeque::new());
            let mut main = 1;
            for (pushes, drops) in steps {
                for _ in 0..pushes {
                    main += 2;
                    older.push(mark(main));
                    model.push_back(mark(main));
                }
                let drops = drops.min(model.len());
                older.drop_oldest(drops);
                model.drain(..drops);
                prop_assert_eq!(older.len(), model.len());
                prop_assert!((0..older.len()).all(|at| older.get(at) == model[at]));
                for upto in 0..main + 2 {
                    let is_passed = |mark: &Mark| mark.revision().main <= upto;
                    let expected = model.partition_point(is_passed);
                    prop_assert_eq!(older.count_passed(is_passed), expected);
                }
                let is_few = matches!(older, Older::Few(_));
                prop_assert!(!is_few || older.len() <= CHUNK_MARKS);
            }
        }
    }
}
