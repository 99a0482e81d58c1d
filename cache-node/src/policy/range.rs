//! Byte ranges (RFC 9110 section 14): one range of a complete response, or none.
//!
//! Invariants: the grammar is exact; positions saturate; a range that was understood lies within
//! the length. Several ranges are answered by the whole response, which is allowed (section 14.2)
//! and leaves nothing to amplify. While the length is not known yet, so is a range.

use std::ops::Range;

/// Most bytes of a `Range` header that are looked at.
const RANGE_BYTES_MAX: usize = 128;

/// What to send for a `Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, with the stored status.
    Whole,
    /// These bytes (half open), with `206`.
    Bytes(Range<u64>),
    /// Nothing, with `416`.
    Unsatisfiable,
}

/// The part of a response of `length` bytes that `range` asks for.
pub fn select(range: Option<&[u8]>, length: Option<u64>) -> Part {
    let (Some(range), Some(length)) = (range, length) else { return Part::Whole };
    match parse(range) {
        None => Part::Whole,
        Some(Asked::From { first, .. }) if first >= length => Part::Unsatisfiable,
        Some(Asked::From { first, last }) => {
            Part::Bytes(first..last.map_or(length, |last| last.saturating_add(1).min(length)))
        }
        Some(Asked::Suffix(0)) => Part::Unsatisfiable,
        // No `Content-Range` can describe it: an empty body is sent whole.
        Some(Asked::Suffix(_)) if length == 0 => Part::Whole,
        Some(Asked::Suffix(count)) => Part::Bytes(length.saturating_sub(count)..length),
    }
}

enum Asked {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

fn parse(text: &[u8]) -> Option<Asked> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= RANGE_BYTES_MAX)?;
    let (unit, set) = text.split_once('=')?;
    let (first, last) = set.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if first.is_empty() {
        return Some(Asked::Suffix(position(last)?));
    }
    let first = position(first)?;
    let last = if last.is_empty() { None } else { Some(position(last)?) };
    // RFC 9110 section 14.1.1: such a range is invalid.
    if last.is_some_and(|last| last < first) {
        return None;
    }
    Some(Asked::From { first, last })
}

fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// `Content-Range` of a `206`; `range` is half open and not empty.
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

/// `Content-Range` of a `416`.
pub fn unsatisfied(length: u64) -> String {
    format!("bytes */{length}")
}

/// Whether an origin's `Content-Range` is exactly `asked`, of a body of `length` bytes. Anything
/// looser would let wrong bytes into an object silently.
pub fn answers(content_range: Option<&[u8]>, asked: &Range<u64>, length: u64) -> bool {
    let Some(text) = content_range.and_then(|value| std::str::from_utf8(value).ok()) else {
        return false;
    };
    let Some((unit, rest)) = text.split_once(' ') else { return false };
    let Some((span, complete)) = rest.split_once('/') else { return false };
    let Some((first, last)) = span.split_once('-') else { return false };
    unit.eq_ignore_ascii_case("bytes")
        && position(first) == Some(asked.start)
        && position(last).and_then(|last| last.checked_add(1)) == Some(asked.end)
        && position(complete) == Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_selected_exactly() {
        for (range, length, part) in [
            ("bytes=0-0", 10, Part::Bytes(0..1)),
            ("bytes=2-5", 10, Part::Bytes(2..6)),
            ("Bytes=2-5", 10, Part::Bytes(2..6)),
            ("bytes=2-", 10, Part::Bytes(2..10)),
            ("bytes=0-", 10, Part::Bytes(0..10)),
            ("bytes=9-99999999999999999999999", 10, Part::Bytes(9..10)),
            ("bytes=-3", 10, Part::Bytes(7..10)),
            ("bytes=-30", 10, Part::Bytes(0..10)),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=10-20", 10, Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=-5", 0, Part::Whole),
            // Not understood, or several: all of it.
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=0-1,", 10, Part::Whole),
            ("bytes= 0-1", 10, Part::Whole),
            ("bytes=0 -1", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("bytes=--1", 10, Part::Whole),
            ("bytes 0-1", 10, Part::Whole),
            ("seconds=0-1", 10, Part::Whole),
            ("", 10, Part::Whole),
        ] {
            assert_eq!(select(Some(range.as_bytes()), Some(length)), part, "{range} of {length}");
        }
        assert_eq!(select(None, Some(10)), Part::Whole);
        assert_eq!(select(Some(b"bytes=0-1"), None), Part::Whole, "length not known");
        let long = format!("bytes=0-{}", "0".repeat(RANGE_BYTES_MAX));
        assert_eq!(select(Some(long.as_bytes()), Some(10)), Part::Whole);
    }

    #[test]
    fn ranges_are_described() {
        assert_eq!(content_range(&(2..6), 10), "bytes 2-5/10");
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    #[test]
    fn an_origins_answer_must_be_what_was_asked() {
        let asked = 4..10;
        assert!(answers(Some(b"bytes 4-9/10"), &asked, 10));
        for bad in [
            "bytes 4-8/10",
            "bytes 3-9/10",
            "bytes 4-9/11",
            "bytes 4-9/*",
            "bytes */10",
            "bytes 4-9",
            "4-9/10",
            "bytes=4-9/10",
            "bytes 4-9/10 ",
            "seconds 4-9/10",
            "bytes 4-18446744073709551615/10",
            "",
        ] {
            assert!(!answers(Some(bad.as_bytes()), &asked, 10), "{bad}");
        }
        assert!(!answers(None, &asked, 10));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived_and_parts_lie_within(
            bytes: Vec<u8>,
            text in "(bytes=)?[0-9,= -]{0,24}",
            length: u64,
        ) {
            for range in [&bytes[..], text.as_bytes()] {
                if let Part::Bytes(part) = select(Some(range), Some(length)) {
                    proptest::prop_assert!(part.start < part.end && part.end <= length);
                }
                answers(Some(range), &(0..1), length);
            }
        }

        #[test]
        fn what_is_described_is_recognised(first in 0u64..1000, more in 1u64..1000, rest: u32) {
            let range = first..first + more;
            let length = range.end + u64::from(rest);
            let text = content_range(&range, length);
            proptest::prop_assert!(answers(Some(text.as_bytes()), &range, length));
        }
    }
}
