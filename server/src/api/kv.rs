//! The KV service.

use std::sync::Arc;
use std::time::Instant;

use quorate_proto::etcdserverpb::kv_server::Kv;
use quorate_proto::etcdserverpb::request_op::Request as WireRequest;
use quorate_proto::etcdserverpb::response_op::Response as WireResponse;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseOp, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::context::Context;
use super::errors::Refusal;
use super::request::Command;
use super::stream::RangeStream;
use super::{large, reply, request, validate};
use crate::handle::Response as ApplyResponse;
use crate::state_machine::compare_of;
use crate::view::Pin;

/// Serves keys: reads from the view, writes through the owner.
pub(crate) struct KvService {
    context: Context,
}

impl KvService {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Answers a range, without what is done for large replies.
    pub(super) async fn read_range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        if !request.serializable {
            self.context.check_not_learner()?;
        }
        validate::range(&request)?;
        if !request.serializable {
            self.context.linearize().await?;
        }
        self.context.check_ready()?;
        let started = Instant::now();
        let reply = self.range_of_view(request).await;
        self.context.reads(1);
        self.context.timers().range_alone.observe(started, reply.is_ok());
        reply
    }

    async fn range_of_view(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let pin = self.context.pin(request.revision)?;
        let revision = header_revision(&self.context, request.revision, &pin);
        let at = reply::end_of(&pin);
        let rows = self.context.read(request::query(&request), at, Arc::new(pin)).await?;
        Ok(reply::range(self.context.header(revision), rows))
    }

    async fn write_put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        self.context.check_not_learner()?;
        validate::put(&request)?;
        let command = Command::Put(request);
        let (applied, term, pin) = reply::applied(self.context.propose(command).await?)?;
        let header = self.context.header_at(applied.revision, term);
        reply::put(&self.context, header, applied.outcome, pin).await
    }

    async fn write_delete(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        self.context.check_not_learner()?;
        validate::delete_range(&request)?;
        let command = Command::DeleteRange(request);
        let (applied, term, pin) = reply::applied(self.context.propose(command).await?)?;
        let header = self.context.header_at(applied.revision, term);
        reply::delete_range(&self.context, header, applied.outcome, pin).await
    }

    async fn write_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let command = Command::Txn(request);
        let (applied, term, pin) = reply::applied(self.context.propose(command).await?)?;
        let header = self.context.header_at(applied.revision, term);
        reply::txn(&self.context, header, applied.outcome, pin).await
    }

    /// A transaction that only reads: compares and ranges all see the revision that is pinned first.
    async fn read_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        if !request::is_serializable(&request) {
            self.context.linearize().await?;
        }
        self.context.check_ready()?;
        let pin = Arc::new(self.context.pin(0)?);
        let revision = pin.revision();
        let (mut succeeded, mut ranges_read) = (true, 0);
        for compare in request.compare {
            ranges_read += 1;
            let compare = compare_of(compare);
            let at = reply::end_of(&pin);
            if !self.context.compare(compare, at, Arc::clone(&pin)).await? {
                succeeded = false;
                break;
            }
        }
        let branch = if succeeded { request.success } else { request.failure };
        let ranges = branch.into_iter().filter_map(|op| match op.request {
            Some(WireRequest::RequestRange(range)) => Some(range),
            _ => None,
        });
        // All revisions are checked before the first key is read.
        let pins = ranges
            .map(|range| Ok((self.pin_within(&range, &pin)?, range)))
            .collect::<Result<Vec<_>, Status>>()?;
        self.context.reads(ranges_read + pins.len() as u64);
        let mut responses = Vec::with_capacity(pins.len());
        for (pin, range) in pins {
            let at = reply::end_of(&pin);
            let rows = self.context.read(request::query(&range), at, pin).await?;
            let range = reply::range(Context::inner_header(revision), rows);
            responses.push(ResponseOp { response: Some(WireResponse::ResponseRange(range)) });
        }
        let header = Some(self.context.header(revision));
        Ok(TxnResponse { header, succeeded, responses })
    }

    /// The pin for a range of a transaction that sees the state pinned by `txn`.
    fn pin_within(&self, range: &RangeRequest, txn: &Arc<Pin>) -> Result<Arc<Pin>, Status> {
        if range.revision < 0 && range.revision < self.context.handle().view().compact_revision() {
            // Stands for the latest, but counts as old once anything is compacted; as in etcd.
            return Err(Refusal::Compacted.into());
        }
        if range.revision <= 0 || range.revision == txn.revision() {
            return Ok(Arc::clone(txn));
        }
        if range.revision > txn.revision() {
            return Err(Refusal::FutureRevision.into());
        }
        self.context.pin(range.revision).map(Arc::new)
    }

    async fn write_compaction(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        self.context.check_not_learner()?;
        let CompactionRequest { revision, physical } = request;
        let committed = self.context.propose(Command::Compaction(request)).await?;
        let term = committed.term;
        let result = committed.result.map_err(Refusal::from)?;
        if physical {
            let finished = self.context.handle().compaction_finished(revision).await;
            finished.map_err(Refusal::from)?;
        }
        let current = match result {
            ApplyResponse::Compacted { revision } => revision,
            _ => self.context.handle().view().current_revision(),
        };
        Ok(CompactionResponse { header: Some(self.context.header_at(current, term)) })
    }
}

/// `header.revision` of a read: the current one, and for a read of the present the one that was read.
pub(super) fn header_revision(context: &Context, asked: i64, pin: &Pin) -> i64 {
    if asked <= 0 { pin.revision() } else { context.handle().view().current_revision() }
}

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream = RangeStream;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let started = Instant::now();
        let reply = self.read_range(request.into_inner()).await;
        self.context.timers().range.observe(started, reply.is_ok());
        reply.and_then(large::detach)
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeStream>, Status> {
        let request = request.into_inner();
        self.context.check_not_learner()?;
        validate::range_stream(&request)?;
        if !request.serializable {
            self.context.linearize().await?;
        }
        self.context.check_ready()?;
        RangeStream::start(self.context.clone(), request).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.write_put(request.into_inner()).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.write_delete(request.into_inner()).await.map(Response::new)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        self.context.check_not_learner()?;
        validate::txn(&request, self.context.limits().txn_ops_max)?;
        if !request::is_read_only(&request) {
            return self.write_txn(request).await.map(Response::new);
        }
        let started = Instant::now();
        let reply = self.read_txn(request).await;
        self.context.timers().read_only_txn.observe(started, reply.is_ok());
        reply.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.write_compaction(request.into_inner()).await.map(Response::new)
    }
}
