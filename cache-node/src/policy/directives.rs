//! `Cache-Control` (RFC 9111 section 5.2) and the targeted fields of a site (RFC 9213), exactly.
//!
//! Invariants: names are compared without letter case; text within a quoted string is never a
//! directive; numbers saturate. A directive that restricts counts however malformed its value is;
//! one that permits counts only when well-formed; a malformed number of seconds counts as 0.

use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA};
use http::{HeaderMap, HeaderName};

use super::rules::{ClientDirectives, Rules};
use super::structured::{self, Item, is_token};
use super::surrogate;

/// What a response says to a shared cache. Times are in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, with or without field names: qualified forms count as the plain one.
    pub no_cache: bool,
    /// `private`, with or without field names.
    pub private: bool,
    /// `must-revalidate` or `proxy-revalidate`.
    pub must_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `public`, `s-maxage` or `must-revalidate`: RFC 9111 section 3.5.
    pub allows_authorized: bool,
    /// `s-maxage`; 0 when malformed or contradictory.
    pub s_maxage: Option<u64>,
    /// `max-age`; 0 when malformed or contradictory.
    pub max_age: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 section 3); 0 when malformed.
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861 section 4); 0 when malformed.
    pub stale_if_error: Option<u64>,
    /// From a targeted field: `Cache-Control` and `Expires` do not count (RFC 9213 section 2.2).
    pub targeted: bool,
}

impl ResponseDirectives {
    /// Reads a response's headers, and what its site says in their place.
    pub fn of(headers: &HeaderMap, rules: &Rules) -> Self {
        let mut found = Self::stated(headers, rules);
        if rules.forced_ttl_s.is_some() {
            found = Self {
                max_age: rules.forced_ttl_s,
                targeted: true,
                allows_authorized: found.allows_authorized,
                stale_while_revalidate: found.stale_while_revalidate,
                stale_if_error: found.stale_if_error,
                ..Self::default()
            };
        } else if found.is_silent() && (found.targeted || !headers.contains_key(EXPIRES)) {
            found.max_age = rules.default_ttl_s;
        }
        let windows = (rules.stale_while_revalidate_s, rules.stale_if_error_s);
        found.stale_while_revalidate = found.stale_while_revalidate.or(windows.0);
        found.stale_if_error = found.stale_if_error.or(windows.1);
        found
    }

    /// Nothing is said of how long, or whether, the response may be kept.
    fn is_silent(&self) -> bool {
        let forbidden = self.no_store || self.no_cache || self.private;
        !forbidden && self.s_maxage.or(self.max_age).is_none()
    }

    fn stated(headers: &HeaderMap, rules: &Rules) -> Self {
        // RFC 9213 section 2.2: the first of the list that is there and well-formed.
        if let Some(targeted) = rules.targeted.iter().find_map(|name| targeted(headers, name)) {
            return targeted;
        }
        let mut found = Self::default();
        let whole = for_each(headers, |directive| found.add(directive));
        if !whole {
            // RFC 9111 section 4.2.1 encourages to treat unclear freshness as stale.
            found.s_maxage = found.s_maxage.map(|_| 0);
            found.max_age = Some(0);
            found.stale_while_revalidate = None;
            found.stale_if_error = None;
            found.allows_authorized = false;
        }
        found
    }

    fn add(&mut self, directive: Directive<'_>) {
        let plain = directive.value == Value::Absent;
        match directive.name.to_ascii_lowercase().as_slice() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"must-understand" => self.must_understand = true,
            b"proxy-revalidate" => self.must_revalidate = true,
            b"must-revalidate" => {
                self.must_revalidate = true;
                self.allows_authorized |= plain;
            }
            b"public" => self.allows_authorized |= plain,
            b"s-maxage" => {
                self.allows_authorized |= directive.seconds().is_some();
                merge(&mut self.s_maxage, directive);
            }
            b"max-age" => merge(&mut self.max_age, directive),
            b"stale-while-revalidate" => merge(&mut self.stale_while_revalidate, directive),
            b"stale-if-error" => merge(&mut self.stale_if_error, directive),
            _ => {}
        }
    }
}

/// What a request asks of a cache. Times are in seconds. The default asks nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`; 0 when malformed.
    pub max_age: Option<u64>,
    /// `min-fresh`; 0 when malformed.
    pub min_fresh: Option<u64>,
    /// `max-stale`: stale by at most so much is welcome; without a value, however stale.
    pub max_stale: Option<u64>,
}

impl RequestDirectives {
    /// Reads as much of a request's headers as the site listens to.
    pub fn of(headers: &HeaderMap, listens: ClientDirectives) -> Self {
        if listens == ClientDirectives::Ignore {
            return Self::default();
        }
        let all = listens == ClientDirectives::All;
        let mut found = Self::default();
        for_each(headers, |directive| match directive.name.to_ascii_lowercase().as_slice() {
            b"only-if-cached" => found.only_if_cached = true,
            b"max-stale" if directive.value == Value::Absent => found.max_stale = Some(u64::MAX),
            b"max-stale" => merge(&mut found.max_stale, directive),
            b"no-cache" if all => found.no_cache = true,
            b"no-store" if all => found.no_store = true,
            b"max-age" if all => merge(&mut found.max_age, directive),
            b"min-fresh" if all => merge(&mut found.min_fresh, directive),
            _ => {}
        });
        // RFC 9111 section 5.4: it says the same where there is no Cache-Control.
        if all && !headers.contains_key(CACHE_CONTROL) {
            let lines = headers.get_all(PRAGMA).iter().map(|line| line.as_bytes());
            let mut words = lines.flat_map(|line| line.split(|byte| *byte == b','));
            found.no_cache = words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-cache"));
        }
        found
    }
}

/// Two values that disagree leave nothing to trust (RFC 9111 section 4.2.1).
fn merge(kept: &mut Option<u64>, directive: Directive<'_>) {
    let seconds = directive.seconds().unwrap_or(0);
    *kept = Some(if kept.is_none_or(|before| before == seconds) { seconds } else { 0 });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Absent,
    /// A token, or what stands within quotes.
    Text(&'a [u8]),
    Malformed,
}

#[derive(Clone, Copy, Debug)]
struct Directive<'a> {
    name: &'a [u8],
    value: Value<'a>,
}

impl Directive<'_> {
    /// `delta-seconds` (RFC 9111 section 1.2.2), saturating.
    fn seconds(&self) -> Option<u64> {
        let Value::Text(text) = self.value else { return None };
        delta_seconds(text)
    }
}

/// `delta-seconds`: digits only, saturating.
pub(super) fn delta_seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.iter().fold(0, add))
}

/// Calls `found` for each directive of all `Cache-Control` lines; false when a line ended within a
/// quoted string.
fn for_each(headers: &HeaderMap, mut found: impl FnMut(Directive<'_>)) -> bool {
    let mut whole = true;
    for line in headers.get_all(CACHE_CONTROL) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let (piece, after, closed) = split_piece(rest, b',');
            whole &= closed;
            rest = after;
            if let Some(directive) = parse_piece(piece.trim_ascii()) {
                found(directive);
            }
        }
    }
    whole
}

/// Up to the next separator outside quotes: the piece, what follows it, whether quotes closed.
pub(super) fn split_piece(text: &[u8], separator: u8) -> (&[u8], &[u8], bool) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                return (&text[..at], &text[at + 1..], true);
            }
            _ => {}
        }
    }
    (text, &[], !quoted)
}

fn parse_piece(piece: &[u8]) -> Option<Directive<'_>> {
    let end = piece.iter().position(|byte| !is_token(*byte)).unwrap_or(piece.len());
    let (name, rest) = piece.split_at(end);
    if name.is_empty() {
        return None;
    }
    let value = match rest.split_first() {
        None => Value::Absent,
        Some((b'=', value)) => parse_value(value),
        Some(_) => Value::Malformed,
    };
    Some(Directive { name, value })
}

fn parse_value(text: &[u8]) -> Value<'_> {
    if let Some(inner) = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        // No directive that is read here needs an escape.
        let plain = !inner.iter().any(|byte| matches!(byte, b'"' | b'\\'));
        return if plain { Value::Text(inner) } else { Value::Malformed };
    }
    let token = !text.is_empty() && text.iter().all(|byte| is_token(*byte));
    if token { Value::Text(text) } else { Value::Malformed }
}

/// A targeted field, if present, not empty and well-formed with the types that its directives
/// have; otherwise it is ignored as a whole (RFC 9213 section 2.1).
fn targeted(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    if name == surrogate::CONTROL {
        return surrogate::directives(headers);
    }
    let lines: Vec<_> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
    let joined = lines.join(&b", "[..]);
    let members = structured::dictionary(&joined)?;
    if members.is_empty() {
        return None;
    }
    let mut found = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    for (key, item) in members {
        add_targeted(&mut found, key, item)?;
    }
    Some(found)
}

fn add_targeted(found: &mut ResponseDirectives, key: &[u8], item: Item) -> Option<()> {
    let flag = || if let Item::Boolean(set) = item { Some(set) } else { None };
    let seconds = || match item {
        Item::Integer(seconds) => u64::try_from(seconds).ok(),
        _ => None,
    };
    match key {
        b"no-store" => found.no_store = flag()?,
        // These two may carry field names, which count as the plain form.
        b"no-cache" => found.no_cache = flag().unwrap_or(true),
        b"private" => found.private = flag().unwrap_or(true),
        b"must-understand" => found.must_understand = flag()?,
        b"proxy-revalidate" => found.must_revalidate |= flag()?,
        b"must-revalidate" => {
            found.must_revalidate |= flag()?;
            found.allows_authorized |= flag()?;
        }
        b"public" => found.allows_authorized |= flag()?,
        b"s-maxage" => {
            found.s_maxage = Some(seconds()?);
            found.allows_authorized = true;
        }
        b"max-age" => found.max_age = Some(seconds()?),
        b"stale-while-revalidate" => found.stale_while_revalidate = Some(seconds()?),
        b"stale-if-error" => found.stale_if_error = Some(seconds()?),
        _ => {}
    }
    Some(())
}

#[cfg(test)]
#[path = "directives_tests.rs"]
mod tests;
