//! Stretches of history on their way to watchers that are behind: one for a stream at most.
//!
//! ```text
//! events     0: 5 put a    1: 6 put x    2: 7 del a       from 5, upto 8
//! groups     of a: 0, 2    of x: 1                        whoever is in neither moves its cursor to 9
//! pending    watcher 1 of a, next 5 -> header 5: put a    the portion is full; next 6
//!                                   -> header 8: del a    next 9, done
//! ```
//!
//! A stretch is only a cache: the cursors say what is still to be sent, and what is dropped here is read
//! again when its stream is pulled. So all of them together are bounded, and those go first whose
//! streams were not pulled for longest: a client that stops reading keeps nothing for long.

use std::collections::{BTreeMap, BTreeSet};

use super::deliver::{PORTION_BYTES, send_events};
use super::encode::Sent;
use super::event::Event;
use super::hub::Inner;
use super::interests::GroupId;
use super::stream::{Stream, StreamId, Watcher};
use super::{STRETCH_BYTES_MAX, Scan};
use crate::mutants::{self, Mutant};

/// What all stretches may keep, in bytes; one alone may be more if one revision is.
pub(super) const STRETCHES_BYTES_MAX: usize = if cfg!(test) { 2500 } else { 16 << 20 };

/// However many there are, a stretch may have this many bytes of rows: what a portion takes.
const STRETCH_BYTES_MIN: usize = if cfg!(test) { 50 } else { PORTION_BYTES };

/// What a group costs that has events in a stretch, besides the numbers of the events.
const GROUP_BYTES: usize = size_of::<GroupId>() + size_of::<Vec<u32>>();

/// Which events concern which groups, by their places, ascending.
pub(super) type GroupEvents = BTreeMap<GroupId, Vec<u32>>;

/// Whole revisions of what concerns a stream.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Everything from this main revision on is in it; who wants more came while it was read.
    pub(super) from: i64,
    /// Everything up to this main revision is in it.
    pub(super) upto: i64,
    /// How many watchers the stream had ever had when it was matched: it knows nothing of later ones.
    pub(super) added: u64,
    pub(super) events: Vec<Event>,
    pub(super) groups: GroupEvents,
}

impl Stretch {
    fn bytes(&self) -> usize {
        let events = self.events.iter().map(Event::bytes).sum::<usize>();
        let numbers = self.groups.values().map(|numbers| numbers.len() * size_of::<u32>());
        events + numbers.sum::<usize>() + self.groups.len() * GROUP_BYTES
    }

    /// What a watcher is sent next: whole revisions, at least one, until there are `bytes_max`; and the
    /// revision up to which it has been sent everything then.
    fn part(&self, watcher: &Watcher, bytes_max: usize) -> (Vec<&Event>, i64) {
        let numbers = self.groups.get(&watcher.group).map_or(&[][..], Vec::as_slice);
        let event = |number: &u32| self.events.get(*number as usize);
        let is_sent = |number: &u32| event(number).is_some_and(|e| e.at.main < watcher.next);
        let rest = &numbers[numbers.partition_point(is_sent)..];
        let (mut part, mut bytes, mut last) = (Vec::new(), 0, i64::MAX);
        for event in rest.iter().filter_map(event).filter(|event| watcher.filter.admits(event)) {
            if bytes >= bytes_max && last < event.at.main {
                return (part, last);
            }
            last = event.at.main;
            bytes += event.encoded_len(watcher.filter.prev_kv);
            part.push(event);
        }
        (part, self.upto)
    }
}

/// A stretch that is kept.
#[derive(Debug)]
struct Kept {
    stretch: Stretch,
    /// Who has yet to get its part, or the rest of it.
    pending: BTreeSet<i64>,
    bytes: usize,
    turn: u64,
}

/// What one response has of a stretch while few clients leave theirs untaken, in bytes: all of it, as etcd.
const LARGE_BYTES: usize = if cfg!(test) { PORTION_BYTES } else { STRETCH_BYTES_MAX };

/// Every stretch that is kept, and what was made of them and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    /// The bytes of each stream's last portion, until it is pulled again.
    untaken: BTreeMap<StreamId, usize>,
    untaken_bytes: usize,
    kept: BTreeMap<StreamId, Kept>,
    /// By when their streams were pulled last.
    turns: BTreeMap<u64, StreamId>,
    last_turn: u64,
    bytes: usize,
}

impl Stretches {
    /// Keeps a stretch for those who are `pending`; others make room for it.
    fn insert(&mut self, id: StreamId, stretch: Stretch, pending: BTreeSet<i64>) {
        self.remove(id);
        if pending.is_empty() {
            return;
        }
        let bytes = stretch.bytes();
        self.bytes += bytes;
        self.kept.insert(id, Kept { stretch, pending, bytes, turn: 0 });
        self.touch(id);
        while self.bytes > STRETCHES_BYTES_MAX
            && let Some((_, oldest)) = self.turns.first_key_value()
            && *oldest != id
        {
            self.remove(*oldest);
        }
    }

    /// The stream is pulled; whether it has a stretch.
    pub(super) fn touch(&mut self, id: StreamId) -> bool {
        let Some(kept) = self.kept.get_mut(&id) else { return false };
        self.last_turn += 1;
        self.turns.remove(&kept.turn);
        kept.turn = self.last_turn;
        self.turns.insert(kept.turn, id);
        true
    }

    /// The stream has been handed so many bytes; 0 when it has taken them.
    pub(super) fn hand(&mut self, id: StreamId, bytes: usize) {
        let before = match bytes {
            0 => self.untaken.remove(&id),
            bytes => self.untaken.insert(id, bytes),
        };
        self.untaken_bytes = self.untaken_bytes - before.unwrap_or(0) + bytes;
    }

    /// How many bytes of history a portion may have: a client that does not take it leaves that much here.
    fn portion_bytes(&self) -> usize {
        if self.untaken_bytes < STRETCHES_BYTES_MAX / 2 { LARGE_BYTES } else { PORTION_BYTES }
    }

    pub(super) fn contains(&self, id: StreamId) -> bool {
        self.kept.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: StreamId) {
        if let Some(kept) = self.kept.remove(&id) {
            self.turns.remove(&kept.turn);
            self.bytes -= kept.bytes;
        }
    }

    /// A watcher has its part, or is gone: its name may be given to one that wants something else.
    pub(super) fn done(&mut self, id: StreamId, watch_id: i64) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        kept.pending.remove(&watch_id);
        if kept.pending.is_empty() {
            self.remove(id);
        }
    }

    /// How many bytes of rows the next stretch may have, and how many of previous versions: the more
    /// there are, the smaller, so that nobody's is dropped before it is sent but of those who stopped.
    fn share_bytes(&self) -> usize {
        let share = STRETCHES_BYTES_MAX / 2 / (self.kept.len() + 1);
        share.clamp(STRETCH_BYTES_MIN, STRETCH_BYTES_MAX)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        assert_eq!(self.bytes, self.kept.values().map(|kept| kept.stretch.bytes()).sum::<usize>());
        assert_eq!(self.kept.len(), self.turns.len());
        self.bytes
    }
}

impl Inner {
    /// A scan of what the stream's watchers lack from `from` on.
    pub(super) fn new_scan(&self, id: StreamId, from: i64) -> Scan {
        Scan::new(id, from, self.stretches.share_bytes())
    }

    /// Takes what a scan found.
    pub(super) fn absorb(&mut self, id: StreamId, stretch: Stretch) {
        let Some(Stream { behind, watchers, added, .. }) = self.streams.get(&id) else { return };
        if *added != stretch.added {
            // Somebody came while it was read, who may want what was left out.
            return;
        }
        let (from, upto) = (stretch.from, stretch.upto);
        let waits =
            |name: &&i64| watchers.get(name).is_some_and(|w| (from..=upto).contains(&w.next));
        let pending = behind.iter().filter(waits).copied().collect();
        self.stretches.insert(id, stretch, pending);
    }

    /// Sends one watcher that is behind its part of the stretch, as far as there is room.
    pub(super) fn send_stretch(&mut self, id: StreamId, fragment_bytes: usize, sent: &mut Sent) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(Kept { stretch, pending, .. }) = self.stretches.kept.get(&id) else { return };
        let Some(&watch_id) = pending.first() else { return self.stretches.remove(id) };
        let (Some(watcher), true) =
            (stream.watchers.get_mut(&watch_id), stream.behind.contains(&watch_id))
        else {
            return self.stretches.done(id, watch_id);
        };
        let room = mutants::step(self.stretches.portion_bytes()).saturating_sub(sent.len());
        let (events, upto) = stretch.part(watcher, room);
        #[cfg(test)]
        self.visits.set(self.visits.get() + events.len() as u64 + 1);
        send_events(watcher, watch_id, (upto, &events), fragment_bytes, sent);
        if upto < stretch.upto {
            watcher.next = upto + 1;
            return;
        }
        let upto = upto - i64::from(mutants::on(Mutant::HandOverTwice));
        watcher.next = (upto + 1).max(watcher.next);
        self.stretches.done(id, watch_id);
        self.place(id, watch_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_leave_untaken_is_counted_until_they_take_it_or_go() {
        let mut stretches = Stretches::default();
        for (id, bytes, all) in
            [(1, 900, 900), (2, 700, 1600), (1, 100, 800), (2, 0, 100), (1, 0, 0)]
        {
            stretches.hand(StreamId(id), bytes);
            assert_eq!(stretches.untaken_bytes, all);
        }
        stretches.hand(StreamId(1), 0);
        assert!(stretches.untaken.is_empty() && stretches.untaken_bytes == 0);
    }
}
