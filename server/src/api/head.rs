//! The head of a call: what gRPC asks of a request before its service is looked for.
//!
//! Codes, texts and their order are those of gRPC for Go, with which etcd is built:
//!
//! ```text
//! content-type: text/plain        415, InvalidArgument
//! grpc-timeout: 5                 400, Internal
//! GET                             405, Internal
//! grpc-timeout: 0S                200, DeadlineExceeded
//! ```

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::deadline;

const GRPC: &str = "application/grpc";
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// A call that ends before it begins; it is not counted.
#[derive(Debug)]
pub(super) struct BadHead {
    pub(super) http: StatusCode,
    pub(super) status: Status,
}

/// Checks that a head is that of a call; when it has to be answered, if it says so.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<Option<Instant>, BadHead> {
    let refuse = |http, code, text| Err(BadHead { http, status: Status::new(code, text) });
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if subtype(content_type).is_none() {
        let content_type = String::from_utf8_lossy(content_type);
        let text = format!("invalid gRPC request content-type {content_type:?}");
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, text);
    }
    let timeout = match deadline::timeout(headers) {
        Ok(timeout) => timeout,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, Code::Internal, text),
    };
    if method != Method::POST {
        let text = format!("Received a HEADERS frame with :method {:?} which should be POST", {
            method.as_str()
        });
        return refuse(StatusCode::METHOD_NOT_ALLOWED, Code::Internal, text);
    }
    // Nothing is begun for who does not wait.
    if timeout == Some(Duration::ZERO) {
        return refuse(StatusCode::OK, Code::DeadlineExceeded, "context deadline exceeded".into());
    }
    Ok(timeout.map(|timeout| Instant::now() + timeout))
}

/// Messages are taken as they are: none may be compressed.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(encoding) => {
            let encoding = String::from_utf8_lossy(encoding);
            let text =
                format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
            Err(Status::unimplemented(text))
        }
    }
}

/// The type of a reply to a request of a type with a suffix, such as `+proto`; all others have the
/// plain one.
pub(super) fn reply_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let subtype = subtype(headers.get(CONTENT_TYPE)?.as_bytes())?;
    if subtype.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&[GRPC.as_bytes(), b"+", subtype].concat()).ok()
}

/// What follows in a content type of gRPC; `None` for another type.
fn subtype(content_type: &[u8]) -> Option<&[u8]> {
    match content_type.strip_prefix(GRPC.as_bytes())? {
        [] => Some(&[]),
        [b'+' | b';', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

    fn head(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), value));
        pairs.map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_first_thing_wrong_with_a_head_is_named_in_the_order_of_grpc_for_go() {
        let grpc = (CONTENT_TYPE, GRPC);
        let cases: [(Method, HeaderMap, u16, Code); 6] = [
            (Method::GET, head(&[(TIMEOUT, "x")]), 415, Code::InvalidArgument),
            (Method::GET, head(&[grpc.clone(), (TIMEOUT, "x")]), 400, Code::Internal),
            (Method::GET, head(&[grpc.clone(), (TIMEOUT, "0S")]), 405, Code::Internal),
            (Method::POST, head(&[grpc.clone(), (TIMEOUT, "0S")]), 200, Code::DeadlineExceeded),
            (Method::POST, head(&[grpc.clone(), (TIMEOUT, "1x")]), 400, Code::Internal),
            (Method::POST, head(&[grpc, (TIMEOUT, "+1S")]), 400, Code::Internal),
        ];
        for (method, headers, http, code) in cases {
            let bad = check(&method, &headers).expect_err("the head is wrong");
            assert_eq!((bad.http.as_u16(), bad.status.code()), (http, code), "{headers:?}");
        }
        let good = head(&[(CONTENT_TYPE, "application/grpc+proto"), (TIMEOUT, "99999999n")]);
        assert!(check(&Method::POST, &good).is_ok());
    }

    #[test]
    fn a_reply_has_the_suffix_of_its_request() {
        for (given, expected) in [
            ("application/grpc", None),
            ("application/grpc+proto", Some("application/grpc+proto")),
            ("application/grpc;x", Some("application/grpc+x")),
            ("application/grpcx", None),
        ] {
            let found = reply_type(&head(&[(CONTENT_TYPE, given)]));
            assert_eq!(found.as_ref().map(HeaderValue::as_bytes), expected.map(str::as_bytes));
        }
    }
}
