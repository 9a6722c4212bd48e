//! Deadlines: how long a client waits, as it says in `grpc-timeout`, and what it is told when that is over.
//!
//! What answers a call is dropped at its deadline, and with it whatever it waited for. A proposal that has
//! left is not called back: as after any timeout, its outcome is unknown.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::admin_errors::AdminRefusal;

/// Where the time is.
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Eight digits and a unit.
const TIMEOUT_LEN_MAX: usize = 9;
/// Longer ones are none: a timer has to be able to hold them.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long the client of a call with these headers waits; `None` if for ever.
///
/// # Errors
/// What gRPC for Go says to a time that is none.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let timeout = parse(&text).map_err(|reason| format!("malformed grpc-timeout: {reason}"))?;
    Ok(Some(timeout).filter(|timeout| *timeout <= TIMEOUT_MAX))
}

fn parse(text: &str) -> Result<Duration, String> {
    let refuse = |what: &str| Err(format!("transport: timeout {what}: {text:?}"));
    if text.len() < 2 {
        return refuse("string is too short");
    }
    if text.len() > TIMEOUT_LEN_MAX {
        return refuse("string is too long");
    }
    let unit = match text.as_bytes().last() {
        Some(b'H') => Duration::from_secs(60 * 60),
        Some(b'M') => Duration::from_secs(60),
        Some(b'S') => Duration::from_secs(1),
        Some(b'm') => Duration::from_millis(1),
        Some(b'u') => Duration::from_micros(1),
        Some(b'n') => Duration::from_nanos(1),
        _ => return refuse("unit is not recognized"),
    };
    let digits = &text[..text.len() - 1];
    match digits.parse::<u32>() {
        Ok(count) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(unit * count),
        _ => Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax")),
    }
}

/// Waits for `reply` until `deadline`.
///
/// # Errors
/// The deadline passed first.
pub(crate) async fn until<T>(
    deadline: Option<Instant>,
    reply: impl Future<Output = T>,
) -> Result<T, Status> {
    match deadline {
        None => Ok(reply.await),
        Some(deadline) => tokio::time::timeout_at(deadline, reply)
            .await
            .map_err(|_| AdminRefusal::DeadlineExceeded.into()),
    }
}

/// The messages of a stream until its deadline, and then the word that it passed.
pub(crate) struct Expiring {
    /// `None` after the end.
    inner: Option<tonic::body::Body>,
    deadline: Pin<Box<Sleep>>,
}

impl Expiring {
    /// `inner`, until `deadline` if there is one.
    pub(crate) fn wrap(inner: tonic::body::Body, deadline: Option<Instant>) -> tonic::body::Body {
        let Some(deadline) = deadline else { return inner };
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        tonic::body::Body::new(Self { inner: Some(inner), deadline })
    }
}

impl Body for Expiring {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if this.deadline.as_mut().poll(cx).is_ready() {
            this.inner = None;
            let mut trailers = HeaderMap::new();
            let status = Status::from(AdminRefusal::DeadlineExceeded);
            return Poll::Ready(Some(
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
            ));
        }
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if frame.is_none() {
            this.inner = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_by_grpc_for_go() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("30S", Duration::from_secs(30)),
            ("00000100m", Duration::from_millis(100)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(3600) * 99_999_999),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("", "transport: timeout string is too short: \"\""),
            ("S", "transport: timeout string is too short: \"S\""),
            ("123456789S", "transport: timeout string is too long: \"123456789S\""),
            ("5x", "transport: timeout unit is not recognized: \"5x\""),
            ("-5S", "strconv.ParseUint: parsing \"-5\": invalid syntax"),
            ("+5S", "strconv.ParseUint: parsing \"+5\": invalid syntax"),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
        let mut headers = HeaderMap::new();
        assert!(timeout(&headers).unwrap().is_none());
        headers.insert(GRPC_TIMEOUT, "99999999H".parse().unwrap());
        assert!(timeout(&headers).unwrap().is_none(), "longer than a timer can be");
        headers.insert(GRPC_TIMEOUT, "1é".parse().unwrap());
        assert!(timeout(&headers).unwrap_err().starts_with("malformed grpc-timeout: "));
    }
}
