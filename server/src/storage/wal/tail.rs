//! The segment that is being written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::WalError;
use super::segment::{self, Segment, Spare};
use crate::mutants::{self, Mutant};
use crate::storage::data_dir::parent;
use crate::storage::fs::{File, OpenMode, SharedFs};

/// Zeros behind the records of a reopened segment, bytes, so that a start need not fill a whole one.
const HEADROOM_BYTES: u64 = 1 << 20;
/// Bytes copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// An open segment and the place behind its last record.
pub(super) struct Tail {
    file: Box<dyn File>,
    path: PathBuf,
    /// Behind the records that every segment begins with.
    head_bytes: u64,
    offset: u64,
    capacity_bytes: u64,
    is_synced: bool,
}

impl Tail {
    /// Makes a segment of a prepared file: first records, sync, name, sync of the folder.
    pub(super) fn begin(
        fs: &SharedFs,
        spare: Spare,
        segment: &mut Segment,
        head: &[u8],
    ) -> Result<Self, WalError> {
        let Spare { file, path: prepared, bytes } = spare;
        file.write_at(0, head).map_err(WalError::io("write", &prepared))?;
        file.sync_data().map_err(WalError::io("sync", &prepared))?;
        name(fs, &prepared, &segment.path)?;
        segment.bytes = bytes;
        let head_bytes = head.len() as u64;
        Ok(Self {
            file,
            path: segment.path.clone(),
            head_bytes,
            offset: head_bytes,
            capacity_bytes: bytes,
            is_synced: true,
        })
    }

    /// Copies the valid bytes of the last segment into a fresh file, which takes its place.
    ///
    /// After a failed sync the page cache may show what the disk does not hold. So nothing that was
    /// read counts as durable before it has been written and synced once more. `lengths` are those of
    /// the valid part and of a whole segment. A failure leaves nothing behind.
    pub(super) fn reopen(
        fs: &SharedFs,
        copy: &Path,
        segments: &mut VecDeque<Segment>,
        lengths: (u64, u64),
    ) -> Result<Self, WalError> {
        let segment = segments.back_mut().expect("a log that was read has a segment");
        let reopened = Self::copy(fs, copy, segment, lengths);
        if reopened.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = fs.remove_file(copy);
        }
        reopened
    }

    fn copy(
        fs: &SharedFs,
        copy: &Path,
        segment: &mut Segment,
        lengths: (u64, u64),
    ) -> Result<Self, WalError> {
        let (valid_bytes, segment_bytes) = lengths;
        let from = fs
            .open(&segment.path, OpenMode::Existing)
            .map_err(WalError::io("open", &segment.path))?;
        let file = fs.open(copy, OpenMode::CreateNew).map_err(WalError::io("create", copy))?;
        let mut buffer = Vec::new();
        let mut offset = 0;
        while offset < valid_bytes {
            let step = (valid_bytes - offset).min(COPY_BYTES);
            buffer.resize(usize::try_from(step).expect("at most COPY_BYTES"), 0);
            from.read_at(offset, &mut buffer).map_err(WalError::io("read", &segment.path))?;
            file.write_at(offset, &buffer).map_err(WalError::io("write", copy))?;
            offset += step;
        }
        let capacity_bytes = (valid_bytes + HEADROOM_BYTES).min(segment_bytes).max(valid_bytes);
        segment::write_zeros(&*file, valid_bytes, capacity_bytes)
            .map_err(WalError::io("fill", copy))?;
        name(fs, copy, &segment.path)?;
        segment.bytes = capacity_bytes;
        Ok(Self {
            file,
            path: segment.path.clone(),
            head_bytes: 0,
            offset: valid_bytes,
            capacity_bytes,
            is_synced: true,
        })
    }

    /// Whether `bytes` more belong into the next segment. What is longer than any goes into a new one.
    pub(super) fn is_full_for(&self, bytes: u64) -> bool {
        self.offset + bytes > self.capacity_bytes && self.offset > self.head_bytes
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.is_synced = false;
        self.file.write_at(self.offset, bytes).map_err(WalError::io("write", &self.path))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), WalError> {
        if !self.is_synced {
            self.file.sync_data().map_err(WalError::io("sync", &self.path))?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// Whether all that was appended is durable.
    pub(super) fn is_synced(&self) -> bool {
        self.is_synced
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

fn name(fs: &SharedFs, from: &Path, to: &Path) -> Result<(), WalError> {
    fs.rename(from, to).map_err(WalError::io("rename", from))?;
    if mutants::on(Mutant::RenameNotSynced) {
        return Ok(());
    }
    let dir = parent(to);
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))
}
