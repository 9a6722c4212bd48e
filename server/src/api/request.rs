//! Requests in the words of the key space, and as commands of the log.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget as WireTarget};
use quorate_proto::etcdserverpb::{
    InternalRaftRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};

use super::errors::Refusal;
use crate::mvcc::{KeyRange, RangeQuery, RevisionBounds, Sort, SortTarget};

/// Bytes left free behind a command, for the header that the owner's handle appends.
const HEADER_BYTES_MAX: usize = 32;

/// What a range asks for, without its revision. The request has been validated.
pub(crate) fn query(request: RangeRequest) -> RangeQuery {
    let order = request.sort_order();
    let target = match request.sort_target() {
        WireTarget::Key => SortTarget::Key,
        WireTarget::Version => SortTarget::Version,
        WireTarget::Create => SortTarget::Create,
        WireTarget::Mod => SortTarget::Mod,
        WireTarget::Value => SortTarget::Value,
    };
    let sort = match (order, target) {
        // Keys come in ascending order by themselves; another target without an order is ascending.
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => None,
        (SortOrder::None | SortOrder::Ascend, target) => Some(Sort { target, descending: false }),
        (SortOrder::Descend, target) => Some(Sort { target, descending: true }),
    };
    RangeQuery {
        limit: request.limit,
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        bounds: RevisionBounds {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        },
        keys: KeyRange::from_wire(request.key, request.range_end),
    }
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

/// The command as it goes into the log, without its header.
///
/// # Errors
/// `RequestTooLarge` above `bytes_max`, which counts the header as etcd would write it on the member.
pub(crate) fn encode(
    command: &InternalRaftRequest,
    bytes_max: usize,
    member_id: u64,
) -> Result<Bytes, Refusal> {
    let len = command.encoded_len();
    if len.saturating_add(header_len(member_id)) > bytes_max {
        return Err(Refusal::RequestTooLarge);
    }
    let mut buffer = BytesMut::with_capacity(len + HEADER_BYTES_MAX);
    command.encode_raw(&mut buffer);
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
    use quorate_proto::etcdserverpb::PutRequest;

    #[test]
    fn commands_are_too_large_at_the_byte_at_which_etcd_says_so() {
        // Found by trying values of each length on etcd 3.7.3, member 6fb0da9e2cae6baa.
        let member_id = 0x6fb0_da9e_2cae_6baa;
        let put = |value_len| InternalRaftRequest {
            put: Some(PutRequest {
                key: "big".into(),
                value: vec![0; value_len].into(),
                ..PutRequest::default()
            }),
            ..InternalRaftRequest::default()
        };
        assert!(encode(&put(1_572_838), 1_572_864, member_id).is_ok());
        let refused = encode(&put(1_572_839), 1_572_864, member_id);
        assert_eq!(refused, Err(Refusal::RequestTooLarge));
    }

    #[test]
    fn the_owner_can_append_to_a_command_in_place() {
        let command =
            InternalRaftRequest { put: Some(PutRequest::default()), ..Default::default() };
        let bytes = encode(&command, 100, 1).unwrap();
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
            let found = query(RangeRequest { sort_order, sort_target, ..Default::default() }).sort;
            let expected = expected.map(|(target, descending)| Sort { target, descending });
            assert_eq!(found, expected);
        }
    }
}
