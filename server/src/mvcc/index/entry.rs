//! One key and what the index remembers of each of its rows.
//!
//! The newest row is stored in place; older ones, which most keys do not have, are boxed beside it.
//! An entry is 64 bytes and the key's own bytes. A key whose newest row is a tombstone is *dead*: it
//! is kept for reads in the past until compaction takes its last row.
//!
//! ```text
//! put a   at 2.0    latest (2,0)                     live
//! put a   at 3.0    latest (3,0)   older [2,0]       live
//! del a   at 4.0    latest (4,0)t  older [2,0  3,0]  dead
//! compact 4         latest (4,0)t                    dead, a watch from 4 still sees the deletion
//! compact 5         gone
//! ```

use super::Version;
use crate::mvcc::{Revision, RowKey};

/// What the index remembers of one row; a tombstone has version 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    main: i64,
    create_revision: i64,
    version: i64,
    lease: i64,
    sub: u32,
    stored_bytes: u32,
}

impl Mark {
    /// The mark of a put; `None` if a field is out of the range that a put can have.
    pub(super) fn put(version: &Version) -> Option<Self> {
        let revision = version.revision;
        let created_before = (1..=revision.main).contains(&version.create_revision);
        if version.version < 1 || !created_before {
            return None;
        }
        Some(Self {
            main: revision.main,
            create_revision: version.create_revision,
            version: version.version,
            lease: version.lease,
            sub: u32::try_from(revision.sub).ok()?,
            stored_bytes: version.stored_bytes,
        })
    }

    /// The mark of a tombstone; `None` if `at` is out of range.
    pub(super) fn tombstone(at: Revision, stored_bytes: u32) -> Option<Self> {
        if at.main < 1 {
            return None;
        }
        let sub = u32::try_from(at.sub).ok()?;
        Some(Self { main: at.main, create_revision: 0, version: 0, lease: 0, sub, stored_bytes })
    }

    /// When the row was written.
    pub(super) fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }

    /// Whether the row ended a generation.
    pub(super) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// The version that the row holds, if it is not a tombstone.
    pub(super) fn version(&self) -> Option<Version> {
        (!self.is_tombstone()).then(|| Version {
            revision: self.revision(),
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            stored_bytes: self.stored_bytes,
        })
    }

    /// The length of the row's stored bytes.
    pub(super) fn stored_bytes(&self) -> u32 {
        self.stored_bytes
    }

    /// The key of the row in the store.
    pub(super) fn row_key(&self) -> RowKey {
        RowKey::new(self.revision(), self.is_tombstone())
    }

    /// What the row counts for the quota; the sum is `Index::rows_bytes`.
    pub(super) fn cost_bytes(&self) -> u64 {
        let key_bytes = if self.is_tombstone() { RowKey::LEN_MAX } else { RowKey::LEN_PUT };
        key_bytes as u64 + u64::from(self.stored_bytes) + 16
    }
}

/// A row that is not newer than the newest of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotNewer;

/// One key with at least one row.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    key: Box<[u8]>,
    latest: Mark,
    /// Boxed, because most keys have none and then pay 8 bytes.
    older: Option<Box<Older>>,
}

/// The rows before the newest one, ascending, never empty.
#[derive(Clone, Debug)]
struct Older {
    marks: Vec<Mark>,
}

impl Entry {
    /// A key with its first row.
    pub(super) fn new(key: &[u8], mark: Mark) -> Self {
        Self { key: key.into(), latest: mark, older: None }
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The newest row.
    pub(super) fn latest(&self) -> &Mark {
        &self.latest
    }

    /// Whether the key exists now.
    pub(super) fn is_live(&self) -> bool {
        !self.latest.is_tombstone()
    }

    /// Adds the newest row.
    pub(super) fn push(&mut self, mark: Mark) -> Result<(), NotNewer> {
        if mark.revision() <= self.latest.revision() {
            return Err(NotNewer);
        }
        let previous = std::mem::replace(&mut self.latest, mark);
        match &mut self.older {
            Some(older) => older.marks.push(previous),
            // Exactly one: most keys are compacted before they get a third row.
            None => self.older = Some(Box::new(Older { marks: vec![previous] })),
        }
        Ok(())
    }

    /// The newest row at or before `at`, which may be a tombstone.
    pub(super) fn newest_upto(&self, at: Revision) -> Option<&Mark> {
        if self.latest.revision() <= at {
            return Some(&self.latest);
        }
        let older = self.older();
        let after = older.partition_point(|mark| mark.revision() <= at);
        after.checked_sub(1).map(|newest| &older[newest])
    }

    /// All rows at or before `at`, ascending.
    pub(super) fn upto(&self, at: Revision) -> impl Iterator<Item = &Mark> + Clone {
        let latest = (self.latest.revision() <= at).then_some(&self.latest);
        self.older().iter().take_while(move |mark| mark.revision() <= at).chain(latest)
    }

    /// Drops the rows that a compaction at main revision `upto` drops, oldest first. Returns whether
    /// any row is left.
    ///
    /// Of the rows at or before `upto` only the newest stays, and not even that one if it is a
    /// tombstone older than `upto` itself.
    pub(super) fn compact(&mut self, upto: i64, dropped: &mut dyn FnMut(&Mark)) -> bool {
        let stays = |mark: &Mark| !mark.is_tombstone() || mark.main == upto;
        if self.latest.main <= upto {
            self.older().iter().for_each(&mut *dropped);
            self.older = None;
            let left = stays(&self.latest);
            if !left {
                dropped(&self.latest);
            }
            return left;
        }
        let Some(older) = &mut self.older else { return true };
        let passed = older.marks.partition_point(|mark| mark.main <= upto);
        let kept = passed > 0 && stays(&older.marks[passed - 1]);
        older.marks.drain(..passed - usize::from(kept)).for_each(|mark| dropped(&mark));
        if older.marks.is_empty() {
            self.older = None;
        } else if older.marks.capacity() > 2 * older.marks.len() {
            older.marks.shrink_to_fit();
        }
        true
    }

    fn older(&self) -> &[Mark] {
        self.older.as_ref().map_or(&[], |older| &older.marks)
    }
}

// The memory of a member is planned with this.
const _: () = assert!(size_of::<Entry>() == 64);
