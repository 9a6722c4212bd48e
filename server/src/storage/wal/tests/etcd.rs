//! etcd's own code reads our log: the same records, written by us, start a real etcd.

use std::sync::Arc;

use prost::Message as _;
use quorate_proto::{etcdserverpb, raftpb, walpb};

use super::*;
use crate::storage::os_fs::OsFs;
use crate::storage::tests::real_etcd::RealEtcd;

/// The records of etcd's first segment, by the letter of the format and without our reader.
fn records(bytes: &[u8]) -> Vec<walpb::Record> {
    let mut rest = bytes;
    let mut records = vec![];
    while let Some((word, behind)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let (length, padding) = (word & (u64::MAX >> 8), word >> 56 & 7);
        if length == 0 {
            break;
        }
        let length = usize::try_from(length).unwrap();
        records.push(walpb::Record::decode(&behind[..length]).unwrap());
        rest = &behind[length + usize::try_from(padding).unwrap()..];
    }
    records
}

/// Writes them anew, over several segments.
fn rewrite(fs: &SharedFs, dir: &Path, records: Vec<walpb::Record>) -> usize {
    let mut wal = None;
    for record in records {
        let data = record.data.unwrap_or_default();
        match record.r#type.unwrap() {
            1 => {
                let found = etcdserverpb::Metadata::decode(data).unwrap();
                let metadata =
                    Metadata { cluster_id: found.cluster_id(), member_id: found.node_id() };
                wal = Some(Wal::create(fs.clone(), dir, SMALL, metadata, 3).unwrap());
            }
            2 => {
                let found = raftpb::Entry::decode(data).unwrap();
                let kind = match found.r#type() {
                    raftpb::EntryType::EntryNormal => EntryKind::Normal,
                    _ => EntryKind::ConfChange,
                };
                let (index, term) = (found.index(), found.term());
                let entry = Entry { index, term, kind, data: found.data.unwrap_or_default() };
                wal.as_mut().unwrap().append(&[entry], None).unwrap();
            }
            3 => {
                let found = raftpb::HardState::decode(data).unwrap();
                let (term, vote, commit) = (found.term(), found.vote(), found.commit());
                let wal = wal.as_mut().unwrap();
                wal.append(&[], Some(&HardState { term, vote, commit })).unwrap();
                // So that a mark is before each batch.
                wal.sync().unwrap();
            }
            _ => {}
        }
    }
    let mut wal = wal.unwrap();
    let voters = vec![wal.metadata().member_id];
    let conf_state = ConfState { voters, learners: vec![] };
    wal.append_conf_state(1, 1, &conf_state).unwrap();
    wal.sync().unwrap();
    wal.segments()
}

#[test]
fn a_real_etcd_starts_from_our_log_and_has_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut etcd) = RealEtcd::start(dir.path(), 23792) else { return };
    assert!(etcd.is_ready(), "{}", etcd.said);
    let long = "v".repeat(1500);
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert_eq!(etcd.ctl(&["put", key, &long]).trim(), "OK");
    }
    drop(etcd);

    let fs: SharedFs = Arc::new(OsFs);
    let wal_dir = dir.path().join("member/wal");
    let theirs = std::fs::read(&Segment::list(&fs, &wal_dir).unwrap()[0].path).unwrap();
    std::fs::rename(&wal_dir, dir.path().join("theirs")).unwrap();
    assert!(rewrite(&fs, &wal_dir, records(&theirs)) > 2);
    // Only what was flushed is in its database: the rest comes from the log.
    let ours = Wal::read(&fs, &wal_dir, 0).unwrap();
    assert!(ours.entries.len() > 10 && ours.hard_state.commit > 10);

    let mut etcd = RealEtcd::start(dir.path(), 23792).unwrap();
    assert!(etcd.is_ready(), "{}", etcd.said);
    assert_eq!(etcd.ctl(&["get", "h", "--print-value-only"]).trim(), long);
}
