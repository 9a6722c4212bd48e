//! The state store under crashes, failures and random workloads.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::mvcc::{Revision, Row, RowKey, Rows, RowsError};
use crate::state_machine::{FlushBatch, Table, TableRow};
use crate::storage::tests::test_fs::{Failure, Survivors, TestFs};

mod refusals;

const PATH: &str = "member/state.redb";

fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        identity: Identity { cluster_id: 7, incarnation: 9 },
        create: true,
        generation: 3,
    }
}

fn open(fs: &TestFs) -> Opened {
    StateStore::open(fs.shared(), Path::new(PATH), &options()).unwrap()
}

fn row(main: i64, size: usize) -> Row {
    let fill = u8::try_from(main % 251).unwrap();
    Row {
        key: RowKey::new(Revision::new(main, 0), main % 7 == 0),
        stored: Bytes::from(vec![fill; size]),
    }
}

/// What a store must hold after a batch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    applied_index: u64,
    revision: i64,
    rows: BTreeMap<Vec<u8>, Bytes>,
    tables: BTreeMap<(Table, Bytes), Bytes>,
}

impl Model {
    fn flush(&mut self, batch: &FlushBatch) {
        self.applied_index = batch.applied_index;
        self.revision = batch.revision;
        for row in &batch.rows {
            self.rows.insert(row.key.as_bytes().to_vec(), row.stored.clone());
        }
        for key in &batch.deletions {
            self.rows.remove(key.as_bytes());
        }
        for record in &batch.tables {
            let key = (record.table, record.key.clone());
            match &record.value {
                Some(value) => drop(self.tables.insert(key, value.clone())),
                None => drop(self.tables.remove(&key)),
            }
        }
    }

    fn read(opened: &Opened) -> Self {
        let mut rows = Vec::new();
        let reader = opened.store.reader();
        reader.scan(Revision::default(), usize::MAX, &mut rows).unwrap();
        Self {
            applied_index: opened.applied_index,
            revision: opened.revision,
            rows: rows.into_iter().map(|row| (row.key.as_bytes().to_vec(), row.stored)).collect(),
            tables: opened
                .tables
                .iter()
                .map(|row| ((row.table, row.key.clone()), row.value.clone().unwrap()))
                .collect(),
        }
    }
}

/// Batch `number` of a history that adds ten rows and deletes some of what is older.
fn batch(number: u64) -> FlushBatch {
    let first = i64::try_from(number).unwrap() * 10 - 8;
    let deletions = (first - 40..first - 20)
        .filter(|main| *main > 1 && main % 4 != 0)
        .map(|main| row(main, 0).key)
        .collect();
    let name = Bytes::from(format!("key{}", number % 3));
    let value = (!number.is_multiple_of(4)).then(|| Bytes::from(number.to_string()));
    FlushBatch {
        generation: 3,
        rows: (first..first + 10)
            .map(|main| row(main, 40 + main.unsigned_abs() as usize))
            .collect(),
        deletions,
        tables: vec![
            TableRow { table: Table::Meta, key: name.clone(), value: value.clone() },
            TableRow { table: Table::Members, key: name, value: Some(Bytes::from_static(b"m")) },
        ],
        applied_index: number * 11,
        revision: first + 9,
    }
}

fn rewrite(store: &mut StateStore, rows_max: usize) -> Result<RewriteReport, RewriteError> {
    let mut rewrite = Rewrite::begin(store)?;
    while rewrite.step(store, rows_max)? == RewriteProgress::More {}
    rewrite.finish(store)
}

/// Flushes, rewrites with flushes between the steps, closes, reopens; marks each batch as it is
/// acknowledged.
fn workload(fs: &TestFs, acknowledged: &mut u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut store = StateStore::open(fs.shared(), Path::new(PATH), &options())?.store;
    let mut flush = |store: &mut StateStore, number: u64| -> Result<(), FlushError> {
        store.begin_flush(batch(number))?;
        while store.step_flush(4)? == FlushProgress::More {}
        *acknowledged = number;
        fs.mark(number);
        Ok(())
    };
    for number in 1..=6 {
        flush(&mut store, number)?;
    }
    let mut rewrite = Rewrite::begin(&mut store)?;
    for number in 7..=9 {
        rewrite.step(&store, 11)?;
        flush(&mut store, number)?;
    }
    rewrite.finish(&mut store)?;
    flush(&mut store, 10)?;
    store.close()?;
    let mut store = StateStore::open(fs.shared(), Path::new(PATH), &options())?.store;
    flush(&mut store, 11)?;
    store.close()?;
    Ok(())
}

fn models() -> Vec<Model> {
    let mut model = Model { revision: 1, ..Model::default() };
    let mut models = vec![model.clone()];
    for number in 1..=11 {
        model.flush(&batch(number));
        models.push(model.clone());
    }
    models
}

/// The store holds exactly one batch's state, at or after the acknowledged one.
fn check(opened: &Opened, models: &[Model], acknowledged: u64, context: &str) {
    let number = opened.applied_index / 11;
    assert!(number >= acknowledged, "{context}: batch {acknowledged} lost, found {number}");
    assert_eq!(Model::read(opened), models[usize::try_from(number).unwrap()], "{context}");
}

#[test]
fn a_crash_before_any_change_leaves_a_whole_batch_at_or_after_the_acknowledged_one() {
    let models = models();
    let fs = TestFs::recording("member");
    workload(&fs, &mut 0).unwrap();
    type Choice = fn(u64) -> Survivors;
    let choices: [Choice; 4] = [
        |_| Survivors::None,
        |_| Survivors::All,
        |cut| Survivors::Some(cut * 977 + 1),
        |cut| Survivors::Some(cut * 7919 + 2),
    ];
    for (choice, survivors) in choices.into_iter().enumerate() {
        let fs = TestFs::recording("member");
        workload(&fs, &mut 0).unwrap();
        fs.cuts(survivors, |cut, acknowledged, left| {
            let context = format!("cut {cut} of choice {choice}");
            let mut opened = open(left);
            assert!(!opened.repaired, "{context}: the whole file was read");
            check(&opened, &models, acknowledged, &context);
            let next = opened.applied_index / 11 + 1;
            if next <= 11 {
                opened.store.flush(batch(next)).unwrap();
            }
        });
    }
}

#[test]
fn a_call_that_fails_ends_the_store_with_an_error_and_loses_nothing_acknowledged() {
    let models = models();
    let fs = TestFs::recording("member");
    workload(&fs, &mut 0).unwrap();
    let calls = fs.calls();
    for (kind, lasts) in [(ErrorKind::Other, false), (ErrorKind::StorageFull, true)] {
        for call in 0..calls {
            let context = format!("{kind:?} at call {call}");
            let fs = TestFs::recording("member");
            fs.fail(Failure { call, kind, lasts });
            let mut acknowledged = 0;
            let result = workload(&fs, &mut acknowledged);
            // A failure may hit a cleanup, or a write that redb can do without.
            assert!(result.is_err() || acknowledged == 11, "{context}");
            fs.heal();
            check(&open(&fs), &models, acknowledged, &context);
        }
    }
}

#[test]
fn after_a_failure_every_call_fails() {
    let fs = TestFs::recording("member");
    let mut opened = open(&fs);
    opened.store.flush(batch(1)).unwrap();
    fs.fail(Failure { call: fs.calls() + 2, kind: ErrorKind::Other, lasts: false });
    let error = opened.store.flush(batch(2)).unwrap_err();
    assert!(matches!(error, FlushError::Failed { .. }), "{error}");
    assert!(error.to_string().contains(PATH), "{error}");
    fs.heal();
    assert!(matches!(opened.store.flush(batch(2)), Err(FlushError::Failed { .. })));
    let scanned = opened.store.reader().scan(Revision::default(), 10, &mut Vec::new());
    assert!(matches!(scanned, Err(RowsError::Io(_))));
    assert!(Rewrite::begin(&mut opened.store).and_then(|mut r| r.step(&opened.store, 1)).is_err());
    drop(opened);
    check(&open(&fs), &models(), 1, "reopened");
}

#[test]
fn a_full_disk_during_a_rewrite_gives_it_up_and_the_store_goes_on() {
    let fs = TestFs::recording("member");
    let mut opened = open(&fs);
    for number in 1..=6 {
        opened.store.flush(batch(number)).unwrap();
    }
    for skip in 0..8 {
        let kind = ErrorKind::StorageFull;
        fs.fail(Failure { call: fs.calls() + skip * 5, kind, lasts: true });
        let error = rewrite(&mut opened.store, 10).unwrap_err();
        let RewriteError::Copy { fault, .. } = &error else { panic!("{error}") };
        assert!(fault.is_storage_full() || matches!(fault, Fault::Earlier), "{error}");
        fs.heal();
        assert_eq!(fs.file(Path::new("member/state.redb.part")), None, "the copy is removed");
    }
    opened.store.flush(batch(7)).unwrap();
    rewrite(&mut opened.store, 10).unwrap();
    drop(opened);
    check(&open(&fs), &models(), 7, "reopened");
}

#[test]
fn a_rewrite_ends_before_it_makes_the_file_system_low() {
    let fs = TestFs::recording("member");
    let mut opened = open(&fs);
    for number in 1..=6 {
        opened.store.flush(batch(number)).unwrap();
    }
    // Of this file system 512 MiB are kept, and 64 beside the copy.
    fs.say_free(600 << 20);
    let mut rewrite = Rewrite::begin(&mut opened.store).unwrap();
    rewrite.step(&opened.store, 1).unwrap();
    fs.say_free(570 << 20);
    let given_up = rewrite.step(&opened.store, 1).unwrap_err();
    assert!(matches!(given_up, RewriteError::NoRoom { .. }), "{given_up}");
    drop(rewrite);
    assert_eq!(fs.file(Path::new("member/state.redb.part")), None, "the copy is removed");
    let refused = Rewrite::begin(&mut opened.store).map(|_| ()).unwrap_err();
    assert!(matches!(refused, RewriteError::NoRoom { .. }), "{refused}");
    // What is low already is made no lower, and this is how to mend it.
    fs.say_free(500 << 20);
    super::tests::rewrite(&mut opened.store, 10).unwrap();
    drop(opened);
    check(&self::open(&fs), &models(), 6, "reopened");
}

#[test]
fn the_same_calls_write_the_same_bytes_in_the_same_order() {
    let digests: Vec<u32> = (0..2)
        .map(|_| {
            let fs = TestFs::recording("member");
            workload(&fs, &mut 0).unwrap();
            fs.digest()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_batch_that_does_not_follow_is_refused_and_changes_nothing() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    store.flush(batch(1)).unwrap();
    store.flush(batch(2)).unwrap();
    let refusal = |store: &mut StateStore, batch: FlushBatch| match store.flush(batch) {
        Err(FlushError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    let again = batch(2);
    assert_eq!(refusal(&mut store, batch(1)), Refusal::AppliedIndex { batch: 11, stored: 22 });
    assert_eq!(refusal(&mut store, again.clone()), Refusal::Row(again.rows[0].key));
    let older = FlushBatch { revision: 20, rows: Vec::new(), ..batch(3) };
    assert_eq!(refusal(&mut store, older), Refusal::Revision { batch: 20, stored: 21 });
    let foreign = FlushBatch { generation: 4, ..batch(3) };
    assert_eq!(refusal(&mut store, foreign), Refusal::Generation { batch: 4, stored: 3 });
    let mut swapped = batch(3);
    swapped.rows.swap(3, 4);
    assert_eq!(refusal(&mut store, swapped), Refusal::Row(batch(3).rows[3].key));
    let beyond = FlushBatch { revision: 30, ..batch(3) };
    assert_eq!(refusal(&mut store, beyond), Refusal::Row(batch(3).rows[9].key));
    store.begin_flush(batch(3)).unwrap();
    assert!(matches!(
        store.begin_flush(batch(3)),
        Err(FlushError::Refused { refusal: Refusal::Busy, .. })
    ));
    while store.step_flush(1).unwrap() == FlushProgress::More {}
    let empty =
        FlushBatch { generation: 3, applied_index: 33, revision: 31, ..FlushBatch::default() };
    let report = store.flush(empty).unwrap();
    assert_eq!((report.rows, report.bytes, report.applied_index), (0, 0, 33));
    store.close().unwrap();
    check(&open(&fs), &models(), 3, "reopened");
}

#[test]
fn a_reader_sees_every_row_while_the_file_is_rewritten() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    for number in 1..=12 {
        store.flush(FlushBatch { deletions: Vec::new(), ..batch(number) }).unwrap();
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, stop) = (store.reader(), stop.clone());
            std::thread::spawn(move || {
                let mut reads = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || reads == 0 {
                    let mut rows = Vec::new();
                    reader.scan(Revision::default(), 120, &mut rows).unwrap();
                    assert_eq!(rows.len(), 120);
                    let puts: Vec<Revision> = rows
                        .iter()
                        .filter(|row| !row.key.is_tombstone())
                        .map(|row| row.key.revision())
                        .collect();
                    let mut found = Vec::new();
                    reader.get_many(&puts, &mut found).unwrap();
                    assert_eq!(found.len(), puts.len());
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for number in 13..=16 {
        let mut rewrite = Rewrite::begin(&mut store).unwrap();
        rewrite.step(&store, 50).unwrap();
        store.flush(FlushBatch { deletions: Vec::new(), ..batch(number) }).unwrap();
        rewrite.finish(&mut store).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert!(store.reader().point_reads() > 0);
    store.flush(batch(17)).unwrap();
    assert!(store.retired.is_empty(), "replaced files are closed once nobody reads them");
}

#[test]
fn a_rewrite_gives_back_what_was_deleted_and_refuses_a_second_one() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    let rows: Vec<Row> = (2..6002).map(|main| row(main, 300)).collect();
    let deletions = rows[..5400].iter().map(|row| row.key).collect();
    let add = FlushBatch {
        generation: 3,
        rows,
        applied_index: 1,
        revision: 6001,
        ..FlushBatch::default()
    };
    let delete = FlushBatch {
        rows: Vec::new(),
        deletions,
        applied_index: 2,
        revision: 6001,
        generation: 3,
        tables: Vec::new(),
    };
    store.flush(add).unwrap();
    let full = store.space();
    assert!(full.live_bytes * 10 > full.disk_bytes * 8, "{full:?}");
    store.flush(delete).unwrap();
    let space = store.space();
    assert!(space.live_bytes * 9 < full.live_bytes, "{space:?} after {full:?}");
    assert!(space.free_bytes * 10 > space.disk_bytes * 8, "{space:?}");
    let first = Rewrite::begin(&mut store).unwrap();
    assert!(matches!(Rewrite::begin(&mut store), Err(RewriteError::Busy { .. })));
    drop(first);
    let report = rewrite(&mut store, 100).unwrap();
    assert_eq!(report.rows, 600);
    assert!(report.file_bytes * 5 < report.file_bytes_before, "{report:?}");
    assert_eq!(store.space().file_bytes, report.file_bytes);
    let first = store.space();
    store
        .flush(FlushBatch {
            generation: 3,
            applied_index: 3,
            revision: 6001,
            ..FlushBatch::default()
        })
        .unwrap();
    drop(store);
    assert_eq!(open(&fs).store.space().live_bytes, first.live_bytes);
}

/// Found by seed 2744 of the simulator: a key came back to life after a compaction, a rewrite and a
/// restart. Each flush deletes in ascending order, but what two flushes deleted between two steps was
/// handed on as one list; where that went back, rows were left in the copy, without their tombstones.
#[test]
fn a_rewrite_hears_of_the_deletions_of_several_flushes() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    let rows: Vec<Row> = (2..202).map(|main| row(main, 100)).collect();
    let flush = |store: &mut StateStore, rows: Vec<Row>, deleted: Vec<i64>, applied_index| {
        let deletions = deleted.into_iter().map(|main| row(main, 0).key).collect();
        let batch = FlushBatch { rows, deletions, applied_index, ..batch(1) };
        store.flush(FlushBatch { tables: Vec::new(), revision: 201, ..batch }).unwrap();
    };
    flush(&mut store, rows, Vec::new(), 20);
    let mut rewrite = Rewrite::begin(&mut store).unwrap();
    while rewrite.step(&store, 1000).unwrap() == RewriteProgress::More {}
    flush(&mut store, Vec::new(), (2..150).filter(|main| main % 2 == 0).collect(), 21);
    flush(&mut store, Vec::new(), (2..160).filter(|main| main % 2 == 1).collect(), 22);
    assert_eq!(rewrite.finish(&mut store).unwrap().rows, 200 - 74 - 79);
}

#[test]
fn a_step_over_big_rows_is_bounded_in_bytes() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    let rows = (2..12).map(|main| row(main, 1_500_000)).collect();
    let add =
        FlushBatch { generation: 3, rows, applied_index: 1, revision: 11, ..FlushBatch::default() };
    store.flush(add).unwrap();
    let mut rewrite = Rewrite::begin(&mut store).unwrap();
    let mut steps = 1;
    while rewrite.step(&store, 1000).unwrap() == RewriteProgress::More {
        steps += 1;
    }
    assert_eq!(steps, 4, "ten rows of 1.5 MB in steps of 4 MiB");
    assert_eq!(rewrite.finish(&mut store).unwrap().rows, 10);
}

#[test]
fn a_rewrite_is_worth_it_above_half_and_the_least() {
    let space = |disk_bytes, free_bytes| StoreSpace {
        file_bytes: 1 << 40,
        disk_bytes,
        live_bytes: 0,
        free_bytes,
    };
    assert!(!space(300 << 20, 256 << 20).is_worth_a_rewrite(false));
    assert!(space(300 << 20, 257 << 20).is_worth_a_rewrite(false));
    assert!(!space(600 << 20, 300 << 20).is_worth_a_rewrite(false));
    assert!(!space(20 << 20, 16 << 20).is_worth_a_rewrite(true));
    assert!(space(20 << 20, 17 << 20).is_worth_a_rewrite(true));
    assert!(!space(40 << 20, 20 << 20).is_worth_a_rewrite(true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Rows of any spacing are found by search and by walk, in the order asked for, and deleting any
    /// of them leaves the others.
    #[test]
    fn reads_and_deletions_agree_with_a_map(
        gaps in prop::collection::vec(1i64..6, 1..200),
        wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        deleted in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
        rewrites in any::<bool>(),
    ) {
        let fs = TestFs::recording("member");
        let mut store = open(&fs).store;
        let mut main = 1;
        let rows: Vec<Row> = gaps.iter().map(|gap| { main += gap; row(main, 20) }).collect();
        let add = FlushBatch {
            generation: 3, rows: rows.clone(), applied_index: 1, revision: main, ..FlushBatch::default()
        };
        store.flush(add).unwrap();
        let mut kept: BTreeMap<RowKey, Bytes> =
            rows.iter().map(|row| (row.key, row.stored.clone())).collect();
        let mut deletions: Vec<RowKey> = deleted.iter().map(|index| index.get(&rows).key).collect();
        deletions.sort();
        deletions.dedup();
        kept.retain(|key, _| !deletions.contains(key));
        let delete = FlushBatch {
            generation: 3, deletions, applied_index: 2, revision: main, ..FlushBatch::default()
        };
        store.flush(delete.clone()).unwrap();
        // Once more, as after a crash between the flush and its acknowledgement.
        store.flush(delete).unwrap();
        if rewrites {
            rewrite(&mut store, 17).unwrap();
        }
        let cost: u64 = kept.iter().map(|(key, stored)| tables::row_cost_bytes(key, stored.len())).sum();
        prop_assert_eq!(store.header.live_bytes, cost);

        let reader = store.reader();
        let mut scanned = Vec::new();
        reader.scan(Revision::default(), 1000, &mut scanned).unwrap();
        let scanned: BTreeMap<RowKey, Bytes> =
            scanned.into_iter().map(|row| (row.key, row.stored)).collect();
        prop_assert_eq!(&scanned, &kept);

        let asked: Vec<Revision> = wanted.iter().map(|index| index.get(&rows).key.revision()).collect();
        let found: Vec<Option<Bytes>> = asked
            .iter()
            .map(|revision| kept.get(&RowKey::new(*revision, false)).cloned())
            .collect();
        let present: Vec<Revision> = asked
            .iter()
            .zip(&found)
            .filter_map(|(revision, found)| found.as_ref().map(|_| *revision))
            .collect();
        let mut out = vec![Bytes::from_static(b"before")];
        reader.get_many(&present, &mut out).unwrap();
        prop_assert_eq!(&out[1..], &found.iter().flatten().cloned().collect::<Vec<_>>()[..]);
        let all = reader.get_many(&asked, &mut Vec::new());
        prop_assert_eq!(all.is_ok(), present.len() == asked.len());
    }
}
