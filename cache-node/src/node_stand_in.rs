//! Stand-in for the wiring: takes the data directory, serves the admin listener, waits for the
//! stop. No edge, no cluster listener.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::watch;

use crate::admin::{AdminServer, AdminState, MemberStatus, Readiness, StatusDocument};
use crate::config::Config;
use crate::identity::{Claim, Identity, IdentityError};
use crate::metrics::Metrics;

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
    /// A metric's name is taken.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

impl NodeError {
    /// Whether the configuration is at fault, not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Identity(error) if error.is_configuration())
    }
}

/// Runs a member until `stop`.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    let claim =
        Claim { cluster_id: &config.cluster.id, name: &config.node.name, role: config.node.role };
    let identity = Identity::open(&config.node.data_dir, claim)?;
    let address = config.admin.listen;
    let failed = |source| NodeError::Listen { key: "admin.listen", address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let me = MemberStatus {
        name: config.node.name.clone(),
        node_id: identity.node_id.to_string(),
        role: config.node.role.name().to_owned(),
        state: "up".to_owned(),
        cluster_address: config.address(config.cluster.listen),
        admin_address: config.address(config.admin.listen),
        ..MemberStatus::default()
    };
    let document = StatusDocument {
        cluster_id: config.cluster.id.to_string(),
        name: me.name.clone(),
        node_id: me.node_id.clone(),
        role: me.role.clone(),
        members: vec![me],
        ..StatusDocument::default()
    };
    let ready = Readiness { ready: true, reason: "ready".to_owned() };
    let (_ready, told) = watch::channel(ready);
    let status = Arc::new(move || document.clone());
    let state = AdminState { metrics: Metrics::new()?, ready: told, status };
    let admin = AdminServer::start(listener, state).map_err(failed)?;
    tracing::info!(name = config.node.name, admin = %admin.address(), "started");
    stop.await;
    admin.stop();
    tracing::info!("stopped");
    Ok(())
}
