//! What a super-node knows of the tier, told to whoever wants to know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::metrics::RaftMetrics;
use shoal_proto::NodeId;
use tokio::sync::watch;

use super::Core;
use super::wire::Types;
use crate::clock;
use crate::metrics::IndexMetrics;
use crate::tasks::Tasks;

/// The tier as one super-node knows it.
#[derive(Clone, Debug, Default)]
pub struct TierState {
    /// The leader, where known. It may be lost already.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last position applied here.
    pub applied: u64,
    /// Super-nodes with a vote.
    pub voters: BTreeSet<NodeId>,
    /// Super-nodes without one.
    pub learners: BTreeSet<NodeId>,
    /// Those of them who are not to be given one by themselves.
    pub held_back: BTreeSet<NodeId>,
    /// On the leader: since when it leads, as far as it was watched.
    pub led_since: Option<Instant>,
    /// On the leader: when a quorum last confirmed it.
    pub quorum_acked: Option<Instant>,
    /// On the leader: when each other super-node last answered.
    pub heartbeats: BTreeMap<NodeId, Option<Instant>>,
    /// Why this super-node can take part no longer: its disk failed, or it was stopped.
    pub failed: Option<String>,
}

impl TierState {
    /// On the leader: for how long nothing was heard of another super-node, at least.
    pub fn silence(&self, id: NodeId, now: Instant) -> Duration {
        let heard = self.heartbeats.get(&id).copied().flatten().max(self.led_since);
        heard.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// On the leader: the time since a quorum last confirmed it.
    pub fn since_quorum(&self, now: Instant) -> Option<Duration> {
        self.quorum_acked.map(|then| now.saturating_duration_since(then))
    }
}

fn describe(metrics: &RaftMetrics<Types>) -> TierState {
    let now = clock::monotonic();
    let members = &metrics.membership_config;
    let voters: BTreeSet<NodeId> = members.voter_ids().map(NodeId).collect();
    let all = || members.nodes().map(|(id, node)| (NodeId(*id), node));
    let heartbeats = metrics.heartbeat.iter().flatten();
    let when = |ago: Duration| now.checked_sub(ago);
    TierState {
        leader: metrics.current_leader.map(NodeId),
        term: metrics.current_term,
        applied: metrics.last_applied.map_or(0, |id| id.index),
        learners: all().map(|(id, _)| id).filter(|id| !voters.contains(id)).collect(),
        held_back: all()
            .filter(|(id, node)| node.held_back && !voters.contains(id))
            .map(|(id, _)| id)
            .collect(),
        voters,
        led_since: None,
        quorum_acked: metrics.last_quorum_acked.and_then(|acked| when(acked.elapsed())),
        heartbeats: heartbeats
            .map(|(id, at)| (NodeId(*id), at.and_then(|at| when(at.elapsed()))))
            .collect(),
        failed: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}

/// Follows `core`'s own account until it or the process ends. When its disk fails, all of `tasks`
/// is stopped: half a super-node is worse than none.
pub(super) fn follow(
    core: &Core,
    tasks: &Tasks,
    gauges: IndexMetrics,
) -> watch::Receiver<TierState> {
    let mut source = core.metrics();
    // Borrowing holds up the consensus task: cloned at once, here and below.
    let first = source.borrow_watched().clone();
    let (sender, receiver) = watch::channel(describe(&first));
    let me = NodeId(first.id);
    let ending = tasks.clone();
    tasks.spawn_until_stopped("raft-watch", async move {
        let mut leader = None;
        let mut led_since = None;
        loop {
            let metrics = source.borrow_watched().clone();
            let mut state = describe(&metrics);
            led_since =
                (state.leader == Some(me)).then(|| led_since.unwrap_or_else(clock::monotonic));
            state.led_since = led_since;
            gauges.term.set(i64::try_from(state.term).unwrap_or(i64::MAX));
            gauges.leader.set(i64::from(state.leader == Some(me)));
            if state.leader.is_some() && state.leader != leader {
                leader = state.leader;
                gauges.leader_changes.inc();
            }
            let stopped = matches!(metrics.running_state, Err(Fatal::Stopped));
            let failed = state.failed.clone();
            // Told before the stop, so that whoever waited for the stop can ask why.
            sender.send_replace(state);
            match failed {
                Some(why) if stopped => tracing::info!(why, "raft takes part no longer"),
                Some(why) => {
                    tracing::error!(
                        why,
                        "raft failed: this super-node stops, and tells at its next start what can \
                         be done"
                    );
                    ending.stop();
                }
                None => {}
            }
            if source.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}
