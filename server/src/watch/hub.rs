//! Every stream and group, behind one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use super::encode::Notice;
use super::event::Event;
use super::group::Group;
use super::interests::{GroupId, Interests};
use super::log::Log;
use super::stream::{CONTROLS_MAX, Control, Interest, Stream, StreamId, Watcher};
use super::stretch::Stretches;
use super::{Counts, CreateError};
use crate::mutants::{self, Mutant};
use crate::mvcc::{KeyRange, Revision};

/// What the lock of a [`Hub`](super::Hub) protects.
#[derive(Debug)]
pub(super) struct Inner {
    /// Everything up to this main revision is in the trails.
    pub(super) revision: i64,
    /// Where the next row comes from: behind `revision`, maybe in the middle of the next one.
    pub(super) next: Revision,
    pub(super) log: Log,
    pub(super) interests: Interests,
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) stretches: Stretches,
    /// How many watchers want previous versions.
    pub(super) with_prev: usize,
    /// Groups with events of a revision that is not complete yet.
    touched: Vec<GroupId>,
    /// Streams that wait to hear how far they have come.
    asked: BTreeSet<StreamId>,
    last_id: u64,
    pub(super) counts: Counts,
    /// Watchers, and events of history, that were looked at.
    #[cfg(test)]
    pub(super) visits: std::cell::Cell<u64>,
}

impl Inner {
    pub(super) fn new(revision: i64, log_bytes_max: usize, seed: u64) -> Self {
        Self {
            revision,
            next: Revision::new(revision + 1, 0),
            log: Log::new(log_bytes_max),
            interests: Interests::new(seed),
            groups: BTreeMap::new(),
            streams: BTreeMap::new(),
            stretches: Stretches::default(),
            with_prev: 0,
            touched: Vec::new(),
            asked: BTreeSet::new(),
            last_id: 0,
            counts: Counts::default(),
            #[cfg(test)]
            visits: Default::default(),
        }
    }

    pub(super) fn open(&mut self) -> StreamId {
        self.last_id += 1;
        let id = StreamId(self.last_id);
        self.streams.insert(id, Stream::default());
        self.counts.streams += 1;
        id
    }

    pub(super) fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.counts.streams -= 1;
        self.stretches.remove(id);
        self.stretches.hand(id, 0);
        for (watch_id, watcher) in stream.watchers {
            self.leave(id, watch_id, &watcher);
        }
    }

    /// Adds a watcher; `now` is the current and `compacted` the compact revision.
    pub(super) fn create(
        &mut self,
        id: StreamId,
        interest: Interest,
        (now, compacted): (i64, i64),
    ) -> Result<(), CreateError> {
        let now = now.max(self.revision);
        if self.groups.is_empty() {
            // Nobody was told of what happened meanwhile.
            self.revision = now;
            self.next = Revision::new(now + 1, 0);
        }
        let stream = self.streams.get_mut(&id).ok_or(CreateError::NoStream)?;
        let Interest { range, start_revision, filter, progress_notify, fragment, .. } = interest;
        let watch_id = match interest.watch_id {
            0 => stream.free_id(),
            taken if stream.is_taken(taken) => return Err(CreateError::Duplicate),
            free => free,
        };
        let created = Notice { watch_id, created: true, ..Notice::default() };
        stream.say(now, created);
        if start_revision != 0 && start_revision < compacted {
            stream.end_compacted(watch_id, compacted);
            return Ok(());
        }
        let next = if start_revision == 0 { now + 1 } else { start_revision };
        let group = self.join(id, watch_id, range, filter.prev_kv);
        let watcher = Watcher {
            group,
            next,
            start: start_revision,
            filter,
            fragment,
            progress_notify,
            is_fresh: false,
        };
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.watchers.insert(watch_id, watcher);
            stream.added += 1;
        }
        self.counts.watchers += 1;
        self.place(id, watch_id);
        Ok(())
    }

    /// Removes a watcher as its client asks; false if there is no such. One that a compaction ended is
    /// there until then.
    pub(super) fn cancel(&mut self, id: StreamId, watch_id: i64) -> bool {
        let ended = self.streams.get_mut(&id).is_some_and(|stream| stream.ended.remove(&watch_id));
        ended || self.remove(id, watch_id)
    }

    /// Removes a watcher; false if there is no such.
    pub(super) fn remove(&mut self, id: StreamId, watch_id: i64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let Some(watcher) = stream.watchers.remove(&watch_id) else { return false };
        stream.behind.remove(&watch_id);
        self.stretches.done(id, watch_id);
        self.leave(id, watch_id, &watcher);
        true
    }

    /// Puts a watcher where it belongs by its cursor: behind, ready or neither.
    pub(super) fn place(&mut self, id: StreamId, watch_id: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(watcher) = stream.watchers.get(&watch_id) else { return };
        let Some(group) = self.groups.get_mut(&watcher.group) else { return };
        if watcher.next < group.trail.known_from() {
            stream.behind.insert(watch_id);
            return;
        }
        stream.behind.remove(&watch_id);
        let (group_id, next) = (watcher.group, watcher.next);
        let has_events = group.trail.newest().is_some_and(|newest| newest >= next);
        let sent_before = match stream.ready.get(group_id) {
            Some(ready) => ready.since,
            None if has_events => self.revision + 1,
            None => return,
        };
        if next < sent_before
            && let Some(names) = group.members.get(&id)
        {
            // It brings the group's turn back to its own cursor, and the others have been sent more.
            stream.pass(names.iter().filter(|name| **name != watch_id), sent_before);
        }
        if !stream.ready.join(group_id, watch_id, next) && group.idle.remove(&id) {
            stream.ready.push(group_id, next);
        }
    }

    fn join(&mut self, id: StreamId, watch_id: i64, range: KeyRange, prev: bool) -> GroupId {
        let group_id = self.interests.get(&range).unwrap_or_else(|| {
            self.last_id += 1;
            let group_id = GroupId(self.last_id);
            self.interests.insert(&range, group_id);
            // What was matched of a revision that is not complete yet was not matched for it.
            let known_from = self.next.main + i64::from(self.next.sub > 0);
            self.groups.insert(group_id, Group::new(range, known_from));
            group_id
        });
        if let Some(group) = self.groups.get_mut(&group_id) {
            group.with_prev += usize::from(prev);
            self.with_prev += usize::from(prev);
            if group.add(id, watch_id) {
                group.idle.insert(id);
            }
        }
        group_id
    }

    fn leave(&mut self, id: StreamId, watch_id: i64, watcher: &Watcher) {
        self.counts.watchers -= 1;
        let Some(group) = self.groups.get_mut(&watcher.group) else { return };
        group.with_prev -= usize::from(watcher.filter.prev_kv);
        self.with_prev -= usize::from(watcher.filter.prev_kv);
        group.remove(id, watch_id);
        if !group.members.contains_key(&id)
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.ready.remove(watcher.group);
        }
        if group.members.is_empty()
            && let Some(group) = self.groups.remove(&watcher.group)
        {
            self.interests.remove(&group.range);
        }
    }

    /// How many groups it concerns what happened to `key`, and whether anybody wants the previous version.
    pub(super) fn concern(&self, key: &[u8]) -> (usize, bool) {
        let (mut count, mut wants_prev) = (0, false);
        self.interests.concerned(key, &mut |group| {
            count += 1;
            wants_prev |= self.with_prev > 0
                && self.groups.get(&group).is_some_and(|group| group.with_prev > 0);
        });
        (count, wants_prev)
    }

    /// Takes the next row, of which `event` is made.
    pub(super) fn push(&mut self, key: &[u8], event: impl FnOnce() -> Event) {
        let mut concerned = Vec::new();
        self.interests.concerned(key, &mut |group| concerned.push(group));
        if concerned.is_empty() {
            return;
        }
        let event = event();
        let main = event.at.main;
        let concerned = concerned.into_boxed_slice();
        let number = self.log.push(event, concerned.clone());
        for &group_id in &concerned {
            let Some(group) = self.groups.get_mut(&group_id) else { continue };
            group.trail.push(main, number);
            if group.touched_at.is_none() {
                group.touched_at = Some(main);
                self.touched.push(group_id);
            }
        }
        while let Some(forgetful) = self.log.drop_oldest() {
            for group_id in &forgetful {
                let Some(group) = self.groups.get_mut(group_id) else { continue };
                group.trail.forget(self.log.first());
            }
        }
    }

    /// Everything up to `revision` has been pushed: whoever is concerned may have it.
    pub(super) fn complete(&mut self, revision: i64, wakers: &mut Vec<Waker>) {
        self.revision = revision;
        for group_id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&group_id) else { continue };
            let Some(since) = group.touched_at.take() else { continue };
            if since > revision || group.trail.newest().is_some_and(|newest| newest > revision) {
                // Not by the trail alone: the log may have dropped the event already.
                group.touched_at = Some(since.max(revision + 1));
                self.touched.push(group_id);
            }
            if since > revision {
                continue;
            }
            // What came before it concerns nobody here, however long the log and the window have it.
            for stream_id in std::mem::take(&mut group.idle) {
                if let Some(stream) = self.streams.get_mut(&stream_id) {
                    stream.ready.push(group_id, since);
                    wakers.extend(stream.waker.take());
                }
            }
        }
        for stream_id in std::mem::take(&mut self.asked) {
            if let Some(stream) = self.streams.get_mut(&stream_id) {
                wakers.extend(stream.waker.take());
            }
        }
    }

    /// Rows up to `revision` have left the window before they were seen here: whoever wants them reads
    /// the key space.
    pub(super) fn skip_to(&mut self, revision: i64, wakers: &mut Vec<Waker>) {
        self.log.clear();
        self.touched.clear();
        let since = self.revision + 1;
        self.revision = revision;
        self.next = Revision::new(revision + 1, 0);
        let mut moved = BTreeSet::new();
        for group in self.groups.values_mut() {
            group.touched_at = None;
            group.trail.restart(revision + 1);
            moved.extend(group.members.keys().copied());
        }
        for id in moved {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.fall_behind(since, revision);
            wakers.extend(stream.waker.take());
        }
    }

    /// Asks how far the stream has come; the answer follows every event up to `now`. Without watchers,
    /// or with one that waits for the future, there is none, as in etcd.
    pub(super) fn request_progress(&mut self, id: StreamId, now: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let waits = |watcher: &Watcher| watcher.start > now.max(self.revision);
        if !stream.watchers.is_empty() && !stream.watchers.values().any(waits) {
            stream.progress.push_back(now);
            self.ask(id);
        }
    }

    /// Queues a response without events.
    pub(super) fn say(&mut self, id: StreamId, revision: i64, notice: Notice) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.say(revision, notice);
        }
    }

    /// Watchers that read history.
    pub(super) fn behind_count(&self) -> u64 {
        self.streams.values().map(|stream| stream.behind.len() as u64).sum()
    }

    pub(super) fn takes_requests(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|s| s.controls.len() + s.progress.len() < CONTROLS_MAX)
    }

    /// The stream has sent everything; `waker` is for when there is more.
    pub(super) fn sleep(&mut self, id: StreamId, waker: &Waker) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.waker.as_ref().is_none_or(|known| !known.will_wake(waker))
        {
            stream.waker = Some(waker.clone());
        }
    }

    /// The stream waits to hear how far it has come.
    pub(super) fn ask(&mut self, id: StreamId) {
        self.asked.insert(id);
    }

    /// Tells the watchers that asked for it, and were sent nothing since the last look, how far they
    /// have come. While too much waits to be sent nobody is told, as in etcd.
    pub(super) fn tell_progress(&mut self, id: StreamId) {
        let revision = self.revision;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Stream { watchers, controls, behind, ready, .. } = stream;
        if controls.len() >= CONTROLS_MAX {
            return;
        }
        for (&watch_id, watcher) in watchers.iter_mut().filter(|(_, w)| w.progress_notify) {
            let was_fresh = std::mem::replace(&mut watcher.is_fresh, false);
            let is_synced = !behind.contains(&watch_id) && ready.get(watcher.group).is_none()
                || mutants::on(Mutant::ProgressAheadOfEvents);
            let has_begun = watcher.start <= revision && watcher.next <= revision + 1;
            if !was_fresh && is_synced && has_begun {
                let notice = Notice { watch_id, ..Notice::default() };
                controls.push_back(Control { revision, notice });
            }
        }
    }
}
