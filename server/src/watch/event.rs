//! What happened to one key, in the form in which it is sent.
//!
//! A stored row is a `mvccpb.KeyValue` in wire form already, so an event is sent by copying it behind a
//! few bytes; only a tombstone gets its revision added, once.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::mvcc::{Revision, Row, stored};

/// Tags of `mvccpb.Event`, and of `WatchResponse.events`: all take one byte.
const TYPE: u32 = 1;
const KV: u32 = 2;
const PREV_KV: u32 = 3;
const EVENTS: u32 = 11;
const TAG_BYTES: usize = 1;

/// `mvccpb.KeyValue.mod_revision`.
const MOD_REVISION: u32 = 3;
/// `mvccpb.Event.EventType.DELETE`.
const DELETE: u64 = 1;

/// One change of one key.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Revision,
    pub(super) is_delete: bool,
    /// `mvccpb.KeyValue` as it is sent.
    kv: Bytes,
    pub(super) prev: Previous,
}

/// The version that an event replaced or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Previous {
    /// Nobody asked when the event came in.
    NotRead,
    /// There was none, or it is compacted, or the put made the key.
    None,
    /// `mvccpb.KeyValue` as it is sent.
    Kv(Bytes),
}

/// Which events a watcher wants, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
    /// Send the previous version along.
    pub prev_kv: bool,
}

impl Filter {
    /// Whether an event passes.
    pub(super) fn admits(self, event: &Event) -> bool {
        if event.is_delete { !self.no_delete } else { !self.no_put }
    }
}

impl Event {
    /// The event that `row` records.
    pub(super) fn new(row: &Row, prev: Previous) -> Self {
        let at = row.key.revision();
        let is_delete = row.key.is_tombstone();
        let kv = if is_delete { with_revision(&row.stored, at.main) } else { row.stored.clone() };
        Self { at, is_delete, kv, prev }
    }

    /// What it keeps in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let prev = if let Previous::Kv(kv) = &self.prev { kv.len() } else { 0 };
        self.kv.len() + prev + std::mem::size_of::<Self>()
    }

    /// How long it is as an element of `WatchResponse.events`, in bytes.
    pub(super) fn encoded_len(&self, with_prev: bool) -> usize {
        let len = self.message_len(with_prev);
        TAG_BYTES + encoded_len_varint(len as u64) + len
    }

    /// Appends it as an element of `WatchResponse.events`.
    pub(super) fn encode(&self, with_prev: bool, out: &mut Vec<u8>) {
        let len = self.message_len(with_prev);
        encode_key(EVENTS, WireType::LengthDelimited, out);
        encode_varint(len as u64, out);
        if self.is_delete {
            encode_key(TYPE, WireType::Varint, out);
            encode_varint(DELETE, out);
        }
        put_field(KV, &self.kv, out);
        if let Some(prev) = self.sent_prev(with_prev) {
            put_field(PREV_KV, prev, out);
        }
    }

    fn message_len(&self, with_prev: bool) -> usize {
        let type_bytes = if self.is_delete { TAG_BYTES + 1 } else { 0 };
        type_bytes + field_len(&self.kv) + self.sent_prev(with_prev).map_or(0, field_len)
    }

    fn sent_prev(&self, with_prev: bool) -> Option<&Bytes> {
        match &self.prev {
            Previous::Kv(kv) if with_prev => Some(kv),
            _ => None,
        }
    }
}

/// Whether a row may have a previous version: one that made its key has none, as in etcd, whatever the
/// same revision deleted before it.
pub(super) fn has_previous(row: &Row) -> bool {
    !stored::is_create(&row.stored)
}

/// The key of a row, sharing its bytes; `None` if it is not a row.
pub(super) fn key_of(row: &Row) -> Option<Bytes> {
    stored::key(&row.stored)
}

fn with_revision(tombstone: &[u8], main: i64) -> Bytes {
    let number = main.cast_unsigned();
    let mut kv = Vec::with_capacity(tombstone.len() + TAG_BYTES + encoded_len_varint(number));
    kv.put_slice(tombstone);
    encode_key(MOD_REVISION, WireType::Varint, &mut kv);
    encode_varint(number, &mut kv);
    kv.into()
}

fn field_len(kv: &Bytes) -> usize {
    TAG_BYTES + encoded_len_varint(kv.len() as u64) + kv.len()
}

fn put_field(tag: u32, kv: &Bytes, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(kv.len() as u64, out);
    out.put_slice(kv);
}
