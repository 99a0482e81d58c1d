//! Which part of an object answers a request (PURE): conditionals and single ranges.
//!
//! RFC 9110 sections 13 (If-None-Match before If-Modified-Since), 13.1.5 (If-Range) and 14 (one
//! range; several, or a form that is not understood, are answered with the whole, as 14.2
//! allows). Not here: If-Match and If-Unmodified-Since, which a cache has no reason to send.

use std::time::SystemTime;

use http::{HeaderMap, Method, header};

/// What the reply can be compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// Strong, with its quotes.
    pub etag: String,
    /// In whole seconds.
    pub last_modified: SystemTime,
}

/// The part of the object that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 200: all of it.
    Whole,
    /// 206: this part.
    Part {
        /// Offset of its first byte.
        first: u64,
        /// Offset of its last byte, not beyond the object.
        last: u64,
    },
    /// 304: the client has it.
    NotModified,
    /// 416: the range lies beyond the object.
    Unsatisfiable,
}

/// Decides by the request's headers. Without `validators` no condition can hold.
#[must_use]
pub fn select(
    method: &Method,
    headers: &HeaderMap,
    validators: Option<&Validators>,
    size_bytes: u64,
) -> Selection {
    if validators.is_some_and(|validators| client_has(headers, validators)) {
        return Selection::NotModified;
    }
    if method != Method::GET || !range_applies(headers, validators) {
        return Selection::Whole;
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    range.map_or(Selection::Whole, |range| parse_range(range, size_bytes))
}

/// True when the request asks to be answered only if something changed.
#[must_use]
pub fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key(header::IF_MODIFIED_SINCE)
}

fn client_has(headers: &HeaderMap, validators: &Validators) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        let lines = headers.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        // Weak comparison: the tags' text counts, not their weakness. Our own tags hold no comma.
        return tags.any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == validators.etag
        });
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|text| httpdate::parse_http_date(text).ok());
    since.is_some_and(|since| validators.last_modified <= since)
}

fn range_applies(headers: &HeaderMap, validators: Option<&Validators>) -> bool {
    let Some(condition) = headers.get(header::IF_RANGE) else { return true };
    let (Ok(condition), Some(validators)) = (condition.to_str(), validators) else { return false };
    let condition = condition.trim();
    condition == validators.etag
        || httpdate::parse_http_date(condition).is_ok_and(|date| date == validators.last_modified)
}

fn parse_range(text: &str, size_bytes: u64) -> Selection {
    let spec = text.split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"));
    let bounds = spec.and_then(|(_, spec)| spec.trim().split_once('-'));
    let Some((first, last)) = bounds else { return Selection::Whole };
    match (number(first), number(last)) {
        (Some(Some(first)), Some(last)) => from_first(first, last, size_bytes),
        (Some(None), Some(Some(suffix))) => from_suffix(suffix, size_bytes),
        _ => Selection::Whole,
    }
}

fn from_first(first: u64, last: Option<u64>, size_bytes: u64) -> Selection {
    match last {
        Some(last) if last < first => Selection::Whole,
        _ if first >= size_bytes => Selection::Unsatisfiable,
        _ => Selection::Part { first, last: last.unwrap_or(u64::MAX).min(size_bytes - 1) },
    }
}

fn from_suffix(suffix: u64, size_bytes: u64) -> Selection {
    if suffix == 0 || size_bytes == 0 {
        return Selection::Unsatisfiable;
    }
    Selection::Part { first: size_bytes.saturating_sub(suffix), last: size_bytes - 1 }
}

/// Digits, saturating: `Some(None)` without any, `None` when it is something else.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn validators() -> Validators {
        let last_modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Validators { etag: "\"abc\"".to_owned(), last_modified }
    }

    fn ask(fields: &[(&'static str, &str)]) -> Selection {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        select(&Method::GET, &headers, Some(&validators()), 1000)
    }

    const WHOLE: Selection = Selection::Whole;
    const PART: fn(u64, u64) -> Selection = |first, last| Selection::Part { first, last };

    #[test]
    fn single_ranges_of_every_form() {
        assert_eq!(ask(&[("range", "bytes=0-99")]), PART(0, 99));
        assert_eq!(ask(&[("range", "bytes=900-")]), PART(900, 999));
        assert_eq!(ask(&[("range", "bytes=-100")]), PART(900, 999));
        assert_eq!(ask(&[("range", "bytes=-5000")]), PART(0, 999));
        assert_eq!(ask(&[("range", "Bytes=999-99999999999999999999")]), PART(999, 999));
        assert_eq!(ask(&[("range", "bytes=1000-")]), Selection::Unsatisfiable);
        assert_eq!(ask(&[("range", "bytes=-0")]), Selection::Unsatisfiable);
    }

    #[test]
    fn ranges_that_are_not_understood_get_the_whole() {
        for range in ["bytes=5-2", "bytes=a-b", "bytes=0-1,5-6", "items=0-1", "bytes", "bytes=-"] {
            assert_eq!(ask(&[("range", range)]), WHOLE, "{range}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("range", "bytes=0-1".parse().unwrap());
        assert_eq!(select(&Method::HEAD, &headers, None, 1000), WHOLE);
        assert_eq!(select(&Method::GET, &headers, None, 0), Selection::Unsatisfiable);
    }

    #[test]
    fn if_none_match_is_weak_takes_lists_and_wins() {
        let old = "Tue, 01 Jan 2002 00:00:00 GMT";
        assert_eq!(ask(&[("if-none-match", "\"abc\"")]), Selection::NotModified);
        assert_eq!(ask(&[("if-none-match", "\"x\", W/\"abc\"")]), Selection::NotModified);
        assert_eq!(ask(&[("if-none-match", "*")]), Selection::NotModified);
        assert_eq!(ask(&[("if-none-match", "\"x\"")]), WHOLE);
        let future = "Wed, 01 Jan 2098 00:00:00 GMT";
        assert_eq!(ask(&[("if-none-match", "\"x\""), ("if-modified-since", future)]), WHOLE);
        assert_eq!(
            ask(&[("if-none-match", "\"abc\""), ("if-modified-since", old)]),
            Selection::NotModified
        );
    }

    #[test]
    fn if_modified_since_compares_dates() {
        let same = httpdate::fmt_http_date(validators().last_modified);
        assert_eq!(ask(&[("if-modified-since", &same)]), Selection::NotModified);
        assert_eq!(ask(&[("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT")]), WHOLE);
        assert_eq!(ask(&[("if-modified-since", "yesterday")]), WHOLE);
    }

    #[test]
    fn if_range_is_strong() {
        let range = ("range", "bytes=0-9");
        assert_eq!(ask(&[range, ("if-range", "\"abc\"")]), PART(0, 9));
        assert_eq!(ask(&[range, ("if-range", "W/\"abc\"")]), WHOLE);
        assert_eq!(ask(&[range, ("if-range", "\"old\"")]), WHOLE);
        let same = httpdate::fmt_http_date(validators().last_modified);
        assert_eq!(ask(&[range, ("if-range", &same)]), PART(0, 9));
        assert_eq!(ask(&[range, ("if-range", "Wed, 01 Jan 2098 00:00:00 GMT")]), WHOLE);
    }

    #[test]
    fn a_condition_comes_before_the_range() {
        let fields = [("range", "bytes=0-9"), ("if-none-match", "\"abc\"")];
        assert_eq!(ask(&fields), Selection::NotModified);
    }
}
