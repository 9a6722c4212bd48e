//! `Maintenance.Snapshot`, from outside: what is saved is what a real etcd comes back with.
//!
//! What needs `etcd`, `etcdctl` or `etcdutl` finds it on the PATH or prints one line that begins with
//! `skipped:`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, HashKvResponse, PutRequest, RangeRequest,
    SnapshotRequest, SnapshotResponse,
};
use quorate_tests::process::{Program, Server, locate, run_to_end};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::Streaming;
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// The length of the SHA-256 behind a saved file.
const DIGEST_BYTES: u64 = 32;
/// What one message holds.
const CHUNK_BYTES: usize = 32 * 1024;
/// Snapshots that are sent at a time.
const SNAPSHOTS_MAX: usize = 4;

fn quorate() -> anyhow::Result<Program> {
    Ok(Program::quorate(locate::built_quorate()?))
}

/// The tools of etcd, or `None` after the line that says which is missing.
struct Tools {
    etcd: PathBuf,
    etcdctl: PathBuf,
    etcdutl: PathBuf,
}

impl Tools {
    fn find(test: &str) -> Option<Self> {
        let find = |name: &str| locate::tool(name, test);
        Some(Self { etcd: find("etcd")?, etcdctl: find("etcdctl")?, etcdutl: find("etcdutl")? })
    }

    /// Saves a snapshot of `server` to `path`.
    fn save(&self, server: &Server, path: &Path) -> Outcome {
        let mut command = Command::new(&self.etcdctl);
        command.arg(format!("--endpoints={}", server.url())).args(["snapshot", "save"]).arg(path);
        succeed(&mut command).map(drop)
    }

    /// What `etcdutl` says of a saved file, after it checked every page of it.
    fn status(&self, path: &Path) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.etcdutl);
        let text = succeed(command.args(["snapshot", "status", "-w", "json"]).arg(path))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// A real etcd on what `etcdutl` restores from a saved file, digest and all.
    fn restored(&self, path: &Path) -> anyhow::Result<Server> {
        Server::start_on(&Program::etcd(self.etcd.clone()), |data_dir, ports| {
            let mut command = Command::new(&self.etcdutl);
            command.args(["snapshot", "restore"]).arg(path).arg("--data-dir").arg(data_dir);
            let peer = ports.peer_url();
            command.arg(format!("--initial-cluster=default={peer}"));
            command.arg(format!("--initial-advertise-peer-urls={peer}")).arg("--name=default");
            succeed(&mut command).map(drop)
        })
    }
}

fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let ended = run_to_end(command, COMMAND_DEADLINE)?;
    ensure!(ended.code == Some(0), "{command:?} failed: {}", ended.text);
    Ok(ended.text)
}

/// A client of both services that a snapshot concerns.
struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    fn open(url: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel =
            runtime.block_on(Channel::from_shared(url.to_owned())?.connect()).context("connect")?;
        Ok(Self { runtime, channel })
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    fn put(&self, key: &str, value: impl Into<Bytes>) -> anyhow::Result<i64> {
        let (key, value) = (Bytes::from(key.to_owned()), value.into());
        let put = PutRequest { key, value, ..Default::default() };
        let reply = self.runtime.block_on(self.kv().put(put))?.into_inner();
        Ok(reply.header.context("a header")?.revision)
    }

    fn delete(&self, key: &str) -> Outcome {
        let delete = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        Ok(self.runtime.block_on(self.kv().delete_range(delete)).map(drop)?)
    }

    fn compact(&self, revision: i64, physical: bool) -> Outcome {
        let compaction = CompactionRequest { revision, physical };
        Ok(self.runtime.block_on(self.kv().compact(compaction)).map(drop)?)
    }

    /// Everything at `revision`, in wire form.
    fn all(&self, revision: i64) -> anyhow::Result<Vec<Bytes>> {
        let all = Bytes::from_static(b"\0");
        let range =
            RangeRequest { key: all.clone(), range_end: all, revision, ..Default::default() };
        Ok(self.runtime.block_on(self.kv().range(range))?.into_inner().kvs)
    }

    fn hash(&self, revision: i64) -> anyhow::Result<HashKvResponse> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let reply = self.runtime.block_on(client.hash_kv(HashKvRequest { revision }))?;
        Ok(HashKvResponse { header: None, ..reply.into_inner() })
    }

    fn snapshot(&self) -> Result<Streaming<SnapshotResponse>, tonic::Status> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        self.runtime.block_on(client.snapshot(SnapshotRequest {})).map(tonic::Response::into_inner)
    }

    fn next(
        &self,
        stream: &mut Streaming<SnapshotResponse>,
    ) -> Result<Option<SnapshotResponse>, tonic::Status> {
        self.runtime.block_on(stream.message())
    }
}

/// Equal keys, and equal hashes at each of `revisions`.
fn assert_equal(ours: &Client, etcd: &Client, revisions: impl Iterator<Item = i64>) -> Outcome {
    for revision in revisions {
        assert_eq!(ours.all(revision)?, etcd.all(revision)?, "keys at {revision}");
        assert_eq!(ours.hash(revision)?, etcd.hash(revision)?, "the hash at {revision}");
    }
    Ok(())
}

#[test]
fn etcd_restores_what_was_saved() -> Outcome {
    let Some(tools) = Tools::find("etcd_restores_what_was_saved") else { return Ok(()) };
    let server = Server::start(&quorate()?)?;
    let ours = Client::open(&server.url())?;
    for round in 0..5 {
        for key in 0..200 {
            ours.put(&format!("key/{key:04}"), format!("{round}"))?;
        }
    }
    ours.put("large", vec![7; 1 << 20])?;
    ours.put("medium", vec![8; 10_000])?;
    for key in 0..20 {
        ours.delete(&format!("key/{key:04}"))?;
    }
    let compacted = ours.put("after", "deletions")? - 1;
    // The tombstone at the compact revision is one of the rows.
    ours.compact(compacted, true)?;
    ours.delete("key/0100")?;
    let revision = ours.put("last", "one")?;

    let file = server.folder().join("saved.db");
    tools.save(&server, &file)?;
    let status = tools.status(&file)?;
    let length = std::fs::metadata(&file)?.len();
    assert_eq!(length % 512, DIGEST_BYTES);
    assert_eq!(status["totalSize"], length - DIGEST_BYTES);
    assert_eq!(status["revision"], revision);
    assert_eq!(status["totalKey"], ours.all(0)?.len());
    assert_eq!(status["version"], "3.7.0");
    let restored = tools.restored(&file)?;
    assert_equal(&ours, &Client::open(&restored.url())?, compacted..=revision)
}

#[test]
fn etcd_restores_what_a_member_without_keys_saved() -> Outcome {
    let test = "etcd_restores_what_a_member_without_keys_saved";
    let Some(tools) = Tools::find(test) else { return Ok(()) };
    let server = Server::start(&quorate()?)?;
    let file = server.folder().join("saved.db");
    tools.save(&server, &file)?;
    assert_eq!(tools.status(&file)?["totalKey"], 0);
    let restored = tools.restored(&file)?;
    let (ours, etcd) = (Client::open(&server.url())?, Client::open(&restored.url())?);
    assert_equal(&ours, &etcd, 1..=1)?;
    assert_eq!(etcd.put("a", "1")?, 2);
    Ok(())
}

/// Writes and compactions while a snapshot is saved: it is of one moment, and they go on.
#[test]
fn a_snapshot_under_load_is_of_one_moment() -> Outcome {
    let Some(tools) = Tools::find("a_snapshot_under_load_is_of_one_moment") else { return Ok(()) };
    let server = Server::start(&quorate()?)?;
    let ours = Client::open(&server.url())?;
    for key in 0..60 {
        ours.put(&format!("bulk/{key}"), vec![key; 500_000])?;
    }
    let file = server.folder().join("saved.db");
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let during = std::thread::scope(|scope| -> anyhow::Result<(u64, i64)> {
        let writer = scope.spawn(|| -> Outcome {
            let client = Client::open(&server.url())?;
            while !stop.load(Ordering::Acquire) {
                let count = written.fetch_add(1, Ordering::AcqRel);
                client.put(&format!("small/{}", count % 50), format!("{count}"))?;
            }
            Ok(())
        });
        let result = (|| {
            let deadline = Instant::now() + COMMAND_DEADLINE;
            while written.load(Ordering::Acquire) < 200 {
                ensure!(Instant::now() < deadline, "there was no load");
                std::thread::yield_now();
            }
            let before = written.load(Ordering::Acquire);
            ours.compact(100, false)?;
            let compaction = scope.spawn(|| Client::open(&server.url())?.compact(150, false));
            tools.save(&server, &file)?;
            compaction.join().expect("no panic")?;
            Ok((written.load(Ordering::Acquire) - before, 150))
        })();
        stop.store(true, Ordering::Release);
        writer.join().expect("the writer does not panic")?;
        result
    })?;
    let (written, compacted) = during;
    ensure!(written > 10, "only {written} writes while the snapshot was saved");
    let status = tools.status(&file)?;
    let revision = status["revision"].as_i64().context("a revision")?;
    let restored = tools.restored(&file)?;
    let etcd = Client::open(&restored.url())?;
    // Whether the second compaction came before the snapshot or after it, now it has come for both.
    if etcd.hash(0)?.compact_revision < compacted {
        etcd.compact(compacted, true)?;
    }
    assert_equal(&ours, &etcd, revision - 5..=revision)
}

#[test]
fn messages_say_how_much_is_left_and_the_digest_comes_last() -> Outcome {
    let server = Server::start(&quorate()?)?;
    let client = Client::open(&server.url())?;
    for key in 0..7 {
        client.put(&format!("{key}"), vec![key; 300_000])?;
    }
    let mut stream = client.snapshot()?;
    let (mut messages, mut left) = (Vec::new(), None);
    while let Some(message) = client.next(&mut stream)? {
        assert_eq!((message.header, message.version.as_str()), (None, "3.7.0"));
        messages.push(message);
    }
    let digest = messages.pop().context("messages")?;
    assert_eq!((digest.blob.len() as u64, digest.remaining_bytes), (DIGEST_BYTES, 0));
    let last = messages.len() - 1;
    for (at, message) in messages.iter().enumerate() {
        let length = message.blob.len();
        assert!(length == CHUNK_BYTES || (at == last && length > 0 && length < CHUNK_BYTES));
        let expected = left.unwrap_or(message.remaining_bytes + length as u64) - length as u64;
        assert_eq!(message.remaining_bytes, expected, "message {at}");
        left = Some(expected);
    }
    assert_eq!(left, Some(0));
    let length: usize = messages.iter().map(|message| message.blob.len()).sum();
    assert!(length > 7 * 300_000 && length.is_multiple_of(4096), "{length}");
    Ok(())
}

#[test]
fn a_cancelled_snapshot_makes_room_for_another() -> Outcome {
    let server = Server::start(&quorate()?)?;
    let client = Client::open(&server.url())?;
    // More than a connection holds unread, so that none ends by itself.
    for key in 0..20 {
        client.put(&format!("{key}"), vec![key; 1_000_000])?;
    }
    // Each on a connection of its own, because what is not read holds up all that share one.
    let mut saving = Vec::new();
    for _ in 0..SNAPSHOTS_MAX {
        let client = Client::open(&server.url())?;
        let mut stream = client.snapshot()?;
        client.next(&mut stream)?.context("a message")?;
        saving.push((client, stream));
    }
    let refused = client.snapshot().map(drop).unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many requests");
    let (cancels, stream) = saving.pop().context("four")?;
    drop(stream);
    // A connection is only driven while something is asked on it.
    cancels.put("driven", "on")?;
    let deadline = Instant::now() + COMMAND_DEADLINE;
    while let Err(refused) = client.snapshot() {
        assert_eq!(refused.message(), "etcdserver: too many requests");
        assert!(Instant::now() < deadline, "there is no room after a cancellation");
    }
    Ok(())
}
