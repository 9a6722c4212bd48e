//! From an HTTP request to the service that answers it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Status;

use super::body::{Call, ReplyBody, RequestBody};
use super::context::Context;
use super::deadline::{self, Expiring};
use super::errors::Refusal;
use super::head;
use super::methods::{self, METHODS};
use super::services::Services;
use super::watch::{StreamTimes, WatchStream};
use crate::config::LimitConfig;
use crate::handle::Handle;
use crate::telemetry::{MethodKind, Metrics};

/// The most digits behind `3.` in a version that a client claims to have: the label is the client's to
/// choose, and each is kept for ever.
const MINOR_DIGITS_MAX: usize = 2;

/// The type of every reply of gRPC.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The times of the API.
#[derive(Clone, Copy, Debug)]
pub struct CallTimes {
    /// A unary call that takes longer is logged.
    pub slow: Duration,
    /// How often watchers are told of their progress.
    pub progress_interval: Duration,
}

/// All gRPC services.
pub struct Api {
    context: Context,
    metrics: Arc<Metrics>,
    message_bytes_max: usize,
    times: CallTimes,
    services: Services,
    /// Held by every call that has an end.
    owed: Arc<()>,
}

impl Api {
    /// The services of one member.
    ///
    /// `metrics` must have been made with [`METHODS`].
    pub fn new(
        handle: Handle,
        metrics: Arc<Metrics>,
        limits: LimitConfig,
        times: CallTimes,
    ) -> Arc<Self> {
        let context = Context::new(handle, Arc::clone(&metrics), limits);
        Arc::new(Self {
            message_bytes_max: limits.message_bytes_max(),
            times,
            services: Services::new(&context),
            owed: Arc::default(),
            context,
            metrics,
        })
    }

    /// Whether a call has not been answered to its end; streams that go on for ever do not count.
    pub fn owes_replies(&self) -> bool {
        Arc::strong_count(&self.owed) > 1
    }

    /// Answers one call.
    pub async fn call(self: Arc<Self>, request: Request<Incoming>) -> Response<ReplyBody> {
        let deadline = match head::check(request.method(), request.headers()) {
            Ok(deadline) => deadline,
            Err(bad) => {
                let mut reply = refuse(bad.status, None);
                *reply.status_mut() = bad.http;
                return reply;
            }
        };
        // All of it: to gRPC a query is a part of the name, and there is no method of such a name.
        let path = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
        let method = match methods::find(path) {
            Ok(method) => method,
            Err(text) => return refuse(Status::unimplemented(text), None),
        };
        if let Err(status) = head::check_encoding(request.headers()) {
            return refuse(status, None);
        }
        let reply_type = head::reply_type(request.headers());
        let call = Call::start(Arc::clone(&self.metrics), method, self.times.slow);
        let call = call.owing(&self.owed);
        if let Err(refusal) = self.check_metadata(request.headers(), method) {
            return refuse(refusal.into(), Some(call));
        }
        let request = request.map(|body| RequestBody::new(body, self.message_bytes_max, &call));
        if METHODS[method].0 == "etcdserverpb.Watch" {
            return self.watch(request.into_body(), deadline, (reply_type, call));
        }
        let reply = match deadline::until(deadline, self.services.call(method, request)).await {
            Ok(reply) => reply,
            Err(exceeded) => return refuse(exceeded, Some(call)),
        };
        let (mut parts, body) = reply.into_parts();
        if let Some(reply_type) = reply_type {
            parts.headers.insert(CONTENT_TYPE, reply_type);
        }
        let is_stream = METHODS[method].2 != MethodKind::Unary;
        let body = Expiring::wrap(body, deadline.filter(|_| is_stream));
        let body = ReplyBody::of_call(&mut parts, body, call);
        Response::from_parts(parts, body)
    }

    fn watch(
        &self,
        requests: RequestBody,
        deadline: Option<Instant>,
        (reply_type, call): (Option<HeaderValue>, Call),
    ) -> Response<ReplyBody> {
        let times = StreamTimes { deadline, progress_interval: self.times.progress_interval };
        let stream = WatchStream::open(self.context.clone(), requests, times);
        let mut response = Response::new(ReplyBody::watch(stream, call));
        response.headers_mut().insert(CONTENT_TYPE, reply_type.unwrap_or(GRPC));
        response
    }

    /// What a client asks in its metadata: to fail without a leader; and it says its version.
    fn check_metadata(&self, headers: &HeaderMap, method: usize) -> Result<(), Refusal> {
        let version = client_version(headers)?;
        let kind = if METHODS[method].2 == MethodKind::Unary { "unary" } else { "stream" };
        let version = if is_version(version) { version } else { "other" };
        self.metrics.requests.clients.with_label_values(&[kind, version]).inc();
        let needs_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        let leader_id = &self.context.handle().status().raft.leader_id;
        if needs_leader && leader_id.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            return Err(Refusal::NoLeader);
        }
        Ok(())
    }
}

/// Waits for `what` as long as a call with these headers does.
///
/// # Errors
/// The reply to a call whose time is over before, or is none.
pub async fn within_deadline<T>(
    headers: &HeaderMap,
    what: impl Future<Output = T>,
) -> Result<T, Response<ReplyBody>> {
    let waited = match deadline::timeout(headers) {
        Ok(timeout) => deadline::until(timeout.map(|timeout| Instant::now() + timeout), what).await,
        Err(malformed) => Err(Status::internal(malformed)),
    };
    waited.map_err(|status| refuse(status, None))
}

/// What a client says its version is. As in etcd it is refused only if it is no text at all.
fn client_version(headers: &HeaderMap) -> Result<&str, Refusal> {
    match headers.get("client-api-version") {
        None => Ok("unknown"),
        // Not `to_str`, which knows visible ASCII only.
        Some(value) => {
            std::str::from_utf8(value.as_bytes()).map_err(|_| Refusal::InvalidClientApiVersion)
        }
    }
}

/// Whether a client's version can be a label: one like `3.7`, or that nothing was said.
fn is_version(text: &str) -> bool {
    let is_minor = |minor: &str| {
        (1..=MINOR_DIGITS_MAX).contains(&minor.len()) && minor.bytes().all(|b| b.is_ascii_digit())
    };
    text == "unknown" || text.strip_prefix("3.").is_some_and(is_minor)
}

fn refuse(status: Status, call: Option<Call>) -> Response<ReplyBody> {
    let (mut parts, body) = status.into_http::<tonic::body::Body>().into_parts();
    let body = match call {
        Some(call) => ReplyBody::of_call(&mut parts, body, call),
        None => ReplyBody::plain(bytes::Bytes::new()),
    };
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hundred_versions_of_three_become_labels() {
        for (text, expected) in [
            ("3.7", true),
            ("3.10", true),
            ("3.10.1", false),
            ("3.", false),
            ("3.1.1.1", false),
            ("unknown", true),
            ("3.777777777", false),
            ("x", false),
            ("2.3", false),
            ("", false),
        ] {
            assert_eq!(is_version(text), expected, "{text}");
        }
    }
    #[test]
    fn a_client_may_say_any_text_as_its_version() {
        let version = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            let headers = [(http::HeaderName::from_static("client-api-version"), value)];
            client_version(&HeaderMap::from_iter(headers)).map(str::to_owned)
        };
        assert_eq!(version(b"3.7"), Ok("3.7".to_owned()));
        assert_eq!(version("\u{fc}".as_bytes()), Ok("\u{fc}".to_owned()));
        assert_eq!(version(b"\xff"), Err(Refusal::InvalidClientApiVersion));
        assert_eq!(client_version(&HeaderMap::new()), Ok("unknown"));
    }
}
