//! The file system of the operating system.
//!
//! Folders are created for the owner only (0700), files too (0600). A lock is `flock`'s: it belongs
//! to the open file, so it ends with the process however that ends.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::fs::{File, FileSystem, OpenMode, Space};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

/// Whether anyone but the owner may read, write or enter `path`.
///
/// A data dir holds every secret of the cluster.
///
/// # Errors
/// If `path` cannot be looked at; there is nothing to warn about then.
pub fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & OTHERS != 0)
}

impl FileSystem for OsFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        match mode {
            OpenMode::Existing => {}
            OpenMode::Create => {
                options.create(true).truncate(false);
            }
            OpenMode::CreateNew => {
                options.create_new(true);
            }
        }
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(or_here(path))?
            .map(|entry| Ok(PathBuf::from(entry?.file_name())))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(or_here(path))?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(or_here(path))?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

/// The parent of a bare name is the empty path, which the system does not know.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_created_is_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        OsFs.create_dir_all(&folder).unwrap();
        OsFs.open(&folder.join("file"), OpenMode::CreateNew).unwrap();
        for path in [dir.path().join("a"), folder.clone(), folder.join("file")] {
            assert!(!is_open_to_others(&path).unwrap(), "{}", path.display());
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(is_open_to_others(&folder).unwrap());
    }

    #[test]
    fn a_lock_is_exclusive_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = OsFs.lock(&path).unwrap();
        let refused = OsFs.lock(&path).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        OsFs.lock(&path).unwrap();
    }

    #[test]
    fn files_grow_by_writes_and_refuse_reads_beyond_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(
            OsFs.open(&path, OpenMode::Existing).map(|_| ()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let file = OsFs.open(&path, OpenMode::Create).unwrap();
        assert_eq!(
            OsFs.open(&path, OpenMode::CreateNew).map(|_| ()).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        file.write_at(3, b"abc").unwrap();
        file.sync_data().unwrap();
        let mut buffer = [9; 6];
        file.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0\0\0abc");
        assert_eq!(file.read_at(1, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(2).unwrap();
        assert_eq!(file.len().unwrap(), 2);
        OsFs.sync_dir(dir.path()).unwrap();
        assert_eq!(OsFs.read_dir(dir.path()).unwrap(), [PathBuf::from("file")]);
        let space = OsFs.space(dir.path()).unwrap();
        assert!(0 < space.free_bytes && space.free_bytes <= space.total_bytes);
    }
}
