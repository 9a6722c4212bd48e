//! What a stream sends next: pulled by whoever can take it, in bounded portions.

use std::collections::{BTreeMap, BTreeSet};

use super::Scan;
use super::encode::{Notice, Sent};
use super::event::{Event, Filter, Previous};
use super::hub::Inner;
use super::stream::{Ready, Stream, StreamId, Stretch, Watcher};
use crate::mutants::{self, Mutant};

/// A portion ends when it has this many bytes; one revision may be more.
pub const PORTION_BYTES: usize = if cfg!(test) { 150 } else { 64 << 10 };

/// Watchers that one portion serves from a stretch of history: each looks at all of it.
const STRETCH_WATCHERS_MAX: usize = if cfg!(test) { 2 } else { 64 };

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
        while !is_full(sent) {
            let Some(stream) = self.streams.get_mut(&id) else { return Pulled::Closed };
            if let Some(control) = stream.controls.pop_front() {
                sent.notice(control.revision, &control.notice);
            } else if stream.stretch.is_some() {
                if stretches == mutants::step(STRETCH_WATCHERS_MAX) {
                    return Pulled::More;
                }
                stretches += 1;
                self.send_stretch(id, fragment_bytes, sent);
            } else if stream.behind.is_empty() || !stream.ready.is_empty() && !stream.behind_first {
                stream.behind_first = true;
                let Some(&ready) = stream.ready.front() else { return self.rest(id, sent) };
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
        Ready { group: group_id, since }: Ready,
        fragment_bytes: usize,
        sent: &mut Sent,
    ) -> bool {
        let (Some(stream), Some(group)) =
            (self.streams.get_mut(&id), self.groups.get_mut(&group_id))
        else {
            return true;
        };
        let nobody = BTreeSet::new();
        let names = group.members.get(&id).unwrap_or(&nobody);
        let mut next = i64::MAX;
        for name in names {
            let Some(watcher) = stream.watchers.get_mut(name) else { continue };
            if stream.behind.contains(name) {
                continue;
            }
            watcher.next = watcher.next.max(since);
            if watcher.next < group.trail.known_from() {
                stream.behind.insert(*name);
            } else {
                next = next.min(watcher.next);
            }
        }
        while let Some(main) = group.trail.first_from(next).filter(|main| *main <= self.revision) {
            let events: Vec<&Event> = group.trail.at(main, &self.log).collect();
            let mut portion = Portion { main, events: &events, fragment_bytes, sent };
            if !portion.send_to(stream, names) {
                return false;
            }
            next = main + 1;
        }
        stream.ready.retain(|ready| ready.group != group_id);
        group.idle.insert(id);
        true
    }

    /// Sends one watcher that is behind its part of the stretch that was read.
    fn send_stretch(&mut self, id: StreamId, fragment_bytes: usize, sent: &mut Sent) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(stretch) = &mut stream.stretch else { return };
        let Some(watch_id) = stretch.pending.pop_front() else {
            stream.stretch = None;
            return;
        };
        let (Some(watcher), true) =
            (stream.watchers.get_mut(&watch_id), stream.behind.contains(&watch_id))
        else {
            return;
        };
        let Some(group) = self.groups.get(&watcher.group) else { return };
        let wanted: Vec<&Event> = stretch
            .events
            .iter()
            .filter(|(key, event)| event.at.main >= watcher.next && group.range.contains(key))
            .map(|(_, event)| event)
            .filter(|event| watcher.filter.admits(event))
            .collect();
        send_events(watcher, watch_id, (stretch.upto, &wanted), fragment_bytes, sent);
        let upto = stretch.upto - i64::from(mutants::on(Mutant::HandOverTwice));
        watcher.next = (upto + 1).max(watcher.next);
        self.place(id, watch_id);
    }

    /// What has to be read for the watchers of a stream that are behind.
    fn scan(&mut self, id: StreamId) -> Pulled {
        let Some(stream) = self.streams.get_mut(&id) else { return Pulled::Closed };
        let Stream { behind, watchers, .. } = stream;
        let next = behind.iter().filter_map(|name| watchers.get(name)).map(|w| w.next).min();
        match next {
            Some(from) => Pulled::Behind(Scan::new(id, from)),
            None => {
                behind.clear();
                Pulled::More
            }
        }
    }

    /// Takes what a scan found.
    pub(super) fn absorb(&mut self, id: StreamId, mut stretch: Stretch) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Stream { behind, watchers, .. } = stream;
        let (from, upto) = (stretch.from, stretch.upto);
        let waits =
            |name: &&i64| watchers.get(name).is_some_and(|w| (from..=upto).contains(&w.next));
        stretch.pending = behind.iter().filter(waits).copied().collect();
        stream.stretch = Some(stretch);
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
    /// Sends to every watcher that waits for it; false if the portion was full before the end.
    fn send_to(&mut self, stream: &mut Stream, names: &BTreeSet<i64>) -> bool {
        // Watchers that want the same get the same bytes.
        let mut encoded: BTreeMap<Filter, Vec<u8>> = BTreeMap::new();
        for name in names {
            let Some(watcher) = stream.watchers.get_mut(name) else { continue };
            if watcher.next > self.main || stream.behind.contains(name) {
                continue;
            }
            if is_full(self.sent) {
                return false;
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
        true
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
fn send_events(
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
