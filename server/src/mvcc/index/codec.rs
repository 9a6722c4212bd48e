//! The bytes of an index checkpoint: slices of keys with the marks of their rows.
//!
//! A slice is decoded without any other. It is a sequence of keys in ascending order, and the first may be
//! the last of the slice before: then these are later rows of it.
//!
//! ```text
//! key   shared: u8, rest: varint, rest bytes      the first `shared` bytes are those of the key before
//!       rows: varint, at least 1
//! row   main: varint                              above the main of the row before, 0 before the first
//!       sub: varint
//!       stored_bytes * 2 + tombstone: varint
//!       main - create_revision, version, lease: varints, not of a tombstone
//! ```
//!
//! Integrity is the concern of the file that holds the slices (it has checksums). Still nothing here
//! trusts a byte: sharing is capped, so that what is allocated stays in proportion to the input.

use bytes::{Buf, BufMut};

use super::Version;
use super::bits::{KEY_BYTES_MAX, shared_len};
use super::entry::{Entry, Mark};
use crate::mvcc::Revision;

/// The most bytes that a key takes from the one before it.
const SHARED_MAX: usize = u8::MAX as usize;

/// Why an index could not be restored. What was restored so far is to be thrown away: the checkpoint
/// or the store is not what this program wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes end within a key or a row.
    #[error("index checkpoint ends within a record")]
    Truncated,
    /// A number is longer than 64 bits, or out of the range of its field.
    #[error("index checkpoint holds a number that is out of range")]
    OutOfRange,
    /// A key or a row is not above the one before it.
    #[error("keys or revisions of the index are not in ascending order")]
    Order,
}

/// Appends one key with the marks of its rows, of which there is at least one.
pub(super) fn encode_key(
    previous: &[u8],
    key: &[u8],
    marks: impl Iterator<Item = Mark> + Clone,
    out: &mut Vec<u8>,
) {
    let shared = shared_len(previous, key).min(SHARED_MAX);
    out.put_u8(u8::try_from(shared).expect("capped above"));
    put_varint(out, (key.len() - shared) as u64);
    out.extend_from_slice(&key[shared..]);
    put_varint(out, marks.clone().count() as u64);
    let mut main_before = 0;
    for mark in marks {
        let revision = mark.revision();
        put_signed(out, revision.main - main_before);
        put_signed(out, revision.sub);
        put_varint(out, u64::from(mark.stored_bytes()) * 2 + u64::from(mark.is_tombstone()));
        if let Some(version) = mark.version() {
            put_signed(out, revision.main - version.create_revision);
            put_signed(out, version.version);
            put_signed(out, version.lease);
        }
        main_before = revision.main;
    }
}

/// Reads the keys of one slice.
pub(super) struct Decoder<'a> {
    input: &'a [u8],
    key: Vec<u8>,
}

impl<'a> Decoder<'a> {
    /// Starts at the first key of `input`.
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, key: Vec::new() }
    }

    /// The next key; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, CheckpointError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        self.read_key()?;
        let more_rows = self.varint()?.checked_sub(1).ok_or(CheckpointError::OutOfRange)?;
        let first = self.read_mark(0)?;
        let mut entry = Entry::new(&self.key, first);
        // A false count ends with the input: a row is at least three bytes.
        for _ in 0..more_rows {
            let mark = self.read_mark(entry.latest().revision().main)?;
            entry.push(mark).map_err(|_| CheckpointError::Order)?;
        }
        Ok(Some(entry))
    }

    fn read_key(&mut self) -> Result<(), CheckpointError> {
        let shared = usize::from(self.input.try_get_u8().map_err(|_| CheckpointError::Truncated)?);
        let rest = usize::try_from(self.varint()?).map_err(|_| CheckpointError::Truncated)?;
        if shared > self.key.len() {
            return Err(CheckpointError::OutOfRange);
        }
        let (rest, input) = self.input.split_at_checked(rest).ok_or(CheckpointError::Truncated)?;
        if shared + rest.len() > KEY_BYTES_MAX {
            return Err(CheckpointError::OutOfRange);
        }
        self.input = input;
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        Ok(())
    }

    fn read_mark(&mut self, main_before: i64) -> Result<Mark, CheckpointError> {
        let main = self.signed()?.checked_add(main_before).ok_or(CheckpointError::OutOfRange)?;
        let revision = Revision::new(main, self.signed()?);
        let head = self.varint()?;
        let stored_bytes = u32::try_from(head / 2).map_err(|_| CheckpointError::OutOfRange)?;
        let mark = if head % 2 == 1 {
            Mark::tombstone(revision, stored_bytes)
        } else {
            let create_revision = main.checked_sub(self.signed()?);
            Mark::put(&Version {
                revision,
                create_revision: create_revision.ok_or(CheckpointError::OutOfRange)?,
                version: self.signed()?,
                lease: self.signed()?,
                stored_bytes,
            })
        };
        mark.ok_or(CheckpointError::OutOfRange)
    }

    fn varint(&mut self) -> Result<u64, CheckpointError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.input.try_get_u8().map_err(|_| CheckpointError::Truncated)?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(CheckpointError::OutOfRange);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CheckpointError::OutOfRange)
    }

    fn signed(&mut self) -> Result<i64, CheckpointError> {
        self.varint().map(u64::cast_signed)
    }
}

/// Seven bits a byte, lowest first; the high bit says that more follow.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// A number that is rarely negative (then it takes ten bytes).
fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, value.cast_unsigned());
}
