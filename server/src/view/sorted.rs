//! The keys of a sorted or bounded reply, put into its order as they come.
//!
//! Such a read has to see every key before it hands on the first. No step pays for all of them: each
//! key finds its place when it is added, and with a limit only the best so far are kept.
//!
//! ```text
//! largest mod first, limit 2    add a (mod 5), b (mod 9), c (mod 7)    kept: b, c    more
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::range::Found;
use crate::mvcc::{RangeQuery, Sort, SortTarget};

/// Keys in the order of the reply, no more of them than its limit.
pub(super) struct Sorted {
    sort: Sort,
    /// How many the reply may have.
    limit: usize,
    /// No key behind the one beyond the limit, in key order, can be in the reply.
    first_are_enough: bool,
    /// How many were added.
    added: usize,
    /// By rank, and of equal ones in key order, whichever the direction.
    kept: BTreeMap<(Rank, usize), Found>,
}

/// What comes first in the reply has the smallest. All of one reply are of one kind.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i64),
    Value(Bytes),
    ValueDescending(Reverse<Bytes>),
}

impl Sorted {
    /// None of the keys yet. `limit` is `None` for no limit.
    pub(super) fn new(query: &RangeQuery, limit: Option<usize>) -> Self {
        let by_key = Sort { target: SortTarget::Key, descending: false, limit_first: false };
        let sort = query.sort.unwrap_or(by_key);
        let is_by_key = sort.target == SortTarget::Key && !sort.descending;
        Self {
            sort,
            limit: limit.unwrap_or(usize::MAX),
            first_are_enough: is_by_key || sort.limit_first && !query.bounds.is_set(),
            added: 0,
            kept: BTreeMap::new(),
        }
    }

    /// How many more keys it can use; behind those, none matters.
    pub(super) fn wants(&self) -> usize {
        match self.first_are_enough {
            // One beyond the limit says that there are more.
            true => self.limit.saturating_add(1).saturating_sub(self.added),
            false => usize::MAX,
        }
    }

    /// Whether the limit cut something.
    pub(super) fn is_cut(&self) -> bool {
        self.added > self.limit
    }

    pub(super) fn is_by_value(&self) -> bool {
        self.sort.target == SortTarget::Value
    }

    /// Adds the next key in key order, with its value if the order is by value.
    pub(super) fn add(&mut self, found: Found, value: Bytes) {
        let rank = self.rank(&found, value);
        self.kept.insert((rank, self.added), found);
        self.added += 1;
        if self.kept.len() > self.limit {
            self.kept.pop_last();
        }
    }

    /// The next key of the reply.
    pub(super) fn take_first(&mut self) -> Option<Found> {
        self.kept.pop_first().map(|(_, found)| found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn rank(&self, found: &Found, value: Bytes) -> Rank {
        let version = &found.version;
        let number = match self.sort.target {
            SortTarget::Value if self.sort.descending => {
                return Rank::ValueDescending(Reverse(value));
            }
            SortTarget::Value => return Rank::Value(value),
            SortTarget::Key => i64::try_from(self.added).unwrap_or(i64::MAX),
            SortTarget::Version => version.version,
            SortTarget::Create => version.create_revision,
            SortTarget::Mod => version.revision.main,
        };
        Rank::Number(if self.sort.descending { !number } else { number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::index::Version;
    use crate::mvcc::{KeyRange, Revision, RevisionBounds};

    fn found(number: i64) -> Found {
        let version = Version {
            revision: Revision::new(number, 0),
            create_revision: 1,
            version: 1,
            lease: 0,
            stored_bytes: 1,
        };
        Found { version, key: Bytes::new(), recent: None }
    }

    #[test]
    fn no_more_keys_are_kept_than_the_limit_and_they_are_the_first_of_a_sort() {
        for (target, descending) in [
            (SortTarget::Key, true),
            (SortTarget::Mod, false),
            (SortTarget::Mod, true),
            (SortTarget::Value, false),
            (SortTarget::Value, true),
        ] {
            let query = RangeQuery {
                keys: KeyRange::all(),
                limit: 10,
                sort: Some(Sort { target, descending, limit_first: false }),
                keys_only: false,
                count_only: false,
                bounds: RevisionBounds::default(),
            };
            let mut sorted = Sorted::new(&query, Some(10));
            // 71 is coprime to 500: each number comes once, scattered.
            let numbers: Vec<i64> = (0..500).map(|at| at * 71 % 500).collect();
            for &number in &numbers {
                assert_eq!(sorted.wants(), usize::MAX);
                let value = Bytes::from(format!("{number:03}"));
                sorted.add(found(number), value);
                assert!(sorted.kept.len() <= 10);
            }
            let mut expected = numbers;
            if target != SortTarget::Key {
                expected.sort_unstable();
            }
            if descending {
                expected.reverse();
            }
            assert!(sorted.is_cut());
            let taken = std::iter::from_fn(|| sorted.take_first());
            let taken: Vec<i64> = taken.map(|found| found.version.revision.main).collect();
            assert_eq!(taken, expected[..10]);
        }
    }
}
