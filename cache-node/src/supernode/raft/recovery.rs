//! Going on from one survivor after a tier has lost its majority for good (`docs/adr/0013`). Offline,
//! on the survivor's data; the caller holds the directory.
//!
//! Everything in the survivor's log is applied, whether it was committed or not; then the state is
//! that of a tier of the survivor alone, at a position and in a term far beyond any that the lost
//! ones can have reached, so that no position of the lost log ever means two things. The next
//! generation tells the recovered tier from the one before.
//!
//! Invariants: nothing is changed without the token that names exactly the facts found; a recovery
//! that was interrupted is finished by running it again, and nothing starts on its data before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use shoal_proto::wire::v1;
use shoal_proto::{ClusterId, NodeId};

use super::RaftError;
use super::disk::Alive;
use super::generation::{generation, set_generation};
use super::log::LogStore;
use super::machine::{Machine, retired};
use super::state::State;
use super::wire::{LogId, Members, Meta, StoredMembers, log_id_from, members_from, members_to};
use crate::files;
use crate::metrics::{IndexMetrics, Metrics};

/// By how many positions the recovered log begins after the survivor's last entry: more than the lost
/// members can have written since they were last in touch with it.
const POSITIONS_BEYOND: u64 = 1_000_000_000;
/// By how many terms, for the same reason.
const TERMS_BEYOND: u64 = 1_000;
/// Stands in the directory while it is being recovered.
const RECOVERING_FILE: &str = "recovering";
/// Digits of a token that stand for the facts.
const TOKEN_DIGITS: usize = 8;

/// Whose data it is.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
}

/// A super-node in the membership that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it was.
    pub cluster_address: String,
    /// It had a vote.
    pub voter: bool,
}

/// What recovering would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// The survivor's cluster, id and name.
    pub survivor: (ClusterId, NodeId, String),
    /// Term and position of its last entry.
    pub last: (u64, u64),
    /// The last position that it knows to be committed.
    pub committed: u64,
    /// The last position that it has applied.
    pub applied: u64,
    /// How often the tier was recovered before.
    pub generation: u64,
    /// Who is dropped, in the order of their ids.
    pub dropped: Vec<Dropped>,
    /// What confirms exactly this.
    pub token: String,
}

/// What recovering did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where the recovered log begins.
    pub position: u64,
    /// How often the tier was recovered by now.
    pub generation: u64,
}

/// Why a directory is not recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] RaftError),
    /// There is no log.
    #[error("{}: holds no super-node's log; name the data directory of a super-node", .0.display())]
    Nothing(PathBuf),
    /// Only a voter surely has what was committed once.
    #[error(
        "{name:?} has no vote in its tier, so that it may lack what was acknowledged; recover from \
         one of the voters: {voters}"
    )]
    NoVoter {
        /// Its name.
        name: String,
        /// Who has one.
        voters: String,
    },
    /// There is no majority to be lost.
    #[error("{0:?} is the tier's only voter: start it, there is nothing to recover")]
    Alone(String),
    /// The state has to be rebuilt first.
    #[error(
        "the state ends at position {state}, before the log begins ({log}); start the super-node \
         once, so that it rebuilds its state, stop it, and recover then"
    )]
    Behind {
        /// Where the state ends.
        state: u64,
        /// Where the log begins.
        log: u64,
    },
    /// The facts are not those that were confirmed.
    #[error(
        "{given:?} does not confirm what would be done now; run without --confirm, read what it \
         says, and use the token that it prints"
    )]
    Token {
        /// What was given.
        given: String,
    },
    /// An earlier run did not come to its end.
    #[error("a recovery of this directory was interrupted; finish it with --confirm {0}")]
    Interrupted(String),
}

impl From<std::io::Error> for RecoveryError {
    fn from(error: std::io::Error) -> Self {
        Self::Data(error.into())
    }
}

/// What is written down before anything is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    term: u64,
    position: u64,
    generation: u64,
    token: String,
}

impl Plan {
    fn write(&self, folder: &Path) -> Result<(), RaftError> {
        let Self { term, position, generation, token } = self;
        let text = format!("{term} {position} {generation} {token}\n");
        let path = folder.join(RECOVERING_FILE);
        Ok(files::write_whole(&path, text.as_bytes(), files::PLAIN_MODE)?)
    }

    fn read(folder: &Path) -> Result<Option<Self>, RaftError> {
        let path = folder.join(RECOVERING_FILE);
        let Some(text) = files::read_small(&path)? else { return Ok(None) };
        let spoilt = || RaftError::Core(format!("{}: cannot be read", path.display()));
        let mut words = text.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or_else(spoilt);
        let (term, position, generation) = (number()?, number()?, number()?);
        let token = words.next().ok_or_else(spoilt)?.to_owned();
        Ok(Some(Self { term, position, generation, token }))
    }
}

/// Whether a recovery of the data in `folder` was interrupted.
pub(super) fn is_unfinished(folder: &Path) -> Result<bool, RaftError> {
    Ok(Plan::read(folder)?.is_some())
}

/// Says what recovering would do; changes nothing.
///
/// # Errors
/// When the data cannot be read, or must not be recovered.
pub async fn inspect(survivor: &Survivor) -> Result<Prospect, RecoveryError> {
    let folder = survivor.dir.join("raft");
    if let Some(plan) = Plan::read(&folder)? {
        return Err(RecoveryError::Interrupted(plan.token));
    }
    let mut data = Data::open(survivor, true)?;
    data.prospect(survivor).await
}

/// Does what [`inspect`] said, when `token` is the one that it gave.
///
/// # Errors
/// When the facts are others by now, or the data cannot be written; run again, it is finished.
pub async fn recover(survivor: &Survivor, token: &str) -> Result<Recovered, RecoveryError> {
    let folder = survivor.dir.join("raft");
    let refused = || RecoveryError::Token { given: token.to_owned() };
    let plan = match Plan::read(&folder)? {
        Some(plan) => plan,
        None => {
            let mut data = Data::open(survivor, true)?;
            let prospect = data.prospect(survivor).await?;
            let (term, position) = prospect.last;
            let plan = Plan {
                term: term.max(data.voted().await?) + TERMS_BEYOND,
                position: position + POSITIONS_BEYOND,
                generation: prospect.generation + 1,
                token: prospect.token,
            };
            if plan.token == token {
                plan.write(&folder)?;
            }
            plan
        }
    };
    if plan.token != token {
        return Err(refused());
    }
    let mut data = Data::open(survivor, false)?;
    data.bring_to(&plan, survivor.node_id).await?;
    drop(data);
    set_generation(&folder, plan.generation).map_err(RaftError::from)?;
    std::fs::remove_file(folder.join(RECOVERING_FILE))?;
    super::disk::sync_directory(&folder)?;
    Ok(Recovered { position: plan.position, generation: plan.generation })
}

/// The log and the state, opened by nobody else.
struct Data {
    folder: PathBuf,
    log: LogStore,
    state: Arc<State>,
    metrics: IndexMetrics,
}

impl Data {
    fn open(survivor: &Survivor, whole: bool) -> Result<Self, RecoveryError> {
        let folder = survivor.dir.join("raft");
        if !folder.join("log").exists() {
            return Err(RecoveryError::Nothing(survivor.dir.clone()));
        }
        if let Some(ended) = super::generation::ended(&folder)? {
            return Err(RaftError::Ended { path: folder, ended }.into());
        }
        let registry = Metrics::new().map_err(super::core_error)?;
        let metrics = IndexMetrics::new(&registry).map_err(super::core_error)?;
        let cluster_id = survivor.cluster_id.to_string();
        let identity = v1::RaftIdentity { cluster_id, node_id: survivor.node_id.0 };
        let alive = Alive::default();
        let path = folder.join("log");
        let log = LogStore::open(&path, &identity, metrics.clone(), Arc::clone(&alive))?;
        let state = Arc::new(State::open(&folder, &identity, alive)?);
        if whole {
            log.reconcile(state.applied()?.last_log_id, state.installed())?;
        }
        Ok(Self { folder, log, state, metrics })
    }

    async fn voted(&mut self) -> Result<u64, RaftError> {
        let vote = self.log.get_log_reader().await.read_vote().await?;
        Ok(vote.map_or(0, |vote| vote.leader_id.term))
    }

    async fn prospect(&mut self, survivor: &Survivor) -> Result<Prospect, RecoveryError> {
        let (meta, log) = (self.state.applied()?, self.log.get_log_state().await?);
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let (applied, purged) = (index(meta.last_log_id), index(log.last_purged_log_id));
        if applied < purged {
            return Err(RecoveryError::Behind { state: applied, log: purged });
        }
        let last = log.last_log_id.max(meta.last_log_id);
        let members = self.last_members(&meta, index(last)).await?;
        let votes = |id: &u64| members.voter_ids().any(|voter| voter == *id);
        let me = survivor.node_id;
        let all = members.nodes().map(|(id, node)| Dropped {
            node_id: NodeId(*id),
            name: node.name.clone(),
            cluster_address: node.cluster_address.clone(),
            voter: votes(id),
        });
        let dropped: Vec<Dropped> = all.filter(|other| other.node_id != me).collect();
        if !votes(&me.0) {
            let voters = dropped.iter().filter(|other| other.voter);
            let voters: Vec<&str> = voters.map(|other| other.name.as_str()).collect();
            let (name, voters) = (survivor.name.clone(), voters.join(", "));
            return Err(RecoveryError::NoVoter { name, voters });
        }
        if !dropped.iter().any(|other| other.voter) {
            return Err(RecoveryError::Alone(survivor.name.clone()));
        }
        let committed = index(self.log.read_committed().await?);
        let mut prospect = Prospect {
            survivor: (survivor.cluster_id.clone(), me, survivor.name.clone()),
            last: (last.map_or(0, |id| id.leader_id.term), index(last)),
            committed: committed.max(applied),
            applied,
            generation: generation(&self.folder)?,
            dropped,
            token: String::new(),
        };
        prospect.token = token(&prospect, self.voted().await?);
        Ok(prospect)
    }

    /// The newest membership in the state and the log up to `last`.
    async fn last_members(&mut self, meta: &Meta, last: u64) -> Result<Members, RaftError> {
        let mut members = meta.last_membership.membership().clone();
        let after = meta.last_log_id.map_or(0, |id| id.index + 1);
        let mut log = self.log.get_log_reader().await;
        let mut entries = std::pin::pin!(log.entries_stream(after..=last).await);
        while let Some(entry) = entries.next().await {
            if let EntryPayload::Membership(newer) = entry?.payload {
                members = newer;
            }
        }
        Ok(members)
    }

    /// Makes state and log those of `me` alone at the plan's position.
    async fn bring_to(&mut self, plan: &Plan, me: NodeId) -> Result<(), RaftError> {
        let at = log_id_from(v1::LogId { term: plan.term, index: plan.position });
        if self.state.applied()?.last_log_id < Some(at) {
            self.apply_rest().await?;
            self.stay_alone(at, me)?;
        }
        // On disk, whole, before the log lets go of what led there.
        let state = Arc::clone(&self.state);
        let build = move || state.build().map(drop);
        crate::tasks::blocking("raft recovery", build).await.map_err(super::core_error)??;
        let vote = v1::Vote { term: plan.term, node_id: me.0, committed: false };
        self.log.begin_after(at, vote)
    }

    async fn apply_rest(&mut self) -> Result<(), RaftError> {
        let applied = self.state.applied()?.last_log_id;
        let after = applied.map_or(0, |id| id.index + 1);
        let (position, _) = tokio::sync::watch::channel(0);
        let state = Arc::clone(&self.state);
        let progress = self.log.progress();
        let mut machine = Machine::new(state, position, progress, self.metrics.clone())?;
        let mut log = self.log.get_log_reader().await;
        let entries = log.entries_stream(after..u64::MAX).await;
        machine.apply(entries.map(|entry| entry.map(|entry| (entry, None))).boxed()).await?;
        Ok(())
    }

    fn stay_alone(&self, at: LogId, me: NodeId) -> Result<(), RaftError> {
        let before = self.state.applied()?.last_membership;
        let mut alone = members_to(before.membership());
        alone.configs = vec![v1::NodeIds { node_ids: vec![me.0] }];
        alone.nodes.retain(|id, _| *id == me.0);
        let alone = members_from(alone).map_err(super::core_error)?;
        let gone = retired(before.membership(), &alone);
        let commands: Vec<_> = gone.map(|gone| (at.index, gone)).into_iter().collect();
        let last_membership = StoredMembers::new(Some(at), alone);
        let meta = Meta { last_log_id: Some(at), last_membership };
        self.state.apply(&commands, &meta)?;
        Ok(())
    }
}

/// `recover-NAME-` and a hash of everything that the prospect says.
fn token(prospect: &Prospect, voted: u64) -> String {
    let Prospect { survivor, last, committed, applied, generation, dropped, token: _ } = prospect;
    let (cluster_id, node_id, name) = survivor;
    let facts = format!(
        "{cluster_id} {node_id} {name:?} {last:?} {committed} {applied} {generation} {voted} \
         {dropped:?}"
    );
    let hash = blake3::hash(facts.as_bytes()).to_hex();
    format!("recover-{name}-{}", &hash[..TOKEN_DIGITS])
}
