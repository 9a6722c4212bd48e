//! P9 and P10: a member that many watch.

use std::time::Instant;

use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use tokio::task::LocalSet;

use super::sample::{KEY_BYTES, Sample, Scale, VALUE_BYTES, value};
use crate::load::{Keys, WatchStream, connect};
use crate::process::{Program, Server};

const MIB: f64 = 1024.0 * 1024.0;
const CONNECTIONS: usize = 100;
const WATCHERS_PER_CONNECTION: usize = 100;
const STREAMS_PER_CONNECTION: usize = 100;
const PUTS: u64 = 300;
/// Puts in flight while events are delivered.
const WRITERS: u64 = 4;
const MILLION: f64 = 1e6;

/// P9: events to 100 watchers on each of 100 connections, all of one prefix.
///
/// # Errors
/// When the server cannot start, ends, or refuses a request.
pub fn fan_out(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let server = Server::start(program)?;
    let puts = PUTS / scale.divisor / WRITERS * WRITERS;
    let deliveries = puts as f64 * (CONNECTIONS * WATCHERS_PER_CONNECTION) as f64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (before, elapsed) = LocalSet::new().block_on(&runtime, async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let channel = connect(&server.url()).await?;
            streams.push(WatchStream::open(channel, prefix(), WATCHERS_PER_CONNECTION).await?);
        }
        let before = server.usage()?;
        let start = Instant::now();
        let mut tasks = Vec::new();
        for mut stream in streams {
            let events = puts * WATCHERS_PER_CONNECTION as u64;
            tasks.push(tokio::task::spawn_local(async move { stream.take(events).await }));
        }
        let kv = KvClient::new(connect(&server.url()).await?);
        for first in 0..WRITERS {
            tasks.push(tokio::task::spawn_local(write(kv.clone(), first, puts)));
        }
        for task in tasks {
            task.await??;
        }
        anyhow::Ok((before, start.elapsed()))
    })?;
    let cpu = server.usage()?.cpu.saturating_sub(before.cpu);
    Ok(Sample::from([
        ("fan_out_time", elapsed.as_secs_f64() * MILLION / deliveries),
        ("fan_out_cpu", cpu.as_secs_f64() * MILLION / deliveries),
        ("deliveries_per_second", deliveries / elapsed.as_secs_f64()),
    ]))
}

async fn write(
    mut kv: KvClient<tonic::transport::Channel>,
    first: u64,
    puts: u64,
) -> anyhow::Result<()> {
    let keys = Keys::new(puts, KEY_BYTES);
    let mut index = first;
    while index < puts {
        let request =
            PutRequest { key: keys.at(index), value: value(VALUE_BYTES), ..Default::default() };
        kv.put(request).await?;
        index += WRITERS;
    }
    Ok(())
}

/// P10: what 100 idle streams on each of 100 connections take, with one watcher each.
///
/// # Errors
/// As [`fan_out`].
pub fn idle(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let server = Server::start(program)?;
    let streams_per_connection = STREAMS_PER_CONNECTION / usize::try_from(scale.divisor)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let before = server.usage()?;
    let after = LocalSet::new().block_on(&runtime, async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let channel = connect(&server.url()).await?;
            for _ in 0..streams_per_connection {
                streams.push(WatchStream::open(channel.clone(), prefix(), 1).await?);
            }
        }
        server.usage()
    })?;
    let used = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
    Ok(Sample::from([
        ("idle_streams", used as f64 / MIB),
        ("idle_member_mib", before.anonymous_bytes as f64 / MIB),
    ]))
}

fn prefix() -> (Bytes, Bytes) {
    (Bytes::from_static(b"k"), Bytes::from_static(b"l"))
}
