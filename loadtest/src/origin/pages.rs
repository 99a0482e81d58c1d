//! Every reply that is not an object's: the start page, texts for people, counts as JSON.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use super::{
    body::{BodyError, Counted},
    stats::{StatsDocument, Tally},
};

/// The body of any reply.
pub type ReplyBody = UnsyncBoxBody<Bytes, BodyError>;

/// A whole reply.
pub type Reply = Response<ReplyBody>;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const START_PAGE: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Deterministic origin</title></head>
<body><h1>Deterministic origin</h1>
<p>Objects are at <code>/o/&lt;size&gt;/&lt;name&gt;</code>, for example
<a href=\"/o/65536/example\">/o/65536/example</a>: exactly that many bytes, which follow from seed,
path and offset. Counts are at <a href=\"/_origin/stats\">/_origin/stats</a>.</p></body></html>
";

/// Nothing, with a status.
#[must_use]
pub fn empty(status: StatusCode) -> Reply {
    with_body(status, Bytes::new(), None)
}

/// A text for people, never stored.
#[must_use]
pub fn text(status: StatusCode, text: &str, tally: &Tally) -> Reply {
    let mut reply = with_body(status, format!("{text}\n").into(), Some(tally));
    reply.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    reply.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    reply
}

/// The page at `/`.
#[must_use]
pub fn start(cache_control: HeaderValue, tally: &Tally) -> Reply {
    let mut reply =
        with_body(StatusCode::OK, Bytes::from_static(START_PAGE.as_bytes()), Some(tally));
    reply.headers_mut().insert(header::CONTENT_TYPE, HTML);
    reply.headers_mut().insert(header::CACHE_CONTROL, cache_control);
    reply
}

/// Refuses a method.
#[must_use]
pub fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut reply = empty(StatusCode::METHOD_NOT_ALLOWED);
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// The counts.
///
/// # Errors
/// Never in practice: the document's keys are texts.
pub fn stats(document: &StatsDocument) -> Result<Reply, serde_json::Error> {
    let body = serde_json::to_vec(document)?;
    let mut reply = with_body(StatusCode::OK, body.into(), None);
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    Ok(reply)
}

fn with_body(status: StatusCode, body: Bytes, tally: Option<&Tally>) -> Reply {
    let body = Full::new(body);
    let body = match tally.cloned() {
        Some(tally) => Counted::new(body, tally).boxed_unsync(),
        None => body.map_err(BodyError::from).boxed_unsync(),
    };
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}
