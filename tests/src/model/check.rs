//! What a request must look like before anyone looks at the store.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request as Op,
};

use super::{Refusal, Request, in_range};

/// `--max-txn-ops`, by default.
const TXN_OPS_MAX: usize = 128;

pub(super) fn request(request: &Request) -> Result<(), Refusal> {
    match request {
        Request::Range(range) => check_range(range),
        Request::Put(put) => check_put(put),
        Request::DeleteRange(delete) => check_delete(delete),
        Request::Txn(txn) => {
            check_txn(txn, TXN_OPS_MAX)?;
            duplicates(&txn.success)?;
            duplicates(&txn.failure)?;
            Ok(())
        }
        Request::Compact(_) | Request::HashKv(_) | Request::LeaseRevoke(_) => Ok(()),
    }
}

fn check_range(range: &RangeRequest) -> Result<(), Refusal> {
    key(&range.key)?;
    let order = SortOrder::try_from(range.sort_order);
    let target = SortTarget::try_from(range.sort_target);
    if order.is_err() || target.is_err() { Err(Refusal::InvalidSort) } else { Ok(()) }
}

fn check_put(put: &PutRequest) -> Result<(), Refusal> {
    key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

fn check_delete(delete: &DeleteRangeRequest) -> Result<(), Refusal> {
    key(&delete.key)
}

fn key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

fn check_txn(txn: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = ops_max.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
    txn.compare.iter().try_for_each(|compare| key(&compare.key))?;
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(Op::RequestRange(range)) => check_range(range)?,
            Some(Op::RequestPut(put)) => check_put(put)?,
            Some(Op::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Op::RequestTxn(txn)) => check_txn(txn, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch puts and deletes.
#[derive(Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Touched {
    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        if !self.puts.insert(key.clone()) {
            return Err(Refusal::DuplicateKey);
        }
        self.not_deleted(key)
    }

    fn not_deleted(&self, key: &[u8]) -> Result<(), Refusal> {
        // "\0" as an end means no end elsewhere, but here the comparison takes it literally.
        let hit =
            |(start, end): &(Bytes, Bytes)| end.as_ref() != b"\0" && in_range(key, start, end);
        if self.deletes.iter().any(hit) { Err(Refusal::DuplicateKey) } else { Ok(()) }
    }
}

/// Refuses a branch that puts a key twice, or deletes one that it puts. Deletions of nested
/// transactions count for what comes after them, not for nested transactions before.
fn duplicates(branch: &[RequestOp]) -> Result<Touched, Refusal> {
    let mut touched = Touched::default();
    for op in branch {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            touched.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in branch {
        let Some(Op::RequestTxn(txn)) = &op.request else { continue };
        let success = duplicates(&txn.success)?;
        let failure = duplicates(&txn.failure)?;
        success.puts.iter().try_for_each(|key| touched.put(key))?;
        for key in &failure.puts {
            // Only one of the two branches will run.
            if success.puts.contains(key) {
                touched.not_deleted(key)?;
            } else {
                touched.put(key)?;
            }
        }
        touched.deletes.extend(success.deletes);
        touched.deletes.extend(failure.deletes);
    }
    for op in branch {
        if let Some(Op::RequestPut(put)) = &op.request {
            touched.put(&put.key)?;
        }
    }
    Ok(touched)
}
