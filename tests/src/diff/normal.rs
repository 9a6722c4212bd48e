//! Brings replies of two servers to a form in which they can be equal.
//!
//! Masked, but not whether they are set: cluster and member ids, raft terms and indexes, sizes,
//! URLs. Everything else is compared as it was sent.
//!
//! etcd sorts with an unstable algorithm. Among keys whose sort value is equal the order is put to
//! that of the keys. If a limit cut such a group, which of its keys are left is etcd's secret: then
//! only how many there are and their sort value is compared. A range of keys only, sorted by value,
//! does not show its groups; there only the set of keys is compared, or its size if it was cut.

use std::cmp::Ordering;
use std::ops::Not as _;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::range_request::SortTarget;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::etcdserverpb::{
    MemberListResponse, RangeRequest, RangeResponse, ResponseHeader, StatusResponse, TxnRequest,
    TxnResponse,
};
use quorate_proto::mvccpb::KeyValue;

use super::exchange::Reply;
use super::operation::Operation;

/// The reply to an operation in its comparable form.
#[must_use]
pub fn normal(operation: &Operation, mut reply: Reply) -> Reply {
    if let Some(header) = reply.header_mut() {
        mask_header(header);
    }
    match (operation, &mut reply) {
        (Operation::Range(request), Reply::Range(reply)) => order_ties(request, reply),
        (Operation::Txn(request), Reply::Txn(reply)) => normal_txn(request, reply),
        (_, Reply::MemberList(reply)) => mask_members(reply),
        (_, Reply::Status(reply)) => mask_status(reply),
        _ => {}
    }
    reply
}

pub(super) fn mask_header(header: &mut ResponseHeader) {
    mask(&mut header.cluster_id);
    mask(&mut header.member_id);
    mask(&mut header.raft_term);
}

fn mask(number: &mut u64) {
    *number = u64::from(*number != 0);
}

fn mask_size(number: &mut i64) {
    *number = i64::from(*number != 0);
}

fn mask_members(reply: &mut MemberListResponse) {
    for member in &mut reply.members {
        mask(&mut member.id);
        for url in member.peer_ur_ls.iter_mut().chain(&mut member.client_ur_ls) {
            "URL".clone_into(url);
        }
    }
}

fn mask_status(reply: &mut StatusResponse) {
    mask(&mut reply.leader);
    mask(&mut reply.raft_index);
    mask(&mut reply.raft_term);
    mask(&mut reply.raft_applied_index);
    mask_size(&mut reply.db_size);
    mask_size(&mut reply.db_size_in_use);
}

fn normal_txn(request: &TxnRequest, reply: &mut TxnResponse) {
    let branch = if reply.succeeded { &request.success } else { &request.failure };
    for (op, response) in branch.iter().zip(&mut reply.responses) {
        match (&op.request, &mut response.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(reply))) => {
                order_ties(request, reply);
            }
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(reply))) => {
                normal_txn(request, reply);
            }
            _ => {}
        }
    }
}

fn order_ties(request: &RangeRequest, reply: &mut RangeResponse) {
    let target = request.sort_target();
    if target == SortTarget::Key {
        return;
    }
    let Ok(mut kvs) = decode(&reply.kvs) else { return };
    if target == SortTarget::Value && request.keys_only {
        kvs.sort_by(|a, b| a.key.cmp(&b.key));
        if reply.more {
            kvs.fill(KeyValue::default());
        }
    } else {
        order_groups(&mut kvs, target, reply.more);
    }
    reply.kvs = kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
}

fn order_groups(kvs: &mut [KeyValue], target: SortTarget, cut: bool) {
    let mut rest = kvs;
    while !rest.is_empty() {
        let first = rest[0].clone();
        let equal = |kv: &&KeyValue| compare(&first, kv, target).is_eq();
        let length = rest.iter().take_while(equal).count();
        let (group, behind) = rest.split_at_mut(length);
        group.sort_by(|a, b| a.key.cmp(&b.key));
        if cut && behind.is_empty() {
            group.fill(sort_value_only(&first, target));
        }
        rest = behind;
    }
}

fn compare(a: &KeyValue, b: &KeyValue, target: SortTarget) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

fn sort_value_only(kv: &KeyValue, target: SortTarget) -> KeyValue {
    let mut only = KeyValue::default();
    match target {
        SortTarget::Key => only.key = kv.key.clone(),
        SortTarget::Version => only.version = kv.version,
        SortTarget::Create => only.create_revision = kv.create_revision,
        SortTarget::Mod => only.mod_revision = kv.mod_revision,
        SortTarget::Value => only.value = kv.value.clone(),
    }
    only
}

fn decode(kvs: &[Bytes]) -> Result<Vec<KeyValue>, prost::DecodeError> {
    kvs.iter().map(|kv| KeyValue::decode(kv.clone())).collect()
}

/// A reply for people: like its debug form, but with keys and values decoded.
pub fn readable(reply: &Reply) -> String {
    match reply {
        Reply::Range(reply) => range_text(reply),
        Reply::Put(reply) => {
            let mut text = format!("put {}", header_text(reply.header.as_ref()));
            push_kvs(&mut text, reply.prev_kv.is_empty().not().then_some(&reply.prev_kv));
            text
        }
        Reply::Delete(reply) => {
            let mut text =
                format!("delete {} deleted={}", header_text(reply.header.as_ref()), reply.deleted);
            push_kvs(&mut text, &reply.prev_kvs);
            text
        }
        Reply::Txn(reply) => txn_text(reply),
        other => format!("{other:?}"),
    }
}

fn range_text(reply: &RangeResponse) -> String {
    let header = header_text(reply.header.as_ref());
    let mut text = format!("range {header} count={} more={}", reply.count, reply.more);
    push_kvs(&mut text, &reply.kvs);
    text
}

fn txn_text(reply: &TxnResponse) -> String {
    let mut text =
        format!("txn {} succeeded={}", header_text(reply.header.as_ref()), reply.succeeded);
    for op in &reply.responses {
        let inner = match op.response.clone() {
            None => "(nothing)".to_owned(),
            Some(Response::ResponseRange(reply)) => readable(&Reply::Range(reply)),
            Some(Response::ResponsePut(reply)) => readable(&Reply::Put(reply)),
            Some(Response::ResponseDeleteRange(reply)) => readable(&Reply::Delete(reply)),
            Some(Response::ResponseTxn(reply)) => txn_text(&reply),
        };
        text.push_str("\n  ");
        text.push_str(&inner.replace('\n', "\n  "));
    }
    text
}

fn header_text(header: Option<&ResponseHeader>) -> String {
    header.map_or_else(
        || "header=none".to_owned(),
        |header| {
            let ResponseHeader { cluster_id, member_id, revision, raft_term } = header;
            format!("cluster={cluster_id} member={member_id} revision={revision} term={raft_term}")
        },
    )
}

fn push_kvs<'a>(text: &mut String, kvs: impl IntoIterator<Item = &'a Bytes>) {
    for kv in kvs {
        text.push_str("\n  ");
        text.push_str(&kv_text(kv));
    }
}

fn kv_text(bytes: &Bytes) -> String {
    match KeyValue::decode(bytes.clone()) {
        Ok(kv) => format!(
            "\"{}\" create={} mod={} version={} lease={} value={} bytes \"{}\"",
            kv.key.escape_ascii(),
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            kv.lease,
            kv.value.len(),
            kv.value[..kv.value.len().min(20)].escape_ascii(),
        ),
        Err(error) => format!("not a KeyValue ({error}): {}", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(target: SortTarget, more: bool, kvs: &[(&'static str, i64)]) -> RangeResponse {
        let request = RangeRequest { sort_target: target.into(), ..Default::default() };
        let kvs = kvs.iter().map(|(key, version)| {
            let kv = KeyValue { key: (*key).into(), version: *version, ..Default::default() };
            kv.encode_to_vec().into()
        });
        let mut reply = RangeResponse { kvs: kvs.collect(), more, ..Default::default() };
        order_ties(&request, &mut reply);
        reply
    }

    #[test]
    fn ties_in_any_order_are_equal() {
        let by_version = |kvs| range(SortTarget::Version, false, kvs);
        assert_eq!(
            by_version(&[("b", 1), ("a", 1), ("c", 2)]),
            by_version(&[("a", 1), ("b", 1), ("c", 2)])
        );
        assert_ne!(by_version(&[("a", 1), ("c", 2)]), by_version(&[("c", 2), ("a", 1)]));
    }

    #[test]
    fn any_keys_of_a_cut_group_are_equal_but_not_of_a_whole_one() {
        let by_version = |kvs| range(SortTarget::Version, true, kvs);
        assert_eq!(by_version(&[("a", 1), ("b", 2)]), by_version(&[("a", 1), ("c", 2)]));
        assert_ne!(by_version(&[("a", 1), ("b", 2)]), by_version(&[("b", 1), ("b", 2)]));
        assert_ne!(by_version(&[("a", 1), ("b", 2)]), by_version(&[("a", 1), ("b", 3)]));
    }

    #[test]
    fn whether_an_id_is_set_is_compared() {
        let header = |member_id| {
            let header = ResponseHeader { member_id, ..Default::default() };
            let reply = RangeResponse { header: Some(header), ..Default::default() };
            normal(&Operation::Range(RangeRequest::default()), Reply::Range(reply))
        };
        assert_eq!(header(7), header(8));
        assert_ne!(header(7), header(0));
    }
}
