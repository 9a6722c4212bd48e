//! Segment files: their names, and how the next one is made ready ahead of need.
//!
//! A segment is filled with zeros and synced before the first record goes into it. Then a write changes
//! no metadata of the file system, so a sync is one write to the disk, and what lies behind the last
//! record is never an old record. A file that is being prepared has a name of its own and takes a
//! segment's name only with its first records synced.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::{WalError, WalOptions};
use crate::storage::fs::{File, OpenMode, SharedFs};

/// Zeros that are written at once, bytes.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
/// Zeros between two syncs while a file is filled, bytes: the sync of a batch of entries that falls in
/// between waits for no more than these.
const ZEROS_PER_SYNC: u64 = 4 << 20;
/// No sequence or index comes near it; a name that says so is not ours.
pub(super) const NUMBER_MAX: u64 = 1 << 62;
const PREPARED_SUFFIX: &str = ".prepare";

/// The length of segments in `dir`.
pub(super) fn length(fs: &SharedFs, dir: &Path, options: &WalOptions) -> Result<u64, WalError> {
    let space = fs.space(dir).map_err(WalError::io("ask for the space of", dir))?;
    Ok(options.segment_bytes_on(space))
}

/// A segment that is part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Counts segments from 0, without gaps.
    pub(super) sequence: u64,
    /// The index of the first entry that may be in it.
    pub(super) index: u64,
    pub(super) path: PathBuf,
    /// The length of the file.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn new(dir: &Path, sequence: u64, index: u64) -> Self {
        let path = dir.join(format!("{sequence:016x}-{index:016x}.wal"));
        Self { sequence, index, path, bytes: 0 }
    }

    /// The segments in a folder by sequence; what has another name is left alone.
    pub(super) fn list(fs: &SharedFs, dir: &Path) -> Result<VecDeque<Self>, WalError> {
        let mut segments = Vec::new();
        for name in names(fs, dir)? {
            if let Some((sequence, index)) = parse(&name) {
                segments.push(Self::new(dir, sequence, index));
            }
        }
        segments.sort_by_key(|segment| (segment.sequence, segment.index));
        Ok(segments.into())
    }
}

fn parse(name: &Path) -> Option<(u64, u64)> {
    let (sequence, index) = name.to_str()?.strip_suffix(".wal")?.split_once('-')?;
    let number = |text: &str| {
        let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    let (sequence, index) = (number(sequence)?, number(index)?);
    (sequence < NUMBER_MAX && index < NUMBER_MAX).then_some((sequence, index))
}

fn names(fs: &SharedFs, dir: &Path) -> Result<Vec<PathBuf>, WalError> {
    match fs.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(WalError::io("list", dir)),
    }
}

/// Whether a file in the folder of a log is one of ours, in use or half prepared.
pub(in crate::storage) fn is_ours(name: &Path) -> bool {
    parse(name).is_some() || is_prepared(name)
}

fn is_prepared(name: &Path) -> bool {
    let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(PREPARED_SUFFIX)) else {
        return false;
    };
    stem.len() == 16 && stem.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes files that an earlier process began to prepare: nobody knows how far it came.
pub(super) fn remove_prepared(fs: &SharedFs, dir: &Path) -> Result<(), WalError> {
    for name in names(fs, dir)?.iter().filter(|name| is_prepared(name)) {
        let path = dir.join(name);
        fs.remove_file(&path).map_err(WalError::io("remove", &path))?;
    }
    Ok(())
}

/// Work that makes the next segment ready. It may run on another thread while the log is written.
#[must_use = "run it and hand the result to Wal::adopt"]
pub struct Preparation {
    fs: SharedFs,
    path: PathBuf,
    bytes: u64,
}

impl Preparation {
    /// The file that is filled.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills the file with zeros and syncs it. Takes as long as the disk needs for a whole segment.
    ///
    /// # Errors
    /// If the disk refuses, a full one included; the log itself is not concerned, and what was filled
    /// is free again for those who need it more.
    pub fn run(self) -> Result<Spare, WalError> {
        let filled = self.fill();
        if filled.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = self.fs.remove_file(&self.path);
        }
        Ok(Spare { file: filled?, path: self.path, bytes: self.bytes })
    }

    fn fill(&self) -> Result<Box<dyn File>, WalError> {
        let path = &self.path;
        let file = self.fs.open(path, OpenMode::Create).map_err(WalError::io("create", path))?;
        let held_bytes = file.len().map_err(WalError::io("read the length of", path))?;
        // Asked first: filling the disk to its last byte would stop the state store in the meantime.
        let space = self.fs.space(path).map_err(WalError::io("ask for the space of", path))?;
        if space.free_bytes < self.bytes.saturating_sub(held_bytes) {
            return Err(WalError::io("fill", path)(io::ErrorKind::StorageFull.into()));
        }
        file.set_len(self.bytes).map_err(WalError::io("resize", path))?;
        write_zeros(&*file, 0, self.bytes).map_err(WalError::io("fill", path))?;
        Ok(file)
    }
}

/// Fills `from..to` with zeros and syncs the file.
pub(super) fn write_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    let mut synced = from;
    while offset < to {
        let step = (to - offset).min(ZEROS.len() as u64);
        let zeros = &ZEROS[..usize::try_from(step).expect("at most the length of ZEROS")];
        file.write_at(offset, zeros)?;
        offset += step;
        if offset - synced >= ZEROS_PER_SYNC {
            file.sync_data()?;
            synced = offset;
        }
    }
    file.sync_data()
}

/// A file of zeros on disk that waits to become a segment.
pub struct Spare {
    pub(super) file: Box<dyn File>,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The files that are prepared and those that could be reused.
pub(super) struct Spares {
    ready: Option<Spare>,
    is_preparing: bool,
    /// A released segment, already without its old name. Its old records are still in it.
    reusable: Option<PathBuf>,
    next_number: u64,
    bytes: u64,
}

impl Spares {
    pub(super) fn new(bytes: u64) -> Self {
        Self { ready: None, is_preparing: false, reusable: None, next_number: 0, bytes }
    }

    /// A name for a file that is not yet, or no longer, a segment.
    pub(super) fn new_path(&mut self, dir: &Path) -> PathBuf {
        let number = self.next_number;
        self.next_number += 1;
        dir.join(format!("{number:016x}{PREPARED_SUFFIX}"))
    }

    /// The length of a segment, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The work to be done, if none is ready or under way.
    pub(super) fn preparation(&mut self, fs: &SharedFs, dir: &Path) -> Option<Preparation> {
        if self.ready.is_some() || self.is_preparing {
            return None;
        }
        self.is_preparing = true;
        Some(self.job(fs, dir))
    }

    fn job(&mut self, fs: &SharedFs, dir: &Path) -> Preparation {
        let path = self.reusable.take().unwrap_or_else(|| self.new_path(dir));
        Preparation { fs: fs.clone(), path, bytes: self.bytes }
    }

    /// Takes what a preparation gave; after a failure another may be asked for.
    pub(super) fn adopt(&mut self, spare: Option<Spare>) {
        self.is_preparing = false;
        if spare.is_some() {
            self.ready = spare;
        }
    }

    /// The prepared file, or one that is prepared now.
    pub(super) fn take(&mut self, fs: &SharedFs, dir: &Path) -> Result<Spare, WalError> {
        match self.ready.take() {
            Some(spare) => Ok(spare),
            None => self.job(fs, dir).run(),
        }
    }

    /// Whether a released segment would be reused.
    pub(super) fn wants_reusable(&self) -> bool {
        self.reusable.is_none() && self.ready.is_none() && !self.is_preparing
    }

    pub(super) fn reuse(&mut self, path: PathBuf) {
        self.reusable = Some(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_etcd_and_nothing_else_is_taken_for_one() {
        let segment = Segment::new(Path::new("w"), 10, 0xabc);
        assert_eq!(segment.path, Path::new("w/000000000000000a-0000000000000abc.wal"));
        assert_eq!(parse(Path::new("000000000000000a-0000000000000abc.wal")), Some((10, 0xabc)));
        for name in ["0.tmp", "a-b.wal", "+00000000000000a-0000000000000abc.wal", "x.wal", "lock"] {
            assert_eq!(parse(Path::new(name)), None, "{name}");
            assert!(!is_ours(Path::new(name)), "{name}");
        }
        let prepared = Spares::new(1).new_path(Path::new("w"));
        assert!(is_prepared(Path::new(prepared.file_name().unwrap())));
    }
}
