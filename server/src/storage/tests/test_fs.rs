//! A file system in memory that crashes and fails on demand, for the tests of this room.
//!
//! It keeps two worlds: what a process sees, and what is on disk. A crash keeps of each sector that was
//! not synced any state that it had since, of each length either of its two, and of the names in each
//! folder any state that they had since its sync.
//!
//! One that records keeps a journal of every change too: [`TestFs::cuts`] goes through it and stops before
//! each, as if power were lost there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::data_dir::parent;
use crate::storage::fs::{File, FileSystem, OpenMode, SharedFs, Space};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(crate) struct TestFs(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    disk: Disk,
    locked: BTreeSet<PathBuf>,
    /// The disk when recording began, and what was done to it since.
    recorded: Option<(Disk, Vec<Change>)>,
    /// Calls of any kind, so far.
    calls: u64,
    /// Calls that change or sync something, so far.
    changes: u64,
    /// The change that fails, and whether the process then is gone: all later ones fail too.
    fault: Option<(u64, bool)>,
    failure: Option<Failure>,
    has_failed: bool,
    /// What it says is free below each folder, where not plenty; nothing else changes.
    free_bytes: BTreeMap<PathBuf, u64>,
    /// What it says it has in all, if not plenty.
    total_bytes: Option<u64>,
    /// A folder that cannot be synced.
    unsyncable: Option<(PathBuf, io::ErrorKind)>,
    /// How many files and folders can still be opened, if not any number.
    files_left: Option<u64>,
}

/// A call that fails on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// The call, counted from 0.
    pub(crate) call: u64,
    pub(crate) kind: io::ErrorKind,
    /// Whether later writes fail too, as on a full disk, which still reads and syncs.
    pub(crate) lasts: bool,
}

/// Which unsynced changes survive a crash.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Survivors {
    None,
    All,
    /// By a coin with this seed.
    Some(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf),
    Write { id: usize, at: usize, data: Vec<u8> },
    SetLen { id: usize, len: usize },
    Sync { id: usize },
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
    SyncDir(PathBuf),
    Folders(PathBuf),
    Mark(u64),
}

#[derive(Clone, Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// What happened to names since their folder was synced, in order.
    pending_names: Vec<Naming>,
    folders: BTreeSet<PathBuf>,
    mark: u64,
}

/// What names became by one change, all at once.
type Naming = Vec<(PathBuf, Option<usize>)>;

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order: data, or that from there on all became zero.
    pending: Vec<(usize, Option<Vec<u8>>)>,
}

impl TestFs {
    /// One with a folder, that records.
    pub(crate) fn recording(folder: &str) -> Self {
        let fs = Self::default();
        let mut inner = fs.0.lock();
        inner.disk.apply(&Change::Folders(folder.into()));
        inner.recorded = Some((inner.disk.clone(), Vec::new()));
        drop(inner);
        fs
    }

    fn of(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(Inner { disk, ..Inner::default() })))
    }

    pub(crate) fn shared(&self) -> SharedFs {
        Arc::new(self.clone())
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    pub(crate) fn fail_at(&self, at_change: u64, is_crash: bool) {
        self.0.lock().fault = Some((at_change, is_crash));
    }

    pub(crate) fn fail(&self, failure: Failure) {
        self.0.lock().failure = Some(failure);
    }

    pub(crate) fn heal(&self) {
        let mut inner = self.0.lock();
        (inner.fault, inner.failure, inner.has_failed) = (None, None, false);
    }

    pub(crate) fn say_free(&self, bytes: u64) {
        self.say_free_below(Path::new(""), bytes);
    }

    pub(crate) fn say_free_below(&self, folder: &Path, bytes: u64) {
        self.0.lock().free_bytes.insert(folder.to_owned(), bytes);
    }

    pub(crate) fn say_total(&self, bytes: u64) {
        self.0.lock().total_bytes = Some(bytes);
    }

    pub(crate) fn refuse_to_sync(&self, folder: &Path, kind: io::ErrorKind) {
        self.0.lock().unsyncable = Some((folder.to_owned(), kind));
    }

    /// Lets so many more files and folders be opened; `None` any number.
    pub(crate) fn leave_files(&self, files_left: Option<u64>) {
        self.0.lock().files_left = files_left;
    }

    pub(crate) fn file(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.0.lock();
        inner.disk.names.get(path).map(|&id| inner.disk.files[id].now.clone())
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.file(path).unwrap()
    }

    /// Replaces a file, durably.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.0.lock();
        let disk = &mut inner.disk;
        let content = Content { now: bytes.to_vec(), durable: bytes.to_vec(), pending: vec![] };
        disk.files.push(content);
        let id = disk.files.len() - 1;
        disk.names.insert(path.to_owned(), id);
        disk.durable_names.insert(path.to_owned(), id);
        disk.folders.extend(path.ancestors().skip(1).map(Path::to_owned));
    }

    pub(crate) fn copy(&self) -> Self {
        Self::of(self.0.lock().disk.clone())
    }

    /// Gives its memory back, for one that nobody will use or drop.
    pub(crate) fn wipe(&self) {
        *self.0.lock() = Inner::default();
    }

    /// The disk after a power cut; `choose(n)` picks one of `0..n`, of which 0 loses most.
    pub(crate) fn after_crash(&self, choose: impl FnMut(usize) -> usize) -> Self {
        Self::of(self.0.lock().disk.clone().crash(choose))
    }

    /// Notes in the journal that `mark` was acknowledged.
    pub(crate) fn mark(&self, mark: u64) {
        self.0.lock().record(Change::Mark(mark));
    }

    /// A digest of every change so far.
    pub(crate) fn digest(&self) -> u32 {
        let inner = self.0.lock();
        let (_, journal) = inner.recorded.as_ref().unwrap();
        journal.iter().fold(0, |digest, change| {
            crc32c::crc32c_append(digest, format!("{change:?}").as_bytes())
        })
    }

    /// Calls `visit` with what a crash before each change leaves, and the last mark before it.
    pub(crate) fn cuts(
        &self,
        survivors: impl Fn(u64) -> Survivors,
        mut visit: impl FnMut(u64, u64, &TestFs),
    ) {
        let (mut disk, journal) = self.0.lock().recorded.take().unwrap();
        for (cut, change) in (0..).zip(&journal) {
            if !matches!(change, Change::Mark(_)) {
                visit(cut, disk.mark, &Self::of(disk.clone().crash(survivors(cut).choose())));
            }
            disk.apply(change);
        }
        let left = disk.clone().crash(Survivors::None.choose());
        visit(journal.len() as u64, disk.mark, &Self::of(left));
    }
}

impl Survivors {
    fn choose(self) -> impl FnMut(usize) -> usize {
        let mut state = if let Self::Some(seed) = self { seed } else { 0 };
        move |n| match self {
            Self::None => 0,
            Self::All => n - 1,
            Self::Some(_) => {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % n
            }
        }
    }
}

impl Inner {
    /// Counts a call, and fails it if it is the one.
    fn call(&mut self, writes: bool) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        let Some(failure) = self.failure else { return Ok(()) };
        if call != failure.call && !(self.has_failed && failure.lasts && writes) {
            return Ok(());
        }
        if failure.lasts && !writes {
            self.failure = Some(Failure { call: call + 1, ..failure });
            return Ok(());
        }
        self.has_failed = true;
        Err(failure.kind.into())
    }

    /// Opens a file or a folder, if one more can be opened.
    fn open(&mut self) -> io::Result<()> {
        match &mut self.files_left {
            Some(0) => Err(rustix::io::Errno::MFILE.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a change, and fails it if it is the one.
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.fault {
            Some((at, is_crash)) if self.changes == at || is_crash && self.changes > at => {
                Err(io::Error::other("injected"))
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, change: Change) {
        self.disk.apply(&change);
        if let Some((_, journal)) = &mut self.recorded {
            journal.push(change);
        }
    }
}

impl Disk {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path) => {
                self.files.push(Content::default());
                self.rename(vec![(path.clone(), Some(self.files.len() - 1))]);
            }
            Change::Write { id, at, data } => self.files[*id].write(*at, data),
            Change::SetLen { id, len } => self.files[*id].set_len(*len),
            Change::Sync { id } => {
                let content = &mut self.files[*id];
                content.durable.clone_from(&content.now);
                content.pending.clear();
            }
            Change::Rename { from, to } => {
                self.rename(vec![(from.clone(), None), (to.clone(), Some(self.names[from]))]);
            }
            Change::Remove(path) => self.rename(vec![(path.clone(), None)]),
            Change::SyncDir(folder) => {
                let inside = |naming: &mut Naming| parent(&naming[0].0) == folder;
                for naming in self.pending_names.extract_if(.., inside) {
                    set(&mut self.durable_names, &naming);
                }
            }
            Change::Folders(path) => {
                self.folders.extend(path.ancestors().map(Path::to_owned));
            }
            Change::Mark(mark) => self.mark = *mark,
        }
    }

    fn rename(&mut self, naming: Naming) {
        set(&mut self.names, &naming);
        self.pending_names.push(naming);
    }

    fn crash(mut self, mut choose: impl FnMut(usize) -> usize) -> Self {
        for content in &mut self.files {
            *content = content.survivor(&mut choose);
        }
        for folder in &self.folders {
            let inside: Vec<_> =
                self.pending_names.iter().filter(|naming| parent(&naming[0].0) == folder).collect();
            // Names reach the disk in order.
            let kept = choose(inside.len() + 1);
            for naming in &inside[..kept] {
                set(&mut self.durable_names, naming);
            }
        }
        let names = self.durable_names.clone();
        Self { names, pending_names: Vec::new(), mark: 0, ..self }
    }
}

fn set(names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
    for (name, id) in naming {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

impl Content {
    fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        self.now.resize(self.now.len().max(end), 0);
        self.now[at..end].copy_from_slice(data);
        self.pending.push((at, Some(data.to_vec())));
    }

    fn set_len(&mut self, len: usize) {
        if len < self.now.len() {
            self.pending.push((len, None));
        }
        self.now.resize(len, 0);
    }

    fn survivor(&self, choose: &mut impl FnMut(usize) -> usize) -> Self {
        let mut bytes = self.durable.clone();
        if self.now.len() != bytes.len() && choose(2) == 1 {
            bytes.resize(self.now.len(), 0);
        }
        let first = self.pending.iter().map(|(at, _)| *at).min().unwrap_or(bytes.len());
        let first = first / SECTOR_BYTES * SECTOR_BYTES;
        for sector in (first..bytes.len()).step_by(SECTOR_BYTES) {
            let end = (sector + SECTOR_BYTES).min(bytes.len());
            let reaches = |at: usize, data: &Option<Vec<u8>>| {
                data.as_ref().map_or(usize::MAX, |data| at + data.len())
            };
            let touches = |(at, data): &&(usize, _)| *at < end && reaches(*at, data) > sector;
            let pending: Vec<_> = self.pending.iter().filter(touches).collect();
            let kept = choose(pending.len() + 1);
            for (at, data) in &pending[..kept] {
                let (from, to) = (sector.max(*at), end.min(reaches(*at, data)));
                match data {
                    Some(data) => bytes[from..to].copy_from_slice(&data[from - at..to - at]),
                    None => bytes[from..to].fill(0),
                }
            }
        }
        Self { now: bytes.clone(), durable: bytes, pending: vec![] }
    }
}

impl FileSystem for TestFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut inner = self.0.lock();
        inner.call(mode != OpenMode::Existing)?;
        inner.open()?;
        let known = inner.disk.names.get(path).copied();
        let id = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) => id,
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                inner.change()?;
                assert!(inner.disk.folders.contains(parent(path)), "{}", path.display());
                inner.record(Change::Create(path.to_owned()));
                inner.disk.files.len() - 1
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
        let mut inner = self.0.lock();
        inner.call(true)?;
        inner.change()?;
        if !inner.disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.record(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.call(false)?;
        inner.change()?;
        if !inner.disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.record(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.call(true)?;
        inner.change()?;
        if path.ancestors().any(|path| inner.disk.names.contains_key(path)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        inner.record(Change::Folders(path.to_owned()));
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut inner = self.0.lock();
        inner.call(false)?;
        inner.open()?;
        let disk = &inner.disk;
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
        let mut inner = self.0.lock();
        inner.call(false)?;
        inner.open()?;
        inner.change()?;
        if let Some((_, kind)) = inner.unsyncable.as_ref().filter(|(folder, _)| folder == path) {
            return Err((*kind).into());
        }
        inner.record(Change::SyncDir(path.to_owned()));
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut inner = self.0.lock();
        inner.call(false)?;
        Ok(inner.disk.names.contains_key(path) || inner.disk.folders.contains(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut inner = self.0.lock();
        inner.call(false)?;
        let said = inner.free_bytes.iter().rfind(|(folder, _)| path.starts_with(folder));
        let free_bytes = said.map_or(1 << 40, |(_, bytes)| *bytes);
        Ok(Space { free_bytes, total_bytes: inner.total_bytes.unwrap_or(1 << 40) })
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
        let mut inner = self.fs.0.lock();
        inner.call(false)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(buffer.len());
        let bytes = end.and_then(|end| inner.disk.files[self.id].now.get(from..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.fs.0.lock();
        inner.call(true)?;
        let result = inner.change();
        // Also of a write that fails any part may reach the disk.
        let at = usize::try_from(offset).unwrap();
        inner.record(Change::Write { id: self.id, at, data: data.to_vec() });
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.fs.0.lock();
        inner.call(false)?;
        let result = inner.change();
        if result.is_ok() {
            inner.record(Change::Sync { id: self.id });
        }
        // After a failed sync the cache calls pages clean that never reached the disk.
        inner.disk.files[self.id].pending.clear();
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.fs.0.lock();
        inner.call(true)?;
        inner.change()?;
        inner.record(Change::SetLen { id: self.id, len: usize::try_from(len).unwrap() });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut inner = self.fs.0.lock();
        inner.call(false)?;
        Ok(inner.disk.files[self.id].now.len() as u64)
    }
}
