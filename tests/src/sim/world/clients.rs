//! Simulated clients: they call the shipped services, as futures that somebody polls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::kv_server::Kv;
use quorate_proto::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, LeaseGrantRequest, RangeRequest, RangeResponse,
};
use quorate_server::handle::Handle;
use tonic::codegen::tokio_stream::Stream as _;
use tonic::{Request as Wire, Status};

use super::woken::Woken;
use crate::model::{Refusal, Reply, Request};
use crate::sim::history::OpId;
use crate::sim::leases::Asked;
use crate::sim::rng::Rng;

/// What a client does.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// A request that the referee knows.
    Known(OpId, Request),
    /// Grants a lease.
    Grant {
        /// Its ID.
        id: i64,
        /// Its time to live, in seconds.
        ttl_s: i64,
        /// When.
        asked: Asked,
    },
    /// Renews a lease.
    Renew {
        /// Its ID.
        id: i64,
        /// When.
        asked: Asked,
    },
    /// Gives space back.
    Defragment,
    /// Takes the NOSPACE alarms back.
    Disarm,
}

/// How a client has a range read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In one reply.
    Whole,
    /// In one reply, after a read index was asked for, even of a lone leader.
    ByRound,
    /// In messages.
    Stream,
}

impl Way {
    /// Whether a request can go this way.
    pub(super) fn suits(self, request: &Request) -> bool {
        let Request::Range(range) = request else { return self == Way::Whole };
        let bounds = [
            range.min_mod_revision,
            range.max_mod_revision,
            range.min_create_revision,
            range.max_create_revision,
        ];
        let is_plain = (range.sort_order, range.sort_target) == (0, 0) && bounds == [0; 4];
        // A stream has the order of keys, and what is in it is not chosen by revision.
        self != Way::Stream || is_plain
    }
}

/// What a client got.
pub(super) type Answer = Result<Got, Status>;

/// What a client got that was not refused.
pub(super) enum Got {
    Reply(Reply),
    /// The time to live of a lease, in seconds; 0 if there is none.
    TtlS(i64),
    Nothing,
}

type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// The services, whatever their types.
pub(super) trait Call {
    /// Calls one.
    fn call(self: Arc<Self>, ask: Ask, way: Way) -> Pending<Answer>;
}

/// The shipped services.
pub(super) struct Services<K, L, M> {
    kv: K,
    lease: L,
    maintenance: M,
    handle: Handle,
}

impl<K: Kv, L: Lease, M: Maintenance> Services<K, L, M> {
    pub(super) fn new(kv: K, lease: L, maintenance: M, handle: Handle) -> Self {
        Self { kv, lease, maintenance, handle }
    }

    async fn known(&self, request: Request) -> Result<Reply, Status> {
        let reply = match request {
            Request::Range(range) => {
                Reply::Range(self.kv.range(Wire::new(range)).await?.into_inner())
            }
            Request::Put(put) => Reply::Put(self.kv.put(Wire::new(put)).await?.into_inner()),
            Request::DeleteRange(delete) => {
                Reply::DeleteRange(self.kv.delete_range(Wire::new(delete)).await?.into_inner())
            }
            Request::Txn(txn) => Reply::Txn(self.kv.txn(Wire::new(txn)).await?.into_inner()),
            Request::Compact(compaction) => {
                Reply::Compact(self.kv.compact(Wire::new(compaction)).await?.into_inner())
            }
            Request::HashKv(hash) => {
                Reply::HashKv(self.maintenance.hash_kv(Wire::new(hash)).await?.into_inner())
            }
            Request::LeaseRevoke(revoke) => {
                Reply::LeaseRevoke(self.lease.lease_revoke(Wire::new(revoke)).await?.into_inner())
            }
        };
        Ok(reply.normalized())
    }

    /// The messages of a stream, put together as a client does it.
    async fn streamed(&self, range: RangeRequest) -> Result<Reply, Status> {
        let stream = self.kv.range_stream(Wire::new(range)).await?.into_inner();
        let mut stream = Box::pin(stream);
        let mut whole = RangeResponse::default();
        while let Some(message) =
            std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
        {
            let part = message?.range_response.unwrap_or_default();
            let mut kvs = std::mem::take(&mut whole.kvs);
            kvs.extend(part.kvs);
            whole = RangeResponse { kvs, ..part };
        }
        Ok(Reply::Range(whole).normalized())
    }

    async fn disarm(&self) -> Result<(), Status> {
        let member_id = self.handle.status().member_id.load(Ordering::Relaxed);
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id,
            alarm: AlarmType::Nospace.into(),
        };
        self.maintenance.alarm(Wire::new(request)).await.map(drop)
    }
}

impl<K: Kv, L: Lease, M: Maintenance> Call for Services<K, L, M> {
    fn call(self: Arc<Self>, ask: Ask, way: Way) -> Pending<Answer> {
        Box::pin(async move {
            match ask {
                Ask::Known(_, Request::Range(range)) if way == Way::Stream => {
                    self.streamed(range).await.map(Got::Reply)
                }
                Ask::Known(_, request) => {
                    if way == Way::ByRound {
                        linearize_by_round(&self.handle).await?;
                    }
                    self.known(request).await.map(Got::Reply)
                }
                Ask::Grant { id, ttl_s, .. } => {
                    let request = LeaseGrantRequest { id, ttl: ttl_s };
                    let granted = self.lease.lease_grant(Wire::new(request)).await?;
                    Ok(Got::TtlS(granted.into_inner().ttl))
                }
                Ask::Renew { id, .. } => match self.handle.renew(id).await {
                    Ok(ttl_s) => Ok(Got::TtlS(ttl_s)),
                    Err(error) => Err(Status::unavailable(error.to_string())),
                },
                Ask::Defragment => {
                    let done = self.maintenance.defragment(Wire::new(DefragmentRequest {}));
                    done.await.map(|_| Got::Nothing)
                }
                Ask::Disarm => self.disarm().await.map(|()| Got::Nothing),
            }
        })
    }
}

/// The way of a member that does not lead alone; its answer comes before the request's own.
async fn linearize_by_round(handle: &Handle) -> Result<(), Status> {
    let alone = handle.status().raft.leads_alone.swap(false, Ordering::AcqRel);
    let mut waiting = Box::pin(handle.linearize());
    let handle = handle.clone();
    let mut first = true;
    let done = std::future::poll_fn(move |context| {
        let polled = waiting.as_mut().poll(context);
        if std::mem::take(&mut first) && alone {
            handle.status().raft.leads_alone.store(true, Ordering::Release);
        }
        polled
    });
    done.await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Requests under way.
#[derive(Default)]
pub(super) struct Clients {
    busy: Vec<Busy>,
}

struct Busy {
    ask: Ask,
    future: Pending<Answer>,
    woken: Arc<Woken>,
    polls: u64,
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.busy.len()
    }

    pub(super) fn begin(&mut self, ask: Ask, future: Pending<Answer>) {
        self.busy.push(Busy { ask, future, woken: Woken::new(), polls: 0 });
    }

    pub(super) fn can_go_on(&self) -> bool {
        self.busy.iter().any(|busy| busy.woken.is_awake())
    }

    /// Whether a read is between two of its steps.
    pub(super) fn is_reading(&self) -> bool {
        let reads =
            |ask: &Ask| matches!(ask, Ask::Known(_, Request::Range(_) | Request::HashKv(_)));
        self.busy.iter().any(|busy| busy.polls > 0 && reads(&busy.ask))
    }

    /// Lets one of those that can go on do so.
    pub(super) fn poll(&mut self, rng: &mut Rng) -> Option<(Ask, Answer)> {
        let ready: Vec<usize> =
            (0..self.busy.len()).filter(|&at| self.busy[at].woken.is_awake()).collect();
        if ready.is_empty() {
            return None;
        }
        let at = *rng.pick(&ready);
        let busy = &mut self.busy[at];
        busy.woken.fall_asleep();
        busy.polls += 1;
        let waker = busy.woken.waker();
        match busy.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => None,
            Poll::Ready(answer) => Some((self.busy.swap_remove(at).ask, answer)),
        }
    }
}

/// What an error means to a client.
pub(super) enum Verdict {
    /// The request is refused.
    Refused(Refusal),
    /// It was not done, for another reason.
    Shed { no_space: bool },
    /// It may be done.
    Unknown,
}

/// Reads a status; `None` for one that the API does not know.
pub(super) fn verdict(status: &Status) -> Option<Verdict> {
    const REFUSALS: [Refusal; 10] = [
        Refusal::EmptyKey,
        Refusal::KeyNotFound,
        Refusal::ValueProvided,
        Refusal::LeaseProvided,
        Refusal::TooManyOps,
        Refusal::DuplicateKey,
        Refusal::InvalidSort,
        Refusal::LeaseNotFound,
        Refusal::Compacted,
        Refusal::FutureRevision,
    ];
    let text = status.message();
    if let Some(refusal) = REFUSALS.into_iter().find(|refusal| refusal.text() == text) {
        return (status.code() as i32 == refusal.code()).then_some(Verdict::Refused(refusal));
    }
    match text {
        "etcdserver: mvcc: database space exceeded" => Some(Verdict::Shed { no_space: true }),
        "etcdserver: too many requests"
        | "too many requests"
        | "no leader"
        | "etcdserver: no leader"
        | "raft proposal dropped"
        | "etcdserver: the index of keys is still being loaded" => {
            Some(Verdict::Shed { no_space: false })
        }
        "etcdserver: server stopped"
        | "etcdserver: request timed out"
        | "etcdserver: leader changed"
        | "server stopped"
        | "request timed out"
        | "leader changed" => Some(Verdict::Unknown),
        _ => None,
    }
}
