//! Going on with an object whose fetching broke off (RFC 9110 sections 13.1.5 and 14.2): what to
//! ask the origin for, and whether its answer continues the same version.
//!
//! Invariant: without a strong validator nothing is continued by a range; the whole body is then
//! asked for again and held against what is already here, chunk by chunk.

use std::ops::Range;

use http::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use shoal_proto::ObjectHead;

use super::range;

/// Where an origin's answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continues {
    /// At the offset asked for.
    AtOffset,
    /// At the beginning; what is already here has to be compared.
    FromStart,
    /// Nowhere: it is another version, or none.
    No,
}

/// The headers that ask for the bytes `part` of an object; none when that is all of it, when its
/// version cannot be named, or when its length is not known.
pub fn headers(head: &ObjectHead, part: &Range<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let (Some(tag), Some(length)) = (strong_tag(head), head.length) else { return headers };
    if (part.start == 0 && part.end >= length) || part.is_empty() {
        return headers;
    }
    let last = if part.end >= length { String::new() } else { (part.end - 1).to_string() };
    if let Ok(value) = HeaderValue::from_str(&format!("bytes={}-{last}", part.start)) {
        headers.insert(RANGE, value);
        headers.insert(IF_RANGE, tag);
    }
    headers
}

/// Whether a response to a request for `part` goes on with the object.
pub fn continues(
    head: &ObjectHead,
    part: &Range<u64>,
    (status, headers, length): (StatusCode, &HeaderMap, Option<u64>),
) -> Continues {
    let same = |name: http::HeaderName| {
        let then = head.header(name.as_str()).map(|value| value.as_ref());
        then == headers.get(&name).map(HeaderValue::as_bytes)
    };
    if !same(ETAG) || !same(LAST_MODIFIED) {
        return Continues::No;
    }
    match (status, head.length) {
        (StatusCode::PARTIAL_CONTENT, Some(whole)) => {
            let answered = headers.get(CONTENT_RANGE).map(HeaderValue::as_bytes);
            let rest = part.start..part.end.min(whole);
            let length_fits = length.is_none_or(|length| length == rest.end - rest.start);
            if range::answers(answered, &rest, whole) && length_fits {
                Continues::AtOffset
            } else {
                Continues::No
            }
        }
        (status, then) if status.as_u16() == head.status && length == then => Continues::FromStart,
        _ => Continues::No,
    }
}

/// Whether a whole response is, byte for byte, the object's version (RFC 9110 section 8.8.1).
pub fn same_version(head: &ObjectHead, answer: (StatusCode, &HeaderMap, Option<u64>)) -> bool {
    strong_tag(head).is_some() && continues(head, &(0..u64::MAX), answer) == Continues::FromStart
}

fn strong_tag(head: &ObjectHead) -> Option<HeaderValue> {
    let tag = head.header("etag").filter(|tag| tag.starts_with(b"\""))?;
    HeaderValue::from_maybe_shared(tag.clone()).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_proto::{Freshness, Header, Labels, ObjectKey};

    use super::*;

    fn head(tag: &'static str) -> ObjectHead {
        ObjectHead {
            key: ObjectKey::new([0; 32]),
            site: "docs".into(),
            status: 200,
            headers: vec![Header {
                name: "etag".into(),
                value: Bytes::from_static(tag.as_bytes()),
            }],
            length: Some(1000),
            chunk_size: 256 * 1024,
            freshness: Freshness::default(),
            fence_position: 0,
            labels: Labels::default(),
        }
    }

    fn answer(tag: &'static str, range: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static(tag));
        headers.extend(range.map(|range| (CONTENT_RANGE, HeaderValue::from_static(range))));
        headers
    }

    #[test]
    fn the_rest_is_asked_for_under_a_strong_tag_alone() {
        let asked = headers(&head("\"1\""), &(400..1000));
        assert_eq!(asked[RANGE], "bytes=400-");
        assert_eq!(asked[IF_RANGE], "\"1\"");
        assert!(headers(&head("W/\"1\""), &(400..1000)).is_empty());
        assert!(headers(&head("\"1\""), &(0..1000)).is_empty());
        assert_eq!(headers(&head("\"1\""), &(0..256))[RANGE], "bytes=0-255");
        assert_eq!(headers(&head("\"1\""), &(256..512))[RANGE], "bytes=256-511");
        assert!(headers(&ObjectHead { length: None, ..head("\"1\"") }, &(400..1000)).is_empty());
    }

    #[test]
    fn only_the_exact_rest_of_the_same_version_continues() {
        let of = |status, tag, range, length| {
            continues(&head("\"1\""), &(400..1000), (status, &answer(tag, range), length))
        };
        let partial = StatusCode::PARTIAL_CONTENT;
        let rest = Some("bytes 400-999/1000");
        assert_eq!(of(partial, "\"1\"", rest, Some(600)), Continues::AtOffset);
        assert_eq!(of(partial, "\"2\"", rest, Some(600)), Continues::No);
        assert_eq!(of(partial, "\"1\"", rest, Some(599)), Continues::No);
        assert_eq!(of(partial, "\"1\"", Some("bytes 401-999/1000"), Some(599)), Continues::No);
        assert_eq!(of(partial, "\"1\"", None, Some(600)), Continues::No);
        let hole = answer("\"1\"", Some("bytes 400-499/1000"));
        let hole = (partial, &hole, Some(100));
        assert_eq!(continues(&head("\"1\""), &(400..500), hole), Continues::AtOffset);
        assert_eq!(continues(&head("\"1\""), &(400..501), hole), Continues::No);
        assert_eq!(of(StatusCode::OK, "\"1\"", None, Some(1000)), Continues::FromStart);
        assert_eq!(of(StatusCode::OK, "\"1\"", None, Some(999)), Continues::No);
        assert_eq!(of(StatusCode::NOT_FOUND, "\"1\"", None, Some(1000)), Continues::No);
    }
}
