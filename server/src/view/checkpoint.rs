//! A checkpoint of the index as of one revision, in steps, while writes go on.
//!
//! A start that uses a checkpoint does again what was compacted after it. That needs every row that is in
//! the store: one that the index had dropped before, but that was still to be deleted from the store,
//! would never be deleted. So a checkpoint is written between two compactions, and it keeps the next one
//! from beginning.
//!
//! ```text
//! compaction 7   index drops ... deletions flushed |
//!       hold            waits for 7                | settled: checkpoint | dropped
//! compaction 9                 scheduled                                 | index drops ...
//! ```
//!
//! Waiting takes a minute at the most. Writing has its own bound, from when it begins: each step renews
//! the pin, and however long the index is and however often flushes go first, compactions are let go ten
//! minutes later, and a minute later for each GiB of rows.

use std::sync::Arc;

use super::{PIN_MS_MAX, Pin, ReadError, View};
use crate::mutants;
use crate::mvcc::Revision;
use crate::mvcc::index::{Place, SliceBounds};

/// Keys that one chunk looks at.
const CHUNK_KEYS: usize = if cfg!(test) { 5 } else { 1000 };

/// Rows of one chunk: one key may have millions of them.
const CHUNK_ROWS: usize = if cfg!(test) { 3 } else { 2000 };

/// Bytes of one chunk, but for its last key: keys may be long.
const CHUNK_BYTES: usize = if cfg!(test) { 60 } else { 1 << 20 };

/// Keeps compactions from beginning; see [`View::hold_compactions`].
pub struct CompactionHold {
    view: Arc<View>,
    /// At the last compaction that the index lost rows to: it lets that one go on, and no other begin.
    pin: Pin,
}

/// A checkpoint being written.
pub struct CheckpointRead {
    hold: CompactionHold,
    revision: i64,
    place: Option<Place>,
}

impl CompactionHold {
    pub(super) fn new(view: Arc<View>) -> Self {
        // Under the lock, so that none begins between the look and the pin.
        let space = view.read();
        let pin = Pin::new(view.clone(), space.touched_by_compaction());
        drop(space);
        Self { view, pin }
    }

    /// Whether it still holds: like a pin it expires.
    pub fn is_valid(&self) -> bool {
        self.pin.is_valid()
    }

    /// Whether the compaction that the index lost rows to is finished: it has every row of the store.
    pub fn is_settled(&self) -> bool {
        self.view.finished_compaction() >= self.pin.revision()
    }

    /// Starts to write a checkpoint of the index as of `revision`, which is flushed. It holds from now on
    /// for as long as its steps take, up to a bound.
    ///
    /// # Panics
    /// If it is not settled: the checkpoint would miss rows.
    pub fn checkpoint(mut self, revision: i64) -> CheckpointRead {
        assert!(self.is_settled(), "a checkpoint is written between two compactions");
        let total_bytes = self.view.sizes().total_bytes;
        self.pin.extend(ms_max(total_bytes));
        CheckpointRead { hold: self, revision, place: None }
    }
}

impl CheckpointRead {
    /// The revision of the checkpoint.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction that it knows of; -1 for none.
    pub fn compact_revision(&self) -> i64 {
        self.hold.pin.revision()
    }

    /// Appends the next chunk to `out`; `false` when it was the last one.
    ///
    /// # Errors
    /// `Compacted` if a step came later than a pin lasts, or all of it took too long: begin again.
    pub fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        let upto = Revision::end_of(self.revision);
        // If it has expired, the lock below is not given for it.
        self.hold.pin.renew();
        let space = self.hold.view.read_pinned(&self.hold.pin)?;
        let bounds = SliceBounds {
            keys_max: mutants::step(CHUNK_KEYS),
            rows_max: mutants::step(CHUNK_ROWS),
            bytes_max: CHUNK_BYTES,
        };
        self.place = space.index().encode_slice(self.place.as_ref(), bounds, upto, out);
        Ok(self.place.is_some())
    }
}

/// How long the checkpoint of an index of so many bytes of rows may take: a pin lasts a minute.
const fn ms_max(total_bytes: u64) -> u64 {
    (10 + total_bytes.div_ceil(1 << 30)) * PIN_MS_MAX
}
