//! The Maintenance service: status, hashes, alarms, space.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, StatusRequest,
    StatusResponse,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::admin_errors::AdminRefusal;
use super::context::Context;
use super::errors::Refusal;
use super::request::Command;
use super::snapshot::{SnapshotStream, Snapshots};
use super::{downgrade, unavailable};
use crate::config::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::handle::Response as ApplyResponse;
use crate::state_machine::{Alarm, AlarmKind};
use crate::view::HashResult;

/// Serves what an operator asks.
pub(crate) struct MaintenanceService {
    context: Context,
    snapshots: Snapshots,
    hashes: Semaphore,
}

/// Hashes that are computed at a time: each reads every row, and whoever may read may ask for one.
/// Others wait.
const HASHES_MAX: usize = 2;

impl MaintenanceService {
    pub(crate) fn new(context: Context) -> Self {
        let hashes = Semaphore::new(HASHES_MAX);
        Self { context, snapshots: Snapshots::default(), hashes }
    }

    fn status_now(&self) -> StatusResponse {
        let handle = self.context.handle();
        let status = handle.status();
        let leader = status.raft.leader_id.load(Relaxed);
        let mut errors: Vec<String> = handle.alarms().iter().map(describe).collect();
        if leader == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        let own_bytes = handle.record_bytes();
        StatusResponse {
            header: Some(self.context.header(handle.view().current_revision())),
            version: ETCD_VERSION.to_owned(),
            db_size: status.space.db_size_bytes.load(Relaxed) + own_bytes,
            leader,
            raft_index: status.raft.commit_index.load(Relaxed),
            raft_term: status.raft.term.load(Relaxed),
            raft_applied_index: status.raft.applied_index.load(Relaxed),
            errors,
            db_size_in_use: status.space.db_size_in_use_bytes.load(Relaxed) + own_bytes,
            is_learner: status.raft.is_learner.load(Relaxed),
            storage_version: ETCD_CLUSTER_VERSION.to_owned(),
            db_size_quota: status.space.quota_bytes.load(Relaxed),
            downgrade_info: Some(DowngradeInfo::default()),
        }
    }

    /// The hash of the key space at `revision`, or now for 0.
    async fn hash_at(&self, revision: i64) -> Result<HashResult, Status> {
        self.context.check_ready()?;
        let handle = self.context.handle();
        if revision < 0 {
            // No revision is that old: etcd hashes nothing but the name of the bucket.
            return Ok(HashResult {
                hash: crc32c::crc32c(b"key"),
                compact_revision: handle.view().compact_revision(),
                hash_revision: revision,
                current_revision: handle.view().current_revision(),
            });
        }
        let refuse = |error| self.context.refuse_read(error);
        let _turn = self.hashes.acquire().await.map_err(|_| Refusal::Stopped)?;
        let mut read = handle.view().hash_kv(revision).map_err(refuse)?;
        loop {
            match read.step(handle.rows().as_ref()).map_err(refuse)? {
                Some(result) => return Ok(result),
                None => tokio::task::yield_now().await,
            }
        }
    }

    async fn change_alarm(&self, request: AlarmRequest) -> Result<Vec<Alarm>, Status> {
        let committed = self.context.propose(Command::Alarm(request)).await?;
        match committed.result.map_err(Refusal::from)? {
            ApplyResponse::Alarms(alarms) => Ok(alarms),
            _ => Ok(Vec::new()),
        }
    }
}

fn number(kind: AlarmKind) -> AlarmType {
    match kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    }
}

fn wire(alarm: &Alarm) -> AlarmMember {
    AlarmMember { member_id: alarm.member_id, alarm: number(alarm.kind).into() }
}

/// An alarm as protobuf's text format has it.
fn describe(alarm: &Alarm) -> String {
    format!("memberID:{} alarm:{}", alarm.member_id, number(alarm.kind).as_str_name())
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = SnapshotStream;

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        self.context.check_not_learner()?;
        let request = request.into_inner();
        let action = AlarmAction::try_from(request.action);
        let action = action.map_err(|_| Refusal::UnknownAlarmAction)?;
        let kind = AlarmType::try_from(request.alarm).map_err(|_| Refusal::UnknownAlarmType)?;
        let alarms = match (action, kind) {
            (AlarmAction::Get, kind) => {
                self.context.linearize().await?;
                let all = self.context.handle().alarms();
                let wanted = |a: &&Alarm| kind == AlarmType::None || number(a.kind) == kind;
                all.iter().filter(wanted).copied().collect()
            }
            (_, AlarmType::None) => Vec::new(),
            _ => self.change_alarm(request).await?,
        };
        let header = self.context.header(self.context.handle().view().current_revision());
        let alarms = alarms.iter().map(wire).collect();
        Ok(Response::new(AlarmResponse { header: Some(header), alarms }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.status_now()))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.context.check_not_learner()?;
        let disk = &self.context.metrics().disk;
        let started = Instant::now();
        let done = self.context.handle().defragment().await;
        disk.defrag_seconds.observe(started.elapsed().as_secs_f64());
        done.map_err(Refusal::from)?.map_err(Status::unknown)?;
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    /// Of the key space now: what else the store holds is this member's own business.
    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.context.check_not_learner()?;
        let started = Instant::now();
        let summary = self.hash_at(0).await?;
        let seconds = started.elapsed().as_secs_f64();
        self.context.metrics().mvcc.hash_seconds.observe(seconds);
        let header = self.context.header(self.context.handle().view().current_revision());
        Ok(Response::new(HashResponse { header: Some(header), hash: summary.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        self.context.check_not_learner()?;
        let started = Instant::now();
        let summary = self.hash_at(request.get_ref().revision).await?;
        let seconds = started.elapsed().as_secs_f64();
        self.context.metrics().mvcc.hash_revision_seconds.observe(seconds);
        let header = self.context.header(self.context.handle().view().current_revision());
        Ok(Response::new(HashKvResponse {
            header: Some(header),
            hash: summary.hash,
            compact_revision: summary.compact_revision,
            hash_revision: summary.hash_revision,
        }))
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.context.check_ready()?;
        self.snapshots.start(self.context.clone()).await.map(Response::new)
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.context.check_not_learner()?;
        let status = self.context.handle().status();
        let own = status.member_id.load(Relaxed);
        if status.raft.leader_id.load(Relaxed) != own {
            return Err(AdminRefusal::NotLeader.into());
        }
        match request.get_ref().target_id {
            // It leads already.
            target if target == own => Ok(Response::new(MoveLeaderResponse { header: None })),
            _ => Err(AdminRefusal::BadLeaderTransferee.into()),
        }
    }

    /// A version that etcd would go back to is refused: no older one reads what this one writes.
    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.context.check_not_learner()?;
        let DowngradeRequest { action, version: target } = request.into_inner();
        match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                downgrade::check_target(&target, ETCD_CLUSTER_VERSION)?;
                Err(unavailable("a downgrade"))
            }
            // There is none, which is what was asked for.
            Ok(DowngradeAction::Cancel) => {
                self.context.linearize().await?;
                let revision = self.context.handle().view().current_revision();
                let (version, _patch) =
                    ETCD_CLUSTER_VERSION.rsplit_once('.').expect("a version has three numbers");
                Ok(Response::new(DowngradeResponse {
                    header: Some(self.context.header(revision)),
                    version: version.to_owned(),
                }))
            }
            Err(_) => Err(AdminRefusal::UnknownDowngradeAction.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_read_as_in_etcd() {
        let alarm = Alarm { member_id: 5, kind: AlarmKind::NoSpace };
        assert_eq!(describe(&alarm), "memberID:5 alarm:NOSPACE");
        assert_eq!(wire(&alarm), AlarmMember { member_id: 5, alarm: 1 });
        assert_eq!(number(AlarmKind::Corrupt) as i32, AlarmKind::Corrupt as i32);
    }
}
