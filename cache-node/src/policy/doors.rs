//! PURE. What a site lets clients do beyond asking for responses: purge by the method `PURGE`, and
//! switch a connection to another protocol (RFC 9110 section 7.8).
//!
//! Invariants: nothing is allowed unless a site says so; what is allowed has limits.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, UPGRADE};
use serde::{Deserialize, Serialize};

use super::choices::Wrong;

/// Most address ranges that a site may list, and most protocols.
const RANGES_MAX: usize = 64;
const PROTOCOLS_MAX: usize = 8;
/// Longest name of a protocol, in bytes.
const PROTOCOL_BYTES_MAX: usize = 64;
/// Most tunnels that a site may allow at a time on each node.
const TUNNELS_MAX: u32 = 16_384;
/// Longest silence that a site may allow a tunnel, in milliseconds: a day.
const IDLE_MS_MAX: u64 = 86_400_000;

/// Who may purge by the method `PURGE`; nobody unless a site says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeConfig {
    /// Clients from these address ranges.
    pub from: Vec<String>,
    /// Whoever brings a control token that may purge the URL.
    pub token: bool,
}

/// Which protocols connections may switch to; none unless a site says so.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpgradeConfig {
    /// Names as in `Upgrade`, such as `websocket`.
    pub protocols: Vec<String>,
    /// Most such connections at a time, of this site on each node.
    pub max: u32,
    /// Longest time without a byte in either direction, in milliseconds.
    pub idle_ms: u64,
}

impl Default for UpgradeConfig {
    fn default() -> Self {
        Self { protocols: Vec::new(), max: 256, idle_ms: 300_000 }
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    /// IPv4 as IPv6 has it: `::ffff:0:0/96`.
    first: u128,
    mask: u128,
}

impl Range {
    /// `10.0.0.0/8`, `fd00::/8`, or one address.
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let own_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // "+8" and "08" are nothing that anybody means.
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse::<u32>().ok().filter(|bits| *bits <= own_bits)?
            }
            Some(_) => return None,
            None => own_bits,
        };
        let mask = u128::MAX.checked_shl(own_bits - bits).unwrap_or(0);
        let first = number(address);
        // Bits beyond the range are a slip of the pen.
        (first & mask == first).then_some(Self { first, mask })
    }

    fn has(&self, address: IpAddr) -> bool {
        number(address) & self.mask == self.first
    }
}

fn number(address: IpAddr) -> u128 {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    address.to_bits()
}

/// Who may purge by the method `PURGE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeRules {
    from: Vec<Range>,
    /// Whoever brings a control token that may purge the URL.
    pub token: bool,
}

impl PurgeRules {
    /// Whether the method is answered here at all.
    pub fn is_on(&self) -> bool {
        self.token || !self.from.is_empty()
    }

    /// Whether a client may purge by its address alone. It is the address of its connection: what
    /// headers say of it counts for nothing.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.from.iter().any(|range| range.has(client))
    }
}

pub(super) fn read_purge(config: &PurgeConfig) -> Result<PurgeRules, Wrong> {
    const WRITE: &str = "write at most 64 address ranges such as \"10.0.0.0/8\", \"fd00::/8\" or \
                         \"127.0.0.1\", without bits beyond the range";
    if config.from.len() > RANGES_MAX {
        return Err((format!("{} ranges", config.from.len()), WRITE));
    }
    let read = |text: &String| Range::read(text).ok_or_else(|| (text.clone(), WRITE));
    let from = config.from.iter().map(read).collect::<Result<_, _>>()?;
    Ok(PurgeRules { from, token: config.token })
}

/// Which protocols connections may switch to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRules {
    protocols: Vec<String>,
    /// Most tunnels at a time.
    pub max: u32,
    /// Longest time without a byte in either direction.
    pub idle: Duration,
}

impl Default for UpgradeRules {
    fn default() -> Self {
        let UpgradeConfig { max, idle_ms, .. } = UpgradeConfig::default();
        Self { protocols: Vec::new(), max, idle: Duration::from_millis(idle_ms) }
    }
}

impl UpgradeRules {
    /// The protocol that a request over HTTP/1.1 wants to switch to, and may: the first that it
    /// names. Without `Connection: upgrade` the field means nothing (RFC 9110 section 7.8).
    pub fn wanted(&self, headers: &HeaderMap) -> Option<&str> {
        if self.protocols.is_empty() {
            return None;
        }
        let meant = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
        let mut named = words(headers, &UPGRADE).filter(|_| meant);
        named.find_map(|named| {
            self.protocols.iter().find(|own| own.eq_ignore_ascii_case(named)).map(String::as_str)
        })
    }
}

/// The members of a list header.
fn words<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Whether a client takes trailers (RFC 9110 section 10.1.4).
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    words(headers, &http::header::TE).any(|word| word.eq_ignore_ascii_case("trailers"))
}

pub(super) fn read_upgrade(config: &UpgradeConfig) -> Result<UpgradeRules, Wrong> {
    const WRITE: &str = "write at most 8 protocols such as \"websocket\" (never h2c), a max of 1 \
                         to 16384 and an idle_ms of 1000 to 86400000";
    let UpgradeConfig { protocols, max, idle_ms } = config;
    if protocols.len() > PROTOCOLS_MAX {
        return Err((format!("{} protocols", protocols.len()), WRITE));
    }
    // A tunnelled h2c would carry requests past every rule of the edge.
    let is_http = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("h2c") || name.starts_with("http") || name.starts_with("tls")
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    let right = |name: &&String| {
        (1..=PROTOCOL_BYTES_MAX).contains(&name.len()) && name.chars().all(plain) && !is_http(name)
    };
    if let Some(wrong) = protocols.iter().find(|name| !right(name)) {
        return Err((wrong.clone(), WRITE));
    }
    if !(1..=TUNNELS_MAX).contains(max) {
        return Err((max.to_string(), WRITE));
    }
    if !(1_000..=IDLE_MS_MAX).contains(idle_ms) {
        return Err((idle_ms.to_string(), WRITE));
    }
    let idle = Duration::from_millis(*idle_ms);
    Ok(UpgradeRules { protocols: protocols.clone(), max: *max, idle })
}

#[cfg(test)]
mod tests {
    use super::super::headers_tests::headers;
    use super::*;

    fn allows(ranges: &[&str], client: &str) -> bool {
        let from = ranges.iter().map(|range| (*range).to_owned()).collect();
        let rules = read_purge(&PurgeConfig { from, token: false }).unwrap();
        assert!(rules.is_on());
        rules.allows(client.parse().unwrap())
    }

    #[test]
    fn ranges_have_what_they_say() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("192.0.2.128/25", "192.0.2.129", "192.0.2.127"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::1", "::1", "127.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            assert!(allows(&[range], inside), "{range} {inside}");
            assert!(!allows(&[range], outside), "{range} {outside}");
        }
        assert!(allows(&["::/0"], "203.0.113.9"), "every address");
        assert!(allows(&["10.0.0.0/8", "::1"], "::1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10/8",
            "::1/129",
            "a.test",
            "10.0.0.0/+8",
        ] {
            let config = PurgeConfig { from: vec![wrong.to_owned()], token: false };
            assert_eq!(read_purge(&config).unwrap_err().0, wrong);
        }
        let many = PurgeConfig { from: vec!["::1".to_owned(); RANGES_MAX + 1], token: false };
        assert!(read_purge(&many).is_err());
        assert!(!read_purge(&PurgeConfig::default()).unwrap().is_on(), "nobody by default");
        assert!(read_purge(&PurgeConfig { token: true, ..Default::default() }).unwrap().is_on());
    }

    fn upgrades(protocols: &[&str]) -> Result<UpgradeRules, Wrong> {
        let protocols = protocols.iter().map(|name| (*name).to_owned()).collect();
        read_upgrade(&UpgradeConfig { protocols, ..UpgradeConfig::default() })
    }

    #[test]
    fn a_switch_is_wanted_by_name_and_by_connection() {
        let rules = upgrades(&["websocket"]).unwrap();
        let wanted = |text: &str| rules.wanted(&headers(text)).is_some();
        assert!(wanted("connection: keep-alive, Upgrade | upgrade: h2c, WebSocket"));
        assert!(!wanted("upgrade: websocket"), "not meant for this connection");
        assert!(!wanted("connection: upgrade | upgrade: h2c"));
        assert!(!wanted("connection: upgrade"));
        let any = headers("connection: upgrade | upgrade: websocket");
        assert_eq!(UpgradeRules::default().wanted(&any), None);
    }

    #[test]
    fn what_would_be_http_again_is_refused() {
        for wrong in ["h2c", "HTTP/2.0", "TLS/1.0", "", "a b", "websocket,h2c"] {
            assert!(upgrades(&[wrong]).is_err(), "{wrong}");
        }
        assert!(upgrades(&["a"; PROTOCOLS_MAX + 1]).is_err());
        for (max, idle_ms) in [(0, 1_000), (TUNNELS_MAX + 1, 1_000), (1, 999), (1, 86_400_001)] {
            let config = UpgradeConfig { protocols: vec!["a".to_owned()], max, idle_ms };
            assert!(read_upgrade(&config).is_err(), "{max} {idle_ms}");
        }
    }

    #[test]
    fn trailers_are_for_who_asks() {
        assert!(takes_trailers(&headers("te: gzip;q=0.5, Trailers")));
        assert!(!takes_trailers(&headers("te: gzip")) && !takes_trailers(&headers("")));
    }
}
