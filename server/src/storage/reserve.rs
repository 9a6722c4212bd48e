//! Space set aside for the day the disk is full.
//!
//! A member whose disk is full cannot even start: recovery writes before it reads. So a file is kept, as
//! large as what a start writes: a copy of the last segment of the log, and what the log holds that is not
//! flushed, 96 MiB in all. It is given up when the disk is full, the member starts again, serves reads,
//! compacts and deletes, and sets the space aside once more when there is plenty.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::{OpenMode, SharedFs};

/// What a start writes beside a copy of the last segment, bytes: what was not flushed when the disk was full,
/// or the next segment of the log.
pub const BESIDE_LOG_BYTES: u64 = 32 << 20;
/// The file is made anew only when this many times its size is free, so that it is not the one that
/// fills the disk.
const FREE_FACTOR: u64 = 3;
const CHUNK_BYTES: usize = 256 << 10;

/// The room without which a member on a full disk does not start, in bytes: a copy of a segment, and
/// `beside_bytes`. One request that is longer than a segment makes its segment as long.
pub fn bytes_for_start(segment_bytes: u64, request_bytes_max: usize, beside_bytes: u64) -> u64 {
    let request_bytes_max = u64::try_from(request_bytes_max).unwrap_or(u64::MAX);
    segment_bytes.max(request_bytes_max).saturating_add(beside_bytes)
}

/// A file whose only content is the space that it takes.
pub struct Reserve {
    fs: SharedFs,
    path: PathBuf,
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    /// Looks whether the file is there, as a whole. Call [`Reserve::restore`] then, off the hot path.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn open(fs: SharedFs, path: &Path, bytes: u64) -> io::Result<Self> {
        let mut reserve = Self { fs, path: path.to_owned(), bytes, is_held: false };
        reserve.is_held = reserve.held_bytes()? >= bytes;
        Ok(reserve)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the space is set aside.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Gives the space up; returns whether there was any, be it that of a file that was not finished.
    ///
    /// # Errors
    /// If the disk refuses; the space may be free or not.
    pub fn release(&mut self) -> io::Result<bool> {
        self.is_held = false;
        Self::give_up(&self.fs, &self.path)
    }

    /// Removes the file of a member that does not run; returns whether there was one.
    ///
    /// # Errors
    /// As [`Reserve::release`].
    pub fn give_up(fs: &SharedFs, path: &Path) -> io::Result<bool> {
        match fs.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result?,
        }
        fs.sync_dir(super::data_dir::parent(path))?;
        Ok(true)
    }

    /// Sets the space aside if it is not and there is plenty; returns whether it is set aside now.
    ///
    /// # Errors
    /// If the disk refuses; nothing is held then.
    pub fn restore(&mut self) -> io::Result<bool> {
        if self.is_held {
            return Ok(true);
        }
        let folder = super::data_dir::parent(&self.path);
        let space = self.fs.space(folder)?;
        // A smaller one, as of another version, is given up for it.
        let free_bytes = space.free_bytes.saturating_add(self.held_bytes()?);
        let left_bytes = free_bytes.saturating_sub(self.bytes);
        let would_make_it_low = !space.is_low() && left_bytes < space.low_bytes();
        if free_bytes < self.bytes.saturating_mul(FREE_FACTOR) || would_make_it_low {
            return Ok(false);
        }
        if let Err(error) = self.fill() {
            // What was written is of no use; the error that matters is the first.
            let _ = self.fs.remove_file(&self.path);
            return Err(error);
        }
        self.is_held = true;
        Ok(true)
    }

    /// The length of the file, if there is one.
    fn held_bytes(&self) -> io::Result<u64> {
        match self.fs.open(&self.path, OpenMode::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            file => file?.len(),
        }
    }

    fn fill(&self) -> io::Result<()> {
        let file = self.fs.open(&self.path, OpenMode::Create)?;
        file.set_len(0)?;
        let chunk = incompressible();
        let mut offset = 0;
        while offset < self.bytes {
            let step = (self.bytes - offset).min(CHUNK_BYTES as u64);
            let chunk = &chunk[..usize::try_from(step).expect("at most CHUNK_BYTES")];
            file.write_at(offset, chunk)?;
            offset += step;
        }
        file.sync_data()?;
        self.fs.sync_dir(super::data_dir::parent(&self.path))
    }
}

/// Bytes that a file system which compresses cannot make smaller (xorshift64).
fn incompressible() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    while bytes.len() < CHUNK_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::consensus::{Entry, EntryKind};
    use crate::storage::os_fs::OsFs;
    use crate::storage::tests::test_fs::TestFs;
    use crate::storage::wal::{Metadata, Wal, WalOptions};

    #[test]
    fn space_is_held_given_up_and_held_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let mut reserve = Reserve::open(Arc::new(OsFs), &path, 1 << 20).unwrap();
        assert!(!reserve.is_held());
        assert!(reserve.restore().unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        assert!(Reserve::open(Arc::new(OsFs), &path, 1 << 20).unwrap().is_held());
        assert!(reserve.release().unwrap());
        assert!(!path.exists());
        assert!(!reserve.release().unwrap());
        assert!(reserve.restore().unwrap());
    }

    #[test]
    fn a_copy_of_the_longest_segment_fits_with_room_for_all_else() {
        const REQUEST_BYTES_MAX: usize = 10_000;
        let segment_max = |requests: u64, bytes: usize| {
            let (fs, dir) = (TestFs::default(), Path::new("/d/wal"));
            let options = WalOptions { segment_bytes: 4096, segments_max: 0 };
            let metadata = Metadata { cluster_id: 1, member_id: 1 };
            let mut wal = Wal::create(fs.shared(), dir, options, metadata, 3).unwrap();
            let data = bytes::Bytes::from(vec![1; bytes]);
            let entry =
                |index| Entry { index, term: 1, kind: EntryKind::Normal, data: data.clone() };
            wal.append(&(1..=requests).map(entry).collect::<Vec<_>>(), None).unwrap();
            let names = fs.shared().read_dir(dir).unwrap();
            let length = names.iter().map(|name| fs.bytes(&dir.join(name)).len() as u64).max();
            (length.unwrap(), wal.segment_bytes())
        };
        for (requests, bytes) in [(1000, 0), (1000, 700), (30, REQUEST_BYTES_MAX)] {
            let (length, segment_bytes) = segment_max(requests, bytes);
            let reserve = bytes_for_start(segment_bytes, REQUEST_BYTES_MAX, 1000);
            assert!(length + 1000 <= reserve + 512, "{requests}: {length}, {reserve}");
        }
        let segment_bytes = WalOptions::default().segment_bytes;
        let usual = bytes_for_start(segment_bytes, 1 << 20, BESIDE_LOG_BYTES);
        assert_eq!((usual, FREE_FACTOR * usual), (96 << 20, 288 << 20), "as the README says");
    }

    #[test]
    fn a_file_that_was_not_finished_does_not_count() {
        let fs = TestFs::default();
        let path = Path::new("/d/reserve");
        fs.put(path, &[1; 100]);
        let mut reserve = Reserve::open(fs.shared(), path, 4096).unwrap();
        assert!(!reserve.is_held());
        fs.fail_at(fs.changes() + 2, false);
        assert!(reserve.restore().is_err());
        assert!(!fs.shared().exists(path).unwrap());
        assert!(reserve.restore().unwrap());
        assert_eq!(fs.bytes(path).len(), 4096);
        fs.put(path, &[1; 100]);
        let mut reserve = Reserve::open(fs.shared(), path, 4096).unwrap();
        assert!(reserve.release().unwrap(), "what it took is free, so a start may be tried again");
    }

    #[test]
    fn a_smaller_one_counts_as_room_and_a_larger_one_is_held() {
        let fs = TestFs::default();
        let path = Path::new("/d/reserve");
        fs.put(path, &[1; 1000]);
        fs.say_total(16_000);
        fs.say_free(5999);
        let mut reserve = Reserve::open(fs.shared(), path, 2000).unwrap();
        assert!(reserve.restore().unwrap());
        assert_eq!(fs.bytes(path).len(), 2000);
        assert!(Reserve::open(fs.shared(), path, 1000).unwrap().is_held());
    }

    #[test]
    fn it_is_not_what_makes_the_disk_low() {
        const MIB: u64 = 1 << 20;
        let fs = TestFs::default();
        let path = Path::new("/d/reserve");
        fs.put(Path::new("/d/other"), b"");
        let restore = |free_bytes| {
            fs.say_free(free_bytes);
            Reserve::open(fs.shared(), path, MIB).unwrap().restore().unwrap()
        };
        // 512 MiB are few.
        assert!(!restore(513 * MIB - 1));
        assert!(restore(513 * MIB));
        fs.shared().remove_file(path).unwrap();
        assert!(restore(400 * MIB), "it is low already");
    }

    #[test]
    fn nothing_is_set_aside_when_space_is_short() {
        let fs = TestFs::default();
        let path = Path::new("/d/reserve");
        fs.put(Path::new("/d/other"), b"");
        let mut reserve = Reserve::open(fs.shared(), path, 1 << 39).unwrap();
        assert!(!reserve.restore().unwrap());
        assert!(!fs.shared().exists(path).unwrap());
    }
}
