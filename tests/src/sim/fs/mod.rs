//! A file system in memory that forgets what was not synced.
//!
//! [`SimFs`] implements the server's whole I/O surface, so that the shipped log, flusher and redb run
//! over it unchanged. One seed decides everything that goes wrong:
//!
//! - [`SimFs::crash`] is a power cut: each unsynced sector holds its old or a newer content, each on
//!   its own; lengths and names that were not synced are undone, in an order that a real file system
//!   allows. [`SimFs::kill`] ends the process only. Either way, what was opened before is dead.
//! - A failing sync loses data for good, although readers may still see it and the next sync succeeds.
//! - [`SimFs::fail_at`] cuts one numbered operation, for the sweep over all of them.
//!
//! Stricter than most disks on purpose: a name is durable only after its folder was synced, whatever
//! was done to the file.
//!
//! ```
//! use std::path::Path;
//!
//! use quorate_server::storage::fs::{FileSystem, OpenMode};
//! use quorate_tests::sim::fs::SimFs;
//!
//! let disk = SimFs::new(1);
//! let path = Path::new("log");
//! disk.open(path, OpenMode::Create)?.write_at(0, b"kept")?;
//! disk.open(path, OpenMode::Existing)?.sync_data()?;
//! disk.sync_dir(Path::new(""))?;
//! disk.open(path, OpenMode::Existing)?.write_at(4, b"perhaps")?;
//! disk.crash(2);
//! let mut start = [0; 4];
//! disk.open(path, OpenMode::Existing)?.read_at(0, &mut start)?;
//! assert_eq!(&start, b"kept");
//! # Ok::<(), std::io::Error>(())
//! ```

mod content;
mod disk;
mod faults;
mod handle;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_server::storage::fs::SharedFs;

use disk::Disk;

pub use content::{PAGE_BYTES, SECTOR_BYTES};
pub use faults::{Counters, DiskFault, FaultRates, Fired, OpKind, Operation};
pub(in crate::sim) use faults::{eio, emfile, enospc, gone};

/// A simulated file system. Clones are the same one.
#[derive(Clone)]
pub struct SimFs {
    /// Taken by one call at a time and never held across calls.
    disk: Arc<Mutex<Disk>>,
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Unsynced sectors that hold an older content than they did.
    pub sectors_lost: u64,
    /// Unsynced sectors that survived.
    pub sectors_kept: u64,
    /// Files of which some unsynced sectors survived and others did not.
    pub files_torn: u64,
    /// Creations, renames and removals that were undone.
    pub names_undone: u64,
}

impl SimFs {
    /// An empty, endless disk without faults; `seed` decides those that are asked for later.
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk::new(seed))) }
    }

    /// The same disk as the server takes it.
    pub fn shared(&self) -> SharedFs {
        Arc::new(self.clone())
    }

    /// A copy of the disk as it is now, with its own future. What is open stays with the original.
    pub fn fork(&self, seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk.lock().fork(seed))) }
    }

    /// Cuts the power: becomes what is durable under `seed`. Everything opened or locked before
    /// fails from now on.
    pub fn crash(&self, seed: u64) -> CrashReport {
        self.disk.lock().crash(seed)
    }

    /// Ends the process: what was opened or locked before fails from now on, and nothing is lost;
    /// but nothing became durable by it either.
    pub fn kill(&self) {
        self.disk.lock().restart();
    }

    /// Whether a planned crash or kill happened and everything fails until [`SimFs::crash`] or
    /// [`SimFs::kill`].
    pub fn is_down(&self) -> bool {
        self.disk.lock().is_down()
    }

    /// Makes everything durable, names included, as a fresh machine finds it.
    pub fn sync_all(&self) {
        self.disk.lock().sync_all();
    }

    /// Sets how often operations fail by chance.
    pub fn set_rates(&self, rates: FaultRates) {
        self.disk.lock().faults.rates = rates;
    }

    /// Plans a fault for the changing operation `number`; see [`SimFs::changes_total`].
    pub fn fail_at(&self, number: u64, fault: DiskFault) {
        self.disk.lock().faults.planned.insert(number, fault);
    }

    /// Forgets every planned fault that has not happened.
    pub fn clear_plan(&self) {
        self.disk.lock().faults.planned.clear();
    }

    /// Sets how much the disk holds, in bytes; `None` is endless.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.disk.lock().set_capacity(capacity_bytes);
    }

    /// Space that files take, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.disk.lock().used_bytes()
    }

    /// How many changing operations there were: the next one has this number plus one.
    pub fn changes_total(&self) -> u64 {
        self.disk.lock().faults.changes_total
    }

    /// What was done so far, by kind.
    pub fn counters(&self) -> Counters {
        self.disk.lock().faults.counters
    }

    /// The newest changing operations, oldest first.
    pub fn recent(&self) -> Vec<Operation> {
        self.disk.lock().faults.recent.iter().cloned().collect()
    }

    /// The faults that happened since the last call.
    pub fn take_fired(&self) -> Vec<Fired> {
        std::mem::take(&mut self.disk.lock().faults.fired)
    }

    /// Every visible file with its length in bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, u64> {
        self.disk.lock().lengths()
    }

    /// Changes bytes of a file on the disk itself, as a bad sector does. Nothing counts as written.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `UnexpectedEof` if it ends before.
    pub fn corrupt(&self, path: &Path, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.disk.lock().corrupt(path, offset, data)
    }
}
