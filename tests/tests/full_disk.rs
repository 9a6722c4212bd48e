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
    AlarmMember, AlarmRequest, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};
use quorate_tests::load::connect;
use quorate_tests::process::{Program, Server, locate};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

type Outcome = anyhow::Result<()>;

/// The exit code of a member whose disk is full.
const EXIT_DISK: i32 = 20;
/// The longest that a filled member may take to end or to be itself again.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two puts that show that there is room.
const POLL: Duration = Duration::from_millis(200);
/// How many do: for three looks at the disk.
const PUTS_TAKEN: usize = 15;

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

/// Waits until puts of this length are taken, as a person would: take the alarm back, try, and compact what
/// was tried.
async fn wait_for_room(url: &str, value_bytes: usize) -> Outcome {
    let (mut kv, mut maintenance) =
        (KvClient::new(connect(url).await?), MaintenanceClient::new(connect(url).await?));
    let put = PutRequest {
        key: "/room".into(),
        value: vec![b'w'; value_bytes].into(),
        ..Default::default()
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        let raised = maintenance.alarm(AlarmRequest::default()).await?.into_inner().alarms;
        for AlarmMember { member_id, alarm } in raised {
            let action = AlarmAction::Deactivate.into();
            maintenance.alarm(AlarmRequest { action, member_id, alarm }).await?;
        }
        if takes_for_a_while(&mut kv, &put).await? {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "no room after {DEADLINE:?}");
        compact_all(&mut kv).await?;
        tokio::time::sleep(POLL).await;
    }
}

/// Whether puts are taken for longer than it takes to notice that the disk is almost full.
async fn takes_for_a_while(kv: &mut KvClient<Channel>, put: &PutRequest) -> anyhow::Result<bool> {
    for _ in 0..PUTS_TAKEN {
        match kv.put(put.clone()).await {
            Ok(_) => tokio::time::sleep(POLL).await,
            Err(status) if status.code() == Code::ResourceExhausted => return Ok(false),
            Err(status) => return Err(status.into()),
        }
    }
    Ok(true)
}

/// Waits until reads are served: a member whose alarm is up is not healthy.
async fn serving(server: &mut Server) -> anyhow::Result<KvClient<Channel>> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(channel) = connect(&server.url()).await {
            let mut kv = KvClient::new(channel);
            let read = RangeRequest { key: "/".into(), ..Default::default() };
            if kv.range(read).await.is_ok() {
                return Ok(kv);
            }
        }
        server.check_running()?;
        anyhow::ensure!(Instant::now() < deadline, "not served after {DEADLINE:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn compact_all(kv: &mut KvClient<Channel>) -> Outcome {
    let read = RangeRequest { key: "/".into(), ..Default::default() };
    let header = kv.range(read).await?.into_inner().header.context("a header")?;
    // What is compacted already is no error here.
    match kv.compact(CompactionRequest { revision: header.revision, physical: true }).await {
        Err(status) if status.code() != Code::OutOfRange => Err(status.into()),
        _ => Ok(()),
    }
}

/// Fills a disk, and says how the member took it.
/// A disk that is filled: how large it is, by how many clients, and with values of which length.
struct Filling {
    mebibytes: u32,
    clients: usize,
    value_bytes: usize,
    /// Whether the disk may be full before anybody has looked.
    may_end: bool,
}

async fn is_filled_and_comes_back(filling: Filling) -> Outcome {
    let Some(disk) = Disk::of(filling.mebibytes)? else {
        println!("skipped: nothing can be mounted here");
        return Ok(());
    };
    // Nobody waits for what takes long here.
    let unhurried = ["--warning-unary-request-duration=1m", "--warning-apply-duration=1m"];
    let program = Program::quorate(locate::built_quorate()?).with(&unhurried);
    let mut server = Server::start_on(&program, |data_dir, _| Ok(symlink(&disk.root, data_dir)?))?;
    let outcome = comes_back(&mut server, &filling).await;
    outcome.with_context(|| format!("the member said:\n{}", server.log()))
}

async fn comes_back(server: &mut Server, filling: &Filling) -> Outcome {
    let &Filling { clients, value_bytes, may_end, .. } = filling;
    let Filled { acknowledged, is_ending } = fill(&server.url(), clients, value_bytes).await?;
    anyhow::ensure!(acknowledged.len() * value_bytes > 20 << 20, "{} puts", acknowledged.len());
    assert!(may_end || !is_ending, "NOSPACE comes first");
    if is_ending {
        assert_eq!(server.wait_ended(DEADLINE)?, Some(EXIT_DISK));
        server.respawn()?;
    }
    let mut kv = serving(server).await?;
    for key in &acknowledged {
        let read = RangeRequest { key: key.clone(), keys_only: true, ..Default::default() };
        let found = kv.range(read).await?.into_inner();
        assert_eq!(found.count, 1, "{key:?} was acknowledged");
    }
    let all = DeleteRangeRequest { key: "/".into(), range_end: "0".into(), ..Default::default() };
    let deleted = kv.delete_range(all).await?.into_inner();
    assert!(deleted.deleted >= i64::try_from(acknowledged.len())?);
    compact_all(&mut kv).await?;
    wait_for_room(&server.url(), value_bytes).await?;
    assert_eq!(server.terminate()?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_small_disk_full_of_small_values_is_refused_and_comes_back() -> Outcome {
    let (mebibytes, clients, value_bytes) = (300, 4, 100_000);
    is_filled_and_comes_back(Filling { mebibytes, clients, value_bytes, may_end: false }).await
}

#[tokio::test]
async fn a_small_disk_full_of_large_values_loses_nothing_and_comes_back() -> Outcome {
    let (mebibytes, clients, value_bytes) = (200, 64, 1_000_000);
    is_filled_and_comes_back(Filling { mebibytes, clients, value_bytes, may_end: true }).await
}
