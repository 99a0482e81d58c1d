//! PURE. The values of keys, out of text. `None` for anything that is not one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::StatusCode;
use shoal_proto::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX};

use super::{ClusterSecret, LogFormat};
use crate::edge::{AccessAddresses, AccessFormat};
use crate::membership::ConfiguredRole;

/// Longest member name: one label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// What a member's name looks like.
pub(super) const NAME_EXPECTED: &str =
    "1 to 63 lower-case letters, digits or '-', such as \"node-0\" (it stands in certificates)";

pub(super) fn name(text: &str) -> Option<String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let right = (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-');
    right.then(|| text.to_owned())
}

pub(super) fn role(text: &str) -> Option<ConfiguredRole> {
    ConfiguredRole::ALL.into_iter().find(|role| role.name() == text)
}

pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn zone(text: &str) -> Option<String> {
    let right = text.len() <= NAME_BYTES_MAX && text.chars().all(|c| !c.is_control());
    right.then(|| text.to_owned())
}

/// A host without port; IPv6 addresses without brackets.
pub(super) fn host(text: &str) -> Option<String> {
    if text.contains(':') {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        return bare.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    let right = !text.is_empty() && text.len() <= ADDRESS_BYTES_MAX - 8 && text.bytes().all(plain);
    let reachable = text.parse::<IpAddr>().map_or(true, |address| !address.is_unspecified());
    (right && reachable).then(|| text.to_owned())
}

/// `host:port` of another member.
pub(super) fn host_port(text: &str) -> Option<String> {
    let (before, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    // An IPv6 address needs its brackets here, or its port could be part of it.
    if before.contains(':') && !before.starts_with('[') {
        return None;
    }
    let host = host(before)?;
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

pub(super) fn listen(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

pub(super) fn unknown_host(text: &str) -> Option<StatusCode> {
    match text {
        "421" => Some(StatusCode::MISDIRECTED_REQUEST),
        "404" => Some(StatusCode::NOT_FOUND),
        _ => None,
    }
}

pub(super) fn access_format(text: &str) -> Option<AccessFormat> {
    match text {
        "json" => Some(AccessFormat::Json),
        "common" => Some(AccessFormat::Common),
        _ => None,
    }
}

pub(super) fn access_addresses(text: &str) -> Option<AccessAddresses> {
    match text {
        "none" => Some(AccessAddresses::None),
        "truncated" => Some(AccessAddresses::Truncated),
        "full" => Some(AccessAddresses::Full),
        _ => None,
    }
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

pub(super) fn log_level(text: &str) -> Option<String> {
    let right = !text.trim().is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok();
    right.then(|| text.to_owned())
}

pub(super) fn secret(text: &str) -> Option<ClusterSecret> {
    let hash = blake3::Hash::from_hex(text.trim()).ok()?;
    Some(ClusterSecret::new(*hash.as_bytes()))
}

/// A count within `range`.
pub(super) fn count(text: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|count| range.contains(count))
}

/// Whether two listeners cannot both be bound.
pub(super) fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port()
        && left.port() != 0
        && (left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        assert!(name("node-0").is_some());
        for wrong in ["", "Node", "a.b", "-a", "a-", "a b", &"a".repeat(64)] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        assert_eq!(host_port("super-0.shoal:7400").as_deref(), Some("super-0.shoal:7400"));
        assert_eq!(host_port("[::1]:7400").as_deref(), Some("[::1]:7400"));
        for wrong in ["", "host", "host:", ":7400", "host:0", "host:65536", "::1:7400", "a b:1"] {
            assert_eq!(host_port(wrong), None, "{wrong}");
        }
        assert_eq!(host("[fe80::1]").as_deref(), Some("fe80::1"));
        assert_eq!(host("0.0.0.0"), None);
        assert_eq!(host("http://a"), None);
    }

    #[test]
    fn log_levels_are_filters() {
        assert!(log_level("info").is_some() && log_level("info,shoal_node=debug").is_some());
        for wrong in ["", "loud=noise", "shoal_node=lots"] {
            assert_eq!(log_level(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn listeners_collide_by_port_and_address() {
        let at = |text: &str| text.parse().unwrap();
        assert!(collide(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(collide(at("127.0.0.1:80"), at("127.0.0.1:80")));
        assert!(!collide(at("127.0.0.1:80"), at("127.0.0.2:80")));
        assert!(!collide(at("127.0.0.1:0"), at("127.0.0.1:0")));
    }
}
