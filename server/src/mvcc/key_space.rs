//! The key space: index, window and revisions, changed by one writer.

use bytes::Bytes;

use super::compaction::Compaction;
use super::index::{Index, Version};
use super::stored::{self, Numbers};
use super::window::{Evicted, Window};
use super::{
    Applied, DeleteRange, KeyRange, MvccError, Outcome, Put, RangeEnd, Revision, Row, RowKey, Rows,
    RowsError,
};

/// Bounds of the key space's memory and steps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What the recent window may hold of flushed rows, in bytes. Unflushed rows always stay.
    pub window_bytes_max: u64,
}

/// Logical sizes in bytes, as quota and `Status` count them (row key, value and 16 per row).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Every stored revision, without those that compaction took out of the index.
    pub in_use_bytes: u64,
    /// `in_use_bytes`, and what is compacted but whose deletion is not flushed yet.
    pub total_bytes: u64,
}

/// What was done to a key space since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts, those of transactions included.
    pub puts: u64,
    /// Deletions of ranges, those of transactions included.
    pub deletes: u64,
    /// Ranges that applying read: those of transactions, their compares, and what a put or a deletion
    /// had to know of what was there.
    pub ranges: u64,
    /// Changes of more than one operation, and decisions of more than one compare; as etcd counts.
    pub txns: u64,
    /// Keys and values that were put, in bytes.
    pub put_bytes: u64,
    /// Stored values that applying had to read from the store.
    pub value_reads: u64,
    /// Rows that compactions took out of the index.
    pub compacted_rows: u64,
}

/// A key whose newest version has another lease than the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The key.
    pub key: Bytes,
    /// The lease of the version before, 0 for none.
    pub old: i64,
    /// The lease now, 0 for none or for a deleted key.
    pub new: i64,
}

/// Rows and deletions that belong into one flush.
#[derive(Debug, Default)]
pub struct Unflushed {
    /// New rows, ascending.
    pub rows: Vec<Row>,
    /// Rows that compaction deletes, ascending.
    pub deletions: Vec<RowKey>,
}

/// Everything about keys that is in memory.
pub struct KeySpace {
    pub(super) index: Index,
    pub(super) window: Window,
    /// The revision of the last change.
    pub(super) current: i64,
    pub(super) compaction: Compaction,
    counts: Counts,
    /// Not yet taken, in the order of the changes.
    attachments: Vec<Attachment>,
}

impl KeySpace {
    /// An empty key space at revision 1.
    pub fn new(limits: Limits) -> Self {
        Self::restored(limits, Index::new(), 1, Compaction::default())
    }

    pub(super) fn restored(
        limits: Limits,
        index: Index,
        current: i64,
        compaction: Compaction,
    ) -> Self {
        let window = Window::new(limits.window_bytes_max, current);
        let (counts, attachments) = (Counts::default(), Vec::new());
        Self { index, window, current, compaction, counts, attachments }
    }

    /// The revision of the last change, 1 if there was none.
    pub fn current_revision(&self) -> i64 {
        self.current
    }

    /// The revision up to which history was compacted; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.compaction.revision()
    }

    /// The last compaction whose deletions have all been flushed; -1 for none.
    pub fn finished_compaction(&self) -> i64 {
        self.compaction.finished()
    }

    /// The last compaction that has begun, be it before the start: rows of it may be gone from the store;
    /// -1 for none. Above the last finished one, it is not done, or is done again.
    pub fn begun_compaction(&self) -> i64 {
        self.compaction.begun()
    }

    /// The last compaction that the index has lost rows to since it was restored, or before; -1 for none.
    /// Once it is finished, the index holds every row that is in the store.
    pub(crate) fn touched_by_compaction(&self) -> i64 {
        self.compaction.touched()
    }

    /// Live keys.
    pub fn key_count(&self) -> u64 {
        self.index.live()
    }

    /// What was done since the start.
    pub fn counts(&self) -> Counts {
        Counts { compacted_rows: self.compaction.dropped_rows(), ..self.counts }
    }

    /// Logical sizes.
    pub fn sizes(&self) -> Sizes {
        let in_use_bytes = self.index.rows_bytes();
        Sizes { in_use_bytes, total_bytes: in_use_bytes + self.compaction.waiting_bytes() }
    }

    /// Applies a put.
    ///
    /// # Errors
    /// Outer: the store cannot be read (the process ends). Inner: the deterministic refusal.
    pub fn put(
        &mut self,
        put: &Put,
        rows: &dyn Rows,
    ) -> Result<Result<Applied, MvccError>, RowsError> {
        let mut change = self.begin();
        let outcome = match change.put(put, rows)? {
            Ok(outcome) => outcome,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(Applied { revision: change.finish(), outcome }))
    }

    /// Applies a deletion; one that deletes nothing leaves the revision as it is.
    pub fn delete_range(&mut self, request: &DeleteRange) -> Applied {
        let mut change = self.begin();
        let outcome = change.delete_range(request);
        Applied { revision: change.finish(), outcome }
    }

    /// Deletes `keys` under one revision, in the given order; none of them leaves the revision as it is.
    /// Returns the revision after it.
    ///
    /// # Panics
    /// If a key is not live: they are those that are attached to a lease.
    pub fn delete_keys(&mut self, keys: &[Bytes]) -> i64 {
        let mut change = self.begin();
        for key in keys {
            change.operations += 1;
            change.space.counts.deletes += 1;
            let lease = change.space.index.latest(key).map_or(0, |present| present.lease);
            change.delete(key, lease);
        }
        change.finish()
    }

    /// Takes which keys got another lease since the last call. Empty, and free, where there are none.
    pub fn take_attachments(&mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.attachments)
    }

    /// Calls `visit` for the live keys that have a lease, in order, looking at no more than `keys_max`
    /// (at least 1) keys above `after`. Returns the last one looked at if there are more.
    pub fn attached(
        &self,
        after: Option<&[u8]>,
        keys_max: usize,
        visit: &mut dyn FnMut(&[u8], i64),
    ) -> Option<Bytes> {
        let now = Revision::end_of(self.current);
        self.index.walk(&KeyRange::all(), after, now, keys_max, &mut |key, version| {
            if version.lease != 0 {
                visit(key, version.lease);
            }
            true
        })
    }

    /// Schedules a compaction: `compact_revision` moves at once; the index follows by
    /// [`KeySpace::compact_step`], from the flush on that tells the store of the schedule.
    ///
    /// # Errors
    /// `Compacted` at or below the present compact revision, `FutureRevision` above the current one.
    pub fn compact(&mut self, revision: i64) -> Result<(), MvccError> {
        if revision <= self.compact_revision() {
            return Err(MvccError::Compacted);
        }
        if revision > self.current {
            return Err(MvccError::FutureRevision);
        }
        self.compaction.schedule(revision);
        Ok(())
    }

    /// Whether a compaction has index work left that neither a pinned revision holds back nor the
    /// flush of its schedule.
    pub fn compaction_runnable(&self, oldest_pin: Option<i64>) -> bool {
        self.compaction.is_runnable(oldest_pin)
    }

    /// Walks at most `steps_max` keys of a scheduled compaction and drops at most as many rows, if no
    /// read pinned below its revision holds it back. Returns the revision of a compaction that this step
    /// finished in the index.
    pub fn compact_step(&mut self, steps_max: usize, oldest_pin: Option<i64>) -> Option<i64> {
        self.compaction.step(&mut self.index, steps_max, oldest_pin)
    }

    /// Bytes of rows that no flush has taken yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.window.untaken_bytes()
    }

    /// Takes what the next flush must write: all rows not taken yet, and up to `deletions_max`
    /// deletions of finished index compactions.
    pub fn take_unflushed(&mut self, deletions_max: usize) -> Unflushed {
        let mut unflushed = Unflushed::default();
        while self.take_some(usize::MAX, deletions_max, &mut unflushed) {}
        unflushed
    }

    /// As [`KeySpace::take_unflushed`], at most `rows_max` rows or deletions of it at a time. Whether
    /// there is more; nothing may be applied in between.
    pub(crate) fn take_some(
        &mut self,
        rows_max: usize,
        deletions_max: usize,
        unflushed: &mut Unflushed,
    ) -> bool {
        if self.window.take(rows_max, &mut unflushed.rows) {
            return true;
        }
        let wanted = deletions_max - unflushed.deletions.len();
        let taken = self.compaction.take_deletions(wanted.min(rows_max), &mut unflushed.deletions);
        taken == rows_max && taken < wanted
    }

    /// Whether a flush would have rows of finished index compactions to delete.
    pub fn has_deletions(&self) -> bool {
        self.compaction.has_deletions()
    }

    /// Whether compaction has something for the store that came after its entry: rows to delete, or
    /// that it is finished.
    pub fn wants_flush(&self) -> bool {
        self.compaction.wants_flush()
    }

    /// The flush that took the last [`KeySpace::take_unflushed`] is durable, with the compact
    /// revision as it was then, and readers can see it up to `revision`: the window may evict.
    pub fn flushed(&mut self, revision: i64, deleted: &[RowKey]) {
        self.window.flushed(revision);
        self.deleted(deleted.len());
    }

    /// A part of [`KeySpace::flushed`]: so many of the deletions that were taken are durable.
    pub(crate) fn deleted(&mut self, rows: usize) {
        self.compaction.flushed(rows);
    }

    /// Whether the window holds more than it should, of what may leave.
    pub fn is_evictable(&self) -> bool {
        self.window.is_evictable()
    }

    /// Another bound for the window, in the middle of everything.
    #[cfg(test)]
    pub(crate) fn set_window_bytes_max(&mut self, bytes_max: u64) {
        self.window.set_bytes_max(bytes_max);
    }

    /// Lets at most `rows_max` rows leave the window. Drop them without the lock.
    pub fn evict(&mut self, rows_max: usize) -> Evicted {
        self.window.evict(rows_max)
    }

    /// Whether `revision` can be read; 0 or less stands for the current one.
    ///
    /// # Errors
    /// `Compacted` or `FutureRevision`.
    pub fn check_readable(&self, revision: i64) -> Result<i64, MvccError> {
        match revision {
            ..=0 => Ok(self.current),
            _ if revision > self.current => Err(MvccError::FutureRevision),
            _ if revision < self.compact_revision() => Err(MvccError::Compacted),
            _ => Ok(revision),
        }
    }

    /// Keys of `range` that are live now.
    pub(crate) fn count(&self, range: &KeyRange) -> i64 {
        i64::try_from(self.index.count(range)).unwrap_or(i64::MAX)
    }

    /// How many more keys of `range` are live as of `upto` than as of `from`, as far as `changes_max`
    /// changes say, and where to go on if there are more; `None` if the window does not know.
    pub(crate) fn growth(
        &self,
        range: &KeyRange,
        from: Revision,
        upto: Revision,
        changes_max: usize,
    ) -> Option<(i64, Option<Revision>)> {
        self.window.growth(range, (from, upto), changes_max)
    }

    /// The key index, for readers.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The stored bytes of the row at `revision`, if the recent window holds it.
    pub(crate) fn recent(&self, revision: Revision) -> Option<&Bytes> {
        self.window.get(revision)
    }

    /// The rows from `from` on if the recent window holds all of them.
    pub fn recent_rows(&self, from: Revision) -> Option<impl Iterator<Item = &Row>> {
        (from.main > self.window.floor()).then(|| self.window.rows_from(from))
    }

    /// Everything up to this main revision can be read from the store.
    pub(crate) fn window_floor(&self) -> i64 {
        self.window.floor()
    }

    pub(super) fn begin(&mut self) -> Change<'_> {
        Change { main: self.current + 1, sub: 0, operations: 0, space: self }
    }

    /// Counts the compares of one transaction, each a range.
    pub(super) fn count_compares(&mut self, compares: u64) {
        self.counts.ranges += compares;
        self.counts.txns += u64::from(compares > 1);
    }

    pub(super) fn count_value_reads(&mut self, values: usize) {
        self.counts.value_reads += values as u64;
    }

    /// The stored value of a version, from the window or the store.
    pub(super) fn value(
        &mut self,
        revision: Revision,
        rows: &dyn Rows,
    ) -> Result<Bytes, RowsError> {
        let stored = match self.window.get(revision) {
            Some(stored) => stored.clone(),
            None => {
                self.counts.value_reads += 1;
                let mut found = Vec::with_capacity(1);
                rows.get_many(&[revision], &mut found)?;
                found.pop().ok_or(RowsError::Missing(revision))?
            }
        };
        stored::decode(&stored).map(|kv| kv.value).ok_or(RowsError::Damaged(revision))
    }
}

/// One change in the making: everything that one entry does, under one main revision.
///
/// Nothing is visible before [`Change::finish`]: the caller holds the key space for itself until then.
pub(super) struct Change<'a> {
    pub(super) space: &'a mut KeySpace,
    main: i64,
    sub: i64,
    operations: u64,
}

impl Change<'_> {
    /// `header.revision` of an operation that reads at this point of the change.
    pub(super) fn revision(&self) -> i64 {
        if self.sub == 0 { self.main - 1 } else { self.main }
    }

    /// The state at this point of the change: everything before it, and what it did so far.
    pub(super) fn now(&self) -> Revision {
        if self.sub == 0 {
            Revision::end_of(self.main - 1)
        } else {
            Revision::new(self.main, self.sub - 1)
        }
    }

    pub(super) fn put(
        &mut self,
        put: &Put,
        rows: &dyn Rows,
    ) -> Result<Result<Outcome, MvccError>, RowsError> {
        let present = self.space.index.latest(&put.key);
        let kept;
        let value = match (&put.value, present) {
            (Some(value), _) => value,
            (None, Some(present)) => {
                kept = self.space.value(present.revision, rows)?;
                &kept
            }
            (None, None) => return Ok(Err(MvccError::KeyNotFound)),
        };
        let lease = match (put.lease, present) {
            (Some(lease), _) => lease,
            (None, Some(present)) => present.lease,
            (None, None) => return Ok(Err(MvccError::KeyNotFound)),
        };
        if put.prev_kv || put.value.is_none() || put.lease.is_none() {
            self.read_range();
        }
        self.operations += 1;
        self.space.counts.puts += 1;
        self.space.counts.put_bytes += (put.key.len() + value.len()) as u64;
        self.write(&put.key, value, lease, present);
        let prev = present.filter(|_| put.prev_kv).map(|present| present.revision);
        Ok(Ok(Outcome::Put { revision: self.main, prev }))
    }

    pub(super) fn delete_range(&mut self, request: &DeleteRange) -> Outcome {
        if request.prev_kv {
            self.read_range();
        }
        self.operations += 1;
        self.space.counts.deletes += 1;
        let found = self.live_in(&request.keys);
        for (key, present) in &found {
            self.delete(key, present.lease);
        }
        let deleted = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let prev = match request.prev_kv {
            true => found.into_iter().map(|(_, present)| present.revision).collect(),
            false => Vec::new(),
        };
        Outcome::DeleteRange { revision: self.revision(), deleted, prev }
    }

    /// Counts a range that is read at this point of the change.
    pub(super) fn read_range(&mut self) {
        self.operations += 1;
        self.space.counts.ranges += 1;
    }

    /// The keys of `range` at this point of the change, with their versions.
    fn live_in(&self, range: &KeyRange) -> Vec<(Bytes, Version)> {
        let index = &self.space.index;
        if range.end == RangeEnd::Single {
            let present = index.latest(&range.start);
            return present.map(|present| (range.start.clone(), present)).into_iter().collect();
        }
        // The walk meets the dead keys too, and a transaction may delete the same range ever again.
        let live = usize::try_from(index.count(range)).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        if live == 0 {
            return found;
        }
        index.walk(range, None, self.now(), usize::MAX, &mut |key, version| {
            found.push((Bytes::copy_from_slice(key), *version));
            found.len() < live
        });
        found
    }

    /// Publishes the change; returns the revision of the store after it.
    pub(super) fn finish(self) -> i64 {
        self.space.counts.txns += u64::from(self.operations > 1);
        if self.sub > 0 {
            self.space.current = self.main;
        }
        self.space.current
    }

    fn write(&mut self, key: &[u8], value: &[u8], lease: i64, present: Option<Version>) {
        let revision = self.next();
        let numbers = Numbers {
            create_revision: present.map_or(self.main, |present| present.create_revision),
            mod_revision: self.main,
            version: present.map_or(1, |present| present.version + 1),
            lease,
        };
        let stored = stored::encode(key, value, numbers);
        let version = Version {
            revision,
            create_revision: numbers.create_revision,
            version: numbers.version,
            lease,
            stored_bytes: len_u32(&stored),
        };
        self.space.index.put(key, version);
        self.attach(key, present.map_or(0, |present| present.lease), lease);
        let began = present.is_none().then(|| (true, stored::shared_key(&stored, key.len())));
        self.space.window.push(Row { key: RowKey::new(revision, false), stored }, began);
    }

    fn delete(&mut self, key: &[u8], lease: i64) {
        let revision = self.next();
        let stored = stored::encode_tombstone(key);
        let was_live = self.space.index.tombstone(key, revision, len_u32(&stored));
        assert!(was_live, "only live keys are deleted");
        self.attach(key, lease, 0);
        let ended = (false, stored::shared_key(&stored, key.len()));
        self.space.window.push(Row { key: RowKey::new(revision, true), stored }, Some(ended));
    }

    fn attach(&mut self, key: &[u8], old: i64, new: i64) {
        if old != new {
            let key = Bytes::copy_from_slice(key);
            self.space.attachments.push(Attachment { key, old, new });
        }
    }

    fn next(&mut self) -> Revision {
        let revision = Revision::new(self.main, self.sub);
        self.sub += 1;
        revision
    }
}

fn len_u32(stored: &Bytes) -> u32 {
    u32::try_from(stored.len()).expect("a request is far below 4 GiB")
}
