//! What the parts of a super-node share: consensus, index, leases, sessions, and whether all that
//! was committed is known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Shared};
use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1::{self, command::Command};
use shoal_proto::{ClusterId, ErrorKind, LeaseId, NodeId, RpcError};
use tokio::sync::watch;
use tonic::Request;

use super::batch::{Batcher, Outcome};
use super::index::Index;
use super::purge::Absences;
use super::raft::Raft;
use super::selecting::Selected;
use super::session::Sessions;
use super::standbys::Reports;
use super::timing::Timing;
use super::view;
use crate::clock;
use crate::home::Home;
use crate::membership::{ClusterView, Member, Role};
use crate::metrics::IndexMetrics;
use crate::rpc::{self, Channels};
use crate::tasks::{self, Tasks};

/// A probe of a filler that others share.
pub(super) type Probe = Shared<BoxFuture<'static, bool>>;

/// A super-node's insides.
pub(super) struct Tier {
    pub(super) cluster_id: ClusterId,
    pub(super) info: v1::NodeInfo,
    pub(super) timing: Timing,
    /// The id of this process's own session with the tier.
    pub(super) life: u64,
    pub(super) raft: Raft,
    pub(super) index: Arc<Index>,
    pub(super) batcher: Batcher,
    pub(super) home: Mutex<Home>,
    pub(super) sessions: Sessions,
    pub(super) reports: Reports,
    /// What the leader chooses by, while that is this super-node.
    pub(super) selected: watch::Sender<Option<Selected>>,
    pub(super) absences: Mutex<Absences>,
    pub(super) probes: Mutex<HashMap<LeaseId, Probe>>,
    pub(super) view: watch::Sender<ClusterView>,
    /// When all that was committed was last known here; `None` before it ever was.
    pub(super) touched: watch::Sender<Option<u64>>,
    /// A graceful stop has begun.
    pub(super) leaving: AtomicBool,
    /// The position from which the index is known to differ from the tier's; 0 while it is not.
    pub(super) diverged: AtomicU64,
    pub(super) channels: Channels,
    pub(super) metrics: IndexMetrics,
    pub(super) tasks: Tasks,
    pub(super) started: Instant,
}

/// A deadline in milliseconds, as a duration.
pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Tier {
    /// This super-node's id.
    pub(super) fn me(&self) -> NodeId {
        NodeId(self.info.node_id)
    }

    /// Monotonic milliseconds since this super-node started.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(clock::since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Has the tier agree on a command.
    ///
    /// # Errors
    /// `Retry` when it is not known to be committed in time.
    pub(super) async fn submit(&self, command: Command) -> Result<Outcome, RpcError> {
        let late = || RpcError::new(ErrorKind::Retry, "not committed in time, it still may be");
        let submitted = self.batcher.submit(command);
        tokio::time::timeout(ms(WRITE_DEADLINE_MS), submitted).await.map_err(|_| late())?
    }

    /// Runs `use_home` on the lease table.
    pub(super) fn home<T>(&self, use_home: impl FnOnce(&mut Home) -> T) -> T {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        let result = use_home(&mut home);
        self.metrics.leases.set(i64::try_from(home.len()).unwrap_or(i64::MAX));
        result
    }

    /// The cluster as this super-node knows it now.
    pub(super) fn build_view(&self) -> ClusterView {
        let tier = self.raft.state();
        let (members, epoch) = self.index.members();
        view::build(&members, epoch, &tier)
    }

    /// Members that are super-nodes.
    pub(super) fn super_nodes(&self) -> Vec<Member> {
        let (members, _) = self.index.members();
        members.iter().filter(|member| member.role == Role::Super).cloned().collect()
    }

    /// Whether all that was committed until a moment ago is known here.
    pub(super) fn in_touch(&self) -> bool {
        self.is_recent(*self.touched.borrow())
    }

    /// The position from which the index is known to differ from the tier's.
    pub(super) fn diverged(&self) -> Option<u64> {
        Some(self.diverged.load(Ordering::Relaxed)).filter(|position| *position > 0)
    }

    /// Checks that what the index here says may be told.
    ///
    /// # Errors
    /// `Retry` when it differs from the tier's: another super-node is to be asked.
    pub(super) fn agrees(&self) -> Result<(), RpcError> {
        self.diverged().map_or(Ok(()), |position| {
            let message = format!("the index here differs from the tier's at position {position}");
            Err(RpcError::new(ErrorKind::Retry, message))
        })
    }

    fn is_recent(&self, touched: Option<u64>) -> bool {
        let leaving = self.leaving.load(Ordering::Relaxed);
        !leaving
            && self.diverged().is_none()
            && touched.is_some_and(|at| self.now_ms() < at + self.timing.touch_ms())
    }

    /// Waits, not for long, until this super-node is in touch.
    ///
    /// # Errors
    /// `Retry` when it stays out of touch: another one may be asked.
    pub(super) async fn until_in_touch(&self) -> Result<(), RpcError> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err(RpcError::new(ErrorKind::Retry, "this super-node is leaving"));
        }
        let mut touched = self.touched.subscribe();
        let recent = touched.wait_for(|at| self.is_recent(*at));
        match tokio::time::timeout(ms(RPC_DEADLINE_MS / 2), recent).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(RpcError::new(ErrorKind::Retry, "this super-node cannot reach the tier")),
        }
    }

    /// Checks that the caller is the member `id`, and says who that is.
    ///
    /// # Errors
    /// `Denied` when the caller's certificate is another's, `Retry` when there is no such member.
    pub(super) async fn caller<T>(
        &self,
        request: &Request<T>,
        id: u64,
    ) -> Result<Member, RpcError> {
        self.agrees()?;
        let member = match self.index.member(NodeId(id)) {
            Some(member) => member,
            None => self.late_member(NodeId(id)).await?,
        };
        rpc::check_caller(self.channels.security(), request, &member.name)?;
        Ok(member)
    }

    /// A member whose session began a moment ago elsewhere may not be known here yet.
    async fn late_member(&self, id: NodeId) -> Result<Member, RpcError> {
        self.raft.read_barrier(ms(RPC_DEADLINE_MS / 2)).await?;
        let unknown = || {
            let message = format!("node {id} is not a member: begin a session first");
            RpcError::new(ErrorKind::Retry, message)
        };
        self.index.member(id).ok_or_else(unknown)
    }

    /// Reads the index's disk off the runtime's threads.
    ///
    /// # Errors
    /// What `read` failed with.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> Result<T, RpcError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let tier = Arc::clone(self);
        tasks::blocking("index read", move || read(&tier)).await.map_err(bug)?
    }
}

/// A fault of Shoal's own.
pub(super) fn bug(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(ErrorKind::Bug, error.to_string())
}
