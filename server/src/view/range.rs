//! A range, read in steps.
//!
//! In key order a step hands on what it read, and the read is done when the limit is full. Sorted or
//! bounded reads have to see every key first: they collect versions, not values, and fetch the rows of
//! what is left after sort and limit.

use std::sync::Arc;

use bytes::Bytes;

use super::{Pin, ReadError, STEP_KEYS_MAX, View, append_stored};
use crate::mvcc::index::Version;
use crate::mvcc::stored::{self, Numbers};
use crate::mvcc::{RangeQuery, Revision, Rows, RowsError, Sort, SortTarget};

/// What a finished range says beside its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeSummary {
    /// All keys in the range at its revision, whatever limit and bounds say.
    pub count: i64,
    /// Whether the limit cut something.
    pub more: bool,
}

/// A range being read.
pub struct RangeRead {
    view: Arc<View>,
    pin: Arc<Pin>,
    query: RangeQuery,
    at: Revision,
    /// The last key looked at.
    after: Option<Bytes>,
    phase: Phase,
}

enum Phase {
    /// Walking keys; `count` is known if it needed no walk.
    Walk { count: Option<i64>, seen: i64, collected: Vec<Found> },
    /// Handing on the rows of a sorted or bounded read.
    Fetch { summary: RangeSummary, rest: std::vec::IntoIter<Found> },
}

/// A key of the reply.
struct Found {
    version: Version,
    /// Only of reads that need it: the key, for `keys_only`; else empty.
    key: Bytes,
    /// The row, if the window had it.
    recent: Option<Bytes>,
}

impl RangeRead {
    pub(super) fn new(view: Arc<View>, query: RangeQuery, at: Revision, pin: Arc<Pin>) -> Self {
        let phase = Phase::Walk { count: None, seen: 0, collected: Vec::new() };
        Self { view, pin, query, at, after: None, phase }
    }

    /// Reads on, appending `mvccpb.KeyValue`s in wire form to `out` (without values for `keys_only`);
    /// `Some` when the range is complete.
    ///
    /// # Errors
    /// As [`View::stored`].
    pub fn step(
        &mut self,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<Option<RangeSummary>, ReadError> {
        if !self.pin.is_valid() {
            return Err(ReadError::Compacted);
        }
        if let Phase::Fetch { summary, rest } = &mut self.phase {
            let slice: Vec<Found> = rest.take(STEP_KEYS_MAX).collect();
            let done = rest.as_slice().is_empty().then_some(*summary);
            self.emit(slice, rows, out)?;
            return Ok(done);
        }
        self.walk(rows, out)
    }

    fn walk(
        &mut self,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<Option<RangeSummary>, ReadError> {
        let Phase::Walk { count, seen, collected } = &mut self.phase else {
            unreachable!("only a walk walks")
        };
        let in_order = self.query.sort.is_none_or(is_key_order) && !self.query.bounds.is_set();
        let limit = usize::try_from(self.query.limit).ok().filter(|&limit| limit > 0);
        let mut found = Vec::new();
        let exhausted = {
            let space = self.view.read();
            if count.is_none() && *seen == 0 {
                *count = space.count(&self.query.keys, self.at);
            }
            if self.query.count_only
                && let Some(count) = *count
            {
                return Ok(Some(RangeSummary { count, more: false }));
            }
            // In order, one key beyond the limit is enough, unless all have to be counted.
            let wanted = limit.filter(|_| in_order).map_or(usize::MAX, |limit| limit);
            let already = usize::try_from(*seen).unwrap_or(usize::MAX);
            let (query, counted) = (&self.query, count.is_some());
            let mut step_seen = 0;
            let after = space.index().walk(
                &query.keys,
                self.after.as_deref(),
                self.at,
                STEP_KEYS_MAX,
                &mut |key, version| {
                    step_seen += 1;
                    let full = already + step_seen > wanted;
                    let skip = full
                        || query.count_only
                        || !query.bounds.admits(version.revision.main, version.create_revision);
                    if !skip {
                        found.push(Found {
                            version: *version,
                            key: Bytes::copy_from_slice(if query.keys_only { key } else { b"" }),
                            recent: match query.keys_only {
                                true => None,
                                false => space.recent(version.revision).cloned(),
                            },
                        });
                    }
                    !(full && counted)
                },
            );
            *seen += i64::try_from(step_seen).unwrap_or(i64::MAX);
            let full = limit.is_some_and(|limit| {
                in_order && counted && usize::try_from(*seen).is_ok_and(|seen| seen > limit)
            });
            self.after = after;
            self.after.is_none() || full
        };
        if in_order {
            let summary = exhausted.then(|| RangeSummary {
                count: count.unwrap_or(*seen),
                more: !self.query.count_only
                    && limit.is_some_and(|limit| usize::try_from(*seen).is_ok_and(|s| s > limit)),
            });
            self.emit(found, rows, out)?;
            return Ok(summary);
        }
        collected.append(&mut found);
        if exhausted {
            let (count, found) = (count.unwrap_or(*seen), std::mem::take(collected));
            self.arrange(found, count, rows)?;
        }
        Ok(None)
    }

    /// Sorts and cuts what was collected.
    fn arrange(
        &mut self,
        mut found: Vec<Found>,
        count: i64,
        rows: &dyn Rows,
    ) -> Result<(), ReadError> {
        let limit = usize::try_from(self.query.limit).unwrap_or(0);
        if let Some(sort) = self.query.sort.filter(|&sort| !is_key_order(sort)) {
            if sort.limit_first && limit > 0 && !self.query.bounds.is_set() {
                found.truncate(limit.saturating_add(1));
            }
            self.sort(&mut found, sort, rows)?;
        }
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        let more = more && !self.query.count_only;
        self.phase =
            Phase::Fetch { summary: RangeSummary { count, more }, rest: found.into_iter() };
        Ok(())
    }

    fn sort(&self, found: &mut Vec<Found>, sort: Sort, rows: &dyn Rows) -> Result<(), ReadError> {
        match sort.target {
            // They come in key order.
            SortTarget::Key => {}
            SortTarget::Version => found.sort_by_key(|found| found.version.version),
            SortTarget::Create => found.sort_by_key(|found| found.version.create_revision),
            SortTarget::Mod => found.sort_by_key(|found| found.version.revision.main),
            SortTarget::Value if self.query.keys_only => {}
            SortTarget::Value => {
                let mut stored = Vec::with_capacity(found.len());
                let taken = std::mem::take(found);
                let versions: Vec<Version> = taken.iter().map(|found| found.version).collect();
                self.emit(taken, rows, &mut stored)?;
                let mut valued = Vec::with_capacity(stored.len());
                for (stored, version) in stored.into_iter().zip(versions) {
                    let kv = stored::decode(&stored).ok_or(RowsError::Damaged(version.revision))?;
                    let found = Found { version, key: Bytes::new(), recent: Some(stored) };
                    valued.push((kv.value, found));
                }
                valued.sort_by(|(left, _), (right, _)| left.cmp(right));
                found.extend(valued.into_iter().map(|(_, found)| found));
            }
        }
        if sort.descending {
            found.reverse();
        }
        Ok(())
    }

    fn emit(
        &self,
        found: Vec<Found>,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        if self.query.keys_only {
            // Served from the index, which is why the lease is left out, as in etcd 3.7.
            out.extend(found.into_iter().map(|found| {
                let numbers = Numbers {
                    create_revision: found.version.create_revision,
                    mod_revision: found.version.revision.main,
                    version: found.version.version,
                    lease: 0,
                };
                stored::encode(&found.key, b"", numbers)
            }));
            return Ok(());
        }
        let (revisions, recent): (Vec<_>, Vec<_>) =
            found.into_iter().map(|found| (found.version.revision, found.recent)).unzip();
        append_stored(&revisions, recent, rows, out).map_err(|error| self.pin.explain(error))
    }
}

fn is_key_order(sort: Sort) -> bool {
    sort.target == SortTarget::Key && !sort.descending
}
