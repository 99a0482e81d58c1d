//! PURE. Who runs where: names, roles and ports of a local cluster, out of what was asked for and
//! what the data directory already holds.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use super::layout::Record;
use super::{UpError, UpOptions};
use crate::config::{ConfigErrors, Setting, Settings, Source, StoreConfig, Value, keys, wanted};
use crate::membership::ConfiguredRole;
use crate::policy::site::{SiteConfig, Sites, host_of};
use crate::text::units::{SIZE_EXPECTED, parse_size};

/// The first port, unless said otherwise.
pub const BASE_PORT_DEFAULT: u16 = 18_080;
/// Super-nodes, and nodes, unless said otherwise.
pub const COUNT_DEFAULT: u16 = 3;
/// Super-nodes: odd, so that none is idle in a vote.
const SUPER_NODES: [u16; 4] = [1, 3, 5, 7];
const NODES_MAX: u16 = 50;

/// From the first port to a kind's first.
const ADMIN_OFFSET: u16 = 100;
const SUPER_ADMIN_OFFSET: u16 = 200;
const CLUSTER_OFFSET: u16 = 300;
const SUPER_CLUSTER_OFFSET: u16 = 400;
const ORIGIN_OFFSET: u16 = 500;
/// The hosts that a site of this machine always serves.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// The name of the one site.
pub(super) const SITE_NAME: &str = "default";
const BASE_PORT_MIN: u16 = 1_024;
const BASE_PORT_MAX: u16 = u16::MAX - ORIGIN_OFFSET;

const _: () = {
    assert!(NODES_MAX <= ADMIN_OFFSET);
    assert!(SUPER_NODES[3] <= ADMIN_OFFSET);
};

/// A local cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) base_port: u16,
    pub(super) super_nodes: Vec<MemberPlan>,
    pub(super) nodes: Vec<MemberPlan>,
    pub(super) origin: String,
    pub(super) demo_origin: Option<DemoOrigin>,
    pub(super) site: SiteConfig,
    pub(super) store_budget: Option<String>,
    pub(super) store_memory: Option<String>,
    pub(super) unknown_host: Option<u16>,
    pub(super) insecure: bool,
    /// Each member's keys about choosing super-nodes.
    pub(super) selection: Vec<(&'static str, toml::Value)>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberPlan {
    pub(super) name: String,
    pub(super) role: ConfiguredRole,
    pub(super) cluster: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) edge: Option<SocketAddr>,
    pub(super) bootstrap: bool,
}

/// The origin that `shoal up` starts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DemoOrigin {
    pub(super) listen: SocketAddr,
    pub(super) rate: Option<String>,
}

impl Plan {
    /// Plans the cluster that `options` ask for, over the one that `record` tells of.
    ///
    /// # Errors
    /// What cannot be, with the remedy.
    pub(super) fn new(options: &UpOptions, record: Option<&Record>) -> Result<Self, UpError> {
        let base_port = base_port(options.base_port, record)?;
        let (super_nodes, nodes) = counts(options, record)?;
        let auto = super_nodes == 0;
        check_handed_on(options)?;
        let local = |offset: u16, at: u16| loopback(base_port + offset + at);
        let super_nodes = (0..super_nodes).map(|at| MemberPlan {
            name: format!("super-{at}"),
            role: ConfiguredRole::Super,
            cluster: local(SUPER_CLUSTER_OFFSET, at),
            admin: local(SUPER_ADMIN_OFFSET, at),
            edge: None,
            bootstrap: at == 0,
        });
        let nodes = (0..nodes).map(|at| MemberPlan {
            name: format!("node-{at}"),
            role: if auto { ConfiguredRole::Auto } else { ConfiguredRole::Node },
            cluster: local(CLUSTER_OFFSET, at),
            admin: local(ADMIN_OFFSET, at),
            edge: Some(local(0, at)),
            bootstrap: auto && at == 0,
        });
        let demo_origin = options.origin.is_none().then(|| DemoOrigin {
            listen: local(ORIGIN_OFFSET, 0),
            rate: options.demo_origin_rate.clone(),
        });
        let origin = match (&options.origin, &demo_origin) {
            (Some(origin), _) => origin.clone(),
            (None, demo) => demo.iter().map(|demo| format!("http://{}", demo.listen)).collect(),
        };
        let site = site(&origin, options)?;
        Ok(Self {
            base_port,
            super_nodes: super_nodes.collect(),
            nodes: nodes.collect(),
            origin,
            demo_origin,
            site,
            store_budget: options.store_budget.clone(),
            store_memory: options.store_memory.clone(),
            unknown_host: options.unknown_host,
            insecure: options.insecure,
            selection: selection(options),
        })
    }

    /// All members, super-nodes first.
    pub(super) fn members(&self) -> impl Iterator<Item = &MemberPlan> {
        self.super_nodes.iter().chain(&self.nodes)
    }

    /// By whom members find the cluster.
    pub(super) fn seeds(&self) -> impl Iterator<Item = &MemberPlan> {
        match self.super_nodes.as_slice() {
            [] => self.nodes.iter(),
            super_nodes => super_nodes.iter(),
        }
    }

    /// Every listener, and whose it is.
    pub(super) fn listeners(&self) -> Vec<(SocketAddr, String)> {
        let of_member = |member: &MemberPlan| {
            let MemberPlan { name, role: _, cluster, admin, edge, bootstrap: _ } = member.clone();
            let kinds = [(edge, "edge"), (Some(admin), "admin"), (Some(cluster), "cluster")];
            kinds.into_iter().filter_map(move |(address, kind)| {
                address.map(|address| (address, format!("{kind} of {name}")))
            })
        };
        let origin = self.demo_origin.iter().map(|o| (o.listen, "demo origin".to_owned()));
        self.members().flat_map(of_member).chain(origin).collect()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn base_port(asked: Option<u16>, record: Option<&Record>) -> Result<u16, UpError> {
    let base_port = match (asked, record) {
        (Some(asked), Some(record)) if asked != record.base_port => {
            let kept = record.base_port;
            return Err(UpError::Usage(format!(
                "--base-port is {asked}, the cluster in the data directory has {kept}, and its \
                 members know each other by address; leave the flag out, or use another --data-dir"
            )));
        }
        (Some(asked), _) => asked,
        (None, Some(record)) => record.base_port,
        (None, None) => BASE_PORT_DEFAULT,
    };
    if !(BASE_PORT_MIN..=BASE_PORT_MAX).contains(&base_port) {
        return Err(UpError::Usage(format!(
            "--base-port is {base_port}; expected {BASE_PORT_MIN} to {BASE_PORT_MAX}, since ports \
             up to {ORIGIN_OFFSET} above it are used"
        )));
    }
    Ok(base_port)
}

/// Super-nodes and nodes; none of the former where the nodes choose among themselves.
fn counts(options: &UpOptions, record: Option<&Record>) -> Result<(u16, u16), UpError> {
    let chosen = record.map(|record| record.super_nodes == 0);
    let others = options.super_nodes.is_some() || options.nodes.is_some();
    if let Some(kept) = chosen
        && (options.auto.is_some() && !kept || others && kept)
    {
        let (flags, what) = match kept {
            true => ("--super-nodes or --nodes", "nodes that choose super-nodes among themselves"),
            false => ("--auto", "super-nodes of its own"),
        };
        return Err(UpError::Usage(format!(
            "{flags} is given, the cluster in the data directory has {what}; leave the flag out, or \
             use another --data-dir"
        )));
    }
    if options.auto.is_some() || chosen == Some(true) {
        let nodes = count("--auto", options.auto, record.map(|r| r.nodes))?;
        if !(1..=NODES_MAX).contains(&nodes) {
            return Err(UpError::Usage(format!("--auto is {nodes}; expected 1 to {NODES_MAX}")));
        }
        return Ok((0, nodes));
    }
    let super_nodes = count("--super-nodes", options.super_nodes, record.map(|r| r.super_nodes))?;
    let nodes = count("--nodes", options.nodes, record.map(|r| r.nodes))?;
    if !SUPER_NODES.contains(&super_nodes) {
        return Err(UpError::Usage(format!(
            "--super-nodes is {super_nodes}; expected 1, 3, 5 or 7, so that a vote has a majority"
        )));
    }
    if nodes > NODES_MAX {
        return Err(UpError::Usage(format!("--nodes is {nodes}; expected 0 to {NODES_MAX}")));
    }
    Ok((super_nodes, nodes))
}

/// What was asked for, else what is there; growing is fine.
fn count(flag: &str, asked: Option<u16>, kept: Option<u16>) -> Result<u16, UpError> {
    match (asked, kept) {
        (Some(asked), Some(kept)) if asked < kept => Err(UpError::Usage(format!(
            "{flag} is {asked}, the cluster in the data directory has {kept}; it can grow, not \
             shrink: leave the flag out, give {kept} or more, or use another --data-dir"
        ))),
        (asked, kept) => Ok(asked.or(kept).unwrap_or(COUNT_DEFAULT)),
    }
}

fn selection(options: &UpOptions) -> Vec<(&'static str, toml::Value)> {
    let count = options.super_nodes_wanted.iter().filter_map(|count| count.parse().ok());
    let wanted = count.map(|count| ("super_nodes_wanted", toml::Value::Integer(count)));
    let patience = options.replace_after.iter();
    let patience = patience.map(|text| ("replace_after", toml::Value::String(text.clone())));
    wanted.chain(patience).collect()
}

/// What is only handed on to the members is checked here too, before anything is started.
fn check_handed_on(options: &UpOptions) -> Result<(), UpError> {
    let mut settings = Settings::default();
    let flags = [
        ("store.budget", &options.store_budget),
        ("store.memory", &options.store_memory),
        ("cluster.super_nodes_wanted", &options.super_nodes_wanted),
        ("cluster.replace_after", &options.replace_after),
    ];
    for (path, value) in flags {
        if let (Some(key), Some(value)) = (keys::by_path(path), value) {
            let (value, source) = (Value::Text(value.clone()), Source::Flag(key.flag));
            settings.set(key, Setting { value, source });
        }
    }
    let wrong = |errors: ConfigErrors| UpError::Usage(errors.to_string());
    StoreConfig::of(&settings).map_err(wrong)?;
    wanted(&settings).map_err(wrong)?;
    if let Some(rate) = options.demo_origin_rate.as_deref()
        && parse_size(rate).is_none_or(|rate| rate == 0)
    {
        let text = format!("--demo-origin-rate is {rate:?}; expected {SIZE_EXPECTED}");
        return Err(UpError::Usage(text));
    }
    match options.unknown_host {
        None | Some(421 | 404) => Ok(()),
        Some(other) => {
            Err(UpError::Usage(format!("--unknown-host is {other}; expected 421 or 404")))
        }
    }
}

/// The site: loopback by its names, the origin's own, and those asked for.
fn site(origin: &str, options: &UpOptions) -> Result<SiteConfig, UpError> {
    let own = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let own = host_of(own.split('/').next().unwrap_or(own));
    let more = options.hosts.iter().map(String::as_str);
    let mut hosts: Vec<String> = Vec::new();
    for host in LOOPBACK_HOSTS.into_iter().chain([own]).chain(more).map(str::to_ascii_lowercase) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    // Out of JSON, so that the defaults of everything else are the site's own.
    let mut given = json!({ "name": SITE_NAME, "hosts": hosts, "origin": origin });
    for line in &options.site {
        let wrong = |error: String| UpError::Usage(format!("--site is {line:?}; {error}"));
        let read: toml::Table = toml::from_str(line).map_err(|error| wrong(error.to_string()))?;
        for (key, value) in read {
            if given.get(&key).is_some() {
                return Err(wrong(format!("{key} is given already")));
            }
            given[key] = json!(value);
        }
    }
    let mut site: SiteConfig = serde_json::from_value(given)
        .map_err(|error| UpError::Usage(format!("site {SITE_NAME}: {error}")))?;
    if let Some(timeout) = options.first_byte_timeout {
        site.first_byte_timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    }
    Sites::new(vec![site.clone()]).map_err(|errors| {
        let flag = |field: &str| match field {
            "origin" => "--origin",
            "first_byte_timeout_ms" => "--first-byte-timeout",
            "hosts" => "--host",
            _ => "--site",
        };
        let told = errors
            .iter()
            .map(|error| format!("{} is {:?}; {}", flag(error.field), error.value, error.remedy));
        UpError::Usage(told.collect::<Vec<_>>().join("\n"))
    })?;
    Ok(site)
}

#[cfg(test)]
mod tests;
