//! `RangeStream`: a range in messages, each sent while the rest is still to be read.
//!
//! The client concatenates the messages. Keys come in each, header, count and `more` in the last.

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
use crate::view::{RangeRead, RangeSummary};

/// A message is sent when it holds this many bytes of keys and values.
const CHUNK_BYTES: usize = 512 * 1024;
/// Steps of a range after which other requests get their turn.
const STEPS_PER_POLL: usize = 4;

/// The messages of one range.
pub(crate) struct RangeStream {
    context: Context,
    header: ResponseHeader,
    read: Option<RangeRead>,
    kvs: Vec<Bytes>,
}

impl RangeStream {
    /// Starts to read; the request has been validated and linearized.
    ///
    /// # Errors
    /// If the revision cannot be read.
    pub(crate) fn start(context: Context, request: RangeRequest) -> Result<Self, Status> {
        let pin = context.pin(request.revision)?;
        let header = context.header(header_revision(&context, request.revision, &pin));
        let at = reply::end_of(&pin);
        let read = context.handle().view().range(request::query(request), at, Arc::new(pin));
        context.metrics().mvcc.ranges.inc();
        Ok(Self { context, header, read: Some(read), kvs: Vec::new() })
    }

    fn message(&mut self, end: Option<RangeSummary>) -> RangeStreamResponse {
        let kvs = std::mem::take(&mut self.kvs);
        let response = match end {
            Some(RangeSummary { count, more }) => {
                RangeResponse { header: Some(self.header), kvs, more, count }
            }
            None => RangeResponse { kvs, ..RangeResponse::default() },
        };
        RangeStreamResponse { range_response: Some(response) }
    }

    fn is_full(&self) -> bool {
        self.kvs.iter().map(Bytes::len).sum::<usize>() >= CHUNK_BYTES
    }
}

impl Stream for RangeStream {
    type Item = Result<RangeStreamResponse, Status>;

    fn poll_next(
        mut self: FuturePin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        for _ in 0..STEPS_PER_POLL {
            let Some(read) = this.read.as_mut() else { return Poll::Ready(None) };
            match read.step(this.context.handle().rows().as_ref(), &mut this.kvs) {
                Ok(None) if this.is_full() => return Poll::Ready(Some(Ok(this.message(None)))),
                Ok(None) => {}
                Ok(Some(summary)) => {
                    this.read = None;
                    return Poll::Ready(Some(Ok(this.message(Some(summary)))));
                }
                Err(error) => {
                    this.read = None;
                    return Poll::Ready(Some(Err(this.context.refuse_read(error))));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
