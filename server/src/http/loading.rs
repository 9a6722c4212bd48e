//! The pages of a member that is still loading its index: alive, not ready, and how far it is.

use http::StatusCode;

use super::health::Probe;
use super::site::{Page, split_probe};

/// What there is to be seen before a member serves.
pub struct Loading {
    rows: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Loading {
    /// `rows` tells how many rows have been read so far.
    pub fn new(rows: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { rows: Box::new(rows) }
    }

    /// Answers a request for any path.
    pub fn call(&self, path: &str) -> Page {
        let rows = (self.rows)();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        if let Some((Probe::Live, _)) = split_probe(path) {
            return Page::text(StatusCode::OK, "ok\n");
        }
        match path {
            "/health" => Page::json(unavailable, r#"{"health":"false","reason":"LOADING"}"#.into()),
            "/readyz" => Page::error(
                unavailable,
                format!("[-]index failed: loading, {rows} rows read so far\nreadyz check failed"),
            ),
            _ => Page::error(unavailable, format!("loading, {rows} rows read so far")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_loads_is_alive_by_every_probe_and_ready_by_none() {
        let loading = Loading::new(|| 7);
        for (path, expected) in [
            ("/livez", StatusCode::OK),
            ("/livez/serializable_read", StatusCode::OK),
            ("/livez/nope", StatusCode::SERVICE_UNAVAILABLE),
            ("/readyz", StatusCode::SERVICE_UNAVAILABLE),
            ("/readyz/serializable_read", StatusCode::SERVICE_UNAVAILABLE),
            ("/health", StatusCode::SERVICE_UNAVAILABLE),
            ("/metrics", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            assert_eq!(loading.call(path).status(), expected, "{path}");
        }
    }
}
