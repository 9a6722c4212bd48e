//! What the member says about itself: logs for people and machines, numbers for Prometheus.
//!
//! Logs are `tracing` events: a constant phrase, and fields with units. Numbers are atomics in
//! [`Metrics`], shared by everyone who counts; nobody looks a metric up by its name while serving.

mod family;
mod grpc;
mod log;
mod metrics;
mod process;

pub use family::Family;
pub use grpc::{GrpcMetrics, MethodKind, MethodMetrics, code_name};
pub use log::{LogError, LogTarget, init as init_logs};
pub use metrics::{
    ApplyMetrics, CompactionMetrics, DiskMetrics, HealthMetrics, Metrics, MvccMetrics, OwnMetrics,
    RaftMetrics, RequestMetrics, SpaceMetrics,
};

pub use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TEXT_FORMAT,
};
