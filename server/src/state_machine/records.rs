//! The records that the state machine keeps beside keys.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::{etcdserverpb as pb, leasepb, membershippb, raftpb};

use crate::lease::Lease;

/// One member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its ID, never 0.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
    /// Whether it only learns.
    pub is_learner: bool,
}

/// A raised alarm. Those of a kind are next to each other: whether there is one is asked with every write,
/// and a client may raise any number of them, for members that are not there too, as in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// What is wrong.
    pub kind: AlarmKind,
    /// The member that it concerns.
    pub member_id: u64,
}

/// Kinds of alarms, with the numbers of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is used up: writes that add are refused.
    NoSpace = 1,
    /// Members disagree: key and lease operations are refused.
    Corrupt = 2,
}

impl AlarmKind {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// A change of the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// The id under which its proposer waits, 0 if nobody does.
    pub id: u64,
    /// What to change.
    pub kind: ConfChangeKind,
    /// Whom it concerns. Only its ID counts for a removal.
    pub member: Member,
}

/// Kinds of configuration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum ConfChangeKind {
    AddVoter,
    AddLearner,
    Update,
    Remove,
}

impl Member {
    /// The record, as `membershippb.Member`.
    pub fn encode(&self) -> Bytes {
        membershippb::Member {
            id: self.id,
            raft_attributes: Some(membershippb::RaftAttributes {
                peer_urls: self.peer_urls.clone(),
                is_learner: self.is_learner,
            }),
            member_attributes: Some(membershippb::Attributes {
                name: self.name.clone(),
                client_urls: self.client_urls.clone(),
            }),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a record back; `None` if it is not one.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let record = membershippb::Member::decode(data).ok().filter(|record| record.id != 0)?;
        let raft = record.raft_attributes.unwrap_or_default();
        let attributes = record.member_attributes.unwrap_or_default();
        Some(Self {
            id: record.id,
            name: attributes.name,
            peer_urls: raft.peer_urls,
            client_urls: attributes.client_urls,
            is_learner: raft.is_learner,
        })
    }
}

impl Alarm {
    /// The record, as `etcdserverpb.AlarmMember`.
    pub fn encode(&self) -> Bytes {
        pb::AlarmMember { member_id: self.member_id, alarm: self.kind as i32 }
            .encode_to_vec()
            .into()
    }

    /// Reads a record back; `None` if it is not one.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let record = pb::AlarmMember::decode(data).ok()?;
        let kind = match record.alarm {
            1 => AlarmKind::NoSpace,
            2 => AlarmKind::Corrupt,
            _ => return None,
        };
        Some(Self { member_id: record.member_id, kind })
    }
}

/// The record of a lease, as `leasepb.Lease`.
pub fn encode_lease(lease: Lease) -> Bytes {
    let Lease { id, ttl_s, remaining_ttl_s, granted_by } = lease;
    let record = leasepb::Lease { id, ttl: ttl_s, remaining_ttl: remaining_ttl_s, granted_by };
    record.encode_to_vec().into()
}

/// Reads a record back; `None` if it is not one.
pub(super) fn decode_lease(data: &[u8]) -> Option<Lease> {
    let record = leasepb::Lease::decode(data).ok().filter(|record| record.id != 0)?;
    Some(Lease {
        id: record.id,
        ttl_s: record.ttl,
        remaining_ttl_s: record.remaining_ttl,
        granted_by: record.granted_by,
    })
}

impl ConfChange {
    /// The data of an entry, as `raftpb.ConfChange` with the member as its context.
    pub fn encode(&self) -> Bytes {
        let kind = match self.kind {
            ConfChangeKind::AddVoter => raftpb::ConfChangeType::ConfChangeAddNode,
            ConfChangeKind::AddLearner => raftpb::ConfChangeType::ConfChangeAddLearnerNode,
            ConfChangeKind::Update => raftpb::ConfChangeType::ConfChangeUpdateNode,
            ConfChangeKind::Remove => raftpb::ConfChangeType::ConfChangeRemoveNode,
        };
        raftpb::ConfChange {
            id: Some(self.id),
            r#type: Some(kind as i32),
            node_id: Some(self.member.id),
            context: Some(self.member.encode()),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads the data of an entry back; `None` if it is not a change that we make.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let change = raftpb::ConfChange::decode(data).ok()?;
        let kind = match change.r#type() {
            raftpb::ConfChangeType::ConfChangeAddNode => ConfChangeKind::AddVoter,
            raftpb::ConfChangeType::ConfChangeAddLearnerNode => ConfChangeKind::AddLearner,
            raftpb::ConfChangeType::ConfChangeUpdateNode => ConfChangeKind::Update,
            raftpb::ConfChangeType::ConfChangeRemoveNode => ConfChangeKind::Remove,
        };
        let member = Member::decode(change.context())?;
        (member.id == change.node_id()).then(|| Self { id: change.id(), kind, member })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_broken_ones_are_refused() {
        let member = Member {
            id: 9,
            name: "a".into(),
            peer_urls: vec!["http://localhost:2380".into()],
            client_urls: vec![],
            is_learner: true,
        };
        assert_eq!(Member::decode(&member.encode()), Some(member.clone()));
        let change = ConfChange { id: 3, kind: ConfChangeKind::AddLearner, member };
        assert_eq!(ConfChange::decode(&change.encode()), Some(change));
        let alarm = Alarm { member_id: 9, kind: AlarmKind::Corrupt };
        assert_eq!(Alarm::decode(&alarm.encode()), Some(alarm));
        assert_eq!(Member::decode(b"\xff"), None);
        assert_eq!(Member::decode(b""), None, "a member without an ID is none");
        assert_eq!(ConfChange::decode(b"\x08\x01"), None);
        assert_eq!(Alarm::decode(b"\x10\x09"), None);
        let lease = Lease { id: -3, ttl_s: 60, remaining_ttl_s: 7, granted_by: 5 };
        assert_eq!(decode_lease(&encode_lease(lease)), Some(lease));
        assert_eq!(decode_lease(b""), None);
    }
}
