//! redb's file, on our file system.
//!
//! redb reads and writes through [`Backend`], which forwards to a [`File`] and counts. The [`Meter`]
//! is shared with whoever opened the file: redb tells neither how long its file is nor how much it
//! wrote. redb grows its file by doubling it, and most of the new half takes no room on the disk until
//! it is written; the meter knows which parts were, so that a hole does not look like space to give
//! back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use redb::{Builder, Database, StorageBackend};

use super::error::Fault;
use crate::storage::fs::{File, FileSystem, OpenMode};

/// The parts of a file that are told apart, in bytes.
const PART_BYTES: u64 = 64 << 10;

/// The header has the first page, all others are B-tree pages, and begin with their kind (redb's design
/// document). redb does not verify a page as it reads it, and panics on an unknown kind: a page that
/// was lost or overwritten must not get that far.
const PAGE_BYTES: u64 = 4096;
const PAGE_LEAF: u8 = 1;
const PAGE_BRANCH: u8 = 2;

/// What happened to one file since it was opened, in bytes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    written_bytes: AtomicU64,
    len: AtomicU64,
    /// One bit per part of the file that was written. A leaf lock, held for one look or note.
    parts: Mutex<Vec<u64>>,
}

impl Meter {
    /// The meter of a file of which all may have been written.
    fn new(len: u64) -> Self {
        let meter = Self::default();
        meter.len.store(len, Ordering::Relaxed);
        meter.note_written(0, len);
        meter
    }

    /// Bytes written, those written twice counted twice.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// The file's length.
    pub(super) fn file_bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// What the file takes on the disk: its length without what was never written.
    pub(super) fn disk_bytes(&self) -> u64 {
        let parts: u64 = self.parts.lock().iter().map(|word| u64::from(word.count_ones())).sum();
        (parts * PART_BYTES).min(self.file_bytes())
    }

    fn note_written(&self, offset: u64, bytes: u64) {
        let mut parts = self.parts.lock();
        for part in offset / PART_BYTES..(offset + bytes).div_ceil(PART_BYTES) {
            let word = (part / 64) as usize;
            if word >= parts.len() {
                parts.resize(word + 1, 0);
            }
            parts[word] |= 1 << (part % 64);
        }
    }

    fn note_len(&self, len: u64) {
        self.len.store(len, Ordering::Relaxed);
        let whole_parts = len.div_ceil(PART_BYTES);
        let mut parts = self.parts.lock();
        parts.truncate(whole_parts.div_ceil(64) as usize);
        if let Some(last) = parts.get_mut((whole_parts / 64) as usize) {
            *last &= (1 << (whole_parts % 64)) - 1;
        }
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
        self.file.read_at(offset, out)?;
        if offset >= PAGE_BYTES && !matches!(out.first(), Some(&(PAGE_LEAF | PAGE_BRANCH))) {
            let reason = format!("the page at byte {offset} is neither leaf nor branch");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.meter.note_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)?;
        let bytes = data.len() as u64;
        self.meter.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meter.note_written(offset, bytes);
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
pub(super) struct FileOptions {
    /// [`OpenMode::Existing`] refuses an empty file, [`OpenMode::CreateNew`] initializes one.
    pub(super) mode: OpenMode,
    /// What redb may keep in memory.
    pub(super) cache_bytes: usize,
    /// What is known of the file, if it was open before.
    pub(super) meter: Option<Arc<Meter>>,
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
    let meter = options.meter.unwrap_or_else(|| Arc::new(Meter::new(len)));
    let backend = Backend { file, path: path.to_owned(), meter: meter.clone() };
    let repaired = Arc::new(AtomicBool::new(false));
    let on_repair = repaired.clone();
    let database = Builder::new()
        .set_cache_size(options.cache_bytes)
        .set_repair_callback(move |_| on_repair.store(true, Ordering::Relaxed))
        .create_with_backend(backend)?;
    let repaired = repaired.load(Ordering::Relaxed);
    Ok(OpenFile { database, meter, repaired })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_what_was_written_of_it_and_no_more_than_its_length() {
        let meter = Meter::default();
        meter.note_len(1 << 30);
        assert_eq!(meter.disk_bytes(), 0);
        meter.note_written(PART_BYTES - 1, 2);
        meter.note_written(0, 10);
        meter.note_written((1 << 30) - 1, 1);
        assert_eq!(meter.disk_bytes(), 3 * PART_BYTES);
        meter.note_len(PART_BYTES + 1);
        assert_eq!(meter.disk_bytes(), PART_BYTES + 1);
        meter.note_len(1 << 30);
        assert_eq!(meter.disk_bytes(), 2 * PART_BYTES);
        meter.note_len(PART_BYTES);
        meter.note_len(1 << 30);
        assert_eq!(meter.disk_bytes(), PART_BYTES);
        assert_eq!(Meter::new(100).disk_bytes(), 100);
    }
}
