//! Finding and reading the newest checkpoint that can be used.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{
    CHUNK_BYTES_MAX, CheckpointError, CheckpointHead, FOOTER_BYTES, FORMAT, FORMAT_MIN,
    FRAME_BYTES, HEADER_BYTES, MAGIC, PART_SUFFIX, failed, parse_name,
};
use crate::storage::fs::{File, OpenMode, SharedFs};

/// Which checkpoint the store can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The cluster of the store.
    pub cluster_id: u64,
    /// The generation of the store.
    pub generation: u64,
    /// The revision up to which the store is flushed: nothing ahead of it may be used.
    pub revision_max: i64,
}

/// What was found.
pub struct Loaded {
    /// The newest that can be used, verified from end to end; `None` asks for a full scan.
    pub reader: Option<CheckpointReader>,
    /// What could not be used, with the reason, for the log. These files were removed unless reading
    /// them failed.
    pub rejected: Vec<Rejected>,
}

/// A checkpoint that cannot be used.
#[derive(Debug)]
pub struct Rejected {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: Reject,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Reject {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(io::Error),
    /// It is shorter or longer than it says.
    #[error("it ends at the wrong place, near byte {offset}")]
    Torn {
        /// How far it could be read, in bytes.
        offset: u64,
    },
    /// Its bytes are not those that were written.
    #[error("the checksum at byte {offset} does not match")]
    Checksum {
        /// Where what does not match begins.
        offset: u64,
    },
    /// A later version wrote it, or nobody did.
    #[error("it is not a checkpoint of a format that this version reads")]
    Format,
    /// It belongs to another store: another cluster, another generation, or another name.
    #[error("it belongs to another store")]
    Foreign,
    /// It is ahead of the store.
    #[error("revision {revision} is ahead of the state store at {revision_max}")]
    Ahead {
        /// Its flushed revision.
        revision: i64,
        /// That of the store.
        revision_max: i64,
    },
}

/// The chunks of one checkpoint, in the order in which they were written.
///
/// The file was verified before; each chunk is verified again as it is read.
pub struct CheckpointReader {
    path: PathBuf,
    file: Box<dyn File>,
    head: CheckpointHead,
    offset: u64,
    end: u64,
}

impl CheckpointReader {
    /// What it says about itself.
    pub fn head(&self) -> CheckpointHead {
        self.head
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Iterator for CheckpointReader {
    type Item = Result<Bytes, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.end {
            return None;
        }
        let chunk = read_chunk(&*self.file, self.offset, self.end);
        self.offset = match &chunk {
            Ok(data) => self.offset + (FRAME_BYTES + data.len()) as u64,
            Err(_) => self.end,
        };
        Some(chunk)
    }
}

/// Finds the newest checkpoint in `folder` that fits, trying older ones when one is bad, and removes
/// those that are of no use and what interrupted writers left.
///
/// # Errors
/// The folder cannot be synced or read.
pub fn load_newest(
    fs: &SharedFs,
    folder: &Path,
    wanted: Wanted,
) -> Result<Loaded, CheckpointError> {
    // A process that was killed may have left the name of the newest in memory only. What is deleted from
    // the store from now on may rely on it.
    fs.sync_dir(folder).map_err(failed(folder, "sync"))?;
    let names = fs.read_dir(folder).map_err(failed(folder, "read"))?;
    let mut loaded = Loaded { reader: None, rejected: Vec::new() };
    // Names sort by revision; the newest come first.
    for entry in names.iter().rev() {
        let Some(file_name) = entry.file_name() else { continue };
        let path = folder.join(file_name);
        if file_name.to_str().is_some_and(|name| name.ends_with(PART_SUFFIX)) {
            // It stays until the next start if it cannot be removed.
            let _ = fs.remove_file(&path);
            continue;
        }
        let Some(named) = parse_name(entry) else { continue };
        let reason = match fits(named, wanted) {
            Err(reason) => reason,
            Ok(()) if loaded.reader.is_some() => continue,
            Ok(()) => match open(fs, &path, named, wanted) {
                Ok(reader) => {
                    loaded.reader = Some(reader);
                    continue;
                }
                Err(reason) => reason,
            },
        };
        // One that is ahead would fit once the store has caught up, with another history.
        if !matches!(reason, Reject::Io(_)) {
            let _ = fs.remove_file(&path);
        }
        loaded.rejected.push(Rejected { path, reason });
    }
    Ok(loaded)
}

fn fits((revision, generation): (i64, u64), wanted: Wanted) -> Result<(), Reject> {
    if generation != wanted.generation {
        return Err(Reject::Foreign);
    }
    if revision > wanted.revision_max {
        return Err(Reject::Ahead { revision, revision_max: wanted.revision_max });
    }
    Ok(())
}

/// Opens a checkpoint and verifies all of it.
fn open(
    fs: &SharedFs,
    path: &Path,
    (revision, generation): (i64, u64),
    wanted: Wanted,
) -> Result<CheckpointReader, Reject> {
    let file = fs.open(path, OpenMode::Existing).map_err(Reject::Io)?;
    let len = file.len().map_err(Reject::Io)?;
    let end = len.saturating_sub(FOOTER_BYTES as u64);
    if end < HEADER_BYTES as u64 {
        return Err(Reject::Torn { offset: len });
    }
    let mut header = [0; HEADER_BYTES];
    file.read_at(0, &mut header).map_err(Reject::Io)?;
    let head = decode_head(&header)?;
    let named = CheckpointHead {
        flushed_revision: revision,
        generation,
        cluster_id: wanted.cluster_id,
        ..head
    };
    if head != named {
        return Err(Reject::Foreign);
    }
    let mut total = crc32c::crc32c(&header);
    let mut offset = HEADER_BYTES as u64;
    let mut chunks = 0;
    while offset < end {
        let data = read_chunk(&*file, offset, end)?;
        total = crc32c::crc32c_append(total, &frame(&data));
        total = crc32c::crc32c_append(total, &data);
        offset += (FRAME_BYTES + data.len()) as u64;
        chunks += 1;
    }
    check_footer(&*file, end, chunks, total)?;
    let offset = HEADER_BYTES as u64;
    Ok(CheckpointReader { path: path.to_owned(), file, head, offset, end })
}

/// Reads and verifies the chunk at `offset`, which must end at `end` or before.
fn read_chunk(file: &dyn File, offset: u64, end: u64) -> Result<Bytes, Reject> {
    let torn = Reject::Torn { offset };
    let left = end - offset;
    if left < FRAME_BYTES as u64 {
        return Err(torn);
    }
    let mut frame = [0; FRAME_BYTES];
    file.read_at(offset, &mut frame).map_err(Reject::Io)?;
    let len = u64::from(word(&frame, 0));
    // Checked before anything is allocated.
    if len == 0 || len > CHUNK_BYTES_MAX as u64 || len > left - FRAME_BYTES as u64 {
        return Err(torn);
    }
    let mut data = vec![0; len as usize];
    file.read_at(offset + FRAME_BYTES as u64, &mut data).map_err(Reject::Io)?;
    if crc32c::crc32c(&data) != word(&frame, 4) {
        return Err(Reject::Checksum { offset });
    }
    Ok(data.into())
}

/// The frame of a chunk that was verified.
fn frame(data: &[u8]) -> [u8; FRAME_BYTES] {
    let mut out = [0; FRAME_BYTES];
    out[..4].copy_from_slice(&(data.len() as u32).to_le_bytes());
    out[4..].copy_from_slice(&crc32c::crc32c(data).to_le_bytes());
    out
}

fn decode_head(bytes: &[u8; HEADER_BYTES]) -> Result<CheckpointHead, Reject> {
    if bytes[..4] != MAGIC || !(FORMAT_MIN..=FORMAT).contains(&word(bytes, 4)) {
        return Err(Reject::Format);
    }
    if crc32c::crc32c(&bytes[..40]) != word(bytes, 40) {
        return Err(Reject::Checksum { offset: 0 });
    }
    Ok(CheckpointHead {
        cluster_id: long(bytes, 8),
        generation: long(bytes, 16),
        flushed_revision: long(bytes, 24).cast_signed(),
        compact_revision: long(bytes, 32).cast_signed(),
    })
}

/// Verifies the footer at `offset`.
fn check_footer(file: &dyn File, offset: u64, chunks: u64, total: u32) -> Result<(), Reject> {
    let mut footer = [0; FOOTER_BYTES];
    file.read_at(offset, &mut footer).map_err(Reject::Io)?;
    let whole = word(&footer, 0) == 0
        && word(&footer, 4) == crc32c::crc32c(&footer[FRAME_BYTES..])
        && long(&footer, 8) == chunks
        && word(&footer, 16) == total;
    if whole { Ok(()) } else { Err(Reject::Checksum { offset }) }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}
