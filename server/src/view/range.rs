//! A range, read in steps.
//!
//! In key order a step hands on what it read, and the read is done when the limit is full. Sorted or
//! bounded reads have to see every key first: they put versions in order as they come (with their
//! rows only for an order by value), and fetch the rows of what is left after sort and limit.
//!
//! ```text
//! in order    look, emit   look, emit  ..   summary
//! sorted      look, add    look, add   ..   emit, emit ..   summary
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::count::Count;
use super::sorted::Sorted;
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
    /// All keys of the range, if that needs no walk.
    count: Count,
    seen: i64,
    /// The last key looked at.
    after: Option<Bytes>,
}

enum Phase {
    /// Looking at keys, and handing them on as they come.
    InOrder,
    /// Looking at keys, and putting them in order.
    Collect(Sorted),
    /// Handing on what was put in order.
    HandOn { summary: RangeSummary, rest: Sorted },
}

/// A key of the reply.
pub(super) struct Found {
    pub(super) version: Version,
    /// Only of reads that need it: the key, for `keys_only`; else empty.
    pub(super) key: Bytes,
    /// The row, if the window had it, or if the sort had to read it.
    pub(super) recent: Option<Bytes>,
}

impl RangeRead {
    pub(super) fn new(view: Arc<View>, query: RangeQuery, at: Revision, pin: Arc<Pin>) -> Self {
        let by_key = Sort { target: SortTarget::Key, descending: false, limit_first: false };
        let is_by_key = query.sort.is_none_or(|sort| sort == by_key);
        let phase = match is_by_key && !query.bounds.is_set() {
            true => Phase::InOrder,
            false => Phase::Collect(Sorted::new(&query, limit(&query))),
        };
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
        match &self.phase {
            Phase::InOrder => {
                let (found, is_last) = self.look()?;
                self.emit(found, rows, out)?;
                Ok(is_last.then(|| self.summary()))
            }
            Phase::Collect(_) => self.collect(rows).map(|()| None),
            Phase::HandOn { .. } => self.hand_on(rows, out),
        }
    }

    /// One slice of the walk: what it found, and whether it was the last.
    fn look(&mut self) -> Result<(Vec<Found>, bool), ReadError> {
        if self.query.keys.end == RangeEnd::Single {
            return Ok((self.look_at_one()?, true));
        }
        let most = self.wants();
        let fetches = self.fetches();
        let Self { query, at, walk, .. } = self;
        let space = self.view.read_pinned(&self.pin)?;
        if !walk.count.advance(&space, &query.keys, *at) {
            return Ok((Vec::new(), false));
        }
        let is_counted = walk.count.known().is_some();
        if query.count_only && is_counted {
            return Ok((Vec::new(), true));
        }
        let (mut found, mut bytes, mut is_cut) = (Vec::new(), 0, false);
        let Walk { seen, after, .. } = walk;
        let look = &mut |key: &[u8], version: &Version| {
            *seen += 1;
            if found.len() >= most {
                // Enough, unless all have to be counted.
                is_cut = is_counted;
                return !is_counted;
            }
            if is_wanted(query, version) {
                let next = Found::new(&space, query, key, version);
                bytes += if fetches { next.fetch_bytes() } else { 0 };
                found.push(next);
            }
            bytes < STEP_BYTES_MAX
        };
        *after = space.index().walk(&query.keys, after.as_deref(), *at, step_keys(), look);
        Ok((found, is_cut || after.is_none()))
    }

    /// What there is of a single key.
    fn look_at_one(&mut self) -> Result<Vec<Found>, ReadError> {
        let Self { query, at, walk, .. } = self;
        let space = self.view.read_pinned(&self.pin)?;
        let key = &query.keys.start;
        let version = space.index().at(key, *at);
        walk.seen = i64::from(version.is_some());
        let wanted = version.filter(|version| is_wanted(query, version));
        Ok(wanted.map(|version| Found::new(&space, query, key, &version)).into_iter().collect())
    }

    /// How many keys of the next slice can be of use; behind those, none is.
    fn wants(&self) -> usize {
        match &self.phase {
            Phase::InOrder => {
                let handed_on = usize::try_from(self.walk.seen).unwrap_or(usize::MAX);
                limit(&self.query).map_or(usize::MAX, |limit| limit.saturating_sub(handed_on))
            }
            Phase::Collect(sorted) => sorted.wants(),
            Phase::HandOn { .. } => 0,
        }
    }

    /// Whether the rows of a slice of the walk are read at once.
    fn fetches(&self) -> bool {
        match &self.phase {
            Phase::Collect(sorted) => sorted.is_by_value(),
            _ => !is_from_index(&self.query),
        }
    }

    /// The summary of a read in order.
    fn summary(&self) -> RangeSummary {
        let seen = usize::try_from(self.walk.seen).unwrap_or(usize::MAX);
        let is_cut = limit(&self.query).is_some_and(|limit| seen > limit);
        RangeSummary { count: self.count(), more: is_cut && !self.query.count_only }
    }

    fn count(&self) -> i64 {
        self.walk.count.known().unwrap_or(self.walk.seen)
    }

    /// Puts one more slice of the walk in order.
    fn collect(&mut self, rows: &dyn Rows) -> Result<(), ReadError> {
        let (found, is_last) = self.look()?;
        let by_value = matches!(&self.phase, Phase::Collect(sorted) if sorted.is_by_value());
        let valued = match by_value {
            true => self.with_values(found, rows)?,
            false => found.into_iter().map(|found| (found, Bytes::new())).collect(),
        };
        let count = self.count();
        let Phase::Collect(sorted) = &mut self.phase else { return Ok(()) };
        valued.into_iter().for_each(|(found, value)| sorted.add(found, value));
        if is_last {
            let rest = std::mem::replace(sorted, Sorted::new(&self.query, None));
            let summary = RangeSummary { count, more: rest.is_cut() };
            self.phase = Phase::HandOn { summary, rest };
        }
        Ok(())
    }

    /// Reads the rows of a slice. Having been read, they give their lease even for `keys_only`, as in
    /// etcd.
    fn with_values(
        &self,
        found: Vec<Found>,
        rows: &dyn Rows,
    ) -> Result<Vec<(Found, Bytes)>, ReadError> {
        let versions: Vec<Version> = found.iter().map(|found| found.version).collect();
        let mut slice = Vec::with_capacity(found.len());
        self.append(found, rows, &mut slice)?;
        let valued = slice.into_iter().zip(versions).map(|(stored, version)| {
            let damaged = RowsError::Damaged(version.revision);
            let KeyValue { key, value, numbers } = stored::decode(&stored).ok_or(damaged)?;
            let kept =
                if self.query.keys_only { stored::encode(&key, b"", numbers) } else { stored };
            Ok((Found { version, key: Bytes::new(), recent: Some(kept) }, value))
        });
        valued.collect()
    }

    /// Hands on what one step may read of what is in order now.
    fn hand_on(
        &mut self,
        rows: &dyn Rows,
        out: &mut Vec<Bytes>,
    ) -> Result<Option<RangeSummary>, ReadError> {
        let Phase::HandOn { summary, rest } = &mut self.phase else { return Ok(None) };
        if !self.pin.is_valid() {
            return Err(ReadError::Compacted);
        }
        let (mut slice, mut bytes) = (Vec::new(), 0);
        while bytes < STEP_BYTES_MAX
            && slice.len() < step_keys()
            && let Some(found) = rest.take_first()
        {
            bytes += found.fetch_bytes();
            slice.push(found);
        }
        let done = rest.is_empty().then_some(*summary);
        self.emit(slice, rows, out)?;
        Ok(done)
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

fn limit(query: &RangeQuery) -> Option<usize> {
    (query.limit > 0).then(|| usize::try_from(query.limit).unwrap_or(usize::MAX))
}
