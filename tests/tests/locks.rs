//! Locks and elections: the same calls on `quorate` and on a real `etcd`, with equal replies.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};
use quorate_tests::load::connect;
use quorate_tests::process::{Program, Server, locate};
use tonic::transport::Channel;
use tonic::{Response, Status};

type Outcome = anyhow::Result<()>;

const PATIENCE: Duration = Duration::from_secs(30);
const ALICE: i64 = 0x11;
const BOB: i64 = 0x12;

/// Replies as text, without the IDs and the term of the server.
#[derive(Default)]
struct Transcript {
    lines: Vec<String>,
}

impl Transcript {
    fn note<T: Debug>(&mut self, call: &str, reply: Result<Response<T>, Status>) {
        let reply = match reply {
            Ok(reply) => format!("{:?}", reply.into_inner()),
            Err(status) => format!("{:?} {:?}", status.code(), status.message()),
        };
        let reply = ["cluster_id: ", "member_id: ", "raft_term: "].iter().fold(reply, hide);
        self.lines.push(format!("{call} -> {reply}"));
    }
}

/// `text` without the number behind `name`.
fn hide(text: String, name: &&str) -> String {
    match text.split_once(name) {
        Some((before, after)) => {
            format!("{before}{name}_{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => text,
    }
}

#[derive(Clone)]
struct Clients {
    kv: KvClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
}

impl Clients {
    async fn connect(server: &Server) -> anyhow::Result<Clients> {
        let channel = connect(&server.url()).await?;
        let mut lease = LeaseClient::new(channel.clone());
        for id in [ALICE, BOB] {
            lease.lease_grant(pb::LeaseGrantRequest { id, ttl: 600 }).await?;
        }
        Ok(Clients {
            kv: KvClient::new(channel.clone()),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel),
        })
    }

    async fn put(&mut self, key: &'static str, value: &'static str) -> Outcome {
        let (key, value) = (key.into(), value.into());
        self.kv.put(pb::PutRequest { key, value, ..Default::default() }).await?;
        Ok(())
    }

    async fn delete(&mut self, key: &'static str) -> Outcome {
        self.kv
            .delete_range(pb::DeleteRangeRequest { key: key.into(), ..Default::default() })
            .await?;
        Ok(())
    }

    async fn exists(&mut self, key: &'static str) -> anyhow::Result<bool> {
        let request = pb::RangeRequest { key: key.into(), ..Default::default() };
        Ok(self.kv.range(request).await?.into_inner().count > 0)
    }

    /// Returns when the key is there, or is gone.
    async fn until(&mut self, key: &'static str, is_there: bool) -> Outcome {
        tokio::time::timeout(PATIENCE, async {
            while self.exists(key).await? != is_there {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        })
        .await
        .with_context(|| format!("{key} in time"))?
    }
}

/// Runs the same calls on both servers and compares what they answer.
fn assert_same<F>(test: &str, calls: impl Fn(Clients) -> F) -> Outcome
where
    F: Future<Output = anyhow::Result<Transcript>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = |program: Program| {
        let server = Server::start(&program)?;
        runtime.block_on(async { calls(Clients::connect(&server).await?).await })
    };
    let ours = run(Program::quorate(locate::built_quorate()?)).context("quorate")?.lines;
    let Some(etcd) = locate::tool("etcd", test) else { return Ok(()) };
    let theirs = run(Program::etcd(etcd)).context("etcd")?.lines;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    Ok(())
}

fn lock(name: &'static str, lease: i64) -> LockRequest {
    LockRequest { name: name.into(), lease }
}

async fn use_locks(mut c: Clients) -> anyhow::Result<Transcript> {
    let mut t = Transcript::default();
    t.note("a lease that is none", c.lock.lock(lock("l", 99)).await);
    t.note("a negative one", c.lock.lock(lock("l", -5)).await);
    t.note("alice", c.lock.lock(lock("l", ALICE)).await);
    t.note("alice again", c.lock.lock(lock("l", ALICE)).await);
    t.note("a lock without a name", c.lock.lock(lock("", BOB)).await);
    // Bob waits until Alice lets go.
    let mut other = c.clone();
    let bob = tokio::spawn(async move { other.lock.lock(lock("l", BOB)).await });
    c.until("l/12", true).await?;
    c.put("elsewhere", "1").await?;
    ensure!(!bob.is_finished(), "a lock is held by one");
    t.note("unlock", c.lock.unlock(UnlockRequest { key: "l/11".into() }).await);
    t.note("bob", bob.await?);
    t.note("unlock nothing", c.lock.unlock(UnlockRequest { key: "l/11".into() }).await);
    t.note("unlock no key", c.lock.unlock(UnlockRequest::default()).await);
    // Who loses its key while it waits is told so when its turn comes.
    let mut other = c.clone();
    let alice = tokio::spawn(async move { other.lock.lock(lock("l", ALICE)).await });
    c.until("l/11", true).await?;
    c.delete("l/11").await?;
    c.delete("l/12").await?;
    t.note("a key that was lost", alice.await?);
    // Who gives up leaves no key behind.
    c.lock.lock(lock("l", ALICE)).await?;
    let mut other = c.clone();
    let bob = tokio::spawn(async move { other.lock.lock(lock("l", BOB)).await });
    c.until("l/12", true).await?;
    bob.abort();
    c.until("l/12", false).await?;
    ensure!(c.exists("l/11").await?, "the holder stays");
    Ok(t)
}

#[test]
fn locks_are_taken_in_turn_and_answered_as_by_etcd() -> Outcome {
    assert_same("locks_are_taken_in_turn_and_answered_as_by_etcd", use_locks)
}

fn campaign(lease: i64, value: &'static str) -> CampaignRequest {
    CampaignRequest { name: "e".into(), lease, value: value.into() }
}

async fn hold_elections(mut c: Clients) -> anyhow::Result<Transcript> {
    let mut t = Transcript::default();
    let who = || LeaderRequest { name: "e".into() };
    let say = |key: &LeaderKey, rev: i64| ProclaimRequest {
        leader: Some(LeaderKey { rev, ..key.clone() }),
        value: "said".into(),
    };
    t.note("nobody leads", c.election.leader(who()).await);
    t.note("a lease that is none", c.election.campaign(campaign(99, "x")).await);
    let won = c.election.campaign(campaign(ALICE, "alice")).await;
    let key = won.as_ref().map_or(None, |won| won.get_ref().leader.clone()).context("a key")?;
    t.note("alice", won);
    t.note("alice says the same", c.election.campaign(campaign(ALICE, "alice")).await);
    t.note("alice says more", c.election.campaign(campaign(ALICE, "more")).await);
    t.note("who leads", c.election.leader(who()).await);
    let mut other = c.clone();
    let bob = tokio::spawn(async move { other.election.campaign(campaign(BOB, "bob")).await });
    c.until("e/12", true).await?;
    t.note("say nothing", c.election.proclaim(ProclaimRequest::default()).await);
    t.note(
        "say without key",
        c.election.proclaim(say(&LeaderKey { lease: BOB, ..Default::default() }, 0)).await,
    );
    t.note("say", c.election.proclaim(say(&key, key.rev)).await);
    t.note("say of another time", c.election.proclaim(say(&key, 1)).await);
    t.note("who leads", c.election.leader(who()).await);
    t.note("resign nothing", c.election.resign(ResignRequest::default()).await);
    let resign = |rev: i64| ResignRequest { leader: Some(LeaderKey { rev, ..key.clone() }) };
    t.note("resign of another time", c.election.resign(resign(1)).await);
    ensure!(!bob.is_finished(), "one leads");
    t.note("resign", c.election.resign(resign(key.rev)).await);
    t.note("bob", bob.await?);
    t.note("resign again", c.election.resign(resign(key.rev)).await);
    t.note("who leads", c.election.leader(who()).await);
    let mut other = c.clone();
    let alice = tokio::spawn(async move { other.election.campaign(campaign(ALICE, "late")).await });
    c.until("e/11", true).await?;
    alice.abort();
    c.until("e/11", false).await?;
    Ok(t)
}

#[test]
fn elections_are_held_and_answered_as_by_etcd() -> Outcome {
    assert_same("elections_are_held_and_answered_as_by_etcd", hold_elections)
}

async fn watch_leaders(mut c: Clients) -> anyhow::Result<Transcript> {
    let mut t = Transcript::default();
    let who = || LeaderRequest { name: "o".into() };
    c.put("o/1", "a").await?;
    let mut leaders = c.election.observe(who()).await?.into_inner();
    let changes: [(&str, &str); 6] =
        [("", ""), ("o/1", "b"), ("o/2", "c"), ("o/1", ""), ("o/2", "d"), ("o/3", "e")];
    for (key, value) in changes {
        match (key, value) {
            ("", _) => {}
            (key, "") => c.delete(key).await?,
            (key, value) => c.put(key, value).await?,
        }
        // A candidate changes nothing for those who look at the leader.
        let is_seen = !matches!((key, value), ("o/2", "c") | ("o/3", "e"));
        if is_seen {
            let leader = tokio::time::timeout(PATIENCE, leaders.message()).await??;
            let leader = leader.context("the stream ended")?;
            let kv = leader.kv.context("a key")?;
            t.lines
                .push(format!("{key}={value} -> {:?} {:?} {}", kv.key, kv.value, kv.mod_revision));
        }
    }
    // Nothing is left out for who reads late.
    let values = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    for value in values {
        c.put("o/2", value).await?;
    }
    for value in values {
        let leader = tokio::time::timeout(PATIENCE, leaders.message()).await??;
        let kv = leader.and_then(|leader| leader.kv).context("a key")?;
        ensure!(kv.value == value, "{:?} where {value} was said", kv.value);
        t.lines.push(format!("{value} -> {}", kv.mod_revision));
    }
    Ok(t)
}

#[test]
fn observers_see_each_leader_as_by_etcd() -> Outcome {
    assert_same("observers_see_each_leader_as_by_etcd", watch_leaders)
}

#[test]
fn a_lock_without_a_lease_gets_one_of_a_minute() -> Outcome {
    let server = Server::start(&Program::quorate(locate::built_quorate()?))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut clients = Clients::connect(&server).await?;
        let key: Bytes = clients.lock.lock(lock("l", 0)).await?.into_inner().key;
        let id = i64::from_str_radix(std::str::from_utf8(&key[2..])?, 16)?;
        let mut lease = LeaseClient::new(connect(&server.url()).await?);
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let found = lease.lease_time_to_live(request).await?.into_inner();
        assert_eq!((found.granted_ttl, found.keys), (60, vec![key]));
        Ok(())
    })
}
