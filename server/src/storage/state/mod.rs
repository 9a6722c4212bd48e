//! The state store: flushed rows and the small tables, in one redb file.
//!
//! Everything here lags behind the log. The owner keeps what it applied in memory; now and then it
//! cuts a [`FlushBatch`](crate::state_machine::FlushBatch), and one durable transaction adds it here
//! together with the applied index, so that after a crash the log is replayed from exactly there.
//!
//! ```text
//! apply 1..=40   |  flush { rows, applied_index: 40 }   -> the store is at 40, the log may be trimmed
//! apply 41..=70  |  (crash)                             -> open: applied_index 40, replay from 41
//! ```
//!
//! - One writer: [`StateStore`] is owned by the flusher's thread. Its work comes in steps (a *flush*, a
//!   *rewrite*), so that a simulator can interleave them with anything else.
//! - Any number of readers: a [`StoreReader`] opens a transaction per call and holds nothing between.
//! - Every value carries a checksum that each read verifies; one that does not match is final too.
//! - What is read in order must ascend, and be as much as the file says that there is.
//! - Every call of redb says first which file it is about: if it panics, that one is damaged, see [`panics`].
//! - An I/O error is final: the store takes no further call, and the process ends with the reason.
//!
//! redb itself runs on [`FileSystem`](crate::storage::fs::FileSystem), through a small back end.

mod backend;
mod error;
mod flush;
mod open;
pub mod panics;
mod reader;
mod rewrite;
mod seal;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use redb::Database;

use self::backend::Meter;
use self::reader::Shared;
use self::tables::Header;
use crate::mvcc::RowKey;
use crate::state_machine::TableRow;
use crate::storage::fs::SharedFs;

pub use self::error::{Fault, FlushError, OpenError, Refusal, RewriteError};
pub use self::flush::{FlushProgress, FlushReport};
pub use self::reader::StoreReader;
pub use self::rewrite::{Rewrite, RewriteProgress, RewriteReport};
pub use self::tables::{Identity, check_count};

/// Free space that is worth a rewrite, in bytes, if it is also more than half of what the file takes.
pub const REWRITE_FREE_BYTES_MIN: u64 = 256 << 20;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// What redb may keep in memory, in bytes. A flush of more than a quarter of it writes most of its
    /// pages twice.
    pub cache_bytes: usize,
    /// Whom it belongs to: verified, or written into a new one.
    pub identity: Identity,
    /// Whether a missing one is created.
    pub create: bool,
    /// The generation of a created one.
    pub generation: u64,
}

/// An opened store, and what recovery must know.
pub struct Opened {
    /// The store.
    pub store: StateStore,
    /// Every record of the small tables.
    pub tables: Vec<TableRow>,
    /// How many rows it says that it holds: whoever reads all of them must find as many.
    pub rows: u64,
    /// The last entry whose effects are in the store; 0 in a new one.
    pub applied_index: u64,
    /// The current revision after it; 1 in a new one.
    pub revision: i64,
    /// Which store this is; the installation of a snapshot makes another.
    pub generation: u64,
    /// The length of the file, in bytes.
    pub file_bytes: u64,
    /// Whether the whole file had to be read because it was not closed; not so after a crash.
    pub repaired: bool,
}

/// What the file takes and what is in it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSpace {
    /// The length of the file.
    pub file_bytes: u64,
    /// What it takes on the disk: its length without the parts that were never written. Of what an
    /// earlier process wrote, all counts.
    pub disk_bytes: u64,
    /// What the live rows take, as an estimate.
    pub live_bytes: u64,
    /// What a rewrite would give back, as an estimate.
    pub free_bytes: u64,
}

/// The state store, for its one writer.
pub struct StateStore {
    fs: SharedFs,
    cache_bytes: usize,
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    header: Header,
    running: Option<flush::Running>,
    /// Where a running rewrite learns of deletions.
    rewrite: Weak<Mutex<Vec<RowKey>>>,
    /// Files that were replaced, until their last reader is gone.
    retired: Vec<Arc<Database>>,
}

impl StateStore {
    /// A reader, for any thread.
    pub fn reader(&self) -> StoreReader {
        StoreReader::new(self.shared.clone())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The last entry whose effects are durable here.
    pub fn applied_index(&self) -> u64 {
        self.header.applied_index
    }

    /// The current revision after that entry.
    pub fn revision(&self) -> i64 {
        self.header.revision
    }

    /// Which store this is.
    pub fn generation(&self) -> u64 {
        self.header.generation
    }

    /// What the file takes and holds.
    ///
    /// The live size is the sum of what each row takes in a dense file, scaled by how dense the last
    /// rewrite made it: an estimate that is off can never ask for one rewrite after the other.
    pub fn space(&self) -> StoreSpace {
        let live_bytes = self.header.live_bytes_scaled();
        let disk_bytes = self.meter.disk_bytes();
        StoreSpace {
            file_bytes: self.meter.file_bytes(),
            disk_bytes,
            live_bytes,
            free_bytes: disk_bytes.saturating_sub(live_bytes),
        }
    }

    /// Closes the file, so that the next start finds it trimmed; nothing is lost without it.
    ///
    /// Readers fail from now on.
    ///
    /// # Errors
    /// [`OpenError::Failed`] if the file cannot be written; what was flushed is safe.
    pub fn close(mut self) -> Result<(), OpenError> {
        self.shut().map_err(|fault| OpenError::Failed {
            path: self.path().to_owned(),
            action: "close",
            fault,
        })
    }

    fn shut(&mut self) -> Result<(), Fault> {
        let _inside = panics::enter(&self.shared.path);
        self.running = None;
        self.retired.clear();
        match self.shared.replace(None).map(Arc::try_unwrap) {
            Some(Ok(database)) => Ok(database.close()?),
            // The last of the readers in the middle of a call closes it.
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Tells a running rewrite what a flush deleted.
    fn deleted(&self, deletions: &[RowKey]) {
        if let Some(inbox) = self.rewrite.upgrade() {
            inbox.lock().extend_from_slice(deletions);
        }
    }

    /// Closes replaced files that nobody reads any more. Here, not on a reader's thread: closing
    /// writes.
    fn drop_retired(&mut self) {
        let _inside = panics::enter(&self.shared.path);
        self.retired.retain(|database| Arc::strong_count(database) > 1);
    }
}

impl StoreSpace {
    /// Whether a rewrite is worth its cost: more than half of what the file takes, and more than
    /// [`REWRITE_FREE_BYTES_MIN`], is free; where `disk_is_low` a sixteenth of that will do.
    pub fn is_worth_a_rewrite(&self, disk_is_low: bool) -> bool {
        let free_bytes_min = REWRITE_FREE_BYTES_MIN / if disk_is_low { 16 } else { 1 };
        self.free_bytes > free_bytes_min && self.free_bytes > self.disk_bytes / 2
    }
}

impl Drop for StateStore {
    fn drop(&mut self) {
        // Closing only saves work at the next start; `close` reports its errors.
        let _ = self.shut();
    }
}
