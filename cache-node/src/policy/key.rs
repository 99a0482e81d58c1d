//! The identity of a cacheable response: a keyed hash, so that an index or a log names no URL.
//!
//! Invariants: no two inputs share an encoding (every part is preceded by its length); path and
//! query enter exactly as received. Keys of variants are made out of this one: see `vary`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use shoal_proto::ObjectKey;

use super::choices::glob_matches;
use super::site::Site;

/// What else than the path makes two requests ask for different objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRules {
    pub(super) query: Query,
    pub(super) ignore: Vec<String>,
    pub(super) sort: bool,
    pub(super) headers: Vec<HeaderName>,
    pub(super) cookies: Vec<String>,
    pub(super) scheme: bool,
}

/// Which parameters of a query count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Query {
    #[default]
    All,
    None,
    Only(BTreeSet<String>),
}

impl KeyRules {
    /// The target as it counts, which is what the origin is asked for too: a parameter that does not
    /// count cannot change what others get.
    pub fn target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        let plain = self.query == Query::All && self.ignore.is_empty() && !self.sort;
        let Some((path, query)) = target.split_once('?').filter(|_| !plain) else {
            return Cow::Borrowed(target);
        };
        let counts = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or(pair);
            let named = match &self.query {
                Query::All => true,
                Query::None => false,
                Query::Only(names) => names.contains(name),
            };
            named && !self.ignore.iter().any(|glob| glob_matches(glob, name))
        };
        let mut pairs: Vec<&str> = query.split('&').filter(counts).collect();
        if self.sort {
            pairs.sort_by_key(|pair| pair.split('=').next().unwrap_or(pair).to_owned());
        }
        match pairs.is_empty() {
            true => Cow::Borrowed(path),
            false => Cow::Owned(format!("{path}?{}", pairs.join("&"))),
        }
    }

    /// Whether a URL has one key, whatever else its requests say.
    pub fn is_of_url(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty() && !self.scheme
    }

    /// The key of a request for the URL of key `url`: another where headers, cookies or the scheme
    /// count. A purge of the URL covers them all, as it does the URL's variants.
    pub fn key(
        &self,
        secret: &[u8; 32],
        url: ObjectKey,
        headers: &HeaderMap,
        secure: bool,
    ) -> ObjectKey {
        if self.is_of_url() {
            return url;
        }
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(b"shoal keyed v1").update(url.as_bytes());
        let mut part = |found: Option<&[u8]>| {
            let bytes = found.unwrap_or_default();
            hasher.update(&[u8::from(found.is_some())]);
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for name in &self.headers {
            let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            let joined = (!lines.is_empty()).then(|| lines.join(&b", "[..]));
            part(joined.as_deref());
        }
        for name in &self.cookies {
            part(cookie(headers, name));
        }
        part(self.scheme.then_some(&[u8::from(secure)]));
        ObjectKey::new(*hasher.finalize().as_bytes())
    }
}

/// A cookie's value, the first of that name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).next()
}

/// The key of `target` (path and query, unmodified) for a client that asked `client_authority`.
///
/// The authority enters as the origin will see it in `Host`: requests through different edges or
/// ports share a key where the origin cannot tell them apart (RFC 9111 section 2: the target URI).
pub fn object_key(
    secret: &[u8; 32],
    site: &Site,
    client_authority: &str,
    target: &str,
) -> ObjectKey {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"shoal key v1");
    for part in [site.name(), &site.host_for(client_authority), target] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    ObjectKey::new(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::site::Sites;
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn site(name: &str, host_header: &str) -> Arc<Site> {
        let text = format!(
            "name = {name:?}\nhosts = [\"*\"]\norigin = \"http://o.test\"\nhost_header = \
             {host_header:?}"
        );
        Sites::new(vec![toml::from_str(&text).unwrap()]).unwrap().get(name).unwrap()
    }

    #[test]
    fn the_key_is_what_the_origin_can_tell_apart() {
        let own = site("a", "origin");
        let key = |host, target| object_key(&SECRET, &own, host, target);
        assert_eq!(key("edge1:8080", "/x?q=1"), key("edge2", "/x?q=1"));
        for other in ["/x", "/x?q=2", "/X?q=1", "/x?q=1&", "/%78?q=1", "//x?q=1", "/x?Q=1"] {
            assert_ne!(key("edge", "/x?q=1"), key("edge", other), "{other}");
        }
        let asked = site("a", "client");
        let key = |host| object_key(&SECRET, &asked, host, "/x");
        assert_ne!(key("edge1"), key("edge2"));
        assert_eq!(key("Edge1:80"), key("edge1:80"));
    }

    fn rules(text: &str) -> KeyRules {
        super::super::choices::read_key(&toml::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn parameters_that_do_not_count_reach_nobody() {
        let of = |text: &str, target: &str| rules(text).target(target).into_owned();
        assert_eq!(of("", "/a?b=1&a=2&"), "/a?b=1&a=2&");
        assert_eq!(of("query = \"none\"", "/a?b=1"), "/a");
        assert_eq!(of("query = [\"v\", \"w\"]", "/a?x=1&v=2&v=1&w"), "/a?v=2&v=1&w");
        assert_eq!(of("query = [\"v\"]", "/a?x=1"), "/a");
        let ignore = "ignore = [\"utm_*\", \"fbclid\"]\nsort = true";
        assert_eq!(of(ignore, "/a?utm_source=x&b=2&a=9&a=1&fbclid=z"), "/a?a=9&a=1&b=2");
        assert_eq!(of(ignore, "/a"), "/a");
    }

    #[test]
    fn headers_cookies_and_scheme_count_where_they_are_named() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("a"));
        headers.insert(COOKIE, HeaderValue::from_static("lang=de; theme=dark"));
        let url = ObjectKey::new([1; 32]);
        let key = |text: &str, headers: &HeaderMap, secure| {
            rules(text).key(&SECRET, url, headers, secure)
        };
        assert_eq!(key("", &headers, true), url);
        let tenant = "headers = [\"X-Tenant\"]";
        let mut other = headers.clone();
        other.insert("x-tenant", HeaderValue::from_static("b"));
        assert_ne!(key(tenant, &headers, true), key(tenant, &other, true));
        assert_ne!(key(tenant, &headers, true), key(tenant, &HeaderMap::new(), true));
        assert_eq!(key(tenant, &headers, true), key(tenant, &headers, false));
        let cookie = "cookies = [\"lang\"]";
        other.insert(COOKIE, HeaderValue::from_static("theme=light; lang=de"));
        assert_eq!(key(cookie, &headers, true), key(cookie, &other, true));
        other.insert(COOKIE, HeaderValue::from_static("xlang=de; lang=en"));
        assert_ne!(key(cookie, &headers, true), key(cookie, &other, true));
        assert_ne!(key("scheme = true", &headers, true), key("scheme = true", &headers, false));
    }

    #[test]
    fn sites_secrets_and_borders_between_parts_matter() {
        let a = object_key(&SECRET, &site("a", "client"), "b", "/c");
        assert_ne!(a, object_key(&SECRET, &site("b", "client"), "b", "/c"));
        assert_ne!(a, object_key(&[8; 32], &site("a", "client"), "b", "/c"));
        assert_ne!(a, object_key(&SECRET, &site("a", "client"), "b/", "c"));
        assert_ne!(a, object_key(&SECRET, &site("ab", "client"), "", "/c"));
    }
}
