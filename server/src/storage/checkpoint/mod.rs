//! Checkpoints of the key index: files from which a start rebuilds the index without a full scan.
//!
//! A checkpoint is a cache of what the state store says at one flushed revision. It is never needed and
//! never trusted: it is used only if it is whole, belongs to this store, and is not ahead of it; else
//! the one before is tried, and with none left the index is rebuilt from the rows.
//!
//! ```text
//! 000000000000002a-0000000000000003.idx      revision 42 of generation 3
//!
//! header   "QIDX" format 2 | cluster | generation | flushed revision | compact revision | checksum
//! chunk    length | checksum | bytes of the index                      any number of these
//! footer   0 | checksum | chunks | checksum of everything before the footer
//! ```
//!
//! Numbers are little-endian, checksums CRC-32C. A file is written beside its place, synced, renamed and
//! its folder synced, so a crash leaves a whole file or none under the final name.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::{File, OpenMode, SharedFs};
use crate::mutants::{self, Mutant};

mod read;
#[cfg(test)]
mod tests;

pub use read::{CheckpointReader, Loaded, Reject, Rejected, Wanted, load_newest};

/// The most bytes that one chunk may hold: the longest key of an index, and a chunk of others before it.
pub const CHUNK_BYTES_MAX: usize = 132 << 20;

/// Flushed bytes after which a new checkpoint is worth its cost.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;

/// How many checkpoints are kept: one may turn out to be bad.
const KEPT: usize = 2;

const MAGIC: [u8; 4] = *b"QIDX";
/// What is written. Since format 2 a key may go on in the next chunk.
const FORMAT: u32 = 2;
/// The oldest that is read: all that a file of format 1 holds means the same in format 2.
const FORMAT_MIN: u32 = 1;
const HEADER_BYTES: usize = 44;
const FRAME_BYTES: usize = 8;
const FOOTER_BYTES: usize = FRAME_BYTES + 12;
const SUFFIX: &str = ".idx";
const PART_SUFFIX: &str = ".idx.part";

/// What a checkpoint says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointHead {
    /// The revision up to which the store was flushed when the index was written down.
    pub flushed_revision: i64,
    /// The compact revision of that index.
    pub compact_revision: i64,
    /// The generation of the store.
    pub generation: u64,
    /// The cluster.
    pub cluster_id: u64,
}

/// Why a checkpoint could not be written or its folder not be read. A store without checkpoints only
/// starts slower, but the file system that refuses holds the store too.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct CheckpointError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was being done.
    pub action: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// What a finished checkpoint took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// The file.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// A checkpoint being written. Dropping it gives it up.
pub struct CheckpointWriter {
    fs: SharedFs,
    folder: PathBuf,
    path: PathBuf,
    part: PathBuf,
    file: Option<Box<dyn File>>,
    head: CheckpointHead,
    offset: u64,
    checksum: u32,
    chunks: u64,
}

impl CheckpointWriter {
    /// Begins a checkpoint in `folder`, which exists. The store must have made
    /// `head.flushed_revision` durable before.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn begin(
        fs: SharedFs,
        folder: &Path,
        head: CheckpointHead,
    ) -> Result<Self, CheckpointError> {
        let path = folder.join(name(head.flushed_revision, head.generation));
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let created = || -> io::Result<Box<dyn File>> {
            if fs.exists(&part)? {
                fs.remove_file(&part)?;
            }
            fs.open(&part, OpenMode::CreateNew)
        };
        let file = created().map_err(failed(&part, "create"))?;
        let mut writer = Self {
            fs,
            folder: folder.to_owned(),
            path,
            part,
            file: Some(file),
            head,
            offset: 0,
            checksum: 0,
            chunks: 0,
        };
        writer.append(&encode_head(&head))?;
        Ok(writer)
    }

    /// Appends the next part of the index.
    ///
    /// # Errors
    /// The file system refuses.
    ///
    /// # Panics
    /// If `data` is empty or over [`CHUNK_BYTES_MAX`].
    pub fn chunk(&mut self, data: &[u8]) -> Result<(), CheckpointError> {
        assert!(!data.is_empty() && data.len() <= CHUNK_BYTES_MAX, "chunk of {}", data.len());
        let mut frame = Vec::with_capacity(FRAME_BYTES + data.len());
        frame.extend_from_slice(&(data.len() as u32).to_le_bytes());
        frame.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
        frame.extend_from_slice(data);
        self.append(&frame)?;
        self.chunks += 1;
        Ok(())
    }

    /// Makes the checkpoint durable and removes those before the last two.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn finish(mut self) -> Result<CheckpointReport, CheckpointError> {
        let footer = encode_footer(self.chunks, self.checksum);
        self.append(&footer)?;
        let file = self.file.take().expect("it is open until it is finished");
        if !mutants::on(Mutant::CheckpointNotSynced) {
            file.sync_data().map_err(failed(&self.part, "sync"))?;
        }
        drop(file);
        self.fs.rename(&self.part, &self.path).map_err(failed(&self.part, "rename"))?;
        self.fs.sync_dir(&self.folder).map_err(failed(&self.folder, "sync"))?;
        self.remove_older()?;
        Ok(CheckpointReport { path: self.path.clone(), bytes: self.offset })
    }

    fn append(&mut self, data: &[u8]) -> Result<(), CheckpointError> {
        let file = self.file.as_ref().expect("it is open until it is finished");
        file.write_at(self.offset, data).map_err(failed(&self.part, "write"))?;
        self.offset += data.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, data);
        Ok(())
    }

    /// Removes what this checkpoint makes useless: all but the newest of its generation, and every
    /// one of another.
    fn remove_older(&self) -> Result<(), CheckpointError> {
        let names = self.fs.read_dir(&self.folder).map_err(failed(&self.folder, "read"))?;
        let mut kept = 0;
        // Names sort by revision; the newest come first.
        for entry in names.iter().rev() {
            let Some((revision, generation)) = parse_name(entry) else { continue };
            let useful = generation == self.head.generation
                && revision <= self.head.flushed_revision
                && kept < KEPT;
            if useful {
                kept += 1;
            } else {
                let path = self.folder.join(entry.file_name().unwrap_or_default());
                self.fs.remove_file(&path).map_err(failed(&path, "remove"))?;
            }
        }
        Ok(())
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        // A finished one has no such file; one that stays is removed at the next start.
        if self.file.take().is_some() {
            let _ = self.fs.remove_file(&self.part);
        }
    }
}

fn failed<'a>(
    path: &'a Path,
    action: &'static str,
) -> impl FnOnce(io::Error) -> CheckpointError + 'a {
    move |source| CheckpointError { path: path.to_owned(), action, source }
}

/// The name of a checkpoint: revision, then generation, each in 16 hexadecimal digits.
fn name(flushed_revision: i64, generation: u64) -> String {
    format!("{flushed_revision:016x}-{generation:016x}{SUFFIX}")
}

/// Reads a name back; `None` if it is not one that we would write.
fn parse_name(path: &Path) -> Option<(i64, u64)> {
    let file_name = path.file_name()?.to_str()?;
    let (revision, generation) = file_name.strip_suffix(SUFFIX)?.split_once('-')?;
    let revision = i64::from_str_radix(revision, 16).ok()?;
    let generation = u64::from_str_radix(generation, 16).ok()?;
    (name(revision, generation) == file_name).then_some((revision, generation))
}

fn encode_head(head: &CheckpointHead) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&FORMAT.to_le_bytes());
    out[8..16].copy_from_slice(&head.cluster_id.to_le_bytes());
    out[16..24].copy_from_slice(&head.generation.to_le_bytes());
    out[24..32].copy_from_slice(&head.flushed_revision.to_le_bytes());
    out[32..40].copy_from_slice(&head.compact_revision.to_le_bytes());
    let checksum = crc32c::crc32c(&out[..40]);
    out[40..].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn encode_footer(chunks: u64, total: u32) -> [u8; FOOTER_BYTES] {
    let mut out = [0; FOOTER_BYTES];
    out[8..16].copy_from_slice(&chunks.to_le_bytes());
    out[16..20].copy_from_slice(&total.to_le_bytes());
    let checksum = crc32c::crc32c(&out[FRAME_BYTES..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    out
}
