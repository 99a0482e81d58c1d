//! PURE. Large objects that were first asked for in part: how they are cut into parts, each of which
//! is an object of its own, and what stands under the URL's key meanwhile.
//!
//! A part has a key of its own, made out of the URL's key, the length of the whole and its strong
//! validator. So parts of two versions never meet, and everything that holds for an object holds for
//! a part: one fill in the cluster, holders, copies, purges, eviction. What is stored under the
//! URL's key, the *outline*, has the whole's status and headers, and a mark with the whole's length.
//!
//! Invariants: nothing is kept in parts without a strong validator; the answer to a range counts
//! only if it is exactly what was asked for; the mark is never taken from an origin.

use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, LAST_MODIFIED, RANGE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use shoal_proto::limits::{CHUNK_BYTES_MAX, OBJECT_BYTES_MAX};
use shoal_proto::{Freshness, Header, ObjectHead, ObjectKey};

use super::range;
use super::resume::{self, Continues};

/// What is asked for in part is kept in parts from this length on; shorter ones are filled whole.
pub const PARTS_FROM_BYTES: u64 = 8 * 1024 * 1024;
/// The length of every part but the last: the largest chunk's, so that a range brings the chunks
/// that cover it and no more.
pub const PART_BYTES: u64 = CHUNK_BYTES_MAX as u64;
/// The stored header that holds the whole's length. It never leaves a node but to its peers.
pub const MARK: &str = "shoal-parts";
/// Longest validator of what is kept in parts, in bytes: it travels with wishes for copies.
pub const TAG_BYTES_MAX: usize = 512;
/// A part is as good as its validator says, for as long as anybody asks for it: a year.
const PART_LIFETIME_MS: u64 = 365 * 24 * 3_600_000;

/// Which large objects of a site are kept in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InParts {
    /// None: whoever asks for a range has all of it filled.
    Off,
    /// Those that are asked for in part first.
    #[default]
    Ranges,
    /// All: nodes that are asked for one at once fill it together, each its own parts.
    All,
}

/// One part of a large object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0 on.
    pub number: u32,
    /// The whole's length in bytes.
    pub total: u64,
    /// The whole's strong validator.
    pub tag: Bytes,
    /// The whole's `Last-Modified`.
    pub modified: Option<Bytes>,
}

impl Part {
    /// A part of the object with that head, which is marked or has its own length.
    pub fn of(head: &ObjectHead, number: u32) -> Option<Self> {
        let total = total(head).or(head.length)?;
        let tag = head.header("etag").filter(|tag| is_strong(tag))?.clone();
        let modified = head.header("last-modified").cloned();
        if modified.as_ref().is_some_and(|modified| modified.len() > TAG_BYTES_MAX) {
            return None;
        }
        let part = Self { number, total, tag, modified };
        (part.range().start < total && total <= OBJECT_BYTES_MAX).then_some(part)
    }

    /// The bytes of the whole that it has.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.number) * PART_BYTES;
        start..(start + PART_BYTES).min(self.total)
    }

    /// Its key; `whole` is that of the URL, or of the variant.
    pub fn key(&self, secret: &[u8; 32], whole: &ObjectKey) -> ObjectKey {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(b"shoal part v1");
        hasher.update(whole.as_bytes());
        hasher.update(&self.total.to_le_bytes());
        hasher.update(&u64::from(self.number).to_le_bytes());
        let modified = self.modified.as_deref().unwrap_or_default();
        for text in [&self.tag[..], modified] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        ObjectKey::new(*hasher.finalize().as_bytes())
    }

    /// The whole, as far as a question for a part of it needs it. `part` is the part's own head.
    pub fn whole(&self, part: ObjectHead) -> ObjectHead {
        ObjectHead { length: Some(self.total), headers: self.headers(), ..part }
    }

    /// What a part keeps of the headers: what names the version.
    pub fn headers(&self) -> Vec<Header> {
        let header = |name: &str, value: &Bytes| Header { name: name.into(), value: value.clone() };
        let modified = self.modified.iter().map(|modified| header("last-modified", modified));
        [header("etag", &self.tag)].into_iter().chain(modified).collect()
    }

    /// Its freshness: the outline's counts, and a validator that names other bytes names another
    /// key.
    pub fn freshness(response_time_ms: u64) -> Freshness {
        Freshness { response_time_ms, lifetime_ms: PART_LIFETIME_MS, ..Freshness::default() }
    }
}

/// The numbers of the parts that have the bytes `range`.
pub fn covering(range: &Range<u64>) -> Range<u32> {
    let number = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    match range.is_empty() {
        true => 0..0,
        false => number(range.start / PART_BYTES)..number(range.end.div_ceil(PART_BYTES)),
    }
}

/// The length of the whole, of a marked head.
pub fn total(head: &ObjectHead) -> Option<u64> {
    let mark = head.header(MARK)?;
    std::str::from_utf8(mark).ok()?.parse().ok().filter(|total| *total <= OBJECT_BYTES_MAX)
}

/// Headers without a mark, or with that one.
pub fn marked(mut headers: Vec<Header>, total: Option<u64>) -> Vec<Header> {
    headers.retain(|header| header.name != MARK);
    headers.extend(total.map(|total| Header {
        name: MARK.to_owned(),
        value: total.to_string().into_bytes().into(),
    }));
    headers
}

/// A marked head as the whole's, which clients see; any other as it is.
pub fn whole(head: &ObjectHead) -> ObjectHead {
    let Some(total) = total(head) else { return head.clone() };
    let headers = marked(head.headers.clone(), None);
    ObjectHead { length: Some(total), headers, ..head.clone() }
}

/// What is stored under the URL's key as a body: it tells versions apart.
pub fn outline(total: u64, tag: &[u8]) -> Bytes {
    [b"shoal parts v1\n", total.to_string().as_bytes(), b"\n", tag].concat().into()
}

/// The first part to ask an origin for, of which nothing is known yet, for a client's `Range`:
/// that with its first byte, or the beginning, where that is not clear before the length is known.
/// `None` where the client wants everything, or asks for nothing that is understood.
pub fn first_question(asked: Option<&HeaderValue>) -> Option<Range<u64>> {
    let asked = asked?.as_bytes();
    // For a client who asks for all of the longest body there may be.
    let wanted = match range::select(Some(asked), Some(OBJECT_BYTES_MAX)) {
        range::Part::Whole => return None,
        range::Part::Bytes(range) if range == (0..OBJECT_BYTES_MAX) => return None,
        range::Part::Bytes(range) if range.end < OBJECT_BYTES_MAX || !is_suffix(asked) => {
            range.start
        }
        range::Part::Bytes(_) | range::Part::Several(_) | range::Part::Unsatisfiable => 0,
    };
    let start = wanted / PART_BYTES * PART_BYTES;
    Some(start..start + PART_BYTES)
}

fn is_suffix(range: &[u8]) -> bool {
    let spec = range.split(|byte| *byte == b'=').nth(1).unwrap_or_default();
    spec.trim_ascii_start().starts_with(b"-")
}

/// The header that asks for it.
pub fn question(part: &Range<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes={}-{}", part.start, part.end - 1)) {
        headers.insert(RANGE, value);
    }
    headers
}

/// The answer to a first question: what it brings of the whole, and the whole's length. `None` when
/// it cannot be relied on, or not be gone on with.
pub fn first_answer(
    asked: &Range<u64>,
    (status, headers, length): (StatusCode, &HeaderMap, Option<u64>),
) -> Option<(Range<u64>, u64)> {
    if status != StatusCode::PARTIAL_CONTENT || headers.get_all(CONTENT_RANGE).iter().count() != 1 {
        return None;
    }
    let answered = headers.get(CONTENT_RANGE)?.as_bytes();
    let total = answered.rsplit(|byte| *byte == b'/').next()?;
    let total: u64 = std::str::from_utf8(total).ok()?.parse().ok()?;
    let part = asked.start..asked.end.min(total);
    let fits = length.is_none_or(|length| length == part.end.saturating_sub(part.start));
    let right = total <= OBJECT_BYTES_MAX
        && !part.is_empty()
        && fits
        && range::answers(Some(answered), &part, total)
        && headers.get(ETAG).is_some_and(|tag| is_strong(tag.as_bytes()));
    right.then_some((part, total))
}

/// The headers that the whole would have come with.
pub fn whole_headers(partial: &HeaderMap) -> HeaderMap {
    let mut headers = partial.clone();
    headers.remove(CONTENT_RANGE);
    headers.remove(CONTENT_LENGTH);
    headers
}

/// Whether an answer to a question for a part brings exactly that part, of that version.
pub fn brings(
    part: &Part,
    answer: (StatusCode, &HeaderMap, Option<u64>),
    head: ObjectHead,
) -> bool {
    let one = |name| answer.1.get_all(name).iter().count() <= 1;
    one(ETAG)
        && one(LAST_MODIFIED)
        && one(CONTENT_RANGE)
        && resume::continues(&part.whole(head), &part.range(), answer) == Continues::AtOffset
}

fn is_strong(tag: &[u8]) -> bool {
    (2..=TAG_BYTES_MAX).contains(&tag.len()) && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

#[cfg(test)]
mod tests {
    use shoal_proto::Labels;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn head(tag: &'static str, length: Option<u64>) -> ObjectHead {
        ObjectHead {
            key: ObjectKey::new([0; 32]),
            site: "docs".into(),
            status: 200,
            headers: vec![Header {
                name: "etag".into(),
                value: Bytes::from_static(tag.as_bytes()),
            }],
            length,
            chunk_size: 256 * 1024,
            freshness: Freshness::default(),
            fence_position: 0,
            labels: Labels::default(),
        }
    }

    fn answer(range: &str, tag: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static(tag));
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(range).unwrap());
        headers
    }

    #[test]
    fn parts_cover_the_whole_and_have_keys_of_their_own() {
        let whole = head("\"1\"", Some(10 * MIB + 5));
        let part = |number| Part::of(&whole, number).unwrap();
        assert_eq!(part(0).range(), 0..MIB);
        assert_eq!(part(10).range(), 10 * MIB..10 * MIB + 5);
        assert!(Part::of(&whole, 11).is_none(), "beyond the end");
        assert!(Part::of(&head("W/\"1\"", Some(MIB)), 0).is_none(), "no strong validator");
        assert!(Part::of(&head("\"1\"", None), 0).is_none(), "no length");
        let (secret, url) = ([7; 32], ObjectKey::new([9; 32]));
        let other = Part::of(&head("\"2\"", Some(10 * MIB + 5)), 0).unwrap();
        let longer = Part::of(&head("\"1\"", Some(10 * MIB + 6)), 0).unwrap();
        let keys = [part(0), part(1), other, longer].map(|part| part.key(&secret, &url));
        let all: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(all.len(), 4);
        assert_eq!(covering(&(0..1)), 0..1);
        assert_eq!(covering(&(MIB - 1..MIB + 1)), 0..2);
        assert_eq!(covering(&(MIB..2 * MIB)), 1..2);
        assert_eq!(covering(&(5..5)), 0..0);
    }

    #[test]
    fn clients_see_the_whole_and_origins_mark_nothing() {
        let plain = head("\"1\"", Some(5));
        assert_eq!((total(&plain), whole(&plain)), (None, plain.clone()));
        let headers = marked(plain.headers.clone(), Some(77));
        let outline = ObjectHead { headers, ..plain.clone() };
        assert_eq!(total(&outline), Some(77));
        assert_eq!(whole(&outline), ObjectHead { length: Some(77), ..plain.clone() });
        assert_eq!(marked(outline.headers, None), plain.headers);
        assert_eq!(Part::of(&whole(&plain), 0).unwrap().total, 5);
    }

    #[test]
    fn the_first_question_is_for_one_part() {
        let of = |range: &str| first_question(Some(&HeaderValue::from_str(range).unwrap()));
        let part = |number: u64| Some(number * MIB..(number + 1) * MIB);
        assert_eq!(of("bytes=0-99"), part(0));
        assert_eq!(of(&format!("bytes={}-{}", 3 * MIB + 7, 9 * MIB)), part(3));
        assert_eq!(of(&format!("bytes={}-", 3 * MIB)), part(3));
        assert_eq!(of("bytes=-500"), part(0), "where that is shows when the length is known");
        assert_eq!(of("bytes= -500"), part(0));
        assert_eq!(of("bytes=5-6,99-100,-7"), part(0));
        assert_eq!(of("bytes=0-"), None, "everything");
        assert_eq!(of("bytes=9-1"), None, "not understood");
        assert_eq!(of("bytes=99999999999999999999-"), part(0), "beyond every end");
        assert_eq!(first_question(None), None);
        assert_eq!(question(&(0..MIB))[RANGE], "bytes=0-1048575");
    }

    #[test]
    fn only_the_exact_answer_counts() {
        let asked = MIB..2 * MIB;
        let of = |range: &str, tag, length| {
            first_answer(&asked, (StatusCode::PARTIAL_CONTENT, &answer(range, tag), length))
        };
        let whole = "bytes 1048576-2097151/9000000";
        assert_eq!(of(whole, "\"1\"", Some(MIB)), Some((asked.clone(), 9_000_000)));
        assert_eq!(of(whole, "\"1\"", None), Some((asked.clone(), 9_000_000)));
        let last = "bytes 1048576-1048580/1048581";
        assert_eq!(of(last, "\"1\"", Some(5)), Some((MIB..MIB + 5, MIB + 5)));
        for (range, tag, length) in [
            (whole, "W/\"1\"", Some(MIB)),
            (whole, "\"1\"", Some(MIB - 1)),
            ("bytes 1048576-2097150/9000000", "\"1\"", None),
            ("bytes 0-1048575/9000000", "\"1\"", Some(MIB)),
            ("bytes 1048576-2097151/*", "\"1\"", Some(MIB)),
            ("bytes 1048576-2097151/99999999999999999999", "\"1\"", Some(MIB)),
            ("bytes */9000000", "\"1\"", Some(MIB)),
            ("", "\"1\"", Some(MIB)),
        ] {
            assert_eq!(of(range, tag, length), None, "{range} {tag} {length:?}");
        }
        let headers = answer(whole, "\"1\"");
        assert_eq!(first_answer(&asked, (StatusCode::OK, &headers, Some(MIB))), None);
        assert!(whole_headers(&headers).get(CONTENT_RANGE).is_none());
    }

    #[test]
    fn a_part_comes_of_its_own_version_alone() {
        let total = 9 * MIB;
        let part = Part::of(&head("\"1\"", Some(total)), 1).unwrap();
        let right = "bytes 1048576-2097151/9437184";
        let of = |status, range: &str, tag| {
            let own = head("\"1\"", Some(MIB));
            brings(&part, (status, &answer(range, tag), Some(MIB)), own)
        };
        assert!(of(StatusCode::PARTIAL_CONTENT, right, "\"1\""));
        assert!(!of(StatusCode::PARTIAL_CONTENT, right, "\"2\""));
        assert!(!of(StatusCode::OK, right, "\"1\""));
        assert!(!of(StatusCode::PARTIAL_CONTENT, "bytes 0-1048575/9437184", "\"1\""));
        assert!(!of(StatusCode::PARTIAL_CONTENT, "bytes 1048576-2097151/9437185", "\"1\""));
    }

    proptest::proptest! {
        #[test]
        fn any_headers_are_survived(range: String, tag in "[ -~]{0,9}", length: Option<u64>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&range) {
                headers.insert(CONTENT_RANGE, value);
            }
            if let Ok(value) = HeaderValue::from_str(&tag) {
                headers.insert(ETAG, value);
            }
            let status = StatusCode::PARTIAL_CONTENT;
            if let Some((part, total)) = first_answer(&(0..PART_BYTES), (status, &headers, length)) {
                proptest::prop_assert!(part.start == 0 && part.end <= total);
            }
        }
    }
}
