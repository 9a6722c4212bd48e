//! Draws transactions: nested, with range compares, with and without conflicts.

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};

use super::Generator;

const DEPTH_MAX: u32 = 3;

impl Generator {
    /// A transaction as Kubernetes sends it, one at the limit of operations, or anything.
    pub(super) fn txn(&mut self) -> TxnRequest {
        let mut txn = match self.rng.below(20) {
            0..5 => self.compare_and_swap(),
            5..8 => self.read_only(),
            8 if self.rng.one_in(3) => self.at_the_limit(),
            _ => self.any(0),
        };
        if deletes_to_the_end(&txn) {
            drop_puts(&mut txn);
        }
        txn
    }

    /// If the key has this mod revision, put or delete it, else read it.
    fn compare_and_swap(&mut self) -> TxnRequest {
        let key = self.key();
        let revision = if self.rng.one_in(2) { 0 } else { self.revision() };
        let compare = Compare {
            target: 2,
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        };
        let write = if self.rng.one_in(3) {
            let mut request = self.delete();
            request.key = key.clone();
            request.range_end = Bytes::new();
            Request::RequestDeleteRange(request)
        } else {
            let mut request = self.put();
            request.key = key.clone();
            Request::RequestPut(request)
        };
        let mut read = self.range();
        read.key = key;
        read.range_end = Bytes::new();
        TxnRequest {
            compare: vec![compare],
            success: vec![op(write)],
            failure: vec![op(Request::RequestRange(read))],
        }
    }

    fn read_only(&mut self) -> TxnRequest {
        let mut ranges = |most: i64| -> Vec<RequestOp> {
            let count = self.rng.between(0, most);
            (0..count).map(|_| op(Request::RequestRange(self.range()))).collect()
        };
        let (success, failure) = (ranges(4), ranges(3));
        TxnRequest { compare: self.compares(2), success, failure }
    }

    /// Around 128 operations, at the top or one level down, where less is left.
    fn at_the_limit(&mut self) -> TxnRequest {
        let count = self.rng.between(125, 130);
        let mut txn = TxnRequest::default();
        for number in 0..count {
            let put = PutRequest { key: format!("many/{number}").into(), ..Default::default() };
            txn.success.push(op(Request::RequestPut(put)));
        }
        if self.rng.one_in(2) {
            txn = TxnRequest { success: vec![op(Request::RequestTxn(txn))], ..Default::default() };
        }
        txn
    }

    fn any(&mut self, depth: u32) -> TxnRequest {
        TxnRequest {
            compare: self.compares(3),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    fn branch(&mut self, depth: u32) -> Vec<RequestOp> {
        let count = self.rng.between(0, 5);
        (0..count).map(|_| self.any_op(depth)).collect()
    }

    fn any_op(&mut self, depth: u32) -> RequestOp {
        match self.rng.below(100) {
            0..35 => op(Request::RequestPut(self.put())),
            35..65 => op(Request::RequestRange(self.range())),
            65..80 => op(Request::RequestDeleteRange(self.delete())),
            80..99 if depth < DEPTH_MAX => op(Request::RequestTxn(self.any(depth + 1))),
            80..99 => op(Request::RequestPut(self.put())),
            _ => RequestOp { request: None },
        }
    }

    fn compares(&mut self, most: i64) -> Vec<Compare> {
        let count = self.rng.between(0, most);
        (0..count).map(|_| self.compare()).collect()
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let range_end = if self.rng.one_in(4) { self.range_end(&key) } else { Bytes::new() };
        let target = self.enumeration(4);
        // Now and then the value is of another kind than the target says.
        let kind = if self.rng.one_in(20) { self.rng.between(-1, 4) } else { target.into() };
        let target_union = match kind {
            0 => Some(TargetUnion::Version(self.rng.between(-1, 3))),
            1 => Some(TargetUnion::CreateRevision(self.revision_or_none())),
            2 => Some(TargetUnion::ModRevision(self.revision_or_none())),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(if self.rng.one_in(3) { 0 } else { self.lease_id() })),
            _ => None,
        };
        Compare { result: self.enumeration(3), target, key, range_end, target_union }
    }

    fn revision_or_none(&mut self) -> i64 {
        if self.rng.one_in(2) { 0 } else { self.revision() }
    }
}

/// True if any part of the transaction deletes all keys from one on.
fn deletes_to_the_end(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestDeleteRange(request)) => *request.range_end == *b"\0",
        Some(Request::RequestTxn(inner)) => deletes_to_the_end(inner),
        _ => false,
    })
}

/// Takes the puts out of all parts.
fn drop_puts(txn: &mut TxnRequest) {
    for branch in [&mut txn.success, &mut txn.failure] {
        branch.retain(|op| !matches!(op.request, Some(Request::RequestPut(_))));
        for op in branch {
            if let Some(Request::RequestTxn(inner)) = &mut op.request {
                drop_puts(inner);
            }
        }
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}
