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

use crate::watch::PREFIX_LEN;

/// Replies with at least this many bytes of rows go this way.
const LARGE_BYTES: usize = 1 << 20;
/// A piece is sent when it has this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// What an etcd sends at most in one message.
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
/// `ResourceExhausted` if the reply is longer than a message may be, as gRPC for Go says it: the client
/// has to ask for less.
pub(super) fn detach(mut reply: RangeResponse) -> Result<Response<RangeResponse>, Status> {
    if reply.kvs.iter().map(Bytes::len).sum::<usize>() < LARGE_BYTES {
        return Ok(Response::new(reply));
    }
    let kvs = std::mem::take(&mut reply.kvs);
    let head: Bytes = reply.encode_to_vec().into();
    let len = head.len() + kvs.iter().map(field_len).sum::<usize>();
    if len > MESSAGE_BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({len} vs. {MESSAGE_BYTES_MAX})"
        )));
    }
    let mut response = Response::new(reply);
    let extensions = response.extensions_mut();
    extensions.insert(Head(head));
    extensions.insert(Detached(Arc::new(Mutex::new(kvs))));
    Ok(response)
}

/// The encoded reply without its rows.
#[derive(Clone)]
struct Head(Bytes);

impl Pieces {
    /// The pieces of a reply whose rows were detached; `None` for any other.
    pub(super) fn of(extensions: &mut http::Extensions) -> Option<Self> {
        let Head(head) = extensions.remove::<Head>()?;
        let Detached(kvs) = extensions.remove::<Detached>()?;
        Some(Self::new(head, std::mem::take(&mut *kvs.lock())))
    }

    fn new(head: Bytes, kvs: Vec<Bytes>) -> Self {
        let rows: usize = kvs.iter().map(field_len).sum();
        let len = u32::try_from(head.len() + rows).expect("whoever detached it looked");
        let mut first = BytesMut::with_capacity(PREFIX_LEN + head.len());
        first.put_u8(0);
        first.put_u32(len);
        first.put(head);
        Self { head: Some(first.freeze()), kvs: kvs.into_iter() }
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

    #[test]
    fn a_reply_that_no_message_can_hold_is_refused_and_not_sent_without_its_rows() {
        let row = Bytes::from(vec![b'x'; 64 << 20]);
        for (rows, fits) in [(31, true), (32, false), (65, false)] {
            let sent = detach(reply(vec![row.clone(); rows]));
            assert_eq!(sent.is_ok(), fits, "{rows} rows");
            if let Err(status) = sent {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                assert!(status.message().ends_with(" vs. 2147483647)"), "{}", status.message());
            }
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
