//! `process_*` and `os_fd_*`, read from `/proc` when asked for.

use std::fmt::Write as _;
use std::fs;

/// `USER_HZ`, the unit of times in `/proc/self/stat`: 100 on every architecture that Linux supports today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends the samples that this system can give.
pub(super) fn append(text: &mut String) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse)
    {
        sample(text, "process_cpu_seconds_total", "counter", stat.cpu_seconds);
        sample(text, "process_resident_memory_bytes", "gauge", stat.resident_bytes);
        sample(text, "process_virtual_memory_bytes", "gauge", stat.virtual_bytes);
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_seconds)
        {
            sample(text, "process_start_time_seconds", "gauge", boot + stat.start_seconds);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        let open = entries.count() as f64;
        sample(text, "process_open_fds", "gauge", open);
        sample(text, "os_fd_used", "gauge", open);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = limit(&limits, "Max open files") {
        sample(text, "process_max_fds", "gauge", limit);
        sample(text, "os_fd_limit", "gauge", limit);
    }
    if let Some(limit) = limit(&limits, "Max address space") {
        sample(text, "process_virtual_memory_max_bytes", "gauge", limit);
    }
    if let Some((received, sent)) =
        fs::read_to_string("/proc/self/net/netstat").ok().as_deref().and_then(octets)
    {
        sample(text, "process_network_receive_bytes_total", "counter", received);
        sample(text, "process_network_transmit_bytes_total", "counter", sent);
    }
}

fn sample(text: &mut String, name: &str, kind: &str, value: f64) {
    let help = match name {
        "process_cpu_seconds_total" => "User and system CPU time, in seconds.",
        "process_resident_memory_bytes" => "Resident memory, in bytes.",
        "process_virtual_memory_bytes" => "Virtual memory, in bytes.",
        "process_virtual_memory_max_bytes" => "Most virtual memory that there may be, in bytes.",
        "process_start_time_seconds" => "Start of the process, in seconds since 1970.",
        "process_network_receive_bytes_total" => {
            "Bytes received in the network namespace of the process."
        }
        "process_network_transmit_bytes_total" => {
            "Bytes sent in the network namespace of the process."
        }
        "process_open_fds" | "os_fd_used" => "Open file descriptors.",
        _ => "Most file descriptors that may be open.",
    };
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

struct Stat {
    cpu_seconds: f64,
    start_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    /// Reads `/proc/self/stat`; the second field is a name in parentheses that may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The first of these is field 3 of proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            start_seconds: field(22)? / TICKS_PER_SECOND,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as f64,
        })
    }
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of this name; where there is none it is the largest number of 64 bits, as for etcd.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

/// Bytes in and out: `InOctets` and `OutOctets` of the lines that begin with `IpExt:`, names and numbers.
fn octets(netstat: &str) -> Option<(f64, f64)> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let column = |name: &str| {
        let place = names.split_whitespace().position(|found| found == name)?;
        numbers.split_whitespace().nth(place)?.parse().ok()
    };
    Some((column("InOctets")?, column("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_by_field() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1234 8192 3 99";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!(stat.cpu_seconds, 2.0);
        assert_eq!(stat.start_seconds, 12.34);
        assert_eq!(stat.virtual_bytes, 8192.0);
        assert_eq!(stat.resident_bytes, 3.0 * rustix::param::page_size() as f64);
        assert!(Stat::parse("7 (x) S").is_none());
        assert_eq!(boot_seconds("cpu 1\nbtime 170\n"), Some(170.0));
        let limits = "Limit Soft Hard Units\nMax open files            1024  4096  files\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), None);
        let netstat = "TcpExt: A\nTcpExt: 1\nIpExt: InNo InOctets OutOctets\nIpExt: 0 7 9\n";
        assert_eq!(octets(netstat), Some((7.0, 9.0)));
        assert_eq!(octets("TcpExt: A\n"), None);
        let limits = "Max address space unlimited unlimited bytes";
        assert_eq!(limit(limits, "Max address space"), Some(18_446_744_073_709_551_615.0));
    }
}
