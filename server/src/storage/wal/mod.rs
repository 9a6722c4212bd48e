//! The log on disk: what raft must not forget, in the order in which it happened.
//!
//! A log is a folder of segments. Each begins with a checksum that continues the segment before it, the
//! metadata, the newest hard state and the newest configuration: so all segments but those from the
//! first needed entry on can be given up, and nothing is lost with them.
//!
//! ```text
//! 0000000000000000-0000000000000000.wal    crc, metadata, snapshot 0, entries 1.. , state, ...
//! 0000000000000001-00000000000004d2.wal    crc, metadata, state, conf state, entries 1234.. , ...
//! 0000000000000002.prepare                 zeros, synced: the segment after the next rotation
//! ```
//!
//! One thread owns a [`Wal`]: it appends a batch with one write, and syncs once for as many batches as
//! it likes. The first batch after a sync begins with a checksum once more: so a reader can tell what had
//! been synced from what had not. Nothing appended is durable before [`Wal::sync`] returns. After the first
//! failure of a write or a sync nobody knows what is on disk, so every later call fails: the process ends,
//! and the next one reads what is there.
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use quorate_server::storage::{os_fs::OsFs, wal::{Metadata, Wal, WalError, WalOptions}};
//! # fn main() -> Result<(), WalError> {
//! let options = WalOptions::default();
//! let metadata = Metadata { cluster_id: 1, member_id: 2 };
//! Wal::create(Arc::new(OsFs), Path::new("wal"), options, metadata, 3)?;
//! let (mut wal, contents) = Wal::open(Arc::new(OsFs), Path::new("wal"), options, 0)?;
//! wal.append(&contents.entries, Some(&contents.hard_state))?;
//! wal.sync()?;
//! # Ok(())
//! # }
//! ```

mod error;
mod log;
mod reader;
mod record;
mod replay;
mod resync;
mod segment;
mod tail;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

pub use self::error::WalError;
pub use self::record::ENTRY_DATA_BYTES_MAX;
use self::record::Encoder;
pub(in crate::storage) use self::segment::is_ours;
pub use self::segment::{Preparation, Spare};
use self::segment::{Segment, Spares};
use self::tail::Tail;
use crate::consensus::{ConfState, Entry, HardState};
use crate::mutants::{self, Mutant};
use crate::storage::fs::{SharedFs, Space};

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {:x}, member {:x}", self.cluster_id, self.member_id)
    }
}

/// Whose log it is, and which of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The member.
    pub metadata: Metadata,
    /// What [`Wal::create`] was given; `None` in a log that has none, as etcd's.
    pub stamp: Option<u64>,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Of the entry.
    pub index: u64,
    /// Of that entry.
    pub term: u64,
}

/// Sizes of a log.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// The length of a segment, bytes; on a small disk a sixteenth of that. Only one entry that alone is
    /// longer makes its segment longer: a start copies the last one, and must know how much space that
    /// takes at the most.
    pub segment_bytes: u64,
    /// Segments that are kept although they are not needed any more, those in use included; 0 keeps
    /// all (`--max-wals`).
    pub segments_max: usize,
}

/// The shortest that a segment becomes on a small disk, bytes.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

impl WalOptions {
    /// The length of a segment on this file system, in bytes: a log of a few of them has to fit on it.
    pub fn segment_bytes_on(&self, space: Space) -> u64 {
        space.share_bytes(self.segment_bytes).max(SEGMENT_BYTES_MIN.min(self.segment_bytes))
    }
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, segments_max: 5 }
    }
}

/// What a log holds behind an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalContents {
    /// Whose it is.
    pub metadata: Metadata,
    /// The newest one; zeros if none was written.
    pub hard_state: HardState,
    /// The newest configuration, and the index of the entry that made it.
    pub conf_state: Option<(u64, ConfState)>,
    /// The place before the first of `entries`: the index that was asked for, or that of a snapshot
    /// which was installed behind it. In the second case the installation may have to be finished.
    pub snapshot: Position,
    /// Contiguous.
    pub entries: Vec<Entry>,
    /// Where in the last segment a record was that a crash had cut short. It was never acknowledged.
    pub torn_at: Option<u64>,
}

/// What every segment begins with, beside the configuration: checksum, metadata and hard state. The mark and
/// the hard state of a batch are in it too.
const SEGMENT_HEAD_BYTES_MAX: u64 =
    2 * (record::MARK_FRAME_BYTES + record::HARD_STATE_BYTES_MAX) + 64;

fn entry_bytes_max(entry: &Entry) -> u64 {
    record::ENTRY_OVERHEAD_MAX + entry.data.len() as u64
}

fn conf_state_bytes_max(conf_state: &ConfState) -> u64 {
    128 + 11 * (conf_state.voters.len() + conf_state.learners.len()) as u64
}

/// The log, open for writing.
pub struct Wal {
    fs: SharedFs,
    dir: PathBuf,
    segments_max: usize,
    metadata: Metadata,
    hard_state: HardState,
    conf_state: Option<(Position, ConfState)>,
    last_index: u64,
    encoder: Encoder,
    tail: Tail,
    /// All segments, the one that is written last.
    segments: VecDeque<Segment>,
    spares: Spares,
    failure: Option<String>,
}

impl Wal {
    /// Creates the folder and a log without entries. A log that exists after a crash is complete.
    ///
    /// `stamp` is random, and secret: the checksum records that follow a sync are known by it.
    ///
    /// # Errors
    /// `Present` if there is a log; else the disk refused, and the folder may be used again.
    pub fn create(
        fs: SharedFs,
        dir: &Path,
        options: WalOptions,
        metadata: Metadata,
        stamp: u64,
    ) -> Result<Self, WalError> {
        fs.create_dir_all(dir).map_err(WalError::io("create", dir))?;
        if !Segment::list(&fs, dir)?.is_empty() {
            return Err(WalError::Present { dir: dir.to_owned() });
        }
        segment::remove_prepared(&fs, dir)?;
        let mut spares = Spares::new(segment::length(&fs, dir, &options)?);
        let mut encoder = Encoder::new(0, Some(stamp.into()));
        encoder.crc();
        encoder.metadata(metadata);
        encoder.snapshot(Position::default(), None);
        let mut segment = Segment::new(dir, 0, 0);
        let spare = spares.take(&fs, dir)?;
        let tail = Tail::begin(&fs, spare, &mut segment, encoder.bytes())?;
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            segments_max: options.segments_max,
            metadata,
            hard_state: HardState::default(),
            conf_state: None,
            last_index: 0,
            encoder,
            tail,
            segments: [segment].into(),
            spares,
            failure: None,
        })
    }

    /// Opens a log and reads what is behind index `from`, usually what the state store has applied.
    ///
    /// What was read is on disk when this returns, even if an earlier sync of it had failed: the last
    /// segment is copied into a fresh file, without its torn end, and synced. If there is no room for the
    /// copy, the segments go that hold nothing behind `from`.
    ///
    /// # Errors
    /// All of them end the start with their text: `Corrupt`, `TooShort`, `Lost`, `Absent`, `Io`.
    pub fn open(
        fs: SharedFs,
        dir: &Path,
        options: WalOptions,
        from: u64,
    ) -> Result<(Self, WalContents), WalError> {
        let mut log = log::read(&fs, dir, from)?;
        segment::remove_prepared(&fs, dir)?;
        let mut spares = Spares::new(segment::length(&fs, dir, &options)?);
        let crc = log.chain.crc.expect("each segment that was read begins with a checksum");
        let copy = spares.new_path(dir);
        let lengths = (log.tail_bytes, spares.bytes());
        let tail = match Tail::reopen(&fs, &copy, &mut log.segments, lengths) {
            Err(error) if error.is_storage_full() && log.unread > 0 => {
                for segment in log.segments.drain(..log.unread) {
                    let path = &segment.path;
                    fs.remove_file(path).map_err(WalError::io("remove", path))?;
                }
                fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
                Tail::reopen(&fs, &copy, &mut log.segments, lengths)?
            }
            tail => tail?,
        };
        let wal = Self {
            fs,
            dir: dir.to_owned(),
            segments_max: options.segments_max,
            metadata: log.replayed.metadata,
            hard_state: log.replayed.contents.hard_state,
            conf_state: log.replayed.conf_state,
            last_index: log.replayed.last_index,
            encoder: Encoder::new(crc, log.chain.stamp),
            tail,
            segments: log.segments,
            spares,
            failure: None,
        };
        Ok((wal, log.replayed.contents))
    }

    /// Reads what is behind index `from` and changes nothing; for tools, while no process writes.
    ///
    /// # Errors
    /// As for [`Wal::open`].
    pub fn read(fs: &SharedFs, dir: &Path, from: u64) -> Result<WalContents, WalError> {
        Ok(log::read(fs, dir, from)?.replayed.contents)
    }

    /// Whose log it is, by its newest segment, before anything else of it is read.
    ///
    /// # Errors
    /// `Absent`, `Corrupt` or `Io`.
    pub fn owner(fs: &SharedFs, dir: &Path) -> Result<Owner, WalError> {
        log::owner(fs, dir)
    }

    /// Whether there is a log in `dir`.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn exists(fs: &SharedFs, dir: &Path) -> Result<bool, WalError> {
        Ok(!Segment::list(fs, dir)?.is_empty())
    }

    /// Appends entries, then the hard state, with one write for each segment that they need; returns the bytes
    /// written.
    ///
    /// Entries replace those that the log has from their first index on. Durable after [`Wal::sync`].
    /// Now and then this ends a segment, which syncs what was appended before.
    ///
    /// # Errors
    /// The process must end: the log takes nothing any more.
    ///
    /// # Panics
    /// If the entries have a gap, among them or to what the log holds.
    pub fn append(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<u64, WalError> {
        let mut written = 0;
        let mut rest = entries;
        loop {
            let (part, later) = rest.split_at(self.fitting(rest));
            written += self.append_part(part, hard_state.filter(|_| later.is_empty()))?;
            if later.is_empty() {
                return Ok(written);
            }
            rest = later;
        }
    }

    /// How many of `entries` fit into a segment of their own; at least one, if there is one.
    fn fitting(&self, entries: &[Entry]) -> usize {
        let conf_state = self.conf_state.as_ref().map(|(_, conf_state)| conf_state);
        let head_bytes_max = SEGMENT_HEAD_BYTES_MAX + conf_state.map_or(0, conf_state_bytes_max);
        let mut left = self.spares.bytes().saturating_sub(head_bytes_max);
        let fits = |(position, entry): &(usize, &Entry)| {
            let fits = entry_bytes_max(entry) <= left;
            left = left.saturating_sub(entry_bytes_max(entry));
            fits || *position == 0
        };
        entries.iter().enumerate().take_while(fits).count()
    }

    fn append_part(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<u64, WalError> {
        let mut next = self.last_index + 1;
        for entry in entries {
            assert!(0 < entry.index && entry.index <= next, "entry {} at {next}", entry.index);
            next = entry.index + 1;
        }
        let bytes_max =
            entries.iter().map(entry_bytes_max).sum::<u64>() + record::HARD_STATE_BYTES_MAX;
        let lost = mutants::on(Mutant::HardStateLost)
            && self.tail.is_full_for(bytes_max + record::MARK_FRAME_BYTES);
        let hard_state = hard_state.filter(|_| !lost);
        self.batch(bytes_max, |wal| {
            for entry in entries {
                wal.encoder.entry(entry);
            }
            if let Some(hard_state) = hard_state {
                wal.encoder.hard_state(hard_state);
                wal.hard_state = *hard_state;
            }
            wal.last_index = next - 1;
        })
    }

    /// Appends the configuration that the entry at `index` made. Sync before it is used.
    ///
    /// # Errors
    /// As for [`Wal::append`].
    ///
    /// # Panics
    /// If the log does not hold that entry.
    pub fn append_conf_state(
        &mut self,
        index: u64,
        term: u64,
        conf_state: &ConfState,
    ) -> Result<u64, WalError> {
        assert!(index <= self.last_index, "a configuration at {index}, beyond {}", self.last_index);
        self.snapshot_record(Position { index, term }, conf_state)
    }

    /// Appends that raft replaced its log by a snapshot: no entry is left, the next one is behind
    /// `position`. Append the hard state of the same step after it, then sync.
    ///
    /// # Errors
    /// As for [`Wal::append`].
    pub fn append_snapshot(
        &mut self,
        position: Position,
        conf_state: &ConfState,
    ) -> Result<u64, WalError> {
        let bytes = self.snapshot_record(position, conf_state)?;
        self.last_index = position.index;
        Ok(bytes)
    }

    fn snapshot_record(
        &mut self,
        position: Position,
        conf_state: &ConfState,
    ) -> Result<u64, WalError> {
        self.batch(conf_state_bytes_max(conf_state), |wal| {
            wal.encoder.snapshot(position, Some(conf_state));
            wal.conf_state = Some((position, conf_state.clone()));
        })
    }

    /// Makes all that was appended durable. Returns at once if nothing was.
    ///
    /// # Errors
    /// The process must end: what was appended since the last sync may be lost, or not.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.guarded(|wal| wal.tail.sync())
    }

    /// The work that makes the next segment ready, if there is any; it may run on another thread. Its
    /// result goes to [`Wal::adopt`]. Without it [`Wal::append`] does the work when it needs it: so ask
    /// after opening, when the segment has only little room left, and then after each batch.
    pub fn preparation(&mut self) -> Option<Preparation> {
        self.spares.preparation(&self.fs, &self.dir)
    }

    /// Takes what [`Preparation::run`] gave. After a failure the work may be asked for again.
    pub fn adopt(&mut self, spare: Option<Spare>) {
        self.spares.adopt(spare);
    }

    /// Makes the next segment ready now, if it is not.
    ///
    /// # Errors
    /// If the disk refuses, a full one included. The log itself can go on until its segment is full.
    pub fn prepare_next(&mut self) -> Result<(), WalError> {
        let Some(preparation) = self.preparation() else { return Ok(()) };
        let result = preparation.run();
        let (spare, result) = match result {
            Ok(spare) => (Some(spare), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.adopt(spare);
        result
    }

    /// Gives up segments of which only entries up to `upto_index` could be read, beyond the number
    /// that is kept. The entry at `upto_index` stays readable: its term is needed.
    ///
    /// # Errors
    /// The process must end.
    pub fn release(&mut self, upto_index: u64) -> Result<(), WalError> {
        let kept = if self.segments_max == 0 { usize::MAX } else { self.segments_max };
        self.release_beyond(upto_index, kept)
    }

    /// As [`Wal::release`], and keeps no more than is needed: for a disk that is almost full.
    ///
    /// # Errors
    /// The process must end.
    pub fn release_all(&mut self, upto_index: u64) -> Result<(), WalError> {
        self.release_beyond(upto_index, 1)
    }

    fn release_beyond(&mut self, upto_index: u64, kept: usize) -> Result<(), WalError> {
        self.guarded(|wal| {
            let needed = wal.segments.iter().rposition(|segment| segment.index <= upto_index);
            let beyond = wal.segments.len().saturating_sub(kept);
            let released = needed.unwrap_or(0).min(beyond);
            for _ in 0..released {
                let segment = wal.segments.pop_front().expect("fewer than there are");
                wal.give_up(&segment.path)?;
            }
            if released > 0 {
                wal.fs.sync_dir(&wal.dir).map_err(WalError::io("sync", &wal.dir))?;
            }
            Ok(())
        })
    }

    fn give_up(&mut self, path: &Path) -> Result<(), WalError> {
        if self.spares.wants_reusable() {
            let reusable = self.spares.new_path(&self.dir);
            self.fs.rename(path, &reusable).map_err(WalError::io("rename", path))?;
            self.spares.reuse(reusable);
            Ok(())
        } else {
            self.fs.remove_file(path).map_err(WalError::io("remove", path))
        }
    }

    /// The index of the last entry, or of the snapshot that replaced it.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Whose log it is.
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// The length of a segment, bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.spares.bytes()
    }

    /// What the segments that are kept may take together although nobody needs them, bytes; 0 if all are kept.
    pub fn kept_bytes(&self) -> u64 {
        (self.segments_max as u64).saturating_mul(self.segment_bytes())
    }

    /// The number of segments.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The length of all segments together, bytes.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Writes what `encode` appends, at most `bytes_max`, into one segment.
    fn batch(&mut self, bytes_max: u64, encode: impl FnOnce(&mut Self)) -> Result<u64, WalError> {
        self.guarded(|wal| {
            let bytes_max = bytes_max + record::MARK_FRAME_BYTES;
            if wal.tail.is_full_for(bytes_max) {
                wal.rotate()?;
            }
            wal.encoder.clear();
            if wal.tail.is_synced() {
                wal.encoder.crc();
            }
            let mark_bytes = wal.encoder.bytes().len();
            encode(wal);
            let bytes = wal.encoder.bytes();
            debug_assert!(bytes.len() as u64 <= bytes_max, "{} > {bytes_max}", bytes.len());
            if bytes.len() == mark_bytes {
                return Ok(0);
            }
            wal.tail.append(bytes)?;
            if let Some(last) = wal.segments.back_mut() {
                last.bytes = last.bytes.max(wal.tail.offset());
            }
            Ok(bytes.len() as u64)
        })
    }

    /// Ends the segment and begins the next.
    fn rotate(&mut self) -> Result<(), WalError> {
        self.tail.sync()?;
        self.encoder.clear();
        self.encoder.crc();
        self.encoder.metadata(self.metadata);
        if self.hard_state != HardState::default() && !mutants::on(Mutant::HardStateLost) {
            self.encoder.hard_state(&self.hard_state);
        }
        if let Some((position, conf_state)) = &self.conf_state {
            self.encoder.snapshot(*position, Some(conf_state));
        }
        let sequence = self.segments.back().map_or(0, |segment| segment.sequence + 1);
        let mut segment = Segment::new(&self.dir, sequence, self.last_index + 1);
        let spare = self.spares.take(&self.fs, &self.dir)?;
        self.tail = Tail::begin(&self.fs, spare, &mut segment, self.encoder.bytes())?;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Runs `work` unless something failed before, and remembers its failure.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        if let Some(reason) = &self.failure {
            return Err(WalError::Poisoned { reason: reason.clone() });
        }
        let result = work(self);
        if let Err(error) = &result {
            self.failure = Some(error.to_string());
        }
        result
    }
}
