//! Files that are refused, and bits that flipped: named, never served.

use std::sync::mpsc;

use super::*;

#[test]
fn a_store_of_another_cluster_or_life_or_version_is_refused_by_name() {
    let fs = TestFs::recording("member");
    let missing = StoreOptions { create: false, ..options() };
    let open_with = |options: &StoreOptions| {
        StateStore::open(fs.shared(), Path::new(PATH), options).map(|_| ()).unwrap_err()
    };
    assert!(matches!(open_with(&missing), OpenError::Missing { .. }));
    open(&fs).store.close().unwrap();
    let cluster = Identity { cluster_id: 8, incarnation: 9 };
    let error = open_with(&StoreOptions { identity: cluster, ..options() });
    assert_eq!(
        error.to_string(),
        "the state store member/state.redb has cluster 0000000000000007 where 0000000000000008 is expected"
    );
    let life = Identity { cluster_id: 7, incarnation: 1 };
    let error = open_with(&StoreOptions { identity: life, ..options() });
    assert!(matches!(error, OpenError::Foreign { what: "incarnation", .. }));

    let database = redb::Database::builder()
        .create_with_backend(redb::backends::InMemoryBackend::new())
        .unwrap();
    let write = database.begin_write().unwrap();
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("store");
    write.open_table(table).unwrap().insert("format", 1).unwrap();
    write.commit().unwrap();
    assert!(matches!(Header::read(&database), Err(Fault::Format(1))));
    let refusal = OpenError::Format { path: PATH.into(), found: 1, known: tables::FORMAT };
    assert_eq!(
        refusal.to_string(),
        "the state store member/state.redb has format 1, and this version reads format 2 only; start \
         it with the version that wrote it"
    );
}

#[test]
fn a_header_that_was_changed_or_cannot_be_is_refused() {
    let changes = [
        ("revision", 7_u64, "its header does not match its checksum"),
        ("applied_index", 7, "its header does not match its checksum"),
        ("checksum", 7, "its header does not match its checksum"),
        ("revision", u64::MAX, "its revision is out of range"),
        ("revision", i64::MAX.cast_unsigned(), "its revision is out of range"),
    ];
    for (name, number, reason) in changes {
        let database = redb::Database::builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .unwrap();
        let header = Header { revision: 5, applied_index: 5, ..Header::default() };
        tables::initialize(&database, &header).unwrap();
        assert_eq!(Header::read(&database).unwrap(), header);
        let write = database.begin_write().unwrap();
        let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("store");
        write.open_table(table).unwrap().insert(name, number).unwrap();
        write.commit().unwrap();
        let fault = Header::read(&database).unwrap_err().to_string();
        assert!(fault.contains(reason), "{name}: {fault}");
    }
}

/// Where `needle` is in `file`, each time.
fn places(file: &[u8], needle: &[u8]) -> Vec<usize> {
    (0..file.len() - needle.len()).filter(|&at| file[at..].starts_with(needle)).collect()
}

#[test]
fn a_flipped_bit_in_a_row_ends_every_read_of_it_with_file_and_row() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    let value = |main: i64| Bytes::from(format!("<the value of {main:05}>"));
    let rows: Vec<Row> = (2..60)
        .map(|main| Row { key: RowKey::new(Revision::new(main, 0), false), stored: value(main) })
        .collect();
    let add = FlushBatch { rows: rows.clone(), revision: 59, ..batch(1) };
    store.flush(FlushBatch { deletions: Vec::new(), ..add }).unwrap();
    store.close().unwrap();
    let whole = fs.bytes(Path::new(PATH));
    for main in [2, 30, 59] {
        let stored = places(&whole, &value(main));
        assert!(!stored.is_empty());
        let key = RowKey::new(Revision::new(main, 0), false);
        // Any bit of the value and of the checksum behind it.
        for bit in 0..8 * (value(main).len() + seal::SEAL_BYTES) {
            let mut file = whole.clone();
            stored.iter().for_each(|at| file[at + bit / 8] ^= 1 << (bit % 8));
            let fs = TestFs::recording("member");
            fs.put(Path::new(PATH), &file);
            let mut opened = open(&fs);
            let reader = opened.store.reader();
            let refused = |result: Result<(), RowsError>| {
                let error = result.expect_err("a flipped bit was served");
                assert!(matches!(error, RowsError::Corrupt(_)), "{error}");
                let text = error.to_string();
                let row = format!("row {key:?} does not match its checksum");
                assert!(text.contains(PATH) && text.contains(&row), "{text}");
            };
            refused(reader.get_many(&[key.revision()], &mut Vec::new()));
            refused(reader.scan(Revision::default(), 1000, &mut Vec::new()));
            let all: Vec<Revision> = rows.iter().map(|row| row.key.revision()).collect();
            refused(reader.get_many(&all, &mut Vec::new()));
            let error = rewrite(&mut opened.store, 1000).unwrap_err();
            let RewriteError::Store { fault, .. } = &error else { panic!("{error}") };
            assert!(fault.is_damage(), "it would go on in the copy: {error}");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_small_record_refuses_the_store_by_table_and_key() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    let value = Bytes::from_static(b"<the configuration>");
    let record = TableRow {
        table: Table::Meta,
        key: Bytes::from_static(b"conf_state"),
        value: Some(value.clone()),
    };
    store.flush(FlushBatch { tables: vec![record], ..batch(1) }).unwrap();
    store.close().unwrap();
    let mut file = fs.bytes(Path::new(PATH));
    places(&file, &value).into_iter().for_each(|at| file[at + 3] ^= 4);
    fs.put(Path::new(PATH), &file);
    let opened = StateStore::open(fs.shared(), Path::new(PATH), &options());
    let Err(OpenError::Failed { fault, .. }) = opened else { panic!("it was opened") };
    let text = "record b\"conf_state\" of table meta does not match its checksum";
    assert!(fault.is_damage() && fault.to_string().contains(text), "{fault}");
}

#[test]
fn what_is_no_store_or_a_cut_one_is_refused_with_its_path() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    for number in 1..=6 {
        store.flush(batch(number)).unwrap();
    }
    store.close().unwrap();
    let whole = fs.file(Path::new(PATH)).unwrap();
    let mut files = vec![Vec::new(), b"redb".to_vec(), vec![0; 8192], vec![0xff; 100_000]];
    files.extend([1, 100, 400, 4096, 8192, whole.len() / 2].map(|len| whole[..len].to_vec()));
    for file in files {
        let len = file.len();
        let fs = TestFs::recording("member");
        fs.put(Path::new(PATH), &file);
        let error = StateStore::open(fs.shared(), Path::new(PATH), &options())
            .map(|_| ())
            .expect_err(&format!("{len} bytes were taken for a store"));
        assert!(error.to_string().contains(PATH), "{error}");
    }
}

thread_local! {
    /// Where a thread that reads a damaged file says what it believes, and the file.
    static BELIEVER: std::cell::Cell<Option<(mpsc::Sender<Option<Model>>, TestFs)>> =
        const { std::cell::Cell::new(None) };
}

/// What `read` makes of a damaged file; `None` if the process ends for it, be it by a panic inside redb.
fn believed(
    file: &[u8],
    read: impl FnOnce(&TestFs) -> Option<Model> + Send + 'static,
) -> Option<Model> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let (damaged, believer) = (panics::of_file(panic), BELIEVER.take());
            match (damaged, believer) {
                (Some(damaged), Some((believer, fs))) if damaged.to_string().contains(PATH) => {
                    // The process ends here: nothing unwinds.
                    fs.wipe();
                    believer.send(None).unwrap();
                    loop {
                        std::thread::park();
                    }
                }
                _ => report(panic),
            }
        }));
    });
    let (believer, belief) = mpsc::channel();
    let fs = TestFs::default();
    fs.put(Path::new(PATH), file);
    std::thread::spawn(move || {
        BELIEVER.set(Some((believer.clone(), fs.clone())));
        believer.send(read(&fs)).unwrap();
    });
    belief.recv().expect("it ends by a panic that is not one inside redb")
}

/// What a start that reads every row believes. Whatever is read by its revision must be what was written.
fn read_all(fs: &TestFs, expected: &Model) -> Option<Model> {
    let mut opened = StateStore::open(fs.shared(), Path::new(PATH), &options()).ok()?;
    let mut rows = Vec::new();
    let reader = opened.store.reader();
    reader.scan(Revision::default(), usize::MAX, &mut rows).ok()?;
    check_count("rows", rows.len() as u64, opened.rows).ok()?;
    let model = Model::read(&opened);
    for (key, stored) in &expected.rows {
        let revision = RowKey::decode(key).unwrap().revision();
        let mut read = Vec::new();
        if !key.ends_with(b"t") && reader.get_many(&[revision], &mut read).is_ok() {
            assert_eq!(read.first(), Some(stored));
        }
    }
    let _ = opened.store.flush(batch(12));
    Some(model)
}

/// Runs a test in a process of its own, which ends with it: threads that panicked inside redb stay in the hook
/// for ever, and the end of a test run waits for the hook.
fn in_a_process_of_its_own(name: &str, test: impl FnOnce() + std::panic::UnwindSafe) {
    const IS_CHILD: &str = "QUORATE_TEST_IS_CHILD";
    if std::env::var_os(IS_CHILD).is_some() {
        std::process::exit(i32::from(std::panic::catch_unwind(test).is_err()));
    }
    let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&path, "--exact", "--nocapture"])
        .env(IS_CHILD, "1")
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(said[0].contains("running 1 test"), "no test {path}: {said:?}");
    assert!(child.status.success(), "{}{}", said[0], said[1]);
}

/// What is in the copy that a rewrite makes of it.
fn rewrite_all(fs: &TestFs) -> Option<Model> {
    let mut store = StateStore::open(fs.shared(), Path::new(PATH), &options()).ok()?.store;
    rewrite(&mut store, 1000).ok()?;
    store.close().ok()?;
    Some(Model::read(&StateStore::open(fs.shared(), Path::new(PATH), &options()).ok()?))
}

const PAGE_BYTES: usize = 4096;

/// The file after each batch and the end, and what the last of them holds.
fn history(batches: u64) -> (Vec<Vec<u8>>, Model) {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    let mut model = Model { revision: 1, ..Model::default() };
    let mut files = Vec::new();
    for number in 1..=batches {
        store.flush(batch(number)).unwrap();
        model.flush(&batch(number));
        files.push(fs.bytes(Path::new(PATH)));
    }
    store.close().unwrap();
    files.push(fs.bytes(Path::new(PATH)));
    (files, model)
}

#[test]
fn a_page_that_was_lost_or_is_of_another_time_ends_the_process_or_is_not_needed() {
    let name = "a_page_that_was_lost_or_is_of_another_time_ends_the_process_or_is_not_needed";
    in_a_process_of_its_own(name, pages_of_another_time);
}

fn pages_of_another_time() {
    let (files, expected) = history(11);
    let whole = files.last().unwrap();
    let mut ends = 0;
    for page in 1..whole.len() / PAGE_BYTES {
        let place = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        let mut contents = vec![vec![0; PAGE_BYTES], vec![0xff; PAGE_BYTES]];
        contents.extend(files.iter().filter_map(|file| Some(file.get(place.clone())?.to_vec())));
        contents.sort();
        contents.dedup();
        for content in &contents {
            let mut file = whole.clone();
            file[place.clone()].copy_from_slice(content);
            let model = expected.clone();
            let beliefs =
                [believed(&file, move |fs| read_all(fs, &model)), believed(&file, rewrite_all)];
            for belief in beliefs {
                match belief {
                    // Records of another time are whole, and as many: nobody can tell.
                    Some(model) => {
                        assert_eq!(Model { tables: expected.tables.clone(), ..model }, expected);
                    }
                    None => ends += 1,
                }
            }
        }
    }
    assert!(ends >= 80, "only {ends} of the pages held anything");
}

#[test]
fn a_flipped_bit_anywhere_in_a_page_ends_the_process_or_changes_nothing() {
    let name = "a_flipped_bit_anywhere_in_a_page_ends_the_process_or_changes_nothing";
    in_a_process_of_its_own(name, flipped_bits);
}

fn flipped_bits() {
    let (files, expected) = history(11);
    let whole = files.last().unwrap();
    let mut ends = 0;
    for page in 1..whole.len() / PAGE_BYTES {
        let place = page * PAGE_BYTES;
        let used = whole[place..place + PAGE_BYTES].iter().rposition(|byte| *byte != 0);
        let Some(used) = used.filter(|_| [1, 2].contains(&whole[place])) else { continue };
        // Every bit of where the offsets begin, and one of some bytes behind it.
        for byte in 0..=used {
            let bits = match byte {
                0..16 => 0..8,
                _ if byte % 29 == 0 => byte % 8..byte % 8 + 1,
                _ => continue,
            };
            for bit in bits {
                let mut file = whole.clone();
                file[place + byte] ^= 1 << bit;
                let model = expected.clone();
                match believed(&file, move |fs| read_all(fs, &model)) {
                    Some(model) => assert_eq!(model, expected, "page {page} byte {byte} bit {bit}"),
                    None => ends += 1,
                }
            }
        }
    }
    assert!(ends >= 1000, "only {ends} of the bits mattered");
}
