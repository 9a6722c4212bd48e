//! Sockets for clients: bound at the start, then each connection served until it or the member ends.
//!
//! gRPC and HTTP share a port, as in etcd: what can be a call goes to the [`Api`],
//! everything else to the [`Site`]. Everything runs on the runtime of the caller. There are as many
//! connections as [`Admission`] lets in.

mod admission;
mod frames;
mod pings;
mod watched;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::api::{self, Api, ReplyBody};
use crate::config::{Http2Config, ListenAddr};
use crate::http::{Loading, Site, Surface};
use crate::telemetry::Metrics;

use watched::{Pace, Watched};

pub use admission::{Admission, TooFewFiles};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// What a client may send on one stream, and on one connection, before it is read, in bytes.
///
/// h2 takes short messages that pile up for an attack: it ends the connection once what they lack to 256
/// bytes each adds up to half of the latter. A client that creates thousands of watchers is none.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Largest HTTP/2 frame that is received, in bytes.
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// What may wait to be sent on one stream, in bytes.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams that a client may open and cancel faster than they are accepted; Kubernetes cancels many.
const RESETS_PENDING_MAX: usize = 4096;
/// Time for the head of an HTTP/1 request, and for the preface and the first frame of HTTP/2.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After this long without a word the kernel asks whether the client is still there; as etcd's.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// How often it asks, and how many times in vain before the connection ends; Go's defaults.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 9;
/// Pause after a failed accept, which is likely to fail again at once (no more file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Time for open calls to end when the member stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {error}; free the address, or choose another by {flag}")]
pub struct ListenError {
    flag: &'static str,
    addr: ListenAddr,
    error: io::Error,
}

/// A bound socket.
pub struct Listener {
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// What a listener serves.
#[derive(Clone)]
pub struct Front {
    /// Whether gRPC is served here.
    pub grpc: bool,
    /// Which part of HTTP is served here, if any.
    pub surface: Option<Surface>,
    /// Empty until the member has recovered and knows a leader; closed if it never will.
    pub services: watch::Receiver<Option<Services>>,
    /// What there is to be seen until then.
    pub loading: Arc<Loading>,
    /// Lets connections in.
    pub admission: Admission,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
}

/// The services of a member that has recovered.
#[derive(Clone)]
pub struct Services {
    /// gRPC.
    pub api: Arc<Api>,
    /// HTTP.
    pub site: Arc<Site>,
}

impl Listener {
    /// Binds `addr`, which was given by `flag`, with `SO_REUSEPORT` if asked for. Needs the context of a
    /// tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be bound; say so and end the start.
    pub fn bind(
        addr: &ListenAddr,
        flag: &'static str,
        reuse_port: bool,
    ) -> Result<Self, ListenError> {
        let socket = match addr {
            ListenAddr::Tcp(ip) => bind_tcp(*ip, reuse_port).map(Socket::Tcp),
            ListenAddr::Unix(path) => bind_unix(path),
        };
        let socket = socket.map_err(|error| ListenError { flag, addr: addr.clone(), error })?;
        Ok(Self { socket })
    }

    /// The address that was bound, with the port that port 0 became.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Serves `front` until `stop` says true, then lets open calls end for a moment.
    pub async fn serve(self, front: Front, http2: Http2Config, mut stop: watch::Receiver<bool>) {
        let builder = Arc::new(connections(http2));
        let pace = Pace { ping_interval: http2.keepalive_min_time, opening_max: HEAD_TIMEOUT };
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept_one_that_fits(&front.admission) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let stream = Watched::new(stream, pace);
                    spawn((stream, permit), &front, &builder, &graceful);
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    if stops_within(ACCEPT_RETRY, &mut stop).await {
                        break;
                    }
                }
            }
        }
        drop(self);
        if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::info!("connections are still open and end with the process");
        }
    }

    /// The first that does not fit is accepted too, and waits here; those after it wait in the kernel.
    async fn accept_one_that_fits(
        &self,
        admission: &Admission,
    ) -> io::Result<(Stream, OwnedSemaphorePermit)> {
        let stream = self.accept().await?;
        Ok((stream, admission.admit().await))
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small replies must not wait for the client's acknowledgement of the one before.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Waits for `pause`, or less if the member stops; whether it stops.
async fn stops_within(pause: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}

fn bind_tcp(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As Go does for every listener: without it a restart waits for old connections to time out.
    socket.set_reuseaddr(true)?;
    if reuse_port {
        socket.set_reuseport(true)?;
    }
    // A client whose machine is gone never says so. What is accepted inherits this.
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Binds a path; a socket that a dead process left behind is taken over, and nothing else.
fn bind_unix(path: &Path) -> io::Result<Socket> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // A link is none, wherever it leads: what it leads to may be another's.
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(error.kind(), "there is something else than a socket"));
            }
            match std::os::unix::net::UnixStream::connect(path) {
                // Nobody listens. Any other error may come from a socket that somebody listens on.
                Err(dead) if dead.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                Err(other) => return Err(other),
                Ok(_) => return Err(error),
            }
        }
        bound => bound?,
    };
    Ok(Socket::Unix(listener, path.to_owned()))
}

fn connections(http2: Http2Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // Without a timeout nobody waits for the answers to pings, so none are sent.
    let keepalive = http2.keepalive_interval.filter(|_| !http2.keepalive_timeout.is_zero());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_streams(http2.concurrent_streams_max)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .keep_alive_interval(keepalive)
        .keep_alive_timeout(http2.keepalive_timeout);
    builder
}

fn spawn(
    (stream, permit): (Watched<Stream>, OwnedSemaphorePermit),
    front: &Front,
    builder: &Arc<auto::Builder<TokioExecutor>>,
    graceful: &GracefulShutdown,
) {
    let front = front.clone();
    let connections = front.metrics.own.connections.clone();
    let service = service_fn(move |request| front.clone().answer(request));
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    connections.inc();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
        connections.dec();
        drop(permit);
    });
}

/// Whether a request is meant as a call, well-formed or not.
///
/// On a port without TLS etcd takes everything that comes by HTTP/2 for one, and nothing that comes by
/// HTTP/1. Here pages are served by HTTP/2 too, so a request of another method has to say that it is one.
fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    let says_so = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    request.version() == Version::HTTP_2 && (request.method() == Method::POST || says_so)
}

impl Front {
    /// Whether there is nothing else that a request could be for.
    fn is_for_calls_only<B>(&self, request: &Request<B>) -> bool {
        self.surface.is_none() && request.version() == Version::HTTP_2
    }

    async fn answer(
        mut self,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Infallible> {
        let mut services = self.services.borrow().clone();
        if self.grpc && (is_call(&request) || self.is_for_calls_only(&request)) {
            if services.is_none() {
                // Calls wait until the member serves, as long as their deadlines let them.
                let loaded = self.services.wait_for(Option::is_some);
                services = match api::within_deadline(request.headers(), loaded).await {
                    Ok(loaded) => loaded.ok().and_then(|services| services.clone()),
                    Err(refusal) => return Ok(refusal),
                };
            }
            return Ok(match services {
                Some(services) => services.api.call(request).await,
                None => plain(StatusCode::SERVICE_UNAVAILABLE, "the member did not start\n"),
            });
        }
        let Some(surface) = self.surface else {
            return Ok(plain(StatusCode::NOT_FOUND, "404 page not found\n"));
        };
        let page = match services {
            Some(services) => services.site.call(request.method(), request.uri(), surface).await,
            None => self.loading.call(request.uri().path()),
        };
        Ok(page.into_response(ReplyBody::plain))
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::plain(text));
    *response.status_mut() = status;
    response
}

/// A connection of either kind.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const HTTP2: Http2Config = Http2Config {
        concurrent_streams_max: u32::MAX,
        keepalive_interval: Some(Duration::from_secs(7200)),
        keepalive_min_time: Duration::from_secs(5),
        keepalive_timeout: Duration::from_secs(20),
    };

    const FLAG: &str = "--listen-client-urls";

    fn front() -> Front {
        Front {
            grpc: false,
            surface: None,
            services: watch::channel(None).1,
            loading: Arc::new(Loading::new(|| 0)),
            admission: Admission::of(100),
            metrics: Arc::new(Metrics::new(&[], false)),
        }
    }

    async fn get(stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        get_path(stream, "/").await
    }

    async fn get_path(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn a_listener_serves_until_it_is_told_to_stop() {
        let addr = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&addr, FLAG, false).unwrap();
        let bound = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(front(), HTTP2, stopped));
        let reply = get(TcpStream::connect(bound).await.unwrap()).await;
        assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
        stop.send(true).unwrap();
        serving.await.unwrap();
        assert!(TcpStream::connect(bound).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_does_not_fit_is_served_when_another_one_of_any_listener_ends() {
        let front = Front { admission: Admission::of(1), ..front() };
        let (stop, stopped) = watch::channel(false);
        let mut listening = Vec::new();
        let mut serve = || {
            let addr = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
            let listener = Listener::bind(&addr, FLAG, false).unwrap();
            let bound = listener.local_addr().unwrap();
            listening.push(tokio::spawn(listener.serve(front.clone(), HTTP2, stopped.clone())));
            bound
        };
        let (one, other) = (serve(), serve());
        let mut first = TcpStream::connect(one).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'H');
        let mut waiting = Vec::new();
        for bound in [one, other, other] {
            let stream = TcpStream::connect(bound).await.unwrap();
            waiting.push(tokio::spawn(get(stream)));
        }
        // Each listener has taken one that it does not serve.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(front.metrics.own.connections.get(), 1);
        assert!(waiting.iter().all(|reply| !reply.is_finished()));
        drop(first);
        for reply in waiting {
            assert!(reply.await.unwrap().starts_with("HTTP/1.1 404"));
        }
        stop.send(true).unwrap();
        for listening in listening {
            listening.await.unwrap();
        }
    }

    /// Read from etcd 3.7.3, which sets 30 s, and has the rest from Go.
    #[tokio::test]
    async fn the_kernel_asks_after_silent_clients_as_etcd_has_it_ask() {
        let addr = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&addr, FLAG, false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let Stream::Tcp(stream) = listener.accept().await.unwrap() else { unreachable!() };
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(30));
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(15));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 9);
    }

    #[tokio::test]
    async fn while_the_index_loads_a_member_is_alive_and_not_ready() {
        let addr = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&addr, FLAG, false).unwrap();
        let bound = listener.local_addr().unwrap();
        let (_services, waiting) = watch::channel(None);
        let front = Front {
            surface: Some(Surface::Client),
            services: waiting,
            loading: Arc::new(Loading::new(|| 4096)),
            ..front()
        };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(front, HTTP2, stopped));
        for (path, status, text) in [
            ("/livez", "200", "ok"),
            ("/readyz", "503", "[-]index failed: loading, 4096 rows read so far"),
            ("/health", "503", r#"{"health":"false","reason":"LOADING"}"#),
            ("/metrics", "503", "loading"),
        ] {
            let reply = get_path(TcpStream::connect(bound).await.unwrap(), path).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {reply}");
            assert!(reply.contains(text), "{path}: {reply}");
        }
        stop.send(true).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_waits_for_the_index_until_its_deadline() {
        let addr = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&addr, "listen-client-urls", false).unwrap();
        let bound = listener.local_addr().unwrap();
        let (_services, waiting) = watch::channel(None);
        let front = Front { grpc: true, services: waiting, ..front() };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(front, HTTP2, stopped));
        let stream = TcpStream::connect(bound).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::post(format!("http://{bound}/etcdserverpb.KV/Range"))
            .header(CONTENT_TYPE, "application/grpc")
            .header("grpc-timeout", "20m");
        let mut client = client.ready().await.unwrap();
        let (reply, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(reply.await.unwrap().headers()["grpc-status"], "4");
        drop(client);
        connection.await.unwrap().unwrap();
        stop.send(true).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_unix_socket_that_a_dead_process_left_is_taken_over_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let addr = ListenAddr::Unix(dir.path().join("q.sock"));
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("q.sock")).unwrap());
        let listener = Listener::bind(&addr, FLAG, false).unwrap();
        let refused = Listener::bind(&addr, FLAG, false).err().unwrap().to_string();
        assert!(refused.starts_with("cannot listen on unix:"), "{refused}");
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(front(), HTTP2, stopped));
        let reply = get(UnixStream::connect(dir.path().join("q.sock")).await.unwrap()).await;
        assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
        stop.send(true).unwrap();
        serving.await.unwrap();
        assert!(!dir.path().join("q.sock").exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_or_does_not_refuse_is_left_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, other] = ["file", "link", "other"].map(|name| dir.path().join(name));
        std::fs::write(&file, b"of somebody").unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        // In use, and yet nobody can connect.
        let _used = std::os::unix::net::UnixDatagram::bind(&other).unwrap();
        for (path, reason) in [
            (&file, "there is something else than a socket"),
            (&link, "there is something else than a socket"),
            (&other, "Protocol wrong type for socket (os error 91)"),
        ] {
            let addr = ListenAddr::Unix(path.clone());
            let refused = Listener::bind(&addr, FLAG, false).err().unwrap().to_string();
            let advice = "free the address, or choose another by --listen-client-urls";
            assert_eq!(refused, format!("cannot listen on {addr}: {reason}; {advice}"));
            assert!(std::fs::symlink_metadata(path).is_ok(), "{} is gone", path.display());
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"of somebody");
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_by_its_address() {
        let first =
            Listener::bind(&ListenAddr::Tcp(([127, 0, 0, 1], 0).into()), FLAG, false).unwrap();
        let bound = first.local_addr().unwrap();
        let refused =
            Listener::bind(&ListenAddr::Tcp(bound), FLAG, false).err().unwrap().to_string();
        assert!(refused.starts_with(&format!("cannot listen on {bound}: ")), "{refused}");
        let advice = "; free the address, or choose another by --listen-client-urls";
        assert!(refused.ends_with(advice), "{refused}");
    }

    #[tokio::test]
    async fn a_pause_after_a_failed_accept_ends_with_the_member() {
        let (stop, mut stopping) = watch::channel(false);
        assert!(!stops_within(Duration::ZERO, &mut stopping).await);
        let pause = tokio::spawn(async move { stops_within(Duration::MAX, &mut stopping).await });
        stop.send(true).unwrap();
        assert!(pause.await.unwrap());
    }
}
