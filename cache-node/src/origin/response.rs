//! What an origin's response head must be to be trusted (RFC 9112 section 6.3).
//!
//! Invariants: how long the body is has one answer; what two parsers could read differently is
//! refused. hyper refuses more before: `Content-Length` lines that differ or are no number,
//! `Transfer-Encoding` in HTTP/1.0, folded lines, spaces before a colon.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::OriginResponse;
use super::body::OriginBody;
use super::trailers::Trailers;
use crate::clock;
use crate::metrics::OriginMetrics;
use crate::policy::{date, hop};

/// A response whose framing holds.
pub(super) struct Checked {
    parts: Parts,
    incoming: Incoming,
    declared: Option<u64>,
    /// Bytes that must come.
    expected: Option<u64>,
}

/// Checks a response to `method`.
pub(super) fn check(
    response: Response<Incoming>,
    method: &Method,
) -> Result<Checked, &'static str> {
    let (parts, incoming) = response.into_parts();
    // Nothing asked for another protocol.
    if parts.status.is_informational() {
        return Err("a protocol switch that was not asked for");
    }
    check_coding(&parts.headers)?;
    let declared = declared_length(&parts.headers)?;
    let bodyless = *method == Method::HEAD
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let expected = if bodyless { Some(0) } else { declared };
    Ok(Checked { parts, incoming, declared, expected })
}

/// `Transfer-Encoding` is `chunked` alone, and not beside `Content-Length`: anything else smells of
/// response smuggling.
fn check_coding(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(CONTENT_LENGTH) {
        return Err("both Transfer-Encoding and Content-Length");
    }
    let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if chunked && codings.next().is_none() {
        Ok(())
    } else {
        Err("a Transfer-Encoding other than chunked")
    }
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut declared = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for member in line.as_bytes().split(|byte| *byte == b',') {
            let text = std::str::from_utf8(member.trim_ascii()).unwrap_or("");
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 = if digits { text.parse().ok() } else { None }
                .ok_or("a Content-Length that is no number")?;
            if declared.is_some_and(|before| before != length) {
                return Err("Content-Length twice, and different");
            }
            declared = Some(length);
        }
    }
    Ok(declared)
}

impl Checked {
    /// The response as the rest of Shoal sees it.
    pub(super) fn into_response(
        self,
        silence_max: Duration,
        metrics: OriginMetrics,
        slot: OwnedSemaphorePermit,
    ) -> OriginResponse {
        let Parts { status, mut headers, .. } = self.parts;
        let trailers = Trailers::new(headers.remove(TRAILER));
        hop::keep_end_to_end(&mut headers);
        if !headers.contains_key(DATE) {
            // RFC 9110 section 6.6.1: the recipient adds the time of receipt.
            if let Ok(now) = HeaderValue::from_str(&date::format(clock::unix_ms())) {
                headers.insert(DATE, now);
            }
        }
        // The length of what a 304 stands for is the stored response's own affair.
        let length = self.declared.filter(|_| status != StatusCode::NOT_MODIFIED);
        let body = OriginBody::new(self.incoming, self.expected, silence_max, metrics, slot);
        let body = Box::pin(body.with_trailers(trailers.clone()));
        OriginResponse { status, headers, length, body, trailers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn lengths_have_one_answer() {
        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&["5"], Ok(Some(5))),
            (&["5", "5"], Ok(Some(5))),
            (&["5, 5"], Ok(Some(5))),
            (&["5", "6"], Err("Content-Length twice, and different")),
            (&["5, 6"], Err("Content-Length twice, and different")),
            (&["-5"], Err("a Content-Length that is no number")),
            (&["+5"], Err("a Content-Length that is no number")),
            (&["5,"], Err("a Content-Length that is no number")),
            (&["0x5"], Err("a Content-Length that is no number")),
            (&["99999999999999999999"], Err("a Content-Length that is no number")),
        ] {
            let lines: Vec<_> = lines.iter().map(|value| ("content-length", *value)).collect();
            assert_eq!(declared_length(&headers(&lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_plain_chunked_is_trusted() {
        for (lines, good) in [
            (&[][..], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "identity")], false),
            (&[("transfer-encoding", "xchunked")], false),
            (&[("transfer-encoding", "")], false),
        ] {
            assert_eq!(check_coding(&headers(lines)).is_ok(), good, "{lines:?}");
        }
    }
}
