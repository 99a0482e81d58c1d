//! Settings as a [`Config`]: each key's type and range, then the rules between keys.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::ClusterId;

use super::problem::{Problem, Source};
use super::settings::{Settings, Taker};
use super::{
    AccessLogConfig, AdminConfig, CacheConfig, ClusterConfig, ClusterSecret, Config, EdgeConfig,
    EdgeTlsConfig, LogConfig, NodeConfig, StoreConfig, values,
};
use crate::admin::tokens::Tokens;
use crate::edge::EdgeTls;
use crate::membership::ConfiguredRole;
use crate::policy::site::SiteConfig;
use crate::store::{OBJECTS_MAX, OBJECTS_MIN};
use crate::supernode::selection::Wanted;
use crate::text::units::{SIZE_EXPECTED, format_size, parse_duration, parse_size};
use crate::tls::{Security, TlsFiles};

/// Smallest store: a few of the largest chunks.
const BUDGET_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Smallest memory tier.
const MEMORY_BYTES_MIN: u64 = 1024 * 1024;
/// Most copies of an object.
const COPIES_MAX: u64 = 8;
/// Most client connections that can be asked for.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// Longest time for which a node that is told to stop goes on serving.
const STOP_WAIT_MAX: Duration = Duration::from_secs(600);
/// Longest time that requests under way may have to end at the stop.
const FINISH_WITHIN_MAX: Duration = Duration::from_secs(3_600);
/// Most addresses to find the cluster by.
const SUPER_NODES_MAX: usize = 64;

/// A lost voter's place: not before all that trusted it have heard of that, or stopped trusting.
const REPLACE_AFTER_MIN: Duration = Duration::from_secs(10);
const REPLACE_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// A better candidate's patience.
const UPGRADE_AFTER_MIN: Duration = Duration::from_secs(10);
const UPGRADE_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

const TRUTH_EXPECTED: &str = "true or false";
const LISTEN_EXPECTED: &str = "an address and a port such as \"0.0.0.0:8080\"";
const FILE_EXPECTED: &str = "the path of a file";

/// What the file says beside its keys.
pub(super) struct Found {
    /// `None` where a site has a fault.
    pub(super) sites: Option<Vec<SiteConfig>>,
    /// `None` where a token has a fault.
    pub(super) tokens: Option<Tokens>,
}

/// Builds the configuration; `None` only with problems.
pub(super) fn config(
    settings: &Settings,
    folder: &Path,
    Found { sites, tokens }: Found,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut builder = Builder { take: Taker::new(settings, problems), folder };
    let role = builder.take.optional("node.role", "\"node\", \"super\" or \"auto\"", values::role);
    let node = builder.node(role);
    let cluster = builder.cluster(role);
    let listen = builder.listen("admin.listen");
    let admin = listen.zip(tokens).map(|(listen, tokens)| AdminConfig { listen, tokens });
    let cache = builder.cache(role, sites, cluster.as_ref());
    let log = builder.log();
    builder.distinct_listeners(role);
    let (cluster, cache) = (cluster?, cache?);
    let warnings = Vec::new();
    Some(Config { node: node?, cluster, admin: admin?, cache, log: log?, warnings })
}

/// The store's keys alone, for whoever hands them on.
pub(super) fn store(settings: &Settings, problems: &mut Vec<Problem>) -> Option<StoreConfig> {
    Builder { take: Taker::new(settings, problems), folder: Path::new("") }.store()
}

/// The keys about choosing super-nodes alone, likewise.
pub(super) fn wanted(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Wanted> {
    Builder { take: Taker::new(settings, problems), folder: Path::new("") }.selection()
}

struct Builder<'a> {
    take: Taker<'a>,
    folder: &'a Path,
}

impl Builder<'_> {
    fn node(&mut self, role: Option<ConfiguredRole>) -> Option<NodeConfig> {
        let name = self.take.required("node.name", values::NAME_EXPECTED, values::name);
        let data_dir = self.path("node.data_dir");
        if data_dir.is_none() && self.take.settings().get("node.data_dir").is_none() {
            self.take.missing("node.data_dir", "the path of a directory");
        }
        let zone = self.take.optional("node.zone", "at most 128 bytes of text", values::zone);
        let advertise = self.advertise();
        Some(NodeConfig {
            name: name?,
            role: role?,
            data_dir: data_dir?,
            zone: zone.unwrap_or_default(),
            advertise: advertise?,
        })
    }

    fn advertise(&mut self) -> Option<String> {
        const EXPECTED: &str = "a host name or address without a port, reachable by other members";
        if self.take.settings().get("node.advertise").is_some() {
            return self.take.optional("node.advertise", EXPECTED, values::host);
        }
        let listen = self.quietly("cluster.listen")?;
        if listen.ip().is_unspecified() {
            let why = format!(
                "{EXPECTED}, since cluster.listen is {listen}, which is no address to call"
            );
            self.take.missing("node.advertise", &why);
            return None;
        }
        Some(listen.ip().to_string())
    }

    fn cluster(&mut self, role: Option<ConfiguredRole>) -> Option<ClusterConfig> {
        let id =
            self.take.required("cluster.id", "1 to 64 letters, digits, '-', '_' or '.'", |text| {
                text.parse::<ClusterId>().ok()
            });
        let listen = self.listen("cluster.listen");
        let bootstrap = self.take.optional("cluster.bootstrap", TRUTH_EXPECTED, values::truth);
        let super_nodes = self.super_nodes(role, bootstrap);
        if bootstrap == Some(true) && role == Some(ConfiguredRole::Node) {
            self.take.fault(
                "cluster.bootstrap",
                "is true, node.role is \"node\"; expected false, since super-nodes found clusters",
            );
        }
        let selection = self.selection();
        let security = self.security();
        let copies = self.take.optional("cluster.copies", "1 to 8", |text| {
            values::count(text, 1..=COPIES_MAX).and_then(|count| u8::try_from(count).ok())
        });
        let secret = self.secret(role);
        let (security, tls) = security?;
        Some(ClusterConfig {
            id: id?,
            listen: listen?,
            super_nodes,
            bootstrap: bootstrap?,
            selection: selection?,
            security,
            tls,
            copies: copies?,
            secret,
        })
    }

    fn super_nodes(
        &mut self,
        role: Option<ConfiguredRole>,
        bootstrap: Option<bool>,
    ) -> Vec<String> {
        const KEY: &str = "cluster.super_nodes";
        const EXPECTED: &str = "host:port of a super-node's cluster listener";
        let found = self.take.list(KEY, EXPECTED, values::host_port);
        if found.len() > SUPER_NODES_MAX {
            let count = format!("{} addresses", found.len());
            self.take.wrong(KEY, &count, &format!("at most {SUPER_NODES_MAX}"));
        }
        let alone = role.is_some_and(ConfiguredRole::founds) && bootstrap != Some(false);
        let nothing = self.take.settings().get(KEY).is_none_or(|setting| {
            found.is_empty() && matches!(setting.value.to_string().as_str(), "" | "[]")
        });
        if nothing && !alone {
            self.take.missing(KEY, "at least one super-node to find the cluster by");
        }
        found
    }

    fn selection(&mut self) -> Option<Wanted> {
        let voters = self.take.optional("cluster.super_nodes_wanted", "1, 3, 5 or 7", |text| {
            values::count(text, 1..=7).filter(|count| count % 2 == 1)
        });
        let mut patience = |key: &'static str, least: Duration, most: Duration, shown: &str| {
            let fits = |duration: &Duration| (least..=most).contains(duration);
            let found = self.take.optional(key, shown, |text| parse_duration(text).filter(fits));
            found.and_then(|duration| u64::try_from(duration.as_millis()).ok())
        };
        let replace_after_ms = patience(
            "cluster.replace_after",
            REPLACE_AFTER_MIN,
            REPLACE_AFTER_MAX,
            "a duration of 10s to 1h",
        );
        let upgrade_after_ms = patience(
            "cluster.upgrade_after",
            UPGRADE_AFTER_MIN,
            UPGRADE_AFTER_MAX,
            "a duration of 10s to 24h",
        );
        Some(Wanted {
            voters: usize::try_from(voters?).ok()?,
            replace_after_ms: replace_after_ms?,
            upgrade_after_ms: upgrade_after_ms?,
        })
    }

    fn security(&mut self) -> Option<(Security, Option<TlsFiles>)> {
        const KEYS: [&str; 3] = ["cluster.tls.ca", "cluster.tls.cert", "cluster.tls.key"];
        let insecure = self.take.optional("cluster.insecure", TRUTH_EXPECTED, values::truth)?;
        let given = KEYS.iter().find(|key| self.take.settings().get(key).is_some());
        match (insecure, given) {
            (true, None) => Some((Security::Insecure, None)),
            (true, Some(given)) => {
                let tls = self.take.settings().source(given);
                let what = format!("is true, and {tls} is set too; expected one of the two");
                self.take.fault("cluster.insecure", &what);
                None
            }
            (false, None) => {
                self.take.missing(
                    "cluster.tls",
                    "ca, cert and key for mutual TLS, or cluster.insecure = true for plain text",
                );
                None
            }
            (false, Some(_)) => {
                let [ca, cert, key] = KEYS.map(|key| self.required_path(key));
                let files = TlsFiles { ca: ca?, cert: cert?, key: key? };
                match Security::from_files(&files) {
                    Ok(security) => Some((security, Some(files))),
                    Err(error) => {
                        self.take.fault("cluster.tls.ca", &format!("and its like: {error}"));
                        None
                    }
                }
            }
        }
    }

    fn secret(&mut self, role: Option<ConfiguredRole>) -> Option<ClusterSecret> {
        const KEY: &str = "cluster.secret_file";
        if self.take.settings().get(KEY).is_none() {
            if role.is_some_and(ConfiguredRole::caches) {
                self.take.missing(KEY, "a file with 32 bytes in hexadecimal");
            }
            return None;
        }
        let path = self.path(KEY)?;
        let shown = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Err(error) => {
                self.take.wrong(KEY, &shown, &format!("a readable file ({error})"));
                None
            }
            // What the file holds is never shown.
            Ok(text) => values::secret(&text).or_else(|| {
                self.take.wrong(KEY, &shown, "a file with 32 bytes in hexadecimal, 64 digits");
                None
            }),
        }
    }

    /// The caching part; the inner `None` for super-nodes, which have none.
    fn cache(
        &mut self,
        role: Option<ConfiguredRole>,
        sites: Option<Vec<SiteConfig>>,
        cluster: Option<&ClusterConfig>,
    ) -> Option<Option<CacheConfig>> {
        let edge = self.edge();
        let store = self.store();
        if role == Some(ConfiguredRole::Super) {
            self.no_flags_of_nodes();
            return Some(None);
        }
        let secret = cluster?.secret.clone()?;
        Some(Some(CacheConfig { secret, edge: edge?, store: store?, sites: sites? }))
    }

    /// A shared file or environment may hold the keys of nodes; a flag is meant for this member.
    fn no_flags_of_nodes(&mut self) {
        let of_nodes = |path: &str| path.starts_with("edge.") || path.starts_with("store.");
        let given: Vec<_> =
            self.take.settings().flags().map(|(path, _)| path).filter(|p| of_nodes(p)).collect();
        for path in given {
            self.take.fault(path, "has no use here: node.role is \"super\"; leave the flag out");
        }
    }

    fn edge(&mut self) -> Option<EdgeConfig> {
        let listen = self.listen("edge.listen");
        let unknown_host =
            self.take.optional("edge.unknown_host", "421 or 404", values::unknown_host);
        let connections_max = self.take.optional("edge.connections_max", "1 to 1000000", |text| {
            let count = values::count(text, 1..=CONNECTIONS_MAX)?;
            usize::try_from(count).ok()
        });
        let stop_wait = self.take.optional("edge.stop_wait", "a duration of 0s to 10m", |text| {
            parse_duration(text).filter(|wait| *wait <= STOP_WAIT_MAX)
        });
        let finish_within =
            self.take.optional("edge.finish_within", "a duration of 0s to 1h", |text| {
                parse_duration(text).filter(|within| *within <= FINISH_WITHIN_MAX)
            });
        let tls = self.edge_tls();
        let access_log = self.access_log();
        Some(EdgeConfig {
            access_log: access_log?,
            listen: listen?,
            tls: tls?,
            unknown_host: unknown_host?,
            connections_max: connections_max?,
            stop_wait: stop_wait?,
            finish_within: finish_within?,
        })
    }

    /// The inner `None` where no file is named.
    fn access_log(&mut self) -> Option<Option<AccessLogConfig>> {
        const KEY: &str = "edge.access_log";
        let format = self.take.optional(
            "edge.access_log_format",
            "\"json\" or \"common\"",
            values::access_format,
        );
        let addresses = self.take.optional(
            "edge.access_log_addresses",
            "\"none\", \"truncated\" or \"full\"",
            values::access_addresses,
        );
        if self.take.settings().get(KEY).is_none() {
            return Some(None);
        }
        let path = self.path(KEY);
        Some(Some(AccessLogConfig { path: path?, format: format?, addresses: addresses? }))
    }

    /// The inner `None` where no certificate is given.
    fn edge_tls(&mut self) -> Option<Option<EdgeTlsConfig>> {
        const KEYS: [&str; 2] = ["edge.tls.cert", "edge.tls.key"];
        if KEYS.iter().all(|key| self.take.settings().get(key).is_none()) {
            return Some(None);
        }
        let listen = self.listen("edge.tls.listen");
        self.distinct("edge.listen", "edge.tls.listen");
        let [cert, key] = KEYS.map(|key| self.required_path(key));
        match EdgeTls::load(&cert?, &key?) {
            Ok(shown) => Some(Some(EdgeTlsConfig { listen: listen?, shown: Arc::new(shown) })),
            Err(error) => {
                self.take.fault("edge.tls.cert", &format!("and edge.tls.key: {error}"));
                None
            }
        }
    }

    fn store(&mut self) -> Option<StoreConfig> {
        let budget = self.take.optional("store.budget", SIZE_EXPECTED, parse_size);
        let memory = self.take.optional("store.memory", SIZE_EXPECTED, parse_size);
        let expected = format!("{OBJECTS_MIN} to {OBJECTS_MAX}");
        let objects = self.take.optional("store.objects", &expected, |text| {
            let count = values::count(text, OBJECTS_MIN as u64..=OBJECTS_MAX as u64)?;
            usize::try_from(count).ok()
        });
        let (budget_bytes, mut memory_bytes, objects_max) = (budget?, memory?, objects?);
        if budget_bytes < BUDGET_BYTES_MIN {
            let least = format!("at least {}", format_size(BUDGET_BYTES_MIN));
            self.take.wrong("store.budget", &format_size(budget_bytes), &least);
            return None;
        }
        // Who makes the store small need not think of the memory's default.
        if self.take.settings().get("store.memory").is_none() {
            memory_bytes = memory_bytes.min(budget_bytes);
        }
        if !(MEMORY_BYTES_MIN..=budget_bytes).contains(&memory_bytes) {
            let (least, most) = (format_size(MEMORY_BYTES_MIN), format_size(budget_bytes));
            let expected = format!("{least} to {most}, which is store.budget");
            self.take.wrong("store.memory", &format_size(memory_bytes), &expected);
        }
        Some(StoreConfig { budget_bytes, memory_bytes, objects_max })
    }

    fn log(&mut self) -> Option<LogConfig> {
        let format = self.take.optional("log.format", "\"human\" or \"json\"", values::log_format);
        let level = self.take.optional(
            "log.level",
            "error, warn, info, debug, trace, or directives such as \"info,shoal_node=debug\"",
            values::log_level,
        );
        Some(LogConfig { format: format?, level: level? })
    }

    fn listen(&mut self, path: &'static str) -> Option<SocketAddr> {
        self.take.optional(path, LISTEN_EXPECTED, values::listen)
    }

    /// As [`Builder::listen`], for a second look: its fault has been told.
    fn quietly(&self, path: &'static str) -> Option<SocketAddr> {
        let mut told = Vec::new();
        Taker::new(self.take.settings(), &mut told).optional(path, "", values::listen)
    }

    fn distinct_listeners(&mut self, role: Option<ConfiguredRole>) {
        let mut keys = vec!["cluster.listen", "admin.listen"];
        if role.is_some_and(ConfiguredRole::caches) {
            keys.push("edge.listen");
        }
        for (at, right) in keys.iter().enumerate() {
            for left in &keys[..at] {
                self.distinct(left, right);
            }
        }
    }

    fn distinct(&mut self, left: &'static str, right: &'static str) {
        let (Some(one), Some(other)) = (self.quietly(left), self.quietly(right)) else {
            return;
        };
        if values::collide(one, other) {
            let expected = format!("a port of its own ({left} is {one})");
            self.take.wrong(right, &other.to_string(), &expected);
        }
    }

    fn required_path(&mut self, path: &'static str) -> Option<PathBuf> {
        if self.take.settings().get(path).is_none() {
            self.take.missing(path, FILE_EXPECTED);
        }
        self.path(path)
    }

    /// A path: relative to the file where it was written there, else to the working directory.
    fn path(&mut self, path: &'static str) -> Option<PathBuf> {
        let text = self.take.optional(path, FILE_EXPECTED, |text| {
            (!text.is_empty()).then(|| PathBuf::from(text))
        })?;
        let in_file = matches!(self.take.settings().source(path), Source::File { .. });
        let relative = if in_file { self.folder.join(text) } else { text };
        std::path::absolute(relative).ok()
    }
}
