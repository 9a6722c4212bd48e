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

/// What left the window. To be dropped where nobody waits: that gives much memory back.
#[derive(Default)]
pub struct Evicted {
    rows: Vec<Row>,
    changes: Vec<Change>,
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

    /// How many more keys of `range` are live as of `upto` than were as of `from`, as far as at most
    /// `changes_max` changes say, and up to which moment that was, if not to the end. `None` if `from`
    /// is below what the window remembers.
    pub(super) fn growth(
        &self,
        range: &KeyRange,
        (from, upto): (Revision, Revision),
        changes_max: usize,
    ) -> Option<(i64, Option<Revision>)> {
        // A moment within the revision of the floor: what came behind it there is forgotten too.
        if from < Revision::end_of(self.floor) {
            return None;
        }
        let first = self.changes.partition_point(|change| change.revision <= from);
        let last = self.changes.partition_point(|change| change.revision <= upto);
        let end = last.min(first.saturating_add(changes_max));
        let inside = self.changes.range(first..end).filter(|change| range.contains(&change.key));
        let growth = inside.map(|change| if change.began { 1 } else { -1 }).sum();
        let more = (end < last).then(|| self.changes[end - 1].revision);
        Some((growth, more))
    }

    /// Appends rows for the next flush to `out`, at most `rows_max` of those that none has taken.
    /// Whether there are more.
    pub(super) fn take(&mut self, rows_max: usize, out: &mut Vec<Row>) -> bool {
        let end = self.rows.len().min(self.taken.saturating_add(rows_max));
        let from = out.len();
        out.extend(self.rows.range(self.taken..end).cloned());
        self.taken = end;
        self.untaken_bytes -= out[from..].iter().map(Row::cost_bytes).sum::<u64>();
        if end < self.rows.len() {
            return true;
        }
        if mutants::on(Mutant::EvictedBeforeFlush)
            && let Some(last) = out.last()
        {
            self.flushed(last.key.revision().main);
        }
        if mutants::on(Mutant::HalfFlush)
            && out.last().is_some_and(|row| row.key.revision().sub > 0)
        {
            out.pop();
        }
        false
    }

    /// Readers of the store see every row up to `revision`: what does not fit may be evicted.
    pub(super) fn flushed(&mut self, revision: i64) {
        self.flushed = self.flushed.max(revision);
    }

    #[cfg(test)]
    pub(super) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Whether anything may leave.
    pub(super) fn is_evictable(&self) -> bool {
        let is_too_large = self.bytes > self.bytes_max;
        let oldest = self.rows.front().map(|row| row.key.revision().main);
        let forgets = self.changes.front().is_some_and(|change| change.revision.main <= self.floor);
        forgets
            || oldest.is_some_and(|main| main <= self.floor || is_too_large && main <= self.flushed)
    }

    /// Lets at most `rows_max` rows leave, and as many changes.
    pub(super) fn evict(&mut self, rows_max: usize) -> Evicted {
        let mut evicted = Evicted::default();
        while evicted.rows.len() < rows_max
            && let Some(main) = self.rows.front().map(|row| row.key.revision().main)
            && (main <= self.floor || self.bytes > self.bytes_max && main <= self.flushed)
        {
            // Whole revisions leave, so the floor is one number. It moves with the first of their rows.
            self.floor = main;
            let Some(row) = self.rows.pop_front() else { break };
            self.bytes -= row.cost_bytes();
            self.taken -= 1;
            evicted.rows.push(row);
        }
        while evicted.changes.len() < rows_max
            && let Some(change) =
                self.changes.pop_front_if(|change| change.revision.main <= self.floor)
        {
            evicted.changes.push(change);
        }
        evicted
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
