//! A watch of the server itself: what happens to keys, event by event, for services that wait for it.
//!
//! It is a stream like a client's, with one watcher, and nobody's but its own task is woken.

use std::collections::VecDeque;
use std::future::poll_fn;

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use quorate_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use quorate_proto::mvccpb::Event;
use tonic::Status;

use super::context::Context;
use super::errors::Refusal;
use super::watch::WatchStream;

/// The events of one watcher. Dropping it ends the watch.
pub(super) struct Follow {
    stream: WatchStream,
    /// Of the responses that were pulled last.
    events: VecDeque<(ResponseHeader, Event)>,
    is_compacted: bool,
}

impl Follow {
    /// Watches what `request` names.
    pub(super) fn new(context: Context, request: WatchCreateRequest) -> Self {
        let stream = WatchStream::of_one(context, request);
        Self { stream, events: VecDeque::new(), is_compacted: false }
    }

    /// The next event, with the header of its response; `None` if it was compacted before it was seen.
    ///
    /// # Errors
    /// The status with which a client's stream would end.
    pub(super) async fn next(&mut self) -> Result<Option<(ResponseHeader, Event)>, Status> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.is_compacted {
                return Ok(None);
            }
            let (responses, _) = poll_fn(|cx| self.stream.poll_responses(cx)).await?;
            self.take(responses)?;
        }
    }

    /// Takes responses apart, each behind its prefix.
    fn take(&mut self, mut responses: Bytes) -> Result<(), Status> {
        while responses.has_remaining() {
            let response = next_message(&mut responses)
                .and_then(|message| WatchResponse::decode(message).ok())
                .ok_or_else(|| Status::internal("a watch response cannot be decoded"))?;
            let header = response.header.unwrap_or_default();
            self.events.extend(response.events.into_iter().map(|event| (header, event)));
            match (response.canceled, response.compact_revision) {
                (false, _) => {}
                (true, 0) => return Err(Refusal::WatchCanceled.into()),
                (true, _) => self.is_compacted = true,
            }
        }
        Ok(())
    }
}

/// Whether it is compressed, which it is not, the length, and the message.
fn next_message(responses: &mut Bytes) -> Option<Bytes> {
    let _is_compressed = responses.try_get_u8().ok()?;
    let len = responses.try_get_u32().ok()? as usize;
    (len <= responses.len()).then(|| responses.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::context::tests::context;
    use crate::mvcc::Put;
    use crate::watch::MESSAGE_BYTES_MAX;

    fn put(context: &Context, value: &str) {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let put = Put { key: "k".into(), value, lease: Some(0), prev_kv: false };
        let handle = context.handle();
        handle.view().write().put(&put, handle.rows().as_ref()).unwrap().unwrap();
    }

    fn follow(context: &Context, start_revision: i64) -> Follow {
        let key = Bytes::from_static(b"k");
        let request = WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() };
        Follow::new(context.clone(), request)
    }

    async fn values(follow: &mut Follow, count: usize) -> Vec<(i64, Bytes)> {
        let mut values = Vec::new();
        for _ in 0..count {
            let (_, event) = follow.next().await.unwrap().unwrap();
            let kv = event.kv.unwrap();
            values.push((kv.mod_revision, kv.value));
        }
        values
    }

    #[tokio::test]
    async fn every_value_is_seen_in_order_however_many_come_at_once() {
        let context = context();
        put(&context, "a");
        let mut live = follow(&context, 3);
        let mut late = follow(&context, 2);
        ["b", "c", "d"].iter().for_each(|value| put(&context, value));
        let handle = context.handle();
        while handle.watches().hub().advance(handle.view(), handle.rows().as_ref()).unwrap() {}
        let expected: Vec<(i64, Bytes)> =
            [(2, "a"), (3, "b"), (4, "c"), (5, "d")].map(|(at, v)| (at, v.into())).into();
        assert_eq!(values(&mut live, 3).await, expected[1..]);
        assert_eq!(values(&mut late, 4).await, expected);
    }

    #[tokio::test]
    async fn a_response_that_nobody_could_take_ends_the_stream() {
        let context = context();
        let handle = context.handle();
        let value = "v".repeat(MESSAGE_BYTES_MAX + 1);
        for start_revision in [0, 2] {
            let mut follow = follow(&context, start_revision);
            put(&context, &value);
            while handle.watches().hub().advance(handle.view(), handle.rows().as_ref()).unwrap() {}
            let status = follow.next().await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted, "from {start_revision}");
        }
    }

    #[tokio::test]
    async fn what_was_compacted_before_it_was_seen_is_said() {
        let context = context();
        ["a", "b", "c"].iter().for_each(|value| put(&context, value));
        context.handle().view().write().compact(4).unwrap();
        assert!(follow(&context, 2).next().await.unwrap().is_none());
    }
}
