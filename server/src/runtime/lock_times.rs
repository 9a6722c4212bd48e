//! How long the owner waited for the lock of the key space, and how long it held it.
//!
//! Only the owner's thread writes here, so what lies between two of its calls needs no order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::telemetry::Metrics;
use crate::view::LockObserver;

/// A clock for [`crate::view::View::observe`].
pub(super) struct LockTimes {
    metrics: Arc<Metrics>,
    began: Instant,
    /// When the wait began, or the lock was taken; in nanoseconds since `began`.
    since_ns: AtomicU64,
    longest_wait_ns: AtomicU64,
    longest_hold_ns: AtomicU64,
}

impl LockTimes {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            began: Instant::now(),
            since_ns: AtomicU64::new(0),
            longest_wait_ns: AtomicU64::new(0),
            longest_hold_ns: AtomicU64::new(0),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl LockObserver for LockTimes {
    fn waits(&self) {
        self.since_ns.store(self.now_ns(), Relaxed);
    }

    fn takes(&self) {
        let now_ns = self.now_ns();
        let wait_ns = now_ns.saturating_sub(self.since_ns.swap(now_ns, Relaxed));
        if wait_ns > self.longest_wait_ns.load(Relaxed) {
            self.longest_wait_ns.store(wait_ns, Relaxed);
            self.metrics.own.index_lock_wait_seconds_max.set(seconds(wait_ns));
        }
    }

    fn releases(&self) {
        let hold_ns = self.now_ns().saturating_sub(self.since_ns.load(Relaxed));
        if hold_ns > self.longest_hold_ns.load(Relaxed) {
            self.longest_hold_ns.store(hold_ns, Relaxed);
            self.metrics.own.index_lock_hold_seconds_max.set(seconds(hold_ns));
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{KeySpace, Limits};
    use crate::view::View;

    #[test]
    fn the_longest_wait_for_the_lock_and_the_longest_hold_of_it_are_metrics() {
        let metrics = Arc::new(Metrics::new(&[], false));
        let (wait, hold) = (
            metrics.own.index_lock_wait_seconds_max.clone(),
            metrics.own.index_lock_hold_seconds_max.clone(),
        );
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 0 }));
        view.observe(Arc::new(LockTimes::new(metrics.clone())));
        let began = Instant::now();
        let guard = view.write();
        let held = Instant::now();
        let reader = std::thread::scope(|scope| {
            let reader = scope.spawn(|| view.current_revision());
            while held.elapsed().as_micros() < 500 {
                std::hint::spin_loop();
            }
            drop(guard);
            reader.join()
        });
        assert_eq!(reader.ok(), Some(1));
        let longest = hold.get();
        assert!((0.0005..=began.elapsed().as_secs_f64()).contains(&longest), "{longest}");
        assert!((0.0..=began.elapsed().as_secs_f64()).contains(&wait.get()));
        // A shorter one changes nothing.
        drop(view.write());
        assert!(hold.get() >= longest);
        let text = metrics.text();
        assert!(text.contains("\nquorate_index_lock_hold_seconds_max 0.00"), "{text}");
        assert!(text.contains("\nquorate_index_lock_wait_seconds_max "), "{text}");
    }
}
