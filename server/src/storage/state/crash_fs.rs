//! A file system in memory that forgets what was not synced, for tests.
//!
//! It keeps a journal of every change. [`CrashFs::cuts`] replays it and stops before each change, as if
//! power were lost there: what was synced is kept, and of the rest each sector, length and name
//! survives or not by the [`Survivors`] asked for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::fs::{File, FileSystem, OpenMode, Space};

const SECTOR_BYTES: usize = 512;

/// Which unsynced changes survive a crash.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) enum Survivors {
    None,
    All,
    /// Each sector, length and suffix of names by a coin.
    Some(u64),
}

/// What a call that fails on purpose answers.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Failure {
    /// The call, counted from 0.
    pub(in crate::storage) call: u64,
    pub(in crate::storage) kind: io::ErrorKind,
    /// Whether later writes fail too, as on a full disk.
    pub(in crate::storage) lasts: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Create { path: PathBuf, node: usize },
    Write { node: usize, offset: u64, data: Vec<u8> },
    SetLen { node: usize, len: u64 },
    Sync { node: usize },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    SyncDir,
    Mark(u64),
}

#[derive(Clone, Default)]
struct Node {
    data: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Default)]
struct Disk {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<Change>,
    mark: u64,
}

#[derive(Default)]
struct Inner {
    disk: Disk,
    journal: Vec<Change>,
    calls: u64,
    failure: Option<Failure>,
    failed: bool,
}

/// The file system; one folder level is enough.
#[derive(Default)]
pub(in crate::storage) struct CrashFs {
    inner: Mutex<Inner>,
}

struct Handle {
    fs: Arc<CrashFs>,
    node: usize,
}

/// A file system is shared by its handles, so the trait is on the shared pointer's newtype.
pub(in crate::storage) struct SharedCrashFs(pub(in crate::storage) Arc<CrashFs>);

impl CrashFs {
    pub(in crate::storage) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(in crate::storage) fn shared(self: &Arc<Self>) -> Arc<dyn FileSystem> {
        Arc::new(SharedCrashFs(self.clone()))
    }

    pub(in crate::storage) fn fail(&self, failure: Option<Failure>) {
        self.inner.lock().failure = failure;
    }

    pub(in crate::storage) fn calls(&self) -> u64 {
        self.inner.lock().calls
    }

    /// Notes in the journal that `mark` was acknowledged.
    pub(in crate::storage) fn mark(&self, mark: u64) {
        self.inner.lock().change(Change::Mark(mark));
    }

    /// A digest of every change so far.
    pub(in crate::storage) fn digest(&self) -> u32 {
        let inner = self.inner.lock();
        inner.journal.iter().fold(0, |digest, change| {
            crc32c::crc32c_append(digest, format!("{change:?}").as_bytes())
        })
    }

    pub(in crate::storage) fn file(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        inner.disk.names.get(path).map(|&node| inner.disk.nodes[node].data.clone())
    }

    pub(in crate::storage) fn put_file(&self, path: &Path, data: Vec<u8>) {
        let mut inner = self.inner.lock();
        let node = inner.disk.nodes.len();
        inner.disk.nodes.push(Node { data: data.clone(), durable: data, unsynced: Vec::new() });
        inner.disk.names.insert(path.to_owned(), node);
        inner.disk.durable_names.insert(path.to_owned(), node);
    }

    /// Calls `visit` with what a crash before each change leaves, and the last mark before it.
    pub(in crate::storage) fn cuts(
        &self,
        survivors: impl Fn(u64) -> Survivors,
        mut visit: impl FnMut(u64, u64, &Arc<CrashFs>),
    ) {
        let journal = std::mem::take(&mut self.inner.lock().journal);
        let mut disk = Disk::default();
        for (cut, change) in (0..).zip(&journal) {
            if !matches!(change, Change::Mark(_)) {
                visit(cut, disk.mark, &disk.clone().crash(survivors(cut)));
            }
            disk.apply(change.clone());
        }
        visit(journal.len() as u64, disk.mark, &disk.crash(Survivors::None));
    }
}

impl Inner {
    /// Counts a call; fails it if it is the one.
    fn call(&mut self, writes: bool) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.failure {
            Some(failure) if call == failure.call || (self.failed && failure.lasts && writes) => {
                // A disk that is full still reads and syncs.
                if failure.lasts && !writes {
                    self.failure = Some(Failure { call: call + 1, ..failure });
                    return Ok(());
                }
                self.failed = true;
                Err(failure.kind.into())
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        self.journal.push(change.clone());
        self.disk.apply(change);
    }
}

impl Disk {
    fn apply(&mut self, change: Change) {
        match &change {
            Change::Create { path, node } => {
                if self.nodes.len() <= *node {
                    self.nodes.resize(node + 1, Node::default());
                }
                self.names.insert(path.clone(), *node);
                self.unsynced_names.push(change);
            }
            Change::Write { node, .. } | Change::SetLen { node, .. } => {
                let node = &mut self.nodes[*node];
                alter(&mut node.data, &change);
                node.unsynced.push(change);
            }
            Change::Sync { node } => {
                let node = &mut self.nodes[*node];
                node.durable.clone_from(&node.data);
                node.unsynced.clear();
            }
            Change::Rename { .. } | Change::Remove { .. } => {
                rename(&mut self.names, &change);
                self.unsynced_names.push(change);
            }
            Change::SyncDir => {
                self.durable_names.clone_from(&self.names);
                self.unsynced_names.clear();
            }
            Change::Mark(mark) => self.mark = *mark,
        }
    }

    fn crash(mut self, survivors: Survivors) -> Arc<CrashFs> {
        let mut coin = Coin(survivors);
        for node in &mut self.nodes {
            for change in std::mem::take(&mut node.unsynced) {
                for part in sectors(change) {
                    if coin.toss() {
                        alter(&mut node.durable, &part);
                    }
                }
            }
            node.data.clone_from(&node.durable);
        }
        for change in std::mem::take(&mut self.unsynced_names) {
            // Names reach the disk in order, so the first that is lost loses the rest.
            if !coin.toss() {
                break;
            }
            rename(&mut self.durable_names, &change);
        }
        self.names.clone_from(&self.durable_names);
        self.mark = 0;
        Arc::new(CrashFs { inner: Mutex::new(Inner { disk: self, ..Inner::default() }) })
    }
}

struct Coin(Survivors);

impl Coin {
    fn toss(&mut self) -> bool {
        match &mut self.0 {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Some(state) => {
                *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (*state >> 40) & 1 == 1
            }
        }
    }
}

fn sectors(change: Change) -> Vec<Change> {
    let Change::Write { node, offset, data } = change else { return vec![change] };
    let mut parts = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let room = SECTOR_BYTES - (offset as usize + at) % SECTOR_BYTES;
        let end = (at + room).min(data.len());
        let part = data[at..end].to_vec();
        parts.push(Change::Write { node, offset: offset + at as u64, data: part });
        at = end;
    }
    parts
}

fn alter(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data: written, .. } => {
            let start = *offset as usize;
            if data.len() < start + written.len() {
                data.resize(start + written.len(), 0);
            }
            data[start..start + written.len()].copy_from_slice(written);
        }
        Change::SetLen { len, .. } => data.resize(*len as usize, 0),
        _ => unreachable!("only data is altered"),
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    match change {
        Change::Create { path, node } => {
            names.insert(path.clone(), *node);
        }
        Change::Rename { from, to } => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Change::Remove { path } => {
            names.remove(path);
        }
        _ => unreachable!("only names are changed"),
    }
}

impl FileSystem for SharedCrashFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut inner = self.0.inner.lock();
        inner.call(mode != OpenMode::Existing)?;
        let known = inner.disk.names.get(path).copied();
        let node = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(node), _) => node,
            (None, _) => {
                let node = inner.disk.nodes.len();
                inner.change(Change::Create { path: path.to_owned(), node });
                node
            }
        };
        Ok(Box::new(Handle { fs: self.0.clone(), node }))
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        inner.call(true)?;
        if !inner.disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        inner.call(false)?;
        if !inner.disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Remove { path: path.to_owned() });
        Ok(())
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut inner = self.0.inner.lock();
        inner.call(false)?;
        let inside = inner.disk.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| name.file_name().map(PathBuf::from)).collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        inner.call(false)?;
        inner.change(Change::SyncDir);
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut inner = self.0.inner.lock();
        inner.call(false)?;
        Ok(inner.disk.names.contains_key(path))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        self.0.inner.lock().call(false)?;
        Ok(Space { free_bytes: 1 << 40, total_bytes: 1 << 40 })
    }
}

impl File for Handle {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut inner = self.fs.inner.lock();
        inner.call(false)?;
        let data = &inner.disk.nodes[self.node].data;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let wanted = start.checked_add(buffer.len()).and_then(|end| data.get(start..end));
        buffer.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.fs.inner.lock();
        inner.call(true)?;
        inner.change(Change::Write { node: self.node, offset, data: data.to_vec() });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.fs.inner.lock();
        inner.call(false)?;
        inner.change(Change::Sync { node: self.node });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.fs.inner.lock();
        inner.call(true)?;
        inner.change(Change::SetLen { node: self.node, len });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut inner = self.fs.inner.lock();
        inner.call(false)?;
        Ok(inner.disk.nodes[self.node].data.len() as u64)
    }
}
