//! Random requests, as clients of a store send them: few keys, so that they meet.

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, request_op::Request as Op,
};

use super::rng::Rng;
use crate::model::Request;

/// What the requests of a run look like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many keys there are.
    pub keys: usize,
    /// The longest value, in bytes.
    pub value_bytes_max: u64,
    /// How deep transactions nest; 0 is not at all.
    pub txn_depth_max: u32,
    /// Relative frequencies of range, put, delete, transaction, compaction and hash.
    pub weights: [u64; 6],
}

impl Default for Shape {
    fn default() -> Self {
        Self { keys: 10, value_bytes_max: 40, txn_depth_max: 2, weights: [30, 40, 10, 25, 1, 3] }
    }
}

/// Draws requests for a store that stands at some revision.
pub struct Workload {
    shape: Shape,
    rng: Rng,
    leases: Vec<i64>,
}

impl Workload {
    /// A source of requests.
    pub fn new(shape: Shape, rng: Rng) -> Self {
        Self { shape, rng, leases: Vec::new() }
    }

    /// From now on some puts name one of these leases.
    pub fn set_leases(&mut self, leases: Vec<i64>) {
        self.leases = leases;
    }

    /// The next request; `revision` is what the client believes the store to be at.
    pub fn next_request(&mut self, revision: i64) -> Request {
        match self.rng.weighted(&self.shape.weights) {
            0 => Request::Range(self.range(revision)),
            1 => Request::Put(self.put()),
            2 => Request::DeleteRange(self.delete()),
            3 => Request::Txn(self.txn(revision, self.shape.txn_depth_max)),
            4 => Request::Compact(self.compaction(revision)),
            _ => Request::HashKv(HashKvRequest { revision: self.revision(revision) }),
        }
    }

    /// A range with any of its options.
    pub fn range(&mut self, revision: i64) -> RangeRequest {
        let (key, range_end) = self.span();
        let mut range = RangeRequest { key, range_end, ..RangeRequest::default() };
        if self.rng.percent(40) {
            range.revision = self.revision(revision);
        }
        if self.rng.percent(30) {
            range.limit = self.small();
        }
        if self.rng.percent(25) {
            range.sort_order = [0, 1, 2, 2, 9][self.rng.index(5)];
            range.sort_target = [0, 1, 2, 3, 4][self.rng.index(5)];
        }
        range.keys_only = self.rng.percent(15);
        range.count_only = self.rng.percent(15);
        range.serializable = self.rng.percent(20);
        for bound in [
            &mut range.min_mod_revision,
            &mut range.max_mod_revision,
            &mut range.min_create_revision,
            &mut range.max_create_revision,
        ] {
            if self.rng.percent(4) {
                *bound = around(&mut self.rng, revision);
            }
        }
        range
    }

    /// A put; some keep the value or the lease that is there.
    pub fn put(&mut self) -> PutRequest {
        let mut put = PutRequest { key: self.key(), ..PutRequest::default() };
        let len = self.rng.below(self.shape.value_bytes_max + 1);
        put.value = self.rng.bytes(usize::try_from(len).expect("a value fits in memory")).into();
        put.prev_kv = self.rng.percent(30);
        if self.rng.percent(5) {
            put.ignore_value = true;
            put.value = if self.rng.percent(90) { Bytes::new() } else { put.value };
        }
        put.ignore_lease = self.rng.percent(5);
        if self.rng.percent(2) {
            put.lease = 12_345;
        } else if !self.leases.is_empty() && self.rng.percent(30) {
            put.lease = *self.rng.pick(&self.leases);
        }
        put
    }

    /// A deletion of one key or a range.
    pub fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) =
            if self.rng.percent(70) { (self.key(), Bytes::new()) } else { self.span() };
        DeleteRangeRequest { key, range_end, prev_kv: self.rng.percent(30) }
    }

    /// A transaction with up to `depth` levels of nested ones.
    pub fn txn(&mut self, revision: i64, depth: u32) -> TxnRequest {
        let compares = self.rng.below(3);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare(revision)).collect(),
            success: self.branch(revision, depth),
            failure: self.branch(revision, depth),
        }
    }

    fn branch(&mut self, revision: i64, depth: u32) -> Vec<RequestOp> {
        let ops = self.rng.below(4);
        (0..ops).map(|_| RequestOp { request: self.op(revision, depth) }).collect()
    }

    fn op(&mut self, revision: i64, depth: u32) -> Option<Op> {
        match self.rng.below(if depth > 0 { 100 } else { 85 }) {
            0..30 => Some(Op::RequestRange(self.range(revision))),
            30..65 => Some(Op::RequestPut(self.put())),
            65..84 => Some(Op::RequestDeleteRange(self.delete())),
            84 => None,
            _ => Some(Op::RequestTxn(self.txn(revision, depth - 1))),
        }
    }

    fn compare(&mut self, revision: i64) -> Compare {
        let (key, range_end) =
            if self.rng.percent(80) { (self.key(), Bytes::new()) } else { self.span() };
        let number = match self.rng.below(3) {
            0 => 0,
            1 => self.small(),
            _ => around(&mut self.rng, revision),
        };
        let (target, given) = match self.rng.below(5) {
            0 => (0, TargetUnion::Version(number)),
            1 => (1, TargetUnion::CreateRevision(number)),
            2 => (2, TargetUnion::ModRevision(number)),
            3 => (3, TargetUnion::Value(Bytes::from_static(b"m"))),
            _ => (4, TargetUnion::Lease(number)),
        };
        let result = [0, 1, 2, 3][self.rng.index(4)];
        let target_union = self.rng.percent(95).then_some(given);
        Compare { result, target, key, range_end, target_union }
    }

    fn compaction(&mut self, revision: i64) -> CompactionRequest {
        let back = i64::try_from(self.rng.below(30)).expect("below 30");
        CompactionRequest { revision: revision - back, physical: self.rng.percent(50) }
    }

    fn key(&mut self) -> Bytes {
        if self.rng.one_in(300) {
            return Bytes::new();
        }
        format!("k{:02}", self.rng.index(self.shape.keys)).into()
    }

    /// A key with an end of any sort: none, a later key, an earlier one, or no bound.
    fn span(&mut self) -> (Bytes, Bytes) {
        let start = self.key();
        let end = match self.rng.below(5) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"l"),
            _ => self.key(),
        };
        (start, end)
    }

    fn revision(&mut self, revision: i64) -> i64 {
        match self.rng.below(20) {
            0 => revision + 1,
            1 => -1,
            2 => self.small(),
            _ => around(&mut self.rng, revision),
        }
    }

    fn small(&mut self) -> i64 {
        i64::try_from(self.rng.below(5)).expect("below 5")
    }
}

/// A revision a little before `revision`, most of the time.
fn around(rng: &mut Rng, revision: i64) -> i64 {
    revision - i64::try_from(rng.below(25)).expect("below 25")
}
