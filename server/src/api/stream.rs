//! `RangeStream`: a range in messages, each sent while the rest is still to be read.
//!
//! The client concatenates the messages. Keys come in each, header, count and `more` in the last.

use std::collections::VecDeque;
use std::pin::Pin as FuturePin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader,
};
use tokio_stream::Stream;
use tonic::Status;

use super::context::Context;
use super::kv::header_revision;
use super::{reply, request};
use crate::view::{Pin, RangeRead, RangeSummary};

/// A message is sent when it holds this many bytes of keys and values.
const CHUNK_BYTES: usize = 512 * 1024;
/// Steps of a range after which other requests get their turn.
const STEPS_PER_POLL: usize = 4;

/// The messages of one range.
pub(crate) struct RangeStream {
    context: Context,
    header: ResponseHeader,
    pin: Arc<Pin>,
    /// `None` once the range is read.
    read: Option<RangeRead>,
    end: Option<RangeSummary>,
    chunks: Chunks,
}

/// Rows that are read and not sent yet.
#[derive(Default)]
struct Chunks {
    kvs: VecDeque<Bytes>,
    bytes: usize,
}

impl RangeStream {
    /// Starts to read; the request has been validated and linearized.
    ///
    /// # Errors
    /// If the revision cannot be read.
    pub(crate) fn start(context: Context, request: RangeRequest) -> Result<Self, Status> {
        let pin = Arc::new(context.pin_for_stream(request.revision)?);
        let header = context.header(header_revision(&context, request.revision, &pin));
        let at = reply::end_of(&pin);
        let read = context.handle().view().range(request::query(&request), at, pin.clone());
        context.reads(1);
        Ok(Self { context, header, pin, read: Some(read), end: None, chunks: Chunks::default() })
    }

    /// The next message, if what is read is enough for one.
    fn message(&mut self) -> Option<RangeStreamResponse> {
        if self.chunks.bytes >= CHUNK_BYTES || (self.end.is_some() && !self.chunks.kvs.is_empty()) {
            let kvs = self.chunks.take();
            let end = if self.chunks.kvs.is_empty() { self.end.take() } else { None };
            return Some(self.wrap(kvs, end));
        }
        self.end.take().map(|end| self.wrap(Vec::new(), Some(end)))
    }

    fn wrap(&self, kvs: Vec<Bytes>, end: Option<RangeSummary>) -> RangeStreamResponse {
        let response = match end {
            Some(RangeSummary { count, more }) => {
                RangeResponse { header: Some(self.header), kvs, more, count }
            }
            None => RangeResponse { kvs, ..RangeResponse::default() },
        };
        RangeStreamResponse { range_response: Some(response) }
    }

    /// Reads one step; false when there is nothing more to read.
    fn step(&mut self) -> Result<bool, Status> {
        let Some(read) = self.read.as_mut() else { return Ok(false) };
        // The client's pace is not ours: what is not compacted can be read, however long it takes.
        self.pin.renew();
        let mut kvs = Vec::new();
        match read.step(self.context.handle().rows().as_ref(), &mut kvs) {
            Ok(end) => {
                self.chunks.add(kvs);
                if end.is_some() {
                    self.read = None;
                    self.end = end;
                }
                Ok(true)
            }
            Err(error) => {
                self.read = None;
                Err(self.context.refuse_read(error))
            }
        }
    }
}

impl Chunks {
    fn add(&mut self, kvs: Vec<Bytes>) {
        self.bytes += kvs.iter().map(Bytes::len).sum::<usize>();
        self.kvs.extend(kvs);
    }

    /// The first rows, as many as make a message.
    fn take(&mut self) -> Vec<Bytes> {
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES
            && let Some(kv) = self.kvs.pop_front()
        {
            bytes += kv.len();
            kvs.push(kv);
        }
        self.bytes -= bytes;
        kvs
    }
}

impl Stream for RangeStream {
    type Item = Result<RangeStreamResponse, Status>;

    fn poll_next(
        mut self: FuturePin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Self::Item>> {
        for _ in 0..STEPS_PER_POLL {
            if let Some(message) = self.message() {
                return Poll::Ready(Some(Ok(message)));
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(None),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::Put;
    use crate::view::PIN_MS_MAX;

    /// A context with 300 keys, and a stream of all of them.
    fn stream() -> (Context, RangeStream) {
        let context = crate::api::context::tests::context();
        for key in 0..300 {
            let (key, value) = (Bytes::from(format!("k{key:04}")), Some("v".into()));
            let put = Put { key, value, lease: Some(0), prev_kv: false };
            let handle = context.handle();
            handle.view().write().put(&put, handle.rows().as_ref()).unwrap().unwrap();
        }
        let request =
            RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
        let stream = RangeStream::start(context.clone(), request).unwrap();
        (context, stream)
    }

    /// Pulls to the end; `between` happens before each step. How many keys came.
    fn drain(mut stream: RangeStream, mut between: impl FnMut()) -> Result<usize, Status> {
        let mut count = 0;
        loop {
            between();
            while let Some(message) = stream.message() {
                count += message.range_response.map_or(0, |part| part.kvs.len());
            }
            if !stream.step()? {
                return Ok(count);
            }
        }
    }

    #[test]
    fn a_stream_that_takes_longer_than_a_pin_lasts_goes_on_until_its_revision_is_compacted() {
        let (context, slow) = stream();
        let view = context.handle().view();
        // The pin expires between any two steps.
        assert_eq!(drain(slow, || view.pass(PIN_MS_MAX + 1)).unwrap(), 300);

        let (context, slow) = stream();
        let view = context.handle().view();
        let mut steps = 0;
        let compacted = drain(slow, || {
            steps += 1;
            view.pass(PIN_MS_MAX + 1);
            if steps == 2 {
                let current = view.current_revision();
                let put = Put {
                    key: "z".into(),
                    value: Some("v".into()),
                    lease: Some(0),
                    prev_kv: false,
                };
                view.write().put(&put, context.handle().rows().as_ref()).unwrap().unwrap();
                view.write().compact(current + 1).unwrap();
            }
        });
        assert_eq!(compacted.unwrap_err().code(), tonic::Code::OutOfRange);
    }

    #[test]
    fn rows_leave_in_order_and_in_messages_of_bounded_size() {
        for (count, len) in [(0, 1), (1, 1), (1000, 1000), (5, 700_000), (3, CHUNK_BYTES)] {
            let rows: Vec<Bytes> = (0..count)
                .map(|n: usize| Bytes::from(vec![u8::try_from(n % 251).unwrap(); len]))
                .collect();
            let mut chunks = Chunks::default();
            chunks.add(rows.clone());
            let mut sent = Vec::new();
            while !chunks.kvs.is_empty() {
                let kvs = chunks.take();
                let bytes: usize = kvs.iter().map(Bytes::len).sum();
                assert!(bytes < CHUNK_BYTES + len, "{bytes}");
                sent.extend(kvs);
            }
            assert_eq!(sent, rows);
            assert_eq!(chunks.bytes, 0);
        }
    }
}
