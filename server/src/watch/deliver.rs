//! What a stream sends next: pulled by whoever can take it, in bounded portions.

use std::collections::{BTreeMap, BTreeSet};

use super::Scan;
use super::encode::{Notice, Sent};
use super::event::{Event, Filter, Previous};
use super::hub::Inner;
use super::ready::Ready;
use super::stream::{Stream, StreamId, Watcher};
use crate::mutants;

/// A portion ends when it has this many bytes; one revision may be more.
pub const PORTION_BYTES: usize = if cfg!(test) { 150 } else { 64 << 10 };

/// Watchers that one portion serves from a stretch of history: most of them only move their cursors.
const STRETCH_WATCHERS_MAX: usize = if cfg!(test) { 2 } else { 1024 };

/// The name of a response that concerns all watchers of a stream.
const ALL_WATCHERS: i64 = -1;

/// How a pull ended.
#[derive(Debug)]
pub enum Pulled {
    /// There is nothing more to send: the waker will be called when there is.
    Idle,
    /// The portion is full.
    More,
    /// Some watchers are behind: run this, then pull again.
    Behind(Scan),
    /// There is no such stream.
    Closed,
}

impl Inner {
    /// Appends what the stream sends next.
    pub(super) fn pull(&mut self, id: StreamId, fragment_bytes: usize, sent: &mut Sent) -> Pulled {
        let mut stretches = 0;
        self.stretches.touch(id);
        self.stretches.hand(id, 0);
        while !is_full(sent) {
            let Some(stream) = self.streams.get_mut(&id) else { return Pulled::Closed };
            if let Some(control) = stream.controls.pop_front() {
                sent.notice(control.revision, &control.notice);
            } else if self.stretches.contains(id) {
                if stretches == mutants::step(STRETCH_WATCHERS_MAX) {
                    return Pulled::More;
                }
                stretches += 1;
                self.send_stretch(id, fragment_bytes, sent);
                self.stretches.hand(id, sent.len());
            } else if stream.behind.is_empty() || !stream.ready.is_empty() && !stream.behind_first {
                stream.behind_first = true;
                let Some(ready) = stream.ready.front() else { return self.rest(id, sent) };
                if !self.send_group(id, ready, fragment_bytes, sent) {
                    return Pulled::More;
                }
            } else {
                stream.behind_first = false;
                return self.scan(id);
            }
        }
        Pulled::More
    }

    /// Nothing is left but to say how far the stream has come.
    fn rest(&mut self, id: StreamId, sent: &mut Sent) -> Pulled {
        let Some(stream) = self.streams.get_mut(&id) else { return Pulled::Closed };
        while stream.progress.pop_front_if(|asked| *asked <= self.revision).is_some() {
            let notice = Notice { watch_id: ALL_WATCHERS, ..Notice::default() };
            sent.notice(self.revision, &notice);
        }
        if !stream.progress.is_empty() {
            self.ask(id);
        }
        Pulled::Idle
    }

    /// Sends what a group's trail has for the stream, revision by revision; false if the portion was
    /// full before the end.
    fn send_group(
        &mut self,
        id: StreamId,
        Ready { group: group_id, mut since, mut from_name }: Ready,
        fragment_bytes: usize,
        sent: &mut Sent,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        let Some(group) = self.groups.get_mut(&group_id) else {
            stream.ready.remove(group_id);
            return true;
        };
        let nobody = BTreeSet::new();
        let names = group.members.get(&id).unwrap_or(&nobody);
        let known_from = group.trail.known_from();
        if since < known_from {
            stream.miss(names, since, known_from);
            (since, from_name) = (known_from, i64::MIN);
        }
        while let Some(main) = group.trail.first_from(since).filter(|main| *main <= self.revision) {
            let events: Vec<&Event> = group.trail.at(main, &self.log).collect();
            let mut portion = Portion { main, events: &events, fragment_bytes, sent };
            let stopped_at = portion.send_to(stream, names.range(from_name..));
            #[cfg(test)]
            {
                let seen = names.range(from_name..stopped_at.unwrap_or(i64::MAX)).count();
                self.visits.set(self.visits.get() + seen as u64);
            }
            if let Some(name) = stopped_at {
                stream.ready.resume_at(group_id, main, name);
                return false;
            }
            (since, from_name) = (main + 1, i64::MIN);
        }
        stream.ready.remove(group_id);
        group.idle.insert(id);
        true
    }

    /// What has to be read for the watchers of a stream that are behind.
    fn scan(&mut self, id: StreamId) -> Pulled {
        let Some(stream) = self.streams.get_mut(&id) else { return Pulled::Closed };
        let Stream { behind, watchers, .. } = stream;
        let next = behind.iter().filter_map(|name| watchers.get(name)).map(|w| w.next).min();
        match next {
            Some(from) => Pulled::Behind(self.new_scan(id, from)),
            None => {
                behind.clear();
                Pulled::More
            }
        }
    }

    /// History before `compacted` is gone; `floor` is where the window begins. Ends the watchers that
    /// wanted what is gone.
    pub(super) fn absorb_compacted(&mut self, id: StreamId, compacted: i64, floor: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Stream { behind, watchers, .. } = stream;
        let is_lost =
            |name: &&i64| watchers.get(name).is_some_and(|w| w.next < compacted && w.next <= floor);
        let lost: Vec<i64> = behind.iter().filter(is_lost).copied().collect();
        for watch_id in lost {
            self.remove(id, watch_id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.end_compacted(watch_id, compacted);
            }
        }
    }
}

/// The events of one revision on their way to the watchers of one group.
struct Portion<'a> {
    main: i64,
    events: &'a [&'a Event],
    fragment_bytes: usize,
    sent: &'a mut Sent,
}

impl Portion<'_> {
    /// Sends to each of these watchers that waits for it; says with whom to go on if the portion was full
    /// before the end.
    fn send_to<'n>(
        &mut self,
        stream: &mut Stream,
        names: impl Iterator<Item = &'n i64>,
    ) -> Option<i64> {
        // Watchers that want the same get the same bytes.
        let mut encoded: BTreeMap<Filter, Vec<u8>> = BTreeMap::new();
        for name in names {
            let Some(watcher) = stream.watchers.get_mut(name) else { continue };
            if watcher.next > self.main || stream.behind.contains(name) {
                continue;
            }
            if is_full(self.sent) {
                return Some(*name);
            }
            if watcher.filter.prev_kv && self.lacks_prev() {
                // It came after the events did.
                watcher.next = self.main;
                stream.behind.insert(*name);
                continue;
            }
            watcher.next = self.main + 1;
            let filter = watcher.filter;
            let wanted = || self.events.iter().filter(move |event| filter.admits(event)).copied();
            let bytes = encoded.entry(filter).or_insert_with(|| encode(wanted(), filter));
            if watcher.fragment && bytes.len() >= self.fragment_bytes {
                let wanted: Vec<&Event> = wanted().collect();
                let found = (self.main, wanted.as_slice());
                send_events(watcher, *name, found, self.fragment_bytes, self.sent);
            } else if !bytes.is_empty() {
                watcher.is_fresh = true;
                self.sent.events(self.main, *name, bytes, false);
                self.sent.events += wanted().count() as u64;
            }
        }
        None
    }

    fn lacks_prev(&self) -> bool {
        self.events.iter().any(|event| event.prev == Previous::NotRead)
    }
}

/// Whether nothing more is to be added, because there is enough or because the stream ends here.
fn is_full(sent: &Sent) -> bool {
    sent.len() >= mutants::step(PORTION_BYTES) || sent.too_large_bytes.is_some()
}

fn encode<'a>(events: impl Iterator<Item = &'a Event>, filter: Filter) -> Vec<u8> {
    let mut out = Vec::new();
    events.for_each(|event| event.encode(filter.prev_kv, &mut out));
    out
}

/// Sends events, in parts if the watcher allows it and they are too large for one response.
pub(super) fn send_events(
    watcher: &mut Watcher,
    watch_id: i64,
    (header, events): (i64, &[&Event]),
    fragment_bytes: usize,
    sent: &mut Sent,
) {
    if events.is_empty() {
        return;
    }
    watcher.is_fresh = true;
    sent.events += events.len() as u64;
    let (mut part, mut one) = (Vec::new(), Vec::new());
    for event in events {
        one.clear();
        event.encode(watcher.filter.prev_kv, &mut one);
        if watcher.fragment && !part.is_empty() && part.len() + one.len() >= fragment_bytes {
            sent.events(header, watch_id, &part, true);
            part.clear();
        }
        part.extend_from_slice(&one);
    }
    sent.events(header, watch_id, &part, false);
}
