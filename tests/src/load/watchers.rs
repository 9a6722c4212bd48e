//! Many watch streams in one thread, as cheap as they can be: events are counted, not decoded.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

/// The number of `WatchResponse.events`.
const EVENTS: u32 = 11;
/// The longest that a stream may be silent while something is expected of it.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// One stream with its watchers.
#[derive(Debug)]
pub struct WatchStream {
    responses: tonic::Streaming<u64>,
    /// Held open: a stream whose client has nothing more to say may end.
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

impl WatchStream {
    /// Opens a stream on `channel` with so many watchers of `[key, range_end)`, and waits until all
    /// have been created.
    ///
    /// # Errors
    /// When the server refuses or is silent.
    pub async fn open(
        channel: Channel,
        range: (Bytes, Bytes),
        watchers: usize,
    ) -> anyhow::Result<WatchStream> {
        Self::open_from(channel, range, watchers, 0).await
    }

    /// As [`WatchStream::open`], of what happened from a revision on.
    ///
    /// # Errors
    /// As [`WatchStream::open`].
    pub async fn open_from(
        channel: Channel,
        (key, range_end): (Bytes, Bytes),
        watchers: usize,
        start_revision: i64,
    ) -> anyhow::Result<WatchStream> {
        let (requests, receiver) = tokio::sync::mpsc::channel(watchers.max(1));
        for _ in 0..watchers {
            let create = WatchCreateRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                start_revision,
                ..Default::default()
            };
            let request_union = Some(RequestUnion::CreateRequest(create));
            requests.send(WatchRequest { request_union }).await?;
        }
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.context("the connection is lost")?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let call = grpc.streaming(tonic::Request::new(outgoing), path, Counting);
        let responses = call.await.context("a watch failed")?.into_inner();
        let mut stream = WatchStream { responses, _requests: requests };
        for _ in 0..watchers {
            if stream.next().await? != 0 {
                bail!("events came before all watchers were created");
            }
        }
        Ok(stream)
    }

    /// Waits for the next response; how many events are in it.
    ///
    /// # Errors
    /// When the stream ends or is silent for a minute.
    pub async fn next(&mut self) -> anyhow::Result<u64> {
        let response = tokio::time::timeout(SILENCE_MAX, self.responses.message()).await;
        let response = response.context("a watch is silent")?.context("a watch failed")?;
        response.context("a watch has ended")
    }

    /// Takes responses until they held so many events.
    ///
    /// # Errors
    /// As [`WatchStream::next`].
    pub async fn take(&mut self, events: u64) -> anyhow::Result<()> {
        let mut seen = 0;
        while seen < events {
            seen += self.next().await?;
        }
        Ok(())
    }
}

/// Sends requests, and makes of each response the number of its events.
#[derive(Clone, Copy, Debug)]
struct Counting;

impl Codec for Counting {
    type Encode = WatchRequest;
    type Decode = u64;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Counting {
    type Item = WatchRequest;
    type Error = Status;

    fn encode(&mut self, item: WatchRequest, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Counting {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let malformed = |_| Status::internal("a response that cannot be read");
        let mut events = 0;
        while message.has_remaining() {
            let (field, wire_type) = decode_key(message).map_err(malformed)?;
            let number = decode_varint(message).map_err(malformed)?;
            if wire_type == WireType::LengthDelimited {
                events += u64::from(field == EVENTS);
                let len = usize::try_from(number).unwrap_or(usize::MAX);
                message.advance(len.min(message.remaining()));
            }
        }
        Ok(Some(events))
    }
}
