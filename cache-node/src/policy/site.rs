//! Sites: one origin each, with its host names and limits.
//!
//! Invariants: a [`Site`] exists only validated; host names of two sites never overlap; all faults
//! of a configuration are reported at once. It must not resolve names or open connections.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};
use shoal_proto::limits::{NAME_BYTES_MAX, OBJECT_BYTES_MAX};

use super::parts::InParts;
use super::rules::{self, ClientDirectives, Rules, UnclearAge};

/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Longest wait that a site may configure, in milliseconds: ten minutes.
const TIMEOUT_MS_MAX: u64 = 600_000;

/// Which authority the origin sees in `Host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostHeader {
    /// The origin's own, from its URL.
    #[default]
    Origin,
    /// The client's, as it asked.
    Client,
}

/// A site as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// Its name: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Host names: exact, `*.example.com` (any depth below, not the name itself), or `*`.
    pub hosts: Vec<String>,
    /// The origin's base URL: `http://` or `https://`, host, port; no path.
    pub origin: String,
    /// Which authority the origin sees in `Host`; `origin` unless set.
    #[serde(default)]
    pub host_header: HostHeader,
    /// Longest wait for a connection to the origin, in milliseconds.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Longest wait for the origin's response head, in milliseconds.
    #[serde(default = "first_byte_timeout_ms")]
    pub first_byte_timeout_ms: u64,
    /// Longest silence within the origin's response body, in milliseconds.
    #[serde(default = "between_bytes_timeout_ms")]
    pub between_bytes_timeout_ms: u64,
    /// Longest body that is cached, in bytes; longer ones pass through.
    #[serde(default = "max_object_bytes")]
    pub max_object_bytes: u64,
    /// Response fields that speak to this cache in the place of `Cache-Control`, first come first.
    #[serde(default = "rules::targeted")]
    pub targeted: Vec<String>,
    /// What an `Age` means that is no single number: `ignore` or `stale`.
    #[serde(default)]
    pub unclear_age: UnclearAge,
    /// Which cache directives of clients count: `ignore`, `safe` or `all`.
    #[serde(default)]
    pub client_directives: ClientDirectives,
    /// Which large objects are kept in parts: `off`, `ranges` (those that are asked for in part
    /// first) or `all` (several nodes fill one together).
    #[serde(default)]
    pub parts: InParts,
}

fn connect_timeout_ms() -> u64 {
    3_000
}

fn first_byte_timeout_ms() -> u64 {
    10_000
}

fn between_bytes_timeout_ms() -> u64 {
    30_000
}

fn max_object_bytes() -> u64 {
    OBJECT_BYTES_MAX
}

/// A field of a site that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("site {site:?}: {field} = {value:?}: {remedy}")]
pub struct SiteError {
    /// The site's name, as configured.
    pub site: String,
    /// The field.
    pub field: &'static str,
    /// Its value, or the part of it that is wrong.
    pub value: String,
    /// What to write instead.
    pub remedy: &'static str,
}

/// A validated site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    name: String,
    scheme: Scheme,
    authority: Authority,
    host_header: HostHeader,
    /// Longest wait for a connection to the origin.
    pub connect_timeout: Duration,
    /// Longest wait for the origin's response head.
    pub first_byte_timeout: Duration,
    /// Longest silence within the origin's response body.
    pub between_bytes_timeout: Duration,
    /// Longest body that is cached, in bytes.
    pub max_object_bytes: u64,
    /// Which large objects are kept in parts.
    pub parts: InParts,
    /// How the rules of caching are read.
    pub rules: Rules,
}

impl Site {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The origin's host, with its port where that is not the scheme's own; in lower case.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Which authority the origin sees in `Host`.
    pub fn host_header(&self) -> HostHeader {
        self.host_header
    }

    /// The origin's base URL, for messages.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// The authority that the origin sees in `Host` for a client that asked for
    /// `client_authority`: in lower case, so that equal names are equal (RFC 9110 section 4.2.3).
    pub fn host_for<'a>(&'a self, client_authority: &'a str) -> Cow<'a, str> {
        match self.host_header {
            HostHeader::Origin => Cow::Borrowed(self.authority.as_str()),
            HostHeader::Client => lower(client_authority),
        }
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// The host of an authority: without port and without the root's dot.
pub fn host_of(authority: &str) -> &str {
    let host = match authority.find(']') {
        Some(end) if authority.starts_with('[') => &authority[..=end],
        _ => authority.split(':').next().unwrap_or(authority),
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// All sites, found by host or name.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    by_name: HashMap<String, Arc<Site>>,
    exact: HashMap<String, Arc<Site>>,
    /// By what follows `*.`.
    below: HashMap<String, Arc<Site>>,
    any: Option<Arc<Site>>,
}

impl Sites {
    /// Validates the configured sites.
    ///
    /// # Errors
    /// Every fault found, not only the first.
    pub fn new(configs: Vec<SiteConfig>) -> Result<Self, Vec<SiteError>> {
        let mut sites = Self::default();
        let mut faults = Faults::default();
        let mut names = HashSet::new();
        for config in configs {
            faults.site.clone_from(&config.name);
            if !names.insert(config.name.clone()) {
                faults.add("name", &config.name, "give every site a name of its own");
            }
            let hosts = config.hosts.clone();
            if let Some(site) = validate(config, &mut faults) {
                sites.add(Arc::new(site), &hosts, &mut faults);
            }
        }
        if faults.found.is_empty() { Ok(sites) } else { Err(faults.found) }
    }

    /// The site for a client's authority: the exact name, else the longest `*.` name, else `*`.
    /// Port and letter case do not matter.
    pub fn find(&self, authority: &str) -> Option<Arc<Site>> {
        let host = lower(host_of(authority));
        if let Some(site) = self.exact.get(host.as_ref()) {
            return Some(Arc::clone(site));
        }
        let mut rest = host.as_ref();
        while let Some((_, above)) = rest.split_once('.') {
            if let Some(site) = self.below.get(above) {
                return Some(Arc::clone(site));
            }
            rest = above;
        }
        self.any.clone()
    }

    /// The site of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Site>> {
        self.by_name.get(name).cloned()
    }

    /// All sites, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.by_name.values()
    }

    fn add(&mut self, site: Arc<Site>, hosts: &[String], faults: &mut Faults) {
        for pattern in hosts {
            let host = pattern.to_ascii_lowercase();
            let taken = if host == "*" {
                self.any.replace(Arc::clone(&site))
            } else if let Some(above) = host.strip_prefix("*.") {
                self.below.insert(above.to_owned(), Arc::clone(&site))
            } else {
                self.exact.insert(host, Arc::clone(&site))
            };
            if taken.is_some() {
                faults.add("hosts", pattern, "name a host in one site, and there once");
            }
        }
        self.by_name.insert(site.name.clone(), site);
    }
}

#[derive(Default)]
struct Faults {
    site: String,
    found: Vec<SiteError>,
}

impl Faults {
    fn add(&mut self, field: &'static str, value: impl ToString, remedy: &'static str) {
        let site = self.site.clone();
        self.found.push(SiteError { site, field, value: value.to_string(), remedy });
    }
}

fn validate(config: SiteConfig, faults: &mut Faults) -> Option<Site> {
    let before = faults.found.len();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = &config.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        faults.add("name", name, "write 1 to 128 letters, digits, '-', '_' or '.'");
    }
    if config.hosts.is_empty() {
        faults.add("hosts", "[]", "name at least one host, or \"*\"");
    }
    for pattern in config.hosts.iter().filter(|pattern| !host_is_valid(pattern)) {
        faults.add("hosts", pattern, "write a host name without port, \"*.example.com\", or \"*\"");
    }
    for (field, value) in [
        ("connect_timeout_ms", config.connect_timeout_ms),
        ("first_byte_timeout_ms", config.first_byte_timeout_ms),
        ("between_bytes_timeout_ms", config.between_bytes_timeout_ms),
    ] {
        if value == 0 || value > TIMEOUT_MS_MAX {
            faults.add(field, value, "write 1 to 600000 milliseconds");
        }
    }
    if config.max_object_bytes == 0 || config.max_object_bytes > OBJECT_BYTES_MAX {
        faults.add("max_object_bytes", config.max_object_bytes, "write 1 to 68719476736 bytes");
    }
    let targeted = rules::read_targeted(&config.targeted);
    if let Err(name) = &targeted {
        let remedy = "name at most 8 response fields other than Cache-Control";
        faults.add("targeted", name, remedy);
    }
    let origin = parse_origin(&config.origin);
    if let Err(remedy) = origin {
        faults.add("origin", &config.origin, remedy);
    }
    let (scheme, authority) = origin.ok().filter(|_| faults.found.len() == before)?;
    Some(Site {
        name: config.name,
        scheme,
        authority,
        host_header: config.host_header,
        connect_timeout: Duration::from_millis(config.connect_timeout_ms),
        first_byte_timeout: Duration::from_millis(config.first_byte_timeout_ms),
        between_bytes_timeout: Duration::from_millis(config.between_bytes_timeout_ms),
        max_object_bytes: config.max_object_bytes,
        parts: config.parts,
        rules: Rules {
            targeted: targeted.ok()?,
            unclear_age: config.unclear_age,
            client_directives: config.client_directives,
        },
    })
}

fn host_is_valid(pattern: &str) -> bool {
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

fn parse_origin(text: &str) -> Result<(Scheme, Authority), &'static str> {
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

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
