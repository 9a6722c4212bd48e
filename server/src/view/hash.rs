//! `HashKV`: the checksum over rows that etcd gives for the same history.
//!
//! CRC-32C over the word `key`, then key and stored bytes of each row up to the revision, in revision
//! order. Of rows at or below the compact revision only those count that a compaction at the asked
//! revision would keep, so the value does not depend on how far deletion has come. If it would keep
//! none, etcd hashes whatever is still there; we hash what is there once deletion is complete.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Pin, ReadError, STEP_KEYS_MAX, View};
use crate::mutants;
use crate::mvcc::{KeyRange, Revision, Row, Rows};

/// A finished hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashResult {
    /// CRC-32C.
    pub hash: u32,
    /// The compact revision when the read began; -1 for none.
    pub compact_revision: i64,
    /// The revision up to which rows were hashed.
    pub hash_revision: i64,
    /// The current revision when the read began, for the header.
    pub current_revision: i64,
}

/// A hash being computed.
pub struct HashRead {
    view: Arc<View>,
    pin: Pin,
    result: HashResult,
    phase: Phase,
}

enum Phase {
    /// Collecting what is visible at `at`, as far as it is not above the compact revision.
    Keep { at: i64, after: Option<Bytes>, keep: BTreeSet<Revision>, any: bool },
    /// Hashing rows from `next` on.
    Rows { next: Revision, keep: BTreeSet<Revision>, with_tombstones: bool },
}

impl HashRead {
    pub(super) fn new(view: Arc<View>, revision: i64) -> Result<Self, ReadError> {
        let pin = view.pin(revision)?;
        let space = view.read();
        let result = HashResult {
            hash: crc32c::crc32c(b"key"),
            compact_revision: space.compact_revision(),
            hash_revision: pin.revision(),
            current_revision: space.current_revision(),
        };
        drop(space);
        let at = pin.revision();
        let phase = Phase::Keep { at, after: None, keep: BTreeSet::new(), any: false };
        Ok(Self { view, pin, result, phase })
    }

    /// Works on; `Some` when the hash is complete.
    ///
    /// # Errors
    /// `Compacted` if the read took longer than its pin lasts; `Rows` if the store cannot be read.
    pub fn step(&mut self, rows: &dyn Rows) -> Result<Option<HashResult>, ReadError> {
        if !self.pin.is_valid() {
            return Err(ReadError::Compacted);
        }
        match self.phase {
            Phase::Keep { .. } => {
                self.keep_step();
                Ok(None)
            }
            Phase::Rows { .. } => self.rows_step(rows),
        }
    }

    fn keep_step(&mut self) {
        let Phase::Keep { at, after, keep, any } = &mut self.phase else { return };
        let compacted = self.result.compact_revision;
        *after = self.view.read().index().walk(
            &KeyRange::all(),
            after.as_deref(),
            Revision::end_of(*at),
            mutants::step(STEP_KEYS_MAX),
            &mut |_, version| {
                *any = true;
                if version.revision.main <= compacted {
                    keep.insert(version.revision);
                }
                true
            },
        );
        if after.is_some() {
            return;
        }
        let at_compaction = *at == compacted;
        let keep = std::mem::take(keep);
        let none_kept = !*any && compacted > 0;
        self.phase = if none_kept && !at_compaction {
            // Nothing is visible at the asked revision: what counts is what the compaction left.
            Phase::Keep { at: compacted, after: None, keep, any: false }
        } else {
            // Tombstones at the compact revision are left by deletion, and only seen where
            // nothing was kept.
            let with_tombstones = none_kept || *at != self.result.hash_revision;
            Phase::Rows { next: Revision::default(), keep, with_tombstones }
        };
    }

    fn rows_step(&mut self, rows: &dyn Rows) -> Result<Option<HashResult>, ReadError> {
        let Phase::Rows { next, .. } = self.phase else { return Ok(None) };
        let rows_max = mutants::step(STEP_KEYS_MAX);
        let mut batch = Vec::new();
        let mut complete = false;
        let floor = {
            let space = self.view.read();
            match space.recent_rows(next) {
                Some(recent) => {
                    batch.extend(recent.take(rows_max).cloned());
                    complete = batch.len() < rows_max;
                    i64::MAX
                }
                None => space.window_floor(),
            }
        };
        if batch.is_empty() && !complete {
            rows.scan(next, rows_max, &mut batch)?;
            let scanned_all = batch.len() < rows_max;
            // The store may already hold a part of what the window still has; the floor is sure.
            batch.retain(|row| row.key.revision().main <= floor);
            if scanned_all || batch.is_empty() {
                batch.iter().for_each(|row| self.add(row));
                return Ok(self.go_on(Revision::new(floor + 1, 0)));
            }
        }
        batch.iter().for_each(|row| self.add(row));
        match batch.last().map(|row| row.key.revision()) {
            Some(last) if !complete => Ok(self.go_on(Revision::new(last.main, last.sub + 1))),
            _ => Ok(Some(self.result)),
        }
    }

    /// Continues at `from`, or ends if that is past the asked revision.
    fn go_on(&mut self, from: Revision) -> Option<HashResult> {
        if from.main > self.result.hash_revision {
            return Some(self.result);
        }
        if let Phase::Rows { next, .. } = &mut self.phase {
            *next = from;
        }
        None
    }

    fn add(&mut self, row: &Row) {
        let Phase::Rows { keep, with_tombstones, .. } = &self.phase else { return };
        let revision = row.key.revision();
        if revision.main > self.result.hash_revision {
            return;
        }
        let compacted = self.result.compact_revision;
        if revision.main <= compacted {
            let kept_tombstone =
                *with_tombstones && row.key.is_tombstone() && revision.main == compacted;
            if !keep.contains(&revision) && !kept_tombstone {
                return;
            }
        }
        let hash = crc32c::crc32c_append(self.result.hash, row.key.as_bytes());
        self.result.hash = crc32c::crc32c_append(hash, &row.stored);
    }
}
