//! What the earlier writes of a transaction leave of a key, without a look at each of them.
//!
//! Only deletions matter to whoever asks whether a key is still there, and the puts that came after one.
//! A deleted range takes what was known of the keys within it, so all of it together costs O(log n) per
//! write.
//!
//! ```text
//! delete a     delete c..f     put d      |  a: gone   b: not written   c: gone   d: there   e: gone
//! delete d..z                             |  d: gone   e: gone (c..z)
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{KeyRange, RangeEnd};

/// The writes of a transaction up to one of its operations.
#[derive(Default)]
pub(super) struct Writes<'a> {
    /// Keys that were deleted one by one, or put after a deletion: whether each is there.
    keys: BTreeMap<&'a [u8], bool>,
    /// Deleted ranges, end by start; no two touch. Each is older than what `keys` says.
    ranges: BTreeMap<&'a [u8], End<'a>>,
}

/// Where a deleted range ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End<'a> {
    Before(&'a [u8]),
    Never,
}

impl<'a> Writes<'a> {
    /// Takes a put.
    pub(super) fn put(&mut self, key: &'a [u8]) {
        if self.is_deleted(key) {
            self.keys.insert(key, true);
        }
    }

    /// Takes a deletion.
    pub(super) fn delete(&mut self, keys: &'a KeyRange) {
        let start = keys.start.as_ref();
        match &keys.end {
            RangeEnd::Single => {
                self.keys.insert(start, false);
            }
            RangeEnd::Before(end) => self.delete_range(start, End::Before(end)),
            RangeEnd::Unbounded => self.delete_range(start, End::Never),
        }
    }

    /// Whether the last write of `key` deleted it.
    pub(super) fn is_deleted(&self, key: &[u8]) -> bool {
        if let Some(is_there) = self.keys.get(key) {
            return !is_there;
        }
        let upto_key = (Bound::Unbounded, Bound::Included(key));
        self.ranges.range::<[u8], _>(upto_key).next_back().is_some_and(|(_, end)| end.is_above(key))
    }

    fn delete_range(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        if !end.is_above(start) {
            return;
        }
        // What is taken out here was put in by an earlier write: each pays for that once.
        while let Some((&key, _)) = self.keys.range(start..).next().filter(|at| end.is_above(at.0))
        {
            self.keys.remove(key);
        }
        while let Some((&other_start, &other_end)) = self.last_range_upto(end)
            && other_end >= End::Before(start)
        {
            (start, end) = (start.min(other_start), end.max(other_end));
            self.ranges.remove(other_start);
        }
        self.ranges.insert(start, end);
    }

    fn last_range_upto(&self, end: End<'a>) -> Option<(&&'a [u8], &End<'a>)> {
        match end {
            End::Before(end) => self.ranges.range(..=end).next_back(),
            End::Never => self.ranges.last_key_value(),
        }
    }
}

impl End<'_> {
    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < *end,
            Self::Never => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        ("[a-d]{0,2}", prop::option::of(prop::option::of("[a-e]{0,2}"))).prop_map(|(start, end)| {
            let end = match end {
                None => RangeEnd::Single,
                Some(None) => RangeEnd::Unbounded,
                Some(Some(end)) => RangeEnd::Before(end.into()),
            };
            KeyRange { start: start.into(), end }
        })
    }

    proptest! {
        #[test]
        fn a_key_is_deleted_if_the_last_write_that_touches_it_is_a_deletion(
            writes in prop::collection::vec((any::<bool>(), range()), 0..25),
            keys in prop::collection::vec("[a-e]{0,3}", 20),
        ) {
            let mut known = Writes::default();
            for (at, (is_put, keys_of)) in writes.iter().enumerate() {
                match is_put {
                    true => known.put(&keys_of.start),
                    false => known.delete(keys_of),
                }
                let touched = |key: &[u8]| {
                    writes[..=at].iter().rev().find_map(|(is_put, keys)| match is_put {
                        true => (keys.start == key).then_some(false),
                        false => keys.contains(key).then_some(true),
                    })
                };
                let all = keys.iter().map(String::as_bytes);
                for key in all.chain(writes.iter().map(|(_, keys)| keys.start.as_ref())) {
                    prop_assert_eq!(known.is_deleted(key), touched(key).unwrap_or(false));
                }
            }
        }
    }
}
