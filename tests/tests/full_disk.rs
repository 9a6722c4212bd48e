//! A member on a small disk that is filled up: what it loses (nothing), and how it comes back.
//!
//! The disk is a file system in memory, in a mount namespace of its own: where none can be made, one
//! line that begins with `skipped:` says so.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};
use quorate_tests::load::connect;
use quorate_tests::process::{Program, Server, locate};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

type Outcome = anyhow::Result<()>;

/// The exit code of a member whose disk is full.
const EXIT_DISK: i32 = 20;
/// The longest that a filled member may take to end or to be itself again.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A file system of its own; it is gone with this value.
struct Disk {
    holder: Child,
    root: PathBuf,
    _mount_point: TempDir,
}

impl Disk {
    /// `None` where this user may not mount anything.
    fn of(mebibytes: u32) -> anyhow::Result<Option<Disk>> {
        let mount_point = tempfile::tempdir()?;
        // It ends with its standard input.
        let script =
            format!("mount -t tmpfs -o size={mebibytes}m none \"$0\" && echo ready && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", &script])
            .arg(mount_point.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut said = String::new();
        let stdout = holder.stdout.take().context("it is piped")?;
        BufReader::new(stdout).read_line(&mut said)?;
        if said != "ready\n" {
            holder.wait()?;
            return Ok(None);
        }
        let below = mount_point.path().strip_prefix("/")?;
        let root = PathBuf::from(format!("/proc/{}/root", holder.id())).join(below);
        Ok(Some(Disk { holder, root, _mount_point: mount_point }))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What filling a disk came to.
#[derive(Default)]
struct Filled {
    /// The keys of all puts that were acknowledged.
    acknowledged: Vec<Bytes>,
    /// Some were not refused for want of space: the member ends.
    is_ending: bool,
}

/// Puts values of this length under new keys, by so many clients, until each is refused.
async fn fill(url: &str, clients: usize, value_bytes: usize) -> anyhow::Result<Filled> {
    let next = Arc::new(AtomicUsize::new(0));
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let mut filling = JoinSet::new();
    for _ in 0..clients {
        let mut kv = KvClient::new(connect(url).await?);
        let (next, value) = (next.clone(), value.clone());
        filling.spawn(async move {
            let mut filled = Filled::default();
            loop {
                let key = Bytes::from(format!("/fill/{:06}", next.fetch_add(1, Ordering::Relaxed)));
                let (taken, value) = (key.clone(), value.clone());
                match kv.put(PutRequest { key, value, ..Default::default() }).await {
                    Ok(_) => filled.acknowledged.push(taken),
                    Err(status) => {
                        filled.is_ending = status.code() != Code::ResourceExhausted;
                        return filled;
                    }
                }
            }
        });
    }
    let mut all = Filled::default();
    for filled in filling.join_all().await {
        all.acknowledged.extend(filled.acknowledged);
        all.is_ending |= filled.is_ending;
    }
    Ok(all)
}

/// Waits until a put of this length is taken, with the alarm taken back before each try.
async fn wait_for_room(url: &str, value_bytes: usize) -> Outcome {
    let (mut kv, mut maintenance) =
        (KvClient::new(connect(url).await?), MaintenanceClient::new(connect(url).await?));
    let value = Bytes::from(vec![b'w'; value_bytes]);
    let deadline = Instant::now() + DEADLINE;
    let mut taken = 0;
    // As much as a flush and several segments: the alarm does not come back.
    while taken < 40 {
        let (action, alarm) = (AlarmAction::Deactivate.into(), AlarmType::Nospace.into());
        if taken == 0 {
            maintenance.alarm(AlarmRequest { action, alarm, member_id: 0 }).await?;
        }
        let key = Bytes::from(format!("/room/{}", taken % 4));
        let put = PutRequest { key, value: value.clone(), ..Default::default() };
        match kv.put(put).await {
            Ok(_) => taken += 1,
            Err(status) if status.code() == Code::ResourceExhausted => taken = 0,
            Err(status) => return Err(status.into()),
        }
        if taken == 0 {
            anyhow::ensure!(Instant::now() < deadline, "no room after {DEADLINE:?}");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Fills a disk, and says how the member took it.
async fn is_filled_and_comes_back(mebibytes: u32, clients: usize, value_bytes: usize) -> Outcome {
    let Some(disk) = Disk::of(mebibytes)? else {
        println!("skipped: nothing can be mounted here");
        return Ok(());
    };
    // Nobody waits for what takes long here.
    let unhurried = ["--warning-unary-request-duration=1m", "--warning-apply-duration=1m"];
    let program = Program::quorate(locate::built_quorate()?).with(&unhurried);
    let mut server = Server::start_on(&program, |data_dir, _| Ok(symlink(&disk.root, data_dir)?))?;
    let outcome = comes_back(&mut server, clients, value_bytes).await;
    outcome.with_context(|| format!("the member said:\n{}", server.log()))
}

async fn comes_back(server: &mut Server, clients: usize, value_bytes: usize) -> Outcome {
    let Filled { acknowledged, is_ending } = fill(&server.url(), clients, value_bytes).await?;
    anyhow::ensure!(acknowledged.len() * value_bytes > 20 << 20, "{} puts", acknowledged.len());
    if is_ending {
        assert_eq!(server.wait_ended(DEADLINE)?, Some(EXIT_DISK));
        server.restart()?;
    }
    let mut kv = KvClient::new(connect(&server.url()).await?);
    for key in &acknowledged {
        let read = RangeRequest { key: key.clone(), keys_only: true, ..Default::default() };
        let found = kv.range(read).await?.into_inner();
        assert_eq!(found.count, 1, "{key:?} was acknowledged");
    }
    let all = DeleteRangeRequest { key: "/".into(), range_end: "0".into(), ..Default::default() };
    let deleted = kv.delete_range(all).await?.into_inner();
    assert!(deleted.deleted >= i64::try_from(acknowledged.len())?);
    let revision = deleted.header.context("a header")?.revision;
    kv.compact(CompactionRequest { revision, physical: false }).await?;
    wait_for_room(&server.url(), value_bytes).await?;
    assert_eq!(server.terminate()?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_small_disk_full_of_small_values_is_refused_and_comes_back() -> Outcome {
    is_filled_and_comes_back(300, 16, 100_000).await
}

#[tokio::test]
async fn a_small_disk_full_of_large_values_loses_nothing_and_comes_back() -> Outcome {
    is_filled_and_comes_back(200, 64, 1_000_000).await
}
