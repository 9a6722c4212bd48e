//! The edge to HTTP/2, seen by a client that a gRPC library would never be: one that pings too often, sends
//! half a request, opens thousands of streams, or says nothing at all.
//!
//! Each test runs against `quorate` and, if there is one on the PATH, against a real `etcd`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use quorate_tests::process::{Program, Server, http as pages, locate};

type Outcome = anyhow::Result<()>;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
/// The number of the setting of how many streams may be open.
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts each server with `arguments` and runs `check` on it.
fn on_both(test: &str, arguments: &[&str], check: impl Fn(&Server) -> Outcome) -> Outcome {
    let ours = Program::quorate(locate::built_quorate()?).with(arguments);
    check(&Server::start(&ours)?).context("quorate")?;
    let Some(path) = locate::tool("etcd", test) else { return Ok(()) };
    let theirs = Program::etcd(path).with(arguments);
    check(&Server::start(&theirs)?).context("etcd")
}

/// A frame as it came: its type, its flags and its payload.
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// A connection without a library.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    fn open(server: &Server) -> anyhow::Result<Raw> {
        let mut stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(PREFACE)?;
        let mut raw = Raw { stream };
        raw.send(SETTINGS, &[])?;
        Ok(raw)
    }

    fn send(&mut self, kind: u8, payload: &[u8]) -> Outcome {
        let mut frame = u32::try_from(payload.len())?.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        Ok(self.stream.write_all(&frame)?)
    }

    /// The next frame; `None` at the end of the connection.
    fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.context("no frame in time")?,
        }
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(len)?];
        self.stream.read_exact(&mut payload)?;
        Ok(Some(Frame { kind: head[3], flags: head[4], payload }))
    }

    /// The payload of the next frame of this type that is no answer.
    fn next_of(&mut self, kind: u8) -> anyhow::Result<Vec<u8>> {
        loop {
            let frame = self.next()?.context("the connection ended")?;
            if frame.kind == kind && frame.flags & 1 == 0 {
                return Ok(frame.payload);
            }
        }
    }
}

fn pings_end_the_connection(server: &Server) -> Outcome {
    let mut raw = Raw::open(server)?;
    for ping in 1..=4_u8 {
        raw.send(PING, &[ping; 8])?;
        if ping < 4 {
            // The answer: three are let pass.
            while raw.next()?.context("it ended too early")?.kind != PING {}
        }
    }
    let goaway = raw.next_of(GOAWAY)?;
    let code = u32::from_be_bytes(goaway[4..8].try_into()?);
    ensure!(code == ENHANCE_YOUR_CALM, "the code is {code}");
    ensure!(&goaway[8..] == b"too_many_pings", "{:?}", String::from_utf8_lossy(&goaway[8..]));
    while raw.next()?.is_some() {}
    Ok(())
}

#[test]
fn the_fourth_ping_in_a_row_without_a_call_ends_the_connection() -> Outcome {
    let test = "the_fourth_ping_in_a_row_without_a_call_ends_the_connection";
    on_both(test, &[], pings_end_the_connection)
}

#[test]
fn a_client_that_says_nothing_is_pinged_and_then_disconnected() -> Outcome {
    let test = "a_client_that_says_nothing_is_pinged_and_then_disconnected";
    let arguments = ["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"];
    on_both(test, &arguments, |server| {
        let started = Instant::now();
        let mut raw = Raw::open(server)?;
        raw.next_of(PING)?;
        while raw.next()?.is_some() {}
        let elapsed = started.elapsed();
        ensure!(elapsed > Duration::from_secs(1) && elapsed < PATIENCE, "after {elapsed:?}");
        Ok(())
    })
}

/// How many streams a server lets a client open.
fn streams_max(server: &Server) -> anyhow::Result<u32> {
    let settings = Raw::open(server)?.next_of(SETTINGS)?;
    let found = settings.chunks_exact(6).find_map(|setting| {
        let (number, value) = setting.split_at(2);
        (number == MAX_CONCURRENT_STREAMS.to_be_bytes()).then(|| value.try_into())
    });
    Ok(found.transpose()?.map_or(u32::MAX, u32::from_be_bytes))
}

#[test]
fn clients_are_told_how_many_streams_they_may_open() -> Outcome {
    let test = "clients_are_told_how_many_streams_they_may_open";
    for (arguments, expected) in [(&["--max-concurrent-streams=7"][..], 7), (&[], u32::MAX)] {
        on_both(test, arguments, |server| {
            let found = streams_max(server)?;
            ensure!(found == expected, "{arguments:?}: {found}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A connection that opens streams by hand.
struct Client {
    requests: SendRequest<Bytes>,
    authority: String,
}

impl Client {
    async fn open(server: &Server) -> anyhow::Result<Client> {
        let stream = tokio::net::TcpStream::connect(server.address()).await?;
        let mut builder = h2::client::Builder::new();
        let (requests, connection) = builder
            .initial_max_send_streams(10_000)
            // Thousands of short messages may wait here until they are read.
            .data_frame_budget(usize::MAX)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        Ok(Client { requests, authority: server.address().to_string() })
    }

    /// Sends the head of a call, with the time that its client has, and no message.
    async fn begin(
        &mut self,
        path: &str,
        timeout: Option<&str>,
    ) -> anyhow::Result<(ResponseFuture, SendStream<Bytes>)> {
        let mut request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        self.requests.clone().ready().await?;
        Ok(self.requests.send_request(request.body(())?, false)?)
    }
}

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// The status with its text at the end of a call, or why its stream was reset.
async fn end_of(reply: ResponseFuture) -> anyhow::Result<Result<(String, String), Reason>> {
    let read = async {
        let (head, mut body) = reply.await?.into_parts();
        while let Some(data) = body.data().await {
            let len = data?.len();
            body.flow_control().release_capacity(len)?;
        }
        Ok::<_, h2::Error>(body.trailers().await?.unwrap_or(head.headers))
    };
    let fields = match tokio::time::timeout(PATIENCE, read).await.context("no end")? {
        Ok(fields) => fields,
        Err(error) => match error.reason() {
            Some(reason) if error.is_reset() => return Ok(Err(reason)),
            _ => return Err(error.into()),
        },
    };
    let field = |name| fields.get(name).map_or("", |value| value.to_str().unwrap_or("?"));
    // Either server escapes as much as it likes.
    let text = field("grpc-message").replace("%20", " ").replace("%22", "\"");
    Ok(Ok((field("grpc-status").to_owned(), text)))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[test]
fn calls_and_streams_end_at_their_deadlines() -> Outcome {
    on_both("calls_and_streams_end_at_their_deadlines", &[], |server| {
        let exceeded = ("4".to_owned(), "context deadline exceeded".to_owned());
        runtime()?.block_on(async {
            let mut client = Client::open(server).await?;
            // Neither the message nor the end of this request ever comes.
            for (path, timeout) in [
                ("/etcdserverpb.KV/Range", "300m"),
                ("/etcdserverpb.KV/Put", "0m"),
                ("/etcdserverpb.Auth/AuthStatus", "200000u"),
                (OBSERVE, "300m"),
            ] {
                let (reply, mut send) = client.begin(path, Some(timeout)).await?;
                if path == OBSERVE {
                    send.send_data(Bytes::from_static(EMPTY_MESSAGE), true)?;
                }
                let end = end_of(reply).await.with_context(|| path.to_owned())?;
                // etcd resets the stream or ends it with the status, whichever is sooner.
                let may_reset = server.name() == Program::etcd("".into()).name();
                match end {
                    Err(Reason::CANCEL) if may_reset => {}
                    end => ensure!(end == Ok(exceeded.clone()), "{path} {timeout}: {end:?}"),
                }
            }
            Ok(())
        })
    })
}

#[test]
fn a_time_that_is_none_is_refused_in_the_words_of_grpc() -> Outcome {
    on_both("a_time_that_is_none_is_refused_in_the_words_of_grpc", &[], |server| {
        runtime()?.block_on(async {
            let mut client = Client::open(server).await?;
            for (timeout, text) in [
                ("5", "transport: timeout string is too short: \"5\""),
                ("123456789S", "transport: timeout string is too long: \"123456789S\""),
                ("5x", "transport: timeout unit is not recognized: \"5x\""),
                ("-5S", "strconv.ParseUint: parsing \"-5\": invalid syntax"),
            ] {
                let (reply, _send) = client.begin("/etcdserverpb.KV/Range", Some(timeout)).await?;
                let end = end_of(reply).await?;
                let expected = ("13".to_owned(), format!("malformed grpc-timeout: {text}"));
                ensure!(end == Ok(expected), "{timeout}: {end:?}");
            }
            Ok(())
        })
    })
}

/// What a counter of the server says about streams of `Health/Watch` that were cancelled.
fn cancelled(server: &Server) -> anyhow::Result<u64> {
    let (_, page) = pages::get(server.address(), "/metrics")?;
    let line = page.lines().find(|line| {
        line.starts_with("grpc_server_handled_total{")
            && line.contains("grpc_code=\"Canceled\"")
            && line.contains("grpc.health.v1.Health")
            && line.contains("\"Watch\"")
    });
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0))
}

#[test]
fn two_thousand_streams_on_one_connection_are_served_and_each_cancel_ends_one() -> Outcome {
    const STREAMS: usize = 2000;
    let test = "two_thousand_streams_on_one_connection_are_served_and_each_cancel_ends_one";
    on_both(test, &[], |server| {
        runtime()?.block_on(async {
            let mut client = Client::open(server).await?;
            let mut open = Vec::new();
            for _ in 0..STREAMS {
                let (reply, mut send) = client.begin(WATCH, None).await?;
                send.send_data(Bytes::from_static(EMPTY_MESSAGE), true)?;
                open.push((reply, send));
            }
            let mut streams = Vec::new();
            for (reply, send) in open {
                let mut body = tokio::time::timeout(PATIENCE, reply).await??.into_body();
                let message = tokio::time::timeout(PATIENCE, body.data()).await?;
                ensure!(
                    message.context("a message")??.len() == 7,
                    "each is told that it is served"
                );
                streams.push((body, send));
            }
            for (_, send) in &mut streams {
                send.send_reset(Reason::CANCEL);
            }
            // The resets are sent by the connection's own task.
            let deadline = Instant::now() + PATIENCE;
            while cancelled(server)? < STREAMS as u64 {
                ensure!(Instant::now() < deadline, "{} of {STREAMS} ended", cancelled(server)?);
                tokio::task::yield_now().await;
            }
            Ok(())
        })
    })
}

#[test]
fn a_burst_of_short_messages_is_no_attack() -> Outcome {
    const MESSAGES: usize = 20_000;
    // Asks for the list of services.
    const ASK: &[u8] = &[0, 0, 0, 0, 2, 0x3a, 0];
    let server = Server::start(&Program::quorate(locate::built_quorate()?))?;
    runtime()?.block_on(async {
        let mut client = Client::open(&server).await?;
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let (reply, mut send) = client.begin(path, None).await?;
        for message in 1..=MESSAGES {
            send.send_data(Bytes::from_static(ASK), message == MESSAGES)?;
        }
        let end = end_of(reply).await?;
        ensure!(end == Ok(("0".to_owned(), String::new())), "{end:?}");
        Ok(())
    })
}
