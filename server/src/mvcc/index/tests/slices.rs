//! The edges: slices, refusals, hostile bytes.

use proptest::prelude::*;

use super::super::*;
use super::model::{encode_all, walk_all};

const ALL: SliceBounds =
    SliceBounds { keys_max: usize::MAX, rows_max: usize::MAX, bytes_max: usize::MAX };

fn version(main: i64, create_revision: i64, version: i64) -> Version {
    Version {
        revision: Revision::new(main, 0),
        create_revision,
        version,
        lease: 0,
        stored_bytes: 10,
    }
}

fn index_of(keys: &[&str]) -> Index {
    let mut index = Index::new();
    for (key, main) in keys.iter().zip(2..) {
        index.put(key.as_bytes(), version(main, main, 1));
    }
    index
}

const NOW: Revision = Revision::end_of(i64::MAX);

#[test]
fn compaction_keeps_what_etcd_keeps() {
    let mut index = Index::new();
    index.put(b"a", version(2, 2, 1));
    index.put(b"a", version(3, 2, 2));
    assert!(index.tombstone(b"a", Revision::new(4, 0), 3));
    index.put(b"a", version(5, 5, 1));
    assert!(index.tombstone(b"a", Revision::new(6, 0), 3));
    // (compacted at, rows dropped, visible there)
    let transcript: [(i64, &[&str], Option<i64>); 6] = [
        (1, &[], None),
        (3, &["2.0"], Some(3)),
        (4, &["3.0"], None),
        (5, &["4.0t"], Some(5)),
        (6, &["5.0"], None),
        (7, &["6.0t"], None),
    ];
    for (upto, expected, visible) in transcript {
        let mut dropped = Vec::new();
        assert_eq!(index.compact(None, 10, upto, &mut dropped), None);
        let dropped: Vec<String> = dropped.iter().map(|row| format!("{:?}", row.0)).collect();
        assert_eq!(dropped, expected, "compaction at {upto}");
        let at = index.at(b"a", Revision::end_of(upto)).map(|version| version.revision.main);
        assert_eq!(at, visible, "visible at {upto}");
        let mut kept = Vec::new();
        assert_eq!(index.keep_walk(None, 10, upto, &mut kept), None);
        assert_eq!(kept.first().map(|revision| revision.main), visible, "kept at {upto}");
    }
    assert_eq!(index.rows_bytes(), 0);
}

#[test]
fn a_slice_ends_with_a_key_only_if_there_is_another() {
    let index = index_of(&["a", "b", "c", "d"]);
    let all = KeyRange::all();
    let upto_c = KeyRange { start: "a".into(), end: RangeEnd::Before("c".into()) };
    let single = KeyRange::single("b".into());
    let cases = [
        (&all, None, 4, None),
        (&all, None, 3, Some("c")),
        (&all, Some("c"), 1, None),
        (&all, Some("d"), 1, None),
        (&upto_c, None, 2, None),
        (&upto_c, None, 1, Some("a")),
        (&upto_c, Some("\0"), 1, Some("a")),
        (&single, None, 1, None),
        (&single, Some("b"), 1, None),
    ];
    for (range, after, keys_max, last_if_more) in cases {
        let after = after.map(str::as_bytes);
        let last = index.walk(range, after, NOW, keys_max, &mut |_, _| true);
        assert_eq!(last.as_deref(), last_if_more.map(str::as_bytes), "{range:?} after {after:?}");
    }
    let stopped = index.walk(&single, None, NOW, 9, &mut |_, _| false);
    assert_eq!(stopped.as_deref(), Some(&b"b"[..]), "a visitor that stops is told where");
}

/// A key with three million rows lost all of them in one step, with every reader locked out.
#[test]
fn a_compaction_of_a_key_with_many_rows_takes_many_slices() {
    let mut index = Index::new();
    for main in 2..100 {
        index.put(b"hot", version(main, 2, main - 1));
    }
    assert!(index.tombstone(b"hot", Revision::new(100, 0), 3));
    index.put(b"zero", version(101, 101, 1));
    let (mut next, mut dropped) = (None::<Bytes>, Vec::new());
    let mut slices = Vec::new();
    loop {
        let before = dropped.len();
        next = index.compact(next.as_deref(), 20, 101, &mut dropped);
        assert_eq!(index.at(b"hot", Revision::end_of(101)), None);
        assert_eq!(index.live(), 1);
        slices.push((dropped.len() - before, next.clone()));
        if next.is_none() {
            break;
        }
    }
    let hot = |rows: usize| (rows, Some(Bytes::from("hot")));
    assert_eq!(slices, [hot(20), hot(20), hot(20), hot(20), (19, None)]);
    assert!(dropped.is_sorted(), "the tombstone goes last");
    assert_eq!(index.rows_bytes(), 17 + 10 + 16);
    // The last row and the last of the slice.
    assert!(index.tombstone(b"zero", Revision::new(102, 0), 3));
    assert_eq!(index.compact(None, 1, 103, &mut dropped).as_deref(), Some(&b"zero"[..]));
    assert_eq!(index.compact(Some(b"zero"), 1, 103, &mut dropped), None);
    assert_eq!((dropped.len(), index.rows_bytes()), (101, 0));
}

/// A chunk was always a hundred keys: with hundreds of thousands of rows it was too long to be written,
/// and there was never a checkpoint at all.
#[test]
fn a_key_with_many_rows_is_in_many_slices_of_a_checkpoint() {
    let mut index = index_of(&["a", "b"]);
    for main in 10..5_000 {
        index.put(b"hot", version(main, 10, main - 9));
    }
    index.put(b"zero", version(5_000, 5_000, 1));
    for rows_max in [1, 7, 1_000] {
        let bounds = SliceBounds { keys_max: 100, rows_max, bytes_max: 500 };
        let (mut place, mut slices, mut restored) = (None, 0, Index::new());
        loop {
            let mut bytes = Vec::new();
            place = index.encode_slice(place.as_ref(), bounds, Revision::end_of(4_000), &mut bytes);
            assert!(bytes.len() < 500 + 12 * rows_max, "{} bytes", bytes.len());
            restored.decode_slice(&bytes).unwrap();
            slices += 1;
            if place.is_none() {
                break;
            }
        }
        assert!(slices > 3_990 / rows_max, "{slices} slices");
        for at in 1..=4_000 {
            let at = Revision::end_of(at);
            assert_eq!(restored.at(b"hot", at), index.at(b"hot", at));
        }
        assert_eq!((restored.live(), restored.tree.check()), (3, 3));
    }
}

#[test]
fn long_keys_end_a_slice_of_a_checkpoint_before_it_has_too_many_of_them() {
    let mut index = Index::new();
    for at in 0..50u8 {
        index.put(&[&[at; 1000][..], &[at]].concat(), version(9, 9, 1));
    }
    let bounds = SliceBounds { keys_max: 100, rows_max: 100, bytes_max: 5_000 };
    let mut bytes = Vec::new();
    let place = index.encode_slice(None, bounds, NOW, &mut bytes);
    assert!(place.is_some() && bytes.len() < 6_200, "{} bytes", bytes.len());
}

#[test]
fn rows_that_cannot_follow_are_refused_when_restored() {
    let mut index = index_of(&["a"]);
    let order = Err(CheckpointError::Order);
    let range = Err(CheckpointError::OutOfRange);
    assert_eq!(index.restore_put(b"a", version(2, 2, 1)), order);
    assert_eq!(index.restore_tombstone(b"a", Revision::new(2, 0), 1), order);
    assert_eq!(index.restore_put(b"b", version(5, 6, 1)), range);
    assert_eq!(index.restore_put(b"b", version(5, 5, 0)), range);
    assert_eq!(index.restore_put(b"b", version(-1, -1, 1)), range);
    assert_eq!(index.restore_tombstone(b"b", Revision::end_of(9), 1), range);
    assert_eq!(index.live(), 1);
    // The puts before these were compacted.
    assert_eq!(index.restore_put(b"b", version(9, 3, 7)), Ok(()));
    assert_eq!(index.restore_tombstone(b"c", Revision::new(9, 1), 1), Ok(()));
    assert_eq!((index.live(), index.latest(b"c")), (2, None));
    index.tree.check();
}

#[test]
#[should_panic(expected = "newer than all others")]
fn a_put_that_is_not_newer_is_a_broken_invariant() {
    let mut index = index_of(&["a"]);
    index.put(b"a", version(2, 2, 2));
}

#[test]
fn a_slice_must_follow_the_keys_that_are_there() {
    let slices = encode_all(&index_of(&["a", "b", "c", "d"]), NOW, 2);
    let [first, second, rest @ ..] = &slices[..] else { panic!("{} slices", slices.len()) };
    assert!(rest.iter().all(Vec::is_empty));
    let mut index = Index::new();
    assert_eq!(index.decode_slice(second), Ok(()));
    assert_eq!(index.decode_slice(second), Err(CheckpointError::Order));
    assert_eq!(index.decode_slice(first), Err(CheckpointError::Order));
}

#[test]
fn long_keys_that_share_everything_cost_what_they_are_long() {
    let mut index = Index::new();
    let key = |at: u8| [&[b'x'; 5000][..], &[at]].concat();
    for at in 0..40 {
        index.put(&key(at), version(i64::from(at) + 2, i64::from(at) + 2, 1));
    }
    let mut bytes = Vec::new();
    index.encode_slice(None, ALL, NOW, &mut bytes);
    assert!(bytes.len() > 40 * 4700, "sharing is capped at 255 bytes");
    let mut restored = Index::new();
    restored.decode_slice(&bytes).unwrap();
    let all = KeyRange::all();
    assert_eq!(walk_all(&restored, &all, NOW, 7), walk_all(&index, &all, NOW, 9));
}

#[test]
fn every_cut_of_a_slice_is_an_error_or_fewer_keys() {
    let mut index = index_of(&["a", "ab", "b"]);
    index.put(b"a", version(i64::MAX, 2, i64::MAX));
    index.tombstone(b"b", Revision::new(i64::MAX, 1), u32::MAX);
    let mut bytes = Vec::new();
    index.encode_slice(None, ALL, NOW, &mut bytes);
    let mut whole = 0;
    for cut in 0..bytes.len() {
        let mut restored = Index::new();
        match restored.decode_slice(&bytes[..cut]) {
            Ok(()) => whole += 1,
            Err(error) => assert_eq!(error, CheckpointError::Truncated),
        }
    }
    assert_eq!(whole, 3, "before each key");
    let mut restored = Index::new();
    assert_eq!(restored.decode_slice(&bytes), Ok(()));
    assert_eq!(restored.at(b"a", NOW), index.at(b"a", NOW));
    assert_eq!(restored.rows_bytes(), index.rows_bytes());
}

#[test]
fn what_no_index_would_write_is_refused() {
    use CheckpointError::{Order, OutOfRange, Truncated};
    // Key "a" with one put at 2.0: nothing shared, 1 byte; 1 row; main, sub, 2 * stored bytes,
    // main - create revision, version, lease.
    let good: &[u8] = &[0, 1, b'a', 1, 2, 0, 20, 0, 1, 0];
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("more shared than there is", with(0, 1), Err(OutOfRange)),
        ("a key longer than the rest", with(1, 9), Err(Truncated)),
        ("no rows", with(3, 0), Err(OutOfRange)),
        ("more rows than bytes", with(3, 2), Err(Truncated)),
        ("main 0", with(4, 0), Err(OutOfRange)),
        ("created before main 1", with(7, 2), Err(OutOfRange)),
        ("version 0", with(8, 0), Err(OutOfRange)),
        ("a number that goes on", with(9, 0x80), Err(Truncated)),
        ("a number over 64 bits", [&good[..9], &[0xff; 9], &[2]].concat(), Err(OutOfRange)),
        ("lease -1", [&good[..9], &[0xff; 9], &[1]].concat(), Ok(())),
        ("the same key twice", [good, good].concat(), Err(Order)),
        ("two keys, the second goes on", [good, &good[..4], &[3], &good[5..]].concat(), Err(Order)),
        ("the same row twice", [&good[..3], &[2], &good[4..], &[0, 0, 3]].concat(), Err(Order)),
        ("a tombstone after it", [&good[..3], &[2], &good[4..], &[0, 1, 3]].concat(), Ok(())),
        ("good", good.to_vec(), Ok(())),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(Index::new().decode_slice(&bytes), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_leave_a_sound_tree(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut index = index_of(&["a", "ab", "abc", "b", "ba", "c", "d", "e", "f", "g"]);
        index.put(b"ab", version(50, 3, 2));
        index.tombstone(b"ab", Revision::new(51, 3), 4);
        let mut bytes = Vec::new();
        index.encode_slice(None, ALL, NOW, &mut bytes);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for input in [bytes, noise] {
            let mut restored = Index::new();
            let _ = restored.decode_slice(&input);
            restored.tree.check();
            // What was accepted can be written and read again.
            let mut copy = Index::new();
            for slice in encode_all(&restored, NOW, 3) {
                prop_assert_eq!(copy.decode_slice(&slice), Ok(()));
            }
            prop_assert_eq!(copy.rows_bytes(), restored.rows_bytes());
        }
    }
}
