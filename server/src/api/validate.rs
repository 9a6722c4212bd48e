//! What a request must be before anyone acts on it. Pure; the order of the checks is etcd's.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request,
};

use super::errors::Refusal;

/// How deep transactions may nest. The decoder gives up at a hundred messages within each other, two
/// per transaction, and the log wraps a request in one more than the wire: without a bound of our own
/// there would be a request that can be received and committed, but never applied.
const TXN_DEPTH_MAX: usize = 40;

/// How many compares and operations a transaction may have over all that it nests, whatever the flag
/// says: each nested list may be almost as long as its parent's, and all of it is one step of the owner.
const TXN_OPS_MAX: usize = 20_000;

/// The bound on everything in a transaction whose lists may have `ops_max` elements. What etcd takes is
/// never too much: compares and both branches of one transaction without nested ones, each as long as the
/// flag admits.
fn total_max(ops_max: usize) -> usize {
    TXN_OPS_MAX.max(ops_max.saturating_mul(3))
}

pub(crate) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let order = range_request::SortOrder::try_from(request.sort_order);
    let target = range_request::SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// What `RangeStream` cannot do beyond [`range`]: only the order of keys is a stream.
pub(crate) fn range_stream(request: &RangeRequest) -> Result<(), Refusal> {
    range(request)?;
    let by_key = request.sort_target() == range_request::SortTarget::Key;
    let sorted = match request.sort_order() {
        range_request::SortOrder::None => false,
        range_request::SortOrder::Ascend => !by_key,
        range_request::SortOrder::Descend => true,
    };
    if sorted {
        return Err(Refusal::StreamSort);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|bound| *bound != 0) {
        return Err(Refusal::StreamFilters);
    }
    Ok(())
}

pub(crate) fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub(crate) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction whose largest list may have `ops_max` elements; lists of a nested one may
/// have what its parent left. Beyond [`TXN_DEPTH_MAX`] and [`total_max`], which are ours, it has too many
/// as well.
pub(crate) fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let mut total_left = total_max(ops_max);
    requests(request, (ops_max, TXN_DEPTH_MAX), &mut total_left)?;
    changes(&request.success)?;
    changes(&request.failure)?;
    Ok(())
}

fn requests(
    request: &TxnRequest,
    (ops_max, depth_max): (usize, usize),
    total_left: &mut usize,
) -> Result<(), Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_max.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
    let depth_left = depth_max.checked_sub(1).ok_or(Refusal::TooManyOps)?;
    let all = request.compare.len() + request.success.len() + request.failure.len();
    *total_left = total_left.checked_sub(all).ok_or(Refusal::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(op)) => range(op)?,
            Some(Request::RequestPut(op)) => put(op)?,
            Some(Request::RequestDeleteRange(op)) => delete_range(op)?,
            Some(Request::RequestTxn(op)) => requests(op, (ops_left, depth_left), total_left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations writes, over both branches of each nested transaction.
#[derive(Default)]
struct Changes<'a> {
    puts: HashSet<&'a Bytes>,
    deletions: Intervals,
}

/// No key is put twice, and none is put that the same list deletes.
///
/// Both branches of a nested transaction may put the same key, as only one is done. As in etcd, a put
/// in one nested transaction may be followed by a deletion of its key in a later one, but not preceded.
fn changes(ops: &[RequestOp]) -> Result<Changes<'_>, Refusal> {
    let mut changes = Changes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(op)) = &op.request {
            changes.deletions.add(&op.key, &op.range_end);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(op)) = &op.request {
            changes.add_nested(self::changes(&op.success)?, self::changes(&op.failure)?)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(op)) = &op.request
            && (changes.deletions.contains(&op.key) || !changes.puts.insert(&op.key))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(changes)
}

impl<'a> Changes<'a> {
    fn add_nested(&mut self, success: Changes<'a>, failure: Changes<'a>) -> Result<(), Refusal> {
        let mut puts = success.puts;
        puts.extend(failure.puts);
        for key in puts {
            if self.deletions.contains(key) || !self.puts.insert(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
        self.deletions.append(success.deletions);
        self.deletions.append(failure.deletions);
        Ok(())
    }
}

/// A set of half-open intervals of keys, merged where they overlap.
///
/// A `range_end` is taken literally, as etcd does here: `"\0"` makes an empty interval, so that a
/// deletion of everything from a key on never counts as one of a key that is put.
#[derive(Default)]
struct Intervals {
    /// End by start; no two touch.
    ends: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Intervals {
    fn add(&mut self, key: &[u8], range_end: &[u8]) {
        let mut start = key.to_vec();
        let mut end = range_end.to_vec();
        if end.is_empty() {
            end = [key, &[0]].concat();
        }
        if start >= end {
            return;
        }
        while let Some((other_start, other_end)) = self.ends.range(..=end.clone()).next_back() {
            if *other_end < start {
                break;
            }
            start = start.min(other_start.clone());
            end = end.max(other_end.clone());
            let merged = other_start.clone();
            self.ends.remove(&merged);
        }
        self.ends.insert(start, end);
    }

    fn append(&mut self, other: Self) {
        for (start, end) in other.ends {
            self.add(&start, &end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.ends
            .range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| key < end.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::Compare;

    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    /// So many compares, and as many reads in each branch.
    fn full(ops: usize) -> TxnRequest {
        let read = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        let branch = vec![op(Request::RequestRange(read)); ops];
        let compare = Compare { key: "k".into(), ..Compare::default() };
        TxnRequest { compare: vec![compare; ops], success: branch.clone(), failure: branch }
    }

    #[test]
    fn what_the_flag_admits_is_admitted_in_all_three_lists_of_a_transaction() {
        for ops_max in [1, 128, 6_666, 6_667, 10_000, 30_000] {
            assert!(txn(&full(ops_max), ops_max).is_ok(), "{ops_max}");
            let refused = txn(&full(ops_max + 1), ops_max);
            assert!(matches!(refused, Err(Refusal::TooManyOps)), "{ops_max}");
        }
        assert!(txn(&full(10), usize::MAX).is_ok(), "a bound that cannot be tripled");
    }

    #[test]
    fn a_transaction_that_nests_has_one_bound_for_everything_in_it() {
        // Each nested one is within what its parent left.
        let nesting = |ops: usize, nested: usize| TxnRequest {
            success: vec![op(Request::RequestTxn(full(ops))); nested],
            ..TxnRequest::default()
        };
        for (ops_max, ops, total) in [(1_000, 50, 20_000), (10_000, 50, 30_000)] {
            let nested = total / (3 * ops + 1);
            assert!(txn(&nesting(ops, nested), ops_max).is_ok(), "{ops_max}");
            let refused = txn(&nesting(ops, nested + 1), ops_max);
            assert!(matches!(refused, Err(Refusal::TooManyOps)), "{ops_max}");
        }
    }
}
