//! Reads a log from its files, changing nothing.

use std::collections::VecDeque;
use std::path::Path;

use super::reader::{Next, SegmentReader};
use super::record::{Chain, Record};
use super::replay::{Missing, Replay, Replayed};
use super::segment::Segment;
use super::{Metadata, Owner, WalError};
use crate::storage::fs::SharedFs;

/// A log as it was found.
pub(super) struct Log {
    pub(super) replayed: Replayed,
    /// All segments, those that were not read included.
    pub(super) segments: VecDeque<Segment>,
    /// The first of them, which were not: all that they hold was asked to be left out.
    pub(super) unread: usize,
    /// The valid bytes of the last one.
    pub(super) tail_bytes: u64,
    /// What continues them.
    pub(super) chain: Chain,
}

/// Reads from the last segment that begins at or before `from`.
pub(super) fn read(fs: &SharedFs, dir: &Path, from: u64) -> Result<Log, WalError> {
    let mut segments = Segment::list(fs, dir)?;
    let Some(first) = segments.front().map(|segment| segment.index) else {
        return Err(WalError::Absent { dir: dir.to_owned() });
    };
    let Some(begin) = segments.iter().rposition(|segment| segment.index <= from) else {
        return Err(WalError::TooShort { dir: dir.to_owned(), from, first });
    };
    let mut replay = Replay::new(from, segments[begin].index);
    let mut chain = Chain::default();
    let mut tail_bytes = 0;
    let mut torn_at = None;
    let last = segments.len() - 1;
    let mut previous: Option<u64> = None;
    for (position, segment) in segments.iter_mut().enumerate() {
        let mut reader = SegmentReader::open(fs, &segment.path)?;
        segment.bytes = reader.len();
        if position < begin {
            continue;
        }
        if previous.is_some_and(|previous| segment.sequence != previous + 1) {
            return Err(reader.corrupt("the segment before it is missing"));
        }
        previous = Some(segment.sequence);
        let is_torn = read_segment(&mut reader, &mut chain, &mut replay)?;
        if is_torn && position < last {
            return Err(reader.corrupt("a torn record, though the segment is not the last one"));
        }
        if let Some(stamp) = chain.stamp
            && let Some(mark) = reader.mark_behind(stamp)?
        {
            let what = format!("what is lost there was synced before byte {mark} was written");
            return Err(reader.corrupt(what));
        }
        tail_bytes = reader.offset();
        torn_at = is_torn.then_some(tail_bytes);
    }
    let mut replayed = replay.finish().map_err(|missing| lost(dir, &missing))?;
    replayed.contents.torn_at = torn_at;
    Ok(Log { replayed, segments, unread: begin, tail_bytes, chain })
}

/// Reads the head of the newest segment.
pub(super) fn owner(fs: &SharedFs, dir: &Path) -> Result<Owner, WalError> {
    let segments = Segment::list(fs, dir)?;
    let Some(newest) = segments.back() else {
        return Err(WalError::Absent { dir: dir.to_owned() });
    };
    let mut reader = SegmentReader::open(fs, &newest.path)?;
    let mut chain = Chain::default();
    let metadata = read_head(&mut reader, &mut chain, &mut Replay::new(0, newest.index))?;
    Ok(Owner { metadata, stamp: chain.stamp.map(u64::from) })
}

fn lost(dir: &Path, missing: &Missing) -> WalError {
    let Missing { last_index: last, known, how } = *missing;
    WalError::Lost { dir: dir.to_owned(), last, known, how }
}

/// Feeds a segment to `replay`; true if its end is torn.
fn read_segment(
    reader: &mut SegmentReader,
    chain: &mut Chain,
    replay: &mut Replay,
) -> Result<bool, WalError> {
    read_head(reader, chain, replay)?;
    loop {
        let offset = reader.offset();
        let record = match reader.next(chain)? {
            Next::Record(record) => record,
            Next::End => return Ok(false),
            Next::Torn => return Ok(true),
        };
        let damaged = |what| reader.corrupt_at(offset, what);
        match record {
            Record::Metadata(metadata) => replay.metadata(metadata).map_err(damaged)?,
            Record::Entry(entry) => replay.entry(entry).map_err(damaged)?,
            Record::State(state) => replay.hard_state(state),
            Record::Snapshot(position, conf_state) => {
                replay.snapshot(position, conf_state).map_err(damaged)?;
            }
            Record::Crc { .. } => {}
        }
    }
}

/// The checksum and the metadata: synced before the segment had its name, so never torn.
fn read_head(
    reader: &mut SegmentReader,
    chain: &mut Chain,
    replay: &mut Replay,
) -> Result<Metadata, WalError> {
    let Next::Record(Record::Crc { .. }) = reader.next(chain)? else {
        return Err(reader.corrupt_at(0, "no checksum at the beginning"));
    };
    let offset = reader.offset();
    let Next::Record(Record::Metadata(metadata)) = reader.next(chain)? else {
        return Err(reader.corrupt_at(offset, "no metadata at the beginning"));
    };
    replay.metadata(metadata).map_err(|what| reader.corrupt_at(offset, what))?;
    Ok(metadata)
}
