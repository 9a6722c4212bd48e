//! Reading history for watchers that are behind: one pass for all of a stream.
//!
//! ```text
//!      compacted        floor                      current
//!  gone    |    store     |         window            |
//! ---------+--------------+---------------------------+--> revisions
//!               ^ from ........... upto
//! ```
//!
//! A stretch is whole revisions. Rows up to the floor come from the store; a compaction that was
//! scheduled meanwhile may have deleted some under the scan, so the compact revision is looked at
//! afterwards. What the window has is sent whatever is compacted.

use super::event::{Event, Previous, key_of};
use super::hub::Inner;
use super::stream::{StreamId, Stretch};
use super::{Hub, previous, step_bounds};
use crate::mutants::{self, Mutant};
use crate::mvcc::{Revision, Row, Rows, RowsError};
use crate::view::View;

/// Events with their keys.
type KeyedEvents = Vec<(bytes::Bytes, Event)>;

/// A stretch of history being read.
#[derive(Debug)]
pub struct Scan {
    stream: StreamId,
    from: i64,
    next: Revision,
    rows: Vec<Row>,
}

/// What one step read.
enum Step {
    /// Rows that were there; everything up to `upto` is now read if that is not below `from`.
    Read { upto: i64 },
    /// What is wanted was compacted.
    Compacted { compacted: i64, floor: i64 },
}

impl Scan {
    pub(super) fn new(stream: StreamId, from: i64) -> Self {
        Self { stream, from, next: Revision::new(from, 0), rows: Vec::new() }
    }

    /// Reads on; true when the hub has the result and the stream may be pulled again.
    ///
    /// # Errors
    /// [`RowsError`]: the store cannot be read and the process must end.
    pub fn step(
        &mut self,
        hub: &Hub,
        view: &std::sync::Arc<View>,
        rows: &dyn Rows,
    ) -> Result<bool, RowsError> {
        let upto = match self.read(view, rows)? {
            Step::Read { upto } => upto,
            Step::Compacted { compacted, floor } => {
                hub.lock().absorb_compacted(self.stream, compacted, floor);
                return Ok(true);
            }
        };
        if upto < self.from {
            return Ok(false);
        }
        let complete = self.rows.partition_point(|row| row.key.revision().main <= upto);
        self.rows.truncate(complete);
        let (events, cut) = self.events(hub, view, rows)?;
        let upto = cut.unwrap_or(upto);
        let stretch = Stretch { events, from: self.from, upto, pending: Default::default() };
        hub.lock().absorb(self.stream, stretch);
        Ok(true)
    }

    fn read(&mut self, view: &View, rows: &dyn Rows) -> Result<Step, RowsError> {
        let bounds = step_bounds();
        let recent = view.recent_rows(self.next, bounds, &mut self.rows);
        let (mut end, mut has_more) = (recent.current, recent.has_more);
        if !recent.is_held {
            end = recent.floor;
            has_more = rows.scan_within(self.next, bounds, &mut self.rows)?;
            let compacted = view.compact_revision();
            if compacted > self.from && !mutants::on(Mutant::WatchPastCompaction) {
                return Ok(Step::Compacted { compacted, floor: recent.floor });
            }
            let known = self.rows.partition_point(|row| row.key.revision().main <= end);
            has_more &= known == self.rows.len();
            self.rows.truncate(known);
        }
        let upto = match self.rows.last().filter(|_| has_more) {
            Some(last) => {
                let last = last.key.revision();
                self.next = last.next();
                last.main - 1
            }
            None => end,
        };
        Ok(Step::Read { upto })
    }

    /// The rows that the stream's watchers want, with their previous versions where they want those; and
    /// the revision up to which they are complete, if those were too much for one stretch.
    fn events(
        &mut self,
        hub: &Hub,
        view: &std::sync::Arc<View>,
        rows: &dyn Rows,
    ) -> Result<(KeyedEvents, Option<i64>), RowsError> {
        let mut wanted = Vec::new();
        let mut wants_prev = Vec::new();
        {
            let hub = hub.lock();
            for row in self.rows.drain(..) {
                let key = key_of(&row).ok_or(RowsError::Damaged(row.key.revision()))?;
                if let Some(prev) = hub.interest_of(self.stream, &key) {
                    if prev {
                        wants_prev.push((key.clone(), row.key.revision().main));
                    }
                    wanted.push((key, row, prev));
                }
            }
        }
        let found = previous(&wants_prev, view, rows)?;
        let cut = wants_prev.get(found.len()).map(|(_, main)| main - 1);
        if let Some(cut) = cut {
            wanted.retain(|(_, row, _)| row.key.revision().main <= cut);
        }
        let mut found = found.into_iter();
        let event = |(key, row, prev): (bytes::Bytes, Row, bool)| {
            let previous = match prev {
                true => found.next().flatten().map_or(Previous::None, Previous::Kv),
                false => Previous::None,
            };
            (key, Event::new(&row, previous))
        };
        Ok((wanted.into_iter().map(event).collect(), cut))
    }
}

impl Inner {
    /// Whether a stream's watchers are concerned by `key`, and whether any of their groups wants the
    /// previous version.
    fn interest_of(&self, id: StreamId, key: &[u8]) -> Option<bool> {
        let mut found = None;
        self.interests.concerned(key, &mut |group| {
            if let Some(group) = self.groups.get(&group)
                && group.members.contains_key(&id)
            {
                found = Some(found.unwrap_or(false) || group.with_prev > 0);
            }
        });
        found
    }
}
