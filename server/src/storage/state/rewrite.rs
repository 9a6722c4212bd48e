//! Giving space back: the live rows are copied into a new file, which then takes the place.
//!
//! redb reuses what is deleted but its file hardly shrinks. A rewrite copies in steps, in revision
//! order, and flushes between the steps go on writing the old file:
//!
//! ```text
//! old   [1 . 3 . . 6 7 8 9]     flush adds 9, deletes 3
//! copy  [1 3 6 7             copied up to 7, so 9 is still met; 3 was copied, so it is deleted there
//! copy  [1 6 7 8 9]             caught up: small tables, header, sync, rename, swap the readers
//! ```
//!
//! The copy counts for nothing before it is whole, durable and renamed, so a crash at any instant
//! leaves the old file or the new one, each with the same rows; the store's generation stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase};

use super::StateStore;
use super::backend::{FileOptions, Meter, OpenFile, open_file};
use super::error::{Fault, RewriteError};
use super::open::{part_path, remove_if_there};
use super::panics;
use super::reader::scan;
use super::tables::{self, Appended, Header};
use crate::mvcc::{Revision, Row, RowKey, ScanBounds};
use crate::storage::data_dir::parent;
use crate::storage::fs::{OpenMode, SharedFs};

/// What redb may keep in memory of the copy while it is written, in bytes.
const COPY_CACHE_BYTES: usize = 8 << 20;

/// What one step copies, unless a single row is more, in bytes.
const STEP_BYTES_MAX: usize = 4 << 20;

/// After so many bytes the copy is made durable: redb keeps a list of what is not.
const SYNC_BYTES: u64 = 64 << 20;

/// What the file system must have beside the copy before writes are refused for want of space, in bytes:
/// a segment of the log.
const RESERVE_BYTES: u64 = 64 << 20;

/// How far a rewrite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteProgress {
    /// Another step is needed.
    More,
    /// The copy has everything: [`Rewrite::finish`] is due.
    CaughtUp,
}

/// What a finished rewrite did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteReport {
    /// Rows in the store.
    pub rows: u64,
    /// The length of the file before, in bytes.
    pub file_bytes_before: u64,
    /// The length of the file now, in bytes.
    pub file_bytes: u64,
}

/// A rewrite between two of its steps. Dropping it gives it up.
pub struct Rewrite {
    fs: SharedFs,
    path: PathBuf,
    part: Arc<Path>,
    /// `None` once it is handed over.
    copy: Option<Database>,
    meter: Arc<Meter>,
    /// Where to read on in the store: everything before is copied.
    next: Vec<u8>,
    live_bytes: u64,
    unsynced_bytes: u64,
    /// What the copy leaves free, in bytes: below that it is given up.
    left_bytes_min: u64,
    /// What flushes deleted since the last step. A leaf lock, taken by the writer's thread only.
    deleted: Arc<Mutex<Vec<RowKey>>>,
}

impl Rewrite {
    /// Begins to rewrite `store`.
    ///
    /// # Errors
    /// [`RewriteError::Busy`] while another is running, [`RewriteError::NoRoom`] or
    /// [`RewriteError::Copy`] if the copy cannot be made: the store goes on.
    pub fn begin(store: &mut StateStore) -> Result<Self, RewriteError> {
        let path = store.path().to_owned();
        let part: Arc<Path> = part_path(&path).into();
        let _copy = panics::enter(&part);
        if store.rewrite.strong_count() > 0 {
            return Err(RewriteError::Busy { path });
        }
        let copy_failed = |fault| RewriteError::Copy { path: part.to_path_buf(), fault };
        let space = store.fs.space(parent(&path)).map_err(|error| copy_failed(error.into()))?;
        // Of a file system that is low already, nothing more is refused.
        let low_bytes = if space.is_low() { 0 } else { space.low_bytes() };
        let left_bytes_min = low_bytes + space.share_bytes(RESERVE_BYTES);
        let needed_bytes = store.space().live_bytes + left_bytes_min;
        if space.free_bytes < needed_bytes {
            let free_bytes = space.free_bytes;
            return Err(RewriteError::NoRoom { path, needed_bytes, free_bytes });
        }
        remove_if_there(&*store.fs, &part).map_err(copy_failed)?;
        let options =
            FileOptions { mode: OpenMode::CreateNew, cache_bytes: COPY_CACHE_BYTES, meter: None };
        let opened = open_file(&*store.fs, &part, options).and_then(|opened| {
            tables::initialize(&opened.database, &store.header).map(|()| opened)
        });
        let copy = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                // It will be removed at the next start otherwise.
                let _ = remove_if_there(&*store.fs, &part);
                return Err(copy_failed(fault));
            }
        };
        let deleted = Arc::new(Mutex::new(Vec::new()));
        store.rewrite = Arc::downgrade(&deleted);
        Ok(Self {
            fs: store.fs.clone(),
            path,
            part,
            copy: Some(copy.database),
            meter: copy.meter,
            next: RowKey::new(Revision::default(), false).as_bytes().to_vec(),
            live_bytes: 0,
            unsynced_bytes: 0,
            left_bytes_min,
            deleted,
        })
    }

    /// Copies up to `rows_max` rows, or 4 MiB. Steps go on while flushes add rows; each makes progress.
    ///
    /// # Errors
    /// [`RewriteError::Copy`]: give it up, the store goes on. [`RewriteError::Store`]: the process
    /// must end.
    pub fn step(
        &mut self,
        store: &StateStore,
        rows_max: usize,
    ) -> Result<RewriteProgress, RewriteError> {
        let _copy = panics::enter(&self.part);
        let rows_max = rows_max.max(1);
        self.check_room()?;
        // Deletions come first: one of a row that is not copied yet has nothing to do here, because
        // the store no longer has the row; after more rows were copied nobody could tell.
        let deletions = self.take_deletions(rows_max);
        if !deletions.is_empty() {
            return self.delete(&deletions).map_err(|fault| self.copy_failed(fault));
        }
        let mut rows = Vec::new();
        let bounds = ScanBounds { rows_max, bytes_max: STEP_BYTES_MAX };
        let stopped = store
            .shared
            .database()
            .and_then(|database| scan(&database, &self.next, bounds, &mut rows))
            .map_err(|fault| self.store_failed(fault))?;
        let Some(last) = rows.last().map(|row| row.key) else {
            return Ok(RewriteProgress::CaughtUp);
        };
        self.append(&rows).map_err(|fault| self.copy_failed(fault))?;
        // The key after: nothing sorts between a key and itself with a zero byte.
        self.next = last.as_bytes().to_vec();
        self.next.push(0);
        Ok(if stopped { RewriteProgress::More } else { RewriteProgress::CaughtUp })
    }

    /// Copies what is left, makes the copy durable, puts it in the place of the store and swaps the
    /// readers over.
    ///
    /// # Errors
    /// As [`Rewrite::step`], and [`RewriteError::Busy`] while a flush is running. In each case the
    /// rewrite is given up.
    pub fn finish(mut self, store: &mut StateStore) -> Result<RewriteReport, RewriteError> {
        if store.running.is_some() {
            return Err(RewriteError::Busy { path: self.path.clone() });
        }
        while self.step(store, 1000)? == RewriteProgress::More {}
        let copied = self.part.clone();
        let _copy = panics::enter(&copied);
        let header = self.seal(store)?;
        let options = FileOptions {
            mode: OpenMode::Existing,
            cache_bytes: store.cache_bytes,
            meter: Some(self.meter.clone()),
        };
        let part = open_file(&*self.fs, &self.part, options);
        let OpenFile { database, meter, .. } = part.map_err(|fault| self.copy_failed(fault))?;
        let rows = tables::row_count(&database).map_err(|fault| self.copy_failed(fault))?;
        // What a page that came back has lost must not be lost for good.
        store
            .shared
            .database()
            .and_then(|database| tables::row_count(&database))
            .and_then(|said| tables::check_count("rows", rows, said))
            .map_err(|fault| self.store_failed(fault))?;
        let swapped = self
            .fs
            .rename(&self.part, &self.path)
            .and_then(|()| self.fs.sync_dir(parent(&self.path)));
        if let Err(error) = swapped {
            store.shared.fail();
            return Err(self.store_failed(error.into()));
        }
        let report = RewriteReport {
            rows,
            file_bytes_before: store.meter.file_bytes(),
            file_bytes: meter.file_bytes(),
        };
        store.header = Header {
            dense_file_bytes: meter.disk_bytes(),
            dense_live_bytes: header.live_bytes,
            ..header
        };
        store.retired.extend(store.shared.replace(Some(database)));
        store.meter = meter;
        store.drop_retired();
        Ok(report)
    }

    /// Adds the small tables and the header, and closes the copy: redb trims it and syncs.
    fn seal(&mut self, store: &StateStore) -> Result<Header, RewriteError> {
        let records = store
            .shared
            .database()
            .and_then(|database| tables::read_tables(&database.begin_read()?))
            .map_err(|fault| self.store_failed(fault))?;
        let header = Header { live_bytes: self.live_bytes, ..store.header };
        let copy = self.copy.take().expect("it is handed over here only");
        let sealed = || -> Result<(), Fault> {
            let transaction = tables::begin(&copy, Durability::Immediate)?;
            tables::write_tables(&transaction, &records)?;
            header.write(&transaction)?;
            transaction.commit()?;
            copy.close()?;
            Ok(self.fs.open(&self.part, OpenMode::Existing)?.sync_data()?)
        };
        sealed().map_err(|fault| self.copy_failed(fault))?;
        Ok(header)
    }

    /// Takes up to `max` deletions of rows that were copied.
    fn take_deletions(&self, max: usize) -> Vec<RowKey> {
        let mut deleted = self.deleted.lock();
        deleted.retain(|key| key.as_bytes() < self.next.as_slice());
        let count = deleted.len().min(max);
        let mut taken: Vec<RowKey> = deleted.drain(..count).collect();
        // Each flush ascends, but those of two flushes do not.
        taken.sort_unstable();
        taken
    }

    fn delete(&mut self, keys: &[RowKey]) -> Result<RewriteProgress, Fault> {
        let transaction = tables::begin(self.copy(), Durability::None)?;
        let freed_bytes = tables::delete_rows(&transaction, keys)?;
        transaction.commit()?;
        self.live_bytes = self.live_bytes.saturating_sub(freed_bytes);
        Ok(RewriteProgress::More)
    }

    fn append(&mut self, rows: &[Row]) -> Result<(), Fault> {
        let sync = self.unsynced_bytes >= SYNC_BYTES;
        let durability = if sync { Durability::Immediate } else { Durability::None };
        let transaction = tables::begin(self.copy(), durability)?;
        let cost_bytes = match tables::append_rows(&transaction, rows) {
            Ok(cost_bytes) => cost_bytes,
            Err(Appended::Fault(fault)) => return Err(fault),
            Err(Appended::Refused(refusal)) => return Err(Fault::Damaged(refusal.to_string())),
        };
        transaction.commit()?;
        self.live_bytes += cost_bytes;
        self.unsynced_bytes = if sync { 0 } else { self.unsynced_bytes + cost_bytes };
        Ok(())
    }

    /// Others write to the file system too, and a copy may be larger than its rows.
    fn check_room(&self) -> Result<(), RewriteError> {
        let space = self.fs.space(parent(&self.path));
        let free_bytes = space.map_err(|error| self.copy_failed(error.into()))?.free_bytes;
        let (path, needed_bytes) = (self.path.clone(), self.left_bytes_min);
        match free_bytes < needed_bytes {
            true => Err(RewriteError::NoRoom { path, needed_bytes, free_bytes }),
            false => Ok(()),
        }
    }

    fn copy(&self) -> &Database {
        self.copy.as_ref().expect("the copy is open until the rewrite is finished")
    }

    fn copy_failed(&self, fault: Fault) -> RewriteError {
        RewriteError::Copy { path: self.part.to_path_buf(), fault }
    }

    fn store_failed(&self, fault: Fault) -> RewriteError {
        RewriteError::Store { path: self.path.clone(), fault }
    }
}

impl Drop for Rewrite {
    fn drop(&mut self) {
        let _copy = panics::enter(&self.part);
        self.copy = None;
        // A finished one has no such file; one that stays is removed at the next start.
        let _ = remove_if_there(&*self.fs, &self.part);
    }
}
