//! Damage is refused with its place; only what a crash can do to the end is not damage.

use proptest::prelude::*;

use super::*;

const LONG: WalOptions = WalOptions { segment_bytes: 64 << 10, segments_max: 3 };

/// A log of one segment, and its bytes up to the last sync and up to its end.
fn one_segment() -> (TestFs, PathBuf, usize) {
    let fs = TestFs::default();
    let mut wal = create(&fs, WalOptions { segment_bytes: 16 << 10, ..SMALL });
    // A record of 16 bytes: one bit of its length word makes that zero.
    wal.append(&[], Some(&HardState { term: 1, vote: 1, commit: 0 })).unwrap();
    wal.append(&[entry(1, 1, 40), entry(2, 1, 700), entry(3, 2, 0)], Some(&state(2, 2))).unwrap();
    wal.append_conf_state(2, 1, &conf(&[1, 2])).unwrap();
    wal.sync().unwrap();
    let path = segment_paths(&fs).remove(0);
    let synced = *record_offsets(&fs, &path).last().unwrap();
    let batch = [entry(4, 2, 100), entry(5, 2, 2000), entry(6, 2, 33), entry(7, 2, 1200)];
    wal.append(&batch, Some(&state(3, 5))).unwrap();
    (fs, path, synced)
}

/// The contents after each whole number of records.
fn prefixes(fs: &TestFs, path: &Path) -> Vec<WalContents> {
    let bytes = fs.bytes(path);
    let records = record_offsets(fs, path);
    let read = |end: &usize| {
        let fs = TestFs::default();
        fs.put(path, &[&bytes[..*end], &vec![0; bytes.len() - end]].concat());
        Wal::read(&fs.shared(), dir(), 0).unwrap()
    };
    // The first two are synced before the segment has its name.
    records[2..].iter().map(read).collect()
}

fn without_tear(contents: WalContents) -> WalContents {
    WalContents { torn_at: None, ..contents }
}

#[test]
fn a_torn_tail_is_cut_and_nothing_before_it() {
    let (fs, path, synced) = one_segment();
    let bytes = fs.bytes(&path);
    let records = record_offsets(&fs, &path);
    let prefixes = prefixes(&fs, &path);
    for cut in synced..=*records.last().unwrap() {
        // Padding is zero anyway: without it a record is whole, unless the file ends before.
        let is_zero_to = |end: usize| bytes[cut.min(end)..end].iter().all(|byte| *byte == 0);
        let whole_zeroed = records.iter().filter(|end| is_zero_to(**end)).count() - 1;
        let whole_short = records.iter().filter(|end| **end <= cut).count() - 1;
        let zeroed = [&bytes[..cut], &vec![0; bytes.len() - cut]].concat();
        for (torn, whole) in [(&zeroed[..], whole_zeroed), (&bytes[..cut], whole_short)] {
            let fs = TestFs::default();
            fs.put(&path, torn);
            let (mut wal, contents) = open(&fs, 0);
            let contents = without_tear(contents);
            assert_eq!(contents, prefixes[whole - 2], "cut at {cut}");
            let next = wal.last_index() + 1;
            wal.append(&entries(next..=next, 3), None).unwrap();
            let (_, again) = open(&fs, 0);
            assert_eq!(again.entries[..contents.entries.len()], contents.entries);
            assert_eq!(again.entries.len(), contents.entries.len() + 1);
            assert_eq!(again.torn_at, None);
        }
    }
}

#[test]
fn sectors_lost_from_the_tail_cut_it_where_the_first_is_missing() {
    let (fs, path, synced) = one_segment();
    let bytes = fs.bytes(&path);
    let records = record_offsets(&fs, &path);
    let prefixes = prefixes(&fs, &path);
    let first = synced / 512;
    let sectors = records.last().unwrap().div_ceil(512) - first;
    for lost in 0_u32..1 << sectors {
        let mut torn = bytes.clone();
        for sector in (0..sectors).filter(|sector| lost & 1 << sector != 0) {
            let begin = ((first + sector) * 512).max(synced);
            torn[begin..(first + sector + 1) * 512].fill(0);
        }
        let same = bytes.iter().zip(&torn).position(|(was, is)| was != is).unwrap_or(bytes.len());
        let whole = records.iter().filter(|end| **end <= same).count() - 1;
        let fs = TestFs::default();
        fs.put(&path, &torn);
        let (_, contents) = open(&fs, 0);
        assert_eq!(without_tear(contents), prefixes[whole - 2], "{lost:b}");
    }
}

/// Sixty puts, each synced before the next: the log, its segment, and where the last batch begins.
fn sixty_synced_puts() -> (TestFs, PathBuf, usize) {
    let fs = TestFs::default();
    let mut wal = create(&fs, LONG);
    let mut last = 0;
    for index in 1..=60 {
        last = usize::try_from(wal.tail.offset()).unwrap();
        let put = entry(index, 1, 90 + 13 * usize::try_from(index).unwrap());
        wal.append(&[put], Some(&state(1, index - 1))).unwrap();
        wal.sync().unwrap();
    }
    let path = segment_paths(&fs).remove(0);
    (fs, path, last)
}

#[test]
fn a_sector_lost_from_synced_writes_is_refused_with_file_and_place() {
    let (fs, path, last) = sixty_synced_puts();
    let bytes = fs.bytes(&path);
    let records = record_offsets(&fs, &path);
    for sector in (0..last - 512).step_by(512) {
        let garbage: Vec<u8> = (0..512).map(|at| (at * 167 % 251) as u8).collect();
        let stale = bytes[sector / 2 / 512 * 512..][..512].to_vec();
        for lost in [vec![0; 512], vec![0xff; 512], garbage, stale] {
            let mut broken = bytes.clone();
            broken[sector..sector + 512].copy_from_slice(&lost);
            let Some(same) = bytes.iter().zip(&broken).position(|(was, is)| was != is) else {
                continue;
            };
            fs.put(&path, &broken);
            let error = Wal::open(fs.shared(), dir(), LONG, 0).map(|_| ()).unwrap_err();
            let WalError::Corrupt { path: named, offset, .. } = &error else {
                panic!("{sector}: {error}");
            };
            assert_eq!(named, &path);
            let begin = records[records.partition_point(|offset| *offset <= same) - 1];
            assert_eq!(usize::try_from(*offset).unwrap(), begin, "{sector}: {error}");
        }
    }
}

#[test]
fn sectors_lost_from_what_was_appended_after_the_last_sync_are_cut() {
    let (fs, path, _) = sixty_synced_puts();
    let (mut wal, _) = Wal::open(fs.shared(), dir(), LONG, 0).unwrap();
    let synced = usize::try_from(wal.tail.offset()).unwrap();
    // Several appends, and the commit index says that others have what this member does not.
    for index in 61..=66 {
        wal.append(&[entry(index, 1, 700)], Some(&state(1, index))).unwrap();
    }
    let end = usize::try_from(wal.tail.offset()).unwrap();
    let bytes = fs.bytes(&path);
    for begin in (synced / 512 * 512..end).step_by(512) {
        for lost in [512, 1024, 2048] {
            let mut torn = bytes.clone();
            torn[begin.max(synced)..(begin + lost).min(bytes.len())].fill(0);
            let torn_fs = TestFs::default();
            torn_fs.put(&path, &torn);
            let (_, contents) = open(&torn_fs, 0);
            assert!((60..=66).contains(&contents.entries.len()), "{begin}: {lost}");
        }
    }
}

/// A log that was never synced with two entries, the second of `data`, and where that begins.
fn never_synced(data: Vec<u8>) -> (TestFs, PathBuf, Vec<u8>, usize) {
    let fs = TestFs::default();
    let mut wal = create(&fs, WalOptions { segment_bytes: 4 << 20, ..SMALL });
    wal.append(&[entry(1, 1, 2000)], None).unwrap();
    let begin = usize::try_from(wal.tail.offset()).unwrap();
    wal.append(&[Entry { data: data.into(), ..entry(2, 1, 0) }], None).unwrap();
    let path = segment_paths(&fs).remove(0);
    let bytes = fs.bytes(&path);
    (fs, path, bytes, begin)
}

/// Whoever wrote the value knows how marks look, and not what they are stamped with.
#[test]
fn a_log_that_is_stored_as_a_value_is_not_taken_for_later_writes() {
    let (stored, stored_path, last) = sixty_synced_puts();
    let value = stored.bytes(&stored_path)[..last].to_vec();
    let stamp = STAMP.to_le_bytes();
    let is_stamp = |at: &usize| value[*at..].starts_with(&stamp);
    let stamps: Vec<usize> = (0..value.len()).filter(is_stamp).collect();
    assert_eq!(stamps.len(), 60, "a mark before each put but the last, and one at the beginning");
    for known in [false, true] {
        let mut value = value.clone();
        for at in stamps.iter().filter(|_| !known) {
            value[*at] ^= 1;
        }
        let mut refused = 0;
        for shift in 0..8 {
            let (fs, path, bytes, begin) = never_synced([&vec![1; shift], &value[..]].concat());
            let second = begin.next_multiple_of(512);
            for lost in [begin..second, second + 512..second + 1024] {
                let mut torn = bytes.clone();
                torn[lost].fill(0);
                fs.put(&path, &torn);
                match Wal::read(&fs.shared(), dir(), 0) {
                    Ok(contents) => assert_eq!(contents.entries, [entry(1, 1, 2000)], "{shift}"),
                    Err(error) => {
                        assert!(error.to_string().contains("was synced before byte"), "{error}");
                        refused += 1;
                    }
                }
            }
        }
        // With the stamp in it, at the one place of eight where a record may begin.
        assert_eq!(refused, if known { 2 } else { 0 });
    }
}

#[test]
fn a_flipped_bit_is_refused_with_file_and_place() {
    let (fs, path, _) = one_segment();
    let bytes = fs.bytes(&path);
    let records = record_offsets(&fs, &path);
    let last = records[records.len() - 2];
    let contents = Wal::read(&fs.shared(), dir(), 0).unwrap();
    let prefixes = prefixes(&fs, &path);
    for bit in 0..records.last().unwrap() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let fs = TestFs::default();
        fs.put(&path, &flipped);
        let result = Wal::read(&fs.shared(), dir(), 0);
        if bit / 8 >= last {
            // At the very end a flipped bit may look like a torn write; it never gives other contents.
            if let Ok(read) = result {
                assert_eq!(without_tear(read), prefixes[prefixes.len() - 2], "bit {bit}");
            }
            continue;
        }
        let begin = records.partition_point(|offset| *offset <= bit / 8) - 1;
        match result {
            Err(WalError::Corrupt { path: named, offset, .. }) => {
                assert_eq!(named, path);
                let offset = usize::try_from(offset).unwrap();
                // The first checksum record is believed until one behind it does not fit.
                let is_near = offset == records[begin] || begin == 0 && records.contains(&offset);
                assert!(is_near, "bit {bit}: {offset} instead of {}", records[begin]);
            }
            other => panic!("bit {bit} of byte {}: {other:?}", bit / 8 - records[begin]),
        }
    }
    assert_eq!(contents.entries.len(), 7);
}

#[test]
fn a_segment_before_the_last_may_not_be_torn() {
    let fs = TestFs::default();
    let mut wal = create(&fs, SMALL);
    for index in 1..=40 {
        wal.append(&[entry(index, 1, 300)], None).unwrap();
    }
    wal.sync().unwrap();
    let path = segment_paths(&fs).remove(1);
    let bytes = fs.bytes(&path);
    let end = *record_offsets(&fs, &path).last().unwrap();
    for cut in 0..end {
        let broken = fs.copy();
        broken.put(&path, &[&bytes[..cut], &vec![0; bytes.len() - cut]].concat());
        let error = Wal::open(broken.shared(), dir(), SMALL, 0).map(|_| ());
        let is_padding = bytes[cut..end].iter().all(|byte| *byte == 0);
        assert!(is_padding || matches!(error, Err(WalError::Corrupt { .. })), "{cut}: {error:?}");
    }
}

#[test]
fn records_that_mean_nothing_are_refused_by_name() {
    type Case = (&'static str, fn(&mut Encoder));
    let cases: [Case; 4] = [
        ("entry 4 behind entry 2", |encoder| encoder.entry(&entry(4, 1, 1))),
        ("entry 3 of term 1 behind one of 2", |encoder| {
            encoder.entry(&entry(2, 2, 1));
            encoder.entry(&entry(3, 1, 1));
        }),
        ("metadata of cluster 1, member 2 in a log of cluster c1, member a1", |encoder| {
            encoder.metadata(Metadata { cluster_id: 1, member_id: 2 });
        }),
        ("a snapshot at 18446744073709551615", |encoder| {
            encoder.snapshot(Position { index: u64::MAX, term: 1 }, None);
        }),
    ];
    for (expected, encode) in cases {
        let mut encoder = Encoder::default();
        encoder.crc();
        encoder.metadata(METADATA);
        encoder.entry(&entry(1, 1, 1));
        encoder.entry(&entry(2, 1, 1));
        encode(&mut encoder);
        let fs = TestFs::default();
        fs.put(&Segment::new(dir(), 0, 0).path, encoder.bytes());
        let text = Wal::read(&fs.shared(), dir(), 0).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_unknown_record_type_is_named() {
    let fs = TestFs::default();
    let mut wal = create(&fs, WalOptions { segment_bytes: 16 << 10, ..SMALL });
    wal.append(&[], Some(&state(1, 0))).unwrap();
    let zeros = Entry { data: vec![0; 2000].into(), ..entry(1, 1, 0) };
    wal.append(&[zeros], None).unwrap();
    let path = segment_paths(&fs).remove(0);
    let mut bytes = fs.bytes(&path);
    let records = record_offsets(&fs, &path);
    // A hard state and, at the end and with a sector of zeros, an entry: not even that is torn.
    for (begin, kind) in [(records[4], 3), (records[5], 2)] {
        assert_eq!(bytes[begin + 8..begin + 10], [0x08, kind]);
        bytes[begin + 9] = 11;
        fs.put(&path, &bytes);
        let text = Wal::read(&fs.shared(), dir(), 0).unwrap_err().to_string();
        assert!(text.contains("a record of type 11"), "{text}");
        bytes[begin + 9] = kind;
    }
}

#[test]
fn a_length_beyond_reason_allocates_nothing() {
    let (fs, path, synced) = one_segment();
    let mut bytes = fs.bytes(&path);
    bytes[synced + 6] = 0x7f;
    fs.put(&path, &bytes);
    let error = Wal::read(&fs.shared(), dir(), 0).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { offset, .. } if offset == synced as u64));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(
        edits in prop::collection::vec((0_usize..5000, any::<u8>()), 1..20),
        cut in 0_usize..6000,
        from in 0_u64..9,
    ) {
        let (fs, path, _) = one_segment();
        let mut bytes = fs.bytes(&path);
        for (at, byte) in edits {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        fs.put(&path, &bytes);
        let _ = Wal::open(fs.shared(), dir(), SMALL, from);
    }
}
