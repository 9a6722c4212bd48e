//! One stream: its watchers, and what it has to say next.
//!
//! A watcher is a cursor: the next main revision that it wants. A *live* one finds everything from there
//! on in its group's trail; one that is *behind* reads the key space first. There is no queue of events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Waker;

use super::encode::Notice;
use super::event::Filter;
use super::interests::GroupId;
use super::ready::ReadyGroups;
use crate::mvcc::KeyRange;

/// Names a stream of a [`Hub`](super::Hub).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub(super) u64);

impl StreamId {
    /// Counts up from 1.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The most responses without events that wait on a stream. Then no more requests are taken, and nobody is
/// told of progress that a client does not hear of.
pub(super) const CONTROLS_MAX: usize = 1024;

/// The most watchers of a stream that a compaction ended and whose names stay taken.
pub(super) const ENDED_MAX: usize = 1024;

/// What a client wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Which keys.
    pub range: KeyRange,
    /// From which revision on; 0 for what happens from now on.
    pub start_revision: i64,
    /// Its name on the stream; 0 to be given one.
    pub watch_id: i64,
    /// Which events, and how.
    pub filter: Filter,
    /// Tell from time to time how far the watcher has come.
    pub progress_notify: bool,
    /// Cut responses that are too large.
    pub fragment: bool,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) group: GroupId,
    /// Every event before this main revision was sent.
    pub(super) next: i64,
    /// What its client asked to begin with; 0 for the moment of its creation.
    pub(super) start: i64,
    pub(super) filter: Filter,
    pub(super) fragment: bool,
    pub(super) progress_notify: bool,
    /// Whether it was sent anything since the last look at its progress.
    pub(super) is_fresh: bool,
}

/// A response without events, and the revision of its header.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) revision: i64,
    pub(super) notice: Notice,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) watchers: BTreeMap<i64, Watcher>,
    /// Watchers that a compaction ended: etcd keeps their names, and answers their cancels, until the
    /// client cancels them as well.
    pub(super) ended: BTreeSet<i64>,
    pub(super) next_id: i64,
    /// As many as [`CONTROLS_MAX`], and then one for each watcher: of its progress, or of its end.
    pub(super) controls: VecDeque<Control>,
    /// How many watchers it has had.
    pub(super) added: u64,
    pub(super) ready: ReadyGroups,
    pub(super) behind: BTreeSet<i64>,
    /// Revisions at which somebody asked how far the stream has come.
    pub(super) progress: VecDeque<i64>,
    pub(super) waker: Option<Waker>,
    /// Whoever is behind has its turn before the live ones.
    pub(super) behind_first: bool,
}

impl Stream {
    /// The first free name.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Everything up to `revision` is to be read by whoever wants some of it. The live watchers of groups
    /// that are not ready have been sent everything before `since`.
    pub(super) fn fall_behind(&mut self, since: i64, revision: i64) {
        for (watch_id, watcher) in &mut self.watchers {
            if !self.behind.contains(watch_id) {
                let since = self.ready.get(watcher.group).map_or(since, |ready| ready.since);
                watcher.next = watcher.next.max(since);
            }
            if watcher.next <= revision {
                self.behind.insert(*watch_id);
            }
        }
    }

    /// The live watchers of these names have been sent everything before `since`.
    pub(super) fn pass<'a>(&mut self, names: impl Iterator<Item = &'a i64>, since: i64) {
        for name in names.filter(|name| !self.behind.contains(name)) {
            if let Some(watcher) = self.watchers.get_mut(name) {
                watcher.next = watcher.next.max(since);
            }
        }
    }

    /// The log forgot everything before `known_from` of a group whose live watchers, those with these
    /// names, have been sent everything before `since`: whoever wants some of it is behind.
    pub(super) fn miss(&mut self, names: &BTreeSet<i64>, since: i64, known_from: i64) {
        self.pass(names.iter(), since);
        for name in names {
            if self.watchers.get(name).is_some_and(|watcher| watcher.next < known_from) {
                self.behind.insert(*name);
            }
        }
    }

    /// Whether a new watcher may not have this name.
    pub(super) fn is_taken(&self, watch_id: i64) -> bool {
        self.watchers.contains_key(&watch_id) || self.ended.contains(&watch_id)
    }

    /// Tells the client that the history which a watcher wanted is gone, and the watcher with it.
    pub(super) fn end_compacted(&mut self, watch_id: i64, compact_revision: i64) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_first();
        }
        self.ended.insert(watch_id);
        let notice = Notice { watch_id, canceled: true, compact_revision, ..Notice::default() };
        self.say(0, notice);
    }

    pub(super) fn say(&mut self, revision: i64, notice: Notice) {
        self.controls.push_back(Control { revision, notice });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_a_compaction_ended_keeps_its_name_and_there_are_not_too_many_of_them() {
        let mut stream = Stream::default();
        for _ in 0..ENDED_MAX {
            let name = stream.free_id();
            stream.end_compacted(name, 5);
        }
        stream.next_id = 0;
        assert_eq!(stream.free_id(), ENDED_MAX as i64, "all below are taken");
        stream.end_compacted(ENDED_MAX as i64, 5);
        assert_eq!(stream.ended.len(), ENDED_MAX);
        assert!(!stream.is_taken(0), "the smallest is forgotten");
        stream.ended.remove(&7);
        assert!(!stream.is_taken(7) && stream.is_taken(8));
    }
}
