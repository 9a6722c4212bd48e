//! What is no proper call of gRPC, and how it is counted: the same table for `quorate` and for a real
//! `etcd`, which is found on the PATH, or a line that begins with `skipped:` is printed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Context as _;
use quorate_tests::process::{Program, Server, http, locate};
use tonic::Code;
use tonic::body::Body;
use tonic::client::GrpcService as _;
use tonic::codegen::Body as _;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::transport::{Channel, Endpoint};

type Outcome = anyhow::Result<()>;

const RANGE: &str = "/etcdserverpb.KV/Range";
const STREAM: &str = "/etcdserverpb.KV/RangeStream";
/// A `RangeRequest` for the key `a`, as a message, and broken in several ways.
const GOOD: &[u8] = b"\0\0\0\0\x03\x0a\x01a";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const NO_KEY: &[u8] = b"\0\0\0\0\0";
const TORN: &[u8] = b"\0\0\0\0\x03\x0a";
const COMPRESSED: &[u8] = b"\x01\0\0\0\x03\x0a\x01a";

/// What is sent by HTTP/2, and what comes back: status, code, and the text of the code.
struct Case {
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    expected: (u16, Code, &'static str),
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// A POST of a message to a method.
const fn post(
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    expected: (u16, Code, &'static str),
) -> Case {
    Case { method: "POST", path: RANGE, headers, body, expected }
}

/// Every expectation was read from etcd 3.7.3.
fn cases() -> Vec<Case> {
    let json = "invalid gRPC request content-type \"application/json\"";
    let get = "Received a HEADERS frame with :method \"GET\" which should be POST";
    let put = "Received a HEADERS frame with :method \"PUT\" which should be POST";
    let nope = "unknown method Nope for service etcdserverpb.KV";
    let query = "unknown method Range?x=1 for service etcdserverpb.KV";
    let odd = "grpc: Decompressor is not installed for grpc-encoding \"foo\"";
    let flag = "grpc: compressed flag set with identity or empty encoding";
    let unit = "malformed grpc-timeout: transport: timeout unit is not recognized: \"xx\"";
    let short = "malformed grpc-timeout: transport: timeout string is too short: \"S\"";
    let long = "malformed grpc-timeout: transport: timeout string is too long: \"123456789S\"";
    let digits = "malformed grpc-timeout: strconv.ParseUint: parsing \"-1\": invalid syntax";
    let (invalid, internal, unknown) = (Code::InvalidArgument, Code::Internal, Code::Unimplemented);
    let elsewhere =
        |method, path, headers, expected| Case { method, path, headers, body: NO_KEY, expected };
    vec![
        post(&[GRPC], GOOD, (200, Code::Ok, "")),
        post(&[("content-type", "application/grpc+proto")], GOOD, (200, Code::Ok, "")),
        post(&[GRPC], NO_KEY, (200, invalid, "etcdserver: key is not provided")),
        post(&[GRPC], TORN, (200, Code::Unknown, "unexpected EOF")),
        post(&[GRPC], COMPRESSED, (200, internal, flag)),
        post(&[GRPC, ("grpc-encoding", "identity")], GOOD, (200, Code::Ok, "")),
        post(&[GRPC, ("grpc-encoding", "foo")], GOOD, (200, unknown, odd)),
        post(&[], GOOD, (415, invalid, "invalid gRPC request content-type \"\"")),
        post(&[("content-type", "application/json")], GOOD, (415, invalid, json)),
        post(
            &[("content-type", "application/grpc-web")],
            GOOD,
            (415, invalid, "invalid gRPC request content-type \"application/grpc-web\""),
        ),
        post(
            &[("content-type", "a\"b")],
            GOOD,
            (415, invalid, "invalid gRPC request content-type \"a\\\"b\""),
        ),
        post(&[GRPC, ("grpc-timeout", "xx")], GOOD, (400, internal, unit)),
        post(&[GRPC, ("grpc-timeout", "S")], GOOD, (400, internal, short)),
        post(&[GRPC, ("grpc-timeout", "123456789S")], GOOD, (400, internal, long)),
        post(&[GRPC, ("grpc-timeout", "-1S")], GOOD, (400, internal, digits)),
        elsewhere("GET", RANGE, &[GRPC], (405, internal, get)),
        elsewhere("PUT", RANGE, &[GRPC], (405, internal, put)),
        elsewhere("GET", "/version", &[GRPC], (405, internal, get)),
        elsewhere(
            "POST",
            "/v3/kv/range",
            &[("content-type", "application/json")],
            (415, invalid, json),
        ),
        elsewhere("POST", HEALTH, &[GRPC], (200, Code::Ok, "")),
        Case { path: HEALTH, ..post(&[GRPC], GOOD, (200, Code::NotFound, "unknown service")) },
        elsewhere("POST", "/grpc.health.v1.Health/List", &[GRPC], (200, Code::Ok, "")),
        elsewhere("POST", "/etcdserverpb.KV/Nope", &[GRPC], (200, unknown, nope)),
        elsewhere("POST", "/etcdserverpb.KV/Range?x=1", &[GRPC], (200, unknown, query)),
        elsewhere("POST", "/nope", &[GRPC], (200, unknown, "malformed method name: \"/nope\"")),
        elsewhere("POST", "/a/b", &[GRPC], (200, unknown, "unknown service a")),
    ]
}

#[test]
fn quorate_answers_what_is_no_proper_call_by_the_table() -> Outcome {
    answers_by_the_table(&Program::quorate(locate::built_quorate()?))
}

#[test]
fn etcd_answers_what_is_no_proper_call_by_the_table() -> Outcome {
    etcd("etcd_answers_what_is_no_proper_call_by_the_table")
        .map_or(Ok(()), |etcd| answers_by_the_table(&etcd))
}

#[test]
fn quorate_counts_calls_by_the_table() -> Outcome {
    counts_by_the_table(&Program::quorate(locate::built_quorate()?))
}

#[test]
fn etcd_counts_calls_by_the_table() -> Outcome {
    etcd("etcd_counts_calls_by_the_table").map_or(Ok(()), |etcd| counts_by_the_table(&etcd))
}

fn etcd(test: &str) -> Option<Program> {
    locate::tool("etcd", test).map(Program::etcd)
}

fn answers_by_the_table(program: &Program) -> Outcome {
    let server = Server::start(program)?;
    for case in cases() {
        let about = format!("{} {} {:?} {:?}", case.method, case.path, case.headers, case.body);
        let (status, code, text) = ask(&server, &case).with_context(|| about.clone())?;
        let (expected_status, expected_code, expected_text) = case.expected;
        assert_eq!((status, code), (expected_status, expected_code), "{about}: {text}");
        assert_eq!(text, expected_text, "{about}");
    }
    for (method, path, expected) in [
        ("GET", RANGE, "HTTP/1.1 404 Not Found"),
        ("POST", RANGE, "HTTP/1.1 404 Not Found"),
        ("POST", "/version", "HTTP/1.1 405 Method Not Allowed"),
    ] {
        let found = ask_by_http1(&server, method, path)?;
        assert_eq!(found.lines().next(), Some(expected), "{method} {path} by HTTP/1: {found}");
    }
    Ok(())
}

/// What each call adds to `started`, `received`, `sent` and `handled` of its method.
fn counts_by_the_table(program: &Program) -> Outcome {
    let server = Server::start(program)?;
    let mut before = counts(&server)?;
    let failed = (200, Code::InvalidArgument, "etcdserver: key is not provided");
    let invalid_call =
        |path, body, expected| Case { method: "POST", path, headers: &[GRPC], body, expected };
    let table = [
        (invalid_call(RANGE, GOOD, (200, Code::Ok, "")), [1, 1, 1, 1]),
        (invalid_call(RANGE, NO_KEY, failed), [1, 1, 1, 1]),
        (invalid_call(STREAM, GOOD, (200, Code::Ok, "")), [1, 1, 1, 1]),
        (invalid_call(STREAM, NO_KEY, failed), [1, 1, 0, 1]),
    ];
    for (case, expected) in table {
        let (status, code, text) = ask(&server, &case)?;
        assert_eq!((status, code, text.as_str()), case.expected, "{}", case.path);
        let after = counts(&server)?;
        let method = if case.path == RANGE { "Range" } else { "RangeStream" };
        let added = ["started", "msg_received", "msg_sent", "handled"].map(|what| {
            let key = (what.to_owned(), method.to_owned());
            after.get(&key).unwrap_or(&0) - before.get(&key).unwrap_or(&0)
        });
        assert_eq!(added, expected, "{method} with {:?}", case.body);
        before = after;
    }
    Ok(())
}

/// The counters `grpc_server_<what>_total` by what and method, of all codes together.
fn counts(server: &Server) -> anyhow::Result<BTreeMap<(String, String), u64>> {
    let (_, text) = http::get(server.address(), "/metrics")?;
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some(what) =
            name.strip_prefix("grpc_server_").and_then(|name| name.strip_suffix("_total"))
        else {
            continue;
        };
        let method = rest.split_once("grpc_method=\"").and_then(|(_, rest)| rest.split_once('"'));
        let Some((method, _)) = method else { continue };
        let value = line.rsplit_once(' ').context("a counter without a value")?.1;
        let sum = counts.entry((what.to_owned(), method.to_owned())).or_insert(0);
        *sum += value.parse::<f64>()? as u64;
    }
    Ok(counts)
}

fn ask(server: &Server, case: &Case) -> anyhow::Result<(u16, Code, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel: Channel = Endpoint::from_shared(server.url())?.connect().await?;
        let mut request =
            Request::builder().method(case.method).uri(format!("{}{}", server.url(), case.path));
        for (name, value) in case.headers {
            request = request.header(*name, *value);
        }
        let body = Body::new(OneMessage(Some(case.body)));
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
        let reply = channel.call(request.body(body)?).await?;
        let status = reply.status().as_u16();
        let (code, text) = outcome_of(reply).await?;
        Ok((status, code, text))
    })
}

/// The code and its text, from the head of a reply or from behind its messages.
async fn outcome_of(reply: Response<Body>) -> anyhow::Result<(Code, String)> {
    let (head, body) = reply.into_parts();
    let mut trailers = head.headers;
    let mut body = std::pin::pin!(body);
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(found) = frame?.into_trailers() {
            trailers = found;
        }
    }
    let status = status_in(&trailers).context("a reply without grpc-status")?;
    Ok((status.code(), status.message().to_owned()))
}

fn status_in(headers: &HeaderMap) -> Option<tonic::Status> {
    tonic::Status::from_header_map(headers)
}

/// The body of a request: one piece.
struct OneMessage(Option<&'static [u8]>);

impl tonic::codegen::Body for OneMessage {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let piece = self.0.take().map(bytes::Bytes::from_static);
        std::task::Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }
}

fn ask_by_http1(server: &Server, method: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(server.address())?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}
