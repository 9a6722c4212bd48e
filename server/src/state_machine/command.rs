//! The commands of the log: `etcdserverpb.InternalRaftRequest` in wire form, and what they mean to us.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use quorate_proto::{etcdserverpb as pb, membershippb};

use super::records::{Alarm, AlarmKind};
use crate::lease::{Grant, LEASE_BYTES};
use crate::mvcc::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, Op, Put, RangeQuery,
    RevisionBounds, Sort, SortTarget, Txn,
};

/// What a put is taken to need beside its key and value, in bytes; etcd's `kvOverhead`.
const QUOTA_PUT_OVERHEAD_BYTES: u64 = 256;

/// One command of the log with the id under which its proposer waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Unique among all members and boots; 0 if nobody waits.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The variants are the types they hold.
pub enum Command {
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    Compact {
        /// The revision to keep readable.
        revision: i64,
    },
    /// Adds a lease.
    LeaseGrant {
        /// Its ID.
        id: i64,
        /// Its time to live, in seconds.
        ttl_s: i64,
    },
    /// Ends a lease and deletes its keys.
    LeaseRevoke {
        /// Its ID.
        id: i64,
    },
    /// Ends a lease whose time is over, as above.
    LeaseEnd(Grant),
    /// Writes down what is left of leases, in seconds; 0 for all of it.
    LeaseCheckpoint(Vec<(Grant, i64)>),
    Alarm(AlarmAction),
    /// A member says its name and where clients reach it.
    SetAttributes {
        /// Which member.
        member_id: u64,
        /// Its name.
        name: String,
        /// Its client URLs.
        client_urls: Vec<String>,
    },
    /// The API version that all members speak.
    SetClusterVersion(String),
}

/// What an alarm command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// Lists alarms, all or of one kind.
    Get(Option<AlarmKind>),
    /// Raises one.
    Activate(Alarm),
    /// Takes one back.
    Deactivate(Alarm),
    /// Named no alarm that exists: changes and lists nothing.
    Nothing,
}

/// An entry that this version cannot read. The process ends: skipping it would fork the state.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The bytes are not an `InternalRaftRequest`.
    #[error("entry is not a command: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A command of a newer version.
    #[error("entry holds a command that this version does not know; run the version that wrote it")]
    Unknown,
}

impl Request {
    /// Reads the data of an entry.
    ///
    /// # Errors
    /// [`CommandError`]; the caller must stop.
    pub fn decode(data: Bytes) -> Result<Self, CommandError> {
        let request = pb::InternalRaftRequest::decode(data)?;
        let id = match &request.header {
            Some(header) if header.id != 0 => header.id,
            _ => request.id,
        };
        Ok(Self { id, command: command(request)? })
    }
}

/// What kind of command an entry holds, by the name that etcd's metrics have for it.
pub fn op_name(data: &Bytes) -> &'static str {
    // The command comes first, its header last, and the fields of etcd's own log are no different.
    match prost::encoding::decode_key(&mut data.as_ref()) {
        Ok((3, _)) => "Range",
        Ok((4, _)) => "Put",
        Ok((5, _)) => "DeleteRange",
        Ok((6, _)) => "Txn",
        Ok((7, _)) => "Compaction",
        Ok((8, _)) => "LeaseGrant",
        Ok((9 | 20_000, _)) => "LeaseRevoke",
        Ok((10, _)) => "Alarm",
        Ok((11, _)) => "LeaseCheckpoint",
        Ok((1300, _)) => "ClusterVersionSet",
        Ok((1301, _)) => "ClusterMemberAttrSet",
        Ok((1302, _)) => "DowngradeInfoSet",
        Ok((1000..1300, _)) => "Auth",
        _ => "unknown",
    }
}

/// Encodes a command without an id; [`with_id`] adds one.
pub fn encode(request: &pb::InternalRaftRequest) -> Bytes {
    request.encode_to_vec().into()
}

/// Appends the header that carries `id` to an encoded command.
///
/// Fields of a message may come in any order, so this is the same command with `header.ID` set.
pub fn with_id(command: Bytes, id: u64) -> Bytes {
    let header = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id, ..Default::default() }),
        ..Default::default()
    };
    // The buffer is usually the caller's alone, with room at its end.
    let mut data = command.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    data.reserve(header.encoded_len());
    header.encode(&mut data).expect("the buffer was sized for it");
    data.freeze()
}

/// What a command may add, as etcd's quota counts it; `None` for one that adds nothing.
///
/// # Errors
/// If the bytes are not a command.
pub fn quota_cost_bytes(command: &Bytes) -> Result<Option<u64>, CommandError> {
    let request = pb::InternalRaftRequest::decode(command.clone())?;
    Ok(match (&request.put, &request.txn, &request.lease_grant) {
        (Some(put), ..) => Some(put_cost_bytes(put)),
        (_, Some(txn), _) => Some(txn_cost_bytes(txn)).filter(|&cost| cost > 0),
        (.., Some(_)) => Some(LEASE_BYTES),
        _ => None,
    })
}

fn put_cost_bytes(put: &pb::PutRequest) -> u64 {
    QUOTA_PUT_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

fn txn_cost_bytes(txn: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(pb::request_op::Request::RequestPut(put)) => put_cost_bytes(put),
                Some(pb::request_op::Request::RequestTxn(txn)) => txn_cost_bytes(txn),
                _ => 0,
            })
            .sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

fn command(request: pb::InternalRaftRequest) -> Result<Command, CommandError> {
    if let Some(put) = request.put {
        return Ok(Command::Put(put_of(put)));
    }
    if let Some(txn) = request.txn {
        return Ok(Command::Txn(txn_of(txn)?));
    }
    if let Some(delete) = request.delete_range {
        return Ok(Command::DeleteRange(delete_of(delete)));
    }
    if let Some(compaction) = request.compaction {
        return Ok(Command::Compact { revision: compaction.revision });
    }
    if let Some(grant) = request.lease_grant {
        return Ok(Command::LeaseGrant { id: grant.id, ttl_s: grant.ttl });
    }
    if let Some(revoke) = request.lease_revoke {
        return Ok(Command::LeaseRevoke { id: revoke.id });
    }
    if let Some(end) = request.lease_end {
        return Ok(Command::LeaseEnd(Grant { id: end.id, request: end.granted_by }));
    }
    if let Some(request) = request.lease_checkpoint {
        let left = |left: &pb::LeaseCheckpoint| {
            (Grant { id: left.id, request: left.granted_by }, left.remaining_ttl)
        };
        return Ok(Command::LeaseCheckpoint(request.checkpoints.iter().map(left).collect()));
    }
    if let Some(alarm) = request.alarm {
        return Ok(Command::Alarm(alarm_of(&alarm)));
    }
    if let Some(set) = request.cluster_member_attr_set {
        return Ok(attributes_of(set));
    }
    if let Some(set) = request.cluster_version_set {
        return Ok(Command::SetClusterVersion(set.ver));
    }
    Err(CommandError::Unknown)
}

fn attributes_of(set: membershippb::ClusterMemberAttrSetRequest) -> Command {
    let attributes = set.member_attributes.unwrap_or_default();
    Command::SetAttributes {
        member_id: set.member_id,
        name: attributes.name,
        client_urls: attributes.client_urls,
    }
}

fn put_of(put: pb::PutRequest) -> Put {
    Put {
        key: put.key,
        value: (!put.ignore_value).then_some(put.value),
        lease: (!put.ignore_lease).then_some(put.lease),
        prev_kv: put.prev_kv,
    }
}

fn delete_of(delete: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { keys: KeyRange::from_wire(delete.key, delete.range_end), prev_kv: delete.prev_kv }
}

fn range_of(range: pb::RangeRequest) -> Result<Op, CommandError> {
    let query = range_query(&range).ok_or(CommandError::Unknown)?;
    Ok(Op::Range { query, revision: range.revision })
}

/// A range request's query; `None` if its sort order or target is not known.
pub fn range_query(range: &pb::RangeRequest) -> Option<RangeQuery> {
    let order = pb::range_request::SortOrder::try_from(range.sort_order).ok()?;
    let target = match pb::range_request::SortTarget::try_from(range.sort_target).ok()? {
        pb::range_request::SortTarget::Key => SortTarget::Key,
        pb::range_request::SortTarget::Version => SortTarget::Version,
        pb::range_request::SortTarget::Create => SortTarget::Create,
        pb::range_request::SortTarget::Mod => SortTarget::Mod,
        pb::range_request::SortTarget::Value => SortTarget::Value,
    };
    let descending = order == pb::range_request::SortOrder::Descend;
    // Keys come in ascending order by themselves.
    let sort = (target != SortTarget::Key || descending).then_some(Sort {
        target,
        descending,
        limit_first: order == pb::range_request::SortOrder::None,
    });
    Some(RangeQuery {
        keys: KeyRange::from_wire(range.key.clone(), range.range_end.clone()),
        limit: range.limit,
        sort,
        keys_only: range.keys_only,
        count_only: range.count_only,
        bounds: RevisionBounds {
            min_mod: range.min_mod_revision,
            max_mod: range.max_mod_revision,
            min_create: range.min_create_revision,
            max_create: range.max_create_revision,
        },
    })
}

fn txn_of(txn: pb::TxnRequest) -> Result<Txn, CommandError> {
    Ok(Txn {
        compares: txn.compare.into_iter().map(compare_of).collect(),
        success: txn.success.into_iter().map(op_of).collect::<Result<_, _>>()?,
        failure: txn.failure.into_iter().map(op_of).collect::<Result<_, _>>()?,
    })
}

fn op_of(op: pb::RequestOp) -> Result<Op, CommandError> {
    match op.request.ok_or(CommandError::Unknown)? {
        pb::request_op::Request::RequestRange(range) => range_of(range),
        pb::request_op::Request::RequestPut(put) => Ok(Op::Put(put_of(put))),
        pb::request_op::Request::RequestDeleteRange(delete) => {
            Ok(Op::DeleteRange(delete_of(delete)))
        }
        pb::request_op::Request::RequestTxn(txn) => Ok(Op::Txn(txn_of(txn)?)),
    }
}

/// A compare in the words of the key space.
pub fn compare_of(compare: pb::Compare) -> Compare {
    use pb::compare::{CompareResult as WireResult, CompareTarget as WireTarget, TargetUnion};
    let result = match WireResult::try_from(compare.result) {
        Ok(WireResult::Equal) => CompareResult::Equal,
        Ok(WireResult::Greater) => CompareResult::Greater,
        Ok(WireResult::Less) => CompareResult::Less,
        Ok(WireResult::NotEqual) => CompareResult::NotEqual,
        Err(_) => CompareResult::Unknown,
    };
    let given = compare.target_union;
    // A given side of another kind than the target counts as unset, that is as zero.
    let target = match WireTarget::try_from(compare.target) {
        Ok(WireTarget::Version) => CompareTarget::Version(match given {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        Ok(WireTarget::Create) => CompareTarget::Create(match given {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(WireTarget::Mod) => CompareTarget::Mod(match given {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(WireTarget::Value) => CompareTarget::Value(match given {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
        Ok(WireTarget::Lease) => CompareTarget::Lease(match given {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        Err(_) => CompareTarget::Unknown,
    };
    Compare { keys: KeyRange::from_wire(compare.key, compare.range_end), result, target }
}

fn alarm_of(request: &pb::AlarmRequest) -> AlarmAction {
    let kind = match pb::AlarmType::try_from(request.alarm) {
        Ok(pb::AlarmType::Nospace) => Some(AlarmKind::NoSpace),
        Ok(pb::AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
        _ => None,
    };
    let alarm = kind.map(|kind| Alarm { member_id: request.member_id, kind });
    match (pb::alarm_request::AlarmAction::try_from(request.action), alarm) {
        (Ok(pb::alarm_request::AlarmAction::Get), _) => AlarmAction::Get(kind),
        (Ok(pb::alarm_request::AlarmAction::Activate), Some(alarm)) => AlarmAction::Activate(alarm),
        (Ok(pb::alarm_request::AlarmAction::Deactivate), Some(alarm)) => {
            AlarmAction::Deactivate(alarm)
        }
        _ => AlarmAction::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_added_behind_a_command_is_read_back_with_it() {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let command = encode(&pb::InternalRaftRequest { put: Some(put), ..Default::default() });
        let request = Request::decode(with_id(command.clone(), 77)).unwrap();
        assert_eq!(request.id, 77);
        assert!(matches!(request.command, Command::Put(put) if put.key == "k"));
        assert_eq!(Request::decode(command).unwrap().id, 0);
    }

    #[test]
    fn a_command_is_named_without_being_read() {
        let put = Some(pb::PutRequest::default());
        let version = Some(membershippb::ClusterVersionSetRequest::default());
        let none = pb::InternalRaftRequest::default;
        for (request, expected) in [
            (pb::InternalRaftRequest { put, ..none() }, "Put"),
            (pb::InternalRaftRequest { txn: Some(Default::default()), ..none() }, "Txn"),
            (
                pb::InternalRaftRequest { compaction: Some(Default::default()), ..none() },
                "Compaction",
            ),
            (pb::InternalRaftRequest { alarm: Some(Default::default()), ..none() }, "Alarm"),
            (
                pb::InternalRaftRequest { cluster_version_set: version, ..none() },
                "ClusterVersionSet",
            ),
            (none(), "unknown"),
        ] {
            assert_eq!(op_name(&with_id(encode(&request), 7)), expected);
        }
    }

    #[test]
    fn unknown_commands_and_broken_bytes_are_errors() {
        assert!(matches!(Request::decode(Bytes::new()), Err(CommandError::Unknown)));
        assert!(matches!(
            Request::decode(Bytes::from_static(b"\xff\xff")),
            Err(CommandError::Malformed(_))
        ));
        let txn = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
        let command = encode(&pb::InternalRaftRequest { txn: Some(txn), ..Default::default() });
        assert!(matches!(Request::decode(command), Err(CommandError::Unknown)));
    }

    #[test]
    fn the_quota_counts_the_larger_branch_and_nothing_for_what_only_reads() {
        let put = |value: &'static str| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: "k".into(),
                value: value.into(),
                ..Default::default()
            })),
        };
        let txn = pb::TxnRequest {
            success: vec![put("1")],
            failure: vec![put("333"), put("1")],
            ..Default::default()
        };
        let cost = |txn: pb::TxnRequest| {
            quota_cost_bytes(&encode(&pb::InternalRaftRequest {
                txn: Some(txn),
                ..Default::default()
            }))
            .unwrap()
        };
        assert_eq!(cost(txn), Some(256 + 4 + 256 + 2));
        assert_eq!(cost(pb::TxnRequest::default()), None);
    }
}
