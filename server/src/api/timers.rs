//! How long requests take, by what they are: `etcd_server_request_duration_seconds` and
//! `etcd_server_range_duration_seconds`.

use std::time::Instant;

use super::request::Command;
use crate::telemetry::{Histogram, HistogramVec, Metrics};

/// A distribution of durations, apart for what succeeded and what did not.
pub(super) struct Timer {
    ok: Histogram,
    failed: Histogram,
}

impl Timer {
    /// The two of `seconds` that have these labels before the one that says which.
    fn of(seconds: &HistogramVec, labels: &[&str]) -> Self {
        let with = |success| seconds.with_label_values(&[labels, &[success]].concat());
        Self { ok: with("true"), failed: with("false") }
    }

    /// Counts what began at `started`.
    pub(super) fn observe(&self, started: Instant, ok: bool) {
        let histogram = if ok { &self.ok } else { &self.failed };
        histogram.observe(started.elapsed().as_secs_f64());
    }
}

/// The timers of everything that is timed.
///
/// As in etcd a proposal succeeded when it was applied, even if all that came of it was a refusal; what
/// was refused before it was proposed is not timed.
pub(super) struct Timers {
    /// Ranges and transactions that only read, with their wait to be linearizable.
    pub(super) range: Timer,
    pub(super) read_only_txn: Timer,
    /// Ranges of their own, without that wait.
    pub(super) range_alone: Timer,
    put: Timer,
    delete_range: Timer,
    txn: Timer,
    compaction: Timer,
    lease_grant: Timer,
    lease_revoke: Timer,
    alarm: Timer,
}

impl Timers {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let timer = |kind| Timer::of(&metrics.requests.request_seconds, &[kind]);
        Self {
            range: timer("Range"),
            read_only_txn: timer("ReadonlyTxn"),
            range_alone: Timer::of(&metrics.requests.range_seconds, &[]),
            put: timer("Put"),
            delete_range: timer("DeleteRange"),
            txn: timer("Txn"),
            compaction: timer("Compaction"),
            lease_grant: timer("LeaseGrant"),
            lease_revoke: timer("LeaseRevoke"),
            alarm: timer("Alarm"),
        }
    }

    /// The timer of a proposal.
    pub(super) fn of(&self, command: &Command) -> &Timer {
        match command {
            Command::Put(_) => &self.put,
            Command::DeleteRange(_) => &self.delete_range,
            Command::Txn(_) => &self.txn,
            Command::Compaction(_) => &self.compaction,
            Command::LeaseGrant(_) => &self.lease_grant,
            Command::LeaseRevoke(_) => &self.lease_revoke,
            Command::Alarm(_) => &self.alarm,
        }
    }
}
