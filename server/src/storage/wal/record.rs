//! One record of the log, as bytes.
//!
//! ```text
//! | length word, 8 B little-endian      | walpb.Record { type, crc, data } | 0 to 7 zeros |
//! | low 56 bits: length of the Record;  |
//! | high byte: 0, or 0x80 | padding     |
//! ```
//!
//! The form is etcd's, so tools made for its log read ours. The checksum rolls: it covers the `data`
//! of every record since the log began, so a record is only valid behind the one it was written
//! behind. It does not cover the record's type. Therefore every record must be exactly what its
//! decoded form encodes to, and an entry always carries its `data` field, even if empty: then no two
//! types that differ in one bit have the same form, and no flipped bit passes.

use std::ops::RangeInclusive;

use bytes::Bytes;
use prost::Message;
use quorate_proto::{etcdserverpb, raftpb, walpb};

use super::{Metadata, Position};
use crate::consensus::{ConfState, Entry, EntryKind, HardState};

/// The length word.
pub(super) const WORD_BYTES: u64 = 8;
/// The longest record, bytes. Far above the largest request; a longer one is damage.
pub(super) const RECORD_BYTES_MAX: u64 = 256 << 20;
/// What a record adds to the data of an entry at most: word, padding, and the fields of two messages.
pub(super) const ENTRY_OVERHEAD_MAX: u64 = 8 + 7 + (2 + 6 + 6) + (2 + 11 + 11 + 6);
/// The most data of an entry, bytes.
pub const ENTRY_DATA_BYTES_MAX: u64 = RECORD_BYTES_MAX - ENTRY_OVERHEAD_MAX;
/// The longest record of a hard state.
pub(super) const HARD_STATE_BYTES_MAX: u64 = 8 + 7 + (2 + 6 + 6) + 33;
/// The lengths of a mark: two tags, the type, a varint of 32 bits, and the stamp with tag and length.
pub(super) const MARK_LENGTHS: RangeInclusive<u64> = 14..=18;
/// A mark with its word and padding.
pub(super) const MARK_FRAME_BYTES: u64 = WORD_BYTES + 24;
/// Scratch space that is kept between batches, bytes.
const KEPT_BYTES_MAX: usize = 4 << 20;

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CRC: i64 = 4;
const SNAPSHOT: i64 = 5;

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Metadata(Metadata),
    Entry(Entry),
    State(HardState),
    /// States the checksum so far.
    Crc {
        stamp: Option<Stamp>,
    },
    Snapshot(Position, Option<ConfState>),
}

/// What every checksum record of a log repeats. It is drawn at random and never leaves the member, so
/// nothing that a client writes looks like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([u8; 8]);

impl From<Stamp> for u64 {
    fn from(Stamp(bytes): Stamp) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl From<u64> for Stamp {
    fn from(random: u64) -> Self {
        Self(random.to_le_bytes())
    }
}

/// What a record must continue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    /// The checksum of all before it; `None` where reading begins.
    pub(super) crc: Option<u32>,
    /// The stamp of its log; `None` where reading begins, and in a log that has none, as etcd's.
    pub(super) stamp: Option<Stamp>,
}

/// Appends records to a buffer and carries the rolling checksum.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    crc: u32,
    stamp: Option<Stamp>,
    bytes: Vec<u8>,
    data: Vec<u8>,
}

impl Encoder {
    /// An encoder that goes on behind records with the checksum `crc`.
    pub(super) fn new(crc: u32, stamp: Option<Stamp>) -> Self {
        Self { crc, stamp, ..Self::default() }
    }

    /// What was encoded since `clear`.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.data.shrink_to(KEPT_BYTES_MAX);
    }

    /// States the checksum so far; the first record of each segment, and of each batch that follows a sync.
    pub(super) fn crc(&mut self) {
        let data = self.stamp.map(|Stamp(bytes)| Bytes::copy_from_slice(&bytes));
        self.frame(&walpb::Record { r#type: Some(CRC), crc: Some(self.crc), data });
    }

    pub(super) fn metadata(&mut self, metadata: Metadata) {
        let message = etcdserverpb::Metadata {
            node_id: Some(metadata.member_id),
            cluster_id: Some(metadata.cluster_id),
        };
        self.record(METADATA, &message);
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        let kind = match entry.kind {
            EntryKind::Normal => raftpb::EntryType::EntryNormal,
            EntryKind::ConfChange => raftpb::EntryType::EntryConfChange,
        };
        let message = raftpb::Entry {
            r#type: Some(kind.into()),
            term: Some(entry.term),
            index: Some(entry.index),
            data: Some(entry.data.clone()),
        };
        self.record(ENTRY, &message);
    }

    pub(super) fn hard_state(&mut self, state: &HardState) {
        let message = raftpb::HardState {
            term: Some(state.term),
            vote: Some(state.vote),
            commit: Some(state.commit),
        };
        self.record(STATE, &message);
    }

    pub(super) fn snapshot(&mut self, position: Position, conf_state: Option<&ConfState>) {
        let conf_state = conf_state.map(|conf_state| raftpb::ConfState {
            voters: conf_state.voters.clone(),
            learners: conf_state.learners.clone(),
            auto_leave: Some(false),
            ..raftpb::ConfState::default()
        });
        let message =
            walpb::Snapshot { index: Some(position.index), term: Some(position.term), conf_state };
        self.record(SNAPSHOT, &message);
    }

    fn record(&mut self, kind: i64, message: &impl Message) {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        message.encode(&mut data).expect("a Vec grows as needed");
        self.crc = crc32c::crc32c_append(self.crc, &data);
        // The fields of `walpb.Record`, by hand: its own encoder would need the data as `Bytes`.
        let head = walpb::Record { r#type: Some(kind), crc: Some(self.crc), data: None };
        let length_bytes = prost::encoding::encoded_len_varint(data.len() as u64);
        let length = head.encoded_len() + 1 + length_bytes + data.len();
        self.frame_start(length);
        head.encode(&mut self.bytes).expect("a Vec grows as needed");
        self.bytes.push(DATA_TAG);
        prost::encoding::encode_varint(data.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(&data);
        self.frame_end();
        self.data = data;
    }

    fn frame(&mut self, record: &walpb::Record) {
        self.frame_start(record.encoded_len());
        record.encode(&mut self.bytes).expect("a Vec grows as needed");
        self.frame_end();
    }

    fn frame_start(&mut self, length: usize) {
        assert!(length as u64 <= RECORD_BYTES_MAX, "a record of {length} bytes is too long");
        self.bytes.extend_from_slice(&length_word(length as u64).to_le_bytes());
    }

    fn frame_end(&mut self) {
        // Every batch is a whole number of words, so the buffer's length stands for the frame's.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

/// `data`, field 3, length-delimited.
const DATA_TAG: u8 = 0x1a;

/// The word before a record of `length` bytes.
pub(super) fn length_word(length: u64) -> u64 {
    match padding(length) {
        0 => length,
        padding => length | (0x80 | padding) << 56,
    }
}

/// The length of the record behind `word`, if the word is one that we write.
pub(super) fn record_length(word: u64) -> Option<u64> {
    let length = word & ((1 << 56) - 1);
    (length > 0 && length <= RECORD_BYTES_MAX && length_word(length) == word).then_some(length)
}

/// Zeros behind a record of `length` bytes.
pub(super) fn padding(length: u64) -> u64 {
    (8 - length % 8) % 8
}

/// What is wrong with a record.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what was written; the rest of it may never have reached the disk.
    Invalid(String),
    /// Its checksum is right, so all of it is there, and still it means nothing to us.
    Meaningless(String),
}

/// Decodes the body of a frame. `chain` is what is before it and becomes what is behind it.
///
/// # Errors
/// Says what is wrong; `chain` is as before if the record is `Invalid`.
pub(super) fn decode(body: &[u8], chain: &mut Chain) -> Result<Record, Fault> {
    let (kind, data) = check(body, chain).map_err(Fault::Invalid)?;
    decode_data(kind, data).map_err(Fault::Meaningless)
}

/// Takes a record apart and compares its checksum: the one part that a torn write can fail.
fn check(body: &[u8], chain: &mut Chain) -> Result<(i64, Bytes), String> {
    let record = walpb::Record::decode(body).map_err(|error| format!("no record ({error})"))?;
    let (Some(kind), Some(found)) = (record.r#type, record.crc) else {
        return Err("a record without type or checksum".to_owned());
    };
    if record.encoded_len() != body.len() || !has_head(body, kind, found) {
        return Err("a record in a form that is never written".to_owned());
    }
    let data = record.data.unwrap_or_default();
    if kind == CRC {
        *chain = continued(*chain, found, &data)?;
        return Ok((kind, data));
    }
    let Some(before) = chain.crc else {
        return Err("a segment that does not begin with a checksum".to_owned());
    };
    let expected = crc32c::crc32c_append(before, &data);
    if expected != found {
        return Err(format!("checksum {found:#010x} instead of {expected:#010x}"));
    }
    chain.crc = Some(expected);
    Ok((kind, data))
}

/// The chain behind a checksum record. etcd reads none of its data.
fn continued(chain: Chain, crc: u32, data: &[u8]) -> Result<Chain, String> {
    if chain.crc.is_some_and(|expected| expected != crc) {
        return Err("the checksum does not continue that of the records before it".to_owned());
    }
    let stamp = stamp(data).ok_or("a checksum record in a form that is never written")?;
    let is_first = chain.crc.is_none() && chain.stamp.is_none();
    if !is_first && stamp != chain.stamp {
        return Err("a checksum record of another log".to_owned());
    }
    Ok(Chain { crc: Some(crc), stamp })
}

/// The stamp in a checksum record, if it has one; `None` if that is none.
fn stamp(data: &[u8]) -> Option<Option<Stamp>> {
    match data.try_into() {
        Ok(bytes) => Some(Some(Stamp(bytes))),
        Err(_) => data.is_empty().then_some(None),
    }
}

/// Whether `body` begins with type and checksum in their shortest form: a decoder takes others too.
fn has_head(body: &[u8], kind: i64, crc: u32) -> bool {
    let mut head = [0; 32];
    let mut rest = &mut head[..];
    let record = walpb::Record { r#type: Some(kind), crc: Some(crc), data: None };
    record.encode(&mut rest).expect("two varints with their tags fit");
    let unused = rest.len();
    body.starts_with(&head[..head.len() - unused])
}

fn decode_data(kind: i64, data: Bytes) -> Result<Record, String> {
    match kind {
        CRC => Ok(Record::Crc { stamp: stamp(&data).flatten() }),
        METADATA => {
            let message: etcdserverpb::Metadata = exactly(&data, "metadata")?;
            let (Some(member_id), Some(cluster_id)) = (message.node_id, message.cluster_id) else {
                return Err("metadata without IDs".to_owned());
            };
            Ok(Record::Metadata(Metadata { cluster_id, member_id }))
        }
        ENTRY => decode_entry(&data),
        STATE => {
            let message: raftpb::HardState = exactly(&data, "hard state")?;
            let (Some(term), Some(vote), Some(commit)) =
                (message.term, message.vote, message.commit)
            else {
                return Err("an incomplete hard state".to_owned());
            };
            Ok(Record::State(HardState { term, vote, commit }))
        }
        SNAPSHOT => decode_snapshot(&data),
        unknown => Err(format!("a record of type {unknown}, which this version does not know")),
    }
}

fn decode_entry(data: &Bytes) -> Result<Record, String> {
    let message: raftpb::Entry = exactly(data, "entry")?;
    let (Some(kind), Some(term), Some(index), Some(data)) =
        (message.r#type, message.term, message.index, message.data)
    else {
        return Err("an incomplete entry".to_owned());
    };
    let kind = match raftpb::EntryType::try_from(kind) {
        Ok(raftpb::EntryType::EntryNormal) => EntryKind::Normal,
        Ok(raftpb::EntryType::EntryConfChange) => EntryKind::ConfChange,
        _ => return Err(format!("entry {index} of kind {kind}, which this version does not know")),
    };
    Ok(Record::Entry(Entry { index, term, kind, data }))
}

fn decode_snapshot(data: &Bytes) -> Result<Record, String> {
    let message: walpb::Snapshot = exactly(data, "snapshot record")?;
    let (Some(index), Some(term)) = (message.index, message.term) else {
        return Err("an incomplete snapshot record".to_owned());
    };
    let conf_state = message.conf_state.map(|conf_state| {
        if !conf_state.voters_outgoing.is_empty()
            || !conf_state.learners_next.is_empty()
            || conf_state.auto_leave()
        {
            return Err("a joint configuration, which is never written".to_owned());
        }
        Ok(ConfState { voters: conf_state.voters, learners: conf_state.learners })
    });
    Ok(Record::Snapshot(Position { index, term }, conf_state.transpose()?))
}

/// Decodes a message and refuses what would not encode to the same bytes.
fn exactly<M: Message + Default>(data: &Bytes, what: &str) -> Result<M, String> {
    let message = M::decode(data.clone()).map_err(|error| format!("no {what} ({error})"))?;
    if message.encoded_len() == data.len() {
        Ok(message)
    } else {
        Err(format!("{what} with unknown fields"))
    }
}

/// Whether `prefix`, the beginning of a record's body that was cut or zeroed somewhere, can be that of
/// a record of `length` bytes.
///
/// The body repeats its length: fields, then the length of its data. So a damaged length word is told
/// from a torn record. True if too little is there to know.
pub(super) fn may_begin(prefix: &[u8], length: u64) -> bool {
    let mut rest = prefix;
    for tag in [0x08, 0x10, DATA_TAG] {
        let Some((&found, behind)) = rest.split_first() else { return true };
        if found != tag {
            return false;
        }
        rest = behind;
        let Some(end) = rest.iter().position(|byte| byte & 0x80 == 0) else {
            return rest.len() < 10;
        };
        let Ok(value) = prost::encoding::decode_varint(&mut rest) else { return false };
        let used = (prefix.len() - rest.len()) as u64;
        debug_assert!(end < 10, "decode_varint refuses longer ones");
        if tag == DATA_TAG {
            return used.checked_add(value) == Some(length);
        }
        if used == length {
            return true;
        }
    }
    unreachable!("the loop ends with the data tag")
}
