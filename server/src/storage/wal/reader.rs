//! Reads the records of one segment, and tells a torn end from damage.
//!
//! A write that a crash cut short leaves each sector as it was before or as it should be: and before, it
//! was zeros behind the last record. So the log ends
//! - at a length word of zero, if the rest of its sector is zero too;
//! - in a record that is not valid and has an all-zero sector (etcd's rule), or behind which there is
//!   nothing but zeros from before its last byte on, or that the end of the file cuts.
//!
//! Whether that is the end or a hole, `resync` finds out. In the last two cases the bytes that are there
//! must also agree on the record's length: a damaged length word must not pass for a torn record and take
//! everything behind it along. What is none of these is damage. Only the last segment may be torn: the one
//! before was synced as a whole.

use std::path::{Path, PathBuf};

use super::WalError;
use super::record::{self, Chain, Fault, Record, WORD_BYTES};
use crate::storage::fs::{File, OpenMode, SharedFs};

/// What a disk writes whole or not at all, bytes.
const SECTOR_BYTES: u64 = 512;
/// Bytes that are read ahead.
pub(super) const READ_BYTES: u64 = 256 << 10;

/// A segment that is read from its beginning.
pub(super) struct SegmentReader {
    path: PathBuf,
    file: Box<dyn File>,
    len: u64,
    /// Where the next frame begins.
    offset: u64,
    buffer: Vec<u8>,
    buffer_offset: u64,
}

/// What is at the reader's offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Record(Record),
    /// The zeros behind the last record, or the end of the file.
    End,
    /// A record that a crash cut short. In any segment but the last one that is damage too.
    Torn,
}

impl SegmentReader {
    pub(super) fn open(fs: &SharedFs, path: &Path) -> Result<Self, WalError> {
        let file = fs.open(path, OpenMode::Existing).map_err(WalError::io("open", path))?;
        let len = file.len().map_err(WalError::io("measure", path))?;
        let path = path.to_owned();
        Ok(Self { path, file, len, offset: 0, buffer: Vec::new(), buffer_offset: 0 })
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The next record; steps over it if there is one. `chain` as for [`record::decode`].
    ///
    /// # Errors
    /// `Corrupt` where the log can be believed no further.
    pub(super) fn next(&mut self, chain: &mut Chain) -> Result<Next, WalError> {
        if self.len - self.offset < WORD_BYTES {
            let rest = self.bytes(self.offset, self.len - self.offset)?;
            let is_end = rest.iter().all(|byte| *byte == 0);
            return Ok(if is_end { Next::End } else { Next::Torn });
        }
        let word = self.bytes(self.offset, WORD_BYTES)?;
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes were asked for"));
        if word == 0 {
            return self.end();
        }
        let Some(length) = record::record_length(word) else {
            return self.torn_word(word);
        };
        let frame_end = self.offset + WORD_BYTES + length + record::padding(length);
        if frame_end > self.len {
            return self.torn(length, "a record that is longer than the rest of the file");
        }
        let begin = self.offset + WORD_BYTES;
        let body = self.bytes(begin, frame_end - begin)?;
        let (body, padding) =
            body.split_at(usize::try_from(length).expect("bounded by RECORD_BYTES_MAX"));
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.corrupt("padding that is not zero"));
        }
        match record::decode(body, chain) {
            Ok(record) => {
                self.offset = frame_end;
                Ok(Next::Record(record))
            }
            Err(Fault::Invalid(what)) => self.torn(length, &what),
            Err(Fault::Meaningless(what)) => Err(self.corrupt(what)),
        }
    }

    /// A zero word ends the log only if nothing follows it in its sector.
    fn end(&mut self) -> Result<Next, WalError> {
        let sector_end = (self.offset + 1).next_multiple_of(SECTOR_BYTES).min(self.len);
        let rest = self.bytes(self.offset, sector_end - self.offset)?;
        if rest.iter().all(|byte| *byte == 0) {
            Ok(Next::End)
        } else {
            Err(self.corrupt("a record without a length"))
        }
    }

    fn torn_word(&mut self, word: u64) -> Result<Next, WalError> {
        if self.last_non_zero()?.is_none_or(|last| last < self.offset + WORD_BYTES) {
            Ok(Next::Torn)
        } else {
            Err(self.corrupt(format!("{word:#018x} is not the length of a record")))
        }
    }

    /// Decides about a record of `length` bytes that is not valid.
    fn torn(&mut self, length: u64, what: &str) -> Result<Next, WalError> {
        let begin = self.offset + WORD_BYTES;
        let end = (begin + length).min(self.len);
        let last = self.last_non_zero()?.unwrap_or(0);
        let is_cut = begin + length + record::padding(length) > self.len;
        let is_zeroed = last + 1 < begin + length;
        if !is_cut && !is_zeroed && !self.has_zero_sector(begin, end)? {
            return Err(self.corrupt(what));
        }
        // Only what is before the first zeroed sector is known to be the record's.
        let first_sector_end = (begin + 1).next_multiple_of(SECTOR_BYTES);
        let known_end = first_sector_end.min(end).min(last + 1).max(begin);
        let prefix = self.bytes(begin, known_end - begin)?;
        let is_sector_lost = prefix.iter().all(|byte| *byte == 0);
        if is_sector_lost || record::may_begin(prefix, length) {
            Ok(Next::Torn)
        } else {
            Err(self.corrupt(what))
        }
    }

    /// etcd's rule: one of the pieces into which sectors cut the record is all zero.
    fn has_zero_sector(&mut self, begin: u64, end: u64) -> Result<bool, WalError> {
        let mut offset = begin;
        while offset < end {
            let piece_end = (offset + 1).next_multiple_of(SECTOR_BYTES).min(end);
            if self.bytes(offset, piece_end - offset)?.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            offset = piece_end;
        }
        Ok(false)
    }

    /// The offset of the last byte of the file that is not zero, from the reader's offset on.
    fn last_non_zero(&mut self) -> Result<Option<u64>, WalError> {
        let mut end = self.len;
        while end > self.offset {
            let begin = end.saturating_sub(READ_BYTES).max(self.offset);
            let bytes = self.bytes(begin, end - begin)?;
            if let Some(position) = bytes.iter().rposition(|byte| *byte != 0) {
                return Ok(Some(begin + position as u64));
            }
            end = begin;
        }
        Ok(None)
    }

    /// `length` bytes at `offset`, which are within the file.
    pub(super) fn bytes(&mut self, offset: u64, length: u64) -> Result<&[u8], WalError> {
        let buffered = self.buffer_offset..self.buffer_offset + self.buffer.len() as u64;
        if offset < buffered.start || offset + length > buffered.end {
            let ahead = length.max(READ_BYTES).min(self.len - offset);
            let ahead = usize::try_from(ahead).expect("bounded by RECORD_BYTES_MAX");
            self.buffer.clear();
            self.buffer.resize(ahead, 0);
            self.buffer_offset = offset;
            if let Err(error) = self.file.read_at(offset, &mut self.buffer) {
                self.buffer.clear();
                return Err(WalError::io("read", &self.path)(error));
            }
        }
        let begin = usize::try_from(offset - self.buffer_offset).expect("within the buffer");
        let length = usize::try_from(length).expect("within the buffer");
        Ok(&self.buffer[begin..begin + length])
    }

    /// What is wrong at the reader's offset.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> WalError {
        self.corrupt_at(self.offset, what)
    }

    /// What is wrong with a record that was stepped over.
    pub(super) fn corrupt_at(&self, offset: u64, what: impl Into<String>) -> WalError {
        WalError::corrupt(&self.path, offset, what)
    }
}
