//! What a successful unsafe request invalidates (RFC 9111 section 4.4): its own target, and what
//! `Location` and `Content-Location` name at the same origin. Never another origin's, never after
//! a failure.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode};

use super::site::Site;

/// Whether a request method may change something (RFC 9110 section 9.2.1); unknown ones may.
pub fn is_unsafe(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

/// The targets (path and query) to invalidate after an unsafe request for `target` of a client
/// that asked `client_authority`.
pub fn targets(
    site: &Site,
    client_authority: &str,
    target: &str,
    (status, headers): (StatusCode, &HeaderMap),
) -> Vec<String> {
    if !status.is_success() && !status.is_redirection() {
        return Vec::new();
    }
    let mut targets = vec![target.to_owned()];
    for name in [LOCATION, CONTENT_LOCATION] {
        let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        let found = resolve(value, site, client_authority, target);
        targets.extend(found.filter(|found| found != target));
    }
    targets.dedup();
    targets
}

/// A reference (RFC 3986 section 5.2) as path and query at the same origin.
fn resolve(reference: &str, site: &Site, client_authority: &str, base: &str) -> Option<String> {
    let reference = reference.split('#').next()?;
    if let Some((scheme, rest)) = reference.split_once("://") {
        let known = [Scheme::HTTP, Scheme::HTTPS]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known.as_str()))?;
        return at_same_origin(rest, Some(known), site, client_authority);
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return at_same_origin(rest, None, site, client_authority);
    }
    if reference.starts_with('/') {
        return Some(reference.to_owned());
    }
    let path = base.split('?').next()?;
    match reference.chars().next() {
        None => Some(base.to_owned()),
        Some('?') => Some(format!("{path}{reference}")),
        Some(_) => Some(merge(path, reference)),
    }
}

/// `authority/path?query`, if the authority is the client's or the origin's own.
fn at_same_origin(
    rest: &str,
    scheme: Option<Scheme>,
    site: &Site,
    client_authority: &str,
) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let scheme = scheme.unwrap_or_else(|| site.scheme().clone());
    let named = without_own_port(authority, &scheme).to_ascii_lowercase();
    // The client's scheme is not the origin's concern: a name is its own under both.
    let clients = without_own_port(client_authority, &scheme).to_ascii_lowercase();
    let origins = scheme == *site.scheme() && named == site.authority().as_str();
    if named != clients && !origins {
        return None;
    }
    Some(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

fn without_own_port<'a>(authority: &'a str, scheme: &Scheme) -> &'a str {
    let port = if *scheme == Scheme::HTTPS { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// A relative path beside `base` (RFC 3986 sections 5.2.3 and 5.2.4).
fn merge(base: &str, reference: &str) -> String {
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut segments: Vec<&str> = folder.split('/').skip(1).collect();
    let mut named = path.split('/').peekable();
    while let Some(segment) = named.next() {
        let last = named.peek().is_none();
        match segment {
            ".." => drop(segments.pop()),
            "." => {}
            _ => segments.push(segment),
        }
        if last && matches!(segment, "." | "..") {
            segments.push("");
        }
    }
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;

    use super::super::site::Sites;
    use super::*;

    fn site() -> Arc<Site> {
        let text = "name = \"a\"\nhosts = [\"*\"]\norigin = \"http://origin.test:81\"";
        Sites::new(vec![toml::from_str(text).unwrap()]).unwrap().get("a").unwrap()
    }

    fn after(status: u16, location: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_str(location).unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        targets(&site(), "Edge.test:8080", "/a/b?q=1", (status, &headers))
    }

    #[test]
    fn unknown_methods_are_unsafe() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE", "get"] {
            assert!(is_unsafe(&Method::from_bytes(method.as_bytes()).unwrap()), "{method}");
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(!is_unsafe(&method));
        }
    }

    #[test]
    fn a_failure_invalidates_nothing() {
        for status in [400, 403, 404, 412, 500, 503] {
            assert!(after(status, "/c").is_empty(), "{status}");
        }
        for status in [200, 201, 204, 299, 301, 303] {
            assert_eq!(after(status, "/c"), ["/a/b?q=1", "/c"], "{status}");
        }
    }

    #[test]
    fn locations_count_at_the_same_origin_only() {
        for (location, found) in [
            ("/c?d#e", Some("/c?d")),
            ("//c/d", None),
            ("http://edge.test:8080/c", Some("/c")),
            ("https://EDGE.test:8080/c?d", Some("/c?d")),
            ("//edge.test:8080/c", Some("/c")),
            ("http://edge.test:8080", Some("/")),
            ("http://edge.test:8080?x", Some("/?x")),
            ("http://origin.test:81/c", Some("/c")),
            ("https://origin.test:81/c", None),
            ("http://origin.test/c", None),
            ("http://edge.test/c", None),
            ("http://other.test/c", None),
            ("http://edge.test:8080@other.test/c", None),
            ("ftp://edge.test:8080/c", None),
            ("c", Some("/a/c")),
            ("./c", Some("/a/c")),
            ("../c?x=/../y", Some("/c?x=/../y")),
            ("../../../c", Some("/c")),
            ("..", Some("/")),
            ("c/.", Some("/a/c/")),
            ("?x", Some("/a/b?x")),
            ("/a/b?q=1", None),
            ("", None),
        ] {
            let expected: Vec<&str> = [Some("/a/b?q=1"), found].into_iter().flatten().collect();
            assert_eq!(after(201, location), expected, "{location}");
        }
    }

    #[test]
    fn both_headers_count() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("/c"));
        headers.insert(CONTENT_LOCATION, HeaderValue::from_static("/d"));
        let found = targets(&site(), "edge.test", "/a", (StatusCode::CREATED, &headers));
        assert_eq!(found, ["/a", "/c", "/d"]);
    }
}
