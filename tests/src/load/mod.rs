//! A lean load generator: what is measured is the server.
//!
//! One thread drives all clients. Each client is one task that sends its next request when its last
//! is answered (a closed loop); clients share connections evenly. Keys are cut from one buffer that
//! is made before the clock starts, values are one shared buffer, latencies go into one histogram:
//! an operation allocates only what tonic allocates.
//!
//! ```no_run
//! use quorate_tests::load::{Keys, Plan, Work, run};
//!
//! let keys = Keys::new(10_000, 64);
//! let work = Work::Put { keys, value: vec![7; 256].into() };
//! let plan = Plan { url: "http://127.0.0.1:2379", clients: 64, connections: 8, operations: 100_000, work };
//! let outcome = run(&plan)?;
//! println!("{:.0} puts per second", outcome.rate());
//! # anyhow::Ok(())
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::LocalSet;
use tonic::transport::{Channel, Endpoint};

mod keys;
mod paced;
mod session;
mod watchers;

pub use keys::Keys;
pub use paced::PacedWriters;
pub use session::Session;
pub use watchers::WatchStream;

/// The longest that one plan may take.
const DEADLINE: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Latencies are kept in nanoseconds, to three digits, up to a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What to send, from how many clients.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The server's address for clients.
    pub url: &'a str,
    /// Requests in flight.
    pub clients: usize,
    /// Connections that the clients share.
    pub connections: usize,
    /// Requests in all.
    pub operations: u64,
    /// The requests.
    pub work: Work,
}

/// The requests of a plan. Key `i` of a plan is [`Keys::spread`] of `i`.
#[derive(Clone, Debug)]
pub enum Work {
    /// Puts of one value.
    Put {
        /// The keys that are written.
        keys: Keys,
        /// The value of each.
        value: Bytes,
    },
    /// Puts of one value under each key in the order of the keys.
    Load {
        /// The keys that are written.
        keys: Keys,
        /// The value of each.
        value: Bytes,
    },
    /// Linearizable gets.
    Get {
        /// The keys that are read.
        keys: Keys,
    },
}

/// What a plan showed.
#[derive(Debug)]
pub struct Outcome {
    /// Requests that were answered.
    pub operations: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of each request, in nanoseconds.
    pub latencies: Histogram<u64>,
}

impl Outcome {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that a share of the requests, 0.0 to 1.0, did not exceed, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Sends a plan's requests and waits for all answers.
///
/// # Errors
/// At the first refused or lost request, and when ten minutes have passed.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match tokio::time::timeout(DEADLINE, drive(plan)).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("{} requests were not answered within {DEADLINE:?}", plan.operations),
        }
    })
}

/// An empty histogram for latencies in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are in order")
}

/// One connection, made now.
pub async fn connect(url: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .connect()
        .await
        .with_context(|| format!("cannot connect to {url}"))
}

struct Shared {
    next: Cell<u64>,
    operations: u64,
    latencies: RefCell<Histogram<u64>>,
    work: Work,
}

async fn drive(plan: &Plan<'_>) -> anyhow::Result<Outcome> {
    let mut channels = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        channels.push(connect(plan.url).await?);
    }
    let shared = Rc::new(Shared {
        next: Cell::new(0),
        operations: plan.operations,
        latencies: RefCell::new(latencies()),
        work: plan.work.clone(),
    });
    let start = Instant::now();
    let clients: Vec<_> = (0..plan.clients)
        .map(|client| {
            let kv = KvClient::new(channels[client % channels.len()].clone());
            tokio::task::spawn_local(loop_closed(kv, Rc::clone(&shared)))
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let elapsed = start.elapsed();
    let latencies = shared.latencies.borrow().clone();
    Ok(Outcome { operations: plan.operations, elapsed, latencies })
}

async fn loop_closed(mut kv: KvClient<Channel>, shared: Rc<Shared>) -> anyhow::Result<()> {
    loop {
        let index = shared.next.get();
        if index >= shared.operations {
            return Ok(());
        }
        shared.next.set(index + 1);
        let start = Instant::now();
        shared.work.send(index, &mut kv).await?;
        let latency_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(LATENCY_NS_MAX);
        shared.latencies.borrow_mut().saturating_record(latency_ns);
    }
}

impl Work {
    async fn send(&self, index: u64, kv: &mut KvClient<Channel>) -> anyhow::Result<()> {
        match self {
            Work::Put { keys, value } => put(kv, keys.spread(index), value.clone()).await,
            Work::Load { keys, value } => put(kv, keys.at(index), value.clone()).await,
            Work::Get { keys } => {
                let request = RangeRequest { key: keys.spread(index), ..Default::default() };
                let reply = kv.range(request).await.context("a get failed")?;
                if reply.get_ref().count != 1 {
                    bail!("a get of a key that was put found nothing");
                }
                Ok(())
            }
        }
    }
}

async fn put(kv: &mut KvClient<Channel>, key: Bytes, value: Bytes) -> anyhow::Result<()> {
    kv.put(PutRequest { key, value, ..Default::default() }).await.context("a put failed")?;
    Ok(())
}
