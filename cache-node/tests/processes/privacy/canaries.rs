//! Words that stand for a client's secrets, and the search for them in whatever form.

use std::fs;
use std::path::Path;

/// Where a client puts its secrets. Each word stands nowhere else. Path and query hold a letter in
/// percent-encoding, so that they are searched for as sent and as they read.
pub(super) const PATH: &str = "/o/5000/cnry%50ath7f3a";
pub(super) const QUERY: &str = "who=cnry%51uery91bd";
pub(super) const COOKIE: &str = "cnryCookie55e2";
pub(super) const TOKEN: &str = "cnryToken4c1e";
pub(super) const AGENT: &str = "cnryAgent0c77";
pub(super) const FORWARDED: &str = "203.0.113.77";
/// The client's own address: all of 127/8 is this machine.
pub(super) const CLIENT: &str = "127.77.13.9";
pub(super) const CLIENT_BYTES: [u8; 4] = [127, 77, 13, 9];

const WORDS: [&str; 9] = [
    "cnry%50ath7f3a",
    "cnryPath7f3a",
    "cnry%51uery91bd",
    "cnryQuery91bd",
    COOKIE,
    TOKEN,
    AGENT,
    FORWARDED,
    CLIENT,
];

/// What is looked for, with the word that it stands for.
pub(super) struct Search {
    forms: Vec<(Vec<u8>, String)>,
}

impl Search {
    pub(super) fn new() -> Self {
        let mut forms = Vec::new();
        for word in WORDS {
            forms.push((word.as_bytes().to_vec(), format!("{word} as it is")));
            forms.push((word.to_lowercase().into_bytes(), format!("{word} in lower case")));
            let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
            forms.push((hex.to_uppercase().into_bytes(), format!("{word} in hexadecimal")));
            forms.push((hex.into_bytes(), format!("{word} in hexadecimal")));
            for alphabet in ["+/", "-_"] {
                let inner = (0..3).map(|shift| base64_inside(word.as_bytes(), shift, alphabet));
                forms.extend(inner.map(|form| (form, format!("{word} in base64"))));
            }
        }
        forms.push((CLIENT_BYTES.to_vec(), format!("{CLIENT} in four bytes")));
        Self { forms }
    }

    /// What is found in `bytes`.
    pub(super) fn find(&self, bytes: &[u8]) -> Vec<&str> {
        let found = |form: &[u8]| bytes.windows(form.len()).any(|window| window == form);
        // One pass tells most text to be innocent.
        let hits = self.forms.iter().filter(|(form, _)| found(form));
        hits.map(|(_, name)| name.as_str()).collect()
    }

    /// Fails when a file below `folder` holds a word; says how many bytes were read.
    pub(super) fn files(&self, folder: &Path) -> u64 {
        let mut read = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // A store at work deletes files.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                read += self.files(&path);
            } else if let Ok(bytes) = fs::read(&path) {
                let found = self.find(&bytes);
                assert!(found.is_empty(), "{}: {found:?}", path.display());
                read += bytes.len() as u64;
            }
        }
        read
    }
}

/// The characters that base64 makes of `word` alone, wherever it stands in a longer text.
fn base64_inside(word: &[u8], shift: usize, last: &str) -> Vec<u8> {
    let letters: Vec<u8> =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last.bytes()).collect();
    let text: Vec<u8> = std::iter::repeat_n(0, shift).chain(word.iter().copied()).collect();
    let bit = |at: usize| text.get(at / 8).map(|byte| byte >> (7 - at % 8) & 1);
    let sextets = text.len() * 8 / 6;
    let first = (shift * 8).div_ceil(6);
    let sextet = |n: usize| {
        let bits = (n * 6..n * 6 + 6).map(|at| bit(at).unwrap());
        bits.fold(0usize, |value, bit| value << 1 | usize::from(bit))
    };
    (first..sextets).map(|n| letters[sextet(n)]).collect()
}

#[test]
fn the_search_finds_every_form() {
    let search = Search::new();
    assert!(search.find(b"GET /o/5000/nothing HTTP/1.1").is_empty());
    assert!(!search.find(b"cookie: session=cnryCookie55e2; a=b").is_empty());
    assert!(!search.find(b"..\x7f\x4d\x0d\x09..").is_empty());
    assert!(!search.find(b"636E7279546F6B656E34633165").is_empty());
    // "user:cnryToken4c1e" and two neighbours, as HTTP's Basic would send them.
    for text in
        [&b"dXNlcjpjbnJ5VG9rZW40YzFl"[..], b"dXNlMTpjbnJ5VG9rZW40YzFlOg==", b"dTpjbnJ5VG9rZW40YzFl"]
    {
        assert!(!search.find(text).is_empty(), "{}", String::from_utf8_lossy(text));
    }
}
