//! One key and what the index remembers of each of its rows.
//!
//! The newest row is stored in place; what most keys do not have is boxed beside it: older rows, and
//! a newest row with numbers out of the ordinary. An entry is 48 bytes and the key's own bytes. A key
//! whose newest row is a tombstone is *dead*: it is kept for reads in the past until compaction takes
//! its last row.
//!
//! ```text
//! put a   at 2.0    latest (2,0)                     live
//! put a   at 3.0    latest (3,0)   older [2,0]       live
//! del a   at 4.0    latest (4,0)t  older [2,0  3,0]  dead
//! compact 4         latest (4,0)t                    dead, a watch from 4 still sees the deletion
//! compact 5         gone
//! ```

use super::Version;
use super::older::Older;
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

/// What a step of a compaction leaves of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// What stays, and no more.
    Rows,
    /// Nothing: the key goes.
    Nothing,
    /// Rows that are still to be dropped.
    More,
}

/// One key with at least one row.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    key: Box<[u8]>,
    newest: Packed,
    /// Boxed, because most keys have none and then pay 8 bytes.
    side: Option<Box<Side>>,
}

/// The newest row of a key, in the 24 bytes that are enough for nearly all.
///
/// A generation's first version was created by its own row, so the place of the create revision is
/// free for a lease there. A later version with a lease, and numbers that do not fit, are in [`Side`].
#[derive(Clone, Copy, Debug)]
struct Packed {
    main: i64,
    /// The lease of a first version, the create revision of a later one.
    lease_or_create: i64,
    stored_bytes: u32,
    sub: u16,
    /// 0 for a tombstone, [`WIDE`] if the row is in [`Side`].
    version: u16,
}

/// In the place of a version: see [`Side::wide`].
const WIDE: u16 = u16::MAX;

/// What most keys do not have; something of it is there.
#[derive(Clone, Debug, Default)]
struct Side {
    /// The newest row, if it does not fit into [`Packed`].
    wide: Option<Box<Mark>>,
    /// The rows before the newest one.
    older: Older,
}

impl Packed {
    /// `None` if the mark does not fit.
    fn of(mark: &Mark) -> Option<Self> {
        let is_first = mark.version == 1;
        let lease_or_create = if is_first { mark.lease } else { mark.create_revision };
        let packed = Self {
            main: mark.main,
            lease_or_create,
            stored_bytes: mark.stored_bytes,
            sub: u16::try_from(mark.sub).ok()?,
            version: u16::try_from(mark.version).ok().filter(|version| *version != WIDE)?,
        };
        // What cannot be told from a packed row has to be what it is taken for.
        (packed.unpack() == *mark).then_some(packed)
    }

    fn wide(mark: &Mark) -> Self {
        Self { main: mark.main, lease_or_create: 0, stored_bytes: 0, sub: 0, version: WIDE }
    }

    fn unpack(&self) -> Mark {
        let (create_revision, lease) = match self.version {
            1 => (self.main, self.lease_or_create),
            _ => (self.lease_or_create, 0),
        };
        Mark {
            main: self.main,
            create_revision,
            version: self.version.into(),
            lease,
            sub: self.sub.into(),
            stored_bytes: self.stored_bytes,
        }
    }
}

impl Entry {
    /// A key with its first row.
    pub(super) fn new(key: &[u8], mark: Mark) -> Self {
        let mut entry = Self { key: key.into(), newest: Packed::wide(&mark), side: None };
        entry.set_latest(mark);
        entry
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The newest row.
    pub(super) fn latest(&self) -> Mark {
        let wide = self.side.as_ref().and_then(|side| side.wide.as_deref());
        wide.copied().unwrap_or_else(|| self.newest.unpack())
    }

    /// Whether the key exists now.
    pub(super) fn is_live(&self) -> bool {
        match self.newest.version {
            WIDE => !self.latest().is_tombstone(),
            version => version != 0,
        }
    }

    /// Adds the newest row.
    pub(super) fn push(&mut self, mark: Mark) -> Result<(), NotNewer> {
        let previous = self.latest();
        if mark.revision() <= previous.revision() {
            return Err(NotNewer);
        }
        self.side.get_or_insert_default().older.push(previous);
        self.set_latest(mark);
        Ok(())
    }

    /// The newest row at or before `at`, which may be a tombstone.
    pub(super) fn newest_upto(&self, at: Revision) -> Option<Mark> {
        let latest = self.latest();
        if latest.revision() <= at {
            return Some(latest);
        }
        let older = self.older()?;
        let after = older.count_passed(|mark| mark.revision() <= at);
        after.checked_sub(1).map(|newest| older.get(newest))
    }

    /// All rows after `after`, at or before `upto`, ascending.
    pub(super) fn within(
        &self,
        after: Revision,
        upto: Revision,
    ) -> impl Iterator<Item = Mark> + Clone {
        let older = self.older().into_iter().flat_map(move |older| {
            let first = older.count_passed(|mark| mark.revision() <= after);
            let end = older.count_passed(|mark| mark.revision() <= upto);
            (first..end).map(move |at| older.get(at))
        });
        let is_within = |mark: &Mark| after < mark.revision() && mark.revision() <= upto;
        older.chain(Some(self.latest()).filter(is_within))
    }

    /// Drops rows that a compaction at main revision `upto` drops, oldest first, at most `rows_max`
    /// (at least 1).
    ///
    /// Of the rows at or before `upto` only the newest stays, and not even that one if it is a
    /// tombstone older than `upto` itself. It goes last: what is visible at `upto` or later is the same
    /// all the time.
    pub(super) fn compact(
        &mut self,
        upto: i64,
        rows_max: usize,
        dropped: &mut dyn FnMut(&Mark),
    ) -> Left {
        let stays = |mark: &Mark| !mark.is_tombstone() || mark.main == upto;
        let latest = self.latest();
        let latest_goes = latest.main <= upto && !stays(&latest);
        let older_go = self.older().map_or(0, |older| {
            let passed = older.count_passed(|mark| mark.main <= upto);
            let newest = passed.checked_sub(1).filter(|_| latest.main > upto);
            passed - usize::from(newest.is_some_and(|newest| stays(&older.get(newest))))
        });
        let go_now = older_go.min(rows_max);
        self.drop_older(go_now, dropped);
        if go_now < older_go || (latest_goes && go_now == rows_max) {
            return Left::More;
        }
        if !latest_goes {
            return Left::Rows;
        }
        dropped(&latest);
        Left::Nothing
    }

    fn drop_older(&mut self, count: usize, dropped: &mut dyn FnMut(&Mark)) {
        let Some(side) = &mut self.side else { return };
        (0..count).for_each(|at| dropped(&side.older.get(at)));
        side.older.drop_oldest(count);
        if side.older.len() == 0 && side.wide.is_none() {
            self.side = None;
        }
    }

    fn older(&self) -> Option<&Older> {
        self.side.as_ref().map(|side| &side.older)
    }

    fn set_latest(&mut self, mark: Mark) {
        let packed = Packed::of(&mark);
        self.newest = packed.unwrap_or_else(|| Packed::wide(&mark));
        if packed.is_none() {
            self.side.get_or_insert_default().wide = Some(Box::new(mark));
        } else if let Some(side) = &mut self.side {
            side.wide = None;
        }
    }
}

// The memory of a member is planned with this.
const _: () = assert!(size_of::<Entry>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_the_ordinary_are_remembered_as_well_as_others() {
        let many = i64::from(WIDE);
        let mut main = 100;
        let mut entry = Entry::new(b"k", Mark::tombstone(Revision::new(1, 0), 3).unwrap());
        for (version, sub, lease) in [
            (1, 0, 0),
            (1, 0, 7),
            (1, 0, i64::MIN),
            (2, 0, 0),
            (2, 0, 7),
            (many - 1, 0, 0),
            (many, 0, 0),
            (many + 1, 3, 0),
            (i64::MAX, i64::from(u32::MAX), -1),
            (3, many, 0),
            (3, many + 1, 0),
        ] {
            for create_revision in [1, main] {
                let revision = Revision::new(main, sub);
                let stored_bytes = u32::MAX;
                let given = Version { revision, create_revision, version, lease, stored_bytes };
                entry.push(Mark::put(&given).unwrap()).unwrap();
                assert_eq!(entry.latest().version(), Some(given));
                assert_eq!(
                    entry.newest_upto(revision).and_then(|mark| mark.version()),
                    Some(given)
                );
                assert!(entry.is_live());
                let mut compacted = entry.clone();
                assert_eq!(compacted.compact(main, 100, &mut |_| {}), Left::Rows);
                assert_eq!(compacted.latest().version(), Some(given));
                assert!(compacted.older().is_none_or(|older| older.len() == 0));
                main += 1;
            }
        }
        let end = Mark::tombstone(Revision::new(main, many + 9), 5).unwrap();
        entry.push(end).unwrap();
        assert!(!entry.is_live() && entry.latest() == end);
        assert_eq!(entry.within(Revision::default(), Revision::end_of(main)).count(), 24);
        assert_eq!(entry.compact(main + 1, 100, &mut |_| {}), Left::Nothing);
    }
}
