//! The wiring: binds, builds, serves, drains. The only module that knows every other.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | [`run`]: what both roles share |
//! | `cache` | a caching node |
//! | `calls` | its control calls, together |
//! | `explain` | the control call that explains a URL |
//! | `prefetch` | the control calls that prefetch |
//! | `purges` | the control call that purges |
//! | `swarm` | the control call that shows who has which chunks |
//! | `sites` | the sites that a node serves, and the calls that change them |
//! | `verify` | the control call that compares the super-nodes' indexes |
//! | `certificates` | takes in a new certificate |
//! | `drain` | leaves without loss, on demand |
//! | `holdings` | tells others what the node holds |
//! | `tier` | a super-node |
//! | `auto` | the super-node inside a node whose role the tier chooses |
//! | `capability` | what such a node tells of itself |
//! | `selection` | how voters are chosen, for the status |
//! | `mode` | shows in which mode the member is |
//!
//! A stop goes from the outside in: unready, a drain for `edge.stop_wait`, clients' connections
//! finished, peers' streams ended, the session closed, the store flushed; the admin listener last.

mod auto;
mod cache;
mod calls;
mod capability;
mod certificates;
mod drain;
mod explain;
mod holdings;
mod members;
mod mode;
mod prefetch;
mod purges;
pub mod recovery;
mod selection;
mod sites;
mod swarm;
mod tier;
mod verify;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use shoal_proto::wire::v1;
use tokio::sync::watch;

use crate::admin::{AdminServer, AdminState, Control, Readiness, StatusDocument};
use crate::config::Config;
use crate::events;
use crate::identity::{Claim, Identity, IdentityError};
use crate::membership::ConfiguredRole;
use crate::metrics::{AdminMetrics, Metrics, RefusalMetrics};
use crate::origin::OriginSetupError;
use crate::rpc::Refusals;
use crate::store::StoreError;
use crate::supernode::SuperError;

/// This version, told to other members: the crates', unless the build names another in
/// `SHOAL_VERSION`.
pub const VERSION: &str = match option_env!("SHOAL_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Why a member could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A listener cannot be bound.
    #[error("{key} {address}: {source}; expected a free port of this machine")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("edge.access_log {}: {source}; expected a file that can be appended to", path.display())]
    AccessLog {
        /// Its path.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The certificate, key or authority cannot be used.
    #[error("cluster.tls: {0}; expected a PEM certificate, its key and the cluster's authority")]
    Tls(#[from] crate::tls::IdentityError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The super-node cannot start.
    #[error(transparent)]
    SuperNode(#[from] SuperError),
    /// TLS towards origins cannot be set up.
    #[error("origins: {0}; check the system's root certificates")]
    Origin(#[from] OriginSetupError),
    /// A metric's name is taken.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A task of the member died.
    #[error("a background task died, see the log; the member stopped so that no hole is left")]
    Died,
}

impl NodeError {
    /// Whether the configuration is at fault, not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Identity(error) if error.is_configuration())
    }
}

/// A member that runs, in either role.
struct Running {
    ready: watch::Sender<Readiness>,
    metrics: Metrics,
    /// Set once the role has started.
    status: watch::Sender<Arc<dyn Fn() -> StatusDocument + Send + Sync>>,
    /// Set once the role can answer control calls.
    control: watch::Sender<Option<Arc<Control>>>,
}

/// Listeners, bound before anything on disk is touched.
struct Listeners {
    admin: TcpListener,
    cluster: tokio::net::TcpListener,
    edge: Option<tokio::net::TcpListener>,
    edge_tls: Option<tokio::net::TcpListener>,
}

/// Runs a member until `stop`.
///
/// # Errors
/// When it cannot start, or a task of it dies.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    let listeners = bind(&config)?;
    let claim =
        Claim { cluster_id: &config.cluster.id, name: &config.node.name, role: config.node.role };
    let identity = Identity::open(&config.node.data_dir, claim)?;
    let me = introduce(&config, &identity);
    let base = describe(&config, &me);
    let metrics = Metrics::new()?;
    let starting = Readiness { ready: false, reason: "starting".to_owned() };
    let (ready, told) = watch::channel(starting);
    let first: Arc<dyn Fn() -> StatusDocument + Send + Sync> = {
        let base = base.clone();
        Arc::new(move || base.clone())
    };
    let (status, current) = watch::channel(first);
    let (control, calls) = watch::channel(None);
    let state = AdminState {
        metrics: metrics.clone(),
        ready: told,
        status: Arc::new(move || {
            let of_role = current.borrow().clone();
            StatusDocument { events: events::recent(), ..of_role() }
        }),
        control: calls,
        tokens: config.admin.tokens.clone(),
        calls: AdminMetrics::new(&metrics)?,
    };
    let address = config.admin.listen;
    let admin = AdminServer::start(listeners.admin, state).map_err(|source| NodeError::Listen {
        key: "admin.listen",
        address,
        source,
    })?;
    let running = Running { ready, metrics, status, control };
    tracing::info!(name = config.node.name, role = config.node.role.name(), "starting");
    let ended = match (config.node.role, listeners.edge) {
        (ConfiguredRole::Node | ConfiguredRole::Auto, Some(edge)) => {
            let Listeners { cluster, edge_tls, .. } = listeners;
            let parts = cache::Listeners { edge, edge_tls, cluster };
            cache::run((config, me, base), parts, &running, stop).await
        }
        _ => tier::run((config, me, base), listeners.cluster, &running, stop).await,
    };
    admin.stop();
    tracing::info!("stopped");
    ended
}

fn bind(config: &Config) -> Result<Listeners, NodeError> {
    let bound = |key: &'static str, address: SocketAddr| {
        let failed = move |source| NodeError::Listen { key, address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok::<_, NodeError>(listener)
    };
    let on_runtime = |key: &'static str, address: SocketAddr| {
        let failed = move |source| NodeError::Listen { key, address, source };
        tokio::net::TcpListener::from_std(bound(key, address)?).map_err(failed)
    };
    let edge = config.cache.as_ref().map(|cache| on_runtime("edge.listen", cache.edge.listen));
    let tls = config.cache.as_ref().and_then(|cache| cache.edge.tls.as_ref());
    let edge_tls = tls.map(|tls| on_runtime("edge.tls.listen", tls.listen));
    Ok(Listeners {
        admin: bound("admin.listen", config.admin.listen)?,
        cluster: on_runtime("cluster.listen", config.cluster.listen)?,
        edge: edge.transpose()?,
        edge_tls: edge_tls.transpose()?,
    })
}

fn introduce(config: &Config, identity: &Identity) -> v1::NodeInfo {
    let role = v1::Role::from(config.node.role.first());
    let edge = config.cache.as_ref().map(|cache| config.address(cache.edge.listen));
    v1::NodeInfo {
        node_id: identity.node_id.0,
        name: config.node.name.clone(),
        role: role.into(),
        cluster_address: config.address(config.cluster.listen),
        edge_address: edge.unwrap_or_default(),
        admin_address: config.address(config.admin.listen),
        zone: config.node.zone.clone(),
        version: VERSION.to_owned(),
        auto: config.node.role == ConfiguredRole::Auto,
        draining: false,
    }
}

fn describe(config: &Config, me: &v1::NodeInfo) -> StatusDocument {
    StatusDocument {
        cluster_id: config.cluster.id.to_string(),
        name: me.name.clone(),
        node_id: shoal_proto::NodeId(me.node_id).to_string(),
        role: config.node.role.first().name().to_owned(),
        version: VERSION.to_owned(),
        ..StatusDocument::default()
    }
}

impl Running {
    /// What the cluster listener refuses: counted, and in the log.
    fn refusals(&self) -> Result<Refusals, NodeError> {
        Ok(Refusals::new(RefusalMetrics::new(&self.metrics)?))
    }

    fn set_ready(&self, ready: bool, reason: &str) {
        self.ready.send_if_modified(|now| {
            let changed = now.ready != ready || now.reason != reason;
            if changed {
                *now = Readiness { ready, reason: reason.to_owned() };
            }
            changed
        });
    }

    /// From here on the member answers these control calls.
    fn set_control(&self, control: Control) {
        self.control.send_replace(Some(Arc::new(control.with_list())));
    }

    fn set_status(&self, status: impl Fn() -> StatusDocument + Send + Sync + 'static) {
        self.status.send_replace(Arc::new(status));
    }
}
