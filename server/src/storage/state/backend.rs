//! redb's file, on our file system.
//!
//! redb reads and writes through [`Backend`], which forwards to a [`File`] and counts. The [`Meter`]
//! is shared with whoever opened the file: redb tells neither how long its file is nor how much it
//! wrote. redb grows its file by doubling it; `written_end` is where the part that was ever written
//! ends, so that a sparse tail does not look like space to give back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{Builder, Database, StorageBackend};

use super::error::Fault;
use crate::storage::fs::{File, FileSystem, OpenMode};

/// What happened to one file since it was opened, in bytes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    written_bytes: AtomicU64,
    written_end: AtomicU64,
    len: AtomicU64,
}

impl Meter {
    /// Bytes written, those written twice counted twice.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Where the part of the file that holds something ends.
    pub(super) fn written_end(&self) -> u64 {
        self.written_end.load(Ordering::Relaxed)
    }

    /// The file's length.
    pub(super) fn file_bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }
}

/// A file as redb wants it.
struct Backend {
    file: Box<dyn File>,
    path: PathBuf,
    meter: Arc<Meter>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.meter.len.store(len, Ordering::Relaxed);
        self.meter.written_end.fetch_min(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)?;
        let bytes = data.len() as u64;
        self.meter.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meter.written_end.fetch_max(offset + bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// An open redb file.
pub(super) struct OpenFile {
    pub(super) database: Database,
    pub(super) meter: Arc<Meter>,
    /// Whether the whole file had to be read to make it usable.
    pub(super) repaired: bool,
}

/// How a redb file is opened.
#[derive(Clone, Copy)]
pub(super) struct FileOptions {
    /// [`OpenMode::Existing`] refuses an empty file, [`OpenMode::CreateNew`] initializes one.
    pub(super) mode: OpenMode,
    /// What redb may keep in memory.
    pub(super) cache_bytes: usize,
    /// Whether every page's checksum is verified first; reads the whole file.
    pub(super) verify: bool,
}

/// Opens a redb file, repairing it if it was not closed.
///
/// # Errors
/// The file cannot be read or written, or is not whole.
pub(super) fn open_file(
    fs: &dyn FileSystem,
    path: &Path,
    options: FileOptions,
) -> Result<OpenFile, Fault> {
    let file = fs.open(path, options.mode)?;
    let len = file.len()?;
    if len == 0 && options.mode == OpenMode::Existing {
        return Err(Fault::Damaged("the file is empty".into()));
    }
    let meter = Arc::new(Meter::default());
    meter.len.store(len, Ordering::Relaxed);
    meter.written_end.store(len, Ordering::Relaxed);
    let backend = Backend { file, path: path.to_owned(), meter: meter.clone() };
    let repaired = Arc::new(AtomicBool::new(false));
    let on_repair = repaired.clone();
    let database = Builder::new()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(options.verify)
        .set_repair_callback(move |_| on_repair.store(true, Ordering::Relaxed))
        .create_with_backend(backend)?;
    let repaired = repaired.load(Ordering::Relaxed) && !options.verify;
    Ok(OpenFile { database, meter, repaired })
}
