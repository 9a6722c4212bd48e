//! Compaction of history: scheduled at once, done in slices, deleted in ascending order.
//!
//! ```text
//! schedule(100)     reads below 100 are refused from now on
//! take .. flushed   the store knows of 100: after a crash, nobody reads below it either
//! step × n          the index drops what 100 made superfluous; the rows wait for deletion
//! take_deletions    .. leave with flushes, oldest first: a tombstone never before its puts
//! flushed           the last of them is durable: 100 is finished
//! ```
//!
//! The walk waits for two facts. The store must know of the schedule, because a checkpoint of the
//! index holds what the walk has done so far, and whoever starts from it must not read below. And a
//! read that pinned a revision below 100 before it was scheduled still needs the index as it is. New
//! pins are at 100 or above.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::RowKey;
use super::index::Index;
use crate::mutants::{self, Mutant};

/// The costs of a row beside its key and stored bytes, as in [`super::Row::cost_bytes`].
const ROW_OVERHEAD_BYTES: u64 = 16;

pub(super) struct Compaction {
    scheduled: i64,
    /// What was scheduled and finished when the last flush was cut.
    cut: (i64, i64),
    /// What was when the last durable flush was cut: what a restart would find.
    stored: (i64, i64),
    /// The last compaction that the index has been walked for.
    walked: i64,
    /// The last that began before the start: rows of it may be gone from the store.
    begun_before: i64,
    finished: i64,
    walk: Option<Walk>,
    /// Rows of compactions whose walk is done, each batch ascending, oldest compaction first.
    waiting: VecDeque<Batch>,
    /// What deletions that a flush has taken free, in bytes, until it is reported.
    taken: VecDeque<u64>,
    waiting_bytes: u64,
    dropped_rows: u64,
}

struct Walk {
    revision: i64,
    /// The key to go on from; it may be half done.
    next: Option<Bytes>,
    /// Dropped rows with their cost in bytes. Sorted as they come, so that no step pays for all.
    dropped: BTreeMap<RowKey, u64>,
}

struct Batch {
    revision: i64,
    rows: BTreeMap<RowKey, u64>,
    /// Rows that have been taken but whose deletion is not durable yet.
    unconfirmed: usize,
}

impl Default for Compaction {
    fn default() -> Self {
        Self::restored(-1, -1, -1)
    }
}

impl Compaction {
    /// The state after a restart. What was scheduled and not finished is walked again.
    pub(super) fn restored(scheduled: i64, begun: i64, finished: i64) -> Self {
        Self {
            scheduled,
            cut: (scheduled, finished),
            stored: (scheduled, finished),
            walked: finished,
            begun_before: begun,
            finished,
            walk: None,
            waiting: VecDeque::new(),
            taken: VecDeque::new(),
            waiting_bytes: 0,
            dropped_rows: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.scheduled
    }

    pub(super) fn finished(&self) -> i64 {
        self.finished
    }

    /// The last compaction whose walk has begun, in this life or before; -1 for none.
    pub(super) fn begun(&self) -> i64 {
        self.touched().max(self.begun_before)
    }

    /// The last compaction that the index has lost rows to; -1 for none.
    pub(super) fn touched(&self) -> i64 {
        self.walk.as_ref().map_or(self.walked, |walk| walk.revision)
    }

    /// Rows that compactions took out of the index since the start.
    pub(super) fn dropped_rows(&self) -> u64 {
        self.dropped_rows
    }

    /// Bytes of rows that left the index and whose deletion is not durable yet.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    pub(super) fn has_deletions(&self) -> bool {
        self.waiting.iter().any(|batch| !batch.rows.is_empty())
    }

    pub(super) fn wants_flush(&self) -> bool {
        self.has_deletions() || self.finished > self.stored.1
    }

    /// A compaction that has not begun to walk is overtaken by a later one.
    pub(super) fn schedule(&mut self, revision: i64) {
        self.scheduled = revision;
    }

    pub(super) fn is_runnable(&self, oldest_pin: Option<i64>) -> bool {
        let revision = match &self.walk {
            Some(walk) => walk.revision,
            None if self.stored.0 > self.walked => self.stored.0,
            None => return false,
        };
        mutants::on(Mutant::PinIgnored) || oldest_pin.is_none_or(|pin| pin >= revision)
    }

    pub(super) fn step(
        &mut self,
        index: &mut Index,
        steps_max: usize,
        oldest_pin: Option<i64>,
    ) -> Option<i64> {
        if !self.is_runnable(oldest_pin) {
            return None;
        }
        let (stored, _) = self.stored;
        let walk = self.walk.get_or_insert_with(|| Walk::new(stored));
        let mut dropped = Vec::new();
        walk.next = index.compact(walk.next.as_deref(), steps_max, walk.revision, &mut dropped);
        for (key, stored_bytes) in dropped {
            let cost = key.as_bytes().len() as u64 + u64::from(stored_bytes) + ROW_OVERHEAD_BYTES;
            self.waiting_bytes += cost;
            self.dropped_rows += 1;
            walk.dropped.insert(key, cost);
        }
        if walk.next.is_some() {
            return None;
        }
        let Walk { revision, dropped, .. } = self.walk.take()?;
        self.walked = revision;
        self.waiting.push_back(Batch { revision, rows: dropped, unconfirmed: 0 });
        self.finish();
        Some(revision)
    }

    /// Appends at most `rows_max` deletions for the flush that is being cut; `keys` holds those that it
    /// has already. Returns how many.
    pub(super) fn take_deletions(&mut self, rows_max: usize, keys: &mut Vec<RowKey>) -> usize {
        self.cut = (self.scheduled, self.finished);
        // A later compaction may drop older rows: each flush stays within one, so it ascends.
        let is_begun = !keys.is_empty();
        let batch = self.waiting.iter_mut().find(|batch| match is_begun {
            true => batch.unconfirmed > 0,
            false => !batch.rows.is_empty(),
        });
        let Some(batch) = batch else { return 0 };
        let from = keys.len();
        while keys.len() < from.saturating_add(rows_max)
            && let Some((key, cost)) = match mutants::on(Mutant::TombstoneBeforePuts) {
                true => batch.rows.pop_last(),
                false => batch.rows.pop_first(),
            }
        {
            batch.unconfirmed += 1;
            self.taken.push_back(cost);
            keys.push(key);
        }
        if mutants::on(Mutant::TombstoneBeforePuts) {
            keys.sort_unstable();
        }
        keys.len() - from
    }

    /// The last flush is durable; with it, the oldest `deleted` taken rows are gone.
    pub(super) fn flushed(&mut self, deleted: usize) {
        self.stored = self.cut;
        for _ in 0..deleted {
            let Some(cost) = self.taken.pop_front() else { break };
            self.waiting_bytes -= cost;
            if let Some(batch) = self.waiting.iter_mut().find(|batch| batch.unconfirmed > 0) {
                batch.unconfirmed -= 1;
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        while let Some(done) =
            self.waiting.pop_front_if(|batch| batch.rows.is_empty() && batch.unconfirmed == 0)
        {
            self.finished = done.revision;
        }
    }
}

impl Walk {
    fn new(revision: i64) -> Self {
        Self { revision, next: None, dropped: BTreeMap::new() }
    }
}
