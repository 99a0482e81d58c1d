//! `/echo`: the request's body as it comes, and what the origin saw of its headers.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{body::Counted, pages::Reply, stats::Tally};

/// Headers that the echo repeats as `X-Seen-<name>`, beside all that start with `x-test`.
const SEEN: [&str; 14] = [
    "host",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "user-agent",
    "accept-encoding",
    "authorization",
    "cookie",
    "range",
    "if-none-match",
    "te",
];

const TEST_PREFIX: &str = "x-test";

/// Answers any method with the request's own body, streamed.
///
/// # Errors
/// When a header that came in cannot be sent back.
pub fn echo(request: Request<Incoming>, tally: Tally) -> Result<Reply, http::Error> {
    let (head, body) = request.into_parts();
    let mut builder = Response::builder()
        .header("x-method", head.method.as_str())
        .header(header::CACHE_CONTROL, "no-store");
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        builder = builder.header(header::CONTENT_TYPE, kind);
    }
    for name in seen_names(&head.headers) {
        builder = builder.header(format!("x-seen-{name}"), joined(&head.headers, &name)?);
    }
    builder.body(Counted::new(body, tally).boxed_unsync())
}

fn seen_names(headers: &HeaderMap) -> Vec<HeaderName> {
    let shown = |name: &&HeaderName| {
        SEEN.contains(&name.as_str()) || name.as_str().starts_with(TEST_PREFIX)
    };
    headers.keys().filter(shown).cloned().collect()
}

/// All lines of one header as one, as RFC 9110 section 5.3 joins them.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Result<HeaderValue, http::Error> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    Ok(HeaderValue::from_bytes(&lines.join(&b", "[..]))?)
}
