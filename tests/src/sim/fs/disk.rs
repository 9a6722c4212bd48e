//! The state of the simulated disk, and each operation on it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use quorate_server::storage::fs::{OpenMode, Space};

use super::content::{Content, Mood, PAGE_BYTES};
use super::faults::{DiskFault, Faults, OpKind, eio, emfile, enospc, gone};
use super::names::{Change, Inode, Names, Node, ROOT, not_found, parts};
use super::{CrashReport, SECTOR_BYTES};
use crate::sim::rng::Rng;

/// What an endless disk says it holds, in bytes.
const ENDLESS_BYTES: u64 = 1 << 50;

pub(super) struct Disk {
    pub(super) faults: Faults,
    rng: Rng,
    /// Which process runs; what an earlier one opened is dead.
    generation: u64,
    /// A planned crash or kill happened: nothing works until the restart.
    down: bool,
    names: Names,
    files: BTreeMap<Inode, OpenFile>,
    locks: BTreeMap<PathBuf, u64>,
    inode_next: Inode,
    lock_next: u64,
    pages_used: u64,
    pages_max: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct OpenFile {
    /// As it is named now, or was last.
    path: PathBuf,
    content: Content,
    handles: u64,
}

/// Who calls: a handle of a generation.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) generation: u64,
    pub(super) inode: Inode,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            faults: Faults::default(),
            rng: Rng::new(seed),
            generation: 0,
            down: false,
            names: Names::default(),
            files: BTreeMap::new(),
            locks: BTreeMap::new(),
            inode_next: ROOT + 1,
            lock_next: 0,
            pages_used: 0,
            pages_max: None,
        }
    }

    pub(super) fn fork(&self, seed: u64) -> Self {
        let mut fork = Self::new(seed);
        fork.faults = self.faults.clone();
        fork.down = self.down;
        fork.names = self.names.clone();
        fork.files = self.files.clone();
        fork.inode_next = self.inode_next;
        fork.pages_max = self.pages_max;
        fork.files.values_mut().for_each(|file| file.handles = 0);
        fork.collect();
        fork
    }

    // Life and death.

    pub(super) fn crash(&mut self, seed: u64) -> CrashReport {
        let mut rng = Rng::new(seed);
        let mut report = CrashReport::default();
        let mood = Mood::draw(&mut rng);
        report.names_undone = self.names.crash(mood, &mut rng);
        for file in self.files.values_mut().filter(|file| !file.content.is_clean()) {
            let cut = file.content.crash(mood, &mut rng);
            report.sectors_lost += cut.sectors_lost;
            report.sectors_kept += cut.sectors_kept;
            report.files_torn += u64::from(cut.sectors_lost > 0 && cut.sectors_kept > 0);
        }
        self.restart();
        report
    }

    pub(super) fn restart(&mut self) {
        self.generation += 1;
        self.down = false;
        self.locks.clear();
        self.files.values_mut().for_each(|file| file.handles = 0);
        self.collect();
    }

    pub(super) fn sync_all(&mut self) {
        self.names.sync_all();
        self.files.values_mut().for_each(|file| file.content.sync());
        self.collect();
    }

    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    // Space.

    pub(super) fn set_capacity(&mut self, capacity_bytes: Option<u64>) {
        self.pages_max = capacity_bytes.map(|bytes| bytes / PAGE_BYTES);
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.pages_used * PAGE_BYTES
    }

    pub(super) fn space(&mut self) -> io::Result<Space> {
        self.alive(self.generation)?;
        let total_bytes = self.pages_max.map_or(ENDLESS_BYTES, |pages| pages * PAGE_BYTES);
        Ok(Space { free_bytes: total_bytes.saturating_sub(self.used_bytes()), total_bytes })
    }

    /// Frees files that nothing leads to, and counts the space of those that are visible or open.
    fn collect(&mut self) {
        let held = self.names.files();
        self.files.retain(|inode, file| held.contains(inode) || file.handles > 0);
        let visible: std::collections::BTreeSet<Inode> =
            self.names.paths().into_iter().map(|(_, inode)| inode).collect();
        self.pages_used = self
            .files
            .iter()
            .filter(|(inode, file)| visible.contains(inode) || file.handles > 0)
            .map(|(_, file)| file.content.pages())
            .sum();
    }

    // Names.

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<(Inode, u64)> {
        self.alive(self.generation)?;
        let inode = match self.names.find(path) {
            Some(Node::Folder(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) if mode == OpenMode::CreateNew => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Some(Node::File(inode)) => {
                self.meet(OpKind::Open, path, (0, 0))?;
                inode
            }
            None if mode == OpenMode::Existing => return Err(not_found(path)),
            None => self.create(path)?,
        };
        let file = self.file(inode);
        file.handles += 1;
        path.clone_into(&mut file.path);
        Ok((inode, self.generation))
    }

    fn create(&mut self, path: &Path) -> io::Result<Inode> {
        let slot = self.names.slot(path)?;
        let inode = self.inode_next;
        self.change_names(OpKind::Create, path, vec![(slot, Some(Node::File(inode)))])?;
        Ok(inode)
    }

    pub(super) fn close(&mut self, caller: Caller) {
        if caller.generation != self.generation {
            return;
        }
        let Some(file) = self.files.get_mut(&caller.inode) else { return };
        file.handles -= 1;
        if file.handles == 0 && !self.names.names_file(caller.inode) {
            self.collect();
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive(self.generation)?;
        let node = self.names.find(from).ok_or_else(|| not_found(from))?;
        let (from, slot) = (self.names.slot(from)?, self.names.slot(to)?);
        if matches!(self.names.get(&slot), Some(Node::Folder(_))) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a folder is in the way"));
        }
        if from == slot {
            return Ok(());
        }
        self.change_names(OpKind::Rename, to, vec![(from, None), (slot, Some(node))])?;
        if let Node::File(inode) = node {
            to.clone_into(&mut self.file(inode).path);
        }
        self.collect();
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.alive(self.generation)?;
        match self.names.find(path) {
            Some(Node::File(_)) => {}
            Some(Node::Folder(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(not_found(path)),
        }
        let slot = self.names.slot(path)?;
        self.change_names(OpKind::Remove, path, vec![(slot, None)])?;
        self.collect();
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.alive(self.generation)?;
        let mut folder = PathBuf::new();
        for name in parts(path) {
            folder.push(name);
            match self.names.find(&folder) {
                Some(Node::Folder(_)) => continue,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {}
            }
            let slot = self.names.slot(&folder)?;
            let node = Node::Folder(self.inode_next);
            self.change_names(OpKind::CreateDir, &folder, vec![(slot, Some(node))])?;
        }
        Ok(())
    }

    /// One change of names under the faults: it happens, or not, or the machine stops around it.
    fn change_names(&mut self, kind: OpKind, path: &Path, change: Change) -> io::Result<()> {
        let fault = self.faults.meet(kind, path, (0, 0), &mut self.rng);
        if fault.is_none() || (stops(fault) && self.rng.percent(50)) {
            // A file created by the operation that the machine stopped in has no content yet.
            for (_, node) in &change {
                if let Some(Node::File(inode)) = node {
                    self.files.entry(*inode).or_default();
                }
                if let Some(Node::File(inode) | Node::Folder(inode)) = node {
                    self.inode_next = self.inode_next.max(inode + 1);
                }
            }
            self.names.change(change);
        }
        self.fail_by(fault)
    }

    pub(super) fn read_dir(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.alive(self.generation)?;
        match self.names.find(path) {
            Some(Node::Folder(folder)) => Ok(self.names.list(folder)),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found(path)),
        }
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.alive(self.generation)?;
        let Some(Node::Folder(folder)) = self.names.find(path) else {
            return Err(not_found(path));
        };
        let fault = self.faults.meet(OpKind::SyncDir, path, (0, 0), &mut self.rng);
        if fault.is_none() || (stops(fault) && self.rng.percent(50)) {
            self.names.sync(folder);
        }
        self.fail_by(fault)
    }

    pub(super) fn exists(&mut self, path: &Path) -> io::Result<bool> {
        self.alive(self.generation)?;
        Ok(self.names.find(path).is_some())
    }

    pub(super) fn lock(&mut self, path: &Path) -> io::Result<(u64, u64)> {
        let (inode, generation) = self.open(path, OpenMode::Create)?;
        self.close(Caller { generation, inode });
        let key: PathBuf = parts(path).collect();
        if self.locks.contains_key(&key) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "locked by another process"));
        }
        self.lock_next += 1;
        self.locks.insert(key, self.lock_next);
        Ok((self.lock_next, generation))
    }

    pub(super) fn unlock(&mut self, lock: u64, generation: u64) {
        if generation == self.generation {
            self.locks.retain(|_, held| *held != lock);
        }
    }

    // Contents.

    pub(super) fn read_at(
        &mut self,
        caller: Caller,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        self.alive(caller.generation)?;
        let fault = self.meet_at(OpKind::Read, caller, (offset, buffer.len() as u64));
        self.fail_by(fault)?;
        let at = position(offset)?;
        if self.file(caller.inode).content.read(at, buffer) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before"))
    }

    pub(super) fn write_at(&mut self, caller: Caller, offset: u64, data: &[u8]) -> io::Result<()> {
        self.alive(caller.generation)?;
        let span = (offset, data.len() as u64);
        let at = position(offset)?;
        let mut fault = self.meet_at(OpKind::Write, caller, span);
        let missing = self.file(caller.inode).content.pages_missing(at, data.len());
        let free = self.pages_max.map_or(u64::MAX, |max| max.saturating_sub(self.pages_used));
        if fault.is_none() && missing > free {
            fault = Some(DiskFault::NoSpace);
            let path = &self.files[&caller.inode].path;
            self.faults.note(DiskFault::NoSpace, OpKind::Write, path, span);
        }
        let done = match fault {
            None => data.len(),
            Some(DiskFault::NoSpace) if missing > free => {
                self.fitting(caller, at, data.len(), free)
            }
            // The part that was done before it went wrong ends at any sector.
            Some(_) => {
                let end = (at + self.rng.index(data.len() + 1)) / SECTOR_BYTES * SECTOR_BYTES;
                end.saturating_sub(at)
            }
        };
        let done = if stops(fault) && self.rng.percent(50) { data.len() } else { done };
        self.pages_used += self.file(caller.inode).content.pages_missing(at, done);
        self.file(caller.inode).content.write(at, &data[..done]);
        self.fail_by(fault)
    }

    /// How much of a write finds space.
    fn fitting(&mut self, caller: Caller, at: usize, len: usize, free: u64) -> usize {
        let content = &self.file(caller.inode).content;
        let page = PAGE_BYTES as usize;
        let mut end = (at / page + 1) * page;
        let mut fits = 0;
        while end - at < len && content.pages_missing(at, end - at) <= free {
            fits = end - at;
            end += page;
        }
        fits
    }

    pub(super) fn sync_data(&mut self, caller: Caller) -> io::Result<()> {
        self.alive(caller.generation)?;
        let fault = self.meet_at(OpKind::Sync, caller, (0, 0));
        match fault {
            None => self.file(caller.inode).content.sync(),
            Some(fault) if !stops(Some(fault)) => {
                let file = self.files.get_mut(&caller.inode).expect("it has a handle");
                file.content.sync_failing(&mut self.rng);
            }
            Some(_) if self.rng.percent(50) => self.file(caller.inode).content.sync(),
            Some(_) => {}
        }
        self.fail_by(fault)
    }

    pub(super) fn set_len(&mut self, caller: Caller, len: u64) -> io::Result<()> {
        self.alive(caller.generation)?;
        let new_len = position(len)?;
        let fault = self.meet_at(OpKind::SetLen, caller, (len, 0));
        if fault.is_none() || (stops(fault) && self.rng.percent(50)) {
            let before = self.file(caller.inode).content.pages();
            self.file(caller.inode).content.set_len(new_len);
            self.pages_used -= before - self.file(caller.inode).content.pages();
        }
        self.fail_by(fault)
    }

    pub(super) fn len(&mut self, caller: Caller) -> io::Result<u64> {
        self.alive(caller.generation)?;
        Ok(self.file(caller.inode).content.len())
    }

    // Looking and meddling from outside.

    pub(super) fn lengths(&self) -> BTreeMap<PathBuf, u64> {
        let len = |inode: &Inode| self.files.get(inode).map_or(0, |file| file.content.len());
        self.names.paths().into_iter().map(|(path, inode)| (path, len(&inode))).collect()
    }

    pub(super) fn corrupt(&mut self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(Node::File(inode)) = self.names.find(path) else { return Err(not_found(path)) };
        let at = position(offset)?;
        let content = &mut self.file(inode).content;
        if offset + data.len() as u64 > content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.write(at, data);
        content.sync();
        Ok(())
    }

    // Helpers.

    fn alive(&self, generation: u64) -> io::Result<()> {
        if self.down || generation != self.generation { Err(gone()) } else { Ok(()) }
    }

    fn meet(&mut self, kind: OpKind, path: &Path, span: (u64, u64)) -> io::Result<()> {
        let fault = self.faults.meet(kind, path, span, &mut self.rng);
        self.fail_by(fault)
    }

    /// What is wrong with an operation on the content of a file.
    fn meet_at(&mut self, kind: OpKind, caller: Caller, span: (u64, u64)) -> Option<DiskFault> {
        let path = &self.files[&caller.inode].path;
        self.faults.meet(kind, path, span, &mut self.rng)
    }

    fn fail_by(&mut self, fault: Option<DiskFault>) -> io::Result<()> {
        match fault {
            None => Ok(()),
            Some(DiskFault::Error) => Err(eio()),
            Some(DiskFault::NoSpace) => Err(enospc()),
            Some(DiskFault::NoHandle) => Err(emfile()),
            Some(DiskFault::Crash | DiskFault::Kill) => {
                self.down = true;
                Err(gone())
            }
        }
    }

    fn file(&mut self, inode: Inode) -> &mut OpenFile {
        self.files.get_mut(&inode).expect("a file lives as long as a name or a handle leads to it")
    }
}

/// Whether the machine stops in the operation.
fn stops(fault: Option<DiskFault>) -> bool {
    matches!(fault, Some(DiskFault::Crash | DiskFault::Kill))
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}
