//! Many keys, in every order that matters.

use super::super::*;

const KEYS: u64 = 40_000;
const NOW: Revision = Revision::end_of(i64::MAX);

fn key(number: u64) -> Vec<u8> {
    format!("/registry/pods/{number:08}").into_bytes()
}

fn fill(order: impl Iterator<Item = u64>) -> Index {
    let mut index = Index::new();
    for (number, main) in order.zip(2..) {
        let revision = Revision::new(main, 0);
        let version =
            Version { revision, create_revision: main, version: 1, lease: 0, stored_bytes: 9 };
        index.put(&key(number), version);
    }
    index
}

fn between(start: u64, end: u64) -> KeyRange {
    KeyRange { start: key(start).into(), end: RangeEnd::Before(key(end).into()) }
}

#[test]
fn ascending_keys_leave_full_leaves_wherever_they_go() {
    let places = 10;
    let one_place = fill(0..KEYS);
    let many_places = fill((0..KEYS).map(|at| at % places * 1_000_000 + at / places));
    let before_another = fill(std::iter::once(9_000_000).chain(0..KEYS));
    let scattered = fill((0..KEYS).map(|at| at * 48_271 % KEYS));
    assert!(one_place.tree.fill() > 0.99);
    assert!(many_places.tree.fill() > 0.95);
    assert!(before_another.tree.fill() > 0.95);
    assert!(scattered.tree.fill() > 0.6);
}

#[test]
fn many_keys_in_any_order_are_counted_deleted_and_forgotten() {
    // 48271 is coprime to the number of keys: each is visited once, scattered.
    let scattered = (0..KEYS).map(|at| at * 48_271 % KEYS);
    let two_ends = (0..KEYS).map(|at| if at % 2 == 0 { at / 2 } else { KEYS / 2 + at / 2 });
    let mut indexes = [fill(0..KEYS), fill((0..KEYS).rev()), fill(scattered), fill(two_ends)];
    for index in &mut indexes {
        assert_eq!(index.tree.check() as u64, KEYS);
        for (start, end) in [(0, KEYS), (1, 2), (77, 39_001), (5_000, 5_064), (9, 9), (10, 3)] {
            assert_eq!(index.count(&between(start, end)), end.saturating_sub(start));
        }
        let deleted = 1_000..39_000;
        for number in deleted.clone() {
            assert!(index.tombstone(&key(number), Revision::new(200_000, number as i64), 5));
        }
        assert_eq!(index.count(&between(500, 39_500)), 1_000);
        let mut dropped = Vec::new();
        let mut after = None;
        let mut slices = 0;
        loop {
            after = index.compact(after.as_deref(), 1_000, 200_001, &mut dropped);
            slices += 1;
            if after.is_none() {
                break;
            }
        }
        assert!(slices >= 40);
        assert_eq!(dropped.len(), 2 * deleted.count());
        assert_eq!(index.tree.check(), 2_000);
        assert_eq!(index.rows_bytes(), 2_000 * (17 + 9 + 16));
        let mut seen = 0;
        index.walk(&KeyRange::all(), None, NOW, usize::MAX, &mut |_, _| {
            seen += 1;
            true
        });
        assert_eq!(seen, 2_000);
    }
}
