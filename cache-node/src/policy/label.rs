//! PURE. Labels: what purges by prefix and by tag match an object by. Keyed hashes, so that neither
//! the index nor a log names a path or a tag; bound to the site, so that no site's purge touches
//! another's.
//!
//! Invariants: the same path and tags have the same labels on every node; whatever is beyond a bound
//! is covered by more purges, never by fewer. Two different texts share a label with a chance of
//! 2⁻⁶⁴; one of them is then purged with the other, which costs a fill.

use http::{HeaderMap, HeaderName};
use shoal_proto::limits::{LABELS_MAX, PATH_LEVELS_MAX};
use shoal_proto::{Header, Labels, ObjectKey};

/// Longest tag, in bytes; an object with a longer one is covered by every tag's purge.
pub const TAG_BYTES_MAX: usize = 1024;

const PATH: u8 = b'p';
const TAG: u8 = b't';
const VARIANT: u8 = b'v';

/// A response's headers, and those of them that carry tags.
pub type Tagged<'a> = (&'a HeaderMap, &'a [HeaderName]);

/// The labels of a response for `target` (path and query) with these headers.
pub fn labels(secret: &[u8; 32], site: &str, target: &str, headers: Tagged<'_>) -> Labels {
    let path = plain_path(target);
    let mut hashes: Vec<u64> =
        prefixes(&path).map(|prefix| label(secret, PATH, site, prefix)).collect();
    if !path.ends_with('/') || hashes.len() == PATH_LEVELS_MAX {
        hashes.push(label(secret, PATH, site, &path));
    }
    let mut labels = Labels { hashes, every_tag: false };
    add_tags(&mut labels, secret, site, headers);
    labels
}

/// `labels` after a validation that brought these headers: what it adds is added, and nothing that
/// was is lost.
pub fn validated(labels: &Labels, secret: &[u8; 32], site: &str, headers: Tagged<'_>) -> Labels {
    let mut labels = labels.clone();
    // Where nobody knows the labels, all purges cover the object, and go on to.
    if !labels.hashes.is_empty() {
        add_tags(&mut labels, secret, site, headers);
    }
    labels
}

/// The labels of a variant that is stored apart from its URL's key.
pub fn of_variant(mut labels: Labels, secret: &[u8; 32], site: &str, url: &ObjectKey) -> Labels {
    if labels.hashes.len() >= LABELS_MAX {
        // The last is a tag's.
        labels.hashes.pop();
        labels.every_tag = true;
    }
    labels.hashes.push(of_variants(secret, site, url));
    labels
}

/// The label of all variants of a URL that are stored apart from its key.
pub fn of_variants(secret: &[u8; 32], site: &str, url: &ObjectKey) -> u64 {
    label(secret, VARIANT, site, &url.to_string())
}

/// Headers without those that carry tags: they end here, as with others who act on them. They are of
/// no use to clients, and name what labels hide.
pub fn without_tags(mut headers: Vec<Header>, tags: &[HeaderName]) -> Vec<Header> {
    headers.retain(|header| !tags.iter().any(|name| *name == *header.name));
    headers
}

/// The label of all paths under `prefix`, which ends in `/`, or of the very path.
pub fn of_path(secret: &[u8; 32], site: &str, path: &str) -> u64 {
    let path = plain_path(path);
    let deepest = prefixes(&path).last().unwrap_or("/");
    // Below the deepest level that has a label of its own, that level's stands for all.
    let deep = path.ends_with('/') && path.len() > deepest.len();
    label(secret, PATH, site, if deep { deepest } else { &path })
}

/// The label of a tag.
pub fn of_tag(secret: &[u8; 32], site: &str, tag: &str) -> u64 {
    label(secret, TAG, site, tag)
}

/// `/`, `/a/`, `/a/b/`, as deep as labels go.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..=at]).take(PATH_LEVELS_MAX)
}

fn add_tags(labels: &mut Labels, secret: &[u8; 32], site: &str, (headers, tags): Tagged<'_>) {
    for name in tags {
        // Only `Surrogate-Key` has spaces between its tags.
        let separator = if name == "surrogate-key" { ' ' } else { ',' };
        for line in headers.get_all(name) {
            let Ok(line) = line.to_str() else {
                labels.every_tag = true;
                continue;
            };
            for tag in line.split(separator).map(str::trim).filter(|tag| !tag.is_empty()) {
                add_tag(labels, tag, of_tag(secret, site, tag));
            }
        }
    }
}

fn add_tag(labels: &mut Labels, tag: &str, label: u64) {
    if labels.hashes.contains(&label) {
        return;
    }
    // Paths come first, and are no more than their bound.
    let full = labels.hashes.len() >= LABELS_MAX;
    if full || tag.len() > TAG_BYTES_MAX {
        labels.every_tag = true;
    } else {
        labels.hashes.push(label);
    }
}

/// The path without query, percent-encodings in their one plain form (RFC 3986 section 6.2.2):
/// `/%61/%2f` and `/a/%2F` are the same to a purge.
pub(super) fn plain_path(target: &str) -> String {
    let path = target.split('?').next().unwrap_or(target);
    let mut plain = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        plain.push('/');
    }
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        plain.push_str(before);
        let digits = encoded.get(1..3).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (piece, length) = match byte {
            Some(byte) if is_unreserved(byte) => (char::from(byte).to_string(), 3),
            Some(byte) => (format!("%{byte:02X}"), 3),
            None => ("%".to_owned(), 1),
        };
        plain.push_str(&piece);
        rest = encoded.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn label(secret: &[u8; 32], kind: u8, site: &str, text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"shoal label v1");
    hasher.update(&[kind]);
    for part in [site, text] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use shoal_proto::limits::TAGS_MAX;

    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn tags() -> Vec<HeaderName> {
        crate::policy::rules::Rules::default().tags
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn of(target: &str) -> Vec<u64> {
        labels(&SECRET, "docs", target, (&HeaderMap::new(), &tags())).hashes
    }

    fn path(path: &str) -> u64 {
        of_path(&SECRET, "docs", path)
    }

    #[test]
    fn a_path_has_its_prefixes_and_itself() {
        let found = of("/a/b/c.html?q=/x/");
        assert_eq!(found, [path("/"), path("/a/"), path("/a/b/"), path("/a/b/c.html")]);
        for other in ["/a", "/a/b", "/b/", "/a/b/c.html/", "/x/", "/a/b/c"] {
            assert!(!found.contains(&path(other)), "{other}");
        }
        assert!(of("/a/b/").contains(&path("/a/b/")));
        assert_eq!(of("/"), [path("/")]);
    }

    #[test]
    fn one_path_has_one_spelling() {
        assert_eq!(of("/%61/%2fb%7e"), of("/a/%2Fb~"));
        assert_ne!(of("/a/%2fb"), of("/a//b"));
        assert_eq!(of("/100%/%zz/%"), of("/100%/%zz/%"));
    }

    #[test]
    fn sites_kinds_and_secrets_keep_labels_apart() {
        assert_ne!(path("/a/"), of_path(&SECRET, "apt", "/a/"));
        assert_ne!(path("/a/"), of_path(&[8; 32], "docs", "/a/"));
        assert_ne!(path("/a/"), of_tag(&SECRET, "docs", "/a/"));
    }

    #[test]
    fn tags_come_from_both_headers() {
        let lines = [("surrogate-key", "one two"), ("cache-tag", "three, four five,,three")];
        let found = labels(&SECRET, "docs", "/", (&headers(&lines), &tags()));
        for tag in ["one", "two", "three", "four five"] {
            assert!(found.hashes.contains(&of_tag(&SECRET, "docs", tag)), "{tag}");
        }
        assert_eq!((found.hashes.len(), found.every_tag), (5, false));
        let before = labels(&SECRET, "docs", "/", (&headers(&lines[..1]), &tags()));
        let after = validated(&before, &SECRET, "docs", (&headers(&lines[1..]), &tags()));
        assert_eq!(after, found);
        let unknown = Labels::default();
        assert_eq!(validated(&unknown, &SECRET, "docs", (&headers(&lines), &tags())), unknown);
    }

    #[test]
    fn too_many_tags_are_covered_by_all() {
        let many = |count: usize| (0..count).map(|n| format!("t{n} ")).collect::<String>();
        let of = |text: &str| {
            let found = headers(&[("surrogate-key", text)]);
            labels(&SECRET, "docs", "/a", (&found, &tags()))
        };
        assert!(!of(&many(TAGS_MAX)).every_tag);
        assert!(of(&many(3 * TAGS_MAX)).every_tag);
        assert!(of(&"x".repeat(TAG_BYTES_MAX + 1)).every_tag);
    }

    #[test]
    fn variants_are_found_by_their_url() {
        let (url, other) = (ObjectKey::new([1; 32]), ObjectKey::new([2; 32]));
        let of = |labels| of_variant(labels, &SECRET, "docs", &url);
        let found = of(labels(&SECRET, "docs", "/a", (&HeaderMap::new(), &tags())));
        assert!(found.hashes.contains(&of_variants(&SECRET, "docs", &url)));
        assert!(!found.hashes.contains(&of_variants(&SECRET, "docs", &other)));
        assert!(!found.every_tag);
        let full = of(Labels { hashes: vec![1; LABELS_MAX], every_tag: false });
        assert_eq!((full.hashes.len(), full.every_tag), (LABELS_MAX, true));
    }

    proptest! {
        #[test]
        fn whatever_lies_under_a_prefix_carries_its_label(
            above in prop::collection::vec("[a-z%]{0,3}", 0..25),
            below in "[a-z/]{0,20}",
        ) {
            let prefix: String = above.iter().map(|part| format!("/{part}")).collect::<String>() + "/";
            let found = of(&format!("{prefix}{below}"));
            prop_assert!(found.contains(&path(&prefix)), "{}", prefix);
            prop_assert!(found.len() <= LABELS_MAX);
        }
    }
}
