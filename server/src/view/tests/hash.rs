//! `HashKV` against values that a real etcd 3.7.3 gave.

use super::histories::{History, Step};
use crate::mvcc::tests::store::Store;
use crate::mvcc::{DeleteRange, KeyRange, KeySpace, Limits, Put};
use crate::view::{PIN_MS_MAX, STEP_BYTES_MAX, View};

fn put(key: &'static str) -> Step {
    let put = Put { key: key.into(), value: Some("1".into()), lease: Some(0), prev_kv: false };
    Step::Put(put)
}

fn delete(key: &'static str) -> Step {
    Step::Delete(DeleteRange { keys: KeyRange::single(key.into()), prev_kv: false })
}

fn hash(history: &mut History, revision: i64) -> u32 {
    let world = &mut history.world;
    let mut read = world.view.hash_kv(revision).unwrap();
    loop {
        if let Some(found) = read.step(&world.store).unwrap() {
            assert_eq!(found.hash, world.model.hash(revision), "the model at {revision}");
            return found.hash;
        }
    }
}

/// put a 1, del a, compact 3, put z 1, del z: nothing is visible at 3 and at 5, and the tombstone 3.0
/// is in etcd's store, but not in its hash.
#[test]
fn a_tombstone_at_the_compact_revision_never_counts() {
    for window_bytes_max in [0, 1 << 20] {
        let mut history = History::new(window_bytes_max);
        history.take(&put("a"));
        history.take(&delete("a"));
        assert_eq!(hash(&mut history, 3), 3_520_211_144);
        history.take(&Step::CompactAt(3));
        history.take(&put("z"));
        history.take(&delete("z"));
        let expected = [(3, 1_084_519_789), (4, 516_707_333), (5, 3_983_185_770)];
        for settled in [false, true] {
            for (revision, value) in expected {
                assert_eq!(hash(&mut history, revision), value, "at {revision}, {settled}");
            }
            history.settle();
        }
    }
}

#[test]
fn a_hash_of_large_rows_reads_few_at_a_time() {
    let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
    let store = Store::default();
    let value = "v".repeat(STEP_BYTES_MAX);
    (0..20).for_each(|key| super::edges::put(&view, &store, &format!("k{key:02}"), &value));
    let hash = || {
        let (mut read, mut steps) = (view.hash_kv(0).unwrap(), 1);
        loop {
            match read.step(&store).unwrap() {
                Some(found) => return (found.hash, steps),
                None => steps += 1,
            }
        }
    };
    let (of_window, steps) = hash();
    assert!(steps > 20, "{steps} steps through the window");
    super::edges::flush(&view, &store);
    while view.is_evictable() {
        view.evict();
    }
    let (of_store, steps) = hash();
    assert_eq!(of_store, of_window);
    assert!(steps > 20, "{steps} steps through the store");
    let largest = *store.largest_scan_bytes.lock();
    assert!((1..2 * STEP_BYTES_MAX).contains(&largest), "{largest} bytes at once");
}

#[test]
fn a_hash_that_takes_longer_than_a_pin_lasts_ends_with_its_result() {
    let hash = |pause_ms| {
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
        let store = Store::default();
        (0..40).for_each(|key| super::edges::put(&view, &store, &format!("k{key:02}"), "v"));
        let mut read = view.hash_kv(0).unwrap();
        let mut steps = 0;
        loop {
            steps += 1;
            view.pass(pause_ms);
            if let Some(result) = read.step(&store).unwrap() {
                return (steps, result);
            }
        }
    };
    let (steps, expected) = hash(0);
    assert!(steps > 3, "{steps}");
    assert_eq!(hash(PIN_MS_MAX * 2), (steps, expected));
}
