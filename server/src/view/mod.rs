//! What a reader sees: the key space behind the one lock, at a fixed revision, in short steps.
//!
//! A [`View`] is shared by the owner, who alone writes, and by every reader. A read is a step function:
//! each step takes the read lock for at most [`STEP_KEYS_MAX`] keys, collects revisions and what the
//! recent window holds, lets go of the lock, and only then asks [`Rows`] for the rest. In between
//! nothing can change under it: a revision, once written, never changes, and the read *pins* its
//! revision, so compaction leaves alone what it still needs.
//!
//! ```text
//! reader  pin 7 | lock: keys a..m at 7, window has b, d | unlock | store: a, c, e..m | lock: n.. |
//! owner            put 8             put 9 put 10   compact 9: the index waits for the pin ...
//! ```
//!
//! Lock order: the key space, then the pins. No reader holds either while rows are read; the owner reads
//! a value under its lock only for a compare of values and for `ignore_value`.

mod checkpoint;
mod compare;
mod count;
mod hash;
mod history;
mod observed;
mod pins;
mod previous;
mod range;
mod recent;
mod slice;
mod sorted;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};

use crate::mutants;
use crate::mvcc::{
    Counts, KeySpace, MvccError, RangeEnd, RangeQuery, Revision, RowKey, Rows, RowsError, Sizes,
    Unflushed,
};

pub use checkpoint::{CheckpointRead, CompactionHold};
pub use compare::CompareRead;
pub use hash::{HashRead, HashResult};
pub use history::{History, HistoryRead};
pub use observed::{LockObserver, OwnerGuard};
use pins::ms_at_a_clients_pace;
pub use pins::{PIN_MS_MAX, Pin};
pub use range::{RangeRead, RangeSummary};
pub use recent::Recent;

/// The most keys that one step looks at under the lock. Few in unit tests, so that a few dozen keys
/// make a read of many steps.
pub const STEP_KEYS_MAX: usize = if cfg!(test) { 7 } else { 1000 };

/// What one step looks at.
fn step_keys() -> usize {
    mutants::step(STEP_KEYS_MAX)
}

/// The most rows that one step of the owner takes, lets go of or forgets under the lock.
const OWNER_STEP_ROWS: usize = if cfg!(test) { 7 } else { 1000 };

/// The bytes of rows at which one step of a range ends: what it reads is copied from the store in one
/// call, on the thread that serves everyone. One row may be more.
pub const STEP_BYTES_MAX: usize = if cfg!(test) { 100 } else { 1 << 20 };

/// The key space as owner and readers share it.
pub struct View {
    space: RwLock<KeySpace>,
    pins: pins::Pins,
    observer: OnceLock<Arc<dyn LockObserver>>,
}

/// Why a read ends without a result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision was compacted, or the read's pin expired.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision has not happened yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The store cannot be read; the process must end.
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// A point read that was answered from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The current revision at which it read.
    pub revision: i64,
    /// The stored `mvccpb.KeyValue`; `None` if there is no such key.
    pub stored: Option<Bytes>,
}

impl View {
    /// Shares `space`.
    pub fn new(space: KeySpace) -> Arc<Self> {
        let (space, pins) = (RwLock::new(space), pins::Pins::default());
        Arc::new(Self { space, pins, observer: OnceLock::new() })
    }

    /// Has `observer` hear of the owner's lock from now on; only the first one does.
    pub fn observe(&self, observer: Arc<dyn LockObserver>) {
        // A second one is a mistake of whoever puts the parts together, and costs a metric only.
        let _ = self.observer.set(observer);
    }

    /// The key space for its owner. Nothing but the pins may be locked while this is held.
    pub fn write(&self) -> OwnerGuard<'_> {
        OwnerGuard::take(&self.space, self.observer.get().map(Arc::as_ref))
    }

    /// See [`KeySpace::take_unflushed`]; readers get their turn in between. For the owner alone: so
    /// nothing is applied meanwhile.
    pub fn take_unflushed(&self, deletions_max: usize) -> Unflushed {
        let mut unflushed = Unflushed::default();
        let rows_max = mutants::step(OWNER_STEP_ROWS);
        while self.write().take_some(rows_max, deletions_max, &mut unflushed) {}
        unflushed
    }

    /// See [`KeySpace::flushed`]; readers get their turn in between.
    pub fn flushed(&self, revision: i64, deleted: &[RowKey]) {
        self.write().flushed(revision, &[]);
        for slice in deleted.chunks(mutants::step(OWNER_STEP_ROWS)) {
            self.write().deleted(slice.len());
        }
    }

    /// Whether [`View::evict`] has something to do.
    pub fn is_evictable(&self) -> bool {
        self.read().is_evictable()
    }

    /// Lets some of the rows that the window should not hold any more leave it.
    pub fn evict(&self) {
        // The lock is free again when their memory is given back.
        let evicted = self.write().evict(mutants::step(OWNER_STEP_ROWS));
        drop(evicted);
    }

    /// The key space for one step of a reader.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, KeySpace> {
        self.space.read()
    }

    /// The key space for one step of a read under `pin`.
    ///
    /// The pin is looked at under the lock: a compaction that its expiry set free has then either not
    /// touched the index yet, or is seen as the expiry.
    fn read_pinned(&self, pin: &Pin) -> Result<RwLockReadGuard<'_, KeySpace>, ReadError> {
        let space = self.read();
        if pin.is_valid() { Ok(space) } else { Err(ReadError::Compacted) }
    }

    /// The revision of the last visible change.
    pub fn current_revision(&self) -> i64 {
        self.read().current_revision()
    }

    /// The current and the compact revision of one moment.
    pub fn revisions(&self) -> (i64, i64) {
        let space = self.read();
        (space.current_revision(), space.compact_revision())
    }

    /// See [`KeySpace::compact_revision`].
    pub fn compact_revision(&self) -> i64 {
        self.read().compact_revision()
    }

    /// See [`KeySpace::finished_compaction`].
    pub fn finished_compaction(&self) -> i64 {
        self.read().finished_compaction()
    }

    /// See [`KeySpace::begun_compaction`].
    pub fn begun_compaction(&self) -> i64 {
        self.read().begun_compaction()
    }

    /// See [`KeySpace::sizes`].
    pub fn sizes(&self) -> Sizes {
        self.read().sizes()
    }

    /// See [`KeySpace::counts`].
    pub fn counts(&self) -> Counts {
        self.read().counts()
    }

    /// Live keys now.
    pub fn key_count(&self) -> u64 {
        self.read().key_count()
    }

    /// Bytes of rows that no flush has taken yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.read().unflushed_bytes()
    }

    /// Whether a compaction has index work left that no pin holds back.
    pub fn compaction_runnable(&self) -> bool {
        let space = self.read();
        space.compaction_runnable(self.pins.oldest())
    }

    /// Pins `revision`; 0 or less pins the current one.
    ///
    /// # Errors
    /// `Compacted` below the compact revision, `FutureRevision` above the current one.
    pub fn pin(self: &Arc<Self>, revision: i64) -> Result<Pin, ReadError> {
        // Under the lock, so that no compaction is scheduled between the check and the pin.
        let space = self.read();
        let revision = space.check_readable(revision)?;
        Ok(Pin::new(self.clone(), revision))
    }

    /// As [`View::pin`], for a read whose pace is a client's: however often it is renewed, it ends after an
    /// hour, and a minute for each GiB of the key space.
    ///
    /// # Errors
    /// As [`View::pin`].
    pub fn pin_for_stream(self: &Arc<Self>, revision: i64) -> Result<Pin, ReadError> {
        let space = self.read();
        let revision = space.check_readable(revision)?;
        let ms_max = ms_at_a_clients_pace(space.sizes().total_bytes);
        Ok(Pin::lasting(self.clone(), revision, ms_max))
    }

    /// Whether a pin holds the last compaction back. None that comes later does.
    pub fn is_compaction_held(&self) -> bool {
        let space = self.read();
        let scheduled = space.compact_revision();
        scheduled > space.finished_compaction()
            && self.pins.oldest().is_some_and(|pin| pin < scheduled)
    }

    /// Answers a read of one key at the current revision if index and window can; `None` if the
    /// store is needed, or `query` asks for more than one key's row. Costs one lock and no pin.
    pub fn get(&self, query: &RangeQuery) -> Option<Point> {
        let plain = matches!(query.keys.end, RangeEnd::Single)
            && !query.keys_only
            && !query.count_only
            && !query.bounds.is_set();
        if !plain {
            return None;
        }
        let space = self.read();
        let stored = match space.index().latest(&query.keys.start) {
            Some(version) => Some(space.recent(version.revision)?.clone()),
            None => None,
        };
        Some(Point { revision: space.current_revision(), stored })
    }

    /// Starts to read `query` as of `at` (inclusive), under a pin of `at.main` or earlier.
    pub fn range(self: &Arc<Self>, query: RangeQuery, at: Revision, pin: Arc<Pin>) -> RangeRead {
        RangeRead::new(self.clone(), query, at, pin)
    }

    /// Appends the rows at `revisions`, in order, to `out`: from the window, else from `rows`.
    ///
    /// # Errors
    /// `Compacted` if `pin` expired; `Rows` if the store cannot be read.
    pub fn stored(
        &self,
        revisions: &[Revision],
        pin: &Pin,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        for slice in revisions.chunks(step_keys()) {
            let mut gaps = Gaps::default();
            let space = self.read();
            for &revision in slice {
                gaps.push(revision, space.recent(revision).cloned(), out);
            }
            drop(space);
            gaps.fill(rows, out).map_err(|error| pin.explain(error))?;
        }
        Ok(())
    }

    /// Starts to hash the rows up to `revision`; 0 or less stands for the current one.
    ///
    /// # Errors
    /// As [`View::pin`].
    pub fn hash_kv(self: &Arc<Self>, revision: i64) -> Result<HashRead, ReadError> {
        HashRead::new(self.clone(), revision)
    }

    /// Pins everything that is readable now: all rows, for whoever copies the whole key space.
    pub fn history(self: &Arc<Self>) -> Arc<History> {
        Arc::new(History::new(self.clone()))
    }

    /// Keeps every compaction that has not begun from beginning, until the hold is dropped or expires
    /// like any pin.
    pub fn hold_compactions(self: &Arc<Self>) -> CompactionHold {
        CompactionHold::new(self.clone())
    }

    /// Lets time of the owner's clock pass; pins older than their bound expire.
    pub fn pass(&self, elapsed_ms: u64) {
        self.pins.pass(elapsed_ms);
    }

    /// The oldest pinned revision, for [`KeySpace::compact_step`].
    pub fn oldest_pin(&self) -> Option<i64> {
        self.pins.oldest()
    }
}

impl From<MvccError> for ReadError {
    fn from(error: MvccError) -> Self {
        match error {
            MvccError::FutureRevision => Self::FutureRevision,
            _ => Self::Compacted,
        }
    }
}

/// Rows of a reply that the window did not have, and their places in it.
#[derive(Default)]
struct Gaps {
    revisions: Vec<Revision>,
    places: Vec<usize>,
}

impl Gaps {
    /// Appends what the window had of the row at `revision`, or a gap.
    fn push(&mut self, revision: Revision, recent: Option<Bytes>, out: &mut Vec<Bytes>) {
        if recent.is_none() {
            self.revisions.push(revision);
            self.places.push(out.len());
        }
        out.push(recent.unwrap_or_default());
    }

    /// Fills the gaps with one read of the store. If it fails, `out` ends before the first gap.
    fn fill(self, rows: &dyn Rows, out: &mut Vec<Bytes>) -> Result<(), RowsError> {
        let Some(&first) = self.places.first() else { return Ok(()) };
        let mut read = Vec::with_capacity(self.places.len());
        let mut result = rows.get_many(&self.revisions, &mut read);
        if result.is_ok()
            && let Some(&missing) = self.revisions.get(read.len())
        {
            result = Err(RowsError::Missing(missing));
        }
        if result.is_err() {
            out.truncate(first);
            return result;
        }
        for (place, stored) in self.places.into_iter().zip(read) {
            out[place] = stored;
        }
        Ok(())
    }
}
