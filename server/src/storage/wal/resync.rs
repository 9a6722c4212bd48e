//! Tells whether what a reader stopped at had been synced.
//!
//! A power cut in the middle of an append may lose any sectors of it and keep others, so a hole alone says
//! nothing. But the first batch after a sync begins with a checksum record, a mark: whoever finds one
//! knows that all before it was on disk when it was written. So a hole with a mark behind it is damage,
//! and one without is the torn end of what nobody was told of.
//!
//! ```text
//! mark, entry 7, state | mark, ent........te | mark, entry 9, state | 0 0 0     8 was synced: damage
//! mark, entry 7, state | mark, entry 8, state | mark, ent........te | 0 0 0     9 was not: cut
//! ```
//!
//! Of the very last batch nobody can tell, and nothing was written that relied on it. A mark counts only with a record behind it that continues its checksum. What lies in the hole's own record
//! is not looked at if its head is there: a value may be anything, a log too.

use super::WalError;
use super::reader::{READ_BYTES, SegmentReader};
use super::record::{self, Fault, Record, WORD_BYTES};

/// Bytes whose checksums are computed in search of a mark: those of the longest record. Only what was made to
/// look like marks needs more.
const CHECKED_BYTES_MAX: u64 = record::RECORD_BYTES_MAX;
/// The bytes before the data of a record at most: three tags, the type, a varint of 32 and one of 64 bits.
const HEAD_BYTES_MAX: u64 = 2 + 6 + 11;

impl SegmentReader {
    /// Where a mark is behind the reader's offset, where no record can be read.
    ///
    /// # Errors
    /// If the file cannot be read, or holds more that resembles a mark than can be looked at.
    pub(super) fn mark_behind(&mut self) -> Result<Option<u64>, WalError> {
        let mut checked_bytes = 0;
        let mut offset = self.behind_hole()?;
        while offset + WORD_BYTES <= self.len() {
            let step = READ_BYTES.min(self.len() - offset);
            for mark in candidates(self.bytes(offset, step)?) {
                if self.is_mark(offset + mark, &mut checked_bytes)? {
                    return Ok(Some(offset + mark));
                }
                if checked_bytes > CHECKED_BYTES_MAX {
                    return Err(self.corrupt("nobody can tell what is behind it"));
                }
            }
            offset += step;
        }
        Ok(None)
    }

    /// Behind the record at the reader's offset if it says how long it is, else right behind the offset.
    fn behind_hole(&mut self) -> Result<u64, WalError> {
        let begin = self.offset() + WORD_BYTES;
        Ok(self.frame(self.offset())?.map_or(begin, |length| begin + length.next_multiple_of(8)))
    }

    /// The length of the record whose word and head are at `offset`, if they agree on one.
    fn frame(&mut self, offset: u64) -> Result<Option<u64>, WalError> {
        let left = self.len().saturating_sub(offset);
        if left < WORD_BYTES {
            return Ok(None);
        }
        let word = self.bytes(offset, WORD_BYTES)?;
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes were asked for"));
        let Some(length) = record::record_length(word) else { return Ok(None) };
        if WORD_BYTES + length + record::padding(length) > left {
            return Ok(None);
        }
        let head = self.bytes(offset + WORD_BYTES, length.min(HEAD_BYTES_MAX))?;
        Ok(record::may_begin(head, length).then_some(length))
    }

    /// Whether a checksum record is at `offset`, and one that continues it behind.
    fn is_mark(&mut self, offset: u64, checked_bytes: &mut u64) -> Result<bool, WalError> {
        let mut crc = None;
        let mut next = offset;
        let mark =
            self.is_record(&mut next, &mut crc, |record| matches!(record, Record::Crc(_)))?;
        let begin = next;
        let is_mark = mark
            && self.is_record(&mut next, &mut crc, |record| !matches!(record, Record::Crc(_)))?;
        *checked_bytes += next - begin;
        Ok(is_mark)
    }

    /// Whether an intact record is at `offset`, one that `is_wanted`; steps over what was looked at.
    fn is_record(
        &mut self,
        offset: &mut u64,
        crc: &mut Option<u32>,
        is_wanted: impl FnOnce(&Record) -> bool,
    ) -> Result<bool, WalError> {
        let Some(length) = self.frame(*offset)? else { return Ok(false) };
        let body = self.bytes(*offset + WORD_BYTES, length)?;
        *offset += WORD_BYTES + length + record::padding(length);
        Ok(match record::decode(body, crc) {
            Ok(record) => is_wanted(&record),
            // Its checksum is right, which is all that is asked here.
            Err(Fault::Meaningless(_)) => true,
            Err(Fault::Invalid(_)) => false,
        })
    }
}

/// The offsets in `block` of words that may begin a mark.
fn candidates(block: &[u8]) -> Vec<u64> {
    let may_begin = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        record::record_length(word).is_some_and(|length| record::CRC_LENGTHS.contains(&length))
    };
    let (words, _) = block.as_chunks();
    let found = words.iter().zip((0..).step_by(8)).filter(|(word, _)| may_begin(word));
    found.map(|(_, offset)| offset).collect()
}
