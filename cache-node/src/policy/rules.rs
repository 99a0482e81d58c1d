//! PURE. How a site reads the caching rules of HTTP where they leave a choice to the cache.
//!
//! Invariant: every default is what the RFCs recommend, or what is safe where they recommend
//! nothing.

use std::borrow::Cow;

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use super::choices::{SetCookie, Statuses};

/// Most targeted fields that a site may list.
pub const TARGETED_MAX: usize = 8;

/// The fields that speak to this cache alone, the nearest first (RFC 9213 section 2.2):
/// our own, all CDNs', and that of the W3C's Edge Architecture, which many origins still send.
const TARGETED: [&str; 3] = ["shoal-cache-control", "cdn-cache-control", super::surrogate::CONTROL];

/// Response headers that carry tags: one with spaces between them, one with commas.
const TAGS: [&str; 2] = ["surrogate-key", "cache-tag"];

/// What an `Age` means that is no single number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnclearAge {
    /// RFC 9111 section 5.1: of a list the first member counts, and nonsense does not.
    #[default]
    Ignore,
    /// The response is taken for stale, as caches did under RFC 7234.
    Stale,
}

/// Which of a client's `Cache-Control` directives (RFC 9111 section 5.2.1) are listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientDirectives {
    /// None.
    Ignore,
    /// Those that cost the origin nothing: `only-if-cached` and `max-stale`.
    #[default]
    Safe,
    /// `no-cache`, `no-store`, `max-age` and `min-fresh` too: any client can then make any request
    /// reach the origin.
    All,
}

/// A site's choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Targeted fields; the first that is there and well-formed counts.
    pub targeted: Vec<HeaderName>,
    /// What an unclear `Age` means.
    pub unclear_age: UnclearAge,
    /// Which client directives count.
    pub client_directives: ClientDirectives,
    /// Lifetime where the origin says nothing, in seconds.
    pub default_ttl_s: Option<u64>,
    /// Lifetime whatever the origin says, in seconds.
    pub forced_ttl_s: Option<u64>,
    /// Lifetimes of errors where the origin says nothing, in seconds.
    pub negative_ttl_s: Vec<(Statuses, u64)>,
    /// `stale-while-revalidate` where the origin says nothing of it, in seconds.
    pub stale_while_revalidate_s: Option<u64>,
    /// `stale-if-error` where the origin says nothing of it, in seconds.
    pub stale_if_error_s: Option<u64>,
    /// What becomes of a response that sets a cookie.
    pub set_cookie: SetCookie,
    /// Response headers that carry tags.
    pub tags: Vec<HeaderName>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            targeted: TARGETED.into_iter().map(HeaderName::from_static).collect(),
            unclear_age: UnclearAge::default(),
            client_directives: ClientDirectives::default(),
            default_ttl_s: None,
            forced_ttl_s: None,
            negative_ttl_s: Vec::new(),
            stale_while_revalidate_s: None,
            stale_if_error_s: None,
            set_cookie: SetCookie::default(),
            tags: TAGS.into_iter().map(HeaderName::from_static).collect(),
        }
    }
}

/// The default list, as configured.
pub(super) fn targeted() -> Vec<String> {
    TARGETED.into_iter().map(str::to_owned).collect()
}

/// The default list of tag headers, as configured.
pub(super) fn tags() -> Vec<String> {
    TAGS.into_iter().map(str::to_owned).collect()
}

/// The list as configured, read; or the member that cannot be one.
pub(super) fn read_targeted(names: &[String]) -> Result<Vec<HeaderName>, String> {
    let read = |name: &String| {
        let read: Result<HeaderName, _> = name.to_ascii_lowercase().parse();
        read.ok().filter(|name| name != http::header::CACHE_CONTROL).ok_or_else(|| name.clone())
    };
    if names.len() > TARGETED_MAX {
        return Err(format!("{} names", names.len()));
    }
    names.iter().map(read).collect()
}

impl Rules {
    /// The rules for responses of a status: errors have times of their own.
    pub fn of_status(&self, status: StatusCode) -> Cow<'_, Self> {
        let timed = self.default_ttl_s.or(self.forced_ttl_s).is_some();
        let error = status.is_client_error() || status.is_server_error();
        if !error || (!timed && self.negative_ttl_s.is_empty()) {
            return Cow::Borrowed(self);
        }
        let negative = self.negative_ttl_s.iter().find(|(of, _)| of.has(status));
        let default_ttl_s = negative.map(|(_, seconds)| *seconds);
        Cow::Owned(Self { default_ttl_s, forced_ttl_s: None, ..self.clone() })
    }

    /// Whether origins are told that `Surrogate-Control` counts.
    pub fn is_surrogate(&self) -> bool {
        self.targeted.iter().any(|name| name == super::surrogate::CONTROL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_targeted_fields_is_read_whole_or_refused() {
        let read = |names: &[&str]| {
            read_targeted(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&["X-My-Cache-Control"]).unwrap(), ["x-my-cache-control"]);
        assert_eq!(read(&[]), Ok(vec![]));
        assert_eq!(read(&["a", "b c"]), Err("b c".to_owned()));
        assert_eq!(read(&["Cache-Control"]), Err("Cache-Control".to_owned()));
        assert!(read(&["a"; TARGETED_MAX + 1]).is_err());
        assert_eq!(read_targeted(&targeted()).unwrap(), Rules::default().targeted);
    }
}
