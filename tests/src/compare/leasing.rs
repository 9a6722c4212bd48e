//! P11: leases that are kept alive, and leases that end together.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest};
use tokio::task::LocalSet;
use tonic::transport::Channel;

use super::sample::{Sample, Scale};
use crate::load::connect;
use crate::process::{Program, Server};

const LEASES: i64 = 100_000;
const STREAMS: i64 = 100;
const CONNECTIONS: i64 = 10;
const TTL_S: i64 = 60;
/// Every lease is renewed once in a third of its time.
const ROUND: Duration = Duration::from_secs(20);
const SHORT_TTL_S: i64 = 30;
const GONE_MAX: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(200);

/// CPU of 100,000 renewals over 100 streams in 20 seconds, and the time in which 100,000 leases that
/// end together are gone. (A million takes etcd a quarter of an hour.)
///
/// # Errors
/// When the server cannot start, ends, refuses a request, or loses a lease.
pub fn leases(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let leases = LEASES / i64::try_from(scale.divisor)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::start(program)?;
    let cpu = LocalSet::new().block_on(&runtime, keep_alive(&server, leases))?;
    drop(server);
    let server = Server::start(program)?;
    let gone = LocalSet::new().block_on(&runtime, expire(&server, leases))?;
    Ok(Sample::from([("renew_cpu", cpu), ("expired_gone", gone)]))
}

async fn keep_alive(server: &Server, leases: i64) -> anyhow::Result<f64> {
    let channels = channels(server).await?;
    grant(&channels, leases, TTL_S).await?;
    let before = server.usage()?;
    let mut tasks = Vec::new();
    for stream in 0..STREAMS {
        let channel = channels[usize::try_from(stream % CONNECTIONS)?].clone();
        tasks.push(tokio::task::spawn_local(renew(channel, stream, leases)));
    }
    for task in tasks {
        task.await??;
    }
    let cpu = server.usage()?.cpu.saturating_sub(before.cpu);
    let left = count(&channels[0]).await?;
    if left != leases {
        bail!("{left} of {leases} leases that were kept alive are left");
    }
    Ok(cpu.as_secs_f64())
}

/// Renews the leases of one stream once, spread over the round.
async fn renew(channel: Channel, stream: i64, leases: i64) -> anyhow::Result<()> {
    let ids: Vec<i64> = (0..leases).filter(|id| id % STREAMS == stream).map(|id| id + 1).collect();
    let mut pace = tokio::time::interval(ROUND / u32::try_from(ids.len().max(1))?);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut ids = ids.into_iter().peekable();
    // etcd says nothing at all before the first request, not even that it took the call.
    let Some(&first) = ids.peek() else { return Ok(()) };
    requests.send(LeaseKeepAliveRequest { id: first }).await?;
    let call = LeaseClient::new(channel).lease_keep_alive(outgoing).await?;
    let mut responses = call.into_inner();
    for id in ids {
        if id != first {
            pace.tick().await;
            requests.send(LeaseKeepAliveRequest { id }).await?;
        }
        let response = responses.message().await?.context("a keep-alive stream ended")?;
        if response.id != id || response.ttl <= 0 {
            bail!("lease {id} was lost: {response:?}");
        }
    }
    Ok(())
}

async fn expire(server: &Server, leases: i64) -> anyhow::Result<f64> {
    let channels = channels(server).await?;
    let start = Instant::now();
    grant(&channels, leases, SHORT_TTL_S).await?;
    // The first ends so long after its grant, the last one a little later.
    let first_end = start + Duration::from_secs(SHORT_TTL_S.unsigned_abs());
    let deadline = first_end + GONE_MAX;
    while count(&channels[0]).await? > 0 {
        if Instant::now() > deadline {
            bail!("expired leases are still there after {GONE_MAX:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(Instant::now().saturating_duration_since(first_end).as_secs_f64())
}

async fn channels(server: &Server) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(connect(&server.url()).await?);
    }
    Ok(channels)
}

/// Grants leases 1 to `leases` from as many clients as there are streams.
async fn grant(channels: &[Channel], leases: i64, ttl: i64) -> anyhow::Result<()> {
    let mut tasks = Vec::new();
    for client in 0..STREAMS {
        let channel = channels[usize::try_from(client % CONNECTIONS)?].clone();
        tasks.push(tokio::task::spawn_local(async move {
            let mut lease = LeaseClient::new(channel);
            for id in (0..leases).filter(|id| id % STREAMS == client) {
                lease.lease_grant(LeaseGrantRequest { ttl, id: id + 1 }).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn count(channel: &Channel) -> anyhow::Result<i64> {
    let mut lease = LeaseClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let reply = lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
    Ok(i64::try_from(reply.leases.len())?)
}
