//! Random requests over few keys, so that they meet.

use bytes::Bytes;
use proptest::prelude::*;

use crate::mvcc::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, Op, Put, RangeEnd, RangeQuery,
    RevisionBounds, Sort, SortTarget, Txn,
};

pub(crate) fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => (0..12u8).prop_map(|number| Bytes::from(format!("k{number:02}"))),
        6 => (0..60u8).prop_map(|number| Bytes::from(format!("p/{number:02}"))),
        1 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(b"\xff\0")),
    ]
}

pub(crate) fn keys() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        3 => Just(RangeEnd::Single),
        2 => Just(RangeEnd::Unbounded),
        3 => key().prop_map(RangeEnd::Before),
    ];
    (key(), end).prop_map(|(start, end)| KeyRange { start, end })
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => Just(0i64),
        3 => 1..40i64,
        1 => prop::sample::select(vec![-5, -1, i64::MIN, i64::MAX]),
    ]
}

pub(crate) fn query() -> impl Strategy<Value = RangeQuery> {
    let limit = prop_oneof![3 => Just(0i64), 3 => 1..20i64, 1 => Just(i64::MAX), 1 => Just(-1)];
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let sort = prop::option::weighted(0.4, (target, any::<bool>()));
    let bound = || prop_oneof![6 => Just(0i64), 1 => -1..40i64];
    let bounds = (bound(), bound(), bound(), bound());
    let wide = prop_oneof![
        1 => keys(),
        1 => Just(KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded })
    ];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (wide, limit, sort, flags, bounds).prop_map(
        |(
            keys,
            limit,
            sort,
            (keys_only, count_only),
            (min_mod, max_mod, min_create, max_create),
        )| {
            let sort =
                sort.map(|(target, descending)| Sort { target, descending, limit_first: false });
            let bounds = RevisionBounds { min_mod, max_mod, min_create, max_create };
            RangeQuery { keys, limit, sort, keys_only, count_only, bounds }
        },
    )
}

pub(crate) fn put() -> impl Strategy<Value = Put> {
    let value = prop::option::weighted(0.85, (0..40u8).prop_map(|byte| vec![byte; 3].into()));
    let lease = prop_oneof![
        6 => Just(Some(0i64)),
        3 => (1..5i64).prop_map(Some),
        2 => Just(None),
        1 => Just(Some(100)),
    ];
    (key(), value, lease, any::<bool>()).prop_map(|(key, value, lease, prev_kv)| Put {
        key,
        value,
        lease,
        prev_kv,
    })
}

pub(crate) fn delete() -> impl Strategy<Value = DeleteRange> {
    (keys(), any::<bool>()).prop_map(|(keys, prev_kv)| DeleteRange { keys, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = (0..5u8, 0..4i64).prop_map(|(kind, given)| match kind {
        0 => CompareTarget::Version(given),
        1 => CompareTarget::Create(given * 7),
        2 => CompareTarget::Mod(given * 7),
        3 => CompareTarget::Lease(given),
        _ => CompareTarget::Value(vec![given as u8 * 10; 3].into()),
    });
    let result = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::NotEqual,
        CompareResult::Greater,
        CompareResult::Less,
    ]);
    (keys(), result, target).prop_map(|(keys, result, target)| Compare { keys, result, target })
}

/// Also transactions that the API would refuse, because the log is not trusted to hold none.
pub(crate) fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        5 => put().prop_map(Op::Put),
        2 => delete().prop_map(Op::DeleteRange),
        2 => (query(), revision()).prop_map(|(query, revision)| Op::Range { query, revision }),
    ];
    let op = leaf.prop_recursive(2, 12, 3, |inner| branches(inner).prop_map(Op::Txn));
    branches(op)
}

fn branches(op: impl Strategy<Value = Op> + Clone) -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op.clone(), 0..5);
    (prop::collection::vec(compare(), 0..2), ops(), ops())
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}
