//! Equal durability, shown by counting `fdatasync` and `fsync` under `strace`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::sample::{KEY_BYTES, VALUE_BYTES, run_on, value};
use crate::load::{Keys, Plan, Work};
use crate::process::{Program, Server, locate};

/// (clients, puts): one client must be synced at least once per put, many share syncs.
pub const LOADS: [(usize, u64); 2] = [(1, 1_000), (256, 20_000)];

const SUMMARY_DEADLINE: Duration = Duration::from_secs(10);

/// How often a server synced during its whole life, with `puts` puts in it; `None` when there is no
/// strace.
///
/// # Errors
/// When the server cannot start, ends, or refuses a request.
pub fn count(program: &Program, clients: usize, puts: u64) -> anyhow::Result<Option<u64>> {
    let Some(strace) = locate::on_path("strace") else { return Ok(None) };
    let folder = tempfile::tempdir()?;
    let summary = folder.path().join("summary");
    // -D keeps the server our own child, so that its process id is the server's.
    let mut wrapper = vec![strace.display().to_string()];
    wrapper.extend(["-D", "-f", "-c", "-e", "trace=fdatasync,fsync", "-o"].map(str::to_owned));
    wrapper.push(summary.display().to_string());
    let mut server = Server::start(&program.clone().wrapped(wrapper))?;
    let url = server.url();
    let work = Work::Put { keys: Keys::new(10_000, KEY_BYTES), value: value(VALUE_BYTES) };
    let connections = clients.min(8);
    run_on(&mut server, &Plan { url: &url, clients, connections, operations: puts, work })?;
    server.kill()?;
    Ok(Some(read_summary(&summary)?))
}

/// strace writes the summary when the server has ended.
fn read_summary(path: &Path) -> anyhow::Result<u64> {
    let deadline = Instant::now() + SUMMARY_DEADLINE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if let Some(calls) = calls(&text) {
            return Ok(calls);
        }
        if Instant::now() > deadline {
            bail!("strace left no summary: {text:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The column `calls` of the last line, `total`.
fn calls(summary: &str) -> Option<u64> {
    let total = summary.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_ascii_whitespace().nth(3)?.parse().context("not a number").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_line_of_the_total() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------\n\
                       100.00    0.011859          10      1101           fdatasync\n\
                       ------ ----------- ----------- --------- --------- ----------\n\
                       100.00    0.011859          10      1101           total\n";
        assert_eq!(calls(summary), Some(1101));
        assert_eq!(calls("% time"), None);
    }
}
