//! Stand-in for consensus: one super-node that agrees with itself and applies at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rocksdb::{DB, Options, WriteBatch};
use shoal_proto::wire::v1;
use shoal_proto::{ClusterId, ErrorKind, NodeId, RpcError};
use tokio::sync::watch;

use super::index::{COLUMN_FAMILIES, Index, IndexError};
use crate::metrics::IndexMetrics;
use crate::rpc::Channels;
use crate::tasks::Tasks;

/// How a super-node takes part.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This super-node.
    pub me: v1::NodeInfo,
    /// The data directory.
    pub dir: PathBuf,
    /// Makes a new tier.
    pub bootstrap: bool,
}

/// A super-node's consensus cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The database failed.
    #[error("raft database: {0}")]
    Store(#[from] rocksdb::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A batch that was committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposed {
    /// Its position in the log.
    pub position: u64,
    /// What its commands came to.
    pub replies: Vec<v1::CommandReply>,
}

/// The tier as one super-node knows it.
#[derive(Clone, Debug, Default)]
pub struct TierState {
    /// The leader.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last position applied here.
    pub applied: u64,
    /// Super-nodes with a vote.
    pub voters: BTreeSet<NodeId>,
    /// Super-nodes without one.
    pub learners: BTreeSet<NodeId>,
    /// On the leader: when each other super-node last answered.
    pub heartbeats: BTreeMap<NodeId, Option<Instant>>,
}

struct Inner {
    me: NodeId,
    db: Arc<DB>,
    index: Arc<Index>,
    position: Mutex<u64>,
    state: watch::Sender<TierState>,
}

/// This super-node's part in the consensus.
#[derive(Clone)]
pub struct Raft(Arc<Inner>);

impl Raft {
    /// Opens the state.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn start(
        config: RaftConfig,
        _channels: Channels,
        _tasks: Tasks,
        _metrics: IndexMetrics,
    ) -> Result<(Self, Arc<Index>), RaftError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = Arc::new(DB::open_cf(&options, config.dir.join("raft"), COLUMN_FAMILIES)?);
        let index = Arc::new(Index::open(db.clone())?);
        let me = NodeId(config.me.node_id);
        let stored = db.get(b"position")?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        let applied = stored.map_or(0, u64::from_be_bytes);
        let state = TierState {
            leader: Some(me),
            term: 1,
            applied,
            voters: BTreeSet::from([me]),
            ..TierState::default()
        };
        let (state, _) = watch::channel(state);
        let position = Mutex::new(applied);
        let inner = Inner { me, db, index: index.clone(), position, state };
        Ok((Self(Arc::new(inner)), index))
    }

    /// Agrees on a batch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn propose(
        &self,
        batch: v1::CommandBatch,
        _deadline: Duration,
    ) -> Result<Proposed, RpcError> {
        let bug = |error: &dyn std::fmt::Display| RpcError::new(ErrorKind::Bug, error.to_string());
        let mut position = self.0.position.lock().unwrap_or_else(PoisonError::into_inner);
        *position += 1;
        let mut writes = WriteBatch::default();
        let group = [(*position, batch)];
        let mut replies = self.0.index.apply(&group, &mut writes).map_err(|e| bug(&e))?;
        writes.put(b"position", position.to_be_bytes());
        self.0.db.write(writes).map_err(|e| bug(&e))?;
        self.0.index.committed();
        self.0.state.send_modify(|state| state.applied = *position);
        Ok(Proposed { position: *position, replies: replies.pop().unwrap_or_default() })
    }

    /// Waits until `position` is applied.
    ///
    /// # Errors
    /// `Retry` when it is not.
    pub async fn wait_applied(&self, position: u64, deadline: Duration) -> Result<(), RpcError> {
        let mut state = self.0.state.subscribe();
        let applied = state.wait_for(|state| state.applied >= position);
        match tokio::time::timeout(deadline, applied).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RpcError::new(ErrorKind::Retry, "not applied here yet")),
        }
    }

    /// Returns once all that was committed is applied here.
    ///
    /// # Errors
    /// None.
    pub async fn read_barrier(&self, _deadline: Duration) -> Result<u64, RpcError> {
        Ok(self.state().applied)
    }

    /// What this super-node knows of the tier, as it changes.
    pub fn watch(&self) -> watch::Receiver<TierState> {
        self.0.state.subscribe()
    }

    /// What this super-node knows of the tier now.
    pub fn state(&self) -> TierState {
        self.0.state.borrow().clone()
    }

    /// Whether this super-node leads.
    pub fn is_leader(&self) -> bool {
        self.state().leader == Some(self.0.me)
    }

    /// Takes a super-node into the tier.
    ///
    /// # Errors
    /// Always: this tier has one member.
    pub async fn join(&self, _info: v1::NodeInfo, _deadline: Duration) -> Result<u64, RpcError> {
        Err(RpcError::new(ErrorKind::Invalid, "a stand-in has no followers"))
    }

    /// Notes where a super-node can be reached.
    pub fn learn_address(&self, _info: &v1::NodeInfo) {}

    /// Hands leadership on.
    ///
    /// # Errors
    /// None.
    pub async fn transfer_leader_away(&self) -> Result<(), RpcError> {
        Ok(())
    }

    /// Ends taking part.
    pub async fn shutdown(&self) {}
}
