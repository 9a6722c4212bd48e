//! Checkpoints that are whole, torn, foreign, or ahead of their store.

use std::path::Path;

use super::*;
use crate::storage::tests::test_fs::{Failure, Survivors, TestFs};

const FOLDER: &str = "index";
const WANTED: Wanted = Wanted { cluster_id: 5, generation: 3, revision_max: 100 };

fn head(flushed_revision: i64) -> CheckpointHead {
    CheckpointHead { flushed_revision, compact_revision: -1, generation: 3, cluster_id: 5 }
}

fn content(revision: i64) -> Vec<Vec<u8>> {
    let size = usize::try_from(revision).unwrap();
    vec![vec![1; 10 + size], vec![2; 700], vec![3]]
}

fn write(fs: &TestFs, head: CheckpointHead) -> Result<CheckpointReport, CheckpointError> {
    let mut writer = CheckpointWriter::begin(fs.shared(), Path::new(FOLDER), head)?;
    for chunk in content(head.flushed_revision) {
        writer.chunk(&chunk)?;
    }
    writer.finish()
}

/// The revision and chunks of what is loaded, and the reasons against the others.
fn load(fs: &TestFs, wanted: Wanted) -> (Option<i64>, Vec<String>) {
    let loaded = load_newest(&fs.shared(), Path::new(FOLDER), wanted).unwrap();
    let reasons = loaded.rejected.iter().map(|rejected| rejected.reason.to_string()).collect();
    let revision = loaded.reader.map(|reader| {
        let revision = reader.head().flushed_revision;
        let chunks: Vec<Vec<u8>> = reader.map(|chunk| chunk.unwrap().to_vec()).collect();
        assert_eq!(chunks, content(revision));
        revision
    });
    (revision, reasons)
}

fn names(fs: &TestFs) -> Vec<String> {
    let names = fs.shared().read_dir(Path::new(FOLDER)).unwrap();
    names.iter().map(|name| name.to_str().unwrap().to_owned()).collect()
}

#[test]
fn the_newest_that_is_not_ahead_is_loaded_and_two_are_kept() {
    let fs = TestFs::recording("index");
    assert_eq!(load(&fs, WANTED), (None, vec![]));
    for revision in [10, 20, 30] {
        write(&fs, head(revision)).unwrap();
    }
    assert_eq!(
        names(&fs),
        ["0000000000000014-0000000000000003.idx", "000000000000001e-0000000000000003.idx"]
    );
    assert_eq!(load(&fs, WANTED), (Some(30), vec![]));
    let behind = Wanted { revision_max: 29, ..WANTED };
    let ahead = "revision 30 is ahead of the state store at 29".to_owned();
    assert_eq!(load(&fs, behind), (Some(20), vec![ahead]));
    // It must not come back when the store, with another history, has passed it.
    assert_eq!(load(&fs, WANTED), (Some(20), vec![]));
}

#[test]
fn a_checkpoint_of_another_store_is_never_used() {
    for other in [
        CheckpointHead { generation: 2, ..head(10) },
        CheckpointHead { generation: 4, ..head(10) },
        CheckpointHead { cluster_id: 6, ..head(10) },
    ] {
        let fs = TestFs::recording("index");
        let written = write(&fs, other).unwrap();
        assert_eq!(load(&fs, WANTED), (None, vec!["it belongs to another store".to_owned()]));
        assert_eq!(fs.file(&written.path), None);
    }
    let fs = TestFs::recording("index");
    let written = write(&fs, head(10)).unwrap();
    let renamed = Path::new(FOLDER).join(name(11, 3));
    fs.put(&renamed, &fs.bytes(&written.path));
    assert_eq!(load(&fs, WANTED), (Some(10), vec!["it belongs to another store".to_owned()]));
}

#[test]
fn a_file_torn_or_changed_at_any_byte_is_rejected_and_the_older_one_used() {
    let fs = TestFs::recording("index");
    let old = write(&fs, head(10)).unwrap();
    let new = write(&fs, head(20)).unwrap();
    let (old_bytes, new_bytes) = (fs.file(&old.path).unwrap(), fs.file(&new.path).unwrap());
    assert_eq!(new_bytes.len() as u64, new.bytes);
    let cuts = (0..new_bytes.len()).map(|len| new_bytes[..len].to_vec());
    let flips = (0..new_bytes.len()).map(|at| {
        let mut bytes = new_bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let longer = [&[1][..], &[0; 8], &[0; 5000]].map(|tail| [&new_bytes, tail].concat());
    for (case, bytes) in cuts.chain(flips).chain(longer).enumerate() {
        let fs = TestFs::recording("index");
        fs.put(&old.path, &old_bytes);
        fs.put(&new.path, &bytes);
        let (revision, reasons) = load(&fs, WANTED);
        assert_eq!((revision, reasons.len()), (Some(10), 1), "case {case}: {reasons:?}");
    }
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    let fs = TestFs::recording("index");
    let written = write(&fs, head(10)).unwrap();
    let mut bytes = fs.file(&written.path).unwrap();
    bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    fs.put(&written.path, &bytes);
    let torn = format!("it ends at the wrong place, near byte {HEADER_BYTES}");
    assert_eq!(load(&fs, WANTED), (None, vec![torn]));
}

#[test]
fn files_that_are_not_ours_stay_and_leftovers_go() {
    let fs = TestFs::recording("index");
    let foreign = ["index/readme", "index/1e-3.idx", "index/000000000000001E-0000000000000003.idx"];
    for path in foreign {
        fs.put(Path::new(path), b"x");
    }
    fs.put(Path::new("index/000000000000001e-0000000000000003.idx.part"), b"");
    write(&fs, head(10)).unwrap();
    assert_eq!(load(&fs, WANTED), (Some(10), vec![]));
    assert_eq!(names(&fs).len(), foreign.len() + 1);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let fs = TestFs::recording("index");
    let mut writer = CheckpointWriter::begin(fs.shared(), Path::new(FOLDER), head(10)).unwrap();
    writer.chunk(b"x").unwrap();
    drop(writer);
    assert!(names(&fs).is_empty());
}

#[test]
fn a_crash_before_any_change_leaves_the_newest_acknowledged_or_a_newer_one() {
    type Choice = fn(u64) -> Survivors;
    let choices: [Choice; 3] =
        [|_| Survivors::None, |_| Survivors::All, |cut| Survivors::Some(cut * 977 + 1)];
    for survivors in choices {
        let fs = TestFs::recording("index");
        for revision in [10, 20, 30, 40] {
            write(&fs, head(revision)).unwrap();
            fs.mark(revision.unsigned_abs());
        }
        fs.cuts(survivors, |cut, acknowledged, left| {
            let (revision, reasons) = load(left, WANTED);
            let revision = revision.unwrap_or(0).unsigned_abs();
            assert!(revision >= acknowledged, "cut {cut}: {revision} after {acknowledged}");
            assert!(reasons.is_empty(), "cut {cut}: {reasons:?}");
        });
    }
}

#[test]
fn a_call_that_fails_gives_the_checkpoint_up_and_the_older_one_is_used() {
    let count = TestFs::recording("index");
    write(&count, head(10)).unwrap();
    let before = count.calls();
    write(&count, head(20)).unwrap();
    for call in before..count.calls() {
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            let fs = TestFs::recording("index");
            write(&fs, head(10)).unwrap();
            fs.fail(Failure { call, kind, lasts: false });
            let result = write(&fs, head(20));
            fs.heal();
            assert_eq!(result.as_ref().err().map(|error| error.source.kind()), Some(kind));
            assert!(load(&fs, WANTED).0.is_some_and(|revision| revision >= 10));
            assert!(names(&fs).iter().all(|name| !name.ends_with(".part")), "call {call}");
        }
    }
}

/// Found by seeds 190 and 196 of the simulator: a compaction relied on a checkpoint whose name only the
/// page cache had, and the power cut after that left none that covered it.
#[test]
fn a_name_that_a_killed_process_left_unsynced_is_durable_once_it_was_loaded() {
    let fs = TestFs::recording("index");
    write(&fs, head(10)).unwrap();
    let names_changed = fs.calls();
    write(&fs, head(20)).unwrap();
    let last = (names_changed..fs.calls()).find(|&call| {
        let fs = TestFs::recording("index");
        write(&fs, head(10)).unwrap();
        fs.fail(Failure { call, kind: io::ErrorKind::Other, lasts: false });
        let failed = write(&fs, head(20)).is_err_and(|error| error.action == "sync");
        fs.heal();
        let is_named = names(&fs).iter().filter(|name| name.ends_with(SUFFIX)).count() == 2;
        if failed && is_named {
            assert_eq!(load(&fs, WANTED), (Some(20), vec![]));
            assert_eq!(load(&fs.after_crash(|_| 0), WANTED), (Some(20), vec![]));
        }
        failed && is_named
    });
    assert!(last.is_some(), "no call failed between the name and its sync");
}

/// Format 1 is format 2 without keys that go on in the next chunk.
#[test]
fn a_checkpoint_of_the_format_before_is_read_and_one_of_a_later_format_is_not() {
    let not_ours = "it is not a checkpoint of a format that this version reads".to_owned();
    for (format, expected) in [
        (0, (None, vec![not_ours.clone()])),
        (1, (Some(10), vec![])),
        (2, (Some(10), vec![])),
        (3, (None, vec![not_ours.clone()])),
    ] {
        let fs = TestFs::recording("index");
        let written = write(&fs, head(10)).unwrap();
        let mut bytes = fs.file(&written.path).unwrap();
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(format));
        let checksum = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&checksum.to_le_bytes());
        let footer = bytes.len() - FOOTER_BYTES;
        let total = crc32c::crc32c(&bytes[..footer]);
        bytes[footer..].copy_from_slice(&encode_footer(3, total));
        fs.put(&written.path, &bytes);
        assert_eq!(load(&fs, WANTED), expected, "format {format}");
    }
}
