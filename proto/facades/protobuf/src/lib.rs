//! The three methods that the `raft` crate calls on `protobuf` messages, given to `prost` messages.
//!
//! `raft` 0.7 is written for `protobuf` 2, which is no longer maintained (RUSTSEC-2024-0437) and whose
//! code generator needs a `protoc`. It uses very little of it: the size of an entry, and a
//! configuration change to and from bytes. This facade takes the place of `protobuf` by
//! `[patch.crates-io]` and implements just that for every [`prost::Message`], so that the published
//! `raft` builds unchanged, with one protobuf library in the tree.
//!
//! ```
//! use protobuf::Message as _;
//!
//! assert_eq!(7_u64.compute_size(), 2); // Any prost message will do; a number is a wrapper message.
//! ```

use std::fmt;

/// The part of `protobuf::Message` that `raft` uses.
pub trait Message {
    /// The length of the encoded message in bytes; `u32::MAX` when it is longer.
    fn compute_size(&self) -> u32;

    /// The encoded message.
    ///
    /// # Errors
    /// Never; the signature is that of `protobuf` 2.
    fn write_to_bytes(&self) -> Result<Vec<u8>, ProtobufError>;

    /// Reads `bytes` over this message: fields that are there replace or extend those it has.
    ///
    /// # Errors
    /// `bytes` are not an encoded message. This one may then be half changed: drop it.
    fn merge_from_bytes(&mut self, bytes: &[u8]) -> Result<(), ProtobufError>;
}

impl<M: prost::Message> Message for M {
    fn compute_size(&self) -> u32 {
        u32::try_from(self.encoded_len()).unwrap_or(u32::MAX)
    }

    fn write_to_bytes(&self) -> Result<Vec<u8>, ProtobufError> {
        Ok(self.encode_to_vec())
    }

    fn merge_from_bytes(&mut self, bytes: &[u8]) -> Result<(), ProtobufError> {
        self.merge(bytes).map_err(ProtobufError)
    }
}

/// Bytes that are not the message they were taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtobufError(prost::DecodeError);

impl fmt::Display for ProtobufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ProtobufError {}

#[cfg(test)]
mod tests {
    use super::Message as _;

    #[test]
    fn a_message_survives_its_own_bytes_and_refuses_others() {
        let text = "quorum".to_owned();
        let bytes = text.write_to_bytes().unwrap();
        assert_eq!(text.compute_size() as usize, bytes.len());

        let mut back = String::new();
        back.merge_from_bytes(&bytes).unwrap();
        assert_eq!(back, text);
        assert!(String::new().merge_from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}
