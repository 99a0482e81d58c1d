//! Consensus among super-nodes: one log, applied by each to its index.
//!
//! Invariants: no type of the consensus library leaves this folder; what is on disk and on the wire
//! is our own. Proposals may be applied twice when a leader is lost on the way: they are retried
//! without knowing, which is right because every command of the index is idempotent by design.
//! Reads that must be linearizable go through [`Raft::read_barrier`] (ReadIndex, no clock assumed).
//!
//! | file | purpose |
//! |---|---|
//! | `wire` | the library's types and our messages |
//! | `log`, `durable`, `sizes` | the log, how far it is durable, how long it is |
//! | `machine`, `state`, `snapshot`, `receive` | the state, its copies, and where they come from |
//! | `compact` | when to take a snapshot, what to purge |
//! | `disk` | what they have in common |
//! | `peers` | comparing indexes with one another |
//! | `network`, `service` | the two sides of calls between super-nodes |
//! | `leader` | what only the leader can do, asked of it from anywhere |
//! | `plan` | PURE: one change of the membership, or why not |
//! | `members`, `entry`, `roster` | changing the membership, the way into it, who is in it |
//! | `generation` | which tier the data belongs to, and whether it may take part |
//! | `recovery` | going on from one survivor, offline |
//! | `lost` | a leader whose process has ended is found before its lease runs out |
//! | `watch` | what this super-node knows of the tier |
//!
//! Not here: who should be a member.

mod compact;
mod disk;
mod durable;
mod entry;
mod generation;
mod leader;
mod log;
mod lost;
mod machine;
mod members;
mod network;
mod peers;
pub(crate) mod plan;
mod receive;
pub mod recovery;
mod roster;
mod service;
#[cfg(test)]
pub(super) mod simulated;
mod sizes;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::raft_server::RaftServer;
use shoal_proto::{ClusterId, ErrorKind, NodeId, RpcError};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use self::compact::Compaction;
use self::disk::Alive;
use self::generation::{Stamp, Standing};
use self::log::LogStore;
use self::machine::Machine;
use self::network::{AddressBook, Network, node_of};
use self::state::State;
use self::wire::Types;
use super::index::{Index, IndexError};
use crate::files::FileError;
use crate::metrics::IndexMetrics;
use crate::rpc::{Channels, MESSAGE_BYTES_MAX};
use crate::tasks::Tasks;

pub use self::generation::Ended;
pub use self::leader::Proposed;
pub use self::plan::Mark;
pub use self::service::RaftService;
pub use self::watch::TierState;
pub use self::wire::is_entry;

/// Between a leader's heartbeats, in milliseconds.
const HEARTBEAT_MS: u64 = 200;
/// A follower stands for election when it has heard nothing for the lease, which the library takes
/// to be the maximum, plus a time drawn between the two: 950 to 1,200 milliseconds. That is almost
/// five heartbeats, since two busy cores delay one by hundreds of milliseconds and a needless
/// election costs more than it gains; and a lost leader is still replaced in little over a second,
/// one whose process has ended much sooner: see `lost`.
const ELECTION_MIN_MS: u64 = 350;
const ELECTION_MAX_MS: u64 = 600;
/// Deadline of a whole snapshot's transfer and installation, in milliseconds.
const SNAPSHOT_DEADLINE_MS: u64 = 30 * 60 * 1_000;
/// Entries purged at once: a range deletion for each would leave too many tombstones.
const PURGE_ENTRIES: u64 = 256;
/// Calls that wait for the consensus task, before callers are held back.
const CALLS_WAITING_MAX: u64 = 4_096;
/// Between two looks at whether the library has let go of the directory, in milliseconds.
const CLOSE_POLL_MS: u64 = 10;
/// Longest wait for that, in milliseconds.
const CLOSE_DEADLINE_MS: u64 = 5_000;
/// Longest wait for a successor before a graceful stop, in milliseconds.
const TRANSFER_DEADLINE_MS: u64 = 2_000;

/// How a super-node takes part.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The cluster; a log of another is refused.
    pub cluster_id: ClusterId,
    /// This super-node.
    pub me: v1::NodeInfo,
    /// The data directory; `raft/` in it is this module's.
    pub dir: PathBuf,
    /// Makes a new tier of this super-node alone when there is no data; ignored when there is.
    pub bootstrap: bool,
    /// Calls others from the start; else from [`Raft::stand`] on.
    pub stands: bool,
}

/// A super-node's consensus cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The directory is another's.
    #[error("raft data {}: belongs to super-node {found}, not {expected}; use its own data directory", path.display())]
    Foreign {
        /// Which database.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The log ends before what is known to be committed.
    #[error("raft log {}: ends at {last:?}, but {committed:?} was committed; entries were lost: empty the data directory and join under a new node id", path.display())]
    Truncated {
        /// Which database.
        path: PathBuf,
        /// The committed position.
        committed: Option<u64>,
        /// The last position.
        last: Option<u64>,
    },
    /// The log is not what was written: what others count on may be missing.
    #[error("raft log {}: is damaged: {what}; this super-node must not vote any more: empty the data directory and join under a new node id", path.display())]
    Damaged {
        /// Which database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The state and its snapshot are damaged, and the log begins after what is left.
    #[error("raft state {}: ends at {state:?}, but the log begins after {purged}, and no snapshot is whole; empty the data directory and join under a new node id", path.display())]
    Lost {
        /// Which directory.
        path: PathBuf,
        /// Up to where there is a state.
        state: Option<u64>,
        /// Up to where the log was purged.
        purged: u64,
    },
    /// The data is of a super-node that takes part no longer.
    #[error("{}: {ended}", path.display())]
    Ended {
        /// The directory.
        path: PathBuf,
        /// Why.
        ended: Ended,
    },
    /// Half of it is what it was, half what it is to be.
    #[error("{}: a recovery was interrupted; run `shoal recover` again to finish it", path.display())]
    Recovering {
        /// The directory.
        path: PathBuf,
    },
    /// A file beside the log cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database failed.
    #[error("raft database: {0}")]
    Store(#[from] rocksdb::Error),
    /// A file failed or is corrupt.
    #[error("raft files: {0}")]
    Io(#[from] io::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The consensus library refused to start.
    #[error("raft: {0}")]
    Core(String),
}

impl RaftError {
    fn foreign(path: &Path, found: &v1::RaftIdentity, mine: &v1::RaftIdentity) -> Self {
        let name =
            |who: &v1::RaftIdentity| format!("{} of cluster {}", who.node_id, who.cluster_id);
        Self::Foreign { path: path.to_owned(), found: name(found), expected: name(mine) }
    }
}

type Core = openraft::Raft<Types, Machine>;
type RaftClient = v1::raft_client::RaftClient<InterceptedService<Channel, Stamp>>;

struct Inner {
    me: u64,
    core: Core,
    network: Network,
    state: Arc<State>,
    standing: Standing,
    tier: tokio::sync::watch::Receiver<TierState>,
    applied: tokio::sync::watch::Receiver<u64>,
    metrics: IndexMetrics,
    heard: lost::Heard,
    joins: tokio::sync::Mutex<()>,
    receiving: tokio::sync::Mutex<()>,
    alive: std::sync::Weak<()>,
}

/// This super-node's part in the consensus. Clones share it.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

impl Raft {
    /// Opens the log and the state, and takes part.
    ///
    /// # Errors
    /// When the data cannot be read, or is not this super-node's.
    pub async fn start(
        config: RaftConfig,
        channels: Channels,
        tasks: Tasks,
        metrics: IndexMetrics,
    ) -> Result<(Self, Arc<Index>), RaftError> {
        Self::start_with(config, Compaction::default(), channels, (tasks, metrics)).await
    }

    async fn start_with(
        config: RaftConfig,
        compaction: Compaction,
        channels: Channels,
        (tasks, metrics): (Tasks, IndexMetrics),
    ) -> Result<(Self, Arc<Index>), RaftError> {
        let me = config.me.node_id;
        let alive = Alive::default();
        let watched = Arc::downgrade(&alive);
        let cluster_id = config.cluster_id.to_string();
        let dir = config.dir.join("raft");
        let opening = metrics.clone();
        let standing_tasks = tasks.clone();
        let identity = v1::RaftIdentity { cluster_id, node_id: me };
        let open = move || {
            std::fs::create_dir_all(&dir)?;
            let standing = Standing::open(&dir, standing_tasks)?;
            let (state, log) = open(&dir, &identity, opening, alive)?;
            Ok::<_, RaftError>((state, log, standing))
        };
        let (state, log, standing) =
            crate::tasks::blocking("raft open", open).await.map_err(core_error)??;
        let (applying, applied) = tokio::sync::watch::channel(0);
        let sizes = Arc::clone(log.sizes());
        let machine = Machine::new(Arc::clone(&state), applying, log.progress(), metrics.clone())?;
        let index = Arc::clone(state.index());
        let book = AddressBook::new(standing.generation.clone(), config.stands);
        let network = Network { me, book, channels };
        let settings = Arc::new(settings(&config.cluster_id, compaction)?);
        let core = Core::new(me, settings, network.clone(), log, machine).await;
        let core = core.map_err(core_error)?;
        if config.bootstrap && !core.is_initialized().await.map_err(core_error)? {
            let alone = BTreeMap::from([(me, node_of(&config.me))]);
            core.initialize(alone).await.map_err(core_error)?;
        }
        let tier = watch::follow(&core, &tasks, metrics.clone());
        compact::follow(&core, sizes, compaction, &tasks);
        let inner = Inner {
            me,
            core,
            network,
            state,
            standing,
            tier,
            applied,
            metrics,
            heard: Default::default(),
            joins: Default::default(),
            receiving: Default::default(),
            alive: watched,
        };
        let raft = Self { inner: Arc::new(inner) };
        tasks.spawn_until_stopped("raft-members", raft.clone().keep());
        tasks.spawn_until_stopped("raft-lost", raft.clone().watch_leader());
        Ok((raft, index))
    }

    /// What this super-node knows of the tier, as it changes.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<TierState> {
        self.inner.tier.clone()
    }

    /// What this super-node knows of the tier now.
    pub fn state(&self) -> TierState {
        self.inner.tier.borrow().clone()
    }

    /// Whether this super-node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.inner.tier.borrow().leader == Some(NodeId(self.inner.me))
    }

    /// Notes where a super-node can be reached now, from its own answer to `Whois`. One that is not
    /// in the membership known here, since this super-node is new or was away, may speak for its id
    /// from then on: only to be called for configured seeds and members of the tier.
    pub fn learn_address(&self, info: &v1::NodeInfo) {
        self.inner.network.book.learn(info);
    }

    /// Where `id` can be reached, as far as this super-node knows.
    pub fn address_of(&self, id: NodeId) -> Option<String> {
        let learned = self.inner.network.book.find(id.0);
        learned.or_else(|| self.member(id.0)).map(|node| node.cluster_address)
    }

    /// Where the others in the membership are, as the log has it.
    pub fn addresses(&self) -> Vec<String> {
        let members = Arc::clone(&self.inner.core.metrics().borrow_watched().membership_config);
        let others = members.nodes().filter(|(id, _)| **id != self.inner.me);
        others.map(|(_, node)| node.cluster_address.clone()).collect()
    }

    fn member(&self, id: u64) -> Option<v1::RaftNode> {
        // The borrow holds up the consensus task: cloned at once.
        let members = Arc::clone(&self.inner.core.metrics().borrow_watched().membership_config);
        members.get_node(&id).cloned()
    }

    /// Who `id` is: by the membership if it is in it, else by what it said of itself.
    fn node(&self, id: u64) -> Option<v1::RaftNode> {
        self.member(id).or_else(|| self.inner.network.book.find(id))
    }

    /// Answers other super-nodes; to be added to the cluster listener.
    pub fn service(&self) -> RaftServer<RaftService> {
        RaftServer::new(RaftService(self.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Waits until this super-node has applied the log up to `position`.
    ///
    /// # Errors
    /// `Retry` when it has not within `deadline`, `Closed` when it never will.
    pub async fn wait_applied(&self, position: u64, deadline: Duration) -> Result<(), RpcError> {
        let mut applied = self.inner.applied.clone();
        let waited = tokio::time::timeout(deadline, applied.wait_for(|at| *at >= position)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(RpcError::new(ErrorKind::Closed, "raft has stopped")),
            Err(_) => {
                let message = format!("position {position} is not applied here yet");
                Err(RpcError::new(ErrorKind::Retry, message))
            }
        }
    }

    /// Hands leadership to the voter that has most of the log, before a graceful stop. Does nothing
    /// when this super-node does not lead or is alone.
    ///
    /// # Errors
    /// `Retry` when nobody took over in time: an election will follow.
    pub async fn transfer_leader_away(&self) -> Result<(), RpcError> {
        let metrics = self.inner.core.metrics().borrow_watched().clone();
        let replicated = metrics.replication.unwrap_or_default().into_iter();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let others = replicated.filter(|(id, _)| *id != self.inner.me && voters.contains(id));
        match others.max_by_key(|(_, upto)| *upto).filter(|_| self.is_leader()) {
            Some((heir, _)) => self.hand_lead(NodeId(heir)).await,
            None => Ok(()),
        }
    }

    /// Ends taking part and closes the log. The state stays open while an [`Index`] is held.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.core.shutdown().await {
            tracing::error!(%error, "raft ended badly");
        }
        // The library's tasks end by themselves a little later, and hold the log until then; this
        // handle's own mark stays.
        let polls = CLOSE_DEADLINE_MS / CLOSE_POLL_MS;
        for _ in 0..polls {
            if self.inner.alive.strong_count() <= 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(CLOSE_POLL_MS)).await;
        }
        tracing::warn!("raft still has its log open");
    }
}

/// Opens the log, which must be sound, and the state, which must fit it.
fn open(
    dir: &Path,
    identity: &v1::RaftIdentity,
    metrics: IndexMetrics,
    alive: Alive,
) -> Result<(Arc<State>, LogStore), RaftError> {
    std::fs::create_dir_all(dir)?;
    let log = LogStore::open(&dir.join("log"), identity, metrics, Arc::clone(&alive))?;
    let state = State::open(dir, identity, alive)?;
    let applied = state.applied()?.last_log_id;
    log.reconcile(applied, state.installed())?;
    let snapshot = state.snapshots().current().and_then(|snapshot| snapshot.position());
    let (held, purged) = (applied.max(snapshot), log.purged()?);
    if held < purged {
        let (state, purged) = (held.map(|id| id.index), purged.map_or(0, |id| id.index));
        return Err(RaftError::Lost { path: dir.to_owned(), state, purged });
    }
    Ok((Arc::new(state), log))
}

fn core_error(error: impl std::fmt::Display) -> RaftError {
    RaftError::Core(error.to_string())
}

fn closed(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(ErrorKind::Closed, format!("raft: {error}"))
}

fn settings(cluster_id: &ClusterId, compaction: Compaction) -> Result<Config, RaftError> {
    let settings = Config {
        cluster_name: cluster_id.to_string(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: SNAPSHOT_DEADLINE_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(compaction.every),
        max_in_snapshot_log_to_keep: compaction.keep,
        replication_lag_threshold: compaction.lag,
        purge_batch_size: PURGE_ENTRIES.min(compaction.every),
        api_channel_size: Some(CALLS_WAITING_MAX),
        enable_pre_vote: Some(true),
        // A leader that lost its power, and with it entries that its disk had not synced but others
        // had, must not go on in the same term: it would write other entries under their ids.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    settings.validate().map_err(core_error)
}
