//! PURE. A site's choices beyond what HTTP decides, as configured: what is in a key, how long things
//! are fresh, which headers are added and taken away, what differs for some paths.
//!
//! Invariants: every default changes nothing; what is ambiguous or could break a message is refused.
//! A fault is the value that is wrong and what to write instead.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::key::{KeyRules, Query};

/// Most members of any list of a site.
const LIST_MAX: usize = 64;
/// Longest pattern or prefix of a path, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;
/// Longest time that a site may set, in seconds: ten years.
const TTL_S_MAX: u64 = 10 * 366 * 86_400;

/// A wrong value, and what to write instead.
pub(super) type Wrong = (String, &'static str);

/// What else than the path makes two requests ask for different objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// `all`, `none`, or the names of the query's parameters that count.
    pub query: QueryConfig,
    /// Parameters that do not count although others do; `*` stands for any text.
    pub ignore: Vec<String>,
    /// Whether the order of parameters does not count.
    pub sort: bool,
    /// Request headers that count.
    pub headers: Vec<String>,
    /// Cookies that count.
    pub cookies: Vec<String>,
    /// Whether `http` and `https` are told apart.
    pub scheme: bool,
}

/// Which parameters of a query count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum QueryConfig {
    /// `all` or `none`.
    Word(QueryWord),
    /// These.
    Names(Vec<String>),
}

/// All parameters, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryWord {
    /// The whole query.
    All,
    /// Nothing of it.
    None,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self::Word(QueryWord::All)
    }
}

/// How long responses are fresh, and of use after that. In seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TtlConfig {
    /// Where the origin says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_s: Option<u64>,
    /// Whatever the origin says, of successes and redirections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_s: Option<u64>,
    /// By status, `404` or `5xx`, where the origin says nothing.
    pub negative_s: BTreeMap<String, u64>,
    /// Where the origin says nothing of `stale-while-revalidate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate_s: Option<u64>,
    /// Where the origin says nothing of `stale-if-error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error_s: Option<u64>,
}

/// What becomes of a response that sets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// It is not shared.
    #[default]
    Pass,
    /// It is shared, without its cookies, if it may be stored otherwise.
    Strip,
    /// It is shared with its cookies: everybody gets the same.
    Store,
}

/// Headers that are set and taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadersConfig {
    /// Set, in the place of any there are.
    pub set: BTreeMap<String, String>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// What differs for some paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathConfig {
    /// Paths that begin with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Or paths that it matches; `*` stands for any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// Whether nothing is cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bypass: Option<bool>,
    /// In the place of the site's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlConfig>,
    /// In the place of the site's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyConfig>,
}

/// When an origin counts as away, while there are others. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// So many failures in a row.
    pub failures: u32,
    /// It is tried again after so long.
    pub retry_ms: u64,
    /// Asked for again and again, where it is given: a status below 500 is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Between two of these.
    pub every_ms: u64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { failures: 3, retry_ms: 10_000, path: None, every_ms: 5_000 }
    }
}

/// The statuses that a negative time is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// One.
    One(StatusCode),
    /// All of a hundred.
    Class(u16),
}

impl Statuses {
    /// Whether it is one of them.
    pub fn has(self, status: StatusCode) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => status.as_u16() / 100 == class,
        }
    }
}

/// Headers that are set and taken away, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Carries it out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

/// A path rule's paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    Prefix(String),
    Glob(String),
}

impl Paths {
    /// Whether the path is one of them.
    pub(super) fn has(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Glob(glob) => glob_matches(glob, path),
        }
    }
}

/// Whether `glob` matches all of `text`; `*` stands for any text, also none.
pub(super) fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < text.len() {
        if glob.get(at) == Some(&b'*') {
            star = Some((at, seen));
            at += 1;
        } else if glob.get(at) == text.get(seen) {
            (at, seen) = (at + 1, seen + 1);
        } else if let Some((back, from)) = star {
            star = Some((back, from + 1));
            (at, seen) = (back + 1, from + 1);
        } else {
            return false;
        }
    }
    glob.iter().skip(at).all(|byte| *byte == b'*')
}

/// Headers that frame a message, belong to one connection, say which part or version of a body is
/// meant, or are Shoal's own to say.
const FIXED: [&str; 23] = [
    "age",
    "cache-status",
    "connection",
    "content-length",
    "content-range",
    "date",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

fn header_name(name: &str) -> Option<HeaderName> {
    name.to_ascii_lowercase().parse().ok()
}

pub(super) fn read_edits(config: &HeadersConfig) -> Result<HeaderEdits, Wrong> {
    const WRITE: &str = "write names of headers that neither frame messages, nor belong to one \
                         connection, nor say which range or version is meant, at most 64, with \
                         values of visible characters";
    let name = |text: &String| {
        let name = header_name(text).filter(|name| !FIXED.contains(&name.as_str()));
        name.ok_or_else(|| (text.clone(), WRITE))
    };
    if config.set.len() + config.remove.len() > LIST_MAX {
        return Err((format!("{} headers", config.set.len() + config.remove.len()), WRITE));
    }
    let mut edits = HeaderEdits::default();
    for (text, value) in &config.set {
        let value = HeaderValue::from_str(value).map_err(|_| (value.clone(), WRITE))?;
        edits.set.push((name(text)?, value));
    }
    edits.remove = config.remove.iter().map(name).collect::<Result<_, _>>()?;
    Ok(edits)
}

pub(super) fn read_tags(names: &[String]) -> Result<Vec<HeaderName>, Wrong> {
    const WRITE: &str = "write at most 8 names of response headers";
    if names.len() > 8 {
        return Err((format!("{} names", names.len()), WRITE));
    }
    names.iter().map(|name| header_name(name).ok_or_else(|| (name.clone(), WRITE))).collect()
}

pub(super) fn read_methods(names: &[String]) -> Result<Vec<Method>, Wrong> {
    const WRITE: &str = "write methods such as \"GET\", at most 64; CONNECT and TRACE are refused";
    let refused = [Method::CONNECT, Method::TRACE];
    let read = |name: &String| {
        let method = name.parse().ok().filter(|method| !refused.contains(method));
        method.ok_or_else(|| (name.clone(), WRITE))
    };
    if names.len() > LIST_MAX {
        return Err((format!("{} methods", names.len()), WRITE));
    }
    names.iter().map(read).collect()
}

pub(super) fn read_key(config: &KeyConfig) -> Result<KeyRules, Wrong> {
    const WRITE: &str = "write at most 64 names each, without '&' and '='";
    let KeyConfig { query, ignore, sort, headers, cookies, scheme } = config;
    let only = match query {
        QueryConfig::Names(names) => names.as_slice(),
        QueryConfig::Word(_) => &[],
    };
    for list in [only, ignore, headers, cookies] {
        let plain = |name: &&String| !name.is_empty() && !name.contains(['&', '=', '#', ' ', ';']);
        if list.len() > LIST_MAX {
            return Err((format!("{} names", list.len()), WRITE));
        }
        if let Some(wrong) = list.iter().find(|name| !plain(name)) {
            return Err((wrong.clone(), WRITE));
        }
    }
    let names = headers.iter().map(|name| header_name(name).ok_or_else(|| (name.clone(), WRITE)));
    let mut headers = names.collect::<Result<Vec<_>, _>>()?;
    headers.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    headers.dedup();
    let query = match query {
        QueryConfig::Word(QueryWord::All) => Query::All,
        QueryConfig::Word(QueryWord::None) => Query::None,
        QueryConfig::Names(names) => Query::Only(names.iter().cloned().collect::<BTreeSet<_>>()),
    };
    Ok(KeyRules {
        query,
        ignore: ignore.clone(),
        sort: *sort,
        headers,
        cookies: cookies.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
        scheme: *scheme,
    })
}

pub(super) fn read_negative(config: &BTreeMap<String, u64>) -> Result<Vec<(Statuses, u64)>, Wrong> {
    const WRITE: &str = "write statuses from 400 on, \"404\" or \"5xx\", and seconds";
    let mut read = Vec::with_capacity(config.len());
    for (text, seconds) in config {
        let statuses = match text.as_bytes() {
            [class @ (b'4' | b'5'), b'x', b'x'] => Some(Statuses::Class(u16::from(class - b'0'))),
            _ => text
                .parse::<u16>()
                .ok()
                .and_then(|number| StatusCode::from_u16(number).ok())
                .filter(|status| status.is_client_error() || status.is_server_error())
                .map(Statuses::One),
        };
        let statuses = statuses.filter(|_| *seconds <= TTL_S_MAX);
        read.push((statuses.ok_or_else(|| (format!("{text} = {seconds}"), WRITE))?, *seconds));
    }
    // One status before all of its hundred.
    read.sort_by_key(|(statuses, _)| matches!(statuses, Statuses::Class(_)));
    Ok(read)
}

pub(super) fn check_times(config: &TtlConfig) -> Result<(), Wrong> {
    let TtlConfig { default_s, forced_s, stale_while_revalidate_s, stale_if_error_s, .. } = config;
    let all = [default_s, forced_s, stale_while_revalidate_s, stale_if_error_s];
    match all.into_iter().flatten().find(|seconds| **seconds > TTL_S_MAX) {
        Some(long) => Err((long.to_string(), "write at most 316224000 seconds, ten years")),
        None => Ok(()),
    }
}

pub(super) fn read_paths(config: &PathConfig) -> Result<Paths, Wrong> {
    const WRITE: &str = "give each path rule a prefix or a glob that begins with '/'";
    let (text, paths): (_, fn(String) -> Paths) = match (&config.prefix, &config.glob) {
        (Some(prefix), None) => (prefix, Paths::Prefix),
        (None, Some(glob)) => (glob, Paths::Glob),
        _ => return Err(("both or none".to_owned(), WRITE)),
    };
    let right = text.starts_with('/') || (text.starts_with('*') && config.glob.is_some());
    if !right || text.len() > PATTERN_BYTES_MAX || text.contains(['?', '#']) {
        return Err((text.clone(), WRITE));
    }
    Ok(paths(text.clone()))
}

pub(super) fn check_health(config: &HealthConfig) -> Result<(), Wrong> {
    const WRITE: &str = "write failures of 1 to 1000, retry_ms and every_ms of 100 to 600000, and \
                         a path that begins with '/'";
    let HealthConfig { failures, retry_ms, path, every_ms } = config;
    let times = [*retry_ms, *every_ms];
    let target = |path: &String| {
        path.starts_with('/')
            && path.len() <= PATTERN_BYTES_MAX
            && path.parse::<http::Uri>().is_ok()
    };
    if !(1..=1_000).contains(failures) {
        return Err((failures.to_string(), WRITE));
    }
    if let Some(wrong) = times.into_iter().find(|ms| !(100..=600_000).contains(ms)) {
        return Err((wrong.to_string(), WRITE));
    }
    match path.as_ref().filter(|path| !target(path)) {
        Some(wrong) => Err((wrong.clone(), WRITE)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_texts() {
        for (glob, text) in [
            ("/a/*.js", "/a/b/c.js"),
            ("*", ""),
            ("*", "/x"),
            ("utm_*", "utm_source"),
            ("/*/b/*", "/a/b/b/"),
            ("/a", "/a"),
            ("*aab", "/aaab"),
        ] {
            assert!(glob_matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in [("/a/*.js", "/a/b.jsx"), ("/a", "/ab"), ("/a*c", "/ab"), ("", "/")] {
            assert!(!glob_matches(glob, text), "{glob} {text}");
        }
        let (glob, text) = ("*a".repeat(200), "a".repeat(1_000) + "b");
        assert!(!glob_matches(&glob, &text), "and it does not take for ever");
    }

    #[test]
    fn what_would_break_a_message_is_refused() {
        let set = |name: &str, value: &str| HeadersConfig {
            set: [(name.to_owned(), value.to_owned())].into(),
            remove: vec![],
        };
        assert!(read_edits(&set("X-A", "b c")).is_ok());
        for (name, value) in [
            ("Content-Length", "1"),
            ("transfer-encoding", "x"),
            ("Range", "bytes=0-1"),
            ("If-None-Match", "*"),
            ("a b", "x"),
            ("x", "a\r\nb: c"),
        ] {
            assert!(read_edits(&set(name, value)).is_err(), "{name}: {value:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("old"));
        headers.insert("server", HeaderValue::from_static("old"));
        let mut config = set("X-A", "new");
        config.remove.push("Server".to_owned());
        read_edits(&config).unwrap().apply(&mut headers);
        assert_eq!((&headers["x-a"], headers.len()), (&HeaderValue::from_static("new"), 1));
    }

    #[test]
    fn negative_times_are_for_errors() {
        let read = |text: &str| read_negative(&[(text.to_owned(), 5)].into());
        assert_eq!(read("404").unwrap(), [(Statuses::One(StatusCode::NOT_FOUND), 5)]);
        let both = [("5xx".to_owned(), 1), ("503".to_owned(), 9)].into();
        let both = read_negative(&both).unwrap();
        assert_eq!(
            both.iter().find(|(of, _)| of.has(StatusCode::SERVICE_UNAVAILABLE)).unwrap().1,
            9
        );
        for wrong in ["200", "3xx", "xx", "4xxx", "", "999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_rule_has_one_pattern() {
        let rule = |prefix: Option<&str>, glob: Option<&str>| {
            let owned = |text: &str| text.to_owned();
            read_paths(&PathConfig {
                prefix: prefix.map(owned),
                glob: glob.map(owned),
                ..PathConfig::default()
            })
        };
        assert!(rule(Some("/a/"), None).unwrap().has("/a/b"));
        assert!(rule(None, Some("*.iso")).unwrap().has("/a/b.iso"));
        for wrong in [rule(None, None), rule(Some("/a"), Some("/b")), rule(Some("a"), None)] {
            assert!(wrong.is_err());
        }
    }
}
