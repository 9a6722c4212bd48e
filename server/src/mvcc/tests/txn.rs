//! Transactions: refusals leave nothing behind, and what the API would never let in does no harm.

use bytes::Bytes;
use proptest::prelude::*;

use super::model::{Model, everything};
use super::requests;
use super::store::Store;
use crate::mvcc::{
    Applied, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeySpace, Limits,
    MvccError, Op, Outcome, Put, RangeEnd, RangeQuery, RevisionBounds, Txn,
};

fn new_space() -> KeySpace {
    KeySpace::new(Limits { window_bytes_max: 1 << 20 })
}

fn put(value: Option<&'static str>, lease: Option<i64>) -> Op {
    let value = value.map(Into::into);
    Op::Put(Put { key: "k".into(), value, lease, prev_kv: false })
}

fn range(revision: i64) -> Op {
    let query = RangeQuery {
        keys: everything(),
        limit: 0,
        sort: None,
        keys_only: false,
        count_only: false,
        bounds: RevisionBounds::default(),
    };
    Op::Range { query, revision }
}

fn delete() -> Op {
    Op::DeleteRange(DeleteRange { keys: KeyRange::single("k".into()), prev_kv: false })
}

fn run(space: &mut KeySpace, ops: Vec<Op>) -> Result<Applied, MvccError> {
    let txn = Txn { compares: Vec::new(), success: ops, failure: Vec::new() };
    space.txn(&txn, &Model::lease_known, &Store::default()).unwrap()
}

#[test]
fn a_put_that_keeps_what_the_transaction_deleted_is_refused_and_changes_nothing() {
    let mut space = new_space();
    run(&mut space, vec![put(Some("1"), Some(7))]).unwrap();
    let before = (space.sizes(), space.unflushed_bytes());
    let nested = |ops| Op::Txn(Txn { compares: Vec::new(), success: ops, failure: Vec::new() });
    for keeping in [put(None, Some(0)), put(Some("2"), None), put(None, None)] {
        let refused = run(&mut space, vec![put(Some("0"), Some(0)), delete(), keeping.clone()]);
        assert_eq!(refused, Err(MvccError::KeyNotFound));
        let refused = run(&mut space, vec![nested(vec![delete()]), nested(vec![keeping])]);
        assert_eq!(refused, Err(MvccError::KeyNotFound));
    }
    assert_eq!((space.sizes(), space.unflushed_bytes()), before);
    assert_eq!(space.current_revision(), 2);
    // Put anew in between, it exists when its turn comes.
    let ops = vec![delete(), put(Some("3"), Some(8)), put(None, None)];
    assert_eq!(run(&mut space, ops).unwrap().revision, 3);
    assert_eq!((space.key_count(), space.counts().value_reads), (1, 0));
}

/// As etcd 3.7.3 answers: a range of its own takes a negative revision for the current one, within a
/// transaction it is compared with the compact revision.
#[test]
fn a_range_in_a_transaction_fails_the_whole_of_it_outside_the_readable_revisions() {
    let mut space = new_space();
    let put_one = || put(Some("1"), Some(0));
    assert_eq!(run(&mut space, vec![put_one(), range(-1)]).unwrap().revision, 2);
    assert_eq!(run(&mut space, vec![put_one(), range(-2)]), Err(MvccError::Compacted));
    run(&mut space, vec![put_one()]).unwrap();
    space.compact(2).unwrap();
    let cases = [
        (0, None),
        (i64::MIN, Some(MvccError::Compacted)),
        (-1, Some(MvccError::Compacted)),
        (1, Some(MvccError::Compacted)),
        (2, None),
        (i64::MAX, Some(MvccError::FutureRevision)),
    ];
    for (revision, refusal) in cases {
        let before = space.current_revision();
        let applied = run(&mut space, vec![put_one(), range(revision)]);
        assert_eq!(applied.clone().err(), refusal, "at {revision}");
        let expected = before + i64::from(applied.is_ok());
        assert_eq!(space.current_revision(), expected, "at {revision}");
    }
    // The revision that the transaction itself makes is not there yet.
    let next = space.current_revision() + 1;
    assert_eq!(run(&mut space, vec![put_one(), range(next)]), Err(MvccError::FutureRevision));
    assert_eq!(space.check_readable(-5), Ok(space.current_revision()));
}

#[test]
fn a_transaction_that_writes_nothing_makes_no_revision() {
    let mut space = new_space();
    let applied = run(&mut space, vec![delete(), range(0)]).unwrap();
    assert_eq!((applied.revision, space.current_revision()), (1, 1));
    assert_eq!(run(&mut space, Vec::new()).unwrap().revision, 1);
    assert_eq!(space.take_unflushed(10).rows.len(), 0);
}

#[test]
fn transactions_nest_deeply() {
    let mut space = new_space();
    let innermost = Txn { compares: Vec::new(), success: Vec::new(), failure: Vec::new() };
    let txn = (0..128).fold(innermost, |inner, depth| Txn {
        compares: Vec::new(),
        success: vec![put(Some("1"), Some(0)), Op::Txn(inner), range(0)],
        failure: if depth == 3 { vec![delete()] } else { Vec::new() },
    });
    let applied = space.txn(&txn, &Model::lease_known, &Store::default()).unwrap().unwrap();
    let mut outcome = &applied.outcome;
    let mut depth = 0;
    while let Outcome::Txn { outcomes, .. } = outcome {
        let Some(inner) = outcomes.get(1) else { break };
        (outcome, depth) = (inner, depth + 1);
    }
    assert_eq!((depth, applied.revision), (128, 2));
    assert_eq!(space.take_unflushed(0).rows.len(), 128);
}

#[test]
fn a_compare_of_many_values_reads_them_in_few_small_slices_and_none_behind_the_first_mismatch() {
    let mut space = KeySpace::new(Limits { window_bytes_max: 0 });
    let store = Store::default();
    let put = |space: &mut KeySpace, key: String, value: &'static str| {
        let put =
            Put { key: key.into(), value: Some(value.into()), lease: Some(0), prev_kv: false };
        space.put(&put, &store).unwrap().unwrap();
    };
    for key in 0..100 {
        put(&mut space, format!("k{key:02}"), if key == 50 { "b" } else { "a" });
    }
    store.insert(&space.take_unflushed(0).rows);
    space.flushed(space.current_revision(), &[]);
    space.evict(usize::MAX);
    let compare = |space: &mut KeySpace, result, value: &'static str| {
        let target = CompareTarget::Value(value.into());
        let compares = vec![Compare { keys: everything(), result, target }];
        let txn = Txn { compares, success: Vec::new(), failure: Vec::new() };
        let applied = space.txn(&txn, &Model::lease_known, &store).unwrap().unwrap();
        let Outcome::Txn { succeeded, .. } = applied.outcome else { panic!("a transaction") };
        (succeeded, std::mem::take(&mut *store.asked.lock()))
    };
    let (holds, asked) = compare(&mut space, CompareResult::NotEqual, "c");
    assert!(holds && asked.iter().sum::<usize>() == 100, "{asked:?}");
    assert!(asked.iter().all(|values| *values <= 7), "{asked:?}");
    let (holds, asked) = compare(&mut space, CompareResult::Equal, "a");
    assert!(!holds && asked.iter().sum::<usize>() < 60, "{asked:?}");
    // What the window holds is looked at first.
    put(&mut space, "k00".to_owned(), "b");
    let (holds, asked) = compare(&mut space, CompareResult::Equal, "a");
    assert!(!holds && asked.is_empty(), "{asked:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_refused_transaction_leaves_nothing_behind(
        txns in prop::collection::vec(requests::txn(), 1..30),
    ) {
        let (mut space, store) = (new_space(), Store::default());
        let mut model = Model::new();
        for txn in &txns {
            let before = (space.sizes(), space.unflushed_bytes(), space.key_count());
            let applied = space.txn(txn, &Model::lease_known, &store).unwrap();
            let answer = model.txn(txn);
            prop_assert_eq!(applied.as_ref().err(), answer.as_ref().err());
            prop_assert_eq!(space.current_revision(), model.current);
            if applied.is_err() {
                let after = (space.sizes(), space.unflushed_bytes(), space.key_count());
                prop_assert_eq!(after, before);
            }
        }
        let rows = space.take_unflushed(0).rows;
        prop_assert_eq!(rows.len(), model.events.len());
        for (row, event) in rows.iter().zip(&model.events) {
            prop_assert_eq!(row.key.as_bytes(), event.row_key());
            prop_assert_eq!(&row.stored[..], event.stored());
        }
    }
}

/// Each put that keeps a value looked at every write before it, with all readers locked out: a transaction
/// as large as the API lets in took a second.
#[test]
fn puts_that_keep_values_cost_the_same_however_many_writes_came_before() {
    let mut space = new_space();
    let keys: Vec<Bytes> = (0..20_000).map(|key| format!("key/{key:08}").into()).collect();
    let put = |key: &Bytes, value: Option<Bytes>| {
        Op::Put(Put { key: key.clone(), value, lease: Some(0), prev_kv: false })
    };
    let kept = keys.iter().map(|key| put(key, Some("v".into()))).collect();
    run(&mut space, kept).unwrap();
    let gone = |at: usize| {
        let key: Bytes = format!("gone/{at:08}").into();
        let keys = match at % 2 {
            0 => KeyRange::single(key),
            _ => KeyRange { end: RangeEnd::Before([&key[..], b"x"].concat().into()), start: key },
        };
        Op::DeleteRange(DeleteRange { keys, prev_kv: false })
    };
    let puts_alone: Vec<Op> = keys.iter().map(|key| put(key, None)).collect();
    let deletions = (0..10_000).map(gone);
    let deletions_first = deletions.chain(puts_alone[..10_000].iter().cloned()).collect();
    for ops in [puts_alone, deletions_first] {
        let few = cost(&mut space, ops[ops.len() - 1_000..].to_vec());
        let all = cost(&mut space, ops);
        // 20 times the operations: quadratic is 400 times the time.
        assert!(all < 200 * few, "{all:?} for 20,000 operations, {few:?} for 1,000");
    }
}

#[test]
fn a_range_that_is_deleted_again_and_again_is_walked_once() {
    let mut space = new_space();
    let put = |key: usize| {
        let key = format!("key/{key:08}").into();
        Op::Put(Put { key, value: Some("v".into()), lease: Some(0), prev_kv: false })
    };
    let all = Op::DeleteRange(DeleteRange { keys: everything(), prev_kv: false });
    let mut delete = |times: usize| {
        run(&mut space, (0..10_000).map(put).collect()).unwrap();
        let began = std::time::Instant::now();
        run(&mut space, vec![all.clone(); times]).unwrap();
        began.elapsed()
    };
    let (once, often) = (delete(1), delete(10_000));
    assert!(often < 50 * once, "{often:?} for ten thousand times, {once:?} for one");
}

/// What a transaction costs that is refused in the end, so that nothing but the checks is measured.
/// The least of three, because the machine may have had something else to do.
fn cost(space: &mut KeySpace, mut ops: Vec<Op>) -> std::time::Duration {
    ops.push(Op::Put(Put { key: "none".into(), value: None, lease: None, prev_kv: false }));
    let txn = Txn { compares: Vec::new(), success: ops, failure: Vec::new() };
    let measure = |_| {
        let began = std::time::Instant::now();
        let applied = space.txn(&txn, &Model::lease_known, &Store::default()).unwrap();
        assert_eq!(applied, Err(MvccError::KeyNotFound));
        began.elapsed()
    };
    (0..3).map(measure).min().unwrap()
}
