//! The Lease service.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use quorate_proto::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};
use tonic::{Request, Response, Status, Streaming};

use super::context::Context;
use super::errors::Refusal;
use super::keep_alive::KeepAlive;
use super::request::Command;
use crate::handle::Response as ApplyResponse;

/// Grants and ends leases through the log, and asks the leader about them.
pub(crate) struct LeaseService {
    context: Context,
    /// Renewals under way of all streams.
    renewals: Arc<AtomicUsize>,
}

impl LeaseService {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, renewals: Arc::default() }
    }

    /// A header that is filled now.
    fn header(&self) -> Option<ResponseHeader> {
        Some(self.context.header(self.context.handle().view().current_revision()))
    }

    /// Proposes a command; returns the header of what came of it.
    async fn apply(&self, command: Command) -> Result<Option<ResponseHeader>, Status> {
        let committed = self.context.propose(command).await?;
        match committed.result.map_err(Refusal::from)? {
            ApplyResponse::Lease { revision } => {
                Ok(Some(self.context.header_at(revision, committed.term)))
            }
            other => panic!("apply answers a request with an outcome of its kind, not {other:?}"),
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = KeepAlive;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.context.check_not_learner()?;
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let handle = self.context.handle();
        let id = if id == 0 { handle.new_lease_id() } else { id };
        // Raised here: members may be set up with different timeouts, and must apply the same.
        let ttl = ttl.max(handle.lease_ttl_min_s());
        let header = self.apply(Command::LeaseGrant(LeaseGrantRequest { ttl, id })).await?;
        #[allow(clippy::cast_precision_loss)] // For a bucket of a histogram.
        self.context.metrics().lease.ttl_seconds.observe(ttl as f64);
        Ok(Response::new(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.context.check_not_learner()?;
        let header = self.apply(Command::LeaseRevoke(request.into_inner())).await?;
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlive>, Status> {
        self.context.check_not_learner()?;
        let (context, renewals) = (self.context.clone(), Arc::clone(&self.renewals));
        Ok(Response::new(KeepAlive::new(context, request.into_inner(), renewals)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.context.check_not_learner()?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let found = self.context.handle().time_to_live(id, keys).await.map_err(Refusal::from)?;
        let header = self.header();
        let reply = match found {
            None => LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
            Some(lease) => LeaseTimeToLiveResponse {
                header,
                id,
                // Whole seconds that are left; of the last one, some has passed since the last tick.
                ttl: i64::try_from(lease.remaining_ms.saturating_sub(1) / 1000).unwrap_or(i64::MAX),
                granted_ttl: lease.ttl_s,
                keys: lease.keys,
            },
        };
        Ok(Response::new(reply))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.context.check_not_learner()?;
        let leases = self.context.handle().leases().await.map_err(Refusal::from)?;
        let leases = leases.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header(), leases }))
    }
}
