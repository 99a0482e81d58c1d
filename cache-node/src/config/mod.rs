//! A member's configuration: from a TOML file, `SHOAL_*` variables and flags, validated as a whole.
//! Flags win over variables, variables over the file. Every fault is told at once.
//!
//! [`keys`] is the table of all keys, [`Settings`] what was written, [`Config`] what it means:
//! whoever holds a `Config` need not check again. Must not know what is built from it.

mod build;
pub mod definition;
mod file;
pub mod keys;
pub(crate) mod machine;
mod problem;
mod settings;
mod sites;
mod tokens;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use shoal_proto::ClusterId;

pub use problem::{ConfigErrors, Problem, Source};
pub use settings::{Setting, Settings, Value};

use crate::admin::tokens::Tokens;
use crate::edge::{AccessAddresses, AccessFormat, EdgeTls};
use crate::membership::ConfiguredRole;
use crate::policy::site::SiteConfig;
use crate::supernode::selection::Wanted;
use crate::tls::{Security, TlsFiles};

/// A whole, valid configuration.
#[derive(Debug)]
pub struct Config {
    /// The member itself.
    pub node: NodeConfig,
    /// Its cluster.
    pub cluster: ClusterConfig,
    /// Its admin listener.
    pub admin: AdminConfig,
    /// What only members that cache have.
    pub cache: Option<CacheConfig>,
    /// Its log.
    pub log: LogConfig,
    /// What is allowed and yet probably not meant; to be logged.
    pub warnings: Vec<String>,
}

/// The member itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name, as in its certificate.
    pub name: String,
    /// Its role.
    pub role: ConfiguredRole,
    /// Where it keeps everything; absolute.
    pub data_dir: PathBuf,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// The host, without port, of the addresses told to others; see [`Config::address`].
    pub advertise: String,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Its id.
    pub id: ClusterId,
    /// Where this member listens for others.
    pub listen: SocketAddr,
    /// `host:port` of super-nodes to find the cluster by; may name this member too.
    pub super_nodes: Vec<String>,
    /// This super-node founds the cluster.
    pub bootstrap: bool,
    /// How many voters the tier is to have, and how patient it is in choosing them.
    pub selection: Wanted,
    /// How members speak to one another; the files have been read.
    pub security: Security,
    /// The files behind `security`; `None` for plain text.
    pub tls: Option<TlsFiles>,
    /// Copies of an object that the cluster keeps.
    pub copies: u8,
    /// The secret under which keys are hashed; every node has it, super-nodes need not.
    pub secret: Option<ClusterSecret>,
}

/// The cluster's secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

impl ClusterSecret {
    /// A secret of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may make control calls; nobody when empty.
    pub tokens: Tokens,
}

/// What a caching node has.
#[derive(Debug)]
pub struct CacheConfig {
    /// The cluster's secret, which nodes must have.
    pub secret: ClusterSecret,
    /// The front.
    pub edge: EdgeConfig,
    /// The store.
    pub store: StoreConfig,
    /// The sites of the file, in its order; the index may know others.
    pub sites: Vec<SiteConfig>,
}

/// The edge.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// Where they do by TLS, if they can.
    pub tls: Option<EdgeTlsConfig>,
    /// 421 or 404: the answer for a host that no site serves.
    pub unknown_host: StatusCode,
    /// Most client connections at a time.
    pub connections_max: usize,
    /// For so long a node that is told to stop goes on serving.
    pub stop_wait: Duration,
    /// So long requests under way have to end after that.
    pub finish_within: Duration,
    /// The access log, if there is one.
    pub access_log: Option<AccessLogConfig>,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Its file.
    pub path: PathBuf,
    /// How its lines look.
    pub format: AccessFormat,
    /// How much they tell of clients' addresses.
    pub addresses: AccessAddresses,
}

/// TLS for clients.
#[derive(Clone, Debug)]
pub struct EdgeTlsConfig {
    /// Where they connect to.
    pub listen: SocketAddr,
    /// What they are shown.
    pub shown: Arc<EdgeTls>,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Most bytes on disk, of bodies and of what describes them.
    pub budget_bytes: u64,
    /// Most body bytes in memory.
    pub memory_bytes: u64,
    /// Most objects.
    pub objects_max: usize,
}

impl StoreConfig {
    /// The store that `settings` ask for, whatever else they say.
    ///
    /// # Errors
    /// Every fault found.
    pub fn of(settings: &Settings) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        match build::store(settings, &mut problems) {
            Some(store) if problems.is_empty() => Ok(store),
            _ => Err(ConfigErrors(problems)),
        }
    }
}

/// The patience and number of voters that `settings` ask for, whatever else they say.
///
/// # Errors
/// Every fault found.
pub fn wanted(settings: &Settings) -> Result<Wanted, ConfigErrors> {
    let mut problems = Vec::new();
    match build::wanted(settings, &mut problems) {
        Some(wanted) if problems.is_empty() => Ok(wanted),
        _ => Err(ConfigErrors(problems)),
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or directives of `tracing`'s `EnvFilter`.
    pub level: String,
}

impl Config {
    /// Reads `file`, puts `above` (variables, then flags, already laid over one another) over its
    /// settings, and checks the whole.
    ///
    /// # Errors
    /// Every fault found.
    pub fn load(file: Option<&Path>, above: Settings) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let text = match file.map(file::load).transpose() {
            Ok(text) => text.unwrap_or_default(),
            Err(problem) => return Err(ConfigErrors(vec![problem])),
        };
        let name = file.map_or_else(String::new, |file| file.display().to_string());
        let document = file::Document { name: &name, text: &text };
        let mut settings = Settings::default();
        let lists = file::read(document, &mut settings, &mut problems);
        settings.overlay(above);
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        let sites = sites::read(document, lists.sites, &mut problems);
        let tokens = tokens::read(document, folder, lists.tokens, &mut problems);
        let found = build::Found { sites, tokens };
        let config = build::config(&settings, folder, found, &mut problems);
        match config {
            Some(mut config) if problems.is_empty() => {
                config.warnings = machine::warnings(&config);
                Ok(config)
            }
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// `host:port` to tell others about the listener at `listen`.
    pub fn address(&self, listen: SocketAddr) -> String {
        let host = &self.node.advertise;
        let port = listen.port();
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

#[cfg(test)]
mod tests;
