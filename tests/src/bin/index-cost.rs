//! What a key costs in the index: bytes of memory, and nanoseconds of a put, without log and store.
//!
//! ```text
//! index-cost --order ascending    keys come in order, as a restart or a bulk load gives them
//! index-cost --order scattered    keys come in an order of their own
//! ```
//!
//! Memory is what the process holds of it, with the allocator that the server ships with.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use quorate_server::mvcc::{KeySpace, Limits, Put, Revision, Row, Rows, RowsError, ScanBounds};
use quorate_tests::process::usage::Usage;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Puts between two flushes.
const FLUSH_PUTS: u64 = 10_000;
/// Bytes of each key.
const KEY_BYTES: usize = 57;
/// Prime, and no divisor of any sensible number of keys: each key is visited once.
const STRIDE: u64 = 1_000_003;

#[derive(Parser)]
struct Options {
    /// How many keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// The order in which they come.
    #[arg(long, value_enum, default_value_t = Order::Ascending)]
    order: Order,
    /// The lease of each key; 0 for none.
    #[arg(long, default_value_t = 0)]
    lease: i64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Order {
    Ascending,
    Scattered,
}

/// A store that is never asked.
struct NoRows;

impl Rows for NoRows {
    fn get_many(&self, revisions: &[Revision], _: &mut Vec<Bytes>) -> Result<(), RowsError> {
        revisions.first().map_or(Ok(()), |&revision| Err(RowsError::Missing(revision)))
    }

    fn scan_within(
        &self,
        from: Revision,
        _: ScanBounds,
        _: &mut Vec<Row>,
    ) -> Result<bool, RowsError> {
        Err(RowsError::Missing(from))
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let before = anonymous_bytes()?;
    let mut space = KeySpace::new(Limits { window_bytes_max: 0 });
    let new = fill(&mut space, &options)?;
    let held = anonymous_bytes()?.saturating_sub(before);
    let again = fill(&mut space, &options)?;
    let per_key = |nanos: Duration| nanos.as_nanos() / u128::from(options.keys);
    println!(
        "{} keys of {KEY_BYTES} bytes: {} bytes beside each, {} ns for a new one, {} ns for an update",
        options.keys,
        (held / options.keys).saturating_sub(KEY_BYTES as u64),
        per_key(new),
        per_key(again)
    );
    Ok(())
}

/// Puts every key once; the time that the puts took, without flushes.
fn fill(space: &mut KeySpace, options: &Options) -> anyhow::Result<Duration> {
    let mut spent = Duration::ZERO;
    for first in (0..options.keys).step_by(usize::try_from(FLUSH_PUTS)?) {
        let numbers = first..options.keys.min(first + FLUSH_PUTS);
        let puts: Vec<Put> = numbers.map(|at| put(at, options)).collect();
        let started = Instant::now();
        for put in &puts {
            space.put(put, &NoRows)??;
        }
        spent += started.elapsed();
        let unflushed = space.take_unflushed(0);
        space.flushed(space.current_revision(), &unflushed.deletions);
        space.evict(usize::MAX);
    }
    Ok(spent)
}

fn put(at: u64, options: &Options) -> Put {
    let number = match options.order {
        Order::Ascending => at,
        Order::Scattered => at * STRIDE % options.keys,
    };
    let mut key = format!("/registry/pods/namespace-{:04}/deployment-{number:08}", number / 1000);
    key.extend(std::iter::repeat_n('x', KEY_BYTES.saturating_sub(key.len())));
    Put { key: key.into(), value: Some("v".into()), lease: Some(options.lease), prev_kv: false }
}

fn anonymous_bytes() -> anyhow::Result<u64> {
    Ok(Usage::of(std::process::id())?.anonymous_bytes)
}
