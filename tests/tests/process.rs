//! The real binary, seen from outside: started, asked, killed, started again.
//!
//! `quorate` is built first by whatever runs this test. What needs `etcd` or `etcdctl` finds it on
//! the PATH or prints one line that begins with `skipped:`.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use quorate_proto::mvccpb::KeyValue;
use quorate_tests::load::Session;
use quorate_tests::process::locate::tool;
use quorate_tests::process::{Ended, Ports, Program, Server, locate, run_to_end};
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

const READY: &str = "ready to serve client requests";
/// The longest that a process may take that refuses to start.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(30);
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

fn quorate() -> anyhow::Result<Program> {
    Ok(Program::quorate(locate::built_quorate()?))
}

/// What a compaction has yet to delete is not unused: it is deleted before the rewrite, not after.
#[tokio::test]
async fn a_defragmentation_right_after_a_compaction_gives_back_what_was_compacted() -> Outcome {
    const PUTS: usize = 2000;
    let server = Server::start(&quorate()?)?;
    let channel = quorate_tests::load::connect(&server.url()).await?;
    let mut kv = KvClient::new(channel.clone());
    for _ in 0..PUTS {
        let value = vec![b'v'; 8 << 10].into();
        kv.put(PutRequest { key: "k".into(), value, ..Default::default() }).await?;
    }
    let revision = i64::try_from(PUTS)? + 1;
    kv.compact(CompactionRequest { revision, physical: false }).await?;
    let request = tonic::Request::new(DefragmentRequest {});
    MaintenanceClient::new(channel).defragment(request).await?;
    let file_bytes = std::fs::metadata(server.data_dir().join("member/state.redb"))?.len();
    assert!(file_bytes < 4 << 20, "{file_bytes} bytes for one key");
    Ok(())
}

#[test]
fn what_was_put_is_read() -> Outcome {
    let server = Server::start(&quorate()?)?;
    let mut session = Session::open(&server.url())?;
    let first = session.put("name".into(), "quorate".into())?;
    let second = session.put("name".into(), "again".into())?;
    assert_eq!((first, second), (2, 3));
    let read = |revision| RangeRequest { key: "name".into(), revision, ..Default::default() };
    for (revision, value) in [(0, "again"), (2, "quorate")] {
        let (reply, _) = session.range(read(revision))?;
        assert_eq!(KeyValue::decode(reply.kvs[0].clone())?.value, value);
        assert_eq!(reply.header.context("a header")?.revision, 3);
    }
    Ok(())
}

#[test]
fn a_kill_loses_no_acknowledged_write_and_leaves_no_half_transaction() -> Outcome {
    survives_kills(&quorate()?)
}

/// The same test, to show that what it asks for is what a real etcd does.
#[test]
fn etcd_passes_the_test_of_kills() -> Outcome {
    match tool("etcd", "etcd_passes_the_test_of_kills") {
        Some(etcd) => survives_kills(&Program::etcd(etcd)),
        None => Ok(()),
    }
}

#[test]
fn sigterm_ends_it_in_order() -> Outcome {
    let mut server = Server::start(&quorate()?)?;
    Session::open(&server.url())?.put("kept".into(), "yes".into())?;
    assert_eq!(server.terminate()?, Some(0), "the exit code, with the log:\n{}", server.log());
    assert!(server.log().contains(READY), "the log says that it served:\n{}", server.log());
    server.restart()?;
    let request = RangeRequest { key: "kept".into(), ..Default::default() };
    assert_eq!(Session::open(&server.url())?.range(request)?.0.count, 1);
    Ok(())
}

#[test]
fn a_data_dir_that_others_may_enter_is_warned_of_at_the_start() -> Outcome {
    const WARNING: &str = "others may look into the data";
    let mut server = Server::start(&quorate()?)?;
    assert!(!server.log().contains(WARNING), "it made the folder itself:\n{}", server.log());
    assert_eq!(server.terminate()?, Some(0), "the exit code, with the log:\n{}", server.log());
    std::fs::set_permissions(server.data_dir(), Permissions::from_mode(0o750))?;
    server.restart()?;
    assert!(server.log().contains(WARNING), "{}", server.log());
    Ok(())
}

/// Whoever reads the row first: a client, or a start without a checkpoint of the index.
#[test]
fn a_flipped_bit_in_a_value_ends_the_process_with_file_and_row() -> Outcome {
    const DAMAGED: Option<i32> = Some(22);
    let program = quorate()?;
    let mut server = Server::start(&program)?;
    let value = "a value that is nowhere else";
    Session::open(&server.url())?.put("k".into(), value.into())?;
    assert_eq!(server.terminate()?, Some(0), "the exit code, with the log:\n{}", server.log());
    let store = server.data_dir().join("member/state.redb");
    let mut file = std::fs::read(&store)?;
    let places: Vec<usize> = (0..file.len() - value.len())
        .filter(|&at| file[at..].starts_with(value.as_bytes()))
        .collect();
    ensure!(!places.is_empty(), "the value is flushed when the process ends in order");
    places.into_iter().for_each(|at| file[at + 4] ^= 1);
    std::fs::write(&store, file)?;

    server.restart()?;
    let request = RangeRequest { key: "k".into(), ..Default::default() };
    let reply = Session::open(&server.url())?.range(request);
    assert!(reply.is_err(), "it was served: {reply:?}");
    assert_eq!(server.wait_ended(REFUSAL_DEADLINE)?, DAMAGED, "{}", server.log());
    let reason = format!("{}: the file is damaged: row 2.0 does not match", store.display());
    assert!(server.log().contains(&reason), "{}", server.log());

    std::fs::remove_dir_all(server.data_dir().join("member/index"))?;
    std::fs::create_dir(server.data_dir().join("member/index"))?;
    server.respawn()?;
    assert_eq!(server.wait_ended(REFUSAL_DEADLINE)?, DAMAGED, "{}", server.log());
    assert_eq!(server.log().matches(&reason).count(), 2, "{}", server.log());
    Ok(())
}

#[test]
fn a_second_process_on_a_data_dir_is_refused() -> Outcome {
    let program = quorate()?;
    let mut server = Server::start(&program)?;
    let ended = start_that_ends(&program, server.data_dir())?;
    let words = ["lock", "in use", "another process", "running"];
    assert_refused(&ended, server.data_dir(), &words);
    server.check_running()
}

#[test]
fn a_start_with_another_token_names_the_flags_that_the_data_dir_was_made_with() -> Outcome {
    const OTHER_CLUSTER: Option<i32> = Some(12);
    let flags =
        ["--initial-advertise-peer-urls=http://h:1", "--initial-cluster=default=http://h:1"];
    let program = quorate()?.with(&flags);
    let mut server = Server::start(&program)?;
    assert_eq!(server.terminate()?, Some(0), "the exit code, with the log:\n{}", server.log());
    let other = program.with(&["--initial-cluster-token=other"]);
    let ended = start_that_ends(&other, server.data_dir())?;
    assert_eq!(ended.code, OTHER_CLUSTER, "{}", ended.text);
    let named = format!("{} and --initial-cluster-token=etcd-cluster", flags[1]);
    assert!(ended.text.contains(&named), "{}", ended.text);
    Ok(())
}

#[test]
fn a_data_dir_of_etcd_is_refused() -> Outcome {
    let Some(etcd) = tool("etcd", "a_data_dir_of_etcd_is_refused") else { return Ok(()) };
    let program = quorate()?;
    let mut server = Server::start(&Program::etcd(etcd))?;
    Session::open(&server.url())?.put("of".into(), "etcd".into())?;
    server.kill()?;
    let ended = start_that_ends(&program, server.data_dir())?;
    assert_refused(&ended, server.data_dir(), &["etcdctl make-mirror"]);
    let inside = start_that_ends(&program, &server.data_dir().join("member"))?;
    assert_eq!(inside.code, ended.code, "{}", inside.text);
    assert_refused(&inside, server.data_dir(), &["the data dir of an etcd"]);
    let locked = Server::start(&program)?;
    let other = start_that_ends(&program, locked.data_dir())?;
    assert_ne!(ended.code, other.code, "each refusal has an exit code of its own");
    // The refusal changed nothing.
    server.restart()?;
    let request = RangeRequest { key: "of".into(), ..Default::default() };
    assert_eq!(Session::open(&server.url())?.range(request)?.0.count, 1);
    Ok(())
}

#[test]
fn an_unknown_flag_is_refused_by_its_name() -> Outcome {
    let mut command = Command::new(quorate()?.path);
    let ended = run_to_end(command.arg("--no-such-flag=1"), REFUSAL_DEADLINE)?;
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    assert!(ended.text.contains("no-such-flag"), "{}", ended.text);
    Ok(())
}

#[test]
fn an_empty_data_dir_is_no_member_of_an_existing_cluster() -> Outcome {
    let folder = tempfile::tempdir()?;
    let program = quorate()?.with(&["--initial-cluster-state=existing"]);
    let ended = start_that_ends(&program, &folder.path().join("d"))?;
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("holds no member"), "{}", ended.text);
    Ok(())
}

#[test]
fn a_start_that_finds_no_member_to_continue_leaves_nothing_behind() -> Outcome {
    let folder = tempfile::tempdir()?;
    let [absent, empty, log] = ["a/b", "empty", "log"].map(|name| folder.path().join(name));
    std::fs::create_dir(&empty)?;
    let wal_dir = format!("--wal-dir={}", log.display());
    let program = quorate()?.with(&["--initial-cluster-state=existing", &wal_dir]);
    for data_dir in [&absent, &empty] {
        let ended = start_that_ends(&program, data_dir)?;
        assert_eq!(ended.code, Some(1), "{}", ended.text);
    }
    let left = std::fs::read_dir(folder.path())?.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(std::fs::read_dir(&empty)?.count(), 0);
    Ok(())
}

#[test]
fn etcdctl_works_against_it() -> Outcome {
    let Some(path) = tool("etcdctl", "etcdctl_works_against_it") else { return Ok(()) };
    let server = Server::start(&quorate()?)?;
    etcdctl_works(&path, &server)
}

/// The same commands against a real etcd, to show that what they expect is what it answers.
#[test]
fn etcd_passes_the_test_of_etcdctl() -> Outcome {
    let test = "etcd_passes_the_test_of_etcdctl";
    let (Some(etcd), Some(etcdctl)) = (tool("etcd", test), tool("etcdctl", test)) else {
        return Ok(());
    };
    etcdctl_works(&etcdctl, &Server::start(&Program::etcd(etcd))?)
}

fn etcdctl_works(path: &Path, server: &Server) -> Outcome {
    let ctl = |words: &[&str]| etcdctl(path, &server.url(), words);
    assert_eq!(ctl(&["put", "a", "1"])?, "OK\n");
    assert_eq!(ctl(&["put", "a", "2", "--prev-kv"])?, "OK\na\n1\n");
    assert_eq!(ctl(&["put", "b", "3"])?, "OK\n");
    assert_eq!(ctl(&["get", "", "--prefix"])?, "a\n2\nb\n3\n");
    assert_eq!(ctl(&["get", "a", "--rev=2", "--print-value-only"])?, "1\n");
    let swap = "mod(\"a\") = \"3\"\n\nput a swapped\nget b\n\nget a\n\n";
    assert_eq!(etcdctl_with(path, &server.url(), &["txn"], swap)?, "SUCCESS\n\nOK\n\nb\n3\n");
    assert_eq!(ctl(&["del", "b"])?, "1\n");
    assert_eq!(ctl(&["compaction", "4", "--physical"])?, "compacted revision 4\n");
    let compacted = ctl(&["get", "a", "--rev=2"]).expect_err("the revision is compacted");
    assert!(compacted.to_string().contains("required revision has been compacted"), "{compacted}");
    let status = ctl(&["endpoint", "status", "-w", "json"])?;
    assert!(
        status.contains("\"version\":\"3.7.3\"") && status.contains("\"revision\":6"),
        "{status}"
    );
    let hash = ctl(&["endpoint", "hashkv", "-w", "json"])?;
    assert!(hash.contains("\"compact_revision\":4"), "{hash}");
    Ok(())
}

fn etcdctl(path: &Path, url: &str, words: &[&str]) -> anyhow::Result<String> {
    etcdctl_with(path, url, words, "")
}

fn etcdctl_with(path: &Path, url: &str, words: &[&str], input: &str) -> anyhow::Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    let mut command = Command::new(path);
    command.arg(format!("--endpoints={url}")).args(words);
    let ended = run_to_end(command.stdin(file), COMMAND_DEADLINE)?;
    ensure!(ended.code == Some(0), "etcdctl {words:?} failed: {}", ended.text);
    Ok(ended.text)
}

/// Starts a process that is expected to refuse this data directory.
fn start_that_ends(program: &Program, data_dir: &Path) -> anyhow::Result<Ended> {
    run_to_end(&mut program.command(data_dir, Ports::free()?), REFUSAL_DEADLINE)
}

/// A refusal has an exit code that is neither success, a crash nor a usage error, and its text names
/// the folder and one of the words.
fn assert_refused(ended: &Ended, data_dir: &Path, words: &[&str]) {
    let code = ended.code.unwrap_or_else(|| panic!("ended by a signal: {}", ended.text));
    assert!(![0, 1, 2, 101].contains(&code), "exit code {code}: {}", ended.text);
    let folder = data_dir.display().to_string();
    assert!(ended.text.contains(&folder), "the folder is named: {}", ended.text);
    assert!(words.iter().any(|word| ended.text.contains(word)), "{words:?}: {}", ended.text);
}

const KILLS: usize = 3;
const WRITERS: u64 = 16;
/// Transactions that are acknowledged before a kill.
const ACKNOWLEDGED: u64 = 400;
const ROUND_DEADLINE: Duration = Duration::from_secs(60);

/// Kills a server three times in the middle of a stream of transactions, each of which puts one
/// number under two keys, and reads everything back after each start.
fn survives_kills(program: &Program) -> Outcome {
    let mut server = Server::start(program)?;
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let written = Written::default();
        let (url, shared) = (server.url(), written.clone());
        let writers = std::thread::spawn(move || write_until_killed(&url, round, &shared));
        written.wait_for(ACKNOWLEDGED, &mut server)?;
        server.kill()?;
        writers.join().expect("a writer does not panic")?;
        server.restart()?;
        let found = read_pairs(&mut Session::open(&server.url())?)?;
        for (writer, count) in written.counts() {
            for number in 0..count {
                let key = format!("{round}/{writer}/{number:06}");
                ensure!(found.contains_key(&key), "{key} was acknowledged and is gone");
            }
        }
        acknowledged += written.total();
    }
    ensure!(acknowledged >= ACKNOWLEDGED * KILLS as u64, "too few writes to say anything");
    Ok(())
}

/// How many transactions of each writer were acknowledged; a writer sends them in order.
#[derive(Clone, Default)]
struct Written(Arc<[AtomicU64; WRITERS as usize]>);

impl Written {
    fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|count| count.load(Ordering::Acquire)).enumerate()
    }

    fn total(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }

    fn wait_for(&self, total: u64, server: &mut Server) -> Outcome {
        let deadline = Instant::now() + ROUND_DEADLINE;
        while self.total() < total {
            server.check_running()?;
            if Instant::now() > deadline {
                bail!("{} transactions were acknowledged in {ROUND_DEADLINE:?}", self.total());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn write_until_killed(url: &str, round: usize, written: &Written) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::from_shared(url.to_owned())?.connect().await?;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write_pairs(channel.clone(), writer, round, written.clone()));
        }
        writers.join_all().await;
        Ok(())
    })
}

/// Writes until the connection breaks.
async fn write_pairs(channel: Channel, writer: u64, round: usize, written: Written) {
    let mut kv = KvClient::new(channel);
    for number in 0.. {
        let put = |side: &str| {
            let key = format!("{side}/{round}/{writer}/{number:06}").into();
            let value = Bytes::from(format!("{number}"));
            let request = Request::RequestPut(PutRequest { key, value, ..Default::default() });
            RequestOp { request: Some(request) }
        };
        let success = vec![put("left"), put("right")];
        if kv.txn(TxnRequest { success, ..Default::default() }).await.is_err() {
            return;
        }
        written.0[writer as usize].fetch_add(1, Ordering::Release);
    }
}

/// Everything under `left/`, after a check that the same is under `right/`.
fn read_pairs(session: &mut Session) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let mut sides = Vec::new();
    for side in ["left/", "right/"] {
        let range_end = side.replace('/', "0").into();
        let request = RangeRequest { key: side.into(), range_end, ..Default::default() };
        let (reply, _) = session.range(request)?;
        let mut found = BTreeMap::new();
        for kv in reply.kvs {
            let kv = KeyValue::decode(kv)?;
            let key = String::from_utf8(kv.key.to_vec())?;
            found.insert(key[side.len()..].to_owned(), kv.value);
        }
        sides.push(found);
    }
    let (right, left) = (sides.pop().context("two sides")?, sides.pop().context("two sides")?);
    ensure!(left == right, "half a transaction is visible");
    Ok(left)
}
