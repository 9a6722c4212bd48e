//! The messages of a request stream, one by one.
//!
//! What tonic has for this keeps a buffer of 8 KiB for each stream, which ten thousand idle watches
//! would pay. Here a message that arrives in one piece, as small ones do, is decoded where it is.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use tonic::Status;

use super::body::RequestBody;
use crate::watch::PREFIX_LEN;

/// The messages of a request, decoded as they come. The body refuses what is too large, compressed or torn.
pub(super) struct Incoming<M> {
    body: RequestBody,
    /// The part of a message that has arrived.
    part: BytesMut,
    /// A piece that has not been looked at to its end.
    piece: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<M: prost::Message + Default> Incoming<M> {
    pub(super) fn new(body: RequestBody) -> Self {
        Self { body, part: BytesMut::new(), piece: Bytes::new(), message: PhantomData }
    }

    /// The next message; `None` when the client has said everything.
    ///
    /// # Errors
    /// The status with which the call ends.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M, Status>>> {
        loop {
            if let Some(message) = self.take().transpose() {
                return Poll::Ready(Some(message));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// A message that is there as a whole.
    fn take(&mut self) -> Result<Option<M>, Status> {
        if self.part.is_empty()
            && let Some(len) = message_len(&self.piece)
            && self.piece.len() >= PREFIX_LEN + len
        {
            self.piece.advance(PREFIX_LEN);
            return decode(self.piece.split_to(len)).map(Some);
        }
        self.part.extend_from_slice(&self.piece);
        self.piece = Bytes::new();
        let Some(len) = message_len(&self.part) else { return Ok(None) };
        if self.part.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        // What is behind the message is the next piece, so that nothing is copied twice.
        let mut whole = std::mem::take(&mut self.part).freeze();
        whole.advance(PREFIX_LEN);
        let message = whole.split_to(len);
        self.piece = whole;
        decode(message).map(Some)
    }
}

/// The length of the message at the beginning; `None` if not even that is there.
fn message_len(bytes: &[u8]) -> Option<usize> {
    let [_, length @ ..] = *bytes.first_chunk::<PREFIX_LEN>()?;
    Some(u32::from_be_bytes(length) as usize)
}

fn decode<M: prost::Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}
