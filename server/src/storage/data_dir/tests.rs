//! Every refusal, and a crash at each step of a creation.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::storage::os_fs::OsFs;
use crate::storage::tests::real_etcd::RealEtcd;
use crate::storage::tests::test_fs::TestFs;
use crate::storage::wal::{Metadata, Wal, WalOptions};

const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, segments_max: 5 };
const METADATA: Metadata = Metadata { cluster_id: 0xc1, member_id: 0xa1 };
const ANY: Expected = Expected { cluster_id: None, member_id: None };

fn root() -> &'static Path {
    Path::new("/x/d")
}

fn identity(incarnation: u64) -> Identity {
    Identity {
        cluster_id: METADATA.cluster_id,
        member_id: METADATA.member_id,
        incarnation,
        name: "one".to_owned(),
        created_by: "0.1.0".to_owned(),
        made_with: Some(MadeWith {
            initial_cluster: "one=http://h:1".to_owned(),
            initial_cluster_token: "t".to_owned(),
        }),
    }
}

/// What a first start does.
fn start(fs: &SharedFs, root: &Path, wal_dir: Option<&Path>) -> Result<DataDir, anyhow::Error> {
    let mut data_dir = DataDir::open(fs.clone(), root, wal_dir, ANY)?;
    if data_dir.identity().is_none() {
        Wal::create(fs.clone(), data_dir.wal_dir(), OPTIONS, METADATA, 7)?;
        let state = fs.open(&data_dir.state_path(), OpenMode::CreateNew)?;
        state.write_at(0, b"state")?;
        state.sync_data()?;
        fs.sync_dir(parent(&data_dir.state_path()))?;
        data_dir.finish_creation(identity(7))?;
    }
    Ok(data_dir)
}

fn created() -> TestFs {
    let fs = TestFs::default();
    fs.put(Path::new("/x/other"), b"");
    start(&fs.shared(), root(), None).unwrap();
    fs
}

fn refused(fs: &TestFs, wal_dir: Option<&str>, expected: Expected) -> (u8, String) {
    let error = DataDir::open(fs.shared(), root(), wal_dir.map(Path::new), expected)
        .map(|_| ())
        .unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    (error.exit_code(), text)
}

#[test]
fn a_data_dir_that_was_created_is_opened_again() {
    let fs = created();
    let data_dir = start(&fs.shared(), root(), None).unwrap();
    assert_eq!(data_dir.identity(), Some(&identity(7)));
    assert_eq!(data_dir.path(), root());
    assert_eq!(data_dir.wal_dir(), root().join("member/wal"));
    assert_eq!(data_dir.index_dir(), root().join("member/index"));
    assert_eq!(data_dir.reserve_paths(), [root().join("member/reserve")]);
    let elsewhere = reserve_paths(root(), Some("/log".as_ref()));
    assert_eq!(elsewhere, [root().join("member/reserve"), "/log/reserve".into()]);
    let own = Wal::owner(&fs.shared(), data_dir.wal_dir()).unwrap();
    assert_eq!(own, Owner { metadata: METADATA, stamp: Some(7) });
    data_dir.check_log(own).unwrap();
    data_dir.check_log(Owner { stamp: None, ..own }).unwrap();
    let others = Owner { metadata: Metadata { cluster_id: 1, member_id: 2 }, ..own };
    for other in [others, Owner { stamp: Some(8), ..own }] {
        assert_eq!(data_dir.check_log(other).unwrap_err().exit_code(), exit::LOG_FOREIGN);
    }
    let expected = Expected { cluster_id: Some(0xc1), member_id: Some(0xa1) };
    drop(data_dir);
    DataDir::open(fs.shared(), root(), None, expected).unwrap();
}

#[test]
fn each_refusal_says_what_to_do_and_has_its_exit_code() {
    type Case = (&'static str, fn(&TestFs) -> (u8, String), u8, &'static str);
    let cases: [Case; 14] = [
        (
            "another cluster",
            |fs| refused(fs, None, Expected { cluster_id: Some(0xff), ..ANY }),
            exit::OTHER_CLUSTER,
            "belongs to cluster c1, not to ff; give again --initial-cluster=one=http://h:1 and \
             --initial-cluster-token=t, with --initial-advertise-peer-urls to match, as the ID",
        ),
        (
            "another member",
            |fs| refused(fs, None, Expected { member_id: Some(0xff), ..ANY }),
            exit::OTHER_MEMBER,
            "belongs to member a1, \"one\", not to ff; choose the data dir of this member by \
             --data-dir, or give again --initial-cluster=one=http://h:1 and --initial-cluster-token=t",
        ),
        (
            "newer",
            |fs| {
                fs.put(&root().join("identity.json"), br#"{"format": 9}"#);
                refused(fs, None, ANY)
            },
            exit::NEWER_FORMAT,
            "format 9, and this version knows formats up to 2",
        ),
        (
            "damaged",
            |fs| {
                fs.put(&root().join("identity.json"), b"{");
                refused(fs, None, ANY)
            },
            exit::IDENTITY_DAMAGED,
            "identity.json cannot be trusted",
        ),
        (
            "identity gone",
            |fs| {
                fs.shared().remove_file(&root().join("identity.json")).unwrap();
                refused(fs, None, ANY)
            },
            exit::IDENTITY_DAMAGED,
            "there is data beside it",
        ),
        (
            "identity and state gone",
            |fs| {
                fs.shared().remove_file(&root().join("identity.json")).unwrap();
                fs.shared().remove_file(&root().join("member/state.redb")).unwrap();
                refused(fs, None, ANY)
            },
            exit::IDENTITY_DAMAGED,
            "there is data beside it",
        ),
        (
            "etcd came later",
            |fs| {
                fs.put(&root().join("member/snap/db"), &[1; 100_000]);
                refused(fs, None, ANY)
            },
            exit::IDENTITY_DAMAGED,
            "member/snap/db cannot be trusted",
        ),
        (
            "log elsewhere",
            |fs| refused(fs, Some("/x/w"), ANY),
            exit::LOG_ABSENT,
            "there is no log in /x/w",
        ),
        (
            "a file",
            |_| {
                let fs = TestFs::default();
                fs.put(root(), b"");
                refused(&fs, None, ANY)
            },
            exit::NOT_A_FOLDER,
            "/x/d is not a folder; choose another by --data-dir",
        ),
        (
            "etcd's database",
            |_| {
                let fs = TestFs::default();
                fs.put(&root().join("member/snap/db"), &[0; 8192]);
                refused(&fs, None, ANY)
            },
            exit::ETCD,
            "with `etcdctl make-mirror`",
        ),
        (
            "etcd's log",
            |_| {
                let fs = TestFs::default();
                let name = "member/wal/0000000000000000-0000000000000000.wal";
                fs.put(&root().join(name), &[0; 8192]);
                refused(&fs, None, ANY)
            },
            exit::ETCD,
            "is a data dir of etcd",
        ),
        (
            "a foreign log",
            |_| {
                let fs = TestFs::default();
                fs.put(Path::new("/x/w/0000000000000000-0000000000000000.wal"), &[0; 8192]);
                refused(&fs, Some("/x/w"), ANY)
            },
            exit::LOG_FOREIGN,
            "set --wal-dir to the right folder",
        ),
        (
            "locked",
            |fs| {
                let _held = start(&fs.shared(), root(), None).unwrap();
                refused(fs, None, ANY)
            },
            exit::LOCKED,
            "in use by a running process",
        ),
        (
            "a log that is locked",
            |fs| {
                let _held = start(&fs.shared(), root(), None).unwrap();
                let (log, path) = (root().join("member/wal"), Path::new("/other"));
                drop(start(&fs.shared(), path, None).unwrap());
                let other = DataDir::open(fs.shared(), path, Some(&log), ANY).err().unwrap();
                (other.exit_code(), other.to_string())
            },
            exit::LOCKED,
            "choose another folder by --wal-dir",
        ),
    ];
    for (name, case, code, text) in cases {
        let (found, said) = case(&created());
        assert_eq!(found, code, "{name}: {said}");
        assert!(said.contains(text), "{name}: {said}");
    }
}

#[test]
fn a_data_dir_that_does_not_say_its_flags_is_opened_and_refused_without_them() {
    let fs = created();
    let file = Identity { made_with: None, ..identity(7) }.encode();
    fs.put(&root().join("identity.json"), &file);
    drop(start(&fs.shared(), root(), None).unwrap());
    let (_, said) = refused(&fs, None, Expected { cluster_id: Some(0xff), ..ANY });
    let advice =
        "; give again the peer URLs and the --initial-cluster-token that it was made with,";
    assert!(said.contains(advice), "{said}");
}

#[test]
fn the_member_folder_of_a_data_dir_is_refused_and_the_data_dir_above_it_named() {
    let open = |fs: &TestFs, path: &str| {
        let before = fs.changes();
        let opened = DataDir::open(fs.shared(), Path::new(path), None, ANY);
        let error = opened.map(|_| ()).unwrap_err();
        assert_eq!(fs.changes(), before, "{error}");
        (error.exit_code(), error.to_string())
    };
    for name in ["snap/db", "wal/0000000000000000-0000000000000000.wal"] {
        let fs = TestFs::default();
        fs.put(&root().join("member").join(name), &[0; 8192]);
        let (code, said) = open(&fs, "/x/d/member");
        assert_eq!(code, exit::ETCD, "{said}");
        assert!(
            said.starts_with("/x/d/member looks like a part of /x/d, the data dir of an etcd; ")
        );
        assert_eq!(open(&fs, "/x/d").0, exit::ETCD);
    }
    let fs = created();
    let (code, said) = open(&fs, "/x/d/member");
    assert_eq!(code, exit::SETTING, "{said}");
    assert!(said.starts_with("/x/d/member is a part of /x/d, which is a data dir of Quorate; "));
    // A path without a name of its own has a folder above it too.
    fs.put(Path::new("./state.redb"), b"state");
    let said = open(&fs, ".").1;
    assert!(said.starts_with(". is a part of ./.., which is a data dir of Quorate; "), "{said}");
}

#[test]
fn a_folder_with_a_log_of_its_own_or_files_named_like_those_of_a_member_is_none() {
    let fs = TestFs::default();
    for name in ["snap", "wal"] {
        fs.put(&root().join(name), b"mine");
    }
    start(&fs.shared(), root(), None).unwrap();
    let fs = TestFs::default();
    for _ in 0..2 {
        drop(start(&fs.shared(), root(), Some(&root().join("wal"))).unwrap());
    }
    fs.shared().remove_file(&root().join("identity.json")).unwrap();
    let (code, said) = refused(&fs, Some("/x/d/wal"), ANY);
    assert_eq!(code, exit::IDENTITY_DAMAGED, "{said}");
}

#[test]
fn a_folder_that_is_refused_is_left_as_it_was() {
    let fs = TestFs::default();
    fs.put(&root().join("member/snap/db"), &[0; 8192]);
    let before = fs.changes();
    refused(&fs, None, ANY);
    assert_eq!(fs.changes(), before);
}

#[test]
fn a_folder_with_files_of_others_becomes_a_data_dir_and_they_stay() {
    let fs = TestFs::default();
    fs.put(&root().join("lost+found"), b"kept");
    fs.put(&root().join("member/wal/notes.txt"), b"kept");
    start(&fs.shared(), root(), None).unwrap();
    assert_eq!(fs.bytes(&root().join("lost+found")), b"kept");
    assert_eq!(fs.bytes(&root().join("member/wal/notes.txt")), b"kept");
}

#[test]
fn a_crash_at_any_step_of_a_creation_is_made_good_by_the_next_start() {
    for wal_dir in [None, Some(Path::new("/x/elsewhere/w"))] {
        let fresh = || {
            let fs = TestFs::default();
            fs.put(Path::new("/x/other"), b"");
            fs.put(&root().join("keep"), b"mine");
            fs
        };
        let whole = fresh();
        start(&whole.shared(), root(), wal_dir).unwrap();
        let changes = whole.changes();
        assert!(changes > 30);
        let mut seen = BTreeMap::new();
        for change in 1..=changes {
            for side in 0..4 {
                let fs = fresh();
                fs.fail_at(change, true);
                start(&fs.shared(), root(), wal_dir).map(|_| ()).unwrap_err();
                let mut calls = 0;
                let fs = fs.after_crash(|n| {
                    calls += 1;
                    [0, n - 1, calls % n, (calls / 2) % n][side]
                });
                let found = DataDir::open(fs.shared(), root(), wal_dir, ANY).unwrap();
                *seen.entry(found.identity().is_some()).or_insert(0) += 1;
                drop(found);
                let data_dir = start(&fs.shared(), root(), wal_dir).unwrap();
                assert_eq!(data_dir.identity(), Some(&identity(7)));
                Wal::open(fs.shared(), data_dir.wal_dir(), OPTIONS, 0).unwrap();
                assert_eq!(fs.bytes(&root().join("keep")), b"mine");
                assert!(!fs.shared().exists(&root().join("creating.json")).unwrap());
            }
        }
        assert!(seen[&false] > 40 && seen[&true] > 2, "{seen:?}");
    }
}

#[test]
fn two_data_dirs_cannot_share_a_folder_for_their_logs() {
    let fs = TestFs::default();
    let wal_dir = Some(Path::new("/x/w"));
    let _held = start(&fs.shared(), root(), wal_dir).unwrap();
    let error = DataDir::open(fs.shared(), Path::new("/x/e"), wal_dir, ANY).map(|_| ());
    assert_eq!(error.unwrap_err().exit_code(), exit::LOG_FOREIGN);
}

#[test]
fn a_folder_above_that_cannot_be_synced_stops_no_start_unless_the_disk_fails() {
    use io::ErrorKind::{InvalidInput, Other, PermissionDenied, ReadOnlyFilesystem};
    let tolerated = [PermissionDenied, InvalidInput, ReadOnlyFilesystem];
    for kind in tolerated {
        let fs = TestFs::default();
        fs.put(Path::new("/x/other"), b"");
        for refused in ["/", ""] {
            fs.refuse_to_sync(Path::new(refused), kind);
            start(&fs.shared(), root(), None).unwrap();
        }
    }
    let fs = TestFs::default();
    fs.put(Path::new("/x/other"), b"");
    fs.refuse_to_sync(Path::new("/"), Other);
    assert!(start(&fs.shared(), root(), None).is_err());
    // What was created now must be durable, whatever its folder says.
    for kind in tolerated {
        let fs = TestFs::default();
        fs.put(Path::new("/x/other"), b"");
        fs.refuse_to_sync(Path::new("/x"), kind);
        assert!(start(&fs.shared(), root(), None).is_err(), "{kind}");
    }
}

#[test]
fn what_the_process_may_not_enter_is_named() {
    let error = DataDirError::io("list", root())(io::ErrorKind::PermissionDenied.into());
    assert_eq!(error.exit_code(), exit::NO_PERMISSION);
    assert!(error.to_string().starts_with("no permission for /x/d; give the folder"));
}

#[test]
fn etcd_and_quorate_refuse_each_others_data_dirs() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    let Some(mut etcd) = RealEtcd::start(&theirs, 23790) else { return };
    assert!(etcd.is_ready(), "{}", etcd.said);
    drop(etcd);
    let fs: SharedFs = Arc::new(OsFs);
    let error = DataDir::open(fs.clone(), &theirs, None, ANY).map(|_| ()).unwrap_err();
    assert_eq!(error.exit_code(), exit::ETCD);
    assert!(!theirs.join("lock").exists());

    drop(start(&fs, &ours, None).unwrap());
    let log = ours.join("member/wal/0000000000000000-0000000000000000.wal");
    let before = std::fs::read(&log).unwrap();
    let mut etcd = RealEtcd::start(&ours, 23790).unwrap();
    assert!(!etcd.is_ready());
    assert!(etcd.said.contains("invalid database"), "{}", etcd.said);
    assert_eq!(std::fs::read(&log).unwrap(), before);
    assert_eq!(start(&fs, &ours, None).unwrap().identity(), Some(&identity(7)));
}

#[test]
fn what_is_not_ours_is_named_and_left() {
    let fs = TestFs::default();
    let data_dir = start(&fs.shared(), root(), Some(Path::new("/x/d/log"))).unwrap();
    assert_eq!(data_dir.foreign().unwrap(), Vec::<PathBuf>::new());
    for name in ["notes.txt", "a"] {
        fs.put(&root().join(name), b"mine");
    }
    assert_eq!(data_dir.foreign().unwrap(), [Path::new("a"), Path::new("notes.txt")]);
    drop(data_dir);
    start(&fs.shared(), root(), Some(Path::new("/x/d/log"))).unwrap();
    assert!(fs.shared().exists(&root().join("notes.txt")).unwrap());
}
