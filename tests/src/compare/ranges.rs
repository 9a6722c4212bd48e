//! P13: a range of 100,000 keys of 1 KiB, as one reply and as a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;

use super::sample::{KEY_BYTES, Sample, Scale, load, settle};
use crate::load::{Keys, Session};
use crate::process::usage::Usage;
use crate::process::{Program, Server};

const MIB: f64 = 1024.0 * 1024.0;
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 1024;
const RANGES: u32 = 5;
/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(5);

/// CPU of a range, and the most memory above what the server had before it.
///
/// # Errors
/// When the server cannot start, ends, or refuses a request.
pub fn large(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let mut server = Server::start(program)?;
    let keys = Keys::new(KEYS / scale.divisor, KEY_BYTES);
    load(&mut server, &keys, VALUE_BYTES)?;
    settle(&server)?;
    let mut session = Session::open(&server.url())?;
    let everything = Bytes::from_static(b"\0");
    let request =
        RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() };
    let expected = keys.count();
    let mut sample = Sample::new();
    // The stream first: what the large reply leaves in the allocator would hide its peak.
    let streamed = ranges(&server, || session.range_stream(request.clone()), expected)?;
    let unary = ranges(&server, || Ok(session.range(request.clone())?.0.kvs.len()), expected)?;
    for (names, (cpu, peak)) in
        [(["stream_cpu", "stream_peak"], streamed), (["unary_cpu", "unary_peak"], unary)]
    {
        sample.insert(names[0], cpu);
        sample.insert(names[1], peak);
    }
    Ok(sample)
}

/// Seconds of CPU per range, and MiB above what was there before the first.
fn ranges(
    server: &Server,
    mut range: impl FnMut() -> anyhow::Result<usize>,
    expected: u64,
) -> anyhow::Result<(f64, f64)> {
    let before = server.usage()?;
    let peak = Peak::watch(server.pid());
    for _ in 0..RANGES {
        let found = range()?;
        if found as u64 != expected {
            bail!("a range returned {found} keys of {expected}");
        }
    }
    let peak_bytes = peak.stop().saturating_sub(before.anonymous_bytes);
    let cpu = server.usage()?.cpu.saturating_sub(before.cpu) / RANGES;
    Ok((cpu.as_secs_f64(), peak_bytes as f64 / MIB))
}

/// Looks at a process' memory until it is told to stop.
struct Peak {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok(usage) = Usage::of(pid) else { return };
                seen.fetch_max(usage.anonymous_bytes, Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        Self { stop, most, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that only looks does not panic.
        let _ = self.thread.join();
        self.most.load(Ordering::Relaxed)
    }
}
