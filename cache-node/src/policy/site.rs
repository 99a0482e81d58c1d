//! Sites: one origin each, with its host names and limits.
//!
//! Invariants: a [`Site`] exists only validated; all faults of a configuration are reported at once. It must not resolve names or open connections.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};
use shoal_proto::limits::{NAME_BYTES_MAX, OBJECT_BYTES_MAX};

use super::address::{host_is_valid, parse_origin};
use super::choices::{
    self, HeaderEdits, HeadersConfig, HealthConfig, KeyConfig, PathConfig, Paths, SetCookie,
    TtlConfig, Wrong,
};
use super::doors::{self, PurgeConfig, PurgeRules, UpgradeConfig, UpgradeRules};
use super::key::KeyRules;
use super::label::plain_path;
use super::parts::InParts;
use super::rules::{self, ClientDirectives, Rules, UnclearAge};

mod sites;

pub use sites::{Sites, host_of};

/// Most origins of a site, and most path rules.
const ORIGINS_MAX: usize = 8;
const PATHS_MAX: usize = 64;
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
    /// Further origins with the same content, tried in this order while those before are away.
    #[serde(default)]
    pub more_origins: Vec<String>,
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
    /// Methods that are let through; all but `CONNECT` and `TRACE` when empty.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether nothing is cached.
    #[serde(default)]
    pub bypass: bool,
    /// What becomes of responses with `Set-Cookie`: `pass`, `strip` or `store`.
    #[serde(default)]
    pub set_cookie: SetCookie,
    /// Response headers that carry tags to purge by.
    #[serde(default = "rules::tags")]
    pub tags: Vec<String>,
    /// What else than the path makes two requests ask for different objects.
    #[serde(default)]
    pub key: KeyConfig,
    /// How long responses are fresh, and of use after that.
    #[serde(default)]
    pub ttl: TtlConfig,
    /// Headers set and taken away towards origins.
    #[serde(default)]
    pub request_headers: HeadersConfig,
    /// Headers set and taken away towards clients.
    #[serde(default)]
    pub response_headers: HeadersConfig,
    /// When an origin counts as away, where there are several.
    #[serde(default)]
    pub health: HealthConfig,
    /// Who may purge by the method `PURGE`; nobody unless set.
    #[serde(default)]
    pub purge: PurgeConfig,
    /// Which protocols connections may switch to; none unless set.
    #[serde(default)]
    pub upgrade: UpgradeConfig,
    /// What differs for some paths; the first rule that fits counts.
    #[serde(default)]
    pub path: Vec<PathConfig>,
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

/// Where an origin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Its host, with its port where that is not the scheme's own; in lower case.
    pub authority: Authority,
}

impl std::fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// A validated site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    name: String,
    first: OriginUrl,
    more: Vec<OriginUrl>,
    host_header: HostHeader,
    methods: Vec<Method>,
    paths: Vec<(Paths, Arc<Self>)>,
    /// What is in keys.
    pub key: KeyRules,
    /// Nothing is cached.
    pub bypass: bool,
    /// What is done to headers towards origins.
    pub request_headers: HeaderEdits,
    /// What is done to headers towards clients.
    pub response_headers: HeaderEdits,
    /// When an origin counts as away.
    pub health: HealthConfig,
    /// Who may purge by the method `PURGE`.
    pub purge: PurgeRules,
    /// Which protocols connections may switch to.
    pub upgrade: UpgradeRules,
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

    /// `http` or `https`, of the first origin.
    pub fn scheme(&self) -> &Scheme {
        &self.first.scheme
    }

    /// The first origin's host, with its port where that is not the scheme's own; in lower case.
    pub fn authority(&self) -> &Authority {
        &self.first.authority
    }

    /// All origins, the first first.
    pub fn origins(&self) -> impl Iterator<Item = &OriginUrl> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The site as it is for a path and query: the first path rule that fits counts.
    pub fn at(self: Arc<Self>, target: &str) -> Arc<Self> {
        if self.paths.is_empty() {
            return self;
        }
        let path = plain_path(target);
        let found = self.paths.iter().find(|(paths, _)| paths.has(&path));
        found.map(|(_, site)| Arc::clone(site)).unwrap_or(self)
    }

    /// Methods that are let through; all when empty.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Whether a method is let through.
    pub fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Which authority the origin sees in `Host`.
    pub fn host_header(&self) -> HostHeader {
        self.host_header
    }

    /// The origin's base URL, for messages.
    pub fn origin(&self) -> String {
        self.first.to_string()
    }

    /// The authority that the origin sees in `Host` for a client that asked for
    /// `client_authority`: in lower case, so that equal names are equal (RFC 9110 section 4.2.3).
    pub fn host_for<'a>(&'a self, client_authority: &'a str) -> Cow<'a, str> {
        match self.host_header {
            HostHeader::Origin => Cow::Borrowed(self.first.authority.as_str()),
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

#[derive(Default)]
struct Faults {
    site: String,
    found: Vec<SiteError>,
}

impl Faults {
    /// What was read; where it is wrong, the default, and a fault.
    fn take<T: Default>(&mut self, field: &'static str, read: Result<T, Wrong>) -> T {
        read.unwrap_or_else(|(value, remedy)| {
            self.add(field, value, remedy);
            T::default()
        })
    }

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
    let built = build(&config, faults);
    let paths = path_rules(&config, faults);
    let site = built.filter(|_| faults.found.len() == before)?;
    let paths = paths.into_iter().map(|(paths, site)| (paths, Arc::new(site))).collect();
    Some(Site { paths, ..site })
}

/// Where the site's origins are.
fn origins(config: &SiteConfig, faults: &mut Faults) -> Option<(OriginUrl, Vec<OriginUrl>)> {
    let mut read = |field, text: &String| match parse_origin(text) {
        Ok((scheme, authority)) => Some(OriginUrl { scheme, authority }),
        Err(remedy) => {
            faults.add(field, text, remedy);
            None
        }
    };
    let first = read("origin", &config.origin);
    let more: Vec<_> =
        config.more_origins.iter().filter_map(|text| read("more_origins", text)).collect();
    if more.len() >= ORIGINS_MAX {
        faults.add("more_origins", more.len(), "name at most 7 more");
    }
    Some((first?, more))
}

/// The site without its path rules.
fn build(config: &SiteConfig, faults: &mut Faults) -> Option<Site> {
    let targeted = rules::read_targeted(&config.targeted);
    let targeted =
        targeted.map_err(|name| (name, "name at most 8 response fields other than Cache-Control"));
    let ttl = &config.ttl;
    faults.take("ttl", choices::check_times(ttl));
    faults.take("health", choices::check_health(&config.health));
    let rules = Rules {
        targeted: faults.take("targeted", targeted),
        unclear_age: config.unclear_age,
        client_directives: config.client_directives,
        default_ttl_s: ttl.default_s,
        forced_ttl_s: ttl.forced_s,
        negative_ttl_s: faults.take("ttl", choices::read_negative(&ttl.negative_s)),
        stale_while_revalidate_s: ttl.stale_while_revalidate_s,
        stale_if_error_s: ttl.stale_if_error_s,
        set_cookie: config.set_cookie,
        tags: faults.take("tags", choices::read_tags(&config.tags)),
    };
    let edits = choices::read_edits;
    let request_headers = faults.take("request_headers", edits(&config.request_headers));
    let response_headers = faults.take("response_headers", edits(&config.response_headers));
    let methods = faults.take("methods", choices::read_methods(&config.methods));
    let purge = faults.take("purge", doors::read_purge(&config.purge));
    let upgrade = faults.take("upgrade", doors::read_upgrade(&config.upgrade));
    let key = faults.take("key", choices::read_key(&config.key));
    let (first, more) = origins(config, faults)?;
    Some(Site {
        name: config.name.clone(),
        first,
        more,
        host_header: config.host_header,
        methods,
        paths: Vec::new(),
        key,
        bypass: config.bypass,
        request_headers,
        response_headers,
        health: config.health.clone(),
        purge,
        upgrade,
        connect_timeout: Duration::from_millis(config.connect_timeout_ms),
        first_byte_timeout: Duration::from_millis(config.first_byte_timeout_ms),
        between_bytes_timeout: Duration::from_millis(config.between_bytes_timeout_ms),
        max_object_bytes: config.max_object_bytes,
        parts: config.parts,
        rules,
    })
}

/// The site as it is for some paths.
fn path_rules(config: &SiteConfig, faults: &mut Faults) -> Vec<(Paths, Site)> {
    if config.path.len() > PATHS_MAX {
        faults.add("path", config.path.len(), "write at most 64 path rules");
        return Vec::new();
    }
    let mut read = Vec::with_capacity(config.path.len());
    for rule in &config.path {
        let paths = match choices::read_paths(rule) {
            Ok(paths) => paths,
            Err((value, remedy)) => {
                faults.add("path", value, remedy);
                continue;
            }
        };
        let PathConfig { bypass, ttl, key, .. } = rule.clone();
        let there = SiteConfig {
            path: Vec::new(),
            bypass: bypass.unwrap_or(config.bypass),
            ttl: ttl.unwrap_or_else(|| config.ttl.clone()),
            key: key.unwrap_or_else(|| config.key.clone()),
            ..config.clone()
        };
        let mut of_rule = Faults { site: config.name.clone(), found: Vec::new() };
        let site = build(&there, &mut of_rule);
        // What is wrong with the site itself is told once.
        let own = |fault: &SiteError| ["ttl", "key"].contains(&fault.field);
        let own = of_rule.found.into_iter().filter(own);
        faults.found.extend(own.map(|fault| SiteError { field: "path", ..fault }));
        read.extend(site.map(|site| (paths, site)));
    }
    read
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
