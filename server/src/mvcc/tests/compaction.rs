//! When a compaction may begin, what overtakes it, and when it is finished.

use super::store::Store;
use crate::mvcc::{DeleteRange, KeyRange, KeySpace, Limits, MvccError, Put, RowKey, Sizes};

const ALL: usize = usize::MAX;

fn put(space: &mut KeySpace, key: &'static str) {
    let put = Put { key: key.into(), value: Some("v".into()), lease: Some(0), prev_kv: false };
    space.put(&put, &Store::default()).unwrap().unwrap();
}

fn delete(space: &mut KeySpace, key: &'static str) {
    let keys = KeyRange::single(key.into());
    space.delete_range(&DeleteRange { keys, prev_kv: false });
}

/// a at 2, 3, 4 and deleted at 5; b at 6 and 7.
fn space() -> KeySpace {
    let mut space = KeySpace::new(Limits { window_bytes_max: 0 });
    (0..3).for_each(|_| put(&mut space, "a"));
    delete(&mut space, "a");
    (0..2).for_each(|_| put(&mut space, "b"));
    space
}

fn flush(space: &mut KeySpace, deletions_max: usize) -> Vec<RowKey> {
    let deletions = space.take_unflushed(deletions_max).deletions;
    space.flushed(space.current_revision(), &deletions);
    deletions
}

fn names(deletions: &[RowKey]) -> String {
    format!("{deletions:?}")
}

#[test]
fn the_index_is_walked_only_when_the_store_knows_of_the_schedule() {
    let mut space = space();
    flush(&mut space, ALL);
    // A flush that was cut before does not tell of it.
    space.take_unflushed(ALL);
    space.compact(6).unwrap();
    space.flushed(7, &[]);
    assert!(!space.compaction_runnable(None));
    assert_eq!(space.compact_step(ALL, None), None);
    flush(&mut space, ALL);
    assert!(space.compaction_runnable(None));
    assert_eq!(space.compact_step(ALL, None), Some(6));
}

#[test]
fn a_compaction_is_finished_with_its_last_deletion() {
    let mut space = space();
    let before = space.sizes();
    assert_eq!(before.in_use_bytes, before.total_bytes);
    space.compact(6).unwrap();
    flush(&mut space, ALL);
    assert_eq!(space.compact_step(3, None), None);
    assert_eq!(space.compact_step(3, None), Some(6));
    assert!(!space.compaction_runnable(None) && space.has_deletions());
    let walked = space.sizes();
    assert_eq!(walked.total_bytes, before.total_bytes);
    let mut taken = Vec::new();
    for expected in ["[2.0, 3.0]", "[4.0, 5.0t]"] {
        assert_eq!(space.finished_compaction(), -1);
        let deletions = space.take_unflushed(2).deletions;
        assert_eq!(names(&deletions), expected);
        assert_eq!(space.finished_compaction(), -1);
        space.flushed(7, &deletions);
        taken.extend(deletions);
    }
    assert_eq!((space.finished_compaction(), space.has_deletions()), (6, false));
    // The store does not know yet that it is finished.
    assert!(space.wants_flush());
    flush(&mut space, ALL);
    assert!(!space.wants_flush());
    assert!(taken.is_sorted());
    let Sizes { in_use_bytes, total_bytes } = space.sizes();
    assert_eq!((in_use_bytes, total_bytes), (walked.in_use_bytes, walked.in_use_bytes));
}

#[test]
fn a_later_compaction_overtakes_one_that_has_not_begun_and_follows_one_that_has() {
    let mut space = space();
    space.compact(3).unwrap();
    flush(&mut space, ALL);
    space.compact(4).unwrap();
    // What the store knows is done first, however fast others follow.
    assert_eq!(space.compact_step(1, None), None);
    space.compact(5).unwrap();
    flush(&mut space, ALL);
    assert_eq!(space.compact_step(ALL, None), Some(3));
    assert_eq!(space.compact_step(ALL, None), Some(5));
    assert_eq!(space.compact_step(ALL, None), None);
    // Each flush stays within one of them.
    assert_eq!(names(&flush(&mut space, ALL)), "[2.0]");
    assert_eq!(space.finished_compaction(), 3);
    assert_eq!(names(&flush(&mut space, ALL)), "[3.0, 4.0]");
    assert_eq!(space.finished_compaction(), 5);
    space.compact(7).unwrap();
    flush(&mut space, ALL);
    assert_eq!(space.compact_step(ALL, None), Some(7));
    assert_eq!(names(&flush(&mut space, ALL)), "[5.0t, 6.0]");
}

#[test]
fn a_pin_below_holds_a_compaction_back_and_one_at_it_does_not() {
    let mut space = space();
    space.compact(4).unwrap();
    flush(&mut space, ALL);
    assert!(!space.compaction_runnable(Some(3)));
    assert_eq!(space.compact_step(ALL, Some(3)), None);
    assert_eq!(space.compact_step(ALL, Some(4)), Some(4));
}

#[test]
fn a_fresh_store_can_be_compacted_at_zero_once() {
    let mut space = KeySpace::new(Limits { window_bytes_max: 0 });
    assert_eq!(space.compact(-1), Err(MvccError::Compacted));
    assert_eq!(space.compact(0), Ok(()));
    assert_eq!(space.compact(0), Err(MvccError::Compacted));
    assert_eq!(space.compact(2), Err(MvccError::FutureRevision));
    assert_eq!(space.compact(i64::MAX), Err(MvccError::FutureRevision));
    assert_eq!(space.compact(i64::MIN), Err(MvccError::Compacted));
    flush(&mut space, ALL);
    assert_eq!(space.compact_step(ALL, None), Some(0));
    assert_eq!(space.finished_compaction(), 0);
}
