//! The head of a call: what gRPC asks of a request before its service is looked for. Pure.
//!
//! Codes, texts and their order are those of gRPC for Go, with which etcd is built:
//!
//! ```text
//! content-type: text/plain        415, InvalidArgument
//! grpc-timeout: 5                 400, Internal
//! GET                             405, Internal
//! grpc-timeout: 0S                200, DeadlineExceeded
//! ```

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tonic::{Code, Status};

const GRPC: &str = "application/grpc";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// A unit and at most eight digits.
const TIMEOUT_LEN_MAX: usize = 9;

/// A call that ends before it begins; it is not counted.
#[derive(Debug)]
pub(super) struct BadHead {
    pub(super) http: StatusCode,
    pub(super) status: Status,
}

/// Whether a head is that of a call.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), BadHead> {
    let refuse = |http, code, text| Err(BadHead { http, status: Status::new(code, text) });
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if subtype(content_type).is_none() {
        let content_type = String::from_utf8_lossy(content_type);
        let text = format!("invalid gRPC request content-type {content_type:?}");
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, text);
    }
    let units = match headers.get(TIMEOUT).map(timeout_units).transpose() {
        Ok(units) => units,
        Err(why) => {
            let text = format!("malformed grpc-timeout: {why}");
            return refuse(StatusCode::BAD_REQUEST, Code::Internal, text);
        }
    };
    if method != Method::POST {
        let text = format!("Received a HEADERS frame with :method {:?} which should be POST", {
            method.as_str()
        });
        return refuse(StatusCode::METHOD_NOT_ALLOWED, Code::Internal, text);
    }
    if units == Some(0) {
        return refuse(StatusCode::OK, Code::DeadlineExceeded, "context deadline exceeded".into());
    }
    Ok(())
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

/// The number of a timeout, whatever its unit; the caller only wants to know if there is time at all.
fn timeout_units(value: &HeaderValue) -> Result<u64, String> {
    let text = String::from_utf8_lossy(value.as_bytes());
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > TIMEOUT_LEN_MAX {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let Some(digits) = text.strip_suffix(['H', 'M', 'S', 'm', 'u', 'n']) else {
        return Err(format!("transport: timeout unit is not recognized: {text:?}"));
    };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    number.flatten().ok_or_else(|| format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
