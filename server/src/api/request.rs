//! Requests in the words of the key space, and as commands of the log.

use bytes::{Bytes, BytesMut};
use quorate_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};

use super::errors::Refusal;
use crate::mvcc::RangeQuery;
use crate::state_machine::range_query;

/// Bytes left free behind a command, for the header that the owner's handle appends.
const HEADER_BYTES_MAX: usize = 32;

/// What a range asks for, without its revision. The request has been validated.
pub(crate) fn query(request: &RangeRequest) -> RangeQuery {
    range_query(request).expect("a validated range has a known sort order and target")
}

/// The ranges of a transaction that does nothing else; `None` if it may write, or nests.
pub(crate) fn is_read_only(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op.request, Some(request_op::Request::RequestRange(_))))
}

/// Whether a read-only transaction may read what this member has, without asking the others.
pub(crate) fn is_serializable(request: &TxnRequest) -> bool {
    ops(request).all(|op| match &op.request {
        Some(request_op::Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// What can be proposed: one field of `etcdserverpb.InternalRaftRequest`.
///
/// That message has some thirty fields, each with room of its own; only one is ever set here.
pub(crate) enum Command {
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    Alarm(AlarmRequest),
}

impl Command {
    /// The bytes of the log, without the header of `InternalRaftRequest`.
    ///
    /// # Errors
    /// `RequestTooLarge` above `bytes_max`, which counts the header as etcd would write it on the member.
    pub(crate) fn encode(&self, bytes_max: usize, member_id: u64) -> Result<Bytes, Refusal> {
        let room = bytes_max.checked_sub(header_len(member_id)).ok_or(Refusal::RequestTooLarge)?;
        match self {
            Self::Put(request) => field(4, request, room),
            Self::DeleteRange(request) => field(5, request, room),
            Self::Txn(request) => field(6, request, room),
            Self::Compaction(request) => field(7, request, room),
            Self::LeaseGrant(request) => field(8, request, room),
            Self::LeaseRevoke(request) => field(9, request, room),
            Self::Alarm(request) => field(10, request, room),
        }
    }
}

fn field(number: u32, request: &impl prost::Message, room: usize) -> Result<Bytes, Refusal> {
    let len = prost::encoding::message::encoded_len(number, request);
    if len > room {
        return Err(Refusal::RequestTooLarge);
    }
    let mut buffer = BytesMut::with_capacity(len + HEADER_BYTES_MAX);
    prost::encoding::message::encode(number, request, &mut buffer);
    Ok(buffer.freeze())
}

/// Length of `InternalRaftRequest.header` with the request ID that etcd gives on this member: the last
/// 16 bits of the member ID, then 48 bits of time and a counter.
fn header_len(member_id: u64) -> usize {
    const TIME_BITS: u32 = 48;
    let prefix = member_id << TIME_BITS;
    let id_bits = if prefix == 0 { TIME_BITS } else { u64::BITS - prefix.leading_zeros() };
    let id_len = 1 + id_bits.div_ceil(7) as usize;
    let header_tag_len = prost::encoding::key_len(100);
    header_tag_len + 1 + id_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{Sort, SortTarget};
    use prost::Message as _;
    use quorate_proto::etcdserverpb::InternalRaftRequest;

    fn put(value_len: usize) -> PutRequest {
        let value = vec![0; value_len].into();
        PutRequest { key: "big".into(), value, ..PutRequest::default() }
    }

    #[test]
    fn commands_are_too_large_at_the_byte_at_which_etcd_says_so() {
        // Found by trying values of each length on etcd 3.7.3, member 6fb0da9e2cae6baa.
        let member_id = 0x6fb0_da9e_2cae_6baa;
        let encode = |len| Command::Put(put(len)).encode(1_572_864, member_id);
        assert!(encode(1_572_838).is_ok());
        assert_eq!(encode(1_572_839), Err(Refusal::RequestTooLarge));
        assert_eq!(Command::Put(put(0)).encode(3, 1), Err(Refusal::RequestTooLarge));
    }

    #[test]
    fn commands_are_fields_of_the_replicated_request() {
        let command = |command: Command| {
            let bytes = command.encode(1000, 1).unwrap();
            InternalRaftRequest::decode(bytes).unwrap()
        };
        let none = InternalRaftRequest::default;
        let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
        let txn = TxnRequest { success: vec![RequestOp { request: None }], ..Default::default() };
        let compaction = CompactionRequest { revision: 7, physical: true };
        let alarm = AlarmRequest { action: 1, member_id: 7, alarm: 1 };
        let grant = LeaseGrantRequest { ttl: 60, id: 7 };
        let revoke = LeaseRevokeRequest { id: 7 };
        let cases = [
            (Command::Put(put(3)), InternalRaftRequest { put: Some(put(3)), ..none() }),
            (
                Command::DeleteRange(delete.clone()),
                InternalRaftRequest { delete_range: Some(delete), ..none() },
            ),
            (Command::Txn(txn.clone()), InternalRaftRequest { txn: Some(txn), ..none() }),
            (
                Command::Compaction(compaction),
                InternalRaftRequest { compaction: Some(compaction), ..none() },
            ),
            (
                Command::LeaseGrant(grant),
                InternalRaftRequest { lease_grant: Some(grant), ..none() },
            ),
            (
                Command::LeaseRevoke(revoke),
                InternalRaftRequest { lease_revoke: Some(revoke), ..none() },
            ),
            (Command::Alarm(alarm), InternalRaftRequest { alarm: Some(alarm), ..none() }),
        ];
        for (given, expected) in cases {
            assert_eq!(command(given), expected);
        }
    }

    #[test]
    fn the_owner_can_append_to_a_command_in_place() {
        let bytes = Command::Put(put(10)).encode(100, 1).unwrap();
        let before = bytes.as_ptr();
        let mut bytes = bytes.try_into_mut().unwrap();
        bytes.extend_from_slice(&[0; HEADER_BYTES_MAX]);
        assert_eq!(bytes.as_ptr(), before);
    }

    #[test]
    fn a_target_without_an_order_is_ascending_and_keys_need_no_sort() {
        let cases = [
            (0, 0, None),
            (1, 0, None),
            (2, 0, Some((SortTarget::Key, true))),
            (0, 3, Some((SortTarget::Mod, false))),
            (1, 4, Some((SortTarget::Value, false))),
            (2, 1, Some((SortTarget::Version, true))),
        ];
        for (sort_order, sort_target, expected) in cases {
            let found = query(&RangeRequest { sort_order, sort_target, ..Default::default() }).sort;
            let expected = expected.map(|(target, descending)| Sort {
                target,
                descending,
                limit_first: sort_order == 0,
            });
            assert_eq!(found, expected);
        }
    }
}
