//! Makes one operation smaller.

use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{RequestOp, TxnRequest};

use crate::diff::operation::Operation;

/// The operation with one compare or one nested operation left out, in every way.
pub(super) fn smaller(operation: &Operation) -> Vec<Operation> {
    match operation {
        Operation::Txn(txn) => smaller_txns(txn).into_iter().map(Operation::Txn).collect(),
        _ => Vec::new(),
    }
}

fn smaller_txns(txn: &TxnRequest) -> Vec<TxnRequest> {
    let compares = without_each(&txn.compare).map(|compare| TxnRequest { compare, ..txn.clone() });
    let success =
        smaller_branches(&txn.success).map(|success| TxnRequest { success, ..txn.clone() });
    let failure =
        smaller_branches(&txn.failure).map(|failure| TxnRequest { failure, ..txn.clone() });
    success.chain(failure).chain(compares).collect()
}

fn smaller_branches(branch: &[RequestOp]) -> impl Iterator<Item = Vec<RequestOp>> {
    let inner = branch.iter().enumerate().flat_map(move |(index, op)| {
        let txns = match &op.request {
            Some(Request::RequestTxn(txn)) => smaller_txns(txn),
            _ => Vec::new(),
        };
        txns.into_iter().map(move |txn| {
            let mut branch = branch.to_vec();
            branch[index].request = Some(Request::RequestTxn(txn));
            branch
        })
    });
    without_each(branch).chain(inner)
}

fn without_each<T: Clone>(items: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..items.len()).map(|index| [&items[..index], &items[index + 1..]].concat())
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::Compare;

    use super::*;

    #[test]
    fn each_part_is_left_out_once_at_every_depth() {
        let op = |request| RequestOp { request };
        let inner = TxnRequest { success: vec![op(None), op(None)], ..Default::default() };
        let outer = TxnRequest {
            compare: vec![Compare::default()],
            success: vec![op(Some(Request::RequestTxn(inner)))],
            failure: vec![op(None)],
        };
        // The inner transaction, each of its operations, the failure, the compare.
        assert_eq!(smaller(&Operation::Txn(outer)).len(), 5);
        assert_eq!(smaller(&Operation::Status(Default::default())).len(), 0);
    }
}
