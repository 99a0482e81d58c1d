//! Byte ranges (RFC 9110 section 14): parts of a complete response, or none.
//!
//! Invariants: the grammar is exact; positions saturate; a range that was understood lies within
//! the length. Several ranges are bounded in number, and those that overlap or lie so near that a
//! part's head would be longer than the gap become one (section 14.2): no byte is sent twice, so
//! that nothing is amplified. While the length is not known yet, so is a range.

use std::ops::Range;

/// Most bytes of a `Range` header that are looked at.
const RANGE_BYTES_MAX: usize = 512;
/// Most ranges of a request; who asks for more gets the whole response.
pub const RANGES_MAX: usize = 16;
/// Ranges with at most so many bytes between them become one, in bytes.
const GAP_BYTES: u64 = 80;

/// What to send for a `Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, with the stored status.
    Whole,
    /// These bytes (half open), with `206`.
    Bytes(Range<u64>),
    /// These, apart from one another, in the order asked for, with `206` and a part for each.
    Several(Vec<Range<u64>>),
    /// Nothing, with `416`.
    Unsatisfiable,
}

/// The part of a response of `length` bytes that `range` asks for.
pub fn select(range: Option<&[u8]>, length: Option<u64>) -> Part {
    let (Some(range), Some(length)) = (range, length) else { return Part::Whole };
    let Some(asked) = parse(range) else { return Part::Whole };
    let mut wanted: Vec<Range<u64>> = Vec::new();
    for one in &asked {
        match one {
            Asked::From { first, last } if *first < length => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                add(&mut wanted, *first..end);
            }
            // No `Content-Range` can describe it: an empty body is sent whole.
            Asked::Suffix(1..) if length == 0 => return Part::Whole,
            Asked::Suffix(count @ 1..) => add(&mut wanted, length.saturating_sub(*count)..length),
            Asked::From { .. } | Asked::Suffix(0) => {}
        }
    }
    if wanted.len() > 1 {
        return Part::Several(wanted);
    }
    wanted.pop().map_or(Part::Unsatisfiable, Part::Bytes)
}

/// Adds a range, as one with those that it overlaps or nearly touches.
fn add(wanted: &mut Vec<Range<u64>>, mut new: Range<u64>) {
    let near = |a: &Range<u64>, b: &Range<u64>| {
        a.start <= b.end.saturating_add(GAP_BYTES) && b.start <= a.end.saturating_add(GAP_BYTES)
    };
    let mut place = wanted.len();
    while let Some(at) = wanted.iter().position(|known| near(known, &new)) {
        let known = wanted.remove(at);
        new = known.start.min(new.start)..known.end.max(new.end);
        place = at.min(place);
    }
    wanted.insert(place.min(wanted.len()), new);
}

enum Asked {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

/// All ranges of a `Range` header, at least one; `None` when any of it is malformed.
fn parse(text: &[u8]) -> Option<Vec<Asked>> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= RANGE_BYTES_MAX)?;
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let blank = |c| matches!(c, ' ' | '\t');
    let members = set.split(',').map(|member| member.trim_matches(blank));
    let asked: Option<Vec<_>> =
        members.filter(|member| !member.is_empty()).map(parse_one).collect();
    asked.filter(|asked| (1..=RANGES_MAX).contains(&asked.len()))
}

fn parse_one(text: &str) -> Option<Asked> {
    let (first, last) = text.split_once('-')?;
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
            ("bytes=0-1,", 10, Part::Bytes(0..2)),
            ("bytes= 0-1", 10, Part::Bytes(0..2)),
            // Not understood: all of it.
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,5-2", 10, Part::Whole),
            ("bytes=,", 10, Part::Whole),
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
    fn several_ranges_are_kept_apart_or_become_one() {
        let of = |range: &str| select(Some(range.as_bytes()), Some(1000));
        let several = |ranges: &[Range<u64>]| Part::Several(ranges.to_vec());
        assert_eq!(of("bytes=0-9, 500-509 ,-10"), several(&[0..10, 500..510, 990..1000]));
        assert_eq!(of("bytes=500-509,0-9"), several(&[500..510, 0..10]), "in the order asked for");
        assert_eq!(of("bytes=0-9,2000-"), Part::Bytes(0..10), "what lies beyond is left out");
        assert_eq!(of("bytes=2000-,3000-"), Part::Unsatisfiable);
        assert_eq!(of("bytes=0-9,90-99"), Part::Bytes(0..100), "near");
        assert_eq!(of("bytes=0-9,91-99"), several(&[0..10, 91..100]), "not so near");
        assert_eq!(of("bytes=0-9,500-509,5-600"), Part::Bytes(0..601));
        assert_eq!(of("bytes=0-,0-,0-,0-"), Part::Bytes(0..1000), "nothing is sent twice");
        let many = |count: usize| format!("bytes={}", vec!["0-1"; count].join(","));
        assert_eq!(of(&many(RANGES_MAX)), Part::Bytes(0..2));
        assert_eq!(of(&many(RANGES_MAX + 1)), Part::Whole);
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
            sets in "bytes=([0-9]{0,3}-[0-9]{0,3},){1,8}",
            length in 0u64..2000,
        ) {
            for range in [&bytes[..], text.as_bytes(), sets.as_bytes()] {
                let parts = match select(Some(range), Some(length)) {
                    Part::Bytes(part) => vec![part],
                    Part::Several(parts) => parts,
                    _ => vec![],
                };
                let sent: u64 = parts.iter().map(|part| part.end - part.start).sum();
                proptest::prop_assert!(sent <= length && parts.len() <= RANGES_MAX);
                for part in parts {
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
