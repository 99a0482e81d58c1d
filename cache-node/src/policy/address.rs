//! PURE. Host names and base URLs of origins, as a site is configured with them.

use http::uri::{Authority, Scheme};

/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

pub(super) fn host_is_valid(pattern: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    if let Some(inner) = pattern.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let host = pattern.strip_prefix("*.").unwrap_or(pattern);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    host.len() <= HOST_BYTES_MAX
        && host.split('.').all(|label| !label.is_empty() && label.chars().all(plain))
}

pub(super) fn parse_origin(text: &str) -> Result<(Scheme, Authority), &'static str> {
    const WRITE: &str = "write http:// or https://, a host and, where needed, a port";
    let (scheme, rest) = text.split_once("://").ok_or(WRITE)?;
    let (scheme, own_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::HTTP, 80),
        "https" => (Scheme::HTTPS, 443),
        _ => return Err(WRITE),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err("leave path and query out: each request brings its own");
    }
    if rest.contains('@') {
        return Err("leave user and password out: they would be sent in clear");
    }
    let parsed: Authority = rest.to_ascii_lowercase().parse().map_err(|_| WRITE)?;
    if parsed.host().is_empty() || parsed.as_str().ends_with(':') {
        return Err(WRITE);
    }
    match parsed.port_u16() {
        Some(0) => Err("write a port from 1 to 65535"),
        None if parsed.as_str() != parsed.host() => Err("write a port from 1 to 65535"),
        Some(port) if port == own_port => {
            let authority = parsed.host().parse().map_err(|_| WRITE)?;
            Ok((scheme, authority))
        }
        _ => Ok((scheme, parsed)),
    }
}
