//! What a simulated disk does wrong, when, and what it did.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::sim::rng::Rng;

/// How many operations are remembered for a person to read.
const OPERATIONS_KEPT_MAX: usize = 64;

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// The kinds of operations on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // The methods of `FileSystem` and `File` of the same names.
pub enum OpKind {
    Create,
    Write,
    SetLen,
    Sync,
    Rename,
    Remove,
    CreateDir,
    SyncDir,
    Read,
    Open,
}

impl OpKind {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Write,
        Self::SetLen,
        Self::Sync,
        Self::Rename,
        Self::Remove,
        Self::CreateDir,
        Self::SyncDir,
        Self::Read,
        Self::Open,
    ];

    /// Whether it changes what a disk holds. Only these are numbered, and only these can be planned.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Read | Self::Open)
    }

    /// Its name in a log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::SetLen => "set_len",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "create_dir",
            Self::SyncDir => "sync_dir",
            Self::Read => "read",
            Self::Open => "open",
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number among the changing ones, from 1; of a read, that of the last change.
    pub number: u64,
    /// What was done.
    pub kind: OpKind,
    /// The file or folder, as it is named now or was last; of a rename, the new name.
    pub path: PathBuf,
    /// Where, in bytes; of `SetLen` the new length.
    pub offset: u64,
    /// How much, in bytes.
    pub len: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, kind, path, offset, len } = self;
        write!(f, "{number} {} {} {offset}+{len}", kind.name(), path.display())
    }
}

/// What goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskFault {
    /// Power is lost during it: everything fails until [`SimFs::crash`](super::SimFs::crash).
    Crash,
    /// The process is killed during it: everything fails until [`SimFs::kill`](super::SimFs::kill).
    Kill,
    /// It fails with EIO; a write may be done in part, a sync loses data.
    Error,
    /// It fails with ENOSPC; a write may be done in part.
    NoSpace,
    /// It fails with EMFILE: too many files are open. Only what opens a file fails so.
    NoHandle,
}

/// A fault that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// What happened.
    pub fault: DiskFault,
    /// To what.
    pub operation: Operation,
}

/// How often operations fail by chance, in parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Reads that fail with EIO.
    pub read_error: u64,
    /// Writes, length changes and changes of names that fail with EIO.
    pub write_error: u64,
    /// Syncs of files and folders that fail.
    pub sync_error: u64,
    /// Openings of files, to create them too, that fail with EMFILE.
    pub open_error: u64,
}

/// How many operations of each kind there were, and how much they moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    operations: [u64; OpKind::ALL.len()],
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

impl Counters {
    /// Operations of `kind`.
    pub fn of(&self, kind: OpKind) -> u64 {
        self.operations[kind as usize]
    }
}

/// Decides the fate of each operation, and keeps the books.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) rates: FaultRates,
    pub(super) planned: BTreeMap<u64, DiskFault>,
    pub(super) changes_total: u64,
    pub(super) counters: Counters,
    pub(super) recent: VecDeque<Operation>,
    pub(super) fired: Vec<Fired>,
}

impl Faults {
    /// Counts an operation and says what is wrong with it.
    pub(super) fn meet(
        &mut self,
        kind: OpKind,
        path: &Path,
        span: (u64, u64),
        rng: &mut Rng,
    ) -> Option<DiskFault> {
        let (offset, len) = span;
        self.counters.operations[kind as usize] += 1;
        match kind {
            OpKind::Read => self.counters.bytes_read += len,
            OpKind::Write => self.counters.bytes_written += len,
            _ => {}
        }
        let planned = if kind.changes() {
            self.changes_total += 1;
            let mut operation = match self.recent.len() {
                OPERATIONS_KEPT_MAX => self.recent.pop_front(),
                _ => None,
            }
            .unwrap_or_else(|| Operation {
                number: 0,
                kind,
                path: PathBuf::new(),
                offset,
                len,
            });
            operation.path.clear();
            operation.path.push(path);
            operation.number = self.changes_total;
            (operation.kind, operation.offset, operation.len) = (kind, offset, len);
            self.recent.push_back(operation);
            self.planned.remove(&self.changes_total)
        } else {
            None
        };
        let fault = planned.or_else(|| self.by_chance(kind, rng))?;
        self.note(fault, kind, path, span);
        Some(fault)
    }

    /// Remembers that a fault happened.
    pub(super) fn note(
        &mut self,
        fault: DiskFault,
        kind: OpKind,
        path: &Path,
        (offset, len): (u64, u64),
    ) {
        let number = self.changes_total;
        let operation = Operation { number, kind, path: path.to_owned(), offset, len };
        self.fired.push(Fired { fault, operation });
    }

    fn by_chance(&self, kind: OpKind, rng: &mut Rng) -> Option<DiskFault> {
        let opens = matches!(kind, OpKind::Open | OpKind::Create);
        if opens && rng.per_million(self.rates.open_error) {
            return Some(DiskFault::NoHandle);
        }
        let parts = match kind {
            OpKind::Read => self.rates.read_error,
            OpKind::Sync | OpKind::SyncDir => self.rates.sync_error,
            OpKind::Open => 0,
            _ => self.rates.write_error,
        };
        rng.per_million(parts).then_some(DiskFault::Error)
    }
}

pub(in crate::sim) fn eio() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

pub(in crate::sim) fn emfile() -> io::Error {
    io::Error::from_raw_os_error(EMFILE)
}

pub(in crate::sim) fn enospc() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}

/// What every operation of a process that no longer runs gets.
pub(in crate::sim) fn gone() -> io::Error {
    io::Error::other("the simulated process has ended")
}
