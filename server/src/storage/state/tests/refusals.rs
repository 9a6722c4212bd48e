//! Files that are refused, and bits that flipped: named, never served.

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

#[test]
fn a_page_that_was_lost_is_an_error_and_never_a_panic_or_a_missing_row() {
    let fs = TestFs::recording("member");
    let mut store = open(&fs).store;
    for number in 1..=11 {
        store.flush(batch(number)).unwrap();
    }
    store.close().unwrap();
    let whole = fs.file(Path::new(PATH)).unwrap();
    let expected = models()[11].clone();
    let mut errors = 0;
    for page in 1..whole.len() / 4096 {
        for fill in [0, 0xff] {
            let mut file = whole.clone();
            file[page * 4096..(page + 1) * 4096].fill(fill);
            let fs = TestFs::recording("member");
            fs.put(Path::new(PATH), &file);
            let Ok(mut opened) = StateStore::open(fs.shared(), Path::new(PATH), &options()) else {
                errors += 1;
                continue;
            };
            let mut rows = Vec::new();
            let scanned = opened.store.reader().scan(Revision::default(), 1000, &mut rows);
            match scanned {
                Ok(()) => assert_eq!(Model::read(&opened), expected, "page {page}"),
                Err(_) => errors += 1,
            }
            let _ = opened.store.flush(FlushBatch { applied_index: 132, ..batch(12) });
        }
    }
    assert!(errors >= 4, "only {errors} of the pages held anything");
}
