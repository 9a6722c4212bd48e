//! A range, read in steps.
//!
//! In key order a step hands on what it read, and the read is done when the limit is full. Sorted or
//! bounded reads have to see every key first: they collect versions, not values, and fetch the rows of
//! what is left after sort and limit.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use super::{Gaps, Pin, ReadError, STEP_BYTES_MAX, View, step_keys};
use crate::mvcc::index::Version;
use crate::mvcc::stored::{self, KeyValue, Numbers};
use crate::mvcc::{KeySpace, RangeEnd, RangeQuery, Revision, Rows, RowsError, Sort, SortTarget};

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
    walk: Walk,
    phase: Phase,
}

/// How far the keys have been looked at.
#[derive(Default)]
struct Walk {
    /// All keys of the range, if that needed no walk.
    count: Option<i64>,
    seen: i64,
    /// The last key looked at.
    after: Option<Bytes>,
}

enum Phase {
    /// Walking keys; `collected` only if they cannot be handed on as they come.
    Walk { collected: Vec<Found> },
    /// Handing on the rows of a sorted or bounded read.
    Fetch { summary: RangeSummary, rest: std::vec::IntoIter<Found> },
}

/// A key of the reply.
struct Found {
    version: Version,
    /// Only of reads that need it: the key, for `keys_only`; else empty.
    key: Bytes,
    /// The row, if the window had it, or if the sort had to read it.
    recent: Option<Bytes>,
}

impl RangeRead {
    pub(super) fn new(view: Arc<View>, query: RangeQuery, at: Revision, pin: Arc<Pin>) -> Self {
        let phase = Phase::Walk { collected: Vec::new() };
        Self { view, pin, query, at, walk: Walk::default(), phase }
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
        if let Phase::Fetch { summary, rest } = &mut self.phase {
            if !self.pin.is_valid() {
                return Err(ReadError::Compacted);
            }
            let slice = Self::next_slice(rest);
            let done = rest.as_slice().is_empty().then_some(*summary);
            self.emit(slice, rows, out)?;
            return Ok(done);
        }
        let (mut found, is_last) = self.look()?;
        if self.is_in_order() {
            self.emit(found, rows, out)?;
            return Ok(is_last.then(|| self.summary()));
        }
        if let Phase::Walk { collected } = &mut self.phase {
            collected.append(&mut found);
            if is_last {
                let found = std::mem::take(collected);
                self.arrange(found, rows)?;
            }
        }
        Ok(None)
    }

    /// What one step hands on of the keys that are left.
    fn next_slice(rest: &mut std::vec::IntoIter<Found>) -> Vec<Found> {
        let mut bytes = 0;
        let slice = std::iter::from_fn(|| {
            let found = if bytes < STEP_BYTES_MAX { rest.next()? } else { return None };
            bytes += found.fetch_bytes();
            Some(found)
        });
        slice.take(step_keys()).collect()
    }

    /// One slice of the walk: what it found, and whether it was the last.
    fn look(&mut self) -> Result<(Vec<Found>, bool), ReadError> {
        let fetches = self.is_in_order() && !is_from_index(&self.query);
        let most = if self.is_in_order() { self.limit().unwrap_or(i64::MAX) } else { i64::MAX };
        let Self { query, at, walk, .. } = self;
        let space = self.view.read_pinned(&self.pin)?;
        if query.keys.end == RangeEnd::Single {
            let version = space.index().at(&query.keys.start, *at);
            walk.seen = i64::from(version.is_some());
            let found = version.filter(|version| is_wanted(query, version));
            let key = &query.keys.start;
            let found = found.map(|version| Found::new(&space, query, key, &version));
            return Ok((found.into_iter().collect(), true));
        }
        if walk.after.is_none() {
            walk.count = space.count(&query.keys, *at);
        }
        if query.count_only && walk.count.is_some() {
            return Ok((Vec::new(), true));
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        let (is_counted, seen) = (walk.count.is_some(), &mut walk.seen);
        walk.after = space.index().walk(
            &query.keys,
            walk.after.as_deref(),
            *at,
            step_keys(),
            &mut |key, version| {
                *seen += 1;
                if *seen > most {
                    // One key beyond the limit is enough, unless all have to be counted.
                    return !is_counted;
                }
                if is_wanted(query, version) {
                    let next = Found::new(&space, query, key, version);
                    bytes += if fetches { next.fetch_bytes() } else { 0 };
                    found.push(next);
                }
                bytes < STEP_BYTES_MAX
            },
        );
        Ok((found, walk.after.is_none() || is_counted && walk.seen > most))
    }

    /// The summary of a read in order.
    fn summary(&self) -> RangeSummary {
        let count = self.walk.count.unwrap_or(self.walk.seen);
        let is_cut = self.limit().is_some_and(|limit| self.walk.seen > limit);
        RangeSummary { count, more: is_cut && !self.query.count_only }
    }

    /// Sorts and cuts what was collected.
    fn arrange(&mut self, mut found: Vec<Found>, rows: &dyn Rows) -> Result<(), ReadError> {
        let limit = self.limit().and_then(|limit| usize::try_from(limit).ok());
        if let Some(sort) = self.query.sort {
            if sort.limit_first && !self.query.bounds.is_set() {
                found.truncate(limit.map_or(usize::MAX, |limit| limit.saturating_add(1)));
            }
            self.sort(&mut found, sort, rows)?;
        }
        let more = limit.is_some_and(|limit| found.len() > limit);
        found.truncate(limit.unwrap_or(usize::MAX));
        let count = self.walk.count.unwrap_or(self.walk.seen);
        self.phase =
            Phase::Fetch { summary: RangeSummary { count, more }, rest: found.into_iter() };
        Ok(())
    }

    /// Sorts keys that came in key order. Equal ones stay in key order, also if the largest come first.
    fn sort(&self, found: &mut Vec<Found>, sort: Sort, rows: &dyn Rows) -> Result<(), ReadError> {
        let order = |order: Ordering| if sort.descending { order.reverse() } else { order };
        let mut by = |number: fn(&Version) -> i64| {
            found.sort_by(|left, right| order(number(&left.version).cmp(&number(&right.version))));
        };
        match sort.target {
            SortTarget::Key if sort.descending => found.reverse(),
            SortTarget::Key => {}
            SortTarget::Version => by(|version| version.version),
            SortTarget::Create => by(|version| version.create_revision),
            SortTarget::Mod => by(|version| version.revision.main),
            SortTarget::Value => {
                let mut valued = self.with_values(std::mem::take(found), rows)?;
                valued.sort_by(|(left, _), (right, _)| order(left.cmp(right)));
                found.extend(valued.into_iter().map(|(_, found)| found));
            }
        }
        Ok(())
    }

    /// Reads the rows of all `found`. Having been read, they give their lease even for `keys_only`,
    /// as in etcd.
    fn with_values(
        &self,
        mut found: Vec<Found>,
        rows: &dyn Rows,
    ) -> Result<Vec<(Bytes, Found)>, ReadError> {
        let mut valued = Vec::with_capacity(found.len());
        while !found.is_empty() {
            let rest = found.split_off(found.len().min(step_keys()));
            let versions: Vec<Version> = found.iter().map(|found| found.version).collect();
            let mut slice = Vec::with_capacity(found.len());
            self.append(found, rows, &mut slice)?;
            for (stored, version) in slice.into_iter().zip(versions) {
                let damaged = RowsError::Damaged(version.revision);
                let KeyValue { key, value, numbers } = stored::decode(&stored).ok_or(damaged)?;
                let kept =
                    if self.query.keys_only { stored::encode(&key, b"", numbers) } else { stored };
                valued.push((value, Found { version, key: Bytes::new(), recent: Some(kept) }));
            }
            found = rest;
        }
        Ok(valued)
    }

    fn emit(
        &self,
        found: Vec<Found>,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        if !is_from_index(&self.query) {
            return self.append(found, rows, out);
        }
        // Served from the index, which is why the lease is left out, as in etcd 3.7.
        out.extend(found.into_iter().map(|Found { version, key, .. }| {
            let numbers = Numbers {
                create_revision: version.create_revision,
                mod_revision: version.revision.main,
                version: version.version,
                lease: 0,
            };
            stored::encode(&key, b"", numbers)
        }));
        Ok(())
    }

    fn append(
        &self,
        found: Vec<Found>,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let mut gaps = Gaps::default();
        for Found { version, recent, .. } in found {
            gaps.push(version.revision, recent, out);
        }
        gaps.fill(rows, out).map_err(|error| self.pin.explain(error))
    }

    fn is_in_order(&self) -> bool {
        let by_key = Sort { target: SortTarget::Key, descending: false, limit_first: false };
        self.query.sort.is_none_or(|sort| sort == by_key) && !self.query.bounds.is_set()
    }

    fn limit(&self) -> Option<i64> {
        Some(self.query.limit).filter(|&limit| limit > 0)
    }
}

impl Found {
    fn new(space: &KeySpace, query: &RangeQuery, key: &[u8], version: &Version) -> Self {
        let (key, recent) = match is_from_index(query) {
            true => (Bytes::copy_from_slice(key), None),
            false => (Bytes::new(), space.recent(version.revision).cloned()),
        };
        Self { version: *version, key, recent }
    }

    /// What has to be copied from the store for it.
    fn fetch_bytes(&self) -> usize {
        if self.recent.is_some() { 0 } else { self.version.stored_bytes as usize }
    }
}

fn is_wanted(query: &RangeQuery, version: &Version) -> bool {
    !query.count_only && query.bounds.admits(version.revision.main, version.create_revision)
}

/// Whether the reply is made of the index alone; a sort by value reads the rows.
fn is_from_index(query: &RangeQuery) -> bool {
    query.keys_only && query.sort.is_none_or(|sort| sort.target != SortTarget::Value)
}
