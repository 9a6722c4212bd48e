//! The newest events that concerned anybody, each once, and what each group has of them.
//!
//! Bounded in bytes, with what the groups note of it: what is dropped here is dropped from their trails,
//! and can be read from the key space's recent window, and behind that from the store. So a client that
//! never reads costs nothing but its cursors, and neither does a group to which nothing happens any more.
//!
//! ```text
//! log       4 put a {1}    5 put b {2, 3}    6 put a {1}        with the groups that each concerns
//! trail 1   4, 6           trail 2   5       trail 3   5
//!           4 is dropped: trail 1 begins at 6, and knows everything from 5 on
//! ```

use std::collections::VecDeque;

use super::event::Event;
use super::interests::GroupId;
use crate::mutants::{self, Mutant};

/// What it costs that an event concerns a group: an entry in the group's trail, and its name here.
const CONCERN_BYTES: usize = size_of::<(i64, u64)>() + size_of::<GroupId>();

/// Room that an empty trail may keep.
const SPARE_ENTRIES: usize = 8;

/// Events by the order in which they came, from `first` on.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Logged>,
    first: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Logged {
    event: Event,
    /// In whose trails it is.
    concerned: Box<[GroupId]>,
}

impl Logged {
    fn bytes(&self) -> usize {
        self.event.bytes() + self.concerned.len() * CONCERN_BYTES
    }
}

impl Log {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), first: 0, bytes: 0, bytes_max }
    }

    /// Adds an event; returns its number.
    pub(super) fn push(&mut self, event: Event, concerned: Box<[GroupId]>) -> u64 {
        let logged = Logged { event, concerned };
        self.bytes += logged.bytes();
        self.events.push_back(logged);
        self.first + self.events.len() as u64 - 1
    }

    /// Drops the oldest event if there are too many; returns the groups whose trails have to forget it.
    pub(super) fn drop_oldest(&mut self) -> Option<Box<[GroupId]>> {
        if self.bytes <= self.bytes_max {
            return None;
        }
        let oldest = self.events.pop_front()?;
        self.bytes -= oldest.bytes();
        self.first += 1;
        Some(oldest.concerned)
    }

    /// The number of the oldest event that is here, or of the next one.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The event with this number, if it is still here.
    pub(super) fn get(&self, number: u64) -> Option<&Event> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(place).map(|logged| &logged.event)
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.first += self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
    }
}

/// Exactly those events of the log that concern one group, ascending.
#[derive(Debug)]
pub(super) struct Trail {
    events: VecDeque<(i64, u64)>,
    /// Every event of this or a later main revision that concerns the group is here.
    known_from: i64,
}

impl Trail {
    pub(super) fn new(known_from: i64) -> Self {
        Self { events: VecDeque::new(), known_from }
    }

    pub(super) fn known_from(&self) -> i64 {
        self.known_from
    }

    /// The main revision of the newest event.
    pub(super) fn newest(&self) -> Option<i64> {
        self.events.back().map(|(main, _)| *main)
    }

    /// Adds the newest event.
    pub(super) fn push(&mut self, main: i64, number: u64) {
        self.events.push_back((main, number));
    }

    /// Forgets the events before the one with the number `first`, and gives their memory back.
    pub(super) fn forget(&mut self, first: u64) {
        while let Some((main, _)) = self.events.pop_front_if(|(_, number)| *number < first) {
            if !mutants::on(Mutant::LiveEventLost) {
                self.known_from = self.known_from.max(main + 1);
            }
        }
        if self.events.capacity() > 4 * self.events.len().max(SPARE_ENTRIES) {
            self.events.shrink_to(2 * self.events.len());
        }
    }

    /// What it keeps in memory, in entries.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.events.capacity()
    }

    /// Forgets everything before `known_from`, which is behind all that is here.
    pub(super) fn restart(&mut self, known_from: i64) {
        self.events = VecDeque::new();
        self.known_from = known_from;
    }

    /// The first main revision at or above `from` that has events.
    pub(super) fn first_from(&self, from: i64) -> Option<i64> {
        let place = self.events.partition_point(|(main, _)| *main < from);
        self.events.get(place).map(|(main, _)| *main)
    }

    /// The events of one main revision.
    pub(super) fn at<'a>(&'a self, main: i64, log: &'a Log) -> impl Iterator<Item = &'a Event> {
        let place = self.events.partition_point(|(at, _)| *at < main);
        let events = self.events.range(place..).take_while(move |(at, _)| *at == main);
        events.filter_map(|(_, number)| log.get(*number))
    }
}
