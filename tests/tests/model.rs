//! The naive model against a real etcd: random requests, equal replies.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use quorate_tests::model::{Model, Refusal, Reply, Request};
use quorate_tests::process::locate;
use quorate_tests::sim::rng::Rng;
use quorate_tests::sim::workload::{Shape, Workload};
use tonic::transport::Channel;

const PORTS: std::ops::Range<u16> = 23_600..23_700;
const START_MAX: Duration = Duration::from_secs(30);
const SEEDS: std::ops::Range<u64> = 1..4;
const REQUESTS: usize = 4000;
/// Leases that the keys of a run have.
const LEASES: i64 = 8;
/// How many hashes of compactions etcd remembers.
const HASHES_CACHED: usize = 10;

/// A running etcd with an empty data dir; killed and removed at the end.
struct Etcd {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said so then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let start = usize::try_from(std::process::id() % 50)?;
    PORTS.cycle().skip(start).take(PORTS.len()).find(is_free).context("no free port")
}

fn start(binary: PathBuf) -> anyhow::Result<Etcd> {
    let folder = tempfile::tempdir()?;
    let client = free_port()?;
    let url = format!("http://127.0.0.1:{client}");
    let peer =
        PORTS.rev().find(|port| *port != client && TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let peer_url = format!("http://127.0.0.1:{}", peer.context("no free port")?);
    let process = Command::new(binary)
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--initial-cluster", &format!("default={peer_url}"), "--unsafe-no-fsync"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Etcd { process, url, _folder: folder })
}

struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

async fn connect(etcd: &mut Etcd) -> anyhow::Result<Clients> {
    let deadline = Instant::now() + START_MAX;
    loop {
        ensure!(etcd.process.try_wait()?.is_none(), "etcd ended before it served");
        ensure!(Instant::now() < deadline, "etcd did not serve within {START_MAX:?}");
        let endpoint = Channel::from_shared(etcd.url.clone())?;
        if let Ok(channel) = endpoint.connect().await {
            let kv = KvClient::new(channel.clone());
            let lease = LeaseClient::new(channel.clone());
            return Ok(Clients { kv, lease, maintenance: MaintenanceClient::new(channel) });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Clients {
    async fn call(&mut self, request: Request) -> Result<Reply, tonic::Status> {
        let reply = match request {
            Request::Range(request) => Reply::Range(self.kv.range(request).await?.into_inner()),
            Request::Put(request) => Reply::Put(self.kv.put(request).await?.into_inner()),
            Request::DeleteRange(request) => {
                Reply::DeleteRange(self.kv.delete_range(request).await?.into_inner())
            }
            Request::Txn(request) => Reply::Txn(self.kv.txn(request).await?.into_inner()),
            Request::Compact(request) => {
                Reply::Compact(self.kv.compact(request).await?.into_inner())
            }
            Request::HashKv(request) => {
                Reply::HashKv(self.maintenance.hash_kv(request).await?.into_inner())
            }
            Request::LeaseRevoke(request) => {
                Reply::LeaseRevoke(self.lease.lease_revoke(request).await?.into_inner())
            }
        };
        Ok(reply.normalized())
    }
}

#[test]
fn the_model_answers_as_etcd_does() -> anyhow::Result<()> {
    let test = "the_model_answers_as_etcd_does";
    let Some(binary) = locate::tool("etcd", test) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for seed in SEEDS {
        let mut etcd = start(binary.clone())?;
        runtime
            .block_on(async {
                let mut clients = connect(&mut etcd).await?;
                compare(&mut clients, seed).await
            })
            .with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

/// etcd remembers the hashes of its last compactions, each computed before it deleted anything, and
/// answers with them when asked for exactly that revision.
fn cached_hash(model: &Model, compactions: &[(i64, i64)], request: &Request) -> Option<Reply> {
    let Request::HashKv(hash) = request else { return None };
    let cached = compactions.iter().rev().take(HASHES_CACHED);
    let (before, at) = cached.copied().find(|(_, at)| *at == hash.revision)?;
    Some(Reply::HashKv(model.hash_between(before, at)))
}

async fn compare(clients: &mut Clients, seed: u64) -> anyhow::Result<()> {
    let mut model = Model::new();
    let mut workload = Workload::new(Shape::default(), Rng::new(seed));
    let mut compactions = Vec::new();
    let mut refused = 0;
    let mut leases: Vec<i64> = (1..=LEASES).collect();
    for &id in &leases {
        clients.lease.lease_grant(LeaseGrantRequest { id, ttl: 3600 }).await?;
        model.grant_lease(id);
    }
    workload.set_leases(leases.clone());
    for at in 0..REQUESTS {
        let mut request = workload.next_request(model.revision());
        if at % (REQUESTS / leases.len().max(2)) == 1
            && let Some(id) = leases.pop()
        {
            workload.set_leases(leases.clone());
            request = Request::LeaseRevoke(LeaseRevokeRequest { id });
        }
        if let Request::Compact(compaction) = &mut request {
            // Without it, what a hash covers depends on how far etcd has deleted.
            compaction.physical = true;
        }
        let compacted_before = model.compact_revision();
        let expected = match cached_hash(&model, &compactions, &request) {
            Some(hash) => Ok(hash),
            None => model.call(&request),
        };
        if model.compact_revision() != compacted_before {
            compactions.push((compacted_before, model.compact_revision()));
        }
        if expected == Err(Refusal::KeyDeletedBefore) {
            continue;
        }
        let given = clients.call(request.clone()).await;
        refused += usize::from(expected.is_err());
        match (&expected, &given) {
            (Ok(expected), Ok(given)) => {
                ensure!(expected == given, "{at}: {request:?}\nmodel {expected:?}\netcd {given:?}");
            }
            (Err(refusal), Err(status)) => {
                ensure!(
                    refusal.text() == status.message() && refusal.code() == status.code() as i32,
                    "{at}: {request:?}\nmodel {refusal:?}\netcd {status:?}"
                );
            }
            _ => anyhow::bail!("{at}: {request:?}\nmodel {expected:?}\netcd {given:?}"),
        }
    }
    ensure!(refused > 50 && refused < REQUESTS / 2, "{refused} requests were refused");
    Ok(())
}
