//! Streams that stay open over several commands.
//!
//! A stream is driven by a task of its own: an etcd sends its response headers with the first message,
//! so whoever waits for them before sending a request waits for ever. At most one message is held for
//! the reader; what is not read waits at the server.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::wire::{self, Raw};

/// The longest that one expected message may take; an expiry takes up to 4 s.
pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(20);
/// How long nothing has to come to count as silence.
pub const SILENCE: Duration = Duration::from_millis(250);

/// What came.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Bytes),
    /// The end, with its error.
    End(Option<Status>),
    /// Nothing within the time.
    Nothing,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    to: Option<mpsc::Sender<Bytes>>,
    from: mpsc::Receiver<Result<Bytes, Status>>,
    task: JoinHandle<()>,
    is_of_call: bool,
}

impl Stream {
    /// Opens a stream of requests and replies.
    pub fn open(channel: &Channel, method: &'static str, metadata: MetadataMap) -> Stream {
        let (to, requests) = mpsc::channel(64);
        let (replies, from) = mpsc::channel(1);
        let mut client = wire::client(channel);
        let task = tokio::spawn(async move {
            let Ok(path) = wire::path(method) else { return };
            let requests = wire::with_metadata(ReceiverStream::new(requests), metadata);
            let opened = match client.ready().await {
                Ok(()) => client.streaming(requests, path, Raw).await,
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
            forward(opened.map(tonic::Response::into_inner), replies).await;
        });
        Stream { to: Some(to), from, task, is_of_call: false }
    }

    /// Opens a stream of replies to one request.
    pub fn of_call(channel: &Channel, call: wire::Call) -> Stream {
        let (replies, from) = mpsc::channel(1);
        let mut client = wire::client(channel);
        let task = tokio::spawn(async move {
            let Ok(path) = wire::path(&call.path) else { return };
            let request = wire::with_metadata(call.body, call.metadata);
            let opened = match client.ready().await {
                Ok(()) => client.server_streaming(request, path, Raw).await,
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
            forward(opened.map(tonic::Response::into_inner), replies).await;
        });
        Stream { to: None, from, task, is_of_call: true }
    }

    /// True if it is the stream of replies to one request.
    pub fn is_of_call(&self) -> bool {
        self.is_of_call
    }

    /// Sends a request; false when the stream has ended.
    pub async fn send(&self, message: Bytes) -> bool {
        match &self.to {
            Some(to) => to.send(message).await.is_ok(),
            None => false,
        }
    }

    /// Says that no request will follow.
    pub fn finish(&mut self) {
        self.to = None;
    }

    /// The next message, the end, or nothing within the time.
    pub async fn next(&mut self, within: Duration) -> Received {
        match tokio::time::timeout(within, self.from.recv()).await {
            Ok(Some(Ok(message))) => Received::Message(message),
            Ok(Some(Err(status))) => Received::End(Some(status)),
            Ok(None) => Received::End(None),
            Err(_) => Received::Nothing,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    opened: Result<Streaming<Bytes>, Status>,
    replies: mpsc::Sender<Result<Bytes, Status>>,
) {
    let mut from = match opened {
        Ok(from) => from,
        Err(status) => {
            // Nobody listens any more: then nobody asks either.
            let _ = replies.send(Err(status)).await;
            return;
        }
    };
    while let Some(next) = from.message().await.transpose() {
        let ends = next.is_err();
        if replies.send(next).await.is_err() || ends {
            return;
        }
    }
}
