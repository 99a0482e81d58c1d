//! Which headers travel (RFC 9110 section 7.6, RFC 9111 section 3.1) and which end here.
//!
//! Invariants: nothing that describes one connection, or that `Connection` names, is stored, sent
//! to an origin or to a client: over HTTP/2 it would make the message malformed. `Connection`
//! cannot take away what decides about caching, since that would turn a private response public.
//! Framing (`Content-Length`, `Transfer-Encoding`) and `Host` are always made anew by the sender.

use bytes::Bytes;
use http::header::{
    self, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, DATE, EXPIRES, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_proto::Header;

use super::{parts, vary};

/// Hop-by-hop whatever `Connection` says (RFC 9110 section 7.6.1; `Proxy-*` by RFC 9111 3.1).
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Kept although `Connection` names them (RFC 9110 section 7.6.1: "never appropriate").
const KEPT: [HeaderName; 11] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    DATE,
    EXPIRES,
    SET_COOKIE,
    VARY,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("shoal-cache-control"),
    HeaderName::from_static("surrogate-control"),
];

/// They name the client, which origins are not told.
const NAMES_CLIENT: [&str; 4] = ["forwarded", "true-client-ip", "x-forwarded-for", "x-real-ip"];

/// Made anew towards the origin, or answered here (`Expect`).
const REMADE: [&str; 3] = ["content-length", "expect", "host"];

/// They change what some origins answer and are not in the key: cache poisoning's usual tools.
const OVERRIDES: [&str; 13] = [
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
];

/// What a message says before its body, or not at all (RFC 9110 section 6.5.1): framing, routing,
/// what decides about caching, who a client is, and how a body is to be read.
const NO_TRAILERS: [&str; 29] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "shoal-cache-control",
    "surrogate-control",
    "vary",
    "via",
    "www-authenticate",
];

/// Answered by the edge from the stored response.
const CONDITIONAL: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// A client's end-to-end headers, for a request that passes through.
pub fn pass_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = client.clone();
    strip(&mut headers);
    remove(&mut headers, &REMADE);
    remove(&mut headers, &NAMES_CLIENT);
    join_lines(&mut headers);
    headers
}

/// A client's end-to-end headers, for a request whose response may be stored: without conditionals
/// and `Range`, and without headers that could poison the cache.
pub fn fill_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = pass_headers(client);
    remove(&mut headers, &OVERRIDES);
    for name in CONDITIONAL {
        headers.remove(name);
    }
    headers
}

/// Leaves an origin's end-to-end headers, without `Content-Length`.
pub fn keep_end_to_end(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(vary::MARK);
    headers.remove(parts::MARK);
    join_lines(headers);
}

/// Leaves what may come after a body.
pub fn keep_trailers(trailers: &mut HeaderMap) {
    strip(trailers);
    remove(trailers, &NO_TRAILERS);
    remove(trailers, &NAMES_CLIENT);
    remove(trailers, &OVERRIDES);
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    remove(headers, &HOP_BY_HOP);
}

fn remove(headers: &mut HeaderMap, names: &[&'static str]) {
    for name in names {
        headers.remove(*name);
    }
}

/// Several lines of one header become one, joined by a comma and one space (RFC 9110 section 5.3);
/// `Cookie` by a semicolon (RFC 9113 section 8.2.3). `Set-Cookie` cannot be joined.
fn join_lines(headers: &mut HeaderMap) {
    if headers.len() == headers.keys_len() {
        return;
    }
    let names: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in names.into_iter().filter(|name| *name != SET_COOKIE) {
        let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
        let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if lines.len() < 2 {
            continue;
        }
        // Joined valid values are a valid value.
        if let Ok(joined) = HeaderValue::from_bytes(&lines.join(separator)) {
            headers.insert(name, joined);
        }
    }
}

/// Headers as an object keeps them, in the order received.
pub fn to_stored(headers: &HeaderMap) -> Vec<Header> {
    headers
        .iter()
        .map(|(name, value)| Header {
            name: name.as_str().to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        })
        .collect()
}

/// Headers of an object, to be sent: what cannot be a header is left out, and so is what is
/// hop-by-hop, whichever member stored it.
pub fn from_stored(stored: &[Header]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(stored.len() + 4);
    for header in stored {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(header.value.clone());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    strip(&mut headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(vary::MARK);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn connection_takes_what_it_names_and_no_more() {
        let mut found = headers(&[
            ("connection", "a, B ,close,,not a name"),
            ("connection", "cache-control, set-cookie, vary"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("cache-control", "no-store"),
            ("set-cookie", "x=y"),
            ("vary", "*"),
        ]);
        keep_end_to_end(&mut found);
        assert_eq!(names(&found), ["c", "cache-control", "set-cookie", "vary"]);
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut found = HeaderMap::new();
        for name in HOP_BY_HOP {
            found.insert(name, HeaderValue::from_static("x"));
        }
        found.insert("content-length", HeaderValue::from_static("5"));
        found.insert("etag", HeaderValue::from_static("\"1\""));
        assert_eq!(names(&pass_headers(&found)), ["etag"]);
        let stored = to_stored(&found);
        assert_eq!(names(&from_stored(&stored)), ["etag"]);
        keep_end_to_end(&mut found);
        assert_eq!(names(&found), ["etag"]);
    }

    #[test]
    fn requests_keep_unknown_headers_cookies_and_credentials() {
        let client = headers(&[
            ("host", "h"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("authorization", "Basic x"),
            ("x-free", "a, b; c=\"d\" (e)"),
            ("accept", "a/b"),
            ("accept", "c/d"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-host", "evil.test"),
            ("range", "bytes=0-1"),
            ("if-none-match", "\"1\""),
        ]);
        let passed = pass_headers(&client);
        assert_eq!(passed["cookie"], "a=1; b=2");
        assert_eq!(passed["accept"], "a/b, c/d");
        assert_eq!(passed["x-free"], "a, b; c=\"d\" (e)");
        assert_eq!(
            names(&passed),
            [
                "accept",
                "authorization",
                "cookie",
                "if-none-match",
                "range",
                "x-forwarded-host",
                "x-free"
            ]
        );
        let filled = fill_headers(&client);
        assert_eq!(names(&filled), ["accept", "authorization", "cookie", "x-free"]);
    }

    #[test]
    fn cookies_set_stay_apart() {
        let mut found =
            headers(&[("set-cookie", "a"), ("set-cookie", "b"), ("x", "1"), ("x", "2")]);
        keep_end_to_end(&mut found);
        assert_eq!(found.get_all("set-cookie").iter().count(), 2);
        assert_eq!(found["x"], "1, 2");
    }

    #[test]
    fn stored_headers_come_back_as_they_were() {
        let mut before = headers(&[("x-a", "1"), ("etag", "W/\"1\""), ("x-empty", "")]);
        before.insert("x-latin", HeaderValue::from_bytes(b"\xe9").unwrap());
        assert_eq!(from_stored(&to_stored(&before)), before);
        let broken = Header { name: "a b".into(), value: Bytes::from_static(b"x") };
        assert!(from_stored(&[broken]).is_empty());
    }
}
