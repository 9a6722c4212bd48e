//! What is served over plain HTTP: health for machines, metrics, the version.
//!
//! Paths, texts and headers are etcd's, so that probes, dashboards and scripts work unchanged. The same
//! site is served on the client port (everything, with CORS) and on `--listen-metrics-urls` (health and
//! metrics only).

mod health;
mod loading;
mod refresh;
mod site;

pub use loading::Loading;
pub use site::{Page, Site, Surface};
