//! The Election service: candidates queue as for a lock, and the first one's value is what it proclaims.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::v3electionpb::election_server::Election;
use quorate_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::admin_errors::{AdminRefusal, through_client};
use super::concurrency::{Concurrency, Pending, Prefix};

/// Serves elections.
pub(crate) struct ElectionService {
    concurrency: Arc<Concurrency>,
}

impl ElectionService {
    pub(crate) fn new(concurrency: Arc<Concurrency>) -> Self {
        Self { concurrency }
    }

    async fn win(&self, request: CampaignRequest) -> Result<CampaignResponse, Status> {
        let CampaignRequest { name, lease, value } = request;
        let lease = self.concurrency.lease(lease).await?;
        let prefix = Prefix::of(&name);
        let claim = self.concurrency.claim(&prefix, lease, value.clone()).await?;
        let pending = Pending::new(&self.concurrency, &claim);
        if claim.found.as_ref().is_some_and(|found| *found != value) {
            let own = (claim.key.clone(), claim.revision);
            let put = self.concurrency.put_if(own, lease, value).await?;
            put.ok_or(AdminRefusal::ElectionNotLeader)?;
        }
        self.concurrency.wait_turn(&prefix, claim.revision).await?;
        pending.keep();
        let leader = LeaderKey { name, key: claim.key, rev: claim.revision, lease };
        Ok(CampaignResponse { header: Some(claim.header), leader: Some(leader) })
    }

    async fn say(&self, request: ProclaimRequest) -> Result<ProclaimResponse, Status> {
        let leader = request.leader.ok_or(AdminRefusal::NoLeaderKey)?;
        let lease = self.concurrency.lease(leader.lease).await?;
        let own = (leader.key, leader.rev);
        let header = self.concurrency.put_if(own, lease, request.value).await?;
        match header {
            Some(_) => Ok(ProclaimResponse { header }),
            None => Err(AdminRefusal::ElectionNotLeader.into()),
        }
    }

    async fn step_down(&self, request: ResignRequest) -> Result<ResignResponse, Status> {
        let leader = request.leader.ok_or(AdminRefusal::NoLeaderKey)?;
        let header = self.concurrency.delete_if(leader.key, leader.rev).await?;
        Ok(ResignResponse { header })
    }

    async fn who(&self, request: LeaderRequest) -> Result<LeaderResponse, Status> {
        match self.concurrency.first(&Prefix::of(&request.name)).await? {
            (header, Some(kv)) => Ok(LeaderResponse { header: Some(header), kv: Some(kv) }),
            (_, None) => Err(AdminRefusal::ElectionNoLeader.into()),
        }
    }
}

/// Sends the leader's key each time that it is another one, until nobody listens or it cannot be read.
///
/// Of several changes that come together only the last is sent.
async fn observe(
    concurrency: Arc<Concurrency>,
    prefix: Prefix,
    leaders: mpsc::Sender<Result<LeaderResponse, Status>>,
) {
    let mut last: Option<(Bytes, i64)> = None;
    loop {
        let Ok((header, leader)) = concurrency.first(&prefix).await else { return };
        let now = leader.as_ref().map(|kv| (kv.key.clone(), kv.mod_revision));
        if now.is_some() && now != last {
            let message = LeaderResponse { header: Some(header), kv: leader };
            if leaders.send(Ok(message)).await.is_err() {
                return;
            }
        }
        last = now;
        let last = last.as_ref().map(|(key, modified)| (&key[..], *modified));
        tokio::select! {
            () = concurrency.wait_changed(&prefix, last) => {}
            () = leaders.closed() => return,
        }
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let reply = self.win(request.into_inner()).await;
        reply.map(Response::new).map_err(|status| through_client(&status))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let reply = self.say(request.into_inner()).await;
        reply.map(Response::new).map_err(|status| through_client(&status))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let reply = self.who(request.into_inner()).await;
        reply.map(Response::new).map_err(|status| through_client(&status))
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let prefix = Prefix::of(&request.get_ref().name);
        let (leaders, stream) = mpsc::channel(1);
        tokio::spawn(observe(Arc::clone(&self.concurrency), prefix, leaders));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let reply = self.step_down(request.into_inner()).await;
        reply.map(Response::new).map_err(|status| through_client(&status))
    }
}
