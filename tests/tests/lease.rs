//! Leases of the real binary, beside a real etcd: each test is one function that both must pass.
//!
//! What needs `etcd` or `etcdctl` finds it on the PATH or prints one line that begins with `skipped:`.

use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, RangeRequest, ResponseHeader,
};
use quorate_tests::process::locate::tool;
use quorate_tests::process::{Program, Server, locate, run_to_end};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

type Outcome = anyhow::Result<()>;

const DEADLINE: Duration = Duration::from_secs(120);

/// Of a lease that is to end, in seconds: long enough for what is done with it before on a slow machine.
const SHORT_TTL_S: i64 = 6;
/// By how much a lease may outlive its deadline.
const LATE_MAX: Duration = Duration::from_secs(20);

fn on_quorate<F: Future<Output = Outcome>>(test: impl Fn(Client) -> F) -> Outcome {
    run(&Server::start(&Program::quorate(locate::built_quorate()?))?, test)
}

fn on_etcd<F: Future<Output = Outcome>>(name: &str, test: impl Fn(Client) -> F) -> Outcome {
    match tool("etcd", name) {
        Some(etcd) => run(&Server::start(&Program::etcd(etcd))?, test),
        None => Ok(()),
    }
}

fn run<F: Future<Output = Outcome>>(server: &Server, test: impl Fn(Client) -> F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::from_shared(server.url())?.connect().await?;
        let client =
            Client { kv: KvClient::new(channel.clone()), lease: LeaseClient::new(channel) };
        tokio::time::timeout(DEADLINE, test(client)).await?
    })
}

/// A client that asks one thing at a time.
struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

/// Renewals and their replies.
struct KeepAlive {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    replies: Streaming<LeaseKeepAliveResponse>,
}

impl Client {
    async fn grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        Ok(self.lease.lease_grant(LeaseGrantRequest { ttl, id }).await?.into_inner())
    }

    async fn revoke(&mut self, id: i64) -> Result<i64, Status> {
        Ok(revision(self.lease.lease_revoke(LeaseRevokeRequest { id }).await?.into_inner().header))
    }

    async fn time_to_live(&mut self, id: i64) -> Result<LeaseTimeToLiveResponse, Status> {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let mut reply = self.lease.lease_time_to_live(request).await?.into_inner();
        reply.keys.sort();
        Ok(reply)
    }

    async fn leases(&mut self) -> Result<Vec<i64>, Status> {
        let reply = self.lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
        Ok(reply.leases.into_iter().map(|lease| lease.id).collect())
    }

    async fn put(&mut self, key: &'static str, lease: i64) -> Result<i64, Status> {
        let put = PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
        Ok(revision(self.kv.put(put).await?.into_inner().header))
    }

    /// The revision of the store, and how many keys there are.
    async fn state(&mut self) -> Result<(i64, i64), Status> {
        let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let reply = self.kv.range(all).await?.into_inner();
        Ok((revision(reply.header), reply.count))
    }

    /// Opens a stream with some renewals on it: etcd does not answer before there is one.
    async fn keep_alive(&mut self, ids: &[i64]) -> anyhow::Result<KeepAlive> {
        let (requests, outgoing) = mpsc::channel(1000);
        for &id in ids {
            requests.send(LeaseKeepAliveRequest { id }).await?;
        }
        let outgoing = ReceiverStream::new(outgoing);
        let replies = self.lease.lease_keep_alive(outgoing).await?.into_inner();
        Ok(KeepAlive { requests, replies })
    }
}

impl KeepAlive {
    async fn send(&self, id: i64) -> Outcome {
        Ok(self.requests.send(LeaseKeepAliveRequest { id }).await?)
    }

    async fn next(&mut self) -> anyhow::Result<LeaseKeepAliveResponse> {
        self.replies.message().await?.context("the stream has ended")
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn refused<T: std::fmt::Debug>(reply: Result<T, Status>, code: Code, text: &str) {
    let status = reply.expect_err(text);
    assert_eq!((status.code(), status.message()), (code, text));
}

#[test]
fn leases_are_granted_asked_about_and_revoked() -> Outcome {
    on_quorate(granted_asked_and_revoked)
}

#[test]
fn etcd_grants_tells_and_revokes() -> Outcome {
    on_etcd("etcd_grants_tells_and_revokes", granted_asked_and_revoked)
}

async fn granted_asked_and_revoked(mut client: Client) -> Outcome {
    let granted = client.grant(0, 600).await?;
    let (id, header) = (granted.id, granted.header.context("a header")?);
    assert!(id > 0, "{id}");
    assert_eq!((granted.ttl, granted.error.as_str(), header.revision), (600, "", 1));
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
    assert_ne!(client.grant(0, 60).await?.id, id);
    // A time to live below the least is raised, whatever it is; an ID may be negative.
    assert_eq!(client.grant(-5, 1).await?.ttl, 2);
    assert_eq!(client.grant(6, -10).await?.ttl, 2);
    assert_eq!(client.grant(7, 9_000_000_000).await?.ttl, 9_000_000_000);
    let too_large = "etcdserver: too large lease TTL";
    refused(client.grant(8, 9_000_000_001).await, Code::OutOfRange, too_large);
    refused(client.grant(7, 9_000_000_001).await, Code::OutOfRange, too_large);
    let exists = "etcdserver: lease already exists";
    refused(client.grant(7, 60).await, Code::FailedPrecondition, exists);
    let not_found = "etcdserver: requested lease not found";
    refused(client.revoke(8).await, Code::NotFound, not_found);
    refused(client.revoke(0).await, Code::NotFound, not_found);
    refused(client.put("k", 8).await, Code::NotFound, not_found);

    assert_eq!(client.put("b", id).await?, 2);
    assert_eq!(client.put("a", id).await?, 3);
    assert_eq!(client.put("c", id).await?, 4);
    assert_eq!(client.put("c", 7).await?, 5);
    let left = client.time_to_live(id).await?;
    assert_eq!((left.id, left.granted_ttl, revision(left.header)), (id, 600, 5));
    assert!((540..=600).contains(&left.ttl), "{}", left.ttl);
    assert_eq!(left.keys, ["a", "b"]);
    let unknown = client.time_to_live(8).await?;
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl), (8, -1, 0));
    assert_eq!((revision(unknown.header), unknown.keys.len()), (5, 0));

    // All keys of a lease go in one revision; without keys there is none.
    assert_eq!(client.revoke(id).await?, 6);
    assert_eq!(client.state().await?, (6, 1));
    let empty = client.grant(0, 60).await?.id;
    assert_eq!(client.revoke(empty).await?, 6);
    refused(client.revoke(id).await, Code::NotFound, not_found);
    Ok(())
}

#[test]
fn a_key_belongs_to_the_lease_of_its_newest_version() -> Outcome {
    on_quorate(keys_follow_their_newest_version)
}

#[test]
fn etcd_passes_the_test_of_attachments() -> Outcome {
    on_etcd("etcd_passes_the_test_of_attachments", keys_follow_their_newest_version)
}

async fn keys_follow_their_newest_version(mut client: Client) -> Outcome {
    for id in [1, 2] {
        client.grant(id, 600).await?;
    }
    for key in ["moved", "freed", "deleted", "kept", "same"] {
        client.put(key, 1).await?;
    }
    client.put("moved", 2).await?;
    client.put("freed", 0).await?;
    client.put("same", 1).await?;
    client
        .kv
        .delete_range(DeleteRangeRequest { key: "deleted".into(), ..Default::default() })
        .await?;
    let keep = PutRequest { key: "kept".into(), ignore_lease: true, ..Default::default() };
    client.kv.put(keep).await?;
    assert_eq!(client.time_to_live(1).await?.keys, ["kept", "same"]);
    assert_eq!(client.time_to_live(2).await?.keys, ["moved"]);
    let before = client.state().await?;
    client.revoke(1).await?;
    assert_eq!(client.state().await?, (before.0 + 1, 2));
    client.revoke(2).await?;
    assert_eq!(client.state().await?, (before.0 + 2, 1));
    Ok(())
}

#[test]
fn renewals_keep_a_lease_and_its_end_takes_the_keys() -> Outcome {
    on_quorate(renewed_then_expired)
}

#[test]
fn etcd_passes_the_test_of_renewals() -> Outcome {
    on_etcd("etcd_passes_the_test_of_renewals", renewed_then_expired)
}

async fn renewed_then_expired(mut client: Client) -> Outcome {
    client.grant(1, SHORT_TTL_S).await?;
    client.grant(2, 3000).await?;
    client.grant(3, 1000).await?;
    let revision_before = client.put("k", 1).await?;
    assert_eq!(client.leases().await?, [1, 3, 2], "what ends first comes first");
    let mut stream = client.keep_alive(&[2, 77, 1, 0, 2]).await?;
    for (id, ttl) in [(2, 3000), (77, 0), (1, SHORT_TTL_S), (0, 0), (2, 3000)] {
        let reply = stream.next().await?;
        assert_eq!((reply.id, reply.ttl), (id, ttl));
        let header = reply.header.context("a header")?;
        assert_eq!(header.revision, revision_before);
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
    }
    // Renewed for longer than it was granted.
    let ttl = Duration::from_secs(SHORT_TTL_S.unsigned_abs());
    let renewed = keep_for(&mut stream, ttl + Duration::from_secs(1)).await?;
    assert_eq!(client.state().await?, (revision_before, 1));
    wait_for_keys(&mut client, 0).await?;
    let lived = renewed.elapsed();
    ensure!(lived > ttl && lived < ttl + LATE_MAX, "{lived:?}");
    assert_eq!(client.state().await?, (revision_before + 1, 0));
    stream.send(1).await?;
    let reply = stream.next().await?;
    assert_eq!((reply.id, reply.ttl, revision(reply.header)), (1, 0, revision_before + 1));
    assert_eq!(client.time_to_live(1).await?.ttl, -1);
    // The stream ends when the client ends its side.
    let KeepAlive { requests, mut replies } = stream;
    drop(requests);
    assert_eq!(replies.message().await?, None);
    Ok(())
}

/// Renews lease 1 again and again; returns when it did so for the last time.
async fn keep_for(stream: &mut KeepAlive, time: Duration) -> anyhow::Result<Instant> {
    let from = Instant::now();
    loop {
        let renewed = Instant::now();
        stream.send(1).await?;
        assert_eq!(stream.next().await?.ttl, SHORT_TTL_S);
        if from.elapsed() > time {
            return Ok(renewed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_for_keys(client: &mut Client, count: i64) -> Outcome {
    while client.state().await?.1 != count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[test]
fn leases_and_what_is_left_of_them_survive_a_kill() -> Outcome {
    let mut server = Server::start(&Program::quorate(locate::built_quorate()?))?;
    run(&server, async |mut client: Client| {
        for (id, ttl) in [(1, 600), (2, SHORT_TTL_S), (3, 600)] {
            client.grant(id, ttl).await?;
        }
        client.put("long", 1).await?;
        client.put("short", 2).await?;
        client.revoke(3).await?;
        Ok(())
    })?;
    server.kill()?;
    server.restart()?;
    run(&server, async |mut client: Client| {
        assert_eq!(client.time_to_live(1).await?.keys, ["long"]);
        assert_eq!(client.time_to_live(3).await?.ttl, -1);
        wait_for_keys(&mut client, 1).await?;
        assert_eq!(client.leases().await?, [1]);
        Ok(())
    })
}

#[test]
fn etcdctl_works_with_leases() -> Outcome {
    let Some(etcdctl) = tool("etcdctl", "etcdctl_works_with_leases") else { return Ok(()) };
    let server = Server::start(&Program::quorate(locate::built_quorate()?))?;
    etcdctl_leases_work(&etcdctl, &server)
}

#[test]
fn etcd_passes_the_test_of_etcdctl_with_leases() -> Outcome {
    let test = "etcd_passes_the_test_of_etcdctl_with_leases";
    let (Some(etcd), Some(etcdctl)) = (tool("etcd", test), tool("etcdctl", test)) else {
        return Ok(());
    };
    etcdctl_leases_work(&etcdctl, &Server::start(&Program::etcd(etcd))?)
}

fn etcdctl_leases_work(etcdctl: &std::path::Path, server: &Server) -> Outcome {
    let ctl = |words: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new(etcdctl);
        command.arg(format!("--endpoints={}", server.url())).args(words);
        let ended = run_to_end(&mut command, DEADLINE)?;
        ensure!(ended.code == Some(0), "etcdctl {words:?} failed: {}", ended.text);
        Ok(ended.text)
    };
    let granted = ctl(&["lease", "grant", "600"])?;
    let id = granted.split_whitespace().nth(1).context("an ID")?.to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(600s)\n"));
    assert_eq!(ctl(&["put", "k", "v", &format!("--lease={id}")])?, "OK\n");
    let left = ctl(&["lease", "timetolive", &id, "--keys"])?;
    assert!(left.starts_with(&format!("lease {id} granted with TTL(600s), remaining(")), "{left}");
    assert!(left.ends_with("attached keys([k])\n"), "{left}");
    let renewed = ctl(&["lease", "keep-alive", "--once", &id])?;
    assert_eq!(renewed, format!("lease {id} keepalived with TTL(600)\n"));
    assert_eq!(ctl(&["lease", "list"])?, format!("found 1 leases\n{id}\n"));
    assert_eq!(ctl(&["lease", "revoke", &id])?, format!("lease {id} revoked\n"));
    assert_eq!(ctl(&["get", "k"])?, "");
    assert_eq!(ctl(&["lease", "timetolive", &id])?, format!("lease {id} already expired\n"));
    let gone = ctl(&["lease", "keep-alive", "--once", &id]).expect_err("the lease is gone");
    assert!(gone.to_string().contains("etcdserver: requested lease not found"), "{gone}");
    Ok(())
}
