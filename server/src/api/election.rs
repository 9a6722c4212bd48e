//! The Election service: candidates queue as for a lock, and the first one's value is what it proclaims.

use std::sync::Arc;

use quorate_proto::etcdserverpb::ResponseHeader;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::mvccpb::event::EventType;
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
use super::errors::Refusal;

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

/// Where the leaders of one election go.
type Leaders = mpsc::Sender<Result<LeaderResponse, Status>>;

/// Sends every value of whoever leads until nobody listens, or ends with why it cannot.
async fn observe(concurrency: Arc<Concurrency>, prefix: Prefix, leaders: Leaders) {
    tokio::select! {
        Err(status) = follow_leaders(&concurrency, &prefix, &leaders) => {
            // Whoever stopped listening meanwhile needs no reason.
            let _ = leaders.send(Err(through_client(&status))).await;
        }
        () = leaders.closed() => {}
    }
}

/// As etcd: the first of all keys leads, and each of its values is sent in order, until it is deleted;
/// then it is looked who is the first now.
async fn follow_leaders(
    concurrency: &Concurrency,
    prefix: &Prefix,
    leaders: &Leaders,
) -> Result<(), Status> {
    loop {
        let (header, kv) = match concurrency.first(prefix).await? {
            (header, Some(kv)) => (header, kv),
            (header, None) => first_put(concurrency, prefix, header.revision).await?,
        };
        let mut changes = concurrency.changes_of(kv.key.clone(), header.revision);
        tell(leaders, header, kv).await?;
        loop {
            let (header, event) = changes.next().await?.ok_or(Refusal::Compacted)?;
            match event.kv {
                Some(kv) if event.r#type == i32::from(EventType::Put) => {
                    tell(leaders, header, kv).await?;
                }
                _ => break,
            }
        }
    }
}

/// Waits for the first put of a key of `prefix` after `revision`; the header is of its moment.
async fn first_put(
    concurrency: &Concurrency,
    prefix: &Prefix,
    revision: i64,
) -> Result<(ResponseHeader, KeyValue), Status> {
    let mut puts = concurrency.puts_below(prefix, revision);
    loop {
        let (header, event) = puts.next().await?.ok_or(Refusal::Compacted)?;
        if let Some(kv) = event.kv {
            return Ok((ResponseHeader { revision: kv.mod_revision, ..header }, kv));
        }
    }
}

async fn tell(leaders: &Leaders, header: ResponseHeader, kv: KeyValue) -> Result<(), Status> {
    let leader = LeaderResponse { header: Some(header), kv: Some(kv) };
    let sent = leaders.send(Ok(leader)).await;
    sent.map_err(|_| Status::cancelled("nobody listens"))
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
