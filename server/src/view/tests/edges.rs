//! What happens in the middle of a read.

use std::sync::Arc;

use bytes::Bytes;

use super::histories::plain;
use crate::mvcc::tests::model::everything;
use crate::mvcc::tests::store::Store;
use crate::mvcc::{
    KeySpace, Limits, Put, RangeQuery, Revision, RevisionBounds, RowsError, Sort, SortTarget,
};
use crate::view::{
    LockObserver, OWNER_STEP_ROWS, PIN_MS_MAX, RangeSummary, ReadError, STEP_BYTES_MAX,
    STEP_KEYS_MAX, View,
};

pub(super) fn put(view: &View, store: &Store, key: &str, value: &str) {
    let put = Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        lease: Some(0),
        prev_kv: false,
    };
    view.write().put(&put, store).unwrap().unwrap();
}

pub(super) fn flush(view: &View, store: &Store) {
    let unflushed = view.take_unflushed(usize::MAX);
    store.insert(&unflushed.rows);
    store.delete(&unflushed.deletions);
    view.flushed(view.current_revision(), &unflushed.deletions);
    while view.is_evictable() {
        view.evict();
    }
}

/// Compacts everything, as soon as no pin holds it back.
fn compact_all(view: &View, store: &Store) {
    let current = view.current_revision();
    let _ = view.write().compact(current);
    flush(view, store);
    while view.compaction_runnable() {
        let oldest = view.oldest_pin();
        view.write().compact_step(1, oldest);
    }
    flush(view, store);
}

/// Twenty keys with three versions each, nothing of it in the window.
pub(super) fn flushed_view() -> (Arc<View>, Store) {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
    let store = Store::default();
    for version in ["1", "2", "3"] {
        (0..20).for_each(|key| put(&view, &store, &format!("k{key:02}"), version));
    }
    flush(&view, &store);
    (view, store)
}

/// In the middle of the next read of the store all pins expire, and everything is compacted.
fn expire_in_the_middle(view: &Arc<View>, store: &Store) {
    let view = view.clone();
    *store.hook.lock() = Some(Box::new(move |store| {
        view.pass(PIN_MS_MAX);
        compact_all(&view, store);
    }));
}

#[test]
fn a_read_whose_pin_expires_in_the_middle_ends_as_compacted() {
    let all = RangeQuery { keys: everything(), ..plain(&Bytes::new()) };
    let by_value = Some(Sort { target: SortTarget::Value, descending: true, limit_first: false });
    let bounds = RevisionBounds { min_mod: 1, ..RevisionBounds::default() };
    let queries = [
        all.clone(),
        plain(&"k00".into()),
        RangeQuery { sort: by_value, ..all.clone() },
        RangeQuery { bounds, ..all.clone() },
    ];
    for query in queries {
        let (view, store) = flushed_view();
        let pin = Arc::new(view.pin(21).unwrap());
        let mut read = view.range(query.clone(), Revision::end_of(21), pin);
        expire_in_the_middle(&view, &store);
        let mut out = Vec::new();
        let error = loop {
            match read.step(&store, &mut out) {
                Ok(summary) => assert_eq!(summary, None, "{query:?} ended with {out:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::Compacted), "{query:?}: {error}");
        assert!(out.iter().all(|stored| !stored.is_empty()), "no gaps are left");
    }
    let (view, store) = flushed_view();
    let pin = view.pin(21).unwrap();
    expire_in_the_middle(&view, &store);
    let found = view.stored(&[Revision::new(2, 0)], &pin, &store, &mut Vec::new());
    assert!(matches!(found, Err(ReadError::Compacted)));
}

#[test]
fn a_hash_whose_pin_expires_during_a_scan_ends_as_compacted() {
    for scan in 0..8 {
        let (view, store) = flushed_view();
        let mut read = view.hash_kv(30).unwrap();
        for _ in 0..scan {
            assert_eq!(read.step(&store).unwrap(), None);
        }
        expire_in_the_middle(&view, &store);
        let end = loop {
            match read.step(&store) {
                Ok(None) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Err(ReadError::Compacted)), "{end:?} from step {scan} on");
    }
}

#[test]
fn a_hash_counts_rows_that_a_later_compaction_drops() {
    let (view, store) = flushed_view();
    let hash = |interrupted: bool| {
        let mut read = view.hash_kv(61).unwrap();
        loop {
            if let Some(result) = read.step(&store).unwrap() {
                return result;
            }
            if interrupted {
                compact_all(&view, &store);
            }
        }
    };
    let expected = hash(false);
    assert_eq!(hash(true), expected);
    assert_eq!(expected.compact_revision, -1);
    compact_all(&view, &store);
    assert_eq!(view.finished_compaction(), 61);
}

#[test]
fn a_missing_row_under_a_valid_pin_is_a_damaged_store() {
    let (view, store) = flushed_view();
    store.rows.lock().remove(&Revision::new(45, 0));
    let pin = Arc::new(view.pin(0).unwrap());
    let all = RangeQuery { keys: everything(), ..plain(&Bytes::new()) };
    let mut read = view.range(all, Revision::end_of(61), pin);
    let found = read.step(&store, &mut Vec::new());
    let missing = Revision::new(45, 0);
    assert!(matches!(found, Err(ReadError::Rows(RowsError::Missing(at))) if at == missing));
}

#[test]
fn a_count_within_a_transaction_that_left_the_window_is_exact() {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
    let store = Store::default();
    let op = |key: &'static str| {
        let put = Put { key: key.into(), value: Some("1".into()), lease: Some(0), prev_kv: false };
        crate::mvcc::Op::Put(put)
    };
    let txn = crate::mvcc::Txn {
        compares: Vec::new(),
        success: vec![op("a"), op("b"), op("c")],
        failure: Vec::new(),
    };
    view.write().txn(&txn, &|_| true, &store).unwrap().unwrap();
    let pin = Arc::new(view.pin(1).unwrap());
    for is_flushed in [false, true] {
        let query = RangeQuery { keys: everything(), count_only: true, ..plain(&Bytes::new()) };
        let mut read = view.range(query, Revision::new(2, 0), pin.clone());
        let summary = read.step(&store, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(summary.count, 1, "flushed: {is_flushed}");
        flush(&view, &store);
    }
}

#[test]
fn an_order_by_value_reads_few_rows_in_each_step_and_gives_the_first_of_all() {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
    let store = Store::default();
    // 37 is coprime to 100: each value comes once, scattered.
    (0..100).for_each(|key| {
        put(&view, &store, &format!("k{key:02}"), &format!("{:02}", key * 37 % 100));
    });
    flush(&view, &store);
    for (descending, limit, first) in [(false, 3, "00"), (true, 3, "99"), (false, 0, "00")] {
        let sort = Some(Sort { target: SortTarget::Value, descending, limit_first: false });
        let query = RangeQuery { keys: everything(), sort, limit, ..plain(&Bytes::new()) };
        let mut read = view.range(query, Revision::end_of(101), Arc::new(view.pin(0).unwrap()));
        store.asked.lock().clear();
        let mut out = Vec::new();
        let mut steps = 1;
        let summary = loop {
            if let Some(summary) = read.step(&store, &mut out).unwrap() {
                break summary;
            }
            steps += 1;
        };
        let asked = store.asked.lock().clone();
        assert!(asked.iter().all(|rows| *rows <= STEP_KEYS_MAX), "{asked:?} rows at once");
        assert!(steps > 100 / STEP_KEYS_MAX, "{steps} steps");
        let expected = RangeSummary { count: 100, more: limit > 0 };
        assert_eq!((summary, out.len()), (expected, if limit > 0 { 3 } else { 100 }));
        let value = crate::mvcc::stored::decode(&out[0]).unwrap().value;
        assert_eq!(value, first);
    }
}

/// Counts what is evicted, taken and deleted by how often the lock was taken.
#[derive(Default)]
struct Locks(std::sync::atomic::AtomicUsize);

impl LockObserver for Locks {
    fn waits(&self) {}
    fn takes(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn releases(&self) {}
}

#[test]
fn the_owner_lets_readers_in_while_it_takes_evicts_and_forgets_many_rows() {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
    let store = Store::default();
    (0..200).for_each(|key| put(&view, &store, &format!("k{:02}", key % 100), "v"));
    view.write().compact(201).unwrap();
    flush(&view, &store);
    while view.compaction_runnable() {
        view.write().compact_step(10, None);
    }
    (0..100).for_each(|key| put(&view, &store, &format!("k{key:02}"), "w"));
    let locks = Arc::new(Locks::default());
    view.observe(locks.clone());
    let taken_since = |before: &mut usize| {
        let now = locks.0.load(std::sync::atomic::Ordering::Relaxed);
        now - std::mem::replace(before, now)
    };
    let mut before = 0;
    // A hundred rows and a hundred deletions, seven at a time.
    let unflushed = view.take_unflushed(usize::MAX);
    assert_eq!((unflushed.rows.len(), unflushed.deletions.len()), (100, 100));
    assert!(taken_since(&mut before) >= 2 * 100 / OWNER_STEP_ROWS);
    store.insert(&unflushed.rows);
    store.delete(&unflushed.deletions);
    view.flushed(301, &unflushed.deletions);
    assert!(taken_since(&mut before) >= 100 / OWNER_STEP_ROWS);
    assert_eq!(view.sizes().total_bytes, view.sizes().in_use_bytes);
    while view.is_evictable() {
        view.evict();
    }
    assert!(taken_since(&mut before) >= 100 / OWNER_STEP_ROWS);
    assert!(view.read().recent(Revision::new(301, 0)).is_none(), "everything has left");
}

#[test]
fn a_count_in_the_past_looks_at_few_changes_in_each_step() {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 }));
    let store = Store::default();
    (0..100).for_each(|key| put(&view, &store, &format!("k{key:02}"), "v"));
    for (at, evicted) in [(31, false), (101, false), (31, true)] {
        let query = RangeQuery { keys: everything(), count_only: true, ..plain(&Bytes::new()) };
        let mut read = view.range(query, Revision::end_of(at), Arc::new(view.pin(at).unwrap()));
        let mut steps = 1;
        let summary = loop {
            if let Some(summary) = read.step(&store, &mut Vec::new()).unwrap() {
                break summary;
            }
            steps += 1;
            if evicted && steps == 2 {
                // What it would have to look at is forgotten meanwhile.
                flush(&view, &store);
                view.write().set_window_bytes_max(0);
                while view.is_evictable() {
                    view.evict();
                }
            }
        };
        assert_eq!(summary.count, at - 1);
        let changes = usize::try_from(101 - at).unwrap();
        assert!(steps >= changes / STEP_KEYS_MAX, "{steps} steps for {changes} changes");
    }
}

#[test]
fn equal_keys_of_a_descending_sort_stay_in_key_order() {
    let (view, store) = flushed_view();
    let sort = Some(Sort { target: SortTarget::Version, descending: true, limit_first: false });
    let query = RangeQuery { keys: everything(), sort, limit: 2, ..plain(&Bytes::new()) };
    let mut read = view.range(query, Revision::end_of(61), Arc::new(view.pin(0).unwrap()));
    let mut out = Vec::new();
    while read.step(&store, &mut out).unwrap().is_none() {}
    assert!(out[0].starts_with(b"\x0a\x03k00") && out[1].starts_with(b"\x0a\x03k01"));
}

#[test]
fn a_step_fetches_few_bytes_however_large_the_values_are_and_the_read_is_whole() {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
    let store = Store::default();
    (0..20).for_each(|key| put(&view, &store, &format!("k{key:02}"), &"v".repeat(60)));
    flush(&view, &store);
    let by_version = Sort { target: SortTarget::Version, descending: true, limit_first: false };
    for sort in [None, Some(by_version)] {
        let query = RangeQuery { keys: everything(), sort, ..plain(&Bytes::new()) };
        let mut read = view.range(query, Revision::end_of(21), Arc::new(view.pin(0).unwrap()));
        let mut out = Vec::new();
        let summary = loop {
            let before = out.len();
            let end = read.step(&store, &mut out).unwrap();
            let fetched: usize = out[before..].iter().map(Bytes::len).sum();
            assert!(fetched < STEP_BYTES_MAX + 100, "{fetched} bytes in one step");
            if let Some(summary) = end {
                break summary;
            }
        };
        assert_eq!((summary.count, summary.more, out.len()), (20, false, 20));
    }
}
