//! PURE. `Surrogate-Control` of the W3C's Edge Architecture Specification (a Note of 2001), which
//! many origins send to CDNs: read as one more targeted field.
//!
//! Invariants: text within quotes is never a directive; what is meant for another device counts for
//! nothing; a malformed number of seconds counts as 0. Where a directive is meant for this device by
//! name, those that are meant for all do not count. `content` is about processing (ESI), which this
//! cache does not do.

use http::HeaderMap;

use super::directives::{ResponseDirectives, delta_seconds, split_piece};

/// The field.
pub(super) const CONTROL: &str = "surrogate-control";
/// What this cache tells origins in `Surrogate-Capability`.
pub const CAPABILITY: &str = "shoal=\"Surrogate/1.0\"";
/// The name by which a directive is meant for this cache.
const DEVICE: &[u8] = b"shoal";

/// The field's directives; `None` when none of them is about caching here.
pub(super) fn directives(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let (mut general, mut mine) = (Found::default(), Found::default());
    for line in headers.get_all(CONTROL) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let (piece, after, closed) = split_piece(rest, b',');
            if !closed {
                return None;
            }
            rest = after;
            let (directive, target, _) = split_piece(piece, b';');
            match target.trim_ascii() {
                b"" => general.add(directive.trim_ascii()),
                target if target.eq_ignore_ascii_case(DEVICE) => mine.add(directive.trim_ascii()),
                _ => {}
            }
        }
    }
    let found = if mine == Found::default() { general } else { mine };
    if found == Found::default() {
        return None;
    }
    Some(ResponseDirectives {
        no_store: found.no_store,
        max_age: found.max_age,
        // "max-age=600+60": for 60 seconds more, stale is better than nothing.
        stale_while_revalidate: found.extension,
        stale_if_error: found.extension,
        targeted: true,
        ..ResponseDirectives::default()
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    no_store: bool,
    max_age: Option<u64>,
    extension: Option<u64>,
}

impl Found {
    fn add(&mut self, directive: &[u8]) {
        let at = directive.iter().position(|byte| *byte == b'=').unwrap_or(directive.len());
        let (name, value) = directive.split_at(at);
        match name.to_ascii_lowercase().as_slice() {
            b"no-store" => self.no_store = true,
            b"max-age" => {
                let value = value.strip_prefix(b"=").unwrap_or_default();
                let plus = value.iter().position(|byte| *byte == b'+').unwrap_or(value.len());
                let (seconds, extension) = value.split_at(plus);
                self.max_age = Some(delta_seconds(seconds).unwrap_or(0));
                self.extension = extension.strip_prefix(b"+").and_then(delta_seconds);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[&str]) -> Option<(bool, Option<u64>, Option<u64>)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTROL, HeaderValue::from_str(line).unwrap());
        }
        let found = directives(&headers)?;
        assert!(found.targeted && !found.allows_authorized);
        Some((found.no_store, found.max_age, found.stale_while_revalidate))
    }

    #[test]
    fn what_is_meant_for_this_cache_counts() {
        let fresh = |seconds| Some((false, Some(seconds), None));
        assert_eq!(of(&["max-age=60"]), fresh(60));
        assert_eq!(of(&["foo, MaX-aGe=60"]), fresh(60));
        assert_eq!(of(&["foo", "max-age=60;Shoal"]), fresh(60));
        assert_eq!(of(&["max-age=9, max-age=60;shoal"]), fresh(60));
        assert_eq!(of(&["no-store, max-age=60;shoal"]), fresh(60));
        assert_eq!(of(&["max-age=60+30"]), Some((false, Some(60), Some(30))));
        assert_eq!(of(&["no-store"]), Some((true, None, None)));
        assert_eq!(of(&["max-age=x"]), fresh(0));
        assert_eq!(of(&["max-age"]), fresh(0));
        assert_eq!(of(&["max-age=99999999999999999999999"]), fresh(u64::MAX));
    }

    #[test]
    fn what_is_not_counts_for_nothing() {
        for lines in [
            &[][..],
            &["max-age=60;other"],
            &["content=\"ESI/1.0\""],
            &["content=\"max-age=60, no-store\""],
            &["content=\"max-age=60"],
            &["no-store-remote"],
            &["max-age =60"],
        ] {
            assert_eq!(of(lines), None, "{lines:?}");
        }
    }
}
