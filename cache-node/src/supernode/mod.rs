//! The super-node tier: the index that all super-nodes replicate, the leases and sessions that each
//! keeps for itself, and the service that nodes ask.
//!
//! | file | purpose |
//! |---|---|
//! | `raft` | consensus: one log, applied by each super-node to its index |
//! | `index` | the replicated state machine |
//! | `ledger` | PURE: sessions, what their members acknowledged, until when they trust |
//! | `sweep` | PURE: super-nodes that fell silent |
//! | `selection` | PURE: who is to be a voter |
//! | `selecting` | on the leader: carries that out |
//! | `standbys`, `standby` | what the leader knows of nodes that could be super-nodes, and how it tells them |
//! | `gate` | a service that comes and goes with the super-node behind it |
//! | `holders` | PURE: which holders to name to whom |
//! | `agreement` | whether this super-node's index is the tier's |
//! | `clearing` | on the leader: takes out of the index what is of no use any more |
//! | `checks` | PURE: requests against the limits |
//! | `timing` | PURE: the tier's times, all from the session lease |
//! | `tier` | what the parts share |
//! | `batch` | commands gathered into entries of the log |
//! | `session`, `acquire`, `purge`, `sites`, `verify` | what the service does |
//! | `service` | the service itself |
//! | `standing`, `reaper`, `view`, `joining` | what goes on by itself |
//!
//! Invariants: what must survive is in the log, all else is soft and rebuilt in seconds; a
//! super-node that may not know all that was committed vouches for nobody. A super-node that caches
//! has a session with the tier like every node: this module knows nothing of what a node does.
//!
//! A node whose role the tier chooses starts and retires its super-node at the leader's word.

mod acquire;
mod agreement;
mod batch;
mod checks;
mod clearing;
pub mod gate;
mod holders;
pub mod index;
mod joining;
mod ledger;
mod purge;
pub mod raft;
mod reaper;
mod selecting;
pub mod selection;
mod service;
mod session;
#[cfg(test)]
mod sim;
mod sites;
pub mod standby;
mod standbys;
mod standing;
mod sweep;
#[cfg(test)]
mod tests;
mod tier;
mod timing;
mod verify;
mod view;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shoal_proto::limits::WRITE_DEADLINE_MS;
use shoal_proto::wire::v1::command::Command;
use shoal_proto::wire::v1::index_server::IndexServer;
use shoal_proto::wire::v1::raft_server::RaftServer;
use shoal_proto::wire::{WireError, v1};
use shoal_proto::{ClusterId, NodeId, RpcError};
use tokio::sync::watch;

use self::batch::Batcher;
use self::ledger::Ledger;
use self::raft::{Ended, Mark, Raft, RaftConfig, RaftError, RaftService};
use self::selection::Wanted;
use self::session::Sessions;
use self::standbys::Reports;
use self::tier::{Tier, bug, ms};
use crate::clock;
use crate::home::Home;
use crate::membership::ClusterView;
use crate::metrics::IndexMetrics;
use crate::rpc::{Channels, MESSAGE_BYTES_MAX};
use crate::tasks::Tasks;

pub use self::selecting::{LastChange, Selected};
pub use self::service::IndexService;
pub use self::timing::Timing;

/// A graceful stop waits so long for its farewell to be committed, in milliseconds.
const FAREWELL_DEADLINE_MS: u64 = 1_000;

/// What makes a super-node.
#[derive(Clone, Debug)]
pub struct SuperConfig {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This super-node, with the addresses under which others reach it.
    pub me: v1::NodeInfo,
    /// The data directory.
    pub dir: PathBuf,
    /// Makes a new tier of this super-node alone when there is no data, and no seed knows of one.
    pub bootstrap: bool,
    /// Addresses of other super-nodes.
    pub seeds: Vec<String>,
    /// How long things hold.
    pub timing: Timing,
    /// How many voters are wanted, among those whose role the tier chooses.
    pub wanted: Wanted,
}

/// A super-node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SuperError {
    /// Its own facts break a limit.
    #[error("this super-node's facts: {0}")]
    Facts(#[from] WireError),
    /// Consensus cannot start.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The operating system gives no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(#[from] std::io::Error),
}

/// What a super-node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperStatus {
    /// The leader, where known.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last position applied here.
    pub applied: u64,
    /// Has a vote.
    pub voter: bool,
    /// Is a learner that is held back from having one.
    pub held_back: bool,
    /// Knows all that was committed until a moment ago, and is a member: it serves sessions.
    pub in_touch: bool,
    /// The position from which its index is known to differ from the tier's: it serves nobody.
    pub diverged: Option<u64>,
    /// The newest fence's position.
    pub fence_position: u64,
    /// Takes part no longer, and why.
    pub ended: Option<Ended>,
    /// Sessions open here.
    pub sessions: usize,
    /// Fill leases of this home.
    pub leases: usize,
    /// About how many objects the index knows.
    pub heads: u64,
}

/// A running super-node.
#[derive(Clone)]
pub struct SuperNode {
    tier: Arc<Tier>,
}

impl SuperNode {
    /// Opens the data and takes part; finds its way into the tier in the background. Its services
    /// must be served, or nobody can take it in.
    ///
    /// # Errors
    /// When the data cannot be opened.
    pub async fn start(
        config: SuperConfig,
        channels: Channels,
        tasks: Tasks,
        metrics: IndexMetrics,
    ) -> Result<Self, SuperError> {
        let SuperConfig { cluster_id, me, dir, bootstrap, seeds, timing, wanted } = config;
        let info = checks::member(Some(me))?;
        // With data there was an earlier life, and there may be members that still trust it.
        let lived = tokio::fs::try_exists(dir.join("raft")).await.unwrap_or(true);
        let founds =
            bootstrap && (lived || !joining::finds_tier(&cluster_id, &channels, &seeds).await);
        if bootstrap && !founds {
            tracing::warn!("there is a tier already: joining it instead of founding one");
        }
        let started = clock::monotonic();
        let life = clock::random_u64()?;
        let cluster = cluster_id.clone();
        let raft = RaftConfig {
            cluster_id: cluster,
            me: info.clone(),
            dir,
            bootstrap: founds,
            stands: !lived,
        };
        let (raft, index) =
            Raft::start(raft, channels.clone(), tasks.clone(), metrics.clone()).await?;
        let former_until_ms = if lived { timing.trust_ms() } else { 0 };
        let proposing = raft.clone();
        let batcher = Batcher::start(&tasks, move |batch| {
            let raft = proposing.clone();
            async move { raft.propose(batch, ms(WRITE_DEADLINE_MS)).await }
        });
        let tier = Arc::new(Tier {
            cluster_id,
            info,
            timing,
            life,
            raft,
            index,
            batcher,
            home: Mutex::new(Home::new(u64::from(timing.fill_lease_ms))),
            sessions: Sessions::new(Ledger::new(timing, former_until_ms)),
            reports: Reports::default(),
            selected: watch::channel(None).0,
            absences: Mutex::default(),
            probes: Mutex::default(),
            view: watch::channel(ClusterView::default()).0,
            touched: watch::channel(None).0,
            leaving: AtomicBool::new(false),
            diverged: AtomicU64::new(0),
            channels,
            metrics,
            tasks: tasks.clone(),
            started,
        });
        tasks.spawn_until_stopped("tier-view", view::run(tier.clone()));
        tasks.spawn_until_stopped("tier-standing", standing::run(tier.clone()));
        tasks.spawn_until_stopped("tier-reaper", reaper::run(tier.clone()));
        tasks.spawn_until_stopped("tier-agreement", agreement::run(tier.clone()));
        tasks.spawn_until_stopped("tier-clearing", clearing::run(tier.clone()));
        tasks.spawn_until_stopped("tier-selecting", selecting::run(tier.clone(), wanted));
        tasks.spawn_until_stopped("tier-joining", joining::run(tier.clone(), seeds));
        Ok(Self { tier })
    }

    /// Answers nodes and other super-nodes; to be added to the cluster listener.
    pub fn service(&self) -> IndexServer<IndexService> {
        IndexServer::new(IndexService::new(self.tier.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Answers other super-nodes' consensus; to be added to the cluster listener.
    pub fn raft_service(&self) -> RaftServer<RaftService> {
        self.tier.raft.service()
    }

    /// The cluster as this super-node knows it, as it changes.
    pub fn view(&self) -> watch::Receiver<ClusterView> {
        self.tier.view.subscribe()
    }

    /// How it is doing.
    pub fn status(&self) -> SuperStatus {
        let tier = &self.tier;
        let state = tier.raft.state();
        SuperStatus {
            leader: state.leader,
            term: state.term,
            applied: state.applied,
            voter: state.voters.contains(&tier.me()),
            held_back: state.held_back.contains(&tier.me()),
            in_touch: tier.in_touch(),
            ended: *tier.raft.ended().borrow(),
            diverged: tier.diverged(),
            fence_position: tier.index.fence_position(),
            sessions: tier.sessions.ledger(|ledger| ledger.open_count()),
            leases: tier.home(|home| home.len()),
            heads: tier.index.heads_estimate(),
        }
    }

    /// What it chooses voters by, while it leads.
    pub fn selected(&self) -> watch::Receiver<Option<Selected>> {
        self.tier.selected.subscribe()
    }

    /// Whether the index knows this very super-node as a member.
    pub fn is_registered(&self) -> bool {
        standing::is_registered(&self.tier)
    }

    /// Tells, after this handle has gone, whether everybody has let go of the databases.
    pub fn released(&self) -> impl Fn() -> bool + Send + use<> {
        let tier = Arc::downgrade(&self.tier);
        move || tier.strong_count() == 0
    }

    /// Ends it for good, the process going on: it is out of the tier's membership already. Members
    /// are sent elsewhere, and it answers purges until nobody can trust it any more. No farewell:
    /// the process tells the tier itself what it is from then on. Its tasks end with their group.
    pub async fn retire(&self) {
        let tier = &self.tier;
        tier.leaving.store(true, Ordering::Relaxed);
        tier.sessions.end_all();
        if let Err(error) = tier.raft.transfer_leader_away().await {
            tracing::debug!(%error, "leadership could not be handed on");
        }
        let until_ms = tier.sessions.ledger(|ledger| ledger.trusted_until_ms());
        let left_ms = until_ms.saturating_sub(tier.now_ms()).min(tier.timing.trust_ms());
        tokio::time::sleep(ms(left_ms)).await;
        tier.raft.shutdown().await;
    }

    /// Who is in the tier, as its leader knows it.
    ///
    /// # Errors
    /// `Retry` when no leader with a quorum answers in time.
    pub async fn members(&self) -> Result<v1::MembersReply, RpcError> {
        self.tier.raft.members(ms(WRITE_DEADLINE_MS)).await
    }

    /// Has the leader make one change of the membership, which must be the `expected` one.
    ///
    /// # Errors
    /// `Retry` when the outcome is not known in time; a rule's refusal is an answer.
    pub async fn change_membership(
        &self,
        change: v1::change_membership_request::Change,
        expected: Mark,
    ) -> Result<v1::ChangeMembershipReply, RpcError> {
        let request = v1::ChangeMembershipRequest {
            node_id: self.tier.info.node_id,
            expected_position: expected.position,
            expected_hash: expected.hash,
            change: Some(change),
        };
        self.tier.raft.change_membership(request, ms(WRITE_DEADLINE_MS)).await
    }

    /// Asks who is at an address.
    ///
    /// # Errors
    /// When nobody of this cluster and this tier answers there.
    pub async fn whois(&self, address: &str) -> Result<v1::NodeInfo, RpcError> {
        let reply = joining::whois(&self.tier, address).await?;
        Ok(checks::member(reply.node)?)
    }

    /// How often the tier was recovered from the loss of its majority.
    pub fn generation(&self) -> u64 {
        self.tier.raft.generation()
    }

    /// Has all super-nodes hash their whole index as of one position, and compares.
    ///
    /// # Errors
    /// `Retry` when the audit could not be committed in time.
    pub async fn verify(&self) -> Result<v1::VerifyReply, RpcError> {
        verify::verify(&self.tier).await
    }

    /// All sites, read linearizably.
    ///
    /// # Errors
    /// `Retry` when the tier cannot be read in time.
    pub async fn sites(&self) -> Result<v1::SiteTable, RpcError> {
        sites::read(&self.tier).await
    }

    /// Changes sites; returns when all nodes that can be heard have applied it.
    ///
    /// # Errors
    /// `Retry` when it could not be committed in time.
    pub async fn change_sites(
        &self,
        change: v1::ChangeSites,
    ) -> Result<v1::ChangeSitesReply, RpcError> {
        sites::change(&self.tier, change).await
    }

    /// Leaves in order: members are sent elsewhere, the tier hears of it, leadership is handed on.
    /// Its tasks end with their group.
    pub async fn shutdown(&self) {
        let tier = &self.tier;
        tier.leaving.store(true, Ordering::Relaxed);
        tier.sessions.end_all();
        if let Err(error) = tier.raft.transfer_leader_away().await {
            tracing::warn!(%error, "leadership could not be handed on");
        }
        let down = v1::MemberDown { node_id: tier.info.node_id, session_id: tier.life };
        let farewell = tier.submit(Command::MemberDown(down));
        let told = tokio::time::timeout(ms(FAREWELL_DEADLINE_MS), farewell).await;
        if let Err(error) = told.map_err(bug).and_then(|outcome| outcome) {
            tracing::info!(%error, "the tier was not told of this stop");
        }
        tier.raft.shutdown().await;
    }
}
