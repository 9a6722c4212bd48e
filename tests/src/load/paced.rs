//! Writers in the background at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use super::Keys;

const WRITERS: u64 = 8;

/// Puts that go on until [`PacedWriters::stop`], from eight clients over one connection.
#[derive(Debug)]
pub struct PacedWriters {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<u64>>>,
}

impl PacedWriters {
    /// Starts to put `per_second` times a second; a client whose answer is late skips its turns.
    pub fn start(url: &str, keys: Keys, value: Bytes, per_second: u32) -> PacedWriters {
        let stop = Arc::new(AtomicBool::new(false));
        let url = url.to_owned();
        let writer = Writer { first: 0, keys, value, stop: Arc::clone(&stop) };
        let period = Duration::from_secs(WRITERS) / per_second;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(write_all(&url, writer, period))
        });
        PacedWriters { stop, thread: Some(thread) }
    }

    /// Ends the writers; how many puts were acknowledged.
    ///
    /// # Errors
    /// When a put was refused.
    ///
    /// # Panics
    /// When a writer panicked.
    pub fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only this takes the thread");
        thread.join().expect("a writer does not panic")
    }
}

impl Drop for PacedWriters {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Writer {
    first: u64,
    keys: Keys,
    value: Bytes,
    stop: Arc<AtomicBool>,
}

async fn write_all(url: &str, writer: Writer, period: Duration) -> anyhow::Result<u64> {
    let channel = super::connect(url).await?;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|first| Writer { first, ..writer.clone() })
        .map(|writer| tokio::spawn(writer.write(KvClient::new(channel.clone()), period)))
        .collect();
    let mut puts = 0;
    for task in tasks {
        puts += task.await??;
    }
    Ok(puts)
}

impl Writer {
    async fn write(self, mut kv: KvClient<Channel>, period: Duration) -> anyhow::Result<u64> {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut puts = 0;
        loop {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(puts);
            }
            let key = self.keys.spread(self.first + puts * WRITERS);
            let request = PutRequest { key, value: self.value.clone(), ..Default::default() };
            kv.put(request).await.context("a put in the background failed")?;
            puts += 1;
        }
    }
}
