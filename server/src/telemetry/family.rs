//! Registering metrics by the names that dashboards know.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Why building a metric cannot fail.
const FIXED: &str = "names, labels and buckets are constants that the tests build";

/// Metrics whose names begin alike, on their way into a registry.
pub struct Family<'a> {
    registry: &'a Registry,
    prefix: &'static str,
}

impl<'a> Family<'a> {
    /// Names will be `prefix` and what is given with each metric.
    pub fn new(registry: &'a Registry, prefix: &'static str) -> Self {
        Self { registry, prefix }
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> C {
        self.registry.register(Box::new(metric.clone())).expect(FIXED);
        metric
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("{}{name}", self.prefix), help)
    }

    /// A number that grows.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(self.opts(name, help)).expect(FIXED))
    }

    /// Numbers that grow, by label.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(self.opts(name, help), labels).expect(FIXED))
    }

    /// A number.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(self.opts(name, help)).expect(FIXED))
    }

    /// A number that need not be whole.
    pub fn fraction(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::with_opts(self.opts(name, help)).expect(FIXED))
    }

    /// Numbers, by label.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(self.opts(name, help), labels).expect(FIXED))
    }

    /// A distribution over `count` buckets, the first up to `start`, each twice the one before.
    pub fn histogram(&self, name: &str, help: &str, start: f64, count: usize) -> Histogram {
        self.add(Histogram::with_opts(self.buckets(name, help, start, count)).expect(FIXED))
    }

    /// Distributions as [`Family::histogram`], by label.
    pub fn histograms(
        &self,
        (name, help): (&str, &str),
        labels: &[&str],
        start: f64,
        count: usize,
    ) -> HistogramVec {
        let opts = self.buckets(name, help, start, count);
        self.add(HistogramVec::new(opts, labels).expect(FIXED))
    }

    fn buckets(&self, name: &str, help: &str, start: f64, count: usize) -> HistogramOpts {
        let buckets = prometheus::exponential_buckets(start, 2.0, count).expect(FIXED);
        HistogramOpts::new(format!("{}{name}", self.prefix), help).buckets(buckets)
    }
}
