//! The gRPC API: requests checked, sent to the owner or read from the view, and answered to the letter.
//!
//! ```text
//! HTTP/2 stream -> Api::call      which method, metadata, counters
//!               -> KvService ...  validate -> propose or linearize and read -> reply
//! ```
//!
//! - `validate`, `request`, `errors` and `methods` are pure.
//! - `context` is the way to the owner and to the view; `reply` turns what apply did into messages.
//! - One file per service: `kv` (with `stream`, and `large` for large unary replies), `lease` (with
//!   `keep_alive`), `cluster`, `maintenance`, `auth`, `lock` and `election` (both on `concurrency`).
//! - `watch` answers in encoded buffers, and `incoming` reads its requests: neither goes through tonic.
//! - `service`, `head` and `body` are the edge to HTTP: they refuse what is no call, find the service, and
//!   count messages and bytes.
//!
//! Deliberately absent: permission (decided in apply), retries (a proposal that may have left is never
//! sent again), and any lock held over an await.

mod admin_errors;
mod auth;
mod body;
mod cluster;
mod concurrency;
mod context;
mod deadline;
mod downgrade;
mod election;
mod errors;
mod follow;
mod head;
mod health;
mod incoming;
mod keep_alive;
mod kv;
mod large;
mod lease;
mod lock;
mod maintenance;
mod methods;
mod peer_urls;
mod reply;
mod request;
mod service;
mod services;
mod snapshot;
mod stream;
mod timers;
mod validate;
mod watch;

#[cfg(test)]
mod tests;

pub use body::ReplyBody;
pub use methods::METHODS;
pub use service::{Api, CallTimes, within_deadline};

use quorate_proto::etcdserverpb::{
    kv_server::Kv, lease_server::Lease, maintenance_server::Maintenance,
};
use tonic::Status;

use crate::config::LimitConfig;
use crate::handle::Handle;
use crate::telemetry::Metrics;

/// The services on keys, on leases and for operators without their edge to HTTP, as the simulator calls them.
pub fn services(
    handle: Handle,
    metrics: std::sync::Arc<Metrics>,
    limits: LimitConfig,
) -> (impl Kv, impl Lease, impl Maintenance) {
    let context = context::Context::new(handle, metrics, limits);
    (
        kv::KvService::new(context.clone()),
        lease::LeaseService::new(context.clone()),
        maintenance::MaintenanceService::new(context),
    )
}

/// What a method says whose feature is not there.
pub(crate) fn unavailable(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not available in this version"))
}
