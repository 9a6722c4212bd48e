//! The Watch service: requests in, encoded responses out, both at the client's pace.
//!
//! Everything about a stream is done when its body is polled, that is when the client can take more: it
//! takes requests, reads history for watchers that are behind, and fills one buffer with whatever is to
//! be sent. A client that does not read is not served: it keeps its cursors, and of the events that wait
//! for it what was already on its way, a portion or two.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use tokio::time::{Instant, Interval, Sleep, sleep_until};
use tonic::Status;

use super::admin_errors::AdminRefusal;
use super::body::RequestBody;
use super::context::Context;
use super::errors::{Refusal, too_large};
use super::incoming::Incoming;
use crate::handle::Handle;
use crate::mvcc::{KeyRange, RangeEnd};
use crate::watch::{
    CreateError, Filter, Head, Hub, Interest, MESSAGE_BYTES_MAX, Notice, Pulled, Scan, Sent,
    StreamId,
};

/// Steps of work after which other streams get their turn.
const STEPS_PER_POLL: usize = 4;
/// Requests that one poll takes.
const REQUESTS_PER_POLL: usize = 64;
/// What a watcher is called that does not exist.
const NO_WATCHER: i64 = -1;
/// Up to this share is added to the time between two progress notifications, in percent, so that
/// streams do not speak at once.
const JITTER_PERCENT: u64 = 10;

/// The times of one stream.
pub(super) struct StreamTimes {
    /// When the call ends, if it has to.
    pub(super) deadline: Option<Instant>,
    /// How often its watchers are told of their progress.
    pub(super) progress_interval: Duration,
}

/// The responses of one stream.
pub(super) struct WatchStream {
    context: Context,
    stream: StreamId,
    /// `None` when the client has said everything.
    requests: Option<Incoming<WatchRequest>>,
    /// Set once a watcher wants to be told how far it has come.
    progress: Option<Interval>,
    progress_interval: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    scan: Option<Scan>,
}

impl WatchStream {
    /// Opens a stream.
    pub(super) fn open(context: Context, requests: RequestBody, times: StreamTimes) -> Self {
        let StreamTimes { deadline, progress_interval } = times;
        let stream = hub(context.handle()).open();
        let requests = Some(Incoming::new(requests));
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let (progress, scan) = (None, None);
        Self { context, stream, requests, progress, progress_interval, deadline, scan }
    }

    /// A stream without a client: one watcher that the server itself listens to.
    pub(super) fn of_one(context: Context, request: WatchCreateRequest) -> Self {
        let stream = hub(context.handle()).open();
        let (requests, progress, deadline, scan) = (None, None, None, None);
        let progress_interval = Duration::ZERO;
        let mut own =
            Self { context, stream, requests, progress, progress_interval, deadline, scan };
        own.create(WatchCreateRequest { progress_notify: false, ..request });
        own
    }

    /// The next buffer of responses.
    ///
    /// # Errors
    /// The status with which the call ends.
    pub(super) fn poll_responses(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(Bytes, u64), Status>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(AdminRefusal::DeadlineExceeded.into()));
        }
        for _ in 0..STEPS_PER_POLL {
            self.poll_requests(cx)?;
            self.poll_progress(cx);
            let mut sent = Sent::new(self.head());
            let unread = match self.scan.take() {
                Some(scan) => self.read(scan)?,
                None => None,
            };
            // What was read is sent before anybody else reads: it may have to make room for that.
            let pulled = match unread {
                Some(scan) => Pulled::Behind(scan),
                None => hub(self.context.handle()).pull(self.stream, &mut sent, cx.waker()),
            };
            if let Some(bytes) = sent.too_large_bytes {
                return Poll::Ready(Err(too_large(bytes, MESSAGE_BYTES_MAX)));
            }
            match pulled {
                Pulled::Behind(scan) => self.scan = Some(scan),
                Pulled::Closed => return Poll::Ready(Err(Refusal::WatchCanceled.into())),
                Pulled::Idle if sent.is_empty() => return Poll::Pending,
                Pulled::Idle | Pulled::More => {}
            }
            if !sent.is_empty() {
                let messages = sent.messages;
                return Poll::Ready(Ok((sent.into_bytes(), messages)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn head(&self) -> Head {
        let status = self.context.handle().status();
        Head {
            cluster_id: status.cluster_id.load(Relaxed),
            member_id: status.member_id.load(Relaxed),
            raft_term: status.raft.term.load(Relaxed),
        }
    }

    /// Reads one step of history; gives the scan back if it needs more of them.
    fn read(&self, mut scan: Scan) -> Result<Option<Scan>, Status> {
        let handle = self.context.handle();
        match scan.step(hub(handle), handle.view(), handle.rows().as_ref()) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(scan)),
            Err(error) => {
                handle.fail(&error);
                Err(Refusal::Stopped.into())
            }
        }
    }

    fn poll_requests(&mut self, cx: &mut TaskContext<'_>) -> Result<(), Status> {
        for _ in 0..REQUESTS_PER_POLL {
            let Some(requests) = &mut self.requests else { return Ok(()) };
            if !hub(self.context.handle()).takes_requests(self.stream) {
                return Ok(());
            }
            let Poll::Ready(request) = requests.poll_next(cx) else { return Ok(()) };
            match request {
                Some(request) => self.take(request?),
                // A client that has nothing more to ask still listens.
                None => self.requests = None,
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn take(&mut self, request: WatchRequest) {
        let handle = self.context.handle();
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                hub(handle).cancel(self.stream, cancel.watch_id, handle.view());
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                hub(handle).request_progress(self.stream, handle.view());
            }
            None => {}
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let handle = self.context.handle();
        let notify = request.progress_notify;
        let refusal = match interest(request) {
            Err(reason) => Some(reason),
            Ok(interest) => match hub(handle).create(self.stream, interest, handle.view()) {
                Ok(()) | Err(CreateError::NoStream) => None,
                Err(duplicate) => Some(duplicate.to_string()),
            },
        };
        match refusal {
            None => self.notify_of_progress(notify),
            Some(cancel_reason) => {
                let notice = Notice {
                    watch_id: NO_WATCHER,
                    created: true,
                    canceled: true,
                    cancel_reason,
                    ..Notice::default()
                };
                hub(handle).say(self.stream, notice, handle.view());
            }
        }
    }

    fn notify_of_progress(&mut self, wanted: bool) {
        if wanted && self.progress.is_none() {
            let jitter = self.progress_interval * jitter_percent(self.stream) / 100;
            let period = self.progress_interval + jitter;
            let mut interval = tokio::time::interval_at(Instant::now() + period, period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            self.progress = Some(interval);
        }
    }

    fn poll_progress(&mut self, cx: &mut TaskContext<'_>) {
        let Some(progress) = &mut self.progress else { return };
        while progress.poll_tick(cx).is_ready() {
            hub(self.context.handle()).tell_progress(self.stream);
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        hub(self.context.handle()).close(self.stream);
    }
}

fn hub(handle: &Handle) -> &Hub {
    handle.watches().hub()
}

/// Which share of the interval a stream waits longer; neighbours differ.
fn jitter_percent(stream: StreamId) -> u32 {
    u32::try_from(stream.number() % (JITTER_PERCENT + 1)).unwrap_or(0)
}

/// What a client wants to see, or why it cannot be watched.
fn interest(request: WatchCreateRequest) -> Result<Interest, String> {
    // In the order of etcd: of two reasons a client is told the first.
    if request.start_revision < 0 {
        return Err(Refusal::Compacted.text().to_owned());
    }
    let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key };
    let range = KeyRange::from_wire(key, request.range_end);
    if let RangeEnd::Before(end) = &range.end
        && *end <= range.start
    {
        return Err("mvcc: watcher range is empty".to_owned());
    }
    let filters = |filter: FilterType| request.filters.contains(&i32::from(filter));
    Ok(Interest {
        range,
        start_revision: request.start_revision,
        watch_id: request.watch_id,
        filter: Filter {
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        },
        progress_notify: request.progress_notify,
        fragment: request.fragment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_negative_start_and_an_empty_range_the_start_is_told() {
        let refusal = |start_revision| {
            let (key, range_end) = ("b".into(), "a".into());
            let request =
                WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
            interest(request).expect_err("nothing can be watched")
        };
        assert_eq!(refusal(-1), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(refusal(0), "mvcc: watcher range is empty");
    }
}
