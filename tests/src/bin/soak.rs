//! A member that many watch, for minutes: what nobody reads must not pile up in its memory.
//!
//! ```text
//! 99 connections, a stream each, 100 watchers of one prefix each     read all they get
//! 5 connections, 10 streams each, a watcher of all keys each         read nothing after `created`
//! 50 connections, a stream each, a watcher of 160 MiB of history     read nothing after `created`
//! 8 writers at a fixed rate, a compaction every ten seconds
//! ```
//!
//! Those who asked for history must not cost more than what is on its way to them: `STALLED_MIB_MAX`.
//! Memory is what no file backs. It is flat if the mean of the last quarter of the time is at most a
//! twentieth above that of the second quarter; the first is for getting warm.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{CompactionRequest, PutRequest};
use quorate_tests::load::{WatchStream, connect};
use quorate_tests::process::{Program, Server, locate};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

const PREFIXES: usize = 99;
const WATCHERS_PER_PREFIX: usize = 100;
const SILENT_CONNECTIONS: usize = 5;
const SILENT_PER_CONNECTION: usize = 10;
/// Each has a connection for itself: on one that is shared the first takes all of the window.
const SILENT_BEHIND: usize = 50;
const HISTORY_PUTS: u64 = 20_000;
const HISTORY_KEYS: u64 = 100;
const HISTORY_VALUE_BYTES: usize = 8 << 10;
/// For how many looks those who asked for history are left alone.
const STALLED_LOOKS: u64 = 4;
/// The most that memory may grow when they come: 16 MiB of history, a buffer of 128 KiB for each, and
/// what the store has cached.
const STALLED_MIB_MAX: f64 = 48.0;
const KEYS: u64 = 9_900;
const VALUE_BYTES: usize = 256;
const WRITERS: u64 = 8;
const COMPACT_EVERY: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MIB: f64 = 1024.0 * 1024.0;
/// The most that memory may grow from the second quarter of the time to the last.
const GROWTH_MAX: f64 = 1.05;

/// Has 10,000 watchers on a member, of which 100 never read, puts keys for some minutes, and prints the
/// member's memory every minute. Fails if it grows.
#[derive(Debug, Parser)]
struct Options {
    /// Measures this etcd instead of Quorate.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// The quorate binary [default: the one built beside this executable].
    #[arg(long)]
    quorate: Option<PathBuf>,
    /// How long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Puts in a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
}

/// What has happened so far.
#[derive(Default)]
struct Counts {
    puts: Cell<u64>,
    events: Cell<u64>,
    revision: Cell<i64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let program = match options.etcd {
        Some(etcd) => Program::etcd(etcd),
        None => Program::quorate(locate::quorate(options.quorate.as_deref())?),
    };
    let mut server = Server::start(&program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = soak(&mut server, options.minutes, options.rate);
    let anonymous_mib = LocalSet::new().block_on(&runtime, work)?;
    let (before, after) = quarters(&anonymous_mib);
    let is_flat = after <= before * GROWTH_MAX;
    println!(
        "second quarter {before:.1} MiB, last quarter {after:.1} MiB: {}",
        if is_flat { "flat" } else { "it grows" }
    );
    Ok(ExitCode::from(u8::from(!is_flat)))
}

/// The means of the second and of the last quarter.
fn quarters(samples: &[f64]) -> (f64, f64) {
    let quarter = samples.len() / 4;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (mean(&samples[quarter..quarter * 2]), mean(&samples[samples.len() - quarter..]))
}

/// Runs the load; gives the memory in MiB, once a second.
async fn soak(server: &mut Server, minutes: u64, rate: u64) -> anyhow::Result<Vec<f64>> {
    let counts = Rc::new(Counts::default());
    let _behind = stall_in_history(server).await?;
    let mut readers = Vec::new();
    for prefix in 0..PREFIXES {
        let channel = connect(&server.url()).await?;
        let range = (format!("{prefix:02}/").into(), format!("{prefix:02}0").into());
        let stream = WatchStream::open(channel, range, WATCHERS_PER_PREFIX).await?;
        readers.push(tokio::task::spawn_local(read(stream, counts.clone())));
    }
    let mut silent = Vec::new();
    for _ in 0..SILENT_CONNECTIONS {
        let channel = connect(&server.url()).await?;
        for _ in 0..SILENT_PER_CONNECTION {
            let all = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
            silent.push(WatchStream::open(channel.clone(), all, 1).await?);
        }
    }
    let channel = connect(&server.url()).await?;
    let mut writers = Vec::new();
    for first in 0..WRITERS {
        writers.push(tokio::task::spawn_local(write(channel.clone(), first, rate, counts.clone())));
    }
    writers.push(tokio::task::spawn_local(compact(channel, counts.clone())));

    println!("minute       puts     events sent   anonymous   resident");
    let begin = Instant::now();
    let mut samples = Vec::new();
    for second in 1..=minutes * 60 {
        tokio::time::sleep_until((begin + LOOK_EVERY * u32::try_from(second)?).into()).await;
        server.check_running()?;
        let usage = server.usage()?;
        samples.push(usage.anonymous_bytes as f64 / MIB);
        if second.is_multiple_of(60) {
            println!(
                "{:>6} {:>10} {:>15} {:>7.1} MiB {:>6.1} MiB",
                second / 60,
                counts.puts.get(),
                counts.events.get(),
                usage.anonymous_bytes as f64 / MIB,
                usage.resident_bytes as f64 / MIB,
            );
        }
        // None of these ends but with an error.
        for task in readers.iter_mut().chain(&mut writers) {
            if task.is_finished() {
                task.await??;
                anyhow::bail!("a reader or a writer ended");
            }
        }
    }
    Ok(samples)
}

/// Fills the member with history, and has many ask for all of it who never read.
async fn stall_in_history(server: &mut Server) -> anyhow::Result<Vec<WatchStream>> {
    let channel = connect(&server.url()).await?;
    let mut writers = Vec::new();
    for first in 0..WRITERS {
        let mut kv = KvClient::new(channel.clone());
        let value = Bytes::from(vec![b'h'; HISTORY_VALUE_BYTES]);
        writers.push(tokio::task::spawn_local(async move {
            for number in (first..HISTORY_PUTS).step_by(usize::try_from(WRITERS)?) {
                let key = format!("history/{:03}", number % HISTORY_KEYS).into();
                kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    let all = || (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
    // One of them warms what the store caches.
    let mut behind =
        vec![WatchStream::open_from(connect(&server.url()).await?, all(), 1, 1).await?];
    let before = stalled_mib(server).await?;
    for _ in 1..SILENT_BEHIND {
        let channel = connect(&server.url()).await?;
        behind.push(WatchStream::open_from(channel, all(), 1, 1).await?);
    }
    let grown = stalled_mib(server).await? - before;
    println!("{SILENT_BEHIND} who stopped in history: {grown:.1} MiB more than {before:.1} MiB");
    anyhow::ensure!(grown <= STALLED_MIB_MAX, "more than {STALLED_MIB_MAX} MiB");
    Ok(behind)
}

/// The most memory at some looks, in MiB.
async fn stalled_mib(server: &mut Server) -> anyhow::Result<f64> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut most = 0.0f64;
    for _ in 0..STALLED_LOOKS {
        looks.tick().await;
        most = most.max(server.usage()?.anonymous_bytes as f64 / MIB);
    }
    Ok(most)
}

async fn read(mut stream: WatchStream, counts: Rc<Counts>) -> anyhow::Result<()> {
    loop {
        let events = stream.next().await?;
        counts.events.set(counts.events.get() + events);
    }
}

async fn write(channel: Channel, first: u64, rate: u64, counts: Rc<Counts>) -> anyhow::Result<()> {
    let mut kv = KvClient::new(channel);
    let mut ticks = tokio::time::interval(
        Duration::from_secs(1) * u32::try_from(WRITERS)? / u32::try_from(rate)?,
    );
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let mut number = first;
    loop {
        ticks.tick().await;
        let key = number % KEYS;
        let key = format!("{:02}/{key:06}", key % PREFIXES as u64).into();
        let reply = kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
        let revision = reply.into_inner().header.map_or(0, |header| header.revision);
        counts.revision.set(counts.revision.get().max(revision));
        counts.puts.set(counts.puts.get() + 1);
        number += WRITERS;
    }
}

/// Keeps the last ten seconds of history.
async fn compact(channel: Channel, counts: Rc<Counts>) -> anyhow::Result<()> {
    let mut kv = KvClient::new(channel);
    loop {
        let revision = counts.revision.get();
        tokio::time::sleep(COMPACT_EVERY).await;
        if revision > 0 {
            kv.compact(CompactionRequest { revision, physical: false }).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_quarter_is_compared_with_the_last() {
        assert_eq!(quarters(&[9.0, 1.0, 5.0, 2.0]), (1.0, 2.0));
        assert_eq!(quarters(&[0.0, 0.0, 1.0, 3.0, 9.0, 9.0, 4.0, 6.0]), (2.0, 5.0));
    }
}
