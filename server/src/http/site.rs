//! Paths, methods and headers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use super::health::{self, Probe, Query};
use super::refresh::refresh;
use crate::config::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::handle::Handle;
use crate::telemetry::{Metrics, TEXT_FORMAT};

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Which part of the site a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything, for clients and browsers.
    Client,
    /// Health and metrics.
    Metrics,
}

/// The pages of one member.
pub struct Site {
    handle: Handle,
    metrics: Arc<Metrics>,
    level: u32,
    /// The longest that the disk may take to sync the log.
    sync_max: Duration,
}

/// A reply before it has a body type.
#[derive(Debug)]
pub struct Page {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Site {
    /// Pages about the member behind `handle`; `level` is the apply level for `/version`. A member whose
    /// disk takes longer than `sync_max` to sync the log is not healthy.
    pub fn new(handle: Handle, metrics: Arc<Metrics>, level: u32, sync_max: Duration) -> Self {
        Self { handle, metrics, level, sync_max }
    }

    /// How long the disk has not answered, if that is longer than it may take.
    pub(super) fn stalled(&self) -> Option<Duration> {
        let pending = self.handle.status().log_sync.pending(Instant::now());
        Some(pending).filter(|pending| *pending > self.sync_max)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers a request. Bodies of requests are not read: nothing here takes one.
    pub async fn call(&self, method: &Method, uri: &Uri, surface: Surface) -> Page {
        if surface == Surface::Metrics {
            return self.route(method, uri, surface).await;
        }
        if method == Method::OPTIONS {
            return Page::empty().with_cors();
        }
        self.route(method, uri, surface).await.with_cors()
    }

    async fn route(&self, method: &Method, uri: &Uri, surface: Surface) -> Page {
        let path = uri.path();
        let get = method == Method::GET;
        if let Some(clean) = clean_path(path) {
            return Page::redirect(clean, uri.query(), get || method == Method::HEAD);
        }
        if path == "/metrics" {
            return self.metrics_page();
        }
        let probe = path == "/health" || split_probe(path).is_some();
        let more = surface == Surface::Client && matches!(path, "/version" | "/debug/vars");
        if !probe && !more {
            return Page::not_found();
        }
        let query = Query::parse(uri.query().unwrap_or_default());
        match (split_probe(path), path) {
            _ if !get => Page::method_not_allowed(),
            (Some((probe, check)), _) => health::probe(self, probe, check, &query).await,
            (None, "/health") => health::health(self, &query).await,
            (None, "/version") => self.version_page(),
            (None, _) => vars_page(),
        }
    }

    fn metrics_page(&self) -> Page {
        refresh(&self.metrics, &self.handle);
        let stalled = self.stalled().unwrap_or_default();
        self.metrics.own.log_sync_stalled_seconds.set(stalled.as_secs_f64());
        let mut page = Page::text(StatusCode::OK, self.metrics.text());
        page.headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
        page
    }

    fn version_page(&self) -> Page {
        let body = format!(
            r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{ETCD_CLUSTER_VERSION}","storage":"{ETCD_CLUSTER_VERSION}","quorate":"{}","level":{}}}"#,
            env!("CARGO_PKG_VERSION"),
            self.level,
        );
        Page::json(StatusCode::OK, body)
    }
}

fn vars_page() -> Page {
    let cmdline: Vec<String> = std::env::args().collect();
    Page::json(StatusCode::OK, serde_json::json!({ "cmdline": cmdline }).to_string())
}

/// Where Go's HTTP server sends whoever asks for `path`; `None` if it is there already.
fn clean_path(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    Some(clean).filter(|clean| clean != path)
}

/// The probe that a path names, and the one check that it asks for; `None` if there is no such check.
pub(super) fn split_probe(path: &str) -> Option<(Probe, Option<&str>)> {
    let (probe, rest) = match (path.strip_prefix("/livez"), path.strip_prefix("/readyz")) {
        (Some(rest), _) => (Probe::Live, rest),
        (None, Some(rest)) => (Probe::Ready, rest),
        (None, None) => return None,
    };
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some((probe, None)),
        Some(check) if probe.knows(check) => Some((probe, Some(check))),
        _ => None,
    }
}

impl Page {
    fn empty() -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: String::new() }
    }

    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        let mut page = Self { status, headers: HeaderMap::new(), body: body.into() };
        page.headers.insert(CONTENT_TYPE, PLAIN);
        page
    }

    pub(super) fn json(status: StatusCode, body: String) -> Self {
        let mut page = Self::text(status, body);
        page.headers.insert(CONTENT_TYPE, JSON);
        page
    }

    /// An error in the form of Go's HTTP library: the text, a line end, and a header against guessing.
    pub(super) fn error(status: StatusCode, text: impl Into<String>) -> Self {
        Self::text(status, text.into() + "\n").nosniff()
    }

    pub(super) fn nosniff(mut self) -> Self {
        self.headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        self
    }

    fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "404 page not found")
    }

    /// Sends the client to another path; with a body for those who may look at it.
    fn redirect(path: String, query: Option<&str>, has_body: bool) -> Self {
        let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        let Ok(location) = HeaderValue::try_from(&target) else { return Self::not_found() };
        let mut page = Self::empty();
        if has_body {
            let target = target.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let target = target.replace('"', "&#34;").replace('\'', "&#39;");
            let link = format!("<a href=\"{target}\">Temporary Redirect</a>.\n\n");
            page = Self::text(StatusCode::OK, link);
            page.headers.insert(CONTENT_TYPE, HTML);
        }
        page.status = StatusCode::TEMPORARY_REDIRECT;
        page.headers.insert(LOCATION, location);
        page
    }

    fn method_not_allowed() -> Self {
        let mut page = Self::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        page.headers.insert(ALLOW, HeaderValue::from_static("GET"));
        page
    }

    fn with_cors(mut self) -> Self {
        let cors = [
            (ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, authorization"),
            (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE"),
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        ];
        for (name, value) in cors {
            self.headers.insert(name, HeaderValue::from_static(value));
        }
        self
    }

    /// Its status code.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its text.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The reply, with its body made by `body`.
    pub fn into_response<B>(self, body: impl FnOnce(String) -> B) -> Response<B> {
        let mut response = Response::new(body(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_name_themselves_and_at_most_one_check() {
        let cases = [
            ("/livez", Some((Probe::Live, None))),
            ("/readyz", Some((Probe::Ready, None))),
            ("/readyz/non_learner", Some((Probe::Ready, Some("non_learner")))),
            ("/readyz/", None),
            ("/readyz/nope", None),
            ("/livez/ping", None),
            ("/livez/non_learner", None),
            ("/livezz", None),
            ("/health", None),
        ];
        for (path, expected) in cases {
            assert_eq!(split_probe(path), expected, "{path}");
        }
    }

    /// Read from etcd 3.7.3.
    #[tokio::test]
    async fn pages_that_are_nowhere_are_not_found_by_any_method_and_untidy_paths_are_sent_on() {
        let metrics = Arc::new(Metrics::new(&[], false));
        let site = Site::new(crate::handle::tests::handle(None), metrics, 1, Duration::MAX);
        for (method, uri, status, location) in [
            (Method::POST, "/readyz/nope", 404, ""),
            (Method::POST, "/livez/ping", 404, ""),
            (Method::POST, "/nope", 404, ""),
            (Method::POST, "/readyz", 405, ""),
            (Method::POST, "/readyz/non_learner", 405, ""),
            (Method::POST, "/health", 405, ""),
            (Method::GET, "/health/", 404, ""),
            (Method::GET, "//health", 307, "/health"),
            (Method::POST, "//health", 307, "/health"),
            (Method::GET, "/x/../health", 307, "/health"),
            (Method::GET, "/../.", 307, "/"),
            (Method::GET, "//version/", 307, "/version/"),
            (Method::GET, "//nope?x=y&z='", 307, "/nope?x=y&z='"),
            (Method::OPTIONS, "//health", 200, ""),
        ] {
            let page = site.call(&method, &Uri::from_static(uri), Surface::Client).await;
            assert_eq!(page.status().as_u16(), status, "{method} {uri}");
            let found = page.headers.get(LOCATION).map_or("", |value| value.to_str().unwrap());
            assert_eq!(found, location, "{method} {uri}");
            let link = location.replace('&', "&amp;").replace('\'', "&#39;");
            let link = format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n");
            assert_eq!(page.body() == link, status == 307 && method == Method::GET, "{uri}");
        }
    }

    #[test]
    fn errors_look_like_those_of_go() {
        let page = Page::method_not_allowed().with_cors();
        assert_eq!((page.status().as_u16(), page.body()), (405, "Method Not Allowed\n"));
        let header = |name: &str| page.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("allow"), Some("GET"));
        assert_eq!(header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(header("x-content-type-options"), Some("nosniff"));
        assert_eq!(header("access-control-allow-origin"), Some("*"));
        assert_eq!(Page::not_found().body(), "404 page not found\n");
    }
}
