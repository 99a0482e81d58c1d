//! PURE. Host names and base URLs of origins, as a site is configured with them, and the addresses
//! that an origin may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::uri::{Authority, Scheme};

/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Where clouds tell a machine its secrets, beside the link-local 169.254.169.254.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether an origin may have this address, whatever name led there: not one that means this link,
/// no host, many hosts, or a cloud's metadata. Who may change a site could read those otherwise.
pub fn may_be_origin(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let special = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_broadcast() || address.octets()[0] == 0
        }
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unspecified(),
    };
    !special && !address.is_multicast() && !METADATA.contains(&address)
}

pub(super) fn host_is_valid(pattern: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    if let Some(inner) = pattern.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
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
    let literal = parsed.host().trim_start_matches('[').trim_end_matches(']').parse();
    if literal.is_ok_and(|address| !may_be_origin(address)) {
        return Err("name no link-local, multicast, unspecified or metadata address");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_addresses_are_no_origins() {
        for refused in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "100.100.100.200",
            "fd00:ec2::254",
        ] {
            assert!(!may_be_origin(refused.parse().unwrap()), "{refused}");
            let host = if refused.contains(':') { format!("[{refused}]") } else { refused.into() };
            assert!(parse_origin(&format!("http://{host}:8080")).is_err(), "{host}");
        }
        for good in ["127.0.0.1", "10.0.0.1", "192.0.2.1", "::1", "fd00::1", "2001:db8::1"] {
            assert!(may_be_origin(good.parse().unwrap()), "{good}");
        }
    }
}
