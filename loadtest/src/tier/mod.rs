//! A tier of super-nodes as real processes on loopback, and simulated members that speak to it as
//! nodes do: mutual TLS, one session each, announcements under their own identity.
//!
//! `shoal up` lays the tier out (certificates, configurations, first votes); from then on the
//! super-nodes are this process's own children, so that one can be killed and started again.
//!
//! `wire` is the only file that knows the messages of the index beside sessions.

pub mod certificates;
pub mod member;
pub mod metrics;
pub mod setup;
pub mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use shoal_proto::RpcError;
use thiserror::Error;
use tonic::transport::{Channel, Endpoint};

use crate::process::{Process, ProcessError, usage};
use certificates::{Authority, MemberIdentity};

/// For a connection to a super-node.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes in flight on one stream, and on one connection: as members have it.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Log level of super-nodes: what would be written a request does not belong to a measurement.
const LOG_LEVEL: &str = "warn";

/// Why there is no tier to measure.
#[derive(Debug, Error)]
pub enum TierError {
    /// The program is missing.
    #[error(
        "the program `shoal` is neither beside this one nor on PATH; build it there \
         (cargo build --workspace --release), or give --shoal FILE"
    )]
    NoProgram,
    /// Every port that was tried is taken.
    #[error("no free ports for a tier between {from} and {to}; end what listens there")]
    NoPorts {
        /// The first tried.
        from: u16,
        /// The last tried.
        to: u16,
    },
    /// A process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file failed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// `shoal up` said something else than its facts.
    #[error("`shoal up` did not come up: {reason}; it said:\n{said}")]
    Up {
        /// What is wrong.
        reason: String,
        /// The end of its log.
        said: String,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A connection could not be set up.
    #[error("connection: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// A super-node did not answer in time, or ended.
    #[error("{name} is not healthy: {reason}; its log ends:\n{said}")]
    Unhealthy {
        /// Which.
        name: String,
        /// Why.
        reason: String,
        /// The end of its log.
        said: String,
    },
    /// Members could not open their sessions.
    #[error("{missing} of {members} sessions were not open after {after:?}; the last said: {said}")]
    Sessions {
        /// Without a session.
        missing: usize,
        /// All.
        members: usize,
        /// How long was waited.
        after: Duration,
        /// What a member heard last.
        said: String,
    },
    /// A call failed.
    #[error(transparent)]
    Call(#[from] RpcError),
}

/// What tier is wanted.
#[derive(Clone, Debug)]
pub struct TierOptions {
    /// The program.
    pub shoal: Option<PathBuf>,
    /// An empty folder, or one to be made.
    pub folder: PathBuf,
    /// Super-nodes: 1, 3, 5 or 7.
    pub super_nodes: u16,
    /// Plain text in place of mutual TLS.
    pub insecure: bool,
}

/// One super-node.
#[derive(Debug)]
pub struct SuperNode {
    /// Its name.
    pub name: String,
    /// Its cluster address, `host:port`.
    pub address: String,
    /// Base URL of its admin listener.
    pub admin: String,
    /// Everything that it keeps on disk.
    pub data: PathBuf,
    config: PathBuf,
    process: Option<Process>,
}

/// The tier.
pub struct Tier {
    /// The super-nodes, in the order of their numbers.
    pub super_nodes: Vec<SuperNode>,
    /// The cluster's id.
    pub cluster_id: String,
    program: PathBuf,
    folder: PathBuf,
    authority: Option<Authority>,
}

impl Tier {
    /// Lays a tier out and starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(options: &TierOptions) -> Result<Self, TierError> {
        let mut tier = setup::lay_out(options).await?;
        for at in 0..tier.super_nodes.len() {
            tier.start_one(at)?;
        }
        Ok(tier)
    }

    /// Starts super-node number `at`, which is not running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_one(&mut self, at: usize) -> Result<(), TierError> {
        let (program, folder) = (&self.program, &self.folder);
        let Some(one) = self.super_nodes.get_mut(at) else { return Ok(()) };
        let log = folder.join(format!("{}.log", one.name));
        let config = one.config.to_string_lossy().into_owned();
        let args = ["node", "--config", &config, "--exit-with-parent", "--log-level", LOG_LEVEL];
        one.process = Some(Process::start(&one.name, program, &args, &log, false)?);
        Ok(())
    }

    /// SIGKILL to super-node number `at`, without waiting for its end.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill_now(&mut self, at: usize) -> Result<(), TierError> {
        match self.super_nodes.get_mut(at).and_then(|one| one.process.as_mut()) {
            Some(process) => Ok(process.kill_now()?),
            None => Ok(()),
        }
    }

    /// Ends super-node number `at`: by SIGTERM, or what is left of one that was killed.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop_one(&mut self, at: usize) -> Result<(), TierError> {
        match self.super_nodes.get_mut(at).and_then(|one| one.process.take()) {
            Some(mut process) => Ok(process.stop().await?),
            None => Ok(()),
        }
    }

    /// Ends all.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn stop(mut self) -> Result<(), TierError> {
        for at in 0..self.super_nodes.len() {
            self.stop_one(at).await?;
        }
        Ok(())
    }

    /// What the super-nodes have used, in their order.
    #[must_use]
    pub fn usage(&self) -> Vec<usage::Usage> {
        let pid = |one: &SuperNode| one.process.as_ref().map(Process::pid);
        self.super_nodes.iter().map(|one| pid(one).map(usage::of).unwrap_or_default()).collect()
    }

    /// The end of a super-node's log.
    #[must_use]
    pub fn log_tail(&self, at: usize) -> String {
        let process = self.super_nodes.get(at).and_then(|one| one.process.as_ref());
        process.map(Process::log_tail).unwrap_or_default()
    }

    /// A certificate for the member called `name`; none in a tier without TLS.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue(&self, name: &str) -> Result<Option<MemberIdentity>, TierError> {
        self.authority.as_ref().map(|authority| authority.issue(name)).transpose()
    }

    /// Connections to all super-nodes under `identity`, made when first used.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn channels(&self, identity: Option<&MemberIdentity>) -> Result<Vec<Channel>, TierError> {
        self.super_nodes.iter().map(|one| channel(one, identity)).collect()
    }
}

fn channel(one: &SuperNode, identity: Option<&MemberIdentity>) -> Result<Channel, TierError> {
    let scheme = if identity.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", one.address))?
        .connect_timeout(CONNECT_DEADLINE)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let endpoint = match identity {
        Some(identity) => endpoint.tls_config(identity.toward(&one.name))?,
        None => endpoint,
    };
    Ok(endpoint.connect_lazy())
}

/// The folder of one super-node below the tier's.
fn data_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).join("data")
}
