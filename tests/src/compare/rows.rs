//! What is measured, and what is expected of the ratios.

use clap::ValueEnum;

/// A group of rows that one scenario measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum Group {
    /// CPU per put.
    P1,
    /// CPU per linearizable get.
    P2,
    /// Latency of a lone put.
    P4,
    /// Memory with a million keys.
    P7,
    /// Start after a kill.
    P8,
    /// Events to many watchers.
    P9,
    /// Memory of idle watch streams.
    P10,
    /// Leases.
    P11,
    /// Ranges of 100 MB.
    P13,
    /// Counting a million keys.
    P14,
    /// Size of the state store after rewrites.
    P15,
    /// Bytes written per put.
    P16,
    /// Syncs per put.
    Syncs,
}

/// One row of the table: a figure of which less is better.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The group that it is asked for by.
    pub group: Group,
    /// The key of its figure in a sample.
    pub figure: &'static str,
    /// What it is, with members, clients, connections and sizes.
    pub what: &'static str,
    /// The unit of the figure.
    pub unit: &'static str,
    /// The highest ratios, ours by etcd's, at which it meets *must*, *goal* and *stretch*. A stretch
    /// of 0 is one that is not a ratio; a note beside the row says what became of it.
    pub levels: [f64; 3],
    /// The highest ratio for this stage of the work; `None` where it is only measured.
    pub accept: Option<f64>,
}

const fn row(
    group: Group,
    (figure, unit): (&'static str, &'static str),
    what: &'static str,
    levels: [f64; 3],
    accept: Option<f64>,
) -> Row {
    Row { group, figure, what, unit, levels, accept }
}

/// All rows, in the order of the table.
pub const ROWS: [Row; 24] = [
    row(
        Group::P1,
        ("put_cpu", "s/10k"),
        "CPU per 10k puts; 64 clients, 8 connections, 64 B keys, 256 B values",
        [0.7, 0.4, 0.25],
        Some(0.6),
    ),
    row(
        Group::P2,
        ("get_cpu", "s/10k"),
        "CPU per 10k linearizable gets; 64 clients, 8 connections, 256 B values",
        [0.7, 0.45, 0.33],
        Some(0.6),
    ),
    row(Group::P4, ("lone_p50", "us"), "put p50, one client", [1.05, 0.95, 0.8], Some(1.05)),
    row(
        Group::P7,
        ("loaded", "MiB"),
        "anonymous memory, 1 M keys, 60 s after loading",
        [0.6, 0.4, 0.25],
        Some(0.6),
    ),
    row(Group::P7, ("restarted", "MiB"), "... 60 s after a restart", [0.9, 0.7, 0.5], Some(0.9)),
    row(Group::P7, ("ranged", "MiB"), "... after five full ranges", [0.5, 0.2, 0.1], Some(0.5)),
    row(
        Group::P8,
        ("start", "s"),
        "kill -9 to the first linearizable read, 1 M keys",
        [0.5, 0.25, 0.1],
        Some(0.5),
    ),
    row(
        Group::P9,
        ("fan_out_time", "s/1M"),
        "time per 1 M deliveries of events, 100 connections x 100 watchers of one prefix",
        [0.667, 0.25, 0.125],
        Some(0.667),
    ),
    row(Group::P9, ("fan_out_cpu", "s/1M"), "... CPU", [0.8, 0.25, 0.12], Some(0.8)),
    row(
        Group::P10,
        ("idle_streams", "MiB"),
        "memory of 100 connections x 100 idle watch streams",
        [0.6, 0.3, 0.15],
        Some(0.6),
    ),
    row(
        Group::P11,
        ("renew_cpu", "s"),
        "CPU of 100k renewals over 100 streams in 20 s, no false expiry",
        [0.6, 0.33, 0.12],
        Some(0.6),
    ),
    row(
        Group::P11,
        ("expired_gone", "s"),
        "time until 100k leases that expire together are gone",
        [0.2, 0.05, 0.01],
        Some(0.2),
    ),
    row(
        Group::P13,
        ("unary_cpu", "s"),
        "CPU of a range of 100k x 1 KiB, one reply",
        [0.8, 0.25, 0.1],
        None,
    ),
    row(
        Group::P13,
        ("unary_peak", "MiB"),
        "... memory above what was there",
        [0.5, 0.05, 0.02],
        None,
    ),
    row(Group::P13, ("stream_cpu", "s"), "CPU of it as a stream", [0.8, 0.25, 0.1], None),
    row(
        Group::P13,
        ("stream_peak", "MiB"),
        "... memory above what was there",
        [0.5, 0.05, 0.02],
        None,
    ),
    row(
        Group::P14,
        ("count_now", "us"),
        "count of 1 M keys under 1,000 puts/s, p50",
        [0.1, 0.01, 0.0],
        Some(0.01),
    ),
    row(
        Group::P14,
        ("count_past", "us"),
        "... at a revision 10,000 back",
        [0.1, 0.01, 0.0],
        Some(0.01),
    ),
    row(
        Group::P15,
        ("compacted_each", "MiB"),
        "state store without log and checkpoint, 60 s after 10 rewrites, each compacted",
        [0.8, 0.6, 0.5],
        None,
    ),
    row(
        Group::P15,
        ("compacted_end", "MiB"),
        "... compacted only at the end",
        [0.3, 0.15, 0.0],
        None,
    ),
    row(
        Group::P16,
        ("written_256_many", "B"),
        "bytes written per put of 256 B, 256 clients",
        [1.0, 0.9, 0.75],
        None,
    ),
    row(Group::P16, ("written_1k_many", "B"), "... of 1 KiB, 256 clients", [1.0, 0.9, 0.75], None),
    row(Group::P16, ("written_256_one", "B"), "... of 256 B, 1 client", [1.0, 0.9, 0.75], None),
    row(Group::P16, ("written_1k_one", "B"), "... of 1 KiB, 1 client", [1.0, 0.9, 0.75], None),
];
