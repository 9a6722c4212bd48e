//! The whole I/O surface of storage, as one narrow trait.
//!
//! The shipped implementation is the operating system's; the simulator's loses what was not synced,
//! tears writes and fails on purpose. Everything under `storage/` reaches the disk through this trait,
//! redb included. Paths are absolute or relative to the working folder, as given.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

/// A file system.
///
/// Durability is explicit: data of a file is durable after [`File::sync_data`], its name after
/// [`FileSystem::sync_dir`] of its folder. Nothing else is.
pub trait FileSystem: Send + Sync + 'static {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` unless `mode` creates; `AlreadyExists` for [`OpenMode::CreateNew`].
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;

    /// Opens a file and takes an exclusive lock that lasts as long as the returned value, creating
    /// the file if it is missing.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Replaces `to` by `from`, atomically. Durable after `sync_dir` of the folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder and those above it, with access for the owner only; it may exist.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether something exists at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// What is left on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. Positions are in bytes from its start; calls from several threads are allowed.
#[allow(clippy::len_without_is_empty)] // Nobody asks whether a file is empty.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, growing the file as needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything written so far durable, with what is needed to read it back.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends the file; what is new reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist.
    Existing,
    /// It is created if missing.
    Create,
    /// It must not exist.
    CreateNew,
}

/// Space on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free for this process.
    pub free_bytes: u64,
    /// The whole.
    pub total_bytes: u64,
}

/// Below this much free space, or a twentieth of the whole if that is less, a file system is low, in bytes.
const LOW_BYTES_MAX: u64 = 512 << 20;
/// But not below this much, or an eighth of the whole: what was taken before writes are refused has to go
/// somewhere, in bytes.
const LOW_BYTES_MIN: u64 = 64 << 20;

impl Space {
    /// The free bytes below which writes that add are refused.
    pub fn low_bytes(&self) -> u64 {
        let low_bytes_min = LOW_BYTES_MIN.min(self.total_bytes / 8);
        LOW_BYTES_MAX.min(self.total_bytes / 20).max(low_bytes_min)
    }

    /// What one file for a short time, or one of several for ever, may take of it: `bytes_max`, or a
    /// sixteenth of a small file system.
    pub fn share_bytes(&self, bytes_max: u64) -> u64 {
        bytes_max.min(self.total_bytes / 16)
    }

    /// Whether so little is free that writes that add are refused.
    pub fn is_low(&self) -> bool {
        self.free_bytes < self.low_bytes()
    }
}

/// Whether a call failed for want of space: the disk is full, or what this user may take of it.
pub fn is_storage_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a call failed because this process or the system has no file left to open: nothing is said of the
/// disk.
pub fn is_out_of_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|none_left| errno == Some(none_left.raw_os_error()))
}

/// A shared file system.
pub type SharedFs = Arc<dyn FileSystem>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_at_half_a_gibibyte_a_smaller_one_at_a_twentieth_and_a_small_one_at_an_eighth()
    {
        let low = |free_bytes, total_bytes| Space { free_bytes, total_bytes }.is_low();
        assert!(!low(600 << 20, 1 << 40) && low(500 << 20, 1 << 40));
        assert!(!low(210 << 20, 4 << 30) && low(200 << 20, 4 << 30));
        assert!(!low(64 << 20, 1 << 30) && low(63 << 20, 1 << 30));
        assert!(!low(25 << 20, 200 << 20) && low(24 << 20, 200 << 20));
    }
}
