//! How long applying takes: measured per entry, and logged when it is too long.
//!
//! One look at the clock per entry: the end of one is the begin of the next.

use std::time::{Duration, Instant};

use crate::replica::Laps;
use crate::telemetry::{Histogram, HistogramVec, IntCounter, Metrics};

/// The stopwatch of the owner.
pub(super) struct ApplyLaps {
    slow: Duration,
    began: Instant,
    seconds: HistogramVec,
    /// Those of `seconds` that were used, by operation and success: a dozen, found faster than by labels.
    used: Vec<(&'static str, bool, Histogram)>,
    slow_count: IntCounter,
}

impl ApplyLaps {
    /// An entry that takes longer than `slow` is logged and counted.
    pub(super) fn new(metrics: &Metrics, slow: Duration) -> Self {
        let (seconds, slow_count) = (metrics.apply.seconds.clone(), metrics.apply.slow.clone());
        Self { slow, began: Instant::now(), seconds, used: Vec::new(), slow_count }
    }
}

impl ApplyLaps {
    fn histogram(&mut self, op: &'static str, success: bool) -> &Histogram {
        let is_it = |used: &(&str, bool, Histogram)| used.0 == op && used.1 == success;
        let place = self.used.iter().position(is_it).unwrap_or_else(|| {
            let label = if success { "true" } else { "false" };
            let histogram = self.seconds.with_label_values(&["v3", op, label]);
            self.used.push((op, success, histogram));
            self.used.len() - 1
        });
        &self.used[place].2
    }
}

impl Laps for ApplyLaps {
    fn begin(&mut self) {
        self.began = Instant::now();
    }

    fn applied(&mut self, index: u64, op: &'static str, success: bool) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.began, now);
        self.histogram(op, success).observe(took.as_secs_f64());
        if took > self.slow {
            self.slow_count.inc();
            let (took_ms, expected_ms) = (milliseconds(took), milliseconds(self.slow));
            tracing::warn!(index, op, took_ms, expected_ms, "apply request took too long");
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_measured_and_only_slow_ones_are_counted_as_slow() {
        let metrics = Metrics::new(&[], false);
        let mut laps = ApplyLaps::new(&metrics, Duration::MAX);
        laps.begin();
        laps.applied(1, "Put", true);
        laps.applied(2, "Put", true);
        assert_eq!(metrics.apply.slow.get(), 0);
        let mut laps = ApplyLaps::new(&metrics, Duration::ZERO);
        laps.began -= Duration::from_millis(2);
        laps.applied(3, "Txn", false);
        assert_eq!(metrics.apply.slow.get(), 1);
        let count = |op, success| {
            metrics.apply.seconds.with_label_values(&["v3", op, success]).get_sample_count()
        };
        assert_eq!((count("Put", "true"), count("Txn", "false")), (2, 1));
    }
}
