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

use bytes::Bytes;

use super::event::{Event, Previous, has_previous, key_of};
use super::hub::Inner;
use super::stream::StreamId;
use super::stretch::{GroupEvents, Stretch};
use super::{Hub, previous, step_bounds};
use crate::mutants::{self, Mutant};
use crate::mvcc::{Revision, Row, Rows, RowsError};
use crate::view::View;

/// A stretch of history being read.
#[derive(Debug)]
pub struct Scan {
    stream: StreamId,
    from: i64,
    next: Revision,
    rows: Vec<Row>,
    /// At how many bytes of rows a step ends, and the reading of previous versions.
    bytes_max: usize,
}

/// What of the rows the stream's watchers want.
#[derive(Default)]
struct Matched {
    /// Each with whether its previous version is wanted.
    rows: Vec<(Row, bool)>,
    /// The keys and main revisions of those.
    wants_prev: Vec<(Bytes, i64)>,
    groups: GroupEvents,
    /// Everything up to this main revision is in it, if not all of the rows are.
    cut: Option<i64>,
    /// As in [`Stretch`].
    added: u64,
}

/// What one step read.
enum Step {
    /// Rows that were there; everything up to `upto` is now read if that is not below `from`.
    Read { upto: i64 },
    /// What is wanted was compacted.
    Compacted { compacted: i64, floor: i64 },
}

impl Scan {
    pub(super) fn new(stream: StreamId, from: i64, bytes_max: usize) -> Self {
        Self { stream, from, next: Revision::new(from, 0), rows: Vec::new(), bytes_max }
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
        let stretch = self.stretch(upto, hub, view, rows)?;
        hub.lock().absorb(self.stream, stretch);
        Ok(true)
    }

    fn read(&mut self, view: &View, rows: &dyn Rows) -> Result<Step, RowsError> {
        let bounds = step_bounds(self.bytes_max);
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

    /// The rows that the stream's watchers want, with their previous versions where they want those: as
    /// many revisions as one stretch takes.
    fn stretch(
        &mut self,
        upto: i64,
        hub: &Hub,
        view: &std::sync::Arc<View>,
        rows: &dyn Rows,
    ) -> Result<Stretch, RowsError> {
        let all = std::mem::take(&mut self.rows);
        let matched = hub.lock().match_rows(self.stream, all, self.bytes_max)?;
        let found = previous(&matched.wants_prev, self.bytes_max, view, rows)?;
        let cut = matched.wants_prev.get(found.len()).map(|(_, main)| main - 1);
        let upto = cut.or(matched.cut).unwrap_or(upto);
        let mut found = found.into_iter();
        let event = |(row, prev): (Row, bool)| {
            let previous = match prev {
                true => found.next().flatten().map_or(Previous::None, Previous::Kv),
                false => Previous::None,
            };
            Event::new(&row, previous)
        };
        let complete =
            matched.rows.into_iter().take_while(|(row, _)| row.key.revision().main <= upto);
        let events = complete.map(event).collect();
        let Matched { groups, added, .. } = matched;
        Ok(Stretch { from: self.from, upto, added, events, groups })
    }
}

impl Inner {
    /// Finds whom rows concern of a stream's watchers; whole revisions, at least one, until there are
    /// `bytes_max` bytes of that.
    fn match_rows(
        &self,
        id: StreamId,
        rows: Vec<Row>,
        bytes_max: usize,
    ) -> Result<Matched, RowsError> {
        let added = self.streams.get(&id).map_or(0, |stream| stream.added);
        let mut matched = Matched { added, ..Matched::default() };
        let (mut numbers, mut last) = (0, None);
        for row in rows {
            let main = row.key.revision().main;
            if let Some(before) = last.filter(|before| *before < main)
                && numbers * size_of::<u32>() >= bytes_max
            {
                matched.cut = Some(before);
                break;
            }
            last = Some(main);
            let key = key_of(&row).ok_or(RowsError::Damaged(row.key.revision()))?;
            let number = u32::try_from(matched.rows.len()).expect("fewer rows in memory");
            let mut wanted = None;
            self.interests.concerned(&key, &mut |group_id| {
                if let Some(group) = self.groups.get(&group_id)
                    && group.members.contains_key(&id)
                {
                    wanted = Some(wanted.unwrap_or(false) || group.with_prev > 0);
                    matched.groups.entry(group_id).or_default().push(number);
                    numbers += 1;
                }
            });
            let Some(wants_prev) = wanted else { continue };
            let prev = wants_prev && has_previous(&row);
            if prev {
                matched.wants_prev.push((key, main));
            }
            matched.rows.push((row, prev));
        }
        Ok(matched)
    }
}
