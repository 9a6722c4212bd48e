//! Bodies of calls: what goes through them is counted, and a message that is too large is refused
//! before it is buffered.
//!
//! A unary call counts one message each way, also if it fails, as etcd's counters have it; of a stream
//! the messages are counted as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::large::Pieces;
use super::methods::METHODS;
use super::watch::WatchStream;
use crate::telemetry::{MethodKind, MethodMetrics, Metrics, code_name};
use crate::watch::PREFIX_LEN;

/// Finds the messages in a stream of bytes that may be cut anywhere.
#[derive(Default)]
struct Messages {
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    left: u64,
}

/// Why a stream ends before its end; the texts are those of gRPC for Go.
#[derive(Debug, PartialEq, Eq)]
enum Malformed {
    /// A message of this length is above the limit.
    TooLong(usize),
    /// A message says that it is compressed, and nobody said how.
    Compressed,
    /// The stream ended within a message.
    Torn,
}

impl Malformed {
    fn status(self, len_max: usize) -> Status {
        match self {
            Self::TooLong(len) => Status::resource_exhausted(format!(
                "grpc: received message larger than max ({len} vs. {len_max})"
            )),
            Self::Compressed => {
                Status::internal("grpc: compressed flag set with identity or empty encoding")
            }
            Self::Torn => Status::unknown("unexpected EOF"),
        }
    }
}

/// What was in a piece of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    messages: u64,
    bytes: u64,
}

impl Messages {
    /// Looks through the next piece. No message may be longer than `len_max`.
    fn feed(&mut self, mut data: &[u8], len_max: usize) -> Result<Found, Malformed> {
        let mut found = Found::default();
        while !data.is_empty() {
            if self.left > 0 {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= len as u64;
                found.bytes += len as u64;
                data = &data[len..];
                continue;
            }
            let len = (PREFIX_LEN - self.prefix_len).min(data.len());
            self.prefix[self.prefix_len..self.prefix_len + len].copy_from_slice(&data[..len]);
            self.prefix_len += len;
            data = &data[len..];
            if self.prefix_len == PREFIX_LEN {
                let [flag, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length);
                if flag != 0 {
                    return Err(Malformed::Compressed);
                }
                if length as usize > len_max {
                    return Err(Malformed::TooLong(length as usize));
                }
                self.left = length.into();
                self.prefix_len = 0;
                found.messages += 1;
            }
        }
        Ok(found)
    }

    /// Whether the stream may end here.
    fn end(&self) -> Result<(), Malformed> {
        if self.left == 0 && self.prefix_len == 0 { Ok(()) } else { Err(Malformed::Torn) }
    }
}

/// One call, counted when it begins, and when it ends or is dropped.
pub(super) struct Call {
    metrics: Arc<Metrics>,
    method: usize,
    started: Instant,
    slow: Duration,
    ended: bool,
    /// Shared by all calls whose client is owed a reply.
    owed: Option<Arc<()>>,
}

impl Call {
    pub(super) fn start(metrics: Arc<Metrics>, method: usize, slow: Duration) -> Self {
        let counters = metrics.grpc.method(method);
        counters.started.inc();
        if is_unary(method) {
            counters.received.inc();
        }
        Self { metrics, method, started: Instant::now(), slow, ended: false, owed: None }
    }

    /// Holds `owed` until the call ends, unless it is a stream without an end of its own.
    pub(super) fn owing(mut self, owed: &Arc<()>) -> Self {
        let has_end = is_unary(self.method) || METHODS[self.method].1 == "RangeStream";
        self.owed = has_end.then(|| Arc::clone(owed));
        self
    }

    fn counters(&self) -> &MethodMetrics {
        self.metrics.grpc.method(self.method)
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        let counters = self.counters();
        counters.ended(code as usize, elapsed.as_secs_f64());
        if !is_unary(self.method) {
            return;
        }
        counters.sent.inc();
        if elapsed > self.slow {
            let (service, method, _) = METHODS[self.method];
            let code = code_name(code as usize);
            let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            tracing::warn!(service, method, elapsed_us, code, "slow request");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

fn is_unary(method: usize) -> bool {
    METHODS[method].2 == MethodKind::Unary
}

/// The body of a request.
pub(super) struct RequestBody {
    inner: Incoming,
    messages: Messages,
    len_max: usize,
    metrics: Arc<Metrics>,
    method: usize,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, len_max: usize, call: &Call) -> Self {
        let metrics = Arc::clone(&call.metrics);
        Self { inner, messages: Messages::default(), len_max, metrics, method: call.method }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), Status> {
        let fed = self.messages.feed(data, self.len_max);
        let found = fed.map_err(|malformed| malformed.status(self.len_max))?;
        let grpc = &self.metrics.grpc;
        grpc.received_bytes.inc_by(found.bytes);
        if !is_unary(self.method) {
            grpc.method(self.method).received.inc_by(found.messages);
        }
        Ok(())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => {
                let end = self.messages.end().map_err(|torn| torn.status(self.len_max));
                // Said once: whoever asks again is at the end.
                self.messages = Messages::default();
                return Poll::Ready(end.err().map(Err));
            }
        };
        if let Some(data) = frame.data_ref()
            && let Err(status) = self.count(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of any reply on a port that serves gRPC and HTTP.
pub struct ReplyBody {
    kind: Kind,
}

enum Kind {
    Call {
        inner: tonic::body::Body,
        messages: Messages,
        call: Call,
    },
    /// `None` when only the trailers are left.
    Large {
        pieces: Option<Pieces>,
        call: Call,
    },
    /// Boxed, so that other replies do not carry its size.
    Watch(Box<Watching>),
    Plain(Option<Bytes>),
}

/// A stream of watch responses, and its call.
struct Watching {
    stream: WatchStream,
    call: Call,
}

impl Watching {
    /// The next responses; a status ends the call.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.call.ended {
            return Poll::Ready(None);
        }
        match ready!(self.stream.poll_responses(cx)) {
            Ok((data, messages)) => {
                let call = &self.call;
                call.metrics.grpc.sent_bytes.inc_by(data.len() as u64);
                call.counters().sent.inc_by(messages);
                Poll::Ready(Some(Frame::data(data)))
            }
            Err(status) => {
                self.call.end(status.code());
                let mut trailers = http::HeaderMap::new();
                // What does not fit into a header is left out; the code always does.
                let _ = status.add_header(&mut trailers);
                Poll::Ready(Some(Frame::trailers(trailers)))
            }
        }
    }
}

impl ReplyBody {
    /// The body of a call to Watch.
    pub(super) fn watch(stream: WatchStream, call: Call) -> Self {
        Self { kind: Kind::Watch(Box::new(Watching { stream, call })) }
    }

    /// A body that is all there.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: Kind::Plain(Some(bytes).filter(|bytes| !bytes.is_empty())) }
    }

    /// The body of the reply to `call`, whose head is `parts`.
    pub(super) fn of_call(
        parts: &mut http::response::Parts,
        inner: tonic::body::Body,
        mut call: Call,
    ) -> Self {
        if let Some(pieces) = Pieces::of(&mut parts.extensions) {
            return Self { kind: Kind::Large { pieces: Some(pieces), call } };
        }
        if let Some(code) = code_in(&parts.headers) {
            call.end(code);
        }
        Self { kind: Kind::Call { inner, messages: Messages::default(), call } }
    }
}

/// The next piece of a large reply, after the last one its trailers, and then nothing.
fn next_of_large(pieces: &mut Option<Pieces>, call: &mut Call) -> Option<Frame<Bytes>> {
    if let Some(piece) = pieces.as_mut().and_then(Iterator::next) {
        call.metrics.grpc.sent_bytes.inc_by(piece.len() as u64);
        return Some(Frame::data(piece));
    }
    *pieces = None;
    if call.ended {
        return None;
    }
    call.end(Code::Ok);
    let mut trailers = http::HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
    Some(Frame::trailers(trailers))
}

fn code_in(headers: &http::HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (inner, messages, call) = match &mut self.kind {
            Kind::Plain(bytes) => {
                return Poll::Ready(bytes.take().map(|data| Ok(Frame::data(data))));
            }
            Kind::Large { pieces, call } => {
                return Poll::Ready(next_of_large(pieces, call).map(Ok));
            }
            Kind::Watch(watching) => return watching.poll_frame(cx).map(|frame| frame.map(Ok)),
            Kind::Call { inner, messages, call } => (inner, messages, call),
        };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(Ok(found)) =
                    frame.data_ref().map(|data| messages.feed(data, usize::MAX))
                {
                    call.metrics.grpc.sent_bytes.inc_by(found.bytes);
                    if !is_unary(call.method) {
                        call.counters().sent.inc_by(found.messages);
                    }
                }
                if let Some(code) = frame.trailers_ref().and_then(code_in) {
                    call.end(code);
                }
            }
            Some(Err(status)) => call.end(status.code()),
            None => call.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Call { inner, .. } => inner.is_end_stream(),
            Kind::Large { pieces, call } => pieces.is_none() && call.ended,
            Kind::Watch(watching) => watching.call.ended,
            Kind::Plain(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Call { inner, .. } => inner.size_hint(),
            Kind::Large { .. } | Kind::Watch(_) => SizeHint::default(),
            Kind::Plain(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for len in [3_u32, 0, 300, 1] {
            stream.push(0);
            stream.extend_from_slice(&len.to_be_bytes());
            stream.resize(stream.len() + len as usize, b'x');
        }
        for piece_len in [1, 2, 4, 5, 7, 300, 1000] {
            let mut messages = Messages::default();
            let mut total = Found::default();
            for piece in stream.chunks(piece_len) {
                let found = messages.feed(piece, 300).unwrap();
                total.messages += found.messages;
                total.bytes += found.bytes;
            }
            assert_eq!(total, Found { messages: 4, bytes: 304 }, "pieces of {piece_len}");
        }
    }

    #[test]
    fn a_message_above_the_limit_is_named_by_its_length() {
        let mut messages = Messages::default();
        assert_eq!(messages.feed(&[0, 0, 0], 9), Ok(Found::default()));
        assert_eq!(messages.feed(&[0, 10], 9), Err(Malformed::TooLong(10)));
    }

    #[test]
    fn what_is_compressed_or_torn_is_malformed() {
        let mut messages = Messages::default();
        assert_eq!(messages.end(), Ok(()));
        assert_eq!(messages.feed(&[0, 0, 0], 9), Ok(Found::default()));
        assert_eq!(messages.end(), Err(Malformed::Torn), "within the prefix");
        assert_eq!(messages.feed(&[0, 2, 7], 9), Ok(Found { messages: 1, bytes: 1 }));
        assert_eq!(messages.end(), Err(Malformed::Torn), "within the message");
        assert_eq!(messages.feed(&[7], 9), Ok(Found { messages: 0, bytes: 1 }));
        assert_eq!(messages.end(), Ok(()));
        assert_eq!(messages.feed(&[1, 0, 0, 0, 1], 9), Err(Malformed::Compressed));
    }

    /// Read from etcd 3.7.3: `started`, `received` and `sent` of a unary call are always alike.
    #[test]
    fn a_unary_call_counts_one_message_each_way_however_it_ends() {
        let metrics = Arc::new(Metrics::new(&METHODS, false));
        let call = || Call::start(Arc::clone(&metrics), 0, Duration::MAX);
        call().end(Code::Ok);
        call().end(Code::InvalidArgument);
        drop(call());
        let range = metrics.grpc.method(0);
        let counts = [&range.started, &range.received, &range.sent].map(|counter| counter.get());
        assert_eq!(counts, [3, 3, 3]);
        let codes = [Code::Ok, Code::InvalidArgument, Code::Cancelled];
        assert_eq!(codes.map(|code| range.handled(code as usize)), [1, 1, 1]);
        let stream = METHODS.iter().position(|method| method.1 == "RangeStream").unwrap();
        Call::start(Arc::clone(&metrics), stream, Duration::MAX).end(Code::InvalidArgument);
        let stream = metrics.grpc.method(stream);
        assert_eq!((stream.started.get(), stream.sent.get()), (1, 0));
    }

    #[test]
    fn a_reply_is_owed_by_what_has_an_end_until_it_ends() {
        let metrics = Arc::new(Metrics::new(&METHODS, false));
        let owed = Arc::new(());
        for (name, expected) in [("Put", true), ("RangeStream", true), ("Watch", false)] {
            let method = METHODS.iter().position(|method| method.1 == name).unwrap();
            let call = Call::start(Arc::clone(&metrics), method, Duration::MAX).owing(&owed);
            assert_eq!(Arc::strong_count(&owed) > 1, expected, "{name}");
            drop(call);
            assert_eq!(Arc::strong_count(&owed), 1, "{name}");
        }
    }
}
