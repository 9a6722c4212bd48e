//! `HashKV`: the checksum over rows that etcd gives for the same history.
//!
//! CRC-32C over the word `key`, then key and stored bytes of each row up to the revision, in revision
//! order. Of rows at or below the compact revision only those count that a compaction at the asked
//! revision would keep, so the value does not depend on how far deletion has come. If it would keep
//! none, etcd hashes whatever is still there; we hash what is there once deletion is complete. A
//! tombstone exactly at the compact revision, which deletion leaves, never counts.
//!
//! All rows above the compact revision count, also those that a later compaction drops. So what the
//! read pins is not the asked revision but the compact revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Pin, ReadError, View, slice, step_keys};
use crate::mvcc::{Revision, Row, Rows};

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
    /// The rows at or below the compact revision that count.
    keep: BTreeSet<Revision>,
    phase: Phase,
}

enum Phase {
    /// Collecting what is visible at `at`, as far as it is not above the compact revision.
    Keep { at: i64, after: Option<Bytes>, any: bool },
    /// Hashing rows from `next` on.
    Rows { next: Revision },
}

impl HashRead {
    pub(super) fn new(view: Arc<View>, revision: i64) -> Result<Self, ReadError> {
        // One lock for all: no compaction is scheduled between the check, the pin and the result.
        let space = view.read();
        let at = space.check_readable(revision)?;
        let result = HashResult {
            hash: crc32c::crc32c(b"key"),
            compact_revision: space.compact_revision(),
            hash_revision: at,
            current_revision: space.current_revision(),
        };
        let pin = Pin::new(view.clone(), result.compact_revision);
        drop(space);
        let phase = Phase::Keep { at, after: None, any: false };
        Ok(Self { view, pin, result, keep: BTreeSet::new(), phase })
    }

    /// Works on; `Some` when the hash is complete.
    ///
    /// # Errors
    /// `Compacted` if a step came so late that its pin had expired, and more was compacted meanwhile; `Rows`
    /// if the store cannot be read.
    pub fn step(&mut self, rows: &dyn Rows) -> Result<Option<HashResult>, ReadError> {
        // However long all of it takes: what it pins is needed until its end.
        self.pin.renew();
        match self.phase {
            Phase::Keep { .. } => self.keep_step().map(|()| None),
            Phase::Rows { next } => self.rows_step(next, rows),
        }
    }

    fn keep_step(&mut self) -> Result<(), ReadError> {
        let Phase::Keep { at, after, any } = &mut self.phase else { return Ok(()) };
        let compacted = self.result.compact_revision;
        let mut kept = Vec::new();
        *after = self.view.read_pinned(&self.pin)?.index().keep_walk(
            after.as_deref(),
            step_keys(),
            *at,
            &mut kept,
        );
        *any |= !kept.is_empty();
        self.keep.extend(kept.into_iter().filter(|revision| revision.main <= compacted));
        if after.is_none() {
            self.phase = if *any || *at <= compacted {
                Phase::Rows { next: Revision::default() }
            } else {
                // Nothing is visible at the asked revision: what counts is what the compaction left.
                Phase::Keep { at: compacted, after: None, any: false }
            };
        }
        Ok(())
    }

    fn rows_step(
        &mut self,
        next: Revision,
        rows: &dyn Rows,
    ) -> Result<Option<HashResult>, ReadError> {
        let recent = {
            let space = self.view.read_pinned(&self.pin)?;
            space.recent_rows(next).map(slice::of_window).ok_or_else(|| space.window_floor())
        };
        let (batch, resume) = match recent {
            Ok(batch) => {
                let resume = batch.last().map(|row| row.key.revision().next());
                (batch, resume)
            }
            Err(floor) => {
                let (batch, resume) = slice::of_store(rows, next, floor)?;
                // Once the pin has expired, rows may have been deleted under the scan.
                if !self.pin.is_valid() {
                    return Err(ReadError::Compacted);
                }
                (batch, Some(resume))
            }
        };
        batch.iter().for_each(|row| self.add(row));
        match resume {
            Some(next) if next.main <= self.result.hash_revision => {
                self.phase = Phase::Rows { next };
                Ok(None)
            }
            _ => Ok(Some(self.result)),
        }
    }

    fn add(&mut self, row: &Row) {
        let revision = row.key.revision();
        let compacted = self.result.compact_revision;
        let counts = if revision.main <= compacted {
            self.keep.contains(&revision)
        } else {
            revision.main <= self.result.hash_revision
        };
        if counts {
            let hash = crc32c::crc32c_append(self.result.hash, row.key.as_bytes());
            self.result.hash = crc32c::crc32c_append(hash, &row.stored);
        }
    }
}
