//! Large replies of unary ranges, encoded piece by piece while they are sent.
//!
//! A message of gRPC begins with its length, so it is usually encoded as a whole: a second copy of the
//! reply, in a buffer that doubles as it grows. Here the length is summed up first; then the rows go
//! into small buffers, and each is let go of once it is copied.
//!
//! ```text
//! prefix | header, more, count | kv kv kv ... | kv kv ... | trailers
//! `----------- first piece -----------------' `- next --'
//! ```
//!
//! The rows travel beside the message, in the extensions of the reply: see [`detach`].

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use quorate_proto::etcdserverpb::RangeResponse;
use tonic::{Response, Status};

use super::errors::too_large;
use crate::watch::PREFIX_LEN;

/// Replies with at least this many bytes of rows go this way.
const LARGE_BYTES: usize = 1 << 20;
/// A piece is sent when it has this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// The longest message that etcd sends, in bytes.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// The number of `RangeResponse.kvs`.
const KVS: u32 = 2;

/// The rows of a reply whose message goes without them.
#[derive(Clone)]
struct Detached(Arc<Mutex<Vec<Bytes>>>);

/// A message that is encoded while it is sent.
pub(super) struct Pieces {
    head: Option<Bytes>,
    kvs: std::vec::IntoIter<Bytes>,
}

/// Takes the rows out of a large reply, to be put back by [`Pieces::of`].
///
/// # Errors
/// If the message is longer than gRPC for Go sends any.
pub(super) fn detach(mut reply: RangeResponse) -> Result<Response<RangeResponse>, Status> {
    if reply.kvs.iter().map(Bytes::len).sum::<usize>() < LARGE_BYTES {
        return Ok(Response::new(reply));
    }
    let kvs = std::mem::take(&mut reply.kvs);
    let head: Bytes = reply.encode_to_vec().into();
    let bytes = head.len() + kvs.iter().map(field_len).sum::<usize>();
    let len = u32::try_from(bytes).ok().filter(|_| bytes <= MESSAGE_BYTES_MAX);
    let Some(len) = len else { return Err(too_large(bytes, MESSAGE_BYTES_MAX)) };
    let mut response = Response::new(reply);
    let extensions = response.extensions_mut();
    extensions.insert(Head { bytes: head, len });
    extensions.insert(Detached(Arc::new(Mutex::new(kvs))));
    Ok(response)
}

/// The encoded reply without its rows, and how long it is with them.
#[derive(Clone)]
struct Head {
    bytes: Bytes,
    len: u32,
}

impl Pieces {
    /// The pieces of a reply whose rows were detached; `None` for any other.
    pub(super) fn of(extensions: &mut http::Extensions) -> Option<Self> {
        let Head { bytes, len } = extensions.remove::<Head>()?;
        let Detached(kvs) = extensions.remove::<Detached>()?;
        let kvs = std::mem::take(&mut *kvs.lock());
        let mut first = BytesMut::with_capacity(PREFIX_LEN + bytes.len());
        first.put_u8(0);
        first.put_u32(len);
        first.put(bytes);
        Some(Self { head: Some(first.freeze()), kvs: kvs.into_iter() })
    }
}

fn field_len(kv: &Bytes) -> usize {
    key_len(KVS) + encoded_len_varint(kv.len() as u64) + kv.len()
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        let mut piece = BytesMut::new();
        while piece.len() < PIECE_BYTES
            && let Some(kv) = self.kvs.next()
        {
            if piece.is_empty() {
                piece.reserve(field_len(&kv).max(PIECE_BYTES));
            }
            encode_key(KVS, WireType::LengthDelimited, &mut piece);
            encode_varint(kv.len() as u64, &mut piece);
            piece.put(kv);
        }
        Some(piece.freeze()).filter(|piece| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::etcdserverpb::ResponseHeader;

    fn reply(kvs: Vec<Bytes>) -> RangeResponse {
        let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
        RangeResponse { header: Some(header), kvs, more: true, count: 99 }
    }

    #[test]
    fn the_pieces_of_a_large_reply_are_the_reply() {
        for (count, len) in [(3, 400_000), (200_000, 10), (1, 2 << 20), (1100, 1000)] {
            let whole = reply(vec![Bytes::from(vec![b'x'; len]); count]);
            let mut sent = detach(whole.clone()).unwrap();
            assert!(sent.get_ref().kvs.is_empty());
            let mut bytes = BytesMut::new();
            for piece in Pieces::of(sent.extensions_mut()).unwrap() {
                assert!(piece.len() < 2 * PIECE_BYTES + len);
                bytes.put(piece);
            }
            let mut bytes = bytes.freeze();
            let prefix = bytes.split_to(PREFIX_LEN);
            assert_eq!(prefix[0], 0);
            assert_eq!(prefix[1..], u32::try_from(bytes.len()).unwrap().to_be_bytes());
            assert_eq!(RangeResponse::decode(bytes).unwrap(), whole);
        }
    }

    /// A length beyond 32 bits would be sent as an empty message that looks like no keys.
    #[test]
    fn a_reply_that_grpc_cannot_carry_is_refused_by_its_length() {
        let row = Bytes::from(vec![b'x'; 1 << 20]);
        assert!(detach(reply(vec![row.clone(); 2047])).is_ok());
        for count in [2048, 5000] {
            let whole = reply(vec![row.clone(); count]);
            let bytes = whole.encoded_len();
            let status = detach(whole).unwrap_err();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            let text =
                format!("grpc: trying to send message larger than max ({bytes} vs. 2147483647)");
            assert_eq!(status.message(), text);
        }
    }

    #[test]
    fn a_small_reply_stays_whole() {
        let whole = reply(vec![Bytes::from_static(b"kv")]);
        let mut sent = detach(whole.clone()).unwrap();
        assert!(Pieces::of(sent.extensions_mut()).is_none());
        assert_eq!(sent.into_inner(), whole);
    }
}
