//! The Cluster service: the list of members.

use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::{
    Member as WireMember, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::context::Context;
use super::unavailable;
use crate::state_machine::Member;

/// Serves what is known of the members.
pub(crate) struct ClusterService {
    context: Context,
}

impl ClusterService {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }
}

fn wire(member: &Member) -> WireMember {
    WireMember {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.context.check_not_learner()?;
        if request.get_ref().linearizable {
            self.context.linearize().await?;
        }
        let members = self.context.handle().members().iter().map(wire).collect();
        // Nothing here concerns keys, so the header has no revision.
        Ok(Response::new(MemberListResponse { header: Some(self.context.header(0)), members }))
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(unavailable("adding a member"))
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(unavailable("removing a member"))
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(unavailable("changing the URLs of a member"))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(unavailable("promoting a member"))
    }
}
