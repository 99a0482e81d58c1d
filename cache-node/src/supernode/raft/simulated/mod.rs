//! Real consensus in a simulated world: the library's core under our own settings and with our own
//! encoding of every message, over a simulated network, on simulated disks, in virtual time. Only
//! for tests.
//!
//! | file | purpose |
//! |---|---|
//! | `runtime` | virtual time, and lives that are paused and killed |
//! | `log` | a disk with the log and the vote; what was not synced is lost in a crash |
//! | `machine` | the real index, over a database that is lost and rebuilt in a crash |
//! | `network` | calls to other super-nodes, encoded as on the wire |
//!
//! Invariant: no type of the library leaves this folder.

mod log;
mod machine;
mod network;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::{WatchReceiver, WatchSender};
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use openraft::type_config::TypeConfigExt;
use openraft::{ChangeMembers, SnapshotPolicy};
use shoal_proto::ClusterId;
use shoal_proto::wire::v1;

use super::Compaction;
use super::leader::Proposed;
use super::wire::Batch;
use crate::supernode::index::Index;
use crate::supernode::sim::planted::Planted;

pub(in crate::supernode) use self::log::LogDisk;
pub(in crate::supernode) use self::machine::StateDisk;
use self::machine::StateProbe;
pub(in crate::supernode) use self::network::{Message, Transport};
pub(in crate::supernode) use self::runtime::{
    Life, now_us, panics, run, sleep_ms, sleep_us, spawn_outside, within_ms,
};

openraft::declare_raft_types!(
    Types:
        D = Batch,
        R = Vec<v1::CommandReply>,
        Node = v1::RaftNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = runtime::Runtime,
);

type Core = openraft::Raft<Types, machine::Machine>;

/// An entry of the log as those see it who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supernode) struct EntryFacts {
    pub(in crate::supernode) index: u64,
    pub(in crate::supernode) term: u64,
    pub(in crate::supernode) digest: u64,
    /// The voter sets that a membership entry names.
    pub(in crate::supernode) configs: Option<Vec<BTreeSet<u64>>>,
}

/// Who watches what super-nodes do to their disks, and judges it.
pub(in crate::supernode) trait Observer: Send + Sync {
    /// An entry was written to a log, not yet durable; `before` is the term of the one before it.
    fn appended(&self, host: u64, entry: &EntryFacts, before: Option<u64>);
    /// A vote was written.
    fn voted(&self, host: u64, vote: &v1::Vote);
    /// A candidate is about to be told that it has this vote.
    fn granted(&self, host: u64, vote: &v1::Vote);
    /// An entry was applied, with what its commands came to.
    fn applied(&self, host: u64, entry: &EntryFacts, replies: &[v1::CommandReply]);
    /// A snapshot up to this position was installed.
    fn installed(&self, host: u64, index: u64);
}

/// What one super-node's consensus is made of.
pub(in crate::supernode) struct Parts {
    pub(in crate::supernode) id: u64,
    pub(in crate::supernode) log: LogDisk,
    pub(in crate::supernode) state: StateDisk,
    pub(in crate::supernode) transport: Arc<dyn Transport>,
    pub(in crate::supernode) observer: Arc<dyn Observer>,
    pub(in crate::supernode) planted: Option<Planted>,
    /// A snapshot after so many entries.
    pub(in crate::supernode) snapshot_every: u64,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supernode) enum Refused {
    /// Another one leads, if it is known which.
    Leader(Option<u64>),
    /// The outcome is unknown, or it cannot be done now.
    Other(String),
}

/// What a super-node knows of the tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::supernode) struct RaftFacts {
    pub(in crate::supernode) leader: Option<u64>,
    pub(in crate::supernode) term: u64,
    pub(in crate::supernode) last: u64,
    pub(in crate::supernode) committed: u64,
    pub(in crate::supernode) applied: u64,
    pub(in crate::supernode) purged: u64,
    pub(in crate::supernode) snapshot: u64,
    pub(in crate::supernode) configs: Vec<BTreeSet<u64>>,
    pub(in crate::supernode) learners: BTreeSet<u64>,
    /// On the leader: for how long each other one has been silent, in milliseconds.
    pub(in crate::supernode) silent_ms: BTreeMap<u64, Option<u64>>,
    /// On the leader: how far each other one has come.
    pub(in crate::supernode) replicated: BTreeMap<u64, u64>,
    pub(in crate::supernode) failed: Option<String>,
}

/// One super-node's consensus, for one life.
#[derive(Clone)]
pub(in crate::supernode) struct SimRaft {
    id: u64,
    core: Core,
    applied: openraft::alias::WatchReceiverOf<Types, u64>,
    observer: Arc<dyn Observer>,
    probe: StateProbe,
}

impl SimRaft {
    /// Starts it; to be called within the life that it belongs to.
    pub(in crate::supernode) async fn start(parts: Parts) -> Result<(Self, Arc<Index>), String> {
        let every = parts.snapshot_every;
        let (keep, lag) = (every / 2, every * 2);
        let compaction = Compaction { every, keep, lag, ..Compaction::default() };
        let cluster: ClusterId = "sim".parse().map_err(|error| format!("{error}"))?;
        let mut settings = super::settings(&cluster, compaction).map_err(|e| e.to_string())?;
        // A simulated snapshot needs no half hour.
        settings.install_snapshot_timeout = 5_000;
        settings.enable_leader_restore = Some(parts.planted == Some(Planted::LeaderRestored));
        settings.snapshot_policy = SnapshotPolicy::LogsSinceLast(every);
        let (sender, applied) = Types::watch_channel(0);
        let log = log::LogStore::open(&parts)?;
        let machine = machine::Machine::open(
            &parts,
            Box::new(move |at| {
                // Nobody may be waiting.
                let _ = sender.send(at);
            }),
        )?;
        let (index, probe) = (machine.index(), machine.probe());
        let network = network::Network { me: parts.id, transport: Arc::clone(&parts.transport) };
        let core = Core::new(parts.id, Arc::new(settings), network, log, machine).await;
        let core = core.map_err(|error| error.to_string())?;
        let raft = Self { id: parts.id, core, applied, observer: parts.observer, probe };
        Ok((raft, index))
    }

    /// Makes a new tier of these super-nodes.
    pub(in crate::supernode) async fn initialize(&self, voters: &[u64]) -> Result<(), String> {
        let members: BTreeMap<_, _> = voters.iter().map(|id| (*id, node(*id))).collect();
        self.core.initialize(members).await.map_err(|error| error.to_string())
    }

    /// What was applied, and all that the index holds, as one number.
    pub(in crate::supernode) fn content(&self) -> (Option<u64>, u64) {
        self.probe.digest()
    }

    /// Answers another super-node.
    pub(in crate::supernode) async fn handle(&self, message: Message) -> Result<Message, String> {
        network::handle(self, message).await
    }

    /// Has the tier agree on a batch, if this super-node leads.
    pub(in crate::supernode) async fn write(
        &self,
        batch: v1::CommandBatch,
    ) -> Result<Proposed, Refused> {
        let done = self.core.client_write(Batch(batch)).await.map_err(refused_write)?;
        Ok(Proposed { position: done.log_id.index, replies: done.data })
    }

    /// Up to where a linearizable read must have applied the log, if this super-node leads.
    pub(in crate::supernode) async fn read_position(&self) -> Result<u64, Refused> {
        match self.core.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((position, _)) => Ok(position.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(Refused::Leader(to.leader_id))
            }
            Err(error) => Err(Refused::Other(error.to_string())),
        }
    }

    /// Waits until everything up to `position` is applied here.
    pub(in crate::supernode) async fn wait_applied(&self, position: u64, ms: u64) -> bool {
        let mut applied = self.applied.clone();
        let arrived = async {
            while *applied.borrow_and_update() < position {
                if applied.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        within_ms(ms, arrived).await.unwrap_or(false)
    }

    /// Takes in a learner and waits until it has caught up.
    pub(in crate::supernode) async fn add_learner(&self, id: u64) -> Result<(), Refused> {
        self.core.add_learner(id, node(id), true).await.map(drop).map_err(refused_write)
    }

    /// One joint change of the voters; those removed are gone.
    pub(in crate::supernode) async fn change_voters(
        &self,
        voters: BTreeSet<u64>,
    ) -> Result<(), Refused> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.core.change_membership(change, false).await.map(drop).map_err(refused_write)
    }

    /// Hands leadership on.
    pub(in crate::supernode) async fn transfer(&self, to: u64) {
        // Refusals show: nobody else leads then.
        let _ = self.core.trigger().transfer_leader(to).await;
    }

    /// What it knows of the tier.
    pub(in crate::supernode) fn facts(&self) -> RaftFacts {
        let metrics = self.core.metrics().borrow_watched().clone();
        let members = &metrics.membership_config;
        let index = |id: Option<super::wire::LogId>| id.map_or(0, |id| id.index);
        let silent = metrics.heartbeat.iter().flatten().map(|(id, at)| {
            let elapsed: Option<Duration> = at.map(|at| at.elapsed());
            (*id, elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)))
        });
        let replicated = metrics.replication.iter().flatten().map(|(id, at)| (*id, index(*at)));
        RaftFacts {
            leader: metrics.current_leader,
            term: metrics.current_term,
            last: metrics.last_log_index.unwrap_or(0),
            committed: index(metrics.local_committed),
            applied: index(metrics.last_applied),
            purged: index(metrics.purged),
            snapshot: index(metrics.snapshot),
            configs: members.membership().get_joint_config().clone(),
            learners: members.membership().learner_ids().collect(),
            silent_ms: silent.collect(),
            replicated: replicated.collect(),
            failed: metrics.running_state.err().map(|error| error.to_string()),
        }
    }
}

fn refused_write(error: RaftError<Types, ClientWriteError<Types>>) -> Refused {
    use ClientWriteError as E;
    match error {
        RaftError::APIError(E::ForwardToLeader(to) | E::LogEntryDiscarded(to)) => {
            Refused::Leader(to.leader_id)
        }
        error => Refused::Other(error.to_string()),
    }
}

fn node(id: u64) -> v1::RaftNode {
    let (name, cluster_address) = (format!("super-{id}"), format!("super-{id}:7400"));
    v1::RaftNode { name, cluster_address, ..Default::default() }
}
