//! PURE. How a site reads the caching rules of HTTP where they leave a choice to the cache.
//!
//! Invariant: every default is what the RFCs recommend, or what is safe where they recommend
//! nothing.

use http::HeaderName;
use serde::{Deserialize, Serialize};

/// Most targeted fields that a site may list.
pub const TARGETED_MAX: usize = 8;

/// The fields that speak to this cache alone, the nearest first (RFC 9213 section 2.2):
/// our own, all CDNs', and that of the W3C's Edge Architecture, which many origins still send.
const TARGETED: [&str; 3] = ["shoal-cache-control", "cdn-cache-control", super::surrogate::CONTROL];

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
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            targeted: TARGETED.into_iter().map(HeaderName::from_static).collect(),
            unclear_age: UnclearAge::default(),
            client_directives: ClientDirectives::default(),
        }
    }
}

/// The default list, as configured.
pub(super) fn targeted() -> Vec<String> {
    TARGETED.into_iter().map(str::to_owned).collect()
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
