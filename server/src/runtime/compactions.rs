//! How long compactions take: from their entry to the last deletion that is durable.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::telemetry::{Gauge, Histogram, Metrics};

/// The stopwatch of the owner.
pub(super) struct Compactions {
    began: Option<Instant>,
    total_ms: Histogram,
    last: Gauge,
}

impl Compactions {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let compaction = &metrics.compaction;
        Self { began: None, total_ms: compaction.total_ms.clone(), last: compaction.last.clone() }
    }

    /// Takes the revisions of the last compaction, and of the last one that is finished.
    pub(super) fn look(&mut self, scheduled: i64, finished: i64) {
        if scheduled > finished {
            self.began.get_or_insert_with(Instant::now);
        } else if let Some(began) = self.began.take() {
            let took = began.elapsed();
            tracing::info!(revision = finished, ?took, "finished scheduled compaction");
            self.total_ms.observe(took.as_secs_f64() * 1000.0);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last.set(now.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_is_counted_when_it_is_finished_and_one_that_another_overtook_with_it() {
        let metrics = Metrics::new(&[], false);
        let mut compactions = Compactions::new(&metrics);
        let count = || metrics.compaction.total_ms.get_sample_count();
        compactions.look(-1, -1);
        compactions.look(5, -1);
        compactions.look(9, 5);
        assert_eq!((count(), metrics.compaction.last.get()), (0, 0.0));
        compactions.look(9, 9);
        compactions.look(9, 9);
        assert_eq!(count(), 1);
        assert!(metrics.compaction.last.get() > 0.0);
    }
}
