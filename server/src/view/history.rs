//! Every row of one moment, as often as it is asked for: what a copy of the whole key space reads.
//!
//! A [`History`] is what a store would hold whose compaction has just ended: every row above the compact
//! revision; at or below it, what was visible there, and tombstones of exactly that revision. How far
//! deletion has come makes no difference, so two reads of one history give the same rows although the
//! store changes in between: whoever copies may count first and write later.
//!
//! ```text
//! compacted at 3, now 5    a (2)   a (3)   b (3.1)   a (4)t   c (5)   | later: d (6)
//! the history                      a (3)   b (3.1)   a (4)t   c (5)
//! ```
//!
//! As with hashes, the pin is at the compact revision: a later compaction waits, because it would drop
//! rows above it. Each step renews the pin, so a copy may take longer than a pin lasts; a reader that takes
//! none for that time has lost it. And none holds compaction back for ever: however busy the reader is, its
//! history ends an hour after it began, and a minute later for each GiB that there was to copy.

use std::sync::Arc;

use super::pins::ms_at_a_clients_pace;
use super::{Pin, ReadError, View, slice};
use crate::mvcc::{KeySpace, Revision, Row, Rows, RowsError, stored};

/// All rows of one moment, pinned.
pub struct History {
    view: Arc<View>,
    pin: Pin,
    revision: i64,
    compact_revision: i64,
    /// The store holds no row that the compaction dropped.
    is_settled: bool,
}

/// One pass over a history, in ascending order.
pub struct HistoryRead {
    history: Arc<History>,
    next: Revision,
}

impl History {
    pub(super) fn new(view: Arc<View>) -> Self {
        // One lock for all: no compaction is scheduled between the pin and what is said about it.
        let space = view.read();
        let (revision, compact_revision) = (space.current_revision(), space.compact_revision());
        let is_settled = space.finished_compaction() == compact_revision;
        let ms_max = ms_at_a_clients_pace(space.sizes().total_bytes);
        let pin = Pin::lasting(view.clone(), compact_revision, ms_max);
        drop(space);
        Self { view, pin, revision, compact_revision, is_settled }
    }

    /// The current revision at its moment.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compact revision at its moment; -1 for none.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Whether it can still be read.
    pub fn is_pinned(&self) -> bool {
        self.pin.is_valid()
    }

    /// Starts a pass over its rows.
    pub fn read(self: &Arc<Self>) -> HistoryRead {
        HistoryRead { history: self.clone(), next: Revision::default() }
    }

    /// Drops rows that the compaction at the compact revision drops, deleted or not.
    fn retain(&self, space: &KeySpace, rows: &mut Vec<Row>) -> Result<(), ReadError> {
        let at = Revision::end_of(self.compact_revision);
        let mut damaged = None;
        rows.retain(|row| {
            let revision = row.key.revision();
            if revision > at {
                return true;
            }
            if row.key.is_tombstone() {
                return revision.main == at.main;
            }
            let Some(kv) = stored::decode(&row.stored) else {
                damaged.get_or_insert(revision);
                return false;
            };
            space.index().at(&kv.key, at).is_some_and(|version| version.revision == revision)
        });
        damaged.map_or(Ok(()), |revision| Err(RowsError::Damaged(revision).into()))
    }
}

impl HistoryRead {
    /// Appends the next rows, of about [`STEP_BYTES_MAX`](super::STEP_BYTES_MAX) bytes at the most, to
    /// `out`; `false` when they were the last ones.
    ///
    /// # Errors
    /// `Compacted` if the pin expired and history was compacted since; `Rows` if the store cannot be read.
    pub fn step(&mut self, rows: &dyn Rows, out: &mut Vec<Row>) -> Result<bool, ReadError> {
        let history = self.history.clone();
        if !history.pin.renew() {
            return Err(ReadError::Compacted);
        }
        let (mut batch, resume) = match self.recent()? {
            Ok(batch) => batch,
            Err(floor) => self.scan(rows, floor)?,
        };
        self.next = resume.unwrap_or(Revision::end_of(history.revision));
        batch.retain(|row| row.key.revision().main <= history.revision);
        out.append(&mut batch);
        Ok(resume.is_some_and(|next| next.main <= history.revision))
    }

    /// The next rows and where to go on, if the window holds them; else how far it does not.
    fn recent(&self) -> Result<Result<Batch, i64>, ReadError> {
        let history = &self.history;
        let space = history.view.read_pinned(&history.pin)?;
        let Some(recent) = space.recent_rows(self.next) else {
            return Ok(Err(space.window_floor()));
        };
        let mut batch = slice::of_window(recent);
        let resume = batch.last().map(|row| row.key.revision().next());
        // The window keeps what a compaction dropped until it is evicted.
        history.retain(&space, &mut batch)?;
        Ok(Ok((batch, resume)))
    }

    /// The next rows of the store, which is sure to hold all up to `floor`.
    fn scan(&self, rows: &dyn Rows, floor: i64) -> Result<Batch, ReadError> {
        let history = &self.history;
        let (mut batch, resume) = slice::of_store(rows, self.next, floor)?;
        // Once the pin has expired, rows may have been deleted under the scan.
        let space = history.view.read_pinned(&history.pin)?;
        let begins_below =
            batch.first().is_some_and(|row| row.key.revision().main <= history.compact_revision);
        if begins_below && !history.is_settled {
            history.retain(&space, &mut batch)?;
        }
        Ok((batch, Some(resume)))
    }
}

/// Rows, and where the next ones begin; `None` behind the last row of all.
type Batch = (Vec<Row>, Option<Revision>);
