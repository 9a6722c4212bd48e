//! Compaction of history: scheduled at once, done in slices, deleted in ascending order.
//!
//! ```text
//! schedule(100)     reads below 100 are refused from now on
//! step × n          the index drops what 100 made superfluous; the rows wait for deletion
//! take_deletions    .. leave with flushes, oldest first: a tombstone never before its puts
//! flushed           the last of them is durable: 100 is finished
//! ```
//!
//! A read that pinned a revision below 100 before it was scheduled still needs the index as it is, so
//! the walk waits for it. New pins are at 100 or above.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::RowKey;
use super::index::Index;
use crate::mutants::{self, Mutant};

/// The costs of a row beside its key and stored bytes, as in [`super::Row::cost_bytes`].
const ROW_OVERHEAD_BYTES: u64 = 16;

pub(super) struct Compaction {
    revision: i64,
    finished: i64,
    walk: Option<Walk>,
    /// Rows of compactions whose walk is done, each batch ascending, oldest compaction first.
    waiting: VecDeque<Batch>,
    /// Deletions taken by a flush that has not been reported yet, and their bytes.
    taken: VecDeque<(RowKey, u64)>,
    waiting_bytes: u64,
}

struct Walk {
    revision: i64,
    after: Option<Bytes>,
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
        Self::restored(-1, -1)
    }
}

impl Compaction {
    /// The state after a restart. What was scheduled and not finished is walked again.
    pub(super) fn restored(scheduled: i64, finished: i64) -> Self {
        let walk = (scheduled > finished).then(|| Walk::new(scheduled));
        Self {
            revision: scheduled,
            finished,
            walk,
            waiting: VecDeque::new(),
            taken: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn finished(&self) -> i64 {
        self.finished
    }

    /// Bytes of rows that left the index and whose deletion is not durable yet.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// A compaction that has not begun to walk is overtaken by a later one.
    pub(super) fn schedule(&mut self, revision: i64) {
        self.revision = revision;
        if self.walk.as_ref().is_none_or(|walk| walk.after.is_none() && walk.dropped.is_empty()) {
            self.walk = Some(Walk::new(revision));
        }
    }

    pub(super) fn is_runnable(&self, oldest_pin: Option<i64>) -> bool {
        let walk = self.walk.as_ref();
        let oldest_pin = oldest_pin.filter(|_| !mutants::on(Mutant::PinIgnored));
        walk.is_some_and(|walk| oldest_pin.is_none_or(|pin| pin >= walk.revision))
    }

    pub(super) fn step(
        &mut self,
        index: &mut Index,
        keys_max: usize,
        oldest_pin: Option<i64>,
    ) -> Option<i64> {
        if !self.is_runnable(oldest_pin) {
            return None;
        }
        let walk = self.walk.as_mut()?;
        let mut dropped = Vec::new();
        walk.after = index.compact(walk.after.as_deref(), keys_max, walk.revision, &mut dropped);
        for (key, stored_bytes) in dropped {
            let cost = key.as_bytes().len() as u64 + u64::from(stored_bytes) + ROW_OVERHEAD_BYTES;
            self.waiting_bytes += cost;
            walk.dropped.insert(key, cost);
        }
        if walk.after.is_some() {
            return None;
        }
        let Walk { revision, dropped, .. } = self.walk.take()?;
        self.waiting.push_back(Batch { revision, rows: dropped, unconfirmed: 0 });
        self.finish();
        if revision < self.revision {
            self.walk = Some(Walk::new(self.revision));
        }
        Some(revision)
    }

    pub(super) fn take_deletions(&mut self, rows_max: usize) -> Vec<RowKey> {
        let mut keys = Vec::new();
        for batch in &mut self.waiting {
            while keys.len() < rows_max
                && let Some((key, cost)) = match mutants::on(Mutant::TombstoneBeforePuts) {
                    true => batch.rows.pop_last(),
                    false => batch.rows.pop_first(),
                }
            {
                batch.unconfirmed += 1;
                self.taken.push_back((key, cost));
                keys.push(key);
            }
            // A later compaction may drop older rows: each flush stays within one, so it ascends.
            if !keys.is_empty() {
                break;
            }
        }
        keys
    }

    /// The oldest `deleted` taken rows are durably gone.
    pub(super) fn flushed(&mut self, deleted: usize) {
        for _ in 0..deleted {
            let Some((_, cost)) = self.taken.pop_front() else { break };
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
        Self { revision, after: None, dropped: BTreeMap::new() }
    }
}
