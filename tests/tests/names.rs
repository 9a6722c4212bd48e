//! Names that a killed process left in memory only: the next one has to make them durable.
//!
//! Found by the simulator: after a kill in the middle of a creation or of a rewrite, all went well until
//! the power was cut. Then seeds 1029 and 1452 had lost the whole data dir, and seed 823 had its state
//! store from before the rewrite back, behind a log that was trimmed for the one after it.

use std::path::{Path, PathBuf};

use quorate_server::mvcc::Limits;
use quorate_server::runtime::{Progress, RecoverError, Report, Setup, recover};
use quorate_server::state_machine::{FlushBatch, Member};
use quorate_server::storage::data_dir::MadeWith;
use quorate_server::storage::state::{
    Identity, Rewrite, RewriteProgress, StateStore, StoreOptions,
};
use quorate_server::storage::wal::WalOptions;
use quorate_tests::sim::fs::{DiskFault, SimFs};

/// Ways to lose what was not synced.
const WAYS: u64 = 6;

fn start(disk: &SimFs) -> Result<Report, RecoverError> {
    let member = Member { id: 1, name: "one".into(), ..Member::default() };
    let setup = Setup {
        fs: disk.shared(),
        data_dir: PathBuf::from("a/b/data"),
        wal_dir: None,
        cluster_id: 7,
        initial_members: vec![member.clone()],
        member,
        made_with: MadeWith::default(),
        incarnation: 9,
        may_create: true,
        wal: WalOptions { segment_bytes: 8192, segments_max: 2 },
        cache_bytes: 1 << 20,
        limits: Limits { window_bytes_max: 1000 },
    };
    recover(&setup, &Progress::default()).map(|recovered| recovered.report)
}

#[test]
fn a_data_dir_survives_a_power_cut_although_an_earlier_start_was_killed_anywhere() {
    let whole = SimFs::new(1);
    start(&whole).unwrap();
    for operation in 1..=whole.changes_total() {
        for way in 0..WAYS {
            let disk = SimFs::new(1);
            disk.fail_at(operation, DiskFault::Kill);
            // One that was killed after its last word has started.
            let _ = start(&disk);
            disk.kill();
            start(&disk).unwrap();
            disk.crash(way);
            assert!(!start(&disk).unwrap().created, "killed at {operation}, way {way}");
        }
    }
}

fn open(disk: &SimFs) -> StateStore {
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        identity: Identity { cluster_id: 7, incarnation: 9 },
        create: true,
        generation: 1,
    };
    StateStore::open(disk.shared(), Path::new("state.redb"), &options)
        .expect("the disk works")
        .store
}

fn flush(store: &mut StateStore, applied_index: u64) {
    let batch = FlushBatch { generation: 1, applied_index, revision: 1, ..FlushBatch::default() };
    store.flush(batch).expect("the disk works");
}

fn rewrite(store: &mut StateStore) -> bool {
    let Ok(mut rewrite) = Rewrite::begin(store) else { return false };
    loop {
        match rewrite.step(store, 100) {
            Ok(RewriteProgress::More) => {}
            Ok(RewriteProgress::CaughtUp) => return rewrite.finish(store).is_ok(),
            Err(_) => return false,
        }
    }
}

#[test]
fn a_flush_survives_a_power_cut_although_a_rewrite_before_it_was_killed_anywhere() {
    let mut offset = 0;
    loop {
        offset += 1;
        for way in 0..WAYS {
            let disk = SimFs::new(1);
            let mut store = open(&disk);
            flush(&mut store, 1);
            disk.fail_at(disk.changes_total() + offset, DiskFault::Kill);
            if rewrite(&mut store) && !disk.is_down() {
                return assert!(offset > 5, "a rewrite of {offset} operations");
            }
            disk.kill();
            drop(store);
            let mut store = open(&disk);
            flush(&mut store, 2);
            disk.crash(way);
            drop(store);
            assert_eq!(open(&disk).applied_index(), 2, "killed at {offset}, way {way}");
        }
    }
}
