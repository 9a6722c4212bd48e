//! Commands that a member proposes by itself.

use bytes::Bytes;
use quorate_proto::{etcdserverpb as pb, membershippb};

use super::command::encode;
use super::records::{Alarm, Member};
use crate::lease::Grant;

/// Compacts history up to `revision`.
pub fn compact(revision: i64) -> Bytes {
    let compaction = Some(pb::CompactionRequest { revision, physical: false });
    encode(&pb::InternalRaftRequest { compaction, ..Default::default() })
}

/// Raises `alarm`.
pub fn raise(alarm: Alarm) -> Bytes {
    let request = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: alarm.member_id,
        alarm: alarm.kind as i32,
    };
    encode(&pb::InternalRaftRequest { alarm: Some(request), ..Default::default() })
}

/// Takes `alarm` back.
pub fn disarm(alarm: Alarm) -> Bytes {
    let request = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Deactivate.into(),
        member_id: alarm.member_id,
        alarm: alarm.kind as i32,
    };
    encode(&pb::InternalRaftRequest { alarm: Some(request), ..Default::default() })
}

/// Says the name and client URLs of `member`.
pub fn set_attributes(member: &Member) -> Bytes {
    let set = membershippb::ClusterMemberAttrSetRequest {
        member_id: member.id,
        member_attributes: Some(membershippb::Attributes {
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
        }),
    };
    encode(&pb::InternalRaftRequest { cluster_member_attr_set: Some(set), ..Default::default() })
}

/// Sets the API version that all members speak.
pub fn set_cluster_version(version: &str) -> Bytes {
    let set = membershippb::ClusterVersionSetRequest { ver: version.to_owned() };
    encode(&pb::InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() })
}

/// Ends a lease whose time is over.
pub fn end(Grant { id, request }: Grant) -> Bytes {
    let lease_end = Some(pb::LeaseEndRequest { id, granted_by: request });
    encode(&pb::InternalRaftRequest { lease_end, ..Default::default() })
}

/// Writes down what is left of leases, in seconds.
pub fn checkpoint(left: impl Iterator<Item = (Grant, i64)>) -> Bytes {
    let checkpoint = |(Grant { id, request }, remaining_ttl)| pb::LeaseCheckpoint {
        id,
        remaining_ttl,
        granted_by: request,
    };
    let checkpoints = left.map(checkpoint).collect();
    let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
    encode(&pb::InternalRaftRequest { lease_checkpoint, ..Default::default() })
}
