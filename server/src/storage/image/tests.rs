//! Images against an independent reader of bbolt files, and the histories that they are made of.

mod reader;

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use self::reader::File;
use super::page::{Entry, Key, PAGE_BYTES, Pages};
use super::tree::Tree;
use super::{DIGEST_BYTES, Image, ImageError, Stage};
use crate::consensus::ConfState;
use crate::mvcc::tests::store::Store;
use crate::mvcc::{DeleteRange, KeyRange, KeySpace, Limits, Put, Revision, Row, RowKey};
use crate::state_machine::{Alarm, AlarmKind, Inventory, Member};
use crate::view::{PIN_MS_MAX, ReadError, View};
use sha2::{Digest as _, Sha256};

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// A file with one bucket of rows whose values have these lengths.
fn file_of(lengths: &[usize]) -> (Vec<u8>, Vec<Pair>) {
    let mut expected = Vec::new();
    let lay_out = |pages: &mut Pages| {
        let mut tree = Tree::default();
        for (at, &length) in lengths.iter().enumerate() {
            let key = row_key(at);
            let value = Bytes::from(vec![at as u8; length]);
            tree.push(Entry { key: Key::Row(key), value }, pages);
        }
        let root = tree.finish(pages);
        let value = [root.to_le_bytes(), [0; 8]].concat().into();
        pages.leaf_of_buckets(&[Entry { key: Key::Bytes("key".into()), value }]);
    };
    for (at, &length) in lengths.iter().enumerate() {
        expected.push((row_key(at).as_bytes().to_vec(), vec![at as u8; length]));
    }
    let mut counted = Pages::counted();
    lay_out(&mut counted);
    let mut written = Pages::written(counted.count());
    lay_out(&mut written);
    assert_eq!(written.count(), counted.count());
    let mut bytes = Vec::new();
    written.drain(&mut bytes);
    assert_eq!(bytes.len() as u64, counted.count() * PAGE_BYTES as u64);
    (bytes, expected)
}

/// Every seventh is a tombstone, whose key is longer.
fn row_key(at: usize) -> RowKey {
    RowKey::new(Revision::new(at as i64 / 3, at as i64 % 3), at.is_multiple_of(7))
}

fn check(lengths: &[usize]) {
    let (bytes, expected) = file_of(lengths);
    let file = File::read(&bytes);
    assert_eq!(file.buckets["key"].entries, expected);
    assert_eq!(file.buckets.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_tree_of_any_entries_reads_back(
        lengths in prop::collection::vec(
            prop_oneof![
                8 => 0..100_usize,
                4 => 900..5000_usize,
                1 => 5000..50_000_usize,
            ],
            0..400,
        ),
    ) {
        check(&lengths);
    }
}

#[test]
fn every_number_of_leaves_makes_branches_of_two_children_or_more() {
    // About one entry to a leaf, so a branch of 120 fills up, and the second level as well.
    for count in (0..4).chain(115..130).chain(235..250).chain((14_200..14_500).step_by(73)) {
        check(&vec![3500; count]);
    }
}

#[test]
fn pages_are_nearly_full_whatever_the_size_of_a_row() {
    for (length, fill_min) in [
        (10, 0.96),
        (300, 0.90),
        (1000, 0.86),
        (1900, 0.86),
        (2100, 0.86),
        (3000, 0.86),
        (9000, 0.86),
    ] {
        let count = 2_000_000 / (length + 33);
        let (bytes, _) = file_of(&vec![length; count]);
        let fill = (count * (length + 33)) as f64 / bytes.len() as f64;
        assert!(fill > fill_min, "{fill} with rows of {length} bytes");
    }
}

/// A key space whose rows are partly in a store and partly in its window.
struct World {
    view: Arc<View>,
    store: Arc<Store>,
}

impl World {
    fn new() -> Self {
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 300 }));
        Self { view, store: Arc::new(Store::default()) }
    }

    fn put(&self, key: &str, value: &str) {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        let put = Put { key, value: Some(value), lease: Some(0), prev_kv: false };
        self.view.write().put(&put, self.store.as_ref()).unwrap().unwrap();
    }

    fn delete(&self, key: &str) {
        let keys = KeyRange::single(Bytes::from(key.to_owned()));
        self.view.write().delete_range(&DeleteRange { keys, prev_kv: false });
    }

    fn compact(&self, revision: i64) {
        self.view.write().compact(revision).unwrap();
    }

    /// A flush with at most so many deletions, after some of the walk of a compaction.
    fn flush(&self, deletions_max: usize) {
        let oldest = self.view.oldest_pin();
        let mut space = self.view.write();
        space.compact_step(3, oldest);
        let unflushed = space.take_unflushed(deletions_max);
        let revision = space.current_revision();
        drop(space);
        self.store.insert(&unflushed.rows);
        self.store.delete(&unflushed.deletions);
        self.view.write().flushed(revision, &unflushed.deletions);
    }

    fn image(&self, inventory: &Inventory) -> Image {
        let rows: Arc<dyn crate::mvcc::Rows> = self.store.clone();
        Image::new((self.view.history(), rows), inventory, "3.7.0")
    }
}

/// Reads `image` to its end; `between` is called between any two steps.
fn finish(image: &mut Image, mut between: impl FnMut()) -> Vec<u8> {
    let length = loop {
        between();
        if let Some(length) = image.measure().unwrap() {
            break length;
        }
    };
    let mut bytes = Vec::new();
    while image.write(&mut bytes).unwrap() {
        between();
    }
    assert_eq!(bytes.len() as u64, length, "the length was known before");
    assert_eq!(image.digest(), <[u8; DIGEST_BYTES]>::from(Sha256::digest(&bytes)));
    bytes
}

fn rows_in(bytes: &[u8]) -> Vec<(String, String)> {
    let file = File::read(bytes);
    let entries = &file.buckets["key"].entries;
    let row = |(key, value): &Pair| Row {
        key: RowKey::decode(key).unwrap(),
        stored: Bytes::copy_from_slice(value),
    };
    entries
        .iter()
        .map(row)
        .map(|row| {
            let kv = crate::mvcc::stored::decode(&row.stored).unwrap();
            (format!("{:?}", row.key), String::from_utf8(kv.key.to_vec()).unwrap())
        })
        .collect()
}

#[test]
fn an_image_holds_what_a_finished_compaction_leaves_however_far_deletion_has_come() {
    let world = World::new();
    for round in 0..20 {
        for key in ["a", "b", "c", "d"] {
            world.put(key, &format!("{round}"));
        }
    }
    world.delete("a"); // 82
    world.delete("b"); // 83
    world.put("b", "again"); // 84
    world.put("e", "new"); // 85
    let whole = world.image(&Inventory::default());
    world.compact(83);
    let expected = [
        ("80.0".to_owned(), "c".to_owned()),
        ("81.0".to_owned(), "d".to_owned()),
        ("83.0t".to_owned(), "b".to_owned()),
        ("84.0".to_owned(), "b".to_owned()),
        ("85.0".to_owned(), "e".to_owned()),
    ];
    let mut image = world.image(&Inventory::default());
    let before = finish(&mut image, || {});
    assert_eq!(rows_in(&before), expected);
    drop((image, whole));
    for _ in 0..60 {
        let bytes = finish(&mut world.image(&Inventory::default()), || {});
        assert_eq!(rows_in(&bytes), expected);
        world.flush(7);
    }
    assert_eq!(world.view.finished_compaction(), 83);
    assert!(world.store.rows.lock().len() < 10, "rows were deleted in between");
}

#[test]
fn an_image_is_of_its_moment_while_writes_flushes_and_compactions_go_on() {
    let world = World::new();
    for at in 0..100 {
        world.put(&format!("k{}", at % 10), "old");
    }
    world.compact(50);
    world.flush(3);
    let mut image = world.image(&Inventory::default());
    let expected = rows_in(&finish(&mut world.image(&Inventory::default()), || {}));
    assert_eq!(expected.len(), 10 + 51);
    let mut at = 0;
    let bytes = finish(&mut image, || {
        at += 1;
        world.put(&format!("k{}", at % 12), "new");
        world.delete(&format!("k{}", (at + 5) % 12));
        if at % 5 == 0 {
            world.compact(world.view.current_revision() - 1);
        }
        world.flush(4);
    });
    assert!(at > 10, "there were steps to get between");
    assert_eq!(rows_in(&bytes), expected);
}

#[test]
fn a_reader_that_takes_nothing_for_the_time_of_a_pin_loses_its_image_to_the_next_compaction() {
    for is_compacted in [false, true] {
        let world = World::new();
        world.put("a", "1");
        world.put("a", "2");
        let mut image = world.image(&Inventory::default());
        image.measure().unwrap();
        world.view.pass(PIN_MS_MAX - 1);
        while image.measure().unwrap().is_none() {}
        world.view.pass(PIN_MS_MAX + 1);
        assert_eq!(world.view.oldest_pin(), None, "compaction goes on");
        if is_compacted {
            world.view.write().compact(3).unwrap();
        }
        let mut out = Vec::new();
        let ended = loop {
            match image.write(&mut out) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let is_lost = matches!(ended, Err(ImageError::Read(ReadError::Compacted)));
        assert_eq!((is_lost, ended.is_ok()), (is_compacted, !is_compacted), "{ended:?}");
    }
}

#[test]
fn a_reader_that_is_always_busy_has_lost_its_history_after_an_hour() {
    let world = World::new();
    world.put("a", "1");
    let history = world.view.history();
    let mut minutes = 0;
    let ended = loop {
        world.view.pass(PIN_MS_MAX - 1);
        match history.read().step(world.store.as_ref(), &mut Vec::new()) {
            Ok(_) => minutes += 1,
            Err(error) => break error,
        }
        assert!(minutes < 100, "compaction is held back without end");
    };
    assert!(matches!(ended, ReadError::Compacted), "{ended}");
    assert!((60..=62).contains(&minutes), "{minutes} minutes");
    assert_eq!(world.view.oldest_pin(), None, "compaction goes on");
}

#[test]
fn an_image_that_is_not_as_it_was_measured_ends_with_an_error() {
    for differs_by in [-1, 1] {
        let world = World::new();
        world.put("a", "1");
        let mut image = world.image(&Inventory::default());
        while image.measure().unwrap().is_none() {}
        let Stage::Write { pages, .. } = &mut image.stage else { panic!("it is measured") };
        let measured = pages.checked_add_signed(differs_by).unwrap();
        let written = std::mem::replace(pages, measured);
        let mut out = Vec::new();
        let error = loop {
            match image.write(&mut out) {
                Ok(has_more) => assert!(has_more, "nobody saw that pages differ"),
                Err(error) => break error,
            }
        };
        let expected = format!("{written} pages were written where {measured} were measured");
        assert_eq!(error.to_string(), expected);
    }
}

/// The bytes are those in a file that a real etcd 3.7.3 saved.
#[test]
fn records_are_written_as_etcd_writes_them() {
    let id = 14_110_398_080_384_419_260;
    let url = |url: &str| vec![url.to_owned()];
    let inventory = Inventory {
        applied_index: 14,
        applied_term: 2,
        conf_state: ConfState { voters: vec![id], learners: vec![] },
        members: vec![Member {
            id,
            name: "n1".into(),
            peer_urls: url("http://127.0.0.1:23501"),
            client_urls: url("http://127.0.0.1:23500"),
            is_learner: false,
        }],
        removed: vec![0x9aae_7236_05e4_30f9],
        alarms: vec![Alarm { member_id: 5, kind: AlarmKind::NoSpace }],
        leases: vec![crate::lease::Lease {
            id: 0x45bc_a205_045b_8d08,
            ttl_s: 1000,
            remaining_ttl_s: 0,
            granted_by: 3,
        }],
        cluster_version: Some("3.7.0".into()),
    };
    let world = World::new();
    for _ in 0..4 {
        world.put("a", "1");
    }
    world.compact(4);
    let file = File::read(&finish(&mut world.image(&inventory), || {}));
    let names: Vec<&str> = file.buckets.keys().map(String::as_str).collect();
    let expected = [
        "alarm",
        "auth",
        "authRoles",
        "authUsers",
        "cluster",
        "key",
        "lease",
        "members",
        "members_removed",
        "meta",
    ];
    assert_eq!(names, expected);
    let compacted =
        "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x04_\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00";
    for (bucket, records) in [
        ("alarm", vec![("\\x08\\x05\\x10\\x01", "")]),
        ("auth", vec![("authRevision", "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01")]),
        ("authRoles", vec![]),
        ("cluster", vec![("clusterVersion", "3.7.0")]),
        (
            "lease",
            vec![(
                "E\\xbc\\xa2\\x05\\x04[\\x8d\\x08",
                "\\x08\\x88\\x9a\\xee\\xa2\\xd0\\xc0\\xa8\\xdeE\\x10\\xe8\\x07",
            )],
        ),
        (
            "members",
            vec![(
                "c3d2344b44aac5bc",
                r#"{\"id\":14110398080384419260,\"peerURLs\":[\"http://127.0.0.1:23501\"],\"name\":\"n1\",\"clientURLs\":[\"http://127.0.0.1:23500\"]}"#,
            )],
        ),
        ("members_removed", vec![("9aae723605e430f9", "removed")]),
        (
            "meta",
            vec![
                ("confState", r#"{\"voters\":[14110398080384419260],\"auto_leave\":false}"#),
                ("consistent_index", "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x0e"),
                ("finishedCompactRev", compacted),
                ("scheduledCompactRev", compacted),
                ("storageVersion", "3.7.0"),
                ("term", "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02"),
            ],
        ),
    ] {
        let written: Vec<(String, String)> = file.buckets[bucket]
            .entries
            .iter()
            .map(|(key, value)| (key.escape_ascii().to_string(), value.escape_ascii().to_string()))
            .collect();
        let records: Vec<(String, String)> =
            records.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        assert_eq!(written, records, "{bucket}");
    }
}
