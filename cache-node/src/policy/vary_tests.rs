//! Variants: who is answered by what is stored, and under which key the others look.

use shoal_proto::{Freshness, Labels};

use super::*;
use crate::policy::headers_tests::headers;

const SECRET: [u8; 32] = [7; 32];
const URL: ObjectKey = ObjectKey::new([1; 32]);

fn stored(vary: &[&str], request: &str) -> ObjectHead {
    let line = |value: &&str| Header {
        name: "vary".into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let lines = vary.iter().map(line).collect();
    ObjectHead {
        key: URL,
        site: "docs".into(),
        status: 200,
        headers: marked(lines, &SECRET, &headers(request)),
        length: None,
        chunk_size: 256 * 1024,
        freshness: Freshness::default(),
        fence_position: 0,
        labels: Labels::default(),
    }
}

fn answers(vary: &str, first: &str, then: &str) -> bool {
    selects(&stored(&[vary], first), &SECRET, &headers(then))
}

#[test]
fn named_headers_have_to_be_the_same() {
    for (first, then, same) in [
        ("a: 1", "a: 1", true),
        ("a: 1 | other: 2", "a: 1 | other: 3", true),
        ("", "", true),
        ("a: 1", "a: 2", false),
        ("a: 1", "", false),
        ("", "a: 1", false),
        ("a:", "", false),
        ("a: X", "a: x", false),
        ("a: 1 | b: 2", "a: 1", false),
        ("a: 1 | b: 2", "b: 2 | a: 1", true),
    ] {
        assert_eq!(answers("A, b", first, then), same, "{first} then {then}");
    }
    assert!(selects(&stored(&[], "a: 1"), &SECRET, &headers("a: 2")), "it does not vary");
    assert!(selects(&stored(&["", ","], "a: 1"), &SECRET, &headers("a: 2")), "nor this");
}

#[test]
fn a_star_in_any_spelling_answers_nobody() {
    for vary in [&["*"][..], &["a, *"], &["*, a"], &[",*"], &["*,*"], &["a", "*"], &["a b"]] {
        assert!(!selects(&stored(vary, "a: 1"), &SECRET, &headers("a: 1")), "{vary:?}");
        let mut response = HeaderMap::new();
        for line in vary {
            response.append("vary", HeaderValue::from_str(line).unwrap());
        }
        assert!(is_unbounded(&response), "{vary:?}");
    }
    assert!(!is_unbounded(&headers("vary: accept-encoding, ,x | vary: Origin")));
    let many = (0..=NAMES_MAX).map(|n| format!("x-{n},")).collect::<String>();
    assert!(is_unbounded(&headers(&format!("vary: {many}"))));
}

#[test]
fn what_means_the_same_is_the_same() {
    for (vary, first, then, same) in [
        ("a", "a: 1, 2", "a: 1 | a: 2", true),
        ("a", "a: 1,2", "a:  1 ,\t2 ", true),
        ("a", "a: 2,1", "a: 1,2", false),
        ("a", "a: \"1, 2\"", "a: \"1,2\"", false),
        ("accept-encoding", "accept-encoding: gzip, br", "accept-encoding: BR,gzip", true),
        ("accept-encoding", "accept-encoding: gzip;q=1", "accept-encoding: gzip; q=1", true),
        ("accept-encoding", "accept-encoding: gzip", "accept-encoding: gzip, br", false),
        ("accept-language", "accept-language: en, de", "accept-language: eN,De", true),
        ("accept-language", "accept-language: en, de", "accept-language: de, en", false),
        ("cookie", "cookie: a=1, b", "cookie: a=1,b", false),
    ] {
        assert_eq!(answers(vary, first, then), same, "{first} then {then}");
    }
}

#[test]
fn variants_have_keys_of_their_own() {
    let first = stored(&["a"], "a: 1");
    let of = |url: &ObjectKey, request: &str| key(&SECRET, url, &first, &headers(request)).unwrap();
    assert_eq!(of(&URL, "a: 2"), of(&URL, "a:  2 | b: 3"));
    assert_ne!(of(&URL, "a: 2"), of(&URL, "a: 3"));
    assert_ne!(of(&URL, "a: 2"), of(&ObjectKey::new([2; 32]), "a: 2"));
    assert_ne!(of(&URL, ""), URL);
    let both = stored(&["a, b"], "a: 1");
    assert_ne!(key(&SECRET, &URL, &both, &headers("a: 2")), Some(of(&URL, "a: 2")));
    assert_eq!(key(&SECRET, &URL, &stored(&["*"], ""), &headers("")), None);
}

#[test]
fn a_mark_is_of_the_cluster_and_made_anew() {
    let head = stored(&["a"], "a: secret");
    let mark = head.header(MARK).unwrap().clone();
    assert!(!String::from_utf8_lossy(&mark).contains("secret"));
    assert!(!selects(&head, &[8; 32], &headers("a: secret")));
    let again = marked(head.headers, &SECRET, &headers("a: 2"));
    let marks: Vec<_> = again.iter().filter(|header| header.name == MARK).collect();
    assert_eq!(marks.len(), 1);
    assert_ne!(marks[0].value, mark);
}
