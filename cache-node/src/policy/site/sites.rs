//! PURE. All sites, found by the host that a client asks for, or by name.
//!
//! Invariant: host names of two sites never overlap.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Faults, Site, SiteConfig, SiteError, lower, validate};

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
