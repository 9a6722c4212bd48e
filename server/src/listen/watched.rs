//! A connection that watches what goes through it, sends clients away that ping too often, and ends for
//! those that never say what they want.
//!
//! hyper answers pings by itself and tells nobody, so they are counted below it, in the bytes. It costs a
//! look at nine bytes of each frame. A connection of HTTP/1 is recognised by its first bytes and left alone.
//!
//! ```text
//! Serving --too many pings--> Leaving --GOAWAY written between two frames--> Draining --end, or 1 s--> closed
//! ```
//!
//! hyper bounds the time for the head of an HTTP/1 request, but only once it knows that it is one. Until
//! then, and until the first frame of HTTP/2 is there, the time is bounded here.
//!
//! While it drains, what the client still sends is read and thrown away: a socket that is closed with
//! bytes unread is reset, and the client would never see the reason.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::{self, Frames};
use super::pings::Pings;

/// How HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `ENHANCE_YOUR_CALM`.
const CALM: u32 = 11;
/// What gRPC clients look for before they double the interval of their pings.
const REASON: &[u8] = b"too_many_pings";
/// Time for the client to close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What a client may take its time for.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// The shortest time between two pings; see [`Pings::new`].
    pub(super) ping_interval: Duration,
    /// The longest time until it is known what is spoken, and the first frame of HTTP/2 has come.
    pub(super) opening_max: Duration,
}

/// `S`, watched.
pub(super) struct Watched<S> {
    io: S,
    /// Until the client has said what it speaks.
    opening: Option<Opening>,
    protocol: Protocol,
    pings: Pings,
    inbound: Frames,
    outbound: Frames,
    phase: Phase,
}

struct Opening {
    timeout: Pin<Box<Sleep>>,
    /// Those of HTTP/2 that began.
    frames: usize,
}

enum Protocol {
    /// So many bytes of the preface came.
    Unknown(usize),
    Http1,
    Http2,
}

enum Phase {
    Serving,
    /// What is left of the farewell.
    Leaving(Vec<u8>),
    Draining(Pin<Box<Sleep>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Watches `io`, whose client keeps to `pace`. Needs the timer of a tokio runtime.
    pub(super) fn new(io: S, pace: Pace) -> Self {
        let timeout = Box::pin(tokio::time::sleep(pace.opening_max));
        Self {
            io,
            opening: Some(Opening { timeout, frames: 0 }),
            protocol: Protocol::Unknown(0),
            pings: Pings::new(pace.ping_interval),
            inbound: Frames::default(),
            outbound: Frames::default(),
            phase: Phase::Serving,
        }
    }

    /// Looks at what was received; true if the client has to go.
    fn received(&mut self, mut data: &[u8]) -> bool {
        if let Protocol::Unknown(seen) = &mut self.protocol {
            let len = (PREFACE.len() - *seen).min(data.len());
            if PREFACE[*seen..*seen + len] != data[..len] {
                self.protocol = Protocol::Http1;
                self.opening = None;
            } else {
                *seen += len;
                data = &data[len..];
                if *seen == PREFACE.len() {
                    self.protocol = Protocol::Http2;
                }
            }
        }
        let (mut must_go, mut frames) = (false, 0);
        if matches!(self.protocol, Protocol::Http2) {
            let pings = &mut self.pings;
            self.inbound.feed(data, |head| {
                frames += 1;
                must_go |= pings.received(head);
            });
            self.take_frames(frames);
        }
        must_go
    }

    /// So many frames began; the first one is there when the next begins, or between two.
    fn take_frames(&mut self, began: usize) {
        let Some(opening) = &mut self.opening else { return };
        opening.frames += began;
        if opening.frames > 1 || (opening.frames == 1 && self.inbound.owed() == 0) {
            self.opening = None;
        }
    }

    /// Ready with an error when the client has taken too long to say what it wants.
    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        ready!(opening.timeout.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn sent(&mut self, data: &[u8]) {
        if matches!(self.protocol, Protocol::Http2) {
            let pings = &mut self.pings;
            self.outbound.feed(data, |head| pings.sent(head));
        }
    }

    /// Says farewell if a frame may begin here; pending until all of it is written.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Phase::Leaving(farewell) = &mut self.phase else { return Poll::Ready(Ok(())) };
        if self.outbound.owed() > 0 {
            return Poll::Pending;
        }
        while !farewell.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, farewell))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            farewell.drain(..written);
        }
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        self.phase = Phase::Draining(Box::pin(tokio::time::sleep(DRAIN_TIMEOUT)));
        Poll::Ready(Ok(()))
    }

    /// Ready at the end of the connection.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_leave(cx))?;
        let Phase::Draining(timeout) = &mut self.phase else { return Poll::Ready(Ok(())) };
        let mut scratch = [0; 4096];
        while timeout.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Finishes the frame that is under way, then says farewell; what comes behind is thrown away.
    fn poll_last_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let owed = self.outbound.owed().min(data.len());
        if owed > 0 && matches!(self.phase, Phase::Leaving(_)) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &data[..owed]))?;
            self.sent(&data[..written]);
            return Poll::Ready(Ok(written));
        }
        ready!(self.poll_leave(cx))?;
        Poll::Ready(Ok(data.len()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !matches!(this.phase, Phase::Serving) {
            // Nothing is put into the buffer, which is how the end of a connection reads.
            return this.poll_drain(cx);
        }
        let before = buffer.filled().len();
        if Pin::new(&mut this.io).poll_read(cx, buffer)?.is_pending() {
            return this.poll_opening(cx);
        }
        if this.received(&buffer.filled()[before..]) {
            tracing::info!("a client that pinged too often was sent away");
            let last_stream = this.pings.last_stream();
            this.phase = Phase::Leaving(frames::goaway(last_stream, CALM, REASON));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !matches!(this.phase, Phase::Serving) {
            return this.poll_last_write(cx, data);
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, data))?;
        this.sent(&data[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !matches!(this.phase, Phase::Serving) {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return this.poll_last_write(cx, first.map_or(&[], |slice| slice));
        }
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let len = left.min(slice.len());
            this.sent(&slice[..len]);
            left -= len;
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PING: [u8; 17] = [0, 0, 8, frames::PING, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const REPLY: [u8; 11] = [0, 0, 2, frames::DATA, 0, 0, 0, 0, 1, b'o', b'k'];

    const PACE: Pace =
        Pace { ping_interval: Duration::from_secs(5), opening_max: Duration::from_secs(3600) };

    async fn read_some(watched: &mut Watched<tokio::io::DuplexStream>) -> usize {
        watched.read(&mut [0; 1000]).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_is_sent_away_between_two_frames_and_the_rest_of_a_frame_comes_first() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut watched = Watched::new(server, PACE);
        client.write_all(PREFACE).await.unwrap();
        read_some(&mut watched).await;
        for ping in 1..=4 {
            if ping == 4 {
                // After the reply has forgiven one, half of the next is written when the client has to go.
                watched.write_all(&REPLY[..4]).await.unwrap();
            }
            client.write_all(&PING).await.unwrap();
            assert_eq!(read_some(&mut watched).await, PING.len(), "ping {ping}");
        }
        watched.write_all(&REPLY[4..]).await.unwrap();
        watched.write_all(&REPLY).await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [&REPLY[..], &frames::goaway(0, CALM, REASON)].concat());
        drop(client);
        assert_eq!(read_some(&mut watched).await, 0, "it is over when the client closes");
    }

    #[tokio::test]
    async fn what_does_not_begin_as_http2_is_left_alone() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut watched = Watched::new(server, PACE);
        for _ in 0..100 {
            client.write_all(&PING).await.unwrap();
            assert_eq!(read_some(&mut watched).await, PING.len());
        }
    }

    /// What becomes of a client that says this, one piece after the other, and then nothing more.
    async fn fall_silent(pieces: &[&[u8]], opening_max: Duration) -> io::Result<usize> {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut watched = Watched::new(server, Pace { opening_max, ..PACE });
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            assert_eq!(watched.read(&mut [0; 1000]).await?, piece.len());
        }
        watched.read(&mut [0; 1000]).await
    }

    #[tokio::test]
    async fn who_never_says_what_it_wants_is_let_go() {
        let (begun, rest) = PING.split_at(12);
        let cases: [&[&[u8]]; 6] = [
            &[],
            &[&PREFACE[..1]],
            &[&PREFACE[..10], &PREFACE[10..20]],
            &[PREFACE],
            &[PREFACE, &PING[..9]],
            &[PREFACE, begun],
        ];
        for (number, pieces) in cases.into_iter().enumerate() {
            let end = fall_silent(pieces, Duration::from_millis(5)).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::TimedOut, "case {number}");
        }
        let both = [PREFACE, &PING].concat();
        let cut = [rest, begun].concat();
        let cases: [&[&[u8]]; 5] = [
            &[b"G"],
            &[PREFACE, &PING],
            &[&both],
            &[PREFACE, begun, rest],
            &[PREFACE, begun, &cut],
        ];
        for (number, pieces) in cases.into_iter().enumerate() {
            let waits = fall_silent(pieces, Duration::from_millis(5));
            let ended = tokio::time::timeout(Duration::from_millis(50), waits).await;
            assert!(ended.is_err(), "case {number}: {ended:?}");
        }
    }
}
