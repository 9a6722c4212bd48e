//! P1, P2, P4 and P16: a member that serves puts and gets.

use super::disk::{device_written_bytes, fdatasync_p50_us};
use super::sample::{KEY_BYTES, Sample, Scale, VALUE_BYTES, load, measure, run_on, settle, value};
use crate::load::{Keys, Plan, Work};
use crate::process::{Program, Server};

/// Keys that requests are spread over.
const KEYS: u64 = 10_000;
const PUTS: u64 = 60_000;
const GETS: u64 = 100_000;
const LONE_PUTS: u64 = 3_000;
/// More than a prepared segment of 64 MiB is filled, so that preparing one is part of the figure.
const WRITTEN_PUTS: [(usize, u64); 2] = [(VALUE_BYTES, 200_000), (1024, 70_000)];

/// P1: CPU of puts.
///
/// # Errors
/// When the server cannot start, ends, or refuses a request.
pub fn puts(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let mut server = Server::start(program)?;
    let url = server.url();
    let keys = Keys::new(KEYS, KEY_BYTES);
    load(&mut server, &keys, VALUE_BYTES)?;
    let operations = PUTS / scale.divisor;
    let work = Work::Put { keys, value: value(VALUE_BYTES) };
    let plan = Plan { url: &url, clients: 64, connections: 8, operations, work };
    let (outcome, used) = measure(&mut server, &plan)?;
    Ok(Sample::from([
        ("put_cpu", used.cpu.as_secs_f64() * 10_000.0 / operations as f64),
        ("rate", outcome.rate()),
        ("p50_us", outcome.latency_us(0.5)),
        ("p99_us", outcome.latency_us(0.99)),
    ]))
}

/// P2: CPU of linearizable gets.
///
/// # Errors
/// As [`puts`].
pub fn gets(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let mut server = Server::start(program)?;
    let url = server.url();
    let keys = Keys::new(KEYS, KEY_BYTES);
    load(&mut server, &keys, VALUE_BYTES)?;
    super::sample::settle(&server)?;
    let operations = GETS / scale.divisor;
    let plan =
        Plan { url: &url, clients: 64, connections: 8, operations, work: Work::Get { keys } };
    let before = server.usage()?;
    let outcome = run_on(&mut server, &plan)?;
    let cpu = server.usage()?.cpu.saturating_sub(before.cpu);
    Ok(Sample::from([
        ("get_cpu", cpu.as_secs_f64() * 10_000.0 / operations as f64),
        ("rate", outcome.rate()),
        ("p50_us", outcome.latency_us(0.5)),
        ("p99_us", outcome.latency_us(0.99)),
    ]))
}

/// P4: latency of one client's puts, and beside it that of the disk.
///
/// # Errors
/// As [`puts`].
pub fn lone_puts(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let mut server = Server::start(program)?;
    let url = server.url();
    let keys = Keys::new(KEYS, KEY_BYTES);
    let work = Work::Put { keys, value: value(VALUE_BYTES) };
    let plan = |operations| Plan {
        url: &url,
        clients: 1,
        connections: 1,
        operations: operations / scale.divisor,
        work: work.clone(),
    };
    run_on(&mut server, &plan(LONE_PUTS / 10))?;
    let outcome = run_on(&mut server, &plan(LONE_PUTS))?;
    Ok(Sample::from([
        ("lone_p50", outcome.latency_us(0.5)),
        ("p99_us", outcome.latency_us(0.99)),
        ("fdatasync_p50_us", fdatasync_p50_us(server.folder())?),
    ]))
}

/// P16: bytes that the disk was given per put, of many clients and of one; those of other programs on
/// the machine are among them.
///
/// # Errors
/// As [`puts`].
pub fn written(program: &Program, scale: &Scale) -> anyhow::Result<Sample> {
    let mut sample = Sample::new();
    let many = ["written_256_many", "written_1k_many"].into_iter().zip(WRITTEN_PUTS);
    let one = ["written_256_one", "written_1k_one"].into_iter().zip(WRITTEN_PUTS);
    for ((name, (value_bytes, puts)), clients) in
        many.map(|row| (row, 256)).chain(one.map(|row| (row, 1)))
    {
        let mut server = Server::start(program)?;
        // What a start writes is no put's.
        settle(&server)?;
        let url = server.url();
        let operations = puts / scale.divisor;
        let work = Work::Put { keys: Keys::new(KEYS, KEY_BYTES), value: value(value_bytes) };
        let plan = Plan { url: &url, clients, connections: clients.min(8), operations, work };
        let before = device_written_bytes(server.folder())?;
        run_on(&mut server, &plan)?;
        settle(&server)?;
        let written = device_written_bytes(server.folder())? - before;
        sample.insert(name, written as f64 / operations as f64);
    }
    Ok(sample)
}
