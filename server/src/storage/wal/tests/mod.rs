//! What the log keeps, whatever happens to it.

mod crash;
mod damage;
mod etcd;
mod full;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::reader::{Next, SegmentReader};
use super::record::Chain;
use super::segment::Segment;
use super::*;
use crate::consensus::EntryKind;
use crate::storage::tests::test_fs::TestFs;

const METADATA: Metadata = Metadata { cluster_id: 0xc1, member_id: 0xa1 };
/// Eight bytes that no record has otherwise.
const STAMP: u64 = 0xfeed_beef_dead_c0de;
const SMALL: WalOptions = WalOptions { segment_bytes: 4096, segments_max: 3 };

fn dir() -> &'static Path {
    Path::new("/d/wal")
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    let data = (0..len).map(|at| (at as u8).wrapping_mul(31) | 1).collect::<Vec<_>>();
    let kind = if index.is_multiple_of(5) { EntryKind::ConfChange } else { EntryKind::Normal };
    Entry { index, term, kind, data: data.into() }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, 300)).collect()
}

fn state(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 0xa1, commit }
}

fn conf(voters: &[u64]) -> ConfState {
    ConfState { voters: voters.to_vec(), learners: vec![9] }
}

fn create(fs: &TestFs, options: WalOptions) -> Wal {
    let wal = Wal::create(fs.shared(), dir(), options, METADATA, STAMP).unwrap();
    fs.shared().sync_dir(Path::new("/d")).unwrap();
    wal
}

fn open(fs: &TestFs, from: u64) -> (Wal, WalContents) {
    Wal::open(fs.shared(), dir(), SMALL, from).unwrap()
}

fn segment_paths(fs: &TestFs) -> Vec<PathBuf> {
    Segment::list(&fs.shared(), dir()).unwrap().into_iter().map(|segment| segment.path).collect()
}

/// Where each record of a segment begins, and where the last one ends.
fn record_offsets(fs: &TestFs, path: &Path) -> Vec<usize> {
    let mut reader = SegmentReader::open(&fs.shared(), path).unwrap();
    let mut chain = Chain::default();
    let mut offsets = vec![0];
    while let Next::Record(_) = reader.next(&mut chain).unwrap() {
        offsets.push(usize::try_from(reader.offset()).unwrap());
    }
    offsets
}

#[test]
fn what_was_appended_is_read_back() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    wal.append(&entries(1..=4, 1), Some(&state(1, 2))).unwrap();
    wal.append_conf_state(2, 1, &conf(&[1, 2])).unwrap();
    wal.append(&[Entry { data: Bytes::new(), ..entry(5, 2, 0) }], Some(&state(2, 4))).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.last_index(), 5);
    drop(wal);
    let expected = WalContents {
        metadata: METADATA,
        hard_state: state(2, 4),
        conf_state: Some((2, conf(&[1, 2]))),
        snapshot: Position { index: 3, term: 1 },
        entries: vec![entry(4, 1, 300), entry(5, 2, 0)],
        torn_at: None,
    };
    assert_eq!(Wal::read(&fs.shared(), dir(), 3).unwrap(), expected);
    let (wal, contents) = open(&fs, 3);
    assert_eq!(contents, expected);
    assert_eq!(wal.metadata(), METADATA);
    let (_, all) = open(&fs, 0);
    assert_eq!(all.snapshot, Position::default());
    assert_eq!(all.entries.len(), 5);
}

#[test]
fn a_real_disk_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    let fs: SharedFs = std::sync::Arc::new(crate::storage::os_fs::OsFs);
    let mut wal = Wal::create(fs.clone(), &dir, SMALL, METADATA, STAMP).unwrap();
    for index in 1..=100 {
        wal.append(&[entry(index, 1, 300)], Some(&state(1, index))).unwrap();
        wal.sync().unwrap();
        wal.release(index).unwrap();
        wal.prepare_next().unwrap();
    }
    drop(wal);
    let (wal, contents) = Wal::open(fs, &dir, SMALL, 95).unwrap();
    assert_eq!(contents.entries, entries(96..=100, 1));
    assert_eq!(contents.hard_state, state(1, 100));
    let on_disk = |segment: &Segment| std::fs::metadata(&segment.path).unwrap().len();
    assert_eq!(wal.bytes(), wal.segments.iter().map(on_disk).sum::<u64>());
}

#[test]
fn the_bytes_are_those_of_etcd() {
    let fs = TestFs::default();
    let mut wal = create(&fs, WalOptions { segment_bytes: 512, ..SMALL });
    wal.append(&[entry(1, 2, 3)], Some(&state(2, 1))).unwrap();
    let bytes = fs.bytes(&segment_paths(&fs)[0]);
    // Written by hand from the format: word, type, crc, data, padding.
    let mut crc = 0;
    let mut expected = Vec::new();
    let stamp = STAMP.to_le_bytes();
    let records: [(u8, &[u8]); 6] = [
        (4, &stamp),
        (1, &[0x08, 0xa1, 0x01, 0x10, 0xc1, 0x01]),
        (5, &[0x08, 0, 0x10, 0]),
        // What is before it was synced.
        (4, &stamp),
        (2, &[0x08, 0, 0x10, 2, 0x18, 1, 0x22, 3, 1, 31, 63]),
        (3, &[0x08, 2, 0x10, 0xa1, 0x01, 0x18, 1]),
    ];
    for (kind, data) in records {
        if kind != 4 {
            crc = crc32c::crc32c_append(crc, data);
        }
        let mut record = vec![0x08, kind, 0x10];
        prost::encoding::encode_varint(crc.into(), &mut record);
        record.extend([0x1a, u8::try_from(data.len()).unwrap()]);
        record.extend(data);
        let padding = (8 - record.len() % 8) % 8;
        let flag = if padding == 0 { 0 } else { 0x80 | u8::try_from(padding).unwrap() };
        expected.extend([u8::try_from(record.len()).unwrap(), 0, 0, 0, 0, 0, 0, flag]);
        expected.extend(record);
        expected.resize(expected.len() + padding, 0);
    }
    expected.resize(512, 0);
    assert_eq!(bytes, expected);
}

#[test]
fn a_later_entry_replaces_those_from_its_index_on() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    wal.append(&entries(1..=30, 1), Some(&state(1, 3))).unwrap();
    wal.append(&entries(4..=6, 2), None).unwrap();
    assert_eq!(wal.last_index(), 6);
    // Rotation names the next segment by the log's end, not by the highest index ever written.
    wal.append(&entries(7..=20, 2), None).unwrap();
    wal.append(&entries(8..=8, 3), None).unwrap();
    wal.sync().unwrap();
    for from in 0..=3 {
        let (_, contents) = open(&fs, from);
        let expected: Vec<_> = [entries(1..=3, 1), entries(4..=7, 2), entries(8..=8, 3)].concat();
        assert_eq!(contents.entries, expected[usize::try_from(from).unwrap()..]);
    }
}

#[test]
fn an_installed_snapshot_replaces_the_log_and_stale_entries_do_not_return() {
    // Beyond the log, and inside it where the terms disagree.
    for index in [500, 4] {
        let fs = TestFs::default();
        let mut wal = create(&fs, SMALL);
        wal.append(&entries(1..=9, 1), Some(&state(1, 3))).unwrap();
        let position = Position { index, term: 7 };
        wal.append_snapshot(position, &conf(&[3])).unwrap();
        wal.append(&[], Some(&state(7, index))).unwrap();
        wal.sync().unwrap();
        assert_eq!(wal.last_index(), index);
        let (_, contents) = open(&fs, 3);
        assert_eq!((contents.snapshot, contents.entries), (position, vec![]));
        assert_eq!(contents.conf_state, Some((index, conf(&[3]))));
        let (mut wal, contents) = open(&fs, index);
        assert_eq!((contents.snapshot, contents.entries), (position, vec![]));
        wal.append(&entries(index + 1..=index + 30, 7), None).unwrap();
        wal.sync().unwrap();
        assert!(wal.segments() > 1);
        let (_, contents) = open(&fs, index + 20);
        assert_eq!(contents.snapshot, Position { index: index + 20, term: 7 });
        assert_eq!(contents.entries, entries(index + 21..=index + 30, 7));
    }
}

#[test]
fn hard_state_and_configuration_outlive_the_segments_they_were_written_to() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    wal.append(&entries(1..=2, 1), Some(&state(5, 2))).unwrap();
    wal.append_conf_state(2, 1, &conf(&[1, 2, 3])).unwrap();
    for index in 3..=200 {
        wal.append(&[entry(index, 5, 300)], None).unwrap();
        wal.release(index - 1).unwrap();
        if index % 20 == 0 {
            wal.prepare_next().unwrap();
        }
    }
    wal.sync().unwrap();
    assert_eq!(wal.segments(), SMALL.segments_max);
    assert_eq!(wal.bytes(), SMALL.segment_bytes * SMALL.segments_max as u64);
    let (_, contents) = open(&fs, 199);
    assert_eq!(contents.hard_state, state(5, 2));
    assert_eq!(contents.conf_state, Some((2, conf(&[1, 2, 3]))));
    assert_eq!(contents.snapshot, Position { index: 199, term: 5 });
    assert_eq!(contents.entries, [entry(200, 5, 300)]);
}

#[test]
fn needed_segments_are_never_released() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    wal.append(&entries(1..=1, 1), None).unwrap();
    for index in 2..=100 {
        wal.append(&[entry(index, 1, 300)], None).unwrap();
        wal.release(1).unwrap();
    }
    wal.sync().unwrap();
    assert!(wal.segments() > 2 * SMALL.segments_max);
    assert_eq!(open(&fs, 1).1.entries, entries(2..=100, 1));
    wal.release(50).unwrap();
    assert_eq!(open(&fs, 50).1.entries, entries(51..=100, 1));
    let keeps_all = WalOptions { segments_max: 0, ..SMALL };
    let (mut wal, _) = Wal::open(fs.shared(), dir(), keeps_all, 50).unwrap();
    let before = wal.segments();
    wal.release(100).unwrap();
    assert_eq!(wal.segments(), before);
}

#[test]
fn a_recycled_segment_holds_nothing_of_its_former_life() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    wal.append(&entries(1..=100, 1), None).unwrap();
    for index in 101..=160 {
        wal.append(&[entry(index, 1, 300)], None).unwrap();
    }
    wal.release(160).unwrap();
    let prepared = || {
        let names = fs.shared().read_dir(dir()).unwrap();
        let mut found = names.into_iter().filter(|name| name.extension().unwrap() == "prepare");
        let path = dir().join(found.next().unwrap());
        assert_eq!(found.next(), None);
        fs.bytes(&path)
    };
    assert!(prepared().iter().any(|byte| *byte != 0));
    let preparation = wal.preparation().unwrap();
    assert!(wal.preparation().is_none());
    let spare = preparation.run().unwrap();
    assert_eq!(prepared(), vec![0; 4096]);
    wal.adopt(Some(spare));
    assert!(wal.preparation().is_none());
    wal.append(&entries(161..=171, 1), None).unwrap();
    wal.append(&entries(172..=172, 1), None).unwrap();
    wal.sync().unwrap();
    assert_eq!(open(&fs, 160).1.entries, entries(161..=172, 1));
}

#[test]
fn a_batch_longer_than_a_segment_goes_into_several() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    wal.append_conf_state(0, 0, &conf(&[1, 2, 3])).unwrap();
    let written = wal.append(&entries(1..=100, 1), Some(&state(1, 1))).unwrap();
    assert!(written > 100 * 300);
    wal.sync().unwrap();
    assert!(wal.segments() > 7);
    for path in segment_paths(&fs) {
        // A start copies the last one: on a full disk into the space of the reserve.
        assert_eq!(fs.bytes(&path).len() as u64, SMALL.segment_bytes, "{}", path.display());
    }
    let (_, contents) = open(&fs, 0);
    assert_eq!(contents.entries, entries(1..=100, 1));
    assert_eq!(contents.hard_state, state(1, 1));
}

#[test]
fn an_entry_longer_than_a_segment_goes_into_one_of_its_own() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    let long = [entry(1, 1, 10_000), entry(2, 1, 9_000)];
    wal.append(&long, Some(&state(1, 1))).unwrap();
    assert_eq!(wal.segments(), 2);
    wal.append(&entries(3..=3, 1), None).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.segments(), 3);
    let (_, contents) = open(&fs, 0);
    assert_eq!(contents.entries, [&long[..], &entries(3..=3, 1)].concat());
}

#[test]
fn after_any_failure_the_log_takes_nothing_more() {
    let work = |wal: &mut Wal| -> Result<(), WalError> {
        for index in 1..=40 {
            wal.append(&[entry(index, 1, 300)], Some(&state(1, index)))?;
            wal.sync()?;
            wal.release(index)?;
        }
        Ok(())
    };
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    let before = fs.changes();
    work(&mut wal).unwrap();
    let changes = fs.changes() - before;
    assert!(changes > 80);
    for change in 1..=changes {
        let fs = TestFs::default();
        let mut wal = create(&fs, SMALL);
        fs.fail_at(fs.changes() + change, false);
        assert!(matches!(work(&mut wal), Err(WalError::Io { .. })), "{change}");
        let index = wal.last_index() + 1;
        assert!(matches!(
            wal.append(&entries(index..=index, 1), None),
            Err(WalError::Poisoned { .. })
        ));
        assert!(matches!(wal.sync(), Err(WalError::Poisoned { .. })));
        assert!(matches!(wal.release(1), Err(WalError::Poisoned { .. })));
    }
}

#[test]
fn a_failed_preparation_harms_nothing_and_may_be_repeated() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    fs.fail_at(fs.changes() + 3, false);
    assert!(matches!(wal.prepare_next(), Err(WalError::Io { .. })));
    let left = fs.shared().read_dir(dir()).unwrap();
    assert_eq!(left.len(), 1, "half a segment keeps no space from others: {left:?}");
    wal.prepare_next().unwrap();
    wal.append(&entries(1..=1, 1), None).unwrap();
    wal.sync().unwrap();
}

#[test]
fn folders_that_do_not_fit_are_refused_with_their_reason() {
    let fs = TestFs::default();
    assert!(!Wal::exists(&fs.shared(), dir()).unwrap());
    let refused = |fs: &TestFs, from| {
        Wal::open(fs.shared(), dir(), SMALL, from).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(&fs, 0).contains("no log in /d/wal"));
    let mut wal = create(&fs, SMALL);
    assert!(Wal::exists(&fs.shared(), dir()).unwrap());
    let again = Wal::create(fs.shared(), dir(), SMALL, METADATA, STAMP).map(|_| ()).unwrap_err();
    assert!(matches!(again, WalError::Present { .. }));
    wal.append(&entries(1..=100, 1), Some(&state(1, 100))).unwrap();
    assert!(refused(&fs, 101).contains("ends at index 100, but entries up to 101 were applied"));
    for index in 101..=160 {
        wal.append(&[entry(index, 1, 300)], None).unwrap();
    }
    wal.sync().unwrap();
    wal.release(150).unwrap();
    assert!(
        refused(&fs, 1).contains("does not reach back to index 1: its first segment begins at")
    );
    let paths = segment_paths(&fs);
    fs.shared().remove_file(&paths[1]).unwrap();
    assert!(refused(&fs, 150).contains("the segment before it is missing"));
    fs.shared().remove_file(&paths[2]).unwrap();
    assert!(refused(&fs, 150).contains("ends at index"));
}

#[test]
#[should_panic(expected = "entry 3 at 2")]
fn a_gap_in_what_is_appended_is_a_broken_invariant() {
    let mut wal = create(&TestFs::default(), SMALL);
    let _ = wal.append(&[entry(1, 1, 0), entry(3, 1, 0)], None);
}
