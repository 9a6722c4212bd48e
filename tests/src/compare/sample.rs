//! The figures of one run of one program.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::load::{Keys, Outcome, Plan, Work, run};
use crate::process::Server;
use crate::process::usage::Usage;

/// Figures by their name: those of the rows, and more that are printed beside them.
pub type Sample = BTreeMap<&'static str, f64>;

/// Bytes of a key.
pub const KEY_BYTES: usize = 64;
/// Bytes of a value where the row does not say otherwise.
pub const VALUE_BYTES: usize = 256;

const POLL: Duration = Duration::from_millis(250);
/// Longer than a server keeps written data back before it flushes it: five seconds here, and ticks that
/// come late.
const QUIET: Duration = Duration::from_secs(7);
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// How much is done: the whole, or little to try it.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Pairs of a figure.
    pub pairs: usize,
    /// Pairs of the rewrites: a sample costs two minutes, and sizes hardly differ.
    pub rewrite_pairs: usize,
    /// Divides the operations of a run.
    pub divisor: u64,
    /// Keys where the row says a million.
    pub keys: u64,
    /// Keys of the rewrites.
    pub rewrite_keys: u64,
    /// Before memory and sizes are read.
    pub rest: Duration,
}

impl Scale {
    /// What the method asks for.
    pub const WHOLE: Scale = Scale {
        pairs: 5,
        rewrite_pairs: 2,
        divisor: 1,
        keys: 1_000_000,
        rewrite_keys: 100_000,
        rest: Duration::from_secs(60),
    };

    /// Enough to see that everything works; its figures say nothing.
    pub const QUICK: Scale = Scale {
        pairs: 2,
        rewrite_pairs: 1,
        divisor: 10,
        keys: 50_000,
        rewrite_keys: 10_000,
        rest: Duration::from_secs(5),
    };
}

/// A value of so many bytes.
pub fn value(bytes: usize) -> Bytes {
    Bytes::from(vec![b'v'; bytes])
}

/// Runs a plan and says what the server used for it.
///
/// # Errors
/// When a request fails or the server ends; the text holds the end of its log.
pub fn measure(server: &mut Server, plan: &Plan) -> anyhow::Result<(Outcome, Usage)> {
    let before = server.usage()?;
    let outcome = run_on(server, plan)?;
    settle(server)?;
    let after = server.usage()?;
    let used = Usage {
        cpu: after.cpu.saturating_sub(before.cpu),
        written_bytes: after.written_bytes - before.written_bytes,
        ..after
    };
    Ok((outcome, used))
}

/// Runs a plan; an error names a server that has ended.
///
/// # Errors
/// As [`measure`].
pub fn run_on(server: &mut Server, plan: &Plan) -> anyhow::Result<Outcome> {
    run(plan).map_err(|error| server.check_running().err().unwrap_or(error))
}

/// Puts every key once, in their order, from 256 clients.
///
/// # Errors
/// As [`measure`].
pub fn load(server: &mut Server, keys: &Keys, value_bytes: usize) -> anyhow::Result<Outcome> {
    let url = server.url();
    let work = Work::Load { keys: keys.clone(), value: value(value_bytes) };
    let plan = Plan { url: &url, clients: 256, connections: 8, operations: keys.count(), work };
    run_on(server, &plan)
}

/// Waits until the server has written what it kept back: nothing for five seconds. What that
/// costs belongs to the operations before.
///
/// # Errors
/// When the server has ended.
pub fn settle(server: &Server) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut written = server.usage()?.written_bytes;
    let mut since = Instant::now();
    while since.elapsed() < QUIET && start.elapsed() < SETTLE_MAX {
        std::thread::sleep(POLL);
        let now = server.usage()?.written_bytes;
        if now != written {
            (written, since) = (now, Instant::now());
        }
    }
    Ok(())
}
