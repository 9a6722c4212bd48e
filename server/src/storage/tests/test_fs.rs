//! A file system in memory that crashes and fails on demand, for the tests of this room.
//!
//! It keeps two worlds: what a process sees, and what is on disk. A crash keeps of each sector that was
//! not synced any state that it had since, and of each folder that was not synced either of its two.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::fs::{File, FileSystem, OpenMode, SharedFs, Space};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(crate) struct TestFs(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    /// Calls that change or sync something, so far.
    changes: u64,
    /// The change that fails, and whether the process then is gone: all later ones fail too.
    fault: Option<Fault>,
    /// What it says is free, if not plenty; nothing else changes.
    free_bytes: Option<u64>,
}

#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) at_change: u64,
    pub(crate) is_crash: bool,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

impl TestFs {
    pub(crate) fn shared(&self) -> SharedFs {
        Arc::new(self.clone())
    }

    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    pub(crate) fn fail_at(&self, at_change: u64, is_crash: bool) {
        self.0.lock().fault = Some(Fault { at_change, is_crash });
    }

    pub(crate) fn say_free(&self, bytes: u64) {
        self.0.lock().free_bytes = Some(bytes);
    }

    pub(crate) fn heal(&self) {
        self.0.lock().fault = None;
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let disk = self.0.lock();
        disk.files[disk.names[path]].now.clone()
    }

    /// Replaces a file, durably.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.0.lock();
        let content = Content { now: bytes.to_vec(), durable: bytes.to_vec(), pending: vec![] };
        disk.files.push(content);
        let id = disk.files.len() - 1;
        disk.names.insert(path.to_owned(), id);
        disk.durable_names.insert(path.to_owned(), id);
        disk.folders.extend(path.ancestors().skip(1).map(Path::to_owned));
    }

    pub(crate) fn copy(&self) -> Self {
        let disk = self.0.lock();
        Self(Arc::new(Mutex::new(Disk {
            files: disk.files.clone(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            folders: disk.folders.clone(),
            ..Disk::default()
        })))
    }

    /// The disk after a power cut; `choose(n)` picks one of `0..n`.
    pub(crate) fn after_crash(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let disk = self.0.lock();
        let files: Vec<_> =
            disk.files.iter().map(|content| survivor(content, &mut choose)).collect();
        let mut names = BTreeMap::new();
        let all = disk.folders.iter().cloned();
        for folder in all {
            let source = if choose(2) == 0 { &disk.durable_names } else { &disk.names };
            let inside = source.iter().filter(|(path, _)| path.parent() == Some(&folder));
            names.extend(inside.map(|(path, id)| (path.clone(), *id)));
        }
        Self(Arc::new(Mutex::new(Disk {
            files,
            durable_names: names.clone(),
            names,
            folders: disk.folders.clone(),
            ..Disk::default()
        })))
    }
}

fn survivor(content: &Content, choose: &mut impl FnMut(usize) -> usize) -> Content {
    let mut bytes = content.durable.clone();
    if !content.pending.is_empty() && choose(2) == 1 && content.now.len() > bytes.len() {
        bytes.resize(content.now.len(), 0);
    }
    for sector in (0..bytes.len()).step_by(SECTOR_BYTES) {
        let end = (sector + SECTOR_BYTES).min(bytes.len());
        let touches = |(at, data): &&(usize, Vec<u8>)| *at < end && at + data.len() > sector;
        let writes: Vec<_> = content.pending.iter().filter(touches).collect();
        let kept = choose(writes.len() + 1);
        for (at, data) in &writes[..kept] {
            let (from, to) = (sector.max(*at), end.min(at + data.len()));
            bytes[from..to].copy_from_slice(&data[from - at..to - at]);
        }
    }
    Content { now: bytes.clone(), durable: bytes, pending: vec![] }
}

impl Disk {
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.fault {
            Some(fault)
                if self.changes == fault.at_change
                    || fault.is_crash && self.changes > fault.at_change =>
            {
                Err(io::Error::other("injected"))
            }
            _ => Ok(()),
        }
    }
}

impl FileSystem for TestFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut disk = self.0.lock();
        let known = disk.names.get(path).copied();
        let id = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) => id,
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                disk.change()?;
                assert!(disk.folders.contains(path.parent().unwrap()), "{}", path.display());
                disk.files.push(Content::default());
                let id = disk.files.len() - 1;
                disk.names.insert(path.to_owned(), id);
                id
            }
        };
        Ok(Box::new(TestFile { fs: self.clone(), id }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.open(path, OpenMode::Create)?;
        if !self.0.lock().locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(TestLock { fs: self.clone(), path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.change()?;
        let id = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.change()?;
        disk.names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.change()?;
        if path.ancestors().any(|path| disk.names.contains_key(path)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        disk.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.0.lock();
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !disk.folders.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = disk.names.keys().chain(&disk.folders);
        let mut names: Vec<PathBuf> = all
            .filter(|name| name.parent() == Some(path))
            .map(|name| name.file_name().unwrap().into())
            .collect();
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.change()?;
        let Disk { names, durable_names, .. } = &mut *disk;
        durable_names.retain(|name, _| name.parent() != Some(path));
        let inside = names.iter().filter(|(name, _)| name.parent() == Some(path));
        durable_names.extend(inside.map(|(name, id)| (name.clone(), *id)));
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.0.lock();
        Ok(disk.names.contains_key(path) || disk.folders.contains(path))
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let free_bytes = self.0.lock().free_bytes.unwrap_or(1 << 40);
        Ok(Space { free_bytes, total_bytes: 1 << 40 })
    }
}

struct TestLock {
    fs: TestFs,
    path: PathBuf,
}

impl Drop for TestLock {
    fn drop(&mut self) {
        self.fs.0.lock().locked.remove(&self.path);
    }
}

struct TestFile {
    fs: TestFs,
    id: usize,
}

impl File for TestFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let disk = self.fs.0.lock();
        let from = usize::try_from(offset).unwrap();
        let bytes = disk.files[self.id].now.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.fs.0.lock();
        let result = disk.change();
        let content = &mut disk.files[self.id];
        let at = usize::try_from(offset).unwrap();
        let end = at + data.len();
        content.now.resize(content.now.len().max(end), 0);
        content.now[at..end].copy_from_slice(data);
        content.pending.push((at, data.to_vec()));
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.fs.0.lock();
        let result = disk.change();
        let content = &mut disk.files[self.id];
        if result.is_ok() {
            content.durable = content.now.clone();
        }
        // After a failed sync the cache calls pages clean that never reached the disk.
        content.pending.clear();
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.0.lock();
        disk.change()?;
        let content = &mut disk.files[self.id];
        content.now.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.fs.0.lock().files[self.id].now.len() as u64)
    }
}
