//! The properties of the simulated disk, each over many seeds.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use quorate_server::storage::fs::{File, FileSystem, OpenMode};

use super::*;

const SECTOR: usize = SECTOR_BYTES;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(disk: &SimFs, name: &str) -> Box<dyn File> {
    disk.open(path(name), OpenMode::Create).unwrap()
}

/// A disk with one durable file.
fn disk_with(name: &str, content: &[u8]) -> SimFs {
    let disk = SimFs::new(1);
    create(&disk, name).write_at(0, content).unwrap();
    disk.sync_all();
    disk
}

fn content(disk: &SimFs, name: &str) -> Vec<u8> {
    let file = disk.open(path(name), OpenMode::Existing).unwrap();
    let mut content = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut content).unwrap();
    content
}

/// Everything that `observe` sees after a power cut, over many seeds.
fn outcomes<T: Ord>(disk: &SimFs, observe: impl Fn(&SimFs) -> T) -> BTreeSet<T> {
    let crashed = |seed| {
        let after = disk.fork(seed);
        after.crash(seed);
        observe(&after)
    };
    (0..400).map(crashed).collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    let disk = SimFs::new(1);
    let file = create(&disk, "a");
    file.write_at(100, &[7; 3000]).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path("")).unwrap();
    let mut expected = vec![0; 100];
    expected.resize(3100, 7);
    assert_eq!(outcomes(&disk, |disk| content(disk, "a")), BTreeSet::from([expected]));
}

#[test]
fn each_unsynced_sector_is_old_or_new_on_its_own() {
    let disk = disk_with("a", &[1; 3 * SECTOR]);
    create(&disk, "a").write_at(0, &[2; 3 * SECTOR]).unwrap();
    let seen = outcomes(&disk, |disk| {
        let content = content(disk, "a");
        assert!(content.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        content.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>()
    });
    assert_eq!(seen.len(), 8, "all combinations of three sectors: {seen:?}");
}

#[test]
fn an_overwritten_unsynced_content_may_be_what_survives() {
    let disk = disk_with("a", &[1; SECTOR]);
    let file = create(&disk, "a");
    for value in 2..=4 {
        file.write_at(0, &[value; SECTOR]).unwrap();
    }
    let seen = outcomes(&disk, |disk| content(disk, "a")[0]);
    assert_eq!(seen, BTreeSet::from([1, 2, 3, 4]));
}

#[test]
fn appended_data_may_be_missing_cut_or_zero_but_never_garbage() {
    let disk = disk_with("a", &[1; 5000]);
    create(&disk, "a").write_at(5000, &[2; 10_000]).unwrap();
    let lengths = outcomes(&disk, |disk| {
        let content = content(disk, "a");
        assert!(content[..5000].iter().all(|&byte| byte == 1));
        assert!(content[5000..].iter().all(|&byte| byte == 0 || byte == 2));
        content.len()
    });
    assert_eq!(lengths, BTreeSet::from([5000, 8192, 12_288, 15_000]));
}

#[test]
fn a_cut_happened_wholly_or_not_at_all() {
    let disk = disk_with("a", &[1; 4 * SECTOR]);
    let file = create(&disk, "a");
    file.set_len(SECTOR as u64 + 10).unwrap();
    file.set_len(4 * SECTOR as u64).unwrap();
    let seen = outcomes(&disk, |disk| {
        let content = content(disk, "a");
        (content.len(), content.iter().filter(|&&byte| byte == 1).count())
    });
    let (full, kept) = (4 * SECTOR, SECTOR + 10);
    assert_eq!(seen, BTreeSet::from([(kept, kept), (full, kept), (full, full)]));
}

#[test]
fn what_a_surviving_cut_erased_never_comes_back() {
    let disk = disk_with("a", &[1; 2 * SECTOR]);
    let file = create(&disk, "a");
    file.write_at(SECTOR as u64, &[2; SECTOR]).unwrap();
    file.set_len(SECTOR as u64).unwrap();
    file.write_at(SECTOR as u64, &[3; SECTOR]).unwrap();
    file.sync_data().unwrap();
    file.write_at(SECTOR as u64, &[4; SECTOR]).unwrap();
    let seen = outcomes(&disk, |disk| content(disk, "a")[SECTOR]);
    assert_eq!(seen, BTreeSet::from([3, 4]));
}

#[test]
fn a_name_is_durable_after_its_folder_was_synced_and_not_before() {
    let disk = SimFs::new(1);
    disk.create_dir_all(path("dir/below")).unwrap();
    disk.sync_all();
    create(&disk, "dir/below/a").sync_data().unwrap();
    let exists = |disk: &SimFs| disk.exists(path("dir/below/a")).unwrap();
    assert_eq!(outcomes(&disk, exists), BTreeSet::from([false, true]));
    disk.sync_dir(path("dir")).unwrap();
    assert_eq!(outcomes(&disk, exists), BTreeSet::from([false, true]), "another folder");
    disk.sync_dir(path("dir/below")).unwrap();
    assert_eq!(outcomes(&disk, exists), BTreeSet::from([true]));
}

#[test]
fn a_folder_that_was_not_synced_takes_what_is_in_it_along() {
    let disk = SimFs::new(1);
    disk.create_dir_all(path("dir")).unwrap();
    create(&disk, "dir/a").sync_data().unwrap();
    disk.sync_dir(path("dir")).unwrap();
    let seen = outcomes(&disk, |disk| (disk.exists(path("dir")).unwrap(), disk.files().len()));
    assert_eq!(seen, BTreeSet::from([(false, 0), (true, 1)]));
}

#[test]
fn a_rename_is_old_or_new_and_never_both_or_none() {
    let disk = disk_with("store", b"old");
    create(&disk, "part").write_at(0, b"new").unwrap();
    create(&disk, "part").sync_data().unwrap();
    disk.rename(path("part"), path("store")).unwrap();
    let seen = outcomes(&disk, |disk| (content(disk, "store"), disk.exists(path("part")).unwrap()));
    let old = b"old".to_vec();
    let new = b"new".to_vec();
    assert_eq!(seen, BTreeSet::from([(old.clone(), false), (old, true), (new.clone(), false)]));
    disk.sync_dir(path("")).unwrap();
    assert_eq!(outcomes(&disk, |disk| content(disk, "store")), BTreeSet::from([new]));
}

#[test]
fn changes_of_unrelated_names_are_undone_on_their_own() {
    let disk = disk_with("a", b"a");
    create(&disk, "b");
    disk.remove_file(path("a")).unwrap();
    let names = |disk: &SimFs| disk.read_dir(path("")).unwrap();
    let seen = outcomes(&disk, |disk| names(disk).len() * 2 + usize::from(disk.files().len() == 2));
    assert_eq!(names(&disk), [PathBuf::from("b")]);
    assert_eq!(seen.len(), 3, "none, one of two, both: {seen:?}");
    let kept = outcomes(&disk, names);
    assert_eq!(kept.len(), 4, "every combination: {kept:?}");
}

#[test]
fn a_failing_sync_loses_data_that_the_next_sync_does_not_bring_back() {
    let mut lost = 0;
    let mut stale = 0;
    for seed in 0..100 {
        let disk = disk_with("a", &[1; SECTOR]).fork(seed);
        let file = create(&disk, "a");
        file.write_at(0, &[2; SECTOR]).unwrap();
        disk.fail_at(disk.changes_total() + 1, DiskFault::Error);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        file.sync_data().unwrap();
        stale += usize::from(content(&disk, "a")[0] == 1);
        drop(file);
        disk.crash(seed);
        lost += usize::from(content(&disk, "a")[0] == 1);
    }
    assert!(lost > 50 && lost < 100, "the disk kept the old content {lost} times");
    assert!(stale > 0 && stale < lost, "readers saw the old content {stale} times");
}

#[test]
fn rates_fail_operations_and_count_what_they_hit() {
    let disk = disk_with("a", &[1; SECTOR]);
    let file = create(&disk, "a");
    let everything = super::super::rng::MILLION;
    disk.set_rates(FaultRates { read_error: everything, ..FaultRates::default() });
    assert_eq!(file.read_at(0, &mut [0]).unwrap_err().raw_os_error(), Some(5));
    disk.set_rates(FaultRates { write_error: everything, ..FaultRates::default() });
    assert_eq!(file.write_at(0, &[2]).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(disk.remove_file(path("a")).unwrap_err().raw_os_error(), Some(5));
    disk.set_rates(FaultRates { open_error: everything, ..FaultRates::default() });
    for (name, mode) in [("a", OpenMode::Existing), ("b", OpenMode::Create)] {
        let refused = disk.open(path(name), mode).map(drop).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(24));
    }
    assert!(!disk.exists(path("b")).unwrap());
    disk.set_rates(FaultRates::default());
    file.write_at(0, &[3]).unwrap();
    let fired: Vec<OpKind> =
        disk.take_fired().into_iter().map(|fired| fired.operation.kind).collect();
    assert_eq!(fired, [OpKind::Read, OpKind::Write, OpKind::Remove, OpKind::Open, OpKind::Create]);
    assert_eq!(disk.counters().of(OpKind::Read), 1);
}

#[test]
fn an_operation_names_its_file_as_it_is_named_now() {
    let disk = disk_with("part", b"x");
    let file = disk.open(path("part"), OpenMode::Existing).unwrap();
    disk.rename(path("part"), path("whole")).unwrap();
    disk.set_rates(FaultRates { sync_error: 1_000_000, ..FaultRates::default() });
    file.sync_data().unwrap_err();
    assert_eq!(disk.take_fired()[0].operation.path, path("whole"));
}

#[test]
fn a_full_disk_takes_what_fits_and_overwriting_needs_nothing() {
    let disk = SimFs::new(1);
    disk.set_capacity(Some(4 * PAGE_BYTES));
    let file = create(&disk, "a");
    file.set_len(100 * PAGE_BYTES).unwrap();
    assert_eq!(disk.used_bytes(), 0, "a hole takes no space");
    let error = file.write_at(0, &vec![1; 6 * PAGE_BYTES as usize]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.space(path("")).unwrap().free_bytes, 0);
    file.write_at(10, &[2; 100]).unwrap();
    create(&disk, "b").write_at(0, &[1]).unwrap_err();
    disk.remove_file(path("a")).unwrap();
    assert_eq!(disk.used_bytes(), 4 * PAGE_BYTES, "it is still open");
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
    create(&disk, "b").write_at(0, &[1; 5000]).unwrap();
    create(&disk, "b").set_len(10).unwrap();
    assert_eq!(disk.used_bytes(), PAGE_BYTES);
}

#[test]
fn a_restart_kills_handles_and_locks_and_a_kill_loses_nothing() {
    let disk = disk_with("a", b"old");
    let file = create(&disk, "a");
    let lock = disk.lock(path("lock")).unwrap();
    assert_eq!(disk.lock(path("./lock")).err().unwrap().kind(), ErrorKind::WouldBlock);
    file.write_at(0, b"new").unwrap();
    disk.kill();
    file.read_at(0, &mut [0]).unwrap_err();
    file.sync_data().unwrap_err();
    assert_eq!(content(&disk, "a"), b"new");
    let again = disk.lock(path("lock")).unwrap();
    drop(lock);
    drop(file);
    assert!(disk.lock(path("lock")).is_err(), "a dead lock cannot free a living one");
    drop(again);
    disk.lock(path("lock")).unwrap();
    let seen = outcomes(&disk, |disk| content(disk, "a"));
    assert_eq!(seen, BTreeSet::from([b"new".to_vec(), b"old".to_vec()]), "a kill is no sync");
}

#[test]
fn a_planned_crash_stops_everything_until_the_restart() {
    let mut done = BTreeSet::new();
    for seed in 0..50 {
        let disk = disk_with("a", &[1; SECTOR]).fork(seed);
        let file = create(&disk, "a");
        disk.fail_at(disk.changes_total() + 2, DiskFault::Kill);
        file.write_at(0, &[2; SECTOR]).unwrap();
        file.write_at(0, &[3; SECTOR]).unwrap_err();
        assert!(disk.is_down());
        assert!(disk.open(path("a"), OpenMode::Existing).is_err());
        drop(file);
        disk.kill();
        assert!(!disk.is_down());
        done.insert(content(&disk, "a")[0]);
        assert_eq!(disk.take_fired().len(), 1);
    }
    assert_eq!(done, BTreeSet::from([2, 3]), "the operation happened, or not");
}

#[test]
fn a_seed_is_a_disk() {
    let run = |seed| {
        let disk = disk_with("a", &[1; 40 * SECTOR]).fork(seed);
        disk.set_rates(FaultRates { write_error: 300_000, ..FaultRates::default() });
        let file = create(&disk, "a");
        for round in 0..20 {
            let _ = file.write_at(round * 1000, &[2; 1500]);
        }
        drop(file);
        disk.set_rates(FaultRates::default());
        let report = disk.crash(seed);
        (content(&disk, "a"), report.sectors_kept, disk.take_fired())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// redb over a simulated disk: what it committed durably is there after any crash.
mod redb_survives {
    use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};

    use super::*;
    use crate::sim::rng::Rng;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

    struct Backend {
        file: Box<dyn File>,
        syncs: bool,
    }

    impl std::fmt::Debug for Backend {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Backend")
        }
    }

    impl StorageBackend for Backend {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.file.read_at(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> Result<(), std::io::Error> {
            if self.syncs { self.file.sync_data() } else { Ok(()) }
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.file.write_at(offset, data)
        }
    }

    /// Opens the store. A new one is made under another name: redb refuses a file whose creation was
    /// cut short.
    fn open(disk: &SimFs, syncs: bool) -> Result<Database, redb::Error> {
        if !disk.exists(path("db"))? {
            if disk.exists(path("new"))? {
                disk.remove_file(path("new"))?;
            }
            drop(open_file(disk, "new", syncs)?);
            disk.rename(path("new"), path("db"))?;
            disk.sync_dir(path(""))?;
        }
        open_file(disk, "db", syncs)
    }

    fn open_file(disk: &SimFs, name: &str, syncs: bool) -> Result<Database, redb::Error> {
        let file = disk.open(path(name), OpenMode::Create)?;
        let mut builder = redb::Builder::new();
        builder.set_cache_size(1 << 20);
        Ok(builder.create_with_backend(Backend { file, syncs })?)
    }

    fn commit(db: &Database, batch: u64) -> Result<(), redb::Error> {
        let mut txn = db.begin_write()?;
        txn.set_quick_repair(true);
        let mut table = txn.open_table(TABLE)?;
        for row in batch * 10..batch * 10 + 10 {
            table.insert(row, [u8::try_from(batch).unwrap(); 300].as_slice())?;
        }
        drop(table);
        txn.commit()?;
        Ok(())
    }

    /// How many whole batches are there; an error if a batch is there in part, or the file is broken.
    fn recovered(db: &Database) -> Result<u64, String> {
        let txn = db.begin_read().map_err(|error| error.to_string())?;
        let Ok(table) = txn.open_table(TABLE) else { return Ok(0) };
        let mut rows = 0;
        for entry in table.range::<u64>(..).map_err(|error| error.to_string())? {
            let (key, value) = entry.map_err(|error| error.to_string())?;
            if key.value() != rows || u64::from(value.value()[0]) != rows / 10 {
                return Err(format!("row {rows} is {}", key.value()));
            }
            rows += 1;
        }
        if rows % 10 == 0 {
            Ok(rows / 10)
        } else {
            Err(format!("{rows} rows are no whole batches"))
        }
    }

    /// Commits batches until a crash that the seed places, then says what is wrong afterwards.
    fn run(seed: u64, syncs: bool) -> Result<(), String> {
        let mut rng = Rng::new(seed);
        let disk = SimFs::new(seed);
        disk.fail_at(rng.between(1, 120), DiskFault::Crash);
        let mut committed = 0;
        if let Ok(db) = open(&disk, syncs) {
            while committed < 15 && commit(&db, committed).is_ok() {
                committed += 1;
            }
        }
        disk.clear_plan();
        disk.crash(rng.next_u64());
        let db = open(&disk, syncs).map_err(|error| error.to_string())?;
        let found = recovered(&db)?;
        if found == committed || found == committed + 1 {
            return Ok(());
        }
        Err(format!("{committed} batches were committed and {found} are there"))
    }

    #[test]
    fn when_it_syncs() {
        for seed in 0..300 {
            run(seed, true).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        }
    }

    #[test]
    fn but_a_program_that_forgets_to_sync_is_caught() {
        let caught = (0..20).filter(|&seed| {
            // A broken file may also be refused by a panic; that is caught as well.
            std::panic::catch_unwind(|| run(seed, false)).map_or(true, |result| result.is_err())
        });
        assert!(caught.count() > 5);
    }
}
