//! Compares of read-only transactions agree with those of the owner, and read no row for a number.

use std::sync::Arc;

use bytes::Bytes;

use super::edges::{flushed_view, put};
use crate::mvcc::tests::store::Store;
use crate::mvcc::{
    Compare, CompareResult, CompareTarget, KeyRange, Outcome, Revision, Row, Rows, RowsError,
    ScanBounds, Txn,
};
use crate::view::View;

/// A store that must not be asked.
struct Untouchable;

impl Rows for Untouchable {
    fn get_many(&self, revisions: &[Revision], _: &mut Vec<Bytes>) -> Result<(), RowsError> {
        panic!("{revisions:?} were read for a number");
    }

    fn scan_within(
        &self,
        from: Revision,
        _: ScanBounds,
        _: &mut Vec<Row>,
    ) -> Result<bool, RowsError> {
        panic!("rows from {from:?} on were read for a number");
    }
}

fn compare(start: &str, end: &str, target: CompareTarget, result: CompareResult) -> Compare {
    let keys = KeyRange::from_wire(start.to_owned().into(), end.to_owned().into());
    Compare { keys, result, target }
}

fn read(view: &Arc<View>, compare: &Compare, rows: &dyn Rows) -> bool {
    let pin = Arc::new(view.pin(0).unwrap());
    let mut read = view.compare(compare.clone(), Revision::end_of(pin.revision()), pin);
    loop {
        if let Some(holds) = read.step(rows).unwrap() {
            return holds;
        }
    }
}

/// What the owner makes of it.
fn apply(view: &View, compare: &Compare, store: &Store) -> bool {
    let txn = Txn { compares: vec![compare.clone()], success: vec![], failure: vec![] };
    let applied = view.write().txn(&txn, &|_| true, store).unwrap().unwrap();
    match applied.outcome {
        Outcome::Txn { succeeded, .. } => succeeded,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compare_is_decided_alike_by_reader_and_owner() {
    let (view, store) = flushed_view();
    put(&view, &store, "k05", "4");
    use {CompareResult as R, CompareTarget as T};
    let ranges = [("k00", ""), ("k00", "k05"), ("k00", "k99"), ("k", "\0"), ("z", ""), ("z", "zz")];
    let targets = [
        T::Version(3),
        T::Create(0),
        T::Mod(60),
        T::Lease(0),
        T::Value("3".into()),
        T::Value("".into()),
        T::Unknown,
    ];
    for (start, end) in ranges {
        for target in &targets {
            for result in [R::Equal, R::NotEqual, R::Greater, R::Less, R::Unknown] {
                let compare = compare(start, end, target.clone(), result);
                let found = read(&view, &compare, &store);
                assert_eq!(found, apply(&view, &compare, &store), "{compare:?}");
            }
        }
    }
}

#[test]
fn a_compare_of_numbers_reads_no_row() {
    let (view, _) = flushed_view();
    let all = |target, result| compare("k", "l", target, result);
    assert!(read(&view, &all(CompareTarget::Version(3), CompareResult::Equal), &Untouchable));
    assert!(!read(&view, &all(CompareTarget::Lease(1), CompareResult::Equal), &Untouchable));
}
