//! Who is concerned by a key: exact keys in a map, ranges in an interval tree.
//!
//! Watchers of the same keys are one *group*, so a thousand watchers of one prefix are found, and their
//! events are kept, once.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::interval::Intervals;
use crate::mvcc::{KeyRange, RangeEnd};

/// Names a group of watchers of the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(pub(super) u64);

/// Groups by their keys.
#[derive(Debug)]
pub(super) struct Interests {
    keys: BTreeMap<Bytes, GroupId>,
    ranges: Intervals<GroupId>,
}

impl Interests {
    pub(super) fn new(seed: u64) -> Self {
        Self { keys: BTreeMap::new(), ranges: Intervals::new(seed) }
    }

    /// The group of exactly these keys.
    pub(super) fn get(&self, range: &KeyRange) -> Option<GroupId> {
        match &range.end {
            RangeEnd::Single => self.keys.get(&range.start).copied(),
            RangeEnd::Before(end) => self.ranges.get(&range.start, Some(end)),
            RangeEnd::Unbounded => self.ranges.get(&range.start, None),
        }
    }

    /// Adds a group whose keys have none yet.
    pub(super) fn insert(&mut self, range: &KeyRange, group: GroupId) {
        match &range.end {
            RangeEnd::Single => drop(self.keys.insert(range.start.clone(), group)),
            RangeEnd::Before(end) => {
                self.ranges.insert(range.start.clone(), Some(end.clone()), group);
            }
            RangeEnd::Unbounded => self.ranges.insert(range.start.clone(), None, group),
        }
    }

    /// Removes the group of these keys.
    pub(super) fn remove(&mut self, range: &KeyRange) {
        match &range.end {
            RangeEnd::Single => drop(self.keys.remove(&range.start)),
            RangeEnd::Before(end) => self.ranges.remove(&range.start, Some(end)),
            RangeEnd::Unbounded => self.ranges.remove(&range.start, None),
        }
    }

    /// Calls `found` with each group that `key` concerns.
    pub(super) fn concerned(&self, key: &[u8], found: &mut dyn FnMut(GroupId)) {
        if let Some(group) = self.keys.get(key) {
            found(*group);
        }
        self.ranges.stab(key, found);
    }
}
