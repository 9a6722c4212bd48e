//! The key index: which rows each key has, in memory. Pure.
//!
//! Key to [`Version`] at any revision that is not compacted, and the number of live keys in any range
//! without a walk. Values are not here: a version names the row that holds it.
//!
//! ```text
//! put a at 2.0, put b at 3.0, put a at 4.0, delete b at 5.0
//!
//! latest(a) = 4.0 (version 2, created 2)        at(a, 3) = 2.0 (version 1)
//! latest(b) = none                              at(b, 4) = 3.0
//! count(everything) = 1                         walk at 3: a at 2.0, b at 3.0
//! compact(4): drops 2.0 (a is 4.0 by then), b keeps 3.0, which is visible at 4
//! compact(6): drops 3.0 and the tombstone 5.0, and with them b
//! ```
//!
//! Long work (a walk, a compaction, a checkpoint) comes in slices: each looks at a bounded number of
//! keys, and of rows where it needs more than one of a key, and returns where to go on, or `None` when
//! it has seen the last. Between slices the index may change; what is visible at a fixed revision does
//! not.
//!
//! The parts: [`entry`] is one key with its rows, [`older`] those before the newest; [`tree`], [`inner`],
//! [`leaf`] and [`bits`] order the keys; [`codec`] is the form of checkpoints.

mod bits;
mod codec;
mod entry;
mod inner;
mod leaf;
mod older;
mod tree;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

pub use self::codec::CheckpointError;
use self::entry::{Entry, Left, Mark};
use self::leaf::Retain;
use self::tree::{Refusal, Target, Tree};
use super::{KeyRange, RangeEnd, Revision, RowKey};
use crate::mutants::{self, Mutant};

/// One live version of a key; a tombstone is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// When it was written (`mod_revision` and the position within its transaction).
    pub(crate) revision: Revision,
    /// The main revision of the first put of its generation.
    pub(crate) create_revision: i64,
    /// From 1 within its generation.
    pub(crate) version: i64,
    /// The lease it was put with, 0 for none.
    pub(crate) lease: i64,
    /// The length of the stored `KeyValue`.
    pub(crate) stored_bytes: u32,
}

/// Where a slice of a checkpoint ends. One key with one row may be more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceBounds {
    /// Keys that are looked at, at least 1.
    pub(crate) keys_max: usize,
    /// Rows that are written, at least 1.
    pub(crate) rows_max: usize,
    /// Bytes at which the slice ends. The key that reaches them, with what rows it has room for, is whole.
    pub(crate) bytes_max: usize,
}

/// How far a checkpoint has come: it goes on with later rows of `key`, then with the keys above.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    key: Bytes,
    row: Revision,
}

/// All keys with all their rows that are not compacted.
#[derive(Debug)]
pub(crate) struct Index {
    tree: Tree,
    rows_bytes: u64,
}

impl Index {
    /// No keys.
    pub(crate) fn new() -> Self {
        Self { tree: Tree::new(), rows_bytes: 0 }
    }

    /// Adds a version, newer than all others of the key.
    ///
    /// # Panics
    /// If it is not newer, or no version that a put can have: the caller computed it.
    pub(crate) fn put(&mut self, key: &[u8], version: Version) {
        let mark = Mark::put(&version).expect("a put has a positive version and create revision");
        self.push(key, mark, Target::Any).expect("a new version is newer than all others");
    }

    /// Ends the key's generation. False, and nothing is changed, if the key is not live.
    /// `stored_bytes` is the length of the stored tombstone.
    ///
    /// # Panics
    /// If `at` is not newer than all rows of the key.
    pub(crate) fn tombstone(&mut self, key: &[u8], at: Revision, stored_bytes: u32) -> bool {
        let mark = Mark::tombstone(at, stored_bytes).expect("a deletion has a positive revision");
        match self.push(key, mark, Target::Live) {
            Ok(()) => true,
            Err(Refusal::NotLive) => false,
            Err(Refusal::NotNewer) => panic!("the deletion at {at} is older than its key"),
        }
    }

    /// Adds a put that was read from a row; the versions before it may have been compacted.
    ///
    /// # Errors
    /// The row cannot follow what is already there: the store is corrupt.
    pub(crate) fn restore_put(
        &mut self,
        key: &[u8],
        version: Version,
    ) -> Result<(), CheckpointError> {
        self.restore(key, Mark::put(&version))
    }

    /// Adds a tombstone that was read from a row; the puts before it may have been compacted.
    ///
    /// # Errors
    /// As [`Index::restore_put`].
    pub(crate) fn restore_tombstone(
        &mut self,
        key: &[u8],
        at: Revision,
        stored_bytes: u32,
    ) -> Result<(), CheckpointError> {
        self.restore(key, Mark::tombstone(at, stored_bytes))
    }

    /// The live version now.
    pub(crate) fn latest(&self, key: &[u8]) -> Option<Version> {
        self.tree.get(key)?.latest().version()
    }

    /// The version visible at `at`, inclusive.
    pub(crate) fn at(&self, key: &[u8], at: Revision) -> Option<Version> {
        self.tree.get(key)?.newest_upto(at)?.version()
    }

    /// How many keys are live now.
    pub(crate) fn live(&self) -> u64 {
        self.tree.live()
    }

    /// How many keys of `range` are live now; looks at O(log n) keys.
    pub(crate) fn count(&self, range: &KeyRange) -> u64 {
        let end = match &range.end {
            RangeEnd::Single => return u64::from(self.latest(&range.start).is_some()),
            RangeEnd::Before(end) => self.tree.live_below(end),
            RangeEnd::Unbounded => self.live(),
        };
        // The end may be below the start; then there is nothing in between.
        end.saturating_sub(self.tree.live_below(&range.start))
    }

    /// Logical bytes of all rows: row key, stored bytes and 16 for each.
    pub(crate) fn rows_bytes(&self) -> u64 {
        self.rows_bytes
    }

    /// Walks the keys of `range` in order, from the first above `after` if that is given, and calls
    /// `visit` for each that is visible at `at`, until it returns false. Looks at no more than
    /// `keys_max` (at least 1) keys, visible or not.
    ///
    /// Returns the last key looked at if it stopped before the end: by `keys_max` only if there is
    /// another key in the range, by `visit` always. `None` when the range is exhausted.
    pub(crate) fn walk(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        at: Revision,
        keys_max: usize,
        visit: &mut dyn FnMut(&[u8], &Version) -> bool,
    ) -> Option<Bytes> {
        self.slice(range, after, keys_max, &mut |entry| {
            let version = entry.newest_upto(at).and_then(|mark| mark.version());
            version.is_none_or(|version| visit(entry.key(), &version))
        })
    }

    /// One slice of a compaction at main revision `upto`, of the keys at or above `from`.
    ///
    /// Of each key's rows at or before `upto` the newest stays, unless it is a tombstone before
    /// `upto` (one exactly at `upto` stays, for watches from there). What goes is appended to `dropped`
    /// with its stored bytes, key by key, each key's rows ascending. Keys with nothing left go.
    ///
    /// Looks at no more than `steps_max` (at least 1) keys, and drops no more rows than that: a key may
    /// take several slices, and what is visible at `upto` or later is the same between them. Returns the
    /// key to go on from, `None` at the end. Doing a slice again changes nothing.
    pub(crate) fn compact(
        &mut self,
        from: Option<&[u8]>,
        steps_max: usize,
        upto: i64,
        dropped: &mut Vec<(RowKey, u32)>,
    ) -> Option<Bytes> {
        assert!(steps_max > 0, "a slice of no keys makes no progress");
        let (mut keys_left, mut rows_left) = (steps_max, steps_max);
        let mut next = None;
        let rows_bytes = &mut self.rows_bytes;
        self.tree.retain(from.map_or(Bound::Unbounded, Bound::Included), &mut |entry| {
            let left = match keys_left == 0 || rows_left == 0 {
                true => Left::More,
                false => entry.compact(upto, rows_left, &mut |mark| {
                    *rows_bytes -= mark.cost_bytes();
                    rows_left -= 1;
                    dropped.push((mark.row_key(), mark.stored_bytes()));
                }),
            };
            keys_left = keys_left.saturating_sub(1);
            match left {
                Left::Rows => Retain::Keep,
                Left::Nothing => Retain::Remove,
                Left::More => {
                    next = Some(Bytes::copy_from_slice(entry.key()));
                    Retain::Stop
                }
            }
        });
        next
    }

    /// One slice of etcd's `Keep(upto)`, of the keys above `after`: appends, for each key that exists
    /// at main revision `upto`, the revision of the version visible there.
    ///
    /// Unlike a compaction, `Keep` never has tombstones, not even one exactly at `upto`; that is what
    /// `HashKV` is defined with. Slices as in [`Index::walk`].
    pub(crate) fn keep_walk(
        &self,
        after: Option<&[u8]>,
        keys_max: usize,
        upto: i64,
        kept: &mut Vec<Revision>,
    ) -> Option<Bytes> {
        let at = Revision::end_of(upto);
        self.slice(&KeyRange::all(), after, keys_max, &mut |entry| {
            let visible = entry.newest_upto(at).and_then(|mark| mark.version());
            kept.extend(visible.map(|version| version.revision));
            true
        })
    }

    /// Appends one slice of a checkpoint, from where the slice before ended: all rows at or before `upto`,
    /// tombstones too, of each key. Returns where to go on, `None` at the end; a slice may be empty bytes.
    ///
    /// A key with many rows takes several slices: it is the last of one and the first of the next. Each
    /// call's bytes are one input of [`Index::decode_slice`].
    pub(crate) fn encode_slice(
        &self,
        from: Option<&Place>,
        bounds: SliceBounds,
        upto: Revision,
        out: &mut Vec<u8>,
    ) -> Option<Place> {
        let mut range = KeyRange::all();
        let (mut keys_max, mut after) = (bounds.keys_max, Revision::default());
        if let Some(from) = from {
            // That key is looked at again, and often has nothing more.
            (range.start, keys_max, after) =
                (from.key.clone(), keys_max.saturating_add(1), from.row);
        }
        let bytes_max = out.len().saturating_add(bounds.bytes_max);
        let mut rows_left = bounds.rows_max;
        let mut previous: &[u8] = match from {
            Some(from) if mutants::on(Mutant::SliceNeedsTheOneBefore) => &from.key,
            _ => &[],
        };
        // That of the last key that has any: the keys after it have nothing up to `upto` to go on with.
        let mut row = upto;
        let last = self.slice(&range, None, keys_max, &mut |entry| {
            let is_resumed = from.is_some_and(|from| from.key == entry.key());
            let after = if is_resumed { after } else { Revision::default() };
            let marks = entry.within(after, upto).take(rows_left);
            if let Some(last) = marks.clone().last() {
                codec::encode_key(previous, entry.key(), marks.clone(), out);
                previous = entry.key();
                rows_left -= marks.count();
                row = last.revision();
            }
            rows_left > 0 && out.len() < bytes_max
        })?;
        Some(Place { key: last, row })
    }

    /// Adds the keys of one slice of a checkpoint. They are above all keys that are already there, but
    /// the first may be the last of the slice before, with later rows.
    ///
    /// # Errors
    /// The bytes are not a slice, or not the next one. Throw the index away.
    pub(crate) fn decode_slice(&mut self, slice: &[u8]) -> Result<(), CheckpointError> {
        let mut decoder = codec::Decoder::new(slice);
        let mut may_continue = true;
        while let Some(entry) = decoder.next()? {
            let last = self.tree.last();
            let order = last.map_or(Ordering::Greater, |last| entry.key().cmp(last.key()));
            let all = entry.within(Revision::default(), Revision::end_of(i64::MAX));
            match order {
                Ordering::Greater => {
                    self.rows_bytes += all.map(|mark| mark.cost_bytes()).sum::<u64>();
                    self.tree.append(entry);
                }
                Ordering::Equal if may_continue => {
                    for mark in all {
                        let pushed = self.push(entry.key(), mark, Target::Any);
                        pushed.map_err(|_| CheckpointError::Order)?;
                    }
                }
                Ordering::Equal | Ordering::Less => return Err(CheckpointError::Order),
            }
            may_continue = false;
        }
        Ok(())
    }

    fn restore(&mut self, key: &[u8], mark: Option<Mark>) -> Result<(), CheckpointError> {
        let mark = mark.ok_or(CheckpointError::OutOfRange)?;
        self.push(key, mark, Target::Any).map_err(|_| CheckpointError::Order)
    }

    fn push(&mut self, key: &[u8], mark: Mark, target: Target) -> Result<(), Refusal> {
        self.tree.push(key, mark, target)?;
        self.rows_bytes += mark.cost_bytes();
        Ok(())
    }

    /// Looks at up to `keys_max` keys of `range` above `after`, until `look` returns false. Returns the
    /// last one if `look` ended it or if there are more.
    fn slice<'a>(
        &'a self,
        range: &KeyRange,
        after: Option<&[u8]>,
        keys_max: usize,
        look: &mut dyn FnMut(&'a Entry) -> bool,
    ) -> Option<Bytes> {
        assert!(keys_max > 0, "a slice of no keys makes no progress");
        let first = range.start.as_ref();
        let start = match after {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first),
        };
        let mut keys_left = keys_max;
        let mut last: &[u8] = &[];
        let mut stopped = false;
        self.tree.visit(start, &mut |entries| {
            let inside = inside(entries, range);
            for entry in &entries[..inside] {
                if keys_left > 0 {
                    keys_left -= 1;
                    last = entry.key();
                    stopped = !look(entry);
                } else {
                    stopped = true;
                }
                if stopped {
                    return ControlFlow::Break(());
                }
            }
            if inside < entries.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        stopped.then(|| Bytes::copy_from_slice(last))
    }
}

/// How many of `entries`, which are at or above the start of `range`, are not past its end.
fn inside(entries: &[Entry], range: &KeyRange) -> usize {
    let Some(last) = entries.last() else { return 0 };
    match &range.end {
        RangeEnd::Single => usize::from(entries[0].key() == range.start),
        RangeEnd::Unbounded => entries.len(),
        // One comparison for most leaves.
        RangeEnd::Before(end) if last.key() < end.as_ref() => entries.len(),
        RangeEnd::Before(end) => entries.partition_point(|entry| entry.key() < end.as_ref()),
    }
}
