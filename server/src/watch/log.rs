//! The newest events that concerned anybody, each once, and what each group has of them.
//!
//! Bounded in bytes: what is dropped here can be read from the key space's recent window, and behind
//! that from the store, so a client that never reads costs nothing but its cursors.

use std::collections::VecDeque;

use super::event::Event;
use crate::mutants::{self, Mutant};

/// Events by the order in which they came, from `first` on.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Event>,
    first: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Log {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), first: 0, bytes: 0, bytes_max }
    }

    /// Adds an event; returns its number. The oldest go when the bound is passed.
    pub(super) fn push(&mut self, event: Event) -> u64 {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
        self.first + self.events.len() as u64 - 1
    }

    /// The event with this number, if it is still here.
    pub(super) fn get(&self, number: u64) -> Option<&Event> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(place)
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.first += self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
    }
}

/// Which events of the log concern one group, ascending.
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

    /// Adds the newest event, and forgets what the log has dropped.
    pub(super) fn push(&mut self, main: i64, number: u64, log: &Log) {
        self.events.push_back((main, number));
        self.forget(log);
    }

    /// Forgets what the log has dropped.
    pub(super) fn forget(&mut self, log: &Log) {
        while let Some((main, _)) = self.events.pop_front_if(|(_, number)| *number < log.first) {
            if !mutants::on(Mutant::LiveEventLost) {
                self.known_from = self.known_from.max(main + 1);
            }
        }
    }

    /// Forgets everything before `known_from`, which is behind all that is here.
    pub(super) fn restart(&mut self, known_from: i64) {
        self.events.clear();
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
