//! Preconditions answered from a stored response, validators towards the origin, and the update of
//! a stored response by a `304` (RFC 9110 section 13, RFC 9111 sections 3.2 and 4.3).
//!
//! Invariants: preconditions are judged in the order of RFC 9110 section 13.2.2, and only where the
//! answer would be a success; `If-None-Match` hides `If-Modified-Since`, `If-Match` hides
//! `If-Unmodified-Since`; a malformed date is ignored, and a malformed tag matches nothing: neither
//! leads to `304`; a `304` never touches what describes the stored bytes.
//! Chosen: `If-Match` and `If-Unmodified-Since`, which a cache may ignore (sections 13.1.1 and
//! 13.1.4), are answered by `412`: who sends them wants the representation that it knows, or none.

use bytes::Bytes;
use http::header::{
    self, DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_proto::{Header, ObjectHead};

use super::{date, hop};

/// `Last-Modified` is a strong validator when it is so much older than `Date` (RFC 9110 section
/// 8.8.2.2), in milliseconds.
const STRONG_AFTER_MS: u64 = 1_000;

/// Headers of a `304` made here (RFC 9110 section 15.4.5).
const NOT_MODIFIED_KEEPS: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    DATE,
    ETAG,
    header::EXPIRES,
    LAST_MODIFIED,
    header::VARY,
];

/// Headers whose values are about the very bytes that are stored, or that the cache does not store:
/// a `304` leaves them alone (RFC 9111 section 3.2: "to ensure integrity of the stored response").
const NOT_UPDATED: [HeaderName; 8] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::SET_COOKIE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// What becomes of a client's preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preconditions {
    /// They hold, or there are none.
    Hold,
    /// `304`.
    NotModified,
    /// `412`.
    Failed,
}

/// How the stored response answers the client's preconditions (RFC 9110 section 13.2.2).
pub fn preconditions(request: &HeaderMap, stored: &ObjectHead) -> Preconditions {
    // RFC 9110 section 13.2.1: only where the answer would otherwise be a success.
    if !(200..300).contains(&stored.status) {
        return Preconditions::Hold;
    }
    if !is_the_known(request, stored) {
        return Preconditions::Failed;
    }
    if not_modified(request, stored) { Preconditions::NotModified } else { Preconditions::Hold }
}

/// Whether the stored response is what the client wants alone: `If-Match`, or else
/// `If-Unmodified-Since`.
fn is_the_known(request: &HeaderMap, stored: &ObjectHead) -> bool {
    if request.contains_key(IF_MATCH) {
        let strongly = |tag: Tag<'_>| tag.matches_strongly(stored_tag(stored));
        return any_tag(request, &IF_MATCH, strongly);
    }
    // RFC 9110 section 13.1.4: ignored where either is no date.
    let since = date_of(request, &IF_UNMODIFIED_SINCE);
    since.zip(stored_date(stored, &LAST_MODIFIED)).is_none_or(|(since, last)| last <= since)
}

fn not_modified(request: &HeaderMap, stored: &ObjectHead) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let matches = |tag: Tag<'_>| tag.matches_weakly(stored_tag(stored));
        return any_tag(request, &IF_NONE_MATCH, matches);
    }
    let Some(since) = date_of(request, &IF_MODIFIED_SINCE) else { return false };
    // RFC 9111 section 4.3.2: Last-Modified, else Date, else the time of receipt.
    let last = stored_date(stored, &LAST_MODIFIED).or_else(|| stored_date(stored, &DATE));
    last.unwrap_or(stored.freshness.response_time_ms) <= since
}

/// Whether a range may be cut from the stored response: `If-Range` holds, or is absent; other
/// preconditions hold already.
pub fn range_applies(request: &HeaderMap, stored: &ObjectHead) -> bool {
    let Some(value) = request.get(IF_RANGE) else { return true };
    if request.get_all(IF_RANGE).iter().count() > 1 {
        return false;
    }
    match parse_tag(value.as_bytes()) {
        Some((tag, rest)) => rest.is_empty() && tag.matches_strongly(stored_tag(stored)),
        None => unchanged_since(value, stored),
    }
}

/// `If-Range` with a date: an exact match of a strong `Last-Modified` (RFC 9110 section 13.1.5).
fn unchanged_since(value: &HeaderValue, stored: &ObjectHead) -> bool {
    let Some(last) = stored_date(stored, &LAST_MODIFIED) else { return false };
    let strong =
        stored_date(stored, &DATE).is_some_and(|date| date >= last.saturating_add(STRONG_AFTER_MS));
    strong && date::parse(value.as_bytes()) == Some(last)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag<'a> {
    Any,
    Strong(&'a [u8]),
    Weak(&'a [u8]),
}

impl Tag<'_> {
    /// RFC 9110 section 8.8.3.2. `*` matches whatever is stored.
    fn matches_weakly(self, stored: Option<Tag<'_>>) -> bool {
        match (self, stored) {
            (Tag::Any, _) => true,
            (Tag::Strong(a) | Tag::Weak(a), Some(Tag::Strong(b) | Tag::Weak(b))) => a == b,
            _ => false,
        }
    }

    fn matches_strongly(self, stored: Option<Tag<'_>>) -> bool {
        match (self, stored) {
            (Tag::Any, _) => true,
            (Tag::Strong(a), Some(Tag::Strong(b))) => a == b,
            _ => false,
        }
    }
}

fn stored_tag(stored: &ObjectHead) -> Option<Tag<'_>> {
    only_tag(stored.header("etag")?)
}

/// A header value that is one entity-tag and nothing else.
fn only_tag(value: &[u8]) -> Option<Tag<'_>> {
    let (tag, rest) = parse_tag(value)?;
    rest.is_empty().then_some(tag)
}

fn stored_date(stored: &ObjectHead, name: &HeaderName) -> Option<u64> {
    date::parse(stored.header(name.as_str())?)
}

fn date_of(request: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut lines = request.get_all(name).iter();
    let value = lines.next()?;
    if lines.next().is_some() { None } else { date::parse(value.as_bytes()) }
}

/// `entity-tag` (RFC 9110 section 8.8.3) and what follows it.
fn parse_tag(text: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    let (opaque, weak) = match text.strip_prefix(b"W/") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let opaque = opaque.strip_prefix(b"\"")?;
    let end = opaque.iter().position(|byte| *byte == b'"')?;
    let (tag, rest) = (&opaque[..end], &opaque[end + 1..]);
    let legal = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff);
    if !tag.iter().all(legal) {
        return None;
    }
    Some((if weak { Tag::Weak(tag) } else { Tag::Strong(tag) }, rest))
}

/// Whether any entity-tag of a list matches; a malformed rest of a line is ignored.
fn any_tag(request: &HeaderMap, name: &HeaderName, matches: impl Fn(Tag<'_>) -> bool) -> bool {
    request.get_all(name).iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return matches(Tag::Any);
        }
        while !rest.is_empty() {
            let Some((tag, after)) = parse_tag(rest) else { return false };
            if matches(tag) {
                return true;
            }
            let Some(next) = after.trim_ascii_start().strip_prefix(b",") else { return false };
            rest = skip_empty(next);
        }
        false
    })
}

/// Empty list members are ignored (RFC 9110 section 5.6.1.2).
fn skip_empty(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','));
    &text[start.unwrap_or(text.len())..]
}

/// The headers of a `304` made from a stored response.
pub fn not_modified_headers(stored: &[Header]) -> HeaderMap {
    let mut headers = hop::from_stored(stored);
    let dropped: Vec<HeaderName> =
        headers.keys().filter(|name| !NOT_MODIFIED_KEEPS.contains(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    headers
}

/// The conditional headers that validate a stored response at its origin (RFC 9111 section 4.3.1):
/// its validators byte for byte; none when it cannot be validated.
pub fn validators(stored: &ObjectHead) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (validator, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        let value = stored.header(validator.as_str()).filter(|value| !value.is_empty());
        let value = value.and_then(|value| HeaderValue::from_maybe_shared(value.clone()).ok());
        headers.extend(value.map(|value| (condition, value)));
    }
    headers
}

/// The stored headers after a `304` with these end-to-end headers (RFC 9111 section 3.2): named
/// fields are replaced, missing ones kept, and `Age` starts again. `None` when the `304` names
/// another strong entity-tag, so that it says nothing of this response (section 4.3.4).
pub fn refreshed(stored: &[Header], not_modified: &HeaderMap) -> Option<Vec<Header>> {
    let then = stored.iter().find(|header| header.name == "etag");
    let then = then.and_then(|header| only_tag(&header.value));
    let now = not_modified.get(ETAG).and_then(|value| only_tag(value.as_bytes()));
    if matches!(now, Some(Tag::Strong(_))) && then.is_some_and(|then| Some(then) != now) {
        return None;
    }
    let updated = |name: &HeaderName| !NOT_UPDATED.contains(name);
    let replaced = |name: &str| {
        name == "age" || not_modified.keys().any(|key| key.as_str() == name && updated(key))
    };
    let mut headers: Vec<Header> =
        stored.iter().filter(|header| !replaced(&header.name)).cloned().collect();
    for (name, value) in not_modified.iter().filter(|(name, _)| updated(name)) {
        let value = Bytes::copy_from_slice(value.as_bytes());
        headers.push(Header { name: name.as_str().to_owned(), value });
    }
    Some(headers)
}

#[cfg(test)]
#[path = "conditional_tests.rs"]
mod tests;
