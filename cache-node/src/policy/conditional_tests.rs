//! Preconditions, validators and updates, case by case.

use shoal_proto::{Freshness, Labels, ObjectKey};

use super::*;

const EARLIER: &str = "Sun, 06 Nov 1994 08:49:30 GMT";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn stored(lines: &[(&str, &str)]) -> ObjectHead {
    let header = |(name, value): &(&str, &str)| Header {
        name: (*name).to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    ObjectHead {
        key: ObjectKey::new([1; 32]),
        site: "a".into(),
        status: 200,
        headers: lines.iter().map(header).collect(),
        length: Some(10),
        chunk_size: 1,
        freshness: Freshness { response_time_ms: 784_111_777_000, ..Freshness::default() },
        fence_position: 0,
        labels: Labels::default(),
    }
}

fn request(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn if_none_match_compares_weakly_through_lists() {
    for (tag, asked, expected) in [
        ("\"1\"", "\"1\"", true),
        ("\"1\"", "W/\"1\"", true),
        ("W/\"1\"", "\"1\"", true),
        ("\"1\"", "\"0\", W/\"1\" ,\"2\"", true),
        ("\"1\"", "\"0\",,\t, \"1\"", true),
        ("\"a,b\"", "\"a,b\"", true),
        ("\"1\"", "*", true),
        ("\"1\"", "\"2\"", false),
        ("\"1\"", "1", false),
        ("\"1\"", "\"1", false),
        ("\"1\"", "w/\"1\"", false),
        ("\"1\"", "\"0\" \"1\"", false),
        ("\"1\"", "", false),
        ("\"b\"", "\"a,\"b\"", false),
        ("1", "\"1\"", false),
        ("1", "1", false),
    ] {
        let found = not_modified(&request(&[("if-none-match", asked)]), &stored(&[("etag", tag)]));
        assert_eq!(found, expected, "{asked} of {tag}");
    }
    let lines = [("if-none-match", "\"0\""), ("if-none-match", "\"1\"")];
    assert!(not_modified(&request(&lines), &stored(&[("etag", "\"1\"")])));
}

#[test]
fn if_none_match_hides_if_modified_since() {
    let held = stored(&[("etag", "\"1\""), ("last-modified", MODIFIED)]);
    let with = |tag| request(&[("if-none-match", tag), ("if-modified-since", LATER)]);
    assert!(!not_modified(&with("\"2\""), &held));
    assert!(!not_modified(&with("broken"), &held));
    let old = request(&[("if-none-match", "\"1\""), ("if-modified-since", EARLIER)]);
    assert!(not_modified(&old, &held));
}

#[test]
fn if_modified_since_compares_dates() {
    let asks = |since| request(&[("if-modified-since", since)]);
    for (lines, since, expected) in [
        (&[("last-modified", MODIFIED)][..], MODIFIED, true),
        (&[("last-modified", MODIFIED)], LATER, true),
        (&[("last-modified", MODIFIED)], EARLIER, false),
        (&[("last-modified", MODIFIED)], "yesterday", false),
        (&[("date", MODIFIED)], LATER, true),
        (&[("date", MODIFIED)], EARLIER, false),
        (&[], MODIFIED, true),
        (&[], EARLIER, false),
    ] {
        assert_eq!(not_modified(&asks(since), &stored(lines)), expected, "{since} {lines:?}");
    }
    let twice = request(&[("if-modified-since", LATER), ("if-modified-since", LATER)]);
    assert!(!not_modified(&twice, &stored(&[("last-modified", MODIFIED)])));
}

#[test]
fn only_a_success_becomes_304_or_412() {
    let held = ObjectHead { status: 404, ..stored(&[("etag", "\"1\"")]) };
    for lines in [("if-none-match", "\"1\""), ("if-match", "\"2\"")] {
        assert_eq!(preconditions(&request(&[lines]), &held), Preconditions::Hold);
    }
    assert!(!not_modified(&HeaderMap::new(), &stored(&[("etag", "\"1\"")])));
}

/// RFC 9110 section 13.2.2.
#[test]
fn preconditions_have_an_order() {
    use Preconditions::{Failed, Hold, NotModified};
    let strong = stored(&[("etag", "\"1\""), ("last-modified", MODIFIED)]);
    let weak = stored(&[("etag", "W/\"1\""), ("last-modified", MODIFIED)]);
    let bare = stored(&[]);
    for (held, lines, expected) in [
        (&strong, &[][..], Hold),
        (&strong, &[("if-match", "\"1\"")], Hold),
        (&strong, &[("if-match", "\"0\", \"1\"")], Hold),
        (&strong, &[("if-match", "*")], Hold),
        (&bare, &[("if-match", "*")], Hold),
        (&strong, &[("if-match", "\"2\"")], Failed),
        (&strong, &[("if-match", "1")], Failed),
        (&bare, &[("if-match", "\"1\"")], Failed),
        (&weak, &[("if-match", "W/\"1\"")], Failed),
        (&weak, &[("if-match", "\"1\"")], Failed),
        (&strong, &[("if-unmodified-since", MODIFIED)], Hold),
        (&strong, &[("if-unmodified-since", LATER)], Hold),
        (&strong, &[("if-unmodified-since", EARLIER)], Failed),
        (&strong, &[("if-unmodified-since", "broken")], Hold),
        (&bare, &[("if-unmodified-since", EARLIER)], Hold),
        (&strong, &[("if-match", "\"1\""), ("if-unmodified-since", EARLIER)], Hold),
        (&strong, &[("if-match", "\"2\""), ("if-unmodified-since", LATER)], Failed),
        (&strong, &[("if-match", "\"1\""), ("if-none-match", "\"1\"")], NotModified),
        (&strong, &[("if-match", "\"2\""), ("if-none-match", "\"1\"")], Failed),
        (&strong, &[("if-unmodified-since", EARLIER), ("if-none-match", "\"1\"")], Failed),
        (&strong, &[("if-unmodified-since", LATER), ("if-modified-since", LATER)], NotModified),
        (&strong, &[("if-none-match", "\"2\""), ("if-modified-since", LATER)], Hold),
    ] {
        assert_eq!(preconditions(&request(lines), held), expected, "{lines:?}");
    }
}

#[test]
fn a_range_is_cut_from_what_the_client_has_a_part_of() {
    let strong = stored(&[("etag", "\"1\""), ("last-modified", EARLIER), ("date", MODIFIED)]);
    let weak = stored(&[("etag", "W/\"1\""), ("last-modified", MODIFIED), ("date", MODIFIED)]);
    for (held, lines, expected) in [
        (&strong, &[][..], true),
        (&strong, &[("if-range", "\"1\"")], true),
        (&strong, &[("if-range", "W/\"1\"")], false),
        (&strong, &[("if-range", "\"2\"")], false),
        (&strong, &[("if-range", "\"1\", \"2\"")], false),
        (&strong, &[("if-range", "*")], false),
        (&strong, &[("if-range", EARLIER)], true),
        (&strong, &[("if-range", MODIFIED)], false),
        (&strong, &[("if-range", "broken")], false),
        (&strong, &[("if-range", "\"1\""), ("if-range", "\"1\"")], false),
        (&weak, &[("if-range", "W/\"1\"")], false),
        (&weak, &[("if-range", "\"1\"")], false),
        (&weak, &[("if-range", MODIFIED)], false),
    ] {
        assert_eq!(range_applies(&request(lines), held), expected, "{lines:?}");
    }
}

#[test]
fn validators_go_out_as_they_came() {
    let held = stored(&[("etag", "W/\"1\""), ("last-modified", MODIFIED)]);
    let sent = validators(&held);
    assert_eq!(sent["if-none-match"], "W/\"1\"");
    assert_eq!(sent["if-modified-since"], MODIFIED);
    assert!(validators(&stored(&[("etag", "")])).is_empty());
}

#[test]
fn a_304_replaces_field_by_field() {
    let held = stored(&[
        ("etag", "\"1\""),
        ("content-length", "10"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("content-md5", "old"),
        ("cache-control", "max-age=1"),
        ("x-kept", "old"),
        ("x-new", "old"),
        ("x-new", "older"),
        ("age", "7"),
        ("date", EARLIER),
    ]);
    let fresh = request(&[
        ("etag", "\"1\""),
        ("content-length", "0"),
        ("content-type", "text/html"),
        ("content-encoding", "identity"),
        ("content-range", "bytes 0-1/2"),
        ("set-cookie", "a=b"),
        ("content-md5", "new"),
        ("cache-control", "max-age=9"),
        ("x-new", "new"),
        ("date", LATER),
    ]);
    let headers = refreshed(&held.headers, &fresh).unwrap();
    let mut lines: Vec<_> = headers
        .iter()
        .map(|header| format!("{}: {}", header.name, String::from_utf8_lossy(&header.value)))
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "cache-control: max-age=9",
            "content-encoding: gzip",
            "content-length: 10",
            "content-md5: old",
            "content-type: text/html",
            "date: Sun, 06 Nov 1994 08:49:38 GMT",
            "etag: \"1\"",
            "x-kept: old",
            "x-new: new",
        ]
    );
}

#[test]
fn a_304_for_another_version_updates_nothing() {
    let held = stored(&[("etag", "\"1\"")]);
    assert!(refreshed(&held.headers, &request(&[("etag", "\"2\"")])).is_none());
    assert!(refreshed(&held.headers, &request(&[("etag", "W/\"2\"")])).is_some());
    assert!(refreshed(&held.headers, &HeaderMap::new()).is_some());
    assert!(refreshed(&[], &request(&[("etag", "\"2\"")])).is_some());
}

#[test]
fn a_304_made_here_is_lean() {
    let held = stored(&[
        ("etag", "\"1\""),
        ("cache-control", "max-age=1"),
        ("content-type", "text/plain"),
        ("x-any", "1"),
    ]);
    let headers = not_modified_headers(&held.headers);
    assert_eq!(headers.len(), 2);
    assert_eq!(headers["etag"], "\"1\"");
    assert_eq!(headers["cache-control"], "max-age=1");
}

proptest::proptest! {
    #[test]
    fn any_tags_are_survived(asked in "[W/\"a, *]{0,24}", tag in "[W/\"a, *]{0,8}") {
        let held = stored(&[("etag", &tag)]);
        let lines = request(&[("if-none-match", &asked), ("if-match", &asked), ("if-range", &asked)]);
        not_modified(&lines, &held);
        range_applies(&lines, &held);
    }
}
