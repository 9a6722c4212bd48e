//! The checksum behind every value in the file.
//!
//! redb has checksums of its pages, but looks at them only when it repairs a file. So each value is
//! *sealed*: CRC-32C over key and value follows it, and whoever reads verifies it first. The key is part of
//! it because a value that is found under another key is as wrong as a changed one.
//!
//! ```text
//! "a" -> "value"     is stored as     "a" -> "value" 4 bytes, little-endian
//! ```

use super::error::Fault;

/// What sealing adds to a value, in bytes.
pub(super) const SEAL_BYTES: usize = 4;

/// The sealed form of `value` under `key`, in `buffer`, whose content is replaced.
pub(super) fn seal<'a>(key: &[u8], value: &[u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    buffer.clear();
    buffer.extend_from_slice(value);
    buffer.extend_from_slice(&checksum(key, value).to_le_bytes());
    buffer
}

/// The value in `sealed`, which was read under `key`; `what` names it in the refusal.
///
/// # Errors
/// [`Fault::Damaged`]: key, value or checksum are not those that were written. The process must end.
pub(super) fn unseal<'a>(
    key: &[u8],
    sealed: &'a [u8],
    what: impl FnOnce() -> String,
) -> Result<&'a [u8], Fault> {
    match sealed.split_last_chunk() {
        Some((value, found)) if u32::from_le_bytes(*found) == checksum(key, value) => Ok(value),
        _ => Err(Fault::Damaged(format!("{} does not match its checksum", what()))),
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_key_or_value_or_checksum_is_noticed() {
        let (key, value) = (*b"key", b"a value");
        let mut buffer = b"of before".to_vec();
        let sealed = seal(&key, value, &mut buffer).to_vec();
        assert_eq!(sealed.len(), value.len() + SEAL_BYTES);
        let open = |key: &[u8], sealed: &[u8]| {
            unseal(key, sealed, || "it".into()).map(<[u8]>::to_vec).map_err(|it| it.to_string())
        };
        assert_eq!(open(&key, &sealed), Ok(value.to_vec()));
        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refusal = open(&key, &flipped).expect_err("a flipped bit was served");
            assert!(refusal.contains("it does not match its checksum"), "{refusal}");
        }
        for bit in 0..8 * key.len() {
            let mut flipped = key;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped, &sealed).is_err(), "a value was served under another key");
        }
        for len in 0..sealed.len() {
            assert!(open(&key, &sealed[..len]).is_err(), "a cut value was served");
        }
        assert_eq!(open(b"", seal(b"", b"", &mut buffer)), Ok(Vec::new()));
    }
}
