//! What the log does with a disk that is full, or small.

use std::io::ErrorKind;

use super::*;
use crate::storage::tests::test_fs::Failure;

/// A log of many segments, synced.
fn long_log(fs: &TestFs) -> Wal {
    let mut wal = create(fs, WalOptions { segments_max: 0, ..SMALL });
    for index in 1..=100 {
        wal.append(&[entry(index, 1, 300)], None).unwrap();
    }
    wal.sync().unwrap();
    assert!(wal.segments() > 8);
    wal
}

fn names(fs: &TestFs) -> Vec<PathBuf> {
    fs.shared().read_dir(dir()).unwrap()
}

#[test]
fn a_segment_that_the_disk_has_no_room_for_is_not_begun() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    fs.say_free(SMALL.segment_bytes - 1);
    let before = fs.changes();
    let error = wal.prepare_next().unwrap_err();
    assert!(error.is_storage_full(), "{error}");
    assert!(fs.changes() <= before + 2, "the file is created and removed, not filled");
    assert_eq!(names(&fs).len(), 1);
    fs.say_free(SMALL.segment_bytes);
    wal.prepare_next().unwrap();
}

#[test]
fn a_released_segment_becomes_the_next_one_on_a_full_disk() {
    let fs = TestFs::default();
    let mut wal = long_log(&fs);
    fs.say_free(0);
    wal.release_all(100).unwrap();
    wal.prepare_next().unwrap();
    wal.append(&entries(101..=110, 1), None).unwrap();
    wal.sync().unwrap();
    assert_eq!(open(&fs, 100).1.entries, entries(101..=110, 1));
}

#[test]
fn a_full_disk_gets_every_segment_that_nobody_needs() {
    let fs = TestFs::default();
    let mut wal = long_log(&fs);
    wal.release(100).unwrap();
    assert!(wal.segments() > 8, "usually all are kept");
    wal.release_all(50).unwrap();
    assert_eq!(open(&fs, 50).1.entries, entries(51..=100, 1));
    let (mut wal, _) = open(&fs, 50);
    wal.release_all(100).unwrap();
    assert_eq!(wal.segments(), 1);
    // The other one is the next segment.
    assert_eq!(names(&fs).len(), 2);
}

#[test]
fn a_start_without_room_for_its_copy_gives_up_what_is_flushed() {
    let mut given_up = 0;
    for (fs, before) in starts_on_a_full_disk(false) {
        let opened = Wal::open(fs.shared(), dir(), SMALL, 50);
        fs.heal();
        if let Ok((wal, contents)) = opened {
            assert_eq!(contents.entries, entries(51..=100, 1));
            assert_eq!(names(&fs).len(), wal.segments(), "nothing else is left");
            given_up += u32::from(wal.segments() < before.len());
        }
        assert_eq!(open(&fs, 50).1.entries, entries(51..=100, 1));
    }
    assert!(given_up > 3, "{given_up}");
}

#[test]
fn a_start_that_finds_no_room_leaves_nothing_behind() {
    let mut refused = 0;
    for (fs, before) in starts_on_a_full_disk(true) {
        let Err(error) = Wal::open(fs.shared(), dir(), SMALL, 0) else { continue };
        assert!(error.is_storage_full(), "{error}");
        assert_eq!(names(&fs), before);
        fs.heal();
        assert_eq!(open(&fs, 0).1.entries, entries(1..=100, 1));
        refused += 1;
    }
    assert!(refused > 3, "{refused}");
}

/// A log, with its files, on disks that are full from one call of a start on, or `lasts` not.
fn starts_on_a_full_disk(lasts: bool) -> impl Iterator<Item = (TestFs, Vec<PathBuf>)> {
    let calls_of_a_start = {
        let fs = TestFs::default();
        drop(long_log(&fs));
        let before = fs.calls();
        drop(open(&fs, 0));
        fs.calls() - before
    };
    (0..calls_of_a_start).map(move |call| {
        let fs = TestFs::default();
        drop(long_log(&fs));
        let before = names(&fs);
        let (call, kind) = (fs.calls() + call, ErrorKind::StorageFull);
        fs.fail(Failure { call, kind, lasts });
        (fs, before)
    })
}

#[test]
fn a_small_disk_has_small_segments() {
    let options = WalOptions { segment_bytes: 64 << 20, segments_max: 3 };
    for (total_mib, segment_mib) in [(1 << 20, 64), (1 << 10, 64), (512, 32), (200, 12), (8, 1)] {
        let fs = TestFs::default();
        fs.say_total(total_mib << 20);
        let wal = create(&fs, options);
        assert_eq!(wal.segment_bytes() >> 20, segment_mib, "{total_mib} MiB");
        assert_eq!(fs.bytes(&segment_paths(&fs)[0]).len() as u64, wal.segment_bytes());
        drop(wal);
        let (wal, _) = Wal::open(fs.shared(), dir(), options, 0).unwrap();
        assert_eq!(wal.segment_bytes() >> 20, segment_mib);
    }
}
