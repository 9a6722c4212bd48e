//! P7, P8 and P14: a member that holds a million keys.
//!
//! Loading takes most of the time, so several members are loaded one after the other. Each rests while
//! the next is loaded, and its memory is read when its own rest is over.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;

use super::sample::{KEY_BYTES, Sample, Scale, VALUE_BYTES, load, value};
use super::statistics::Spread;
use crate::load::{Keys, PacedWriters, Session};
use crate::process::usage::Usage;
use crate::process::{Program, START_DEADLINE, Server};

const MIB: f64 = 1024.0 * 1024.0;
const FULL_RANGES: usize = 5;
const COUNTS: usize = 21;
const BACK: i64 = 10_000;
const WRITES_PER_SECOND: u32 = 1_000;
const RETRY: Duration = Duration::from_millis(2);

struct Member {
    server: Server,
    resting: Option<Resting>,
    sample: Sample,
}

/// Reads the anonymous memory of a process after its rest, in MiB.
struct Resting(JoinHandle<anyhow::Result<f64>>);

/// One sample of each program.
///
/// # Errors
/// When a server cannot start, ends, or refuses a request.
pub fn samples(programs: &[Program], scale: &Scale) -> anyhow::Result<Vec<Sample>> {
    let keys = Keys::new(scale.keys, KEY_BYTES);
    let mut members = Vec::new();
    for program in programs {
        let mut server = Server::start(program)?;
        let outcome = load(&mut server, &keys, VALUE_BYTES)?;
        let sample = Sample::from([("load_rate", outcome.rate())]);
        let resting = Some(Resting::begin(&server, scale));
        members.push(Member { server, resting, sample });
    }
    for member in &mut members {
        member.rested("loaded")?;
    }
    for member in &mut members {
        member.count_keys(&keys)?;
        member.kill_and_start(&keys)?;
        member.resting = Some(Resting::begin(&member.server, scale));
    }
    let mut samples = Vec::new();
    for mut member in members {
        member.rested("restarted")?;
        member.read_all(&keys)?;
        samples.push(member.sample);
    }
    Ok(samples)
}

impl Resting {
    /// The rest of a server begins now.
    fn begin(server: &Server, scale: &Scale) -> Self {
        let (pid, rest) = (server.pid(), scale.rest);
        Self(std::thread::spawn(move || {
            std::thread::sleep(rest);
            Ok(Usage::of(pid)?.anonymous_bytes as f64 / MIB)
        }))
    }
}

fn all_keys() -> RangeRequest {
    let everything = Bytes::from_static(b"\0");
    RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() }
}

impl Member {
    /// Waits until its rest is over; what was read then is the figure of this name.
    fn rested(&mut self, figure: &'static str) -> anyhow::Result<()> {
        let Some(Resting(reader)) = self.resting.take() else { bail!("it does not rest") };
        let read = reader.join().map_err(|_| anyhow!("a reader of memory panicked"))?;
        let anonymous_mib =
            read.map_err(|error| self.server.check_running().err().unwrap_or(error))?;
        self.sample.insert(figure, anonymous_mib);
        Ok(())
    }

    /// P14. The writers only overwrite, and 10,000 overwrites go first: the count is the same now and
    /// at the older revision.
    fn count_keys(&mut self, keys: &Keys) -> anyhow::Result<()> {
        let overwritten = Keys::new(keys.count().min(10_000), KEY_BYTES);
        load(&mut self.server, &overwritten, VALUE_BYTES)?;
        let url = self.server.url();
        let mut session = Session::open(&url)?;
        let writers = PacedWriters::start(&url, overwritten, value(VALUE_BYTES), WRITES_PER_SECOND);
        let one = RangeRequest { key: keys.at(1), ..Default::default() };
        let count = RangeRequest { count_only: true, ..all_keys() };
        self.sample.insert("get_us", p50_us(&mut session, |_| one.clone(), 1)?);
        let all = i64::try_from(keys.count())?;
        self.sample.insert("count_now", p50_us(&mut session, |_| count.clone(), all)?);
        let past = |current: i64| RangeRequest {
            revision: (current - BACK).max(all + 1),
            ..count.clone()
        };
        self.sample.insert("count_past", p50_us(&mut session, past, all)?);
        writers.stop()?;
        Ok(())
    }

    /// P8, from the moment of the start to the answer; the page cache is warm.
    fn kill_and_start(&mut self, keys: &Keys) -> anyhow::Result<()> {
        self.server.kill()?;
        let start = Instant::now();
        self.server.respawn()?;
        let request = RangeRequest { key: keys.at(keys.count() - 1), ..Default::default() };
        loop {
            let answer = Session::open(&self.server.url())
                .and_then(|mut session| session.range(request.clone()));
            if answer.is_ok_and(|(reply, _)| reply.count == 1) {
                break;
            }
            self.server.check_running()?;
            if start.elapsed() > START_DEADLINE {
                bail!("{} does not answer {START_DEADLINE:?} after its start", self.server.name());
            }
            std::thread::sleep(RETRY);
        }
        self.sample.insert("start", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// The third figure of P7.
    fn read_all(&mut self, keys: &Keys) -> anyhow::Result<()> {
        let mut session = Session::open(&self.server.url())?;
        for _ in 0..FULL_RANGES {
            let (reply, _) = session.range(all_keys())?;
            if reply.kvs.len() as u64 != keys.count() {
                bail!("a full range returned {} keys of {}", reply.kvs.len(), keys.count());
            }
        }
        let anonymous_bytes = self.server.usage()?.anonymous_bytes;
        self.sample.insert("ranged", anonymous_bytes as f64 / MIB);
        Ok(())
    }
}

/// The median latency of a request that is made from the current revision, in microseconds.
fn p50_us(
    session: &mut Session,
    request: impl Fn(i64) -> RangeRequest,
    count: i64,
) -> anyhow::Result<f64> {
    let mut latencies_us = Vec::new();
    for _ in 0..COUNTS {
        let request = request(session.revision()?);
        let (reply, latency) = session.range(request)?;
        if reply.count != count {
            bail!("a count of {} where {count} keys are", reply.count);
        }
        latencies_us.push(latency.as_secs_f64() * 1e6);
    }
    Ok(Spread::of(&latencies_us).map_or(f64::NAN, |spread| spread.median))
}
