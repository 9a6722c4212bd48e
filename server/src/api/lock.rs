//! The Lock service: a key below the name of the lock, held by whoever was there first.
//!
//! The client keeps its lease alive; the lock ends with it. Unlocking is deleting the key.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::v3lockpb::lock_server::Lock;
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::admin_errors::{AdminRefusal, through_client};
use super::concurrency::{Concurrency, Pending, Prefix};

/// Serves locks.
pub(crate) struct LockService {
    concurrency: Arc<Concurrency>,
}

impl LockService {
    pub(crate) fn new(concurrency: Arc<Concurrency>) -> Self {
        Self { concurrency }
    }

    async fn take(&self, request: LockRequest) -> Result<LockResponse, Status> {
        let lease = self.concurrency.lease(request.lease).await?;
        let prefix = Prefix::of(&request.name);
        let claim = self.concurrency.claim(&prefix, lease, Bytes::new()).await?;
        if claim.is_first {
            return Ok(LockResponse { header: Some(claim.header), key: claim.key });
        }
        let pending = Pending::new(&self.concurrency, &claim);
        self.concurrency.wait_turn(&prefix, claim.revision).await?;
        // The lease may have ended meanwhile, and the key with it.
        let (header, own) = self.concurrency.find(claim.key.clone()).await?;
        pending.keep();
        match own {
            Some(_) => Ok(LockResponse { header: Some(header), key: claim.key }),
            None => Err(AdminRefusal::SessionExpired.into()),
        }
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let reply = self.take(request.into_inner()).await;
        reply.map(Response::new).map_err(|status| through_client(&status))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let reply = self.concurrency.delete(request.into_inner().key).await;
        let header = reply.map_err(|status| through_client(&status))?;
        Ok(Response::new(UnlockResponse { header }))
    }
}
