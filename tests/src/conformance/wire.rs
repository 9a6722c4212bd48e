//! Calls by name, with messages as bytes: nothing between the transcript and the wire.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost_reflect::MethodDescriptor;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::words;

/// The longest that a call may take; etcd itself gives up a request after 7 s.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One call, ready to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// `package.Service/Method`.
    pub path: String,
    /// The method, if the protocol has it.
    pub method: Option<MethodDescriptor>,
    /// The request.
    pub body: Bytes,
    /// The metadata.
    pub metadata: MetadataMap,
}

/// All messages of the reply, and the status at their end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The method, if the protocol has it.
    pub method: Option<MethodDescriptor>,
    /// The messages.
    pub messages: Vec<Bytes>,
    /// `None` is OK.
    pub error: Option<Status>,
}

/// A client without limits of its own.
pub fn client(channel: &Channel) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(channel.clone())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

/// The path of a method.
///
/// # Errors
/// When it is no path.
pub fn path(method: &str) -> anyhow::Result<PathAndQuery> {
    PathAndQuery::from_str(&format!("/{method}")).context("no method is named so")
}

/// A request with metadata.
pub fn with_metadata<T>(message: T, metadata: MetadataMap) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata;
    request
}

/// Takes the words `@NAME=VALUE` out of a command.
///
/// # Errors
/// When a name or value cannot be metadata.
pub fn take_metadata(words: &mut Vec<String>) -> anyhow::Result<MetadataMap> {
    let mut metadata = MetadataMap::new();
    for word in words.extract_if(.., |word| word.starts_with('@')) {
        let (name, value) = word[1..].split_once('=').context("metadata is @NAME=VALUE")?;
        let value = MetadataValue::try_from(words::bytes(value)?.as_slice())?;
        metadata.append(MetadataKey::from_bytes(name.as_bytes())?, value);
    }
    Ok(metadata)
}

/// Sends a call and takes all of its reply.
///
/// # Errors
/// When it is not answered within [`CALL_DEADLINE`].
pub async fn ask(channel: Channel, call: Call) -> anyhow::Result<Answer> {
    let method = call.method.clone();
    let (messages, error) = match tokio::time::timeout(CALL_DEADLINE, take(channel, call)).await {
        Ok(taken) => taken?,
        Err(_) => bail!("no answer within {CALL_DEADLINE:?}"),
    };
    Ok(Answer { method, messages, error })
}

async fn take(channel: Channel, call: Call) -> anyhow::Result<(Vec<Bytes>, Option<Status>)> {
    let mut client = client(&channel);
    client.ready().await?;
    let request = with_metadata(call.body, call.metadata);
    let path = path(&call.path)?;
    if !call.method.is_some_and(|method| method.is_server_streaming()) {
        return Ok(match client.unary(request, path, Raw).await {
            Ok(reply) => (vec![reply.into_inner()], None),
            Err(status) => (Vec::new(), Some(status)),
        });
    }
    let mut reply = match client.server_streaming(request, path, Raw).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Ok((Vec::new(), Some(status))),
    };
    let mut messages = Vec::new();
    loop {
        match reply.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return Ok((messages, None)),
            Err(status) => return Ok((messages, Some(status))),
        }
    }
}
