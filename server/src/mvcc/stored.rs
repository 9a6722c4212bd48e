//! The stored form of a row: `mvccpb.KeyValue` on the wire, written and read without a copy in between.
//!
//! A range sends what is stored, and `HashKV` covers it, so these are etcd's bytes: fields in
//! ascending order, zeros left out. A tombstone holds its key alone.

use bytes::{BufMut, Bytes};
use prost::encoding::{
    WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint,
};

const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

/// Fields below 16 have tags of one byte.
const TAG_BYTES: usize = 1;

/// The numbers of a `KeyValue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// A stored row, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) numbers: Numbers,
}

/// Encodes a put; an empty `value` is left out.
pub(crate) fn encode(key: &[u8], value: &[u8], numbers: Numbers) -> Bytes {
    // Exactly as large as it gets: it stays for long.
    let before_value = number_len(numbers.create_revision)
        + number_len(numbers.mod_revision)
        + number_len(numbers.version);
    let len = bytes_len(key) + before_value + bytes_len(value) + number_len(numbers.lease);
    let mut out = Vec::with_capacity(len);
    put_bytes(KEY, key, &mut out);
    put_number(CREATE_REVISION, numbers.create_revision, &mut out);
    put_number(MOD_REVISION, numbers.mod_revision, &mut out);
    put_number(VERSION, numbers.version, &mut out);
    put_bytes(VALUE, value, &mut out);
    put_number(LEASE, numbers.lease, &mut out);
    debug_assert_eq!(out.len(), len, "the length was computed field by field");
    Bytes::from(out)
}

/// Encodes a tombstone.
pub(crate) fn encode_tombstone(key: &[u8]) -> Bytes {
    encode(key, b"", Numbers::default())
}

/// The key of a row that [`encode`] or [`encode_tombstone`] made of a key of this length, sharing
/// the row's bytes.
pub(crate) fn shared_key(stored: &Bytes, key_len: usize) -> Bytes {
    if key_len == 0 {
        return Bytes::new();
    }
    let offset = TAG_BYTES + prost::length_delimiter_len(key_len);
    stored.slice(offset..offset + key_len)
}

/// The key of a stored row, sharing its bytes; `None` if it does not begin with one. An empty key is
/// not stored, and begins with nothing.
pub(crate) fn key(stored: &Bytes) -> Option<Bytes> {
    let mut rest: &[u8] = stored;
    let (field, wire_type) = decode_key(&mut rest).ok()?;
    if field != KEY || wire_type != WireType::LengthDelimited {
        return None;
    }
    let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    Some(stored.slice_ref(rest.get(..len)?))
}

/// Reads a stored row; key and value share its bytes. `None` if it is not one.
pub(crate) fn decode(stored: &Bytes) -> Option<KeyValue> {
    let mut kv = KeyValue::default();
    let mut rest: &[u8] = stored;
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest).ok()?;
        let number = decode_varint(&mut rest).ok()?;
        match (field, wire_type) {
            (KEY | VALUE, WireType::LengthDelimited) => {
                let len = usize::try_from(number).ok()?;
                let (bytes, after) = rest.split_at_checked(len)?;
                *if field == KEY { &mut kv.key } else { &mut kv.value } = stored.slice_ref(bytes);
                rest = after;
            }
            (CREATE_REVISION..=VERSION | LEASE, WireType::Varint) => {
                let number = number.cast_signed();
                match field {
                    CREATE_REVISION => kv.numbers.create_revision = number,
                    MOD_REVISION => kv.numbers.mod_revision = number,
                    VERSION => kv.numbers.version = number,
                    _ => kv.numbers.lease = number,
                }
            }
            _ => return None,
        }
    }
    Some(kv)
}

/// Whether a stored row is the put that made its key.
pub(crate) fn is_create(stored: &Bytes) -> bool {
    decode(stored).is_some_and(|KeyValue { numbers, .. }| {
        numbers.create_revision != 0 && numbers.create_revision == numbers.mod_revision
    })
}

fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        return 0;
    }
    TAG_BYTES + prost::length_delimiter_len(bytes.len()) + bytes.len()
}

fn number_len(number: i64) -> usize {
    if number == 0 { 0 } else { TAG_BYTES + encoded_len_varint(number.cast_unsigned()) }
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    }
}

fn put_number(field: u32, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number.cast_unsigned(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use quorate_proto::mvccpb;

    #[test]
    fn the_stored_form_is_the_wire_form() {
        for (key, value, lease) in [("k", "v", 0), ("", "", -1), ("a\0b", "", 7), ("key", "x", 0)] {
            let numbers = Numbers { create_revision: 3, mod_revision: 300, version: 2, lease };
            let stored = encode(key.as_bytes(), value.as_bytes(), numbers);
            let wire = mvccpb::KeyValue {
                key: key.into(),
                create_revision: 3,
                mod_revision: 300,
                version: 2,
                value: value.into(),
                lease,
            };
            assert_eq!(stored, wire.encode_to_vec());
            let read = decode(&stored).unwrap();
            assert_eq!((read.key, read.value), (Bytes::from(key), Bytes::from(value)));
            assert_eq!(read.numbers, numbers);
            assert_eq!(shared_key(&stored, key.len()), key);
            assert_eq!(
                super::key(&stored).filter(|_| !key.is_empty()),
                Some(key.into()).filter(|k: &Bytes| !k.is_empty())
            );
            assert_eq!(shared_key(&encode_tombstone(key.as_bytes()), key.len()), key);
        }
    }

    #[test]
    fn what_is_not_a_row_is_refused() {
        for bytes in [&b"\x0a\x05abc"[..], b"\x0a", b"\x3a\x01x", b"\x10", b"\xff\xff"] {
            assert_eq!(decode(&Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        }
    }
}
