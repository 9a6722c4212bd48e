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
//! Of the very last batch nobody can tell, and nothing was written that relied on it. A mark repeats the
//! stamp of its log, which no client knows: a value may be anything, a log too, and is not taken for one.

use super::WalError;
use super::reader::{READ_BYTES, SegmentReader};
use super::record::{self, Chain, Record, Stamp, WORD_BYTES};

impl SegmentReader {
    /// Where a mark with this stamp is behind the reader's offset, where no record can be read.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn mark_behind(&mut self, stamp: Stamp) -> Result<Option<u64>, WalError> {
        let mut offset = self.offset() + WORD_BYTES;
        while offset + WORD_BYTES <= self.len() {
            let step = READ_BYTES.min(self.len() - offset);
            for mark in candidates(self.bytes(offset, step)?) {
                if self.is_mark(offset + mark, stamp)? {
                    return Ok(Some(offset + mark));
                }
            }
            offset += step;
        }
        Ok(None)
    }

    /// Whether a checksum record with this stamp is at `offset`.
    fn is_mark(&mut self, offset: u64, stamp: Stamp) -> Result<bool, WalError> {
        let begin = offset + WORD_BYTES;
        let word = self.bytes(offset, WORD_BYTES)?;
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes were asked for"));
        let Some(length) =
            record::record_length(word).filter(|length| *length <= self.len() - begin)
        else {
            return Ok(false);
        };
        let mut chain = Chain { crc: None, stamp: Some(stamp) };
        let record = record::decode(self.bytes(begin, length)?, &mut chain);
        Ok(matches!(record, Ok(Record::Crc { stamp: Some(found) }) if found == stamp))
    }
}

/// The offsets in `block` of words that may begin a mark.
fn candidates(block: &[u8]) -> Vec<u64> {
    let may_begin = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        record::record_length(word).is_some_and(|length| record::MARK_LENGTHS.contains(&length))
    };
    let (words, _) = block.as_chunks();
    let found = words.iter().zip((0..).step_by(8)).filter(|(word, _)| may_begin(word));
    found.map(|(_, offset)| offset).collect()
}
