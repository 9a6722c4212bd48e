//! A stream of renewals: as many replies as requests, in their order.
//!
//! Clients send the renewals of all their leases at once. Each is handed to the owner as it comes, so
//! that a burst is worked off in a few rounds; the replies wait for each other.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use quorate_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::context::Context;
use super::errors::Refusal;

/// The most renewals of one stream that wait for the owner.
const UNDER_WAY_MAX: usize = 128;

/// The most renewals of all streams together; beyond it a stream has one at a time, as in etcd, so that
/// they do not take all the room that the owner has for requests.
const ALL_UNDER_WAY_MAX: usize = 2000;

type Reply = Result<LeaseKeepAliveResponse, Status>;

/// The replies of one stream.
pub(crate) struct KeepAlive {
    context: Context,
    /// Renewals under way of all streams.
    all_under_way: Arc<AtomicUsize>,
    /// `None` once the client has ended its side, or a reply is an error.
    requests: Option<Streaming<LeaseKeepAliveRequest>>,
    under_way: VecDeque<Renewal>,
}

enum Renewal {
    Waiting(Pin<Box<dyn Future<Output = Reply> + Send>>),
    Done(Reply),
}

impl KeepAlive {
    pub(crate) fn new(
        context: Context,
        requests: Streaming<LeaseKeepAliveRequest>,
        all_under_way: Arc<AtomicUsize>,
    ) -> Self {
        Self { context, all_under_way, requests: Some(requests), under_way: VecDeque::new() }
    }

    fn has_room(&self) -> bool {
        self.under_way.is_empty()
            || (self.under_way.len() < UNDER_WAY_MAX
                && self.all_under_way.load(Ordering::Relaxed) < ALL_UNDER_WAY_MAX)
    }

    /// Begins the renewals that have arrived, as many as may be under way.
    fn begin(&mut self, cx: &mut TaskContext<'_>) {
        while self.has_room()
            && let Some(requests) = self.requests.as_mut()
        {
            match Pin::new(requests).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(request))) => {
                    let counted = Counted::new(&self.all_under_way);
                    let mut reply = Box::pin(renew(self.context.clone(), request.id, counted));
                    // The first look sends it to the owner.
                    self.under_way.push_back(match reply.as_mut().poll(cx) {
                        Poll::Ready(reply) => Renewal::Done(reply),
                        Poll::Pending => Renewal::Waiting(reply),
                    });
                }
                Poll::Ready(Some(Err(status))) => {
                    self.requests = None;
                    self.under_way.push_back(Renewal::Done(Err(status)));
                }
                Poll::Ready(None) => self.requests = None,
            }
        }
    }
}

impl Stream for KeepAlive {
    type Item = Reply;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Reply>> {
        self.begin(cx);
        let Some(first) = self.under_way.front_mut() else {
            return if self.requests.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        if let Renewal::Waiting(waiting) = first {
            match waiting.as_mut().poll(cx) {
                Poll::Ready(reply) => *first = Renewal::Done(reply),
                Poll::Pending => return Poll::Pending,
            }
        }
        let Some(Renewal::Done(reply)) = self.under_way.pop_front() else {
            unreachable!("the first one is done");
        };
        if reply.is_err() {
            // An error ends the stream; what came behind it may have been renewed.
            self.requests = None;
            self.under_way.clear();
        }
        Poll::Ready(Some(reply))
    }
}

/// A renewal under way, counted as long as this lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn renew(context: Context, id: i64, _: Counted) -> Reply {
    // As in etcd the revision is one from before the renewal.
    let header = Some(context.header(context.handle().view().current_revision()));
    let ttl = context.handle().renew(id).await.map_err(Refusal::from)?;
    Ok(LeaseKeepAliveResponse { header, id, ttl })
}
