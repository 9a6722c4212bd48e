//! The one place that decides when a message may leave.
//!
//! An answer promises: "these entries are on my disk", "I voted for you and for nobody else". So it
//! waits for the write that makes it true. A leader's own messages promise nothing of that kind and
//! leave at once, so that followers write while the leader does; only a new term or vote comes first.
//! (Else a lone voter could lead learners in a term that it forgets by a crash, and lead them again in
//! the same term with other entries.)
//!
//! Writes reach the disk in order, so a turn with nothing to write is as durable as the last one
//! before it that had something.
//!
//! What raft is told about its own log is stricter still. A write may cut entries that an earlier one
//! added, and a third may bring the very same ones back. While the cut is under way, that the first
//! write is on disk says nothing about what will be there: raft hears of none of them before the cut is
//! done. (Else it would hand out entries that a crash can still take away.)

use std::collections::VecDeque;
use std::mem;

use super::message::Message;

/// Counts which turns are on disk and keeps the messages of those that are not.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The newest turn.
    last: u64,
    /// Turns that must be synced and are not yet, ascending.
    unsynced: VecDeque<u64>,
    /// The newest of them that has a new term or vote.
    unsynced_vote: Option<u64>,
    /// The newest of them that cuts entries of earlier ones.
    unsynced_cut: Option<u64>,
    /// Messages, each group with the turn that must be on disk first; ascending.
    held: VecDeque<(u64, Vec<Message>)>,
    /// Messages that may leave.
    released: Vec<Message>,
}

/// A turn, as far as the gate cares.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) number: u64,
    /// It has entries, a new term or a new vote.
    pub(super) must_sync: bool,
    /// It has a new term or a new vote.
    pub(super) new_vote: bool,
    /// Its entries replace others.
    pub(super) cuts: bool,
}

impl Gate {
    /// Notes a turn. Messages of a leader go by `at_once`, all others by `after_sync`.
    ///
    /// Returns the turn up to which everything is on disk, if that is news.
    pub(super) fn admit(
        &mut self,
        turn: &Turn,
        mut at_once: Vec<Message>,
        mut after_sync: Vec<Message>,
    ) -> Option<u64> {
        assert!(turn.number > self.last, "turns are numbered in order");
        self.last = turn.number;
        if turn.must_sync {
            self.unsynced.push_back(turn.number);
        }
        if turn.new_vote {
            self.unsynced_vote = Some(turn.number);
        }
        if turn.cuts {
            self.unsynced_cut = Some(turn.number);
        }
        match self.unsynced_vote {
            Some(vote) => self.hold(vote, at_once),
            None => self.released.append(&mut at_once),
        }
        match self.unsynced.back() {
            Some(&newest) => {
                self.hold(newest, after_sync);
                None
            }
            None => {
                self.released.append(&mut after_sync);
                Some(turn.number)
            }
        }
    }

    /// Notes that everything up to this turn is on disk, and releases what waited for it.
    ///
    /// Returns the turn up to which everything is on disk, if it will stay there.
    pub(super) fn persisted(&mut self, number: u64) -> Option<u64> {
        assert!(number <= self.last, "turn {number} is on disk, but the last was {}", self.last);
        while self.unsynced.front().is_some_and(|&front| front <= number) {
            self.unsynced.pop_front();
        }
        self.unsynced_vote.take_if(|vote| *vote <= number);
        self.unsynced_cut.take_if(|cut| *cut <= number);
        while self.held.front().is_some_and(|&(turn, _)| turn <= number) {
            let (_, mut messages) = self.held.pop_front().expect("it was there a line ago");
            self.released.append(&mut messages);
        }
        match self.unsynced_cut {
            Some(_) => None,
            None => Some(self.unsynced.front().map_or(self.last, |&front| front - 1)),
        }
    }

    /// What may leave now.
    pub(super) fn take_released(&mut self) -> Vec<Message> {
        mem::take(&mut self.released)
    }

    fn hold(&mut self, until: u64, messages: Vec<Message>) {
        if !messages.is_empty() {
            // Messages that wait for a vote may wait for less than those before them. They leave
            // together: `held` stays in order, and so do the messages.
            let until = self.held.back().map_or(until, |&(back, _)| back.max(until));
            self.held.push_back((until, messages));
        }
    }
}
