//! The recent window: the newest rows, contiguous, as shared bytes.
//!
//! It serves fresh reads and holds at least what the state store has not flushed. A row leaves only
//! when it is flushed *and* readers can see that flush, so whoever misses a revision here finds it
//! in the store.
//!
//! ```text
//!            floor            taken           current
//!   evicted    |  flushed  |  in a flush  |  no flush yet  |
//! -------------+-----------+--------------+----------------+--> revisions
//! ```
//!
//! Beside the rows it remembers which keys began or ended when: that is what a count at a past
//! revision differs by from the count now.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{KeyRange, Revision, Row};
use crate::mutants::{self, Mutant};

pub(super) struct Window {
    bytes_max: u64,
    rows: VecDeque<Row>,
    bytes: u64,
    /// How many rows at the front a flush has taken, and the bytes of those behind them.
    taken: usize,
    untaken_bytes: u64,
    /// Everything up to this main revision was evicted; everything above is here.
    floor: i64,
    /// Readers of the store see every row up to this main revision.
    flushed: i64,
    changes: VecDeque<Change>,
}

/// A key began or ended to exist.
struct Change {
    revision: Revision,
    key: Bytes,
    began: bool,
}

impl Window {
    /// An empty window behind `floor`.
    pub(super) fn new(bytes_max: u64, floor: i64) -> Self {
        Self {
            bytes_max,
            rows: VecDeque::new(),
            bytes: 0,
            taken: 0,
            untaken_bytes: 0,
            floor,
            flushed: floor,
            changes: VecDeque::new(),
        }
    }

    /// Everything above this main revision is in the window.
    pub(super) fn floor(&self) -> i64 {
        self.floor
    }

    /// Bytes of rows that no flush has taken.
    pub(super) fn untaken_bytes(&self) -> u64 {
        self.untaken_bytes
    }

    /// Adds the newest row; `change` is its key if that began (true) or ended with it.
    pub(super) fn push(&mut self, row: Row, change: Option<(bool, Bytes)>) {
        if let Some((began, key)) = change {
            self.changes.push_back(Change { revision: row.key.revision(), key, began });
        }
        let cost = row.cost_bytes();
        self.bytes += cost;
        self.untaken_bytes += cost;
        self.rows.push_back(row);
    }

    /// The stored bytes of the row at `revision`, if it is here.
    pub(super) fn get(&self, revision: Revision) -> Option<&Bytes> {
        self.position(revision).ok().map(|position| &self.rows[position].stored)
    }

    /// The rows from `from` on.
    pub(super) fn rows_from(&self, from: Revision) -> impl Iterator<Item = &Row> {
        let (Ok(position) | Err(position)) = self.position(from);
        self.rows.range(position..)
    }

    /// How many more keys of `range` are live now than were as of `at`; `None` if `at` is below
    /// what the window remembers.
    pub(super) fn growth_since(&self, range: &KeyRange, at: Revision) -> Option<i64> {
        // A moment within the revision of the floor: what came behind it there is forgotten too.
        if at < Revision::end_of(self.floor) {
            return None;
        }
        let from = self.changes.partition_point(|change| change.revision <= at);
        let changes = self.changes.range(from..).filter(|change| range.contains(&change.key));
        Some(changes.map(|change| if change.began { 1 } else { -1 }).sum())
    }

    /// Rows for the next flush: all that none has taken.
    pub(super) fn take(&mut self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.range(self.taken..).cloned().collect();
        self.taken = self.rows.len();
        self.untaken_bytes = 0;
        if mutants::on(Mutant::EvictedBeforeFlush)
            && let Some(last) = rows.last()
        {
            self.flushed(last.key.revision().main);
        }
        if mutants::on(Mutant::HalfFlush)
            && rows.last().is_some_and(|row| row.key.revision().sub > 0)
        {
            rows.pop();
        }
        rows
    }

    /// Readers of the store see every row up to `revision`.
    pub(super) fn flushed(&mut self, revision: i64) {
        self.flushed = self.flushed.max(revision);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(main) = self.rows.front().map(|row| row.key.revision().main)
            && main <= self.flushed
        {
            // Whole revisions leave, so the floor is one number.
            while let Some(row) = self.rows.pop_front_if(|row| row.key.revision().main == main) {
                self.bytes -= row.cost_bytes();
                self.taken -= 1;
            }
            self.floor = main;
        }
        while self.changes.front().is_some_and(|change| change.revision.main <= self.floor) {
            self.changes.pop_front();
        }
    }

    /// Where `revision` is, or where it would be. Nearly every main revision has one row, so the
    /// distance from the first is a good guess and a lower bound.
    fn position(&self, revision: Revision) -> Result<usize, usize> {
        let first = self.rows.front().map_or(0, |row| row.key.revision().main);
        let guess = usize::try_from(revision.main - first).unwrap_or(0).min(self.rows.len());
        if self.rows.get(guess).is_some_and(|row| row.key.revision() == revision) {
            return Ok(guess);
        }
        let (mut low, mut high) = (guess, self.rows.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.rows[middle].key.revision().cmp(&revision) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}
