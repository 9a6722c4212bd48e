//! The server's two traits over a [`Disk`](super::disk::Disk).

use std::io;
use std::path::{Path, PathBuf};

use quorate_server::storage::fs::{File, FileSystem, OpenMode, Space};

use super::SimFs;
use super::disk::Caller;
use super::names::Inode;

struct SimFile {
    fs: SimFs,
    inode: Inode,
    generation: u64,
}

struct SimLock {
    fs: SimFs,
    lock: u64,
    generation: u64,
}

impl FileSystem for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let (inode, generation) = self.disk.lock().open(path, mode)?;
        Ok(Box::new(SimFile { fs: self.clone(), inode, generation }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let (lock, generation) = self.disk.lock().lock(path)?;
        Ok(Box::new(SimLock { fs: self.clone(), lock, generation }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.lock().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.lock().read_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.lock().exists(path)
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        self.disk.lock().space()
    }
}

impl SimFile {
    fn caller(&self) -> Caller {
        Caller { generation: self.generation, inode: self.inode }
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fs.disk.lock().read_at(self.caller(), offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fs.disk.lock().write_at(self.caller(), offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.disk.lock().sync_data(self.caller())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.disk.lock().set_len(self.caller(), len)
    }

    fn len(&self) -> io::Result<u64> {
        self.fs.disk.lock().len(self.caller())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.fs.disk.lock().close(self.caller());
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.disk.lock().unlock(self.lock, self.generation);
    }
}
