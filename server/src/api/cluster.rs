//! The Cluster service: the list of members, and how a lone member answers those who would change it.

use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::{
    Member as WireMember, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::admin_errors::AdminRefusal;
use super::context::Context;
use super::errors::Refusal;
use super::{peer_urls, unavailable};
use crate::state_machine::Member;

/// Serves what is known of the members.
pub(crate) struct ClusterService {
    context: Context,
}

impl ClusterService {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    fn members(&self) -> Vec<WireMember> {
        self.context.handle().members().iter().map(wire).collect()
    }

    fn find(&self, id: u64) -> Result<Member, AdminRefusal> {
        let members = self.context.handle().members();
        members.iter().find(|member| member.id == id).cloned().ok_or(AdminRefusal::MemberNotFound)
    }

    /// Refuses URLs that another member than `id` has.
    fn check_unused(&self, id: u64, urls: &[String]) -> Result<(), AdminRefusal> {
        let members = self.context.handle().members();
        let mut others = members.iter().filter(|member| member.id != id);
        match others.any(|other| other.peer_urls.iter().any(|url| urls.contains(url))) {
            true => Err(AdminRefusal::PeerUrlsExist),
            false => Ok(()),
        }
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
        let members = self.members();
        // Nothing here concerns keys, so the header has no revision.
        Ok(Response::new(MemberListResponse { header: Some(self.context.header(0)), members }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.context.check_not_learner()?;
        let urls = peer_urls::read(&request.get_ref().peer_ur_ls)?;
        self.check_unused(0, &urls)?;
        Err(unavailable("a cluster of several members, and with it adding one,"))
    }

    /// A lone member cannot be removed: nobody would be left.
    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.context.check_not_learner()?;
        self.find(request.get_ref().id)?;
        Err(AdminRefusal::NotEnoughStartedMembers.into())
    }

    /// Any text is taken for a URL, as by etcd: only [`Cluster::member_add`] looks at them.
    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.context.check_not_learner()?;
        let MemberUpdateRequest { id, peer_ur_ls: peer_urls } = request.into_inner();
        let member = Member { peer_urls, ..self.find(id)? };
        self.check_unused(id, &member.peer_urls)?;
        self.context.handle().update_member(member).await.map_err(Refusal::from)?;
        let members = self.members();
        Ok(Response::new(MemberUpdateResponse { header: Some(self.context.header(0)), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.context.check_not_learner()?;
        self.find(request.get_ref().id)?;
        Err(AdminRefusal::MemberNotLearner.into())
    }
}
