//! The pages of a member that is still loading its index: alive, not ready, and how far it is.

use http::StatusCode;

use super::site::Page;

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
        match path {
            "/livez" => Page::text(StatusCode::OK, "ok\n"),
            "/health" => Page::json(unavailable, r#"{"health":"false","reason":"LOADING"}"#.into()),
            "/readyz" => Page::error(
                unavailable,
                format!("[-]index failed: loading, {rows} rows read so far\nreadyz check failed"),
            ),
            _ => Page::error(unavailable, format!("loading, {rows} rows read so far")),
        }
    }
}
