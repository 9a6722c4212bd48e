//! Watchers of the same keys, by stream.

use std::collections::{BTreeMap, BTreeSet};

use super::log::Trail;
use super::stream::StreamId;
use crate::mvcc::KeyRange;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) range: KeyRange,
    pub(super) trail: Trail,
    /// The names of its watchers, ascending, by stream.
    pub(super) members: BTreeMap<StreamId, BTreeSet<i64>>,
    /// Streams that have been sent all of the trail: whom the next event has to wake.
    pub(super) idle: BTreeSet<StreamId>,
    /// How many of its watchers want previous versions.
    pub(super) with_prev: usize,
    /// The main revision of the first event that its streams have not been told of.
    pub(super) touched_at: Option<i64>,
}

impl Group {
    /// A group without watchers, which knows everything from `known_from` on.
    pub(super) fn new(range: KeyRange, known_from: i64) -> Self {
        Self {
            range,
            trail: Trail::new(known_from),
            members: BTreeMap::new(),
            idle: BTreeSet::new(),
            with_prev: 0,
            touched_at: None,
        }
    }

    /// Adds a watcher; true if it is the first of its stream.
    pub(super) fn add(&mut self, stream: StreamId, watch_id: i64) -> bool {
        let names = self.members.entry(stream).or_default();
        let is_first = names.is_empty();
        names.insert(watch_id);
        is_first
    }

    /// Removes a watcher.
    pub(super) fn remove(&mut self, stream: StreamId, watch_id: i64) {
        let Some(names) = self.members.get_mut(&stream) else { return };
        names.remove(&watch_id);
        if names.is_empty() {
            self.members.remove(&stream);
            self.idle.remove(&stream);
        }
    }
}
