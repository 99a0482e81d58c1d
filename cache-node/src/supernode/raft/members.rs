//! Changing who is in the tier: what the planner decides is done here, on the leader, one change at
//! a time, and every change only on the membership that it was planned for.
//!
//! A change that broke off half-way (its leader was lost while it was joint) is finished by who
//! leads next; a super-node's address in the membership follows where it was last heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use shoal_proto::wire::v1::change_membership_reply::Outcome;
use shoal_proto::wire::v1::change_membership_request::Change as Asked;
use shoal_proto::wire::{WireError, v1};
use shoal_proto::{ErrorKind, NodeId, RpcError};

use super::network::node_of;
use super::plan::{self, Change, Configuration, Facts, Mark, Refusal, Step};
use super::wire::{LogId, Members};
use super::{Raft, RaftClient, TRANSFER_DEADLINE_MS, closed};
use crate::clock;

/// A super-node that answered the leader within this is up, in milliseconds: ten heartbeats.
pub(super) const HEARD_MS: u64 = 2_000;
/// Between two looks at who was heard of, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// Between two looks at what is to be finished or noted, in milliseconds.
const KEEP_EVERY_MS: u64 = 1_000;

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum ChangeError {
    /// A rule stands against it.
    Refused(Refusal),
    /// It could not be asked for, or its outcome is unknown.
    Rpc(RpcError),
}

impl From<Refusal> for ChangeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RpcError> for ChangeError {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

/// The membership as the leader has it at one moment.
pub(super) struct Seen {
    pub(super) now: Configuration,
    pub(super) facts: Facts,
    pub(super) nodes: BTreeMap<NodeId, v1::RaftNode>,
    pub(super) last_position: u64,
    pub(super) matched: BTreeMap<NodeId, u64>,
    since: Option<LogId>,
}

impl Raft {
    /// What this super-node, if it leads, knows of the tier; its own lock on changes aside.
    pub(super) fn seen(&self) -> Seen {
        let metrics = self.inner.core.metrics().borrow_watched().clone();
        let members = metrics.membership_config.membership();
        let since = *metrics.membership_config.log_id();
        let position = since.as_ref().map_or(0, |id| id.index);
        let last_position = metrics.last_log_index.unwrap_or_default();
        let replicated = metrics.replication.iter().flatten();
        let mut matched: BTreeMap<NodeId, u64> =
            replicated.map(|(id, upto)| (NodeId(*id), upto.map_or(0, |upto| upto.index))).collect();
        let me = NodeId(self.inner.me);
        matched.insert(me, last_position);
        let state = self.state();
        let now = clock::monotonic();
        let lately = |at: &std::time::Instant| {
            now.saturating_duration_since(*at) < Duration::from_millis(HEARD_MS)
        };
        let heard = state.heartbeats.iter().filter(|(_, at)| at.as_ref().is_some_and(lately));
        let lag = matched.iter().map(|(id, upto)| (*id, last_position.saturating_sub(*upto)));
        let facts = Facts {
            leader: me,
            up: heard.map(|(id, _)| *id).chain([me]).collect(),
            lag: lag.collect(),
            retired: self.inner.state.index().retired().into_keys().collect(),
            position,
            in_flight: position > metrics.last_applied.map_or(0, |id| id.index),
        };
        let nodes = members.nodes().map(|(id, node)| (NodeId(*id), node.clone())).collect();
        let now = configuration(members);
        Seen { now, facts, nodes, last_position, matched, since }
    }

    /// Has the leader make one change of the membership; waits out an election.
    ///
    /// # Errors
    /// `Retry` when the outcome is not known within `deadline`; a rule's refusal is an answer.
    pub async fn change_membership(
        &self,
        mut request: v1::ChangeMembershipRequest,
        deadline: Duration,
    ) -> Result<v1::ChangeMembershipReply, RpcError> {
        request.node_id = self.inner.me;
        let again = request.clone();
        let local = move |raft: Self| {
            let request = again.clone();
            async move { raft.change_asked(request).await }.boxed()
        };
        let remote = move |mut leader: RaftClient| {
            let request = request.clone();
            async move { leader.change_membership(request).await }.boxed()
        };
        self.at_leader(deadline, local, remote).await
    }

    /// Makes the change that is asked for, if this super-node leads.
    pub(super) async fn change_asked(
        &self,
        request: v1::ChangeMembershipRequest,
    ) -> Result<v1::ChangeMembershipReply, RpcError> {
        let v1::ChangeMembershipRequest { node_id: _, expected_position, expected_hash, change } =
            request;
        let expected = Mark { position: expected_position, hash: expected_hash };
        let change = change.ok_or_else(|| WireError::field("change", "missing", "a change"))?;
        let (change, node) = match change {
            Asked::Add(info) => {
                shoal_proto::wire::check_node_info(&info)?;
                self.check_name(&info)?;
                (Change::Add(NodeId(info.node_id)), Some(info))
            }
            Asked::Promote(id) => (Change::Promote(NodeId(id)), None),
            Asked::Demote(id) => (Change::Demote(NodeId(id)), None),
            Asked::Remove(id) => (Change::Remove(NodeId(id)), None),
            Asked::Replace(v1::ReplaceVoter { old_node_id: old, new_node_id: new }) => {
                (Change::Replace { old: NodeId(old), new: NodeId(new) }, None)
            }
            Asked::Transfer(to) => (Change::Transfer(NodeId(to)), None),
        };
        let outcome = match self.change_here(change, node.as_ref(), Some(expected)).await {
            Ok(position) => Outcome::Position(position),
            Err(ChangeError::Rpc(error)) => return Err(error),
            Err(ChangeError::Refused(refusal)) => {
                tracing::info!(?change, %refusal, "a change of the membership was refused");
                Outcome::Refused(v1::ChangeRefusal {
                    rule: refusal.rule().to_owned(),
                    message: refusal.to_string(),
                    for_now: refusal.is_for_now(),
                })
            }
        };
        Ok(v1::ChangeMembershipReply { outcome: Some(outcome) })
    }

    /// Makes `change` if this super-node leads; the position of the membership then. One that is to
    /// be added comes with its facts.
    pub(super) async fn change_here(
        &self,
        change: Change,
        added: Option<&v1::NodeInfo>,
        expected: Option<Mark>,
    ) -> Result<u64, ChangeError> {
        let Ok(_turn) = self.inner.joins.try_lock() else {
            return Err(Refusal::InFlight.into());
        };
        if !self.is_leader() {
            let leader = self.state().leader;
            return Err(self.redirect(leader.map(|id| id.0)).into());
        }
        self.acquainted().await;
        let seen = self.seen();
        match plan::plan(&seen.now, &seen.facts, change, expected)? {
            Step::Nothing => Ok(seen.facts.position),
            Step::Transfer(to) => {
                self.hand_lead(to).await?;
                match change {
                    Change::Transfer(_) => Ok(seen.facts.position),
                    _ => Err(self.redirect(Some(to.0)).into()),
                }
            }
            Step::Go(target) => {
                tracing::info!(?change, "the membership changes");
                self.go(&seen, &target, added).await
            }
        }
    }

    /// Waits until all others were heard of, or had the time to be: who has just begun to lead would
    /// take everybody for dead.
    async fn acquainted(&self) {
        let looks = HEARD_MS / LOOK_EVERY_MS;
        for _ in 0..looks {
            let state = self.state();
            let others = state.voters.union(&state.learners).filter(|id| id.0 != self.inner.me);
            let heard = |id: &NodeId| state.heartbeats.get(id).copied().flatten().is_some();
            let patience = Duration::from_millis(HEARD_MS);
            let patient = state.led_since.is_some_and(|since| clock::since(since) < patience);
            if !patient || others.into_iter().all(heard) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        }
    }

    /// Writes what leads from the membership as it was `seen` to `target`.
    async fn go(
        &self,
        seen: &Seen,
        target: &Configuration,
        added: Option<&v1::NodeInfo>,
    ) -> Result<u64, ChangeError> {
        let mut nodes = BTreeMap::new();
        if let Some(info) = added.filter(|info| !seen.nodes.contains_key(&NodeId(info.node_id))) {
            self.learn_address(info);
            nodes.insert(info.node_id, node_of(info));
        }
        // Also of voters: one that is about to be held back bears the mark from the joint entry on.
        for (id, node) in &seen.nodes {
            let held_back = target.learners.get(id).copied().unwrap_or_default();
            if node.held_back != held_back {
                nodes.insert(id.0, v1::RaftNode { held_back, ..node.clone() });
            }
        }
        let (old, new) = (last_voters(&seen.now), last_voters(target));
        let gone = seen.now.learners.keys().filter(|id| !target.learners.contains_key(id));
        let gone: BTreeSet<u64> = gone.filter(|id| !new.contains(id)).map(|id| id.0).collect();
        let mut steps = Vec::new();
        if !nodes.is_empty() {
            steps.push(ChangeMembers::SetNodes(nodes));
        }
        if !gone.is_empty() {
            steps.push(ChangeMembers::RemoveNodes(gone));
        }
        let leaving = || seen.now.voters.iter().flatten().filter(|id| !new.contains(id));
        if old != new || seen.now.voters.len() > 1 {
            steps.push(ChangeMembers::ReplaceAllVoters(new.iter().map(|id| id.0).collect()));
        }
        let retain = leaving().all(|id| target.learners.contains_key(id));
        self.write_membership(seen, ChangeMembers::Batch(steps), retain).await
    }

    async fn write_membership(
        &self,
        seen: &Seen,
        change: ChangeMembers<u64, v1::RaftNode>,
        retain: bool,
    ) -> Result<u64, ChangeError> {
        // Who finished a change by which it leaves leads on for a moment, and takes no other.
        if !seen.nodes.contains_key(&NodeId(self.inner.me)) {
            return Err(self.redirect(None).into());
        }
        let guard = Precondition::LastMembershipLogId { last_membership_log_id: seen.since };
        let done = self.inner.core.change_membership_if(change, retain, [guard]).await;
        match done {
            Ok(done) => Ok(done.log_id.index),
            Err(RaftError::APIError(
                ClientWriteError::PreconditionFailed(_)
                | ClientWriteError::ChangeMembershipError(_),
            )) => Err(Refusal::InFlight.into()),
            Err(error) => Err(self.write_error(error).into()),
        }
    }

    /// A name belongs to one super-node.
    pub(super) fn check_name(&self, info: &v1::NodeInfo) -> Result<(), RpcError> {
        let id = info.node_id;
        match self.member(id).filter(|member| member.name != info.name) {
            None => Ok(()),
            Some(member) => {
                let message =
                    format!("super-node {} is {:?}, not {:?}", NodeId(id), member.name, info.name);
                Err(RpcError::new(ErrorKind::Denied, message))
            }
        }
    }

    /// Hands the lead to `heir`.
    ///
    /// # Errors
    /// `Retry` when it did not take over in time: an election may follow.
    pub(super) async fn hand_lead(&self, heir: NodeId) -> Result<(), RpcError> {
        self.inner.core.trigger().transfer_leader(heir.0).await.map_err(closed)?;
        let deadline = Duration::from_millis(TRANSFER_DEADLINE_MS);
        let mut tier = self.watch();
        let me = Some(NodeId(self.inner.me));
        let handed = tier.wait_for(|state| state.leader.is_some() && state.leader != me);
        match tokio::time::timeout(deadline, handed).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RpcError::new(ErrorKind::Retry, "no voter took over the lead in time")),
        }
    }

    /// While this super-node leads: finishes what broke off, and notes where others moved.
    pub(super) async fn keep(self) {
        let mut joint_since = None;
        loop {
            tokio::time::sleep(Duration::from_millis(KEEP_EVERY_MS)).await;
            if !self.is_leader() {
                joint_since = None;
                continue;
            }
            let Ok(_turn) = self.inner.joins.try_lock() else { continue };
            let seen = self.seen();
            let settled = !seen.facts.in_flight && seen.now.has_quorum(&seen.facts.up);
            let kept = match (seen.now.voters.len() > 1, settled) {
                (_, false) => continue,
                // Not at the first look: whoever is changing it may be between its two steps.
                (true, true) if joint_since != seen.since => {
                    joint_since = seen.since;
                    continue;
                }
                (true, true) => self.finish(&seen).await,
                (false, true) => self.note_addresses(&seen).await,
            };
            if let Err(error) = kept {
                tracing::debug!(?error, "the membership could not be tidied yet");
            }
        }
    }

    async fn finish(&self, seen: &Seen) -> Result<(), ChangeError> {
        let held = |id| seen.nodes.get(&id).is_some_and(|node| node.held_back);
        let Some(target) = plan::finish(&seen.now, held) else { return Ok(()) };
        tracing::info!("finishing a change of the membership that broke off");
        self.go(seen, &target, None).await.map(drop)
    }

    async fn note_addresses(&self, seen: &Seen) -> Result<(), ChangeError> {
        let moved = seen.nodes.iter().filter_map(|(id, node)| {
            let found = self.inner.network.book.find(id.0)?;
            let moved = found.name == node.name && found.cluster_address != node.cluster_address;
            moved.then_some((
                id.0,
                v1::RaftNode { held_back: node.held_back, auto: node.auto, ..found },
            ))
        });
        let moved: BTreeMap<_, _> = moved.collect();
        if moved.is_empty() {
            return Ok(());
        }
        tracing::info!(count = moved.len(), "super-nodes moved; the membership follows");
        self.write_membership(seen, ChangeMembers::SetNodes(moved), true).await.map(drop)
    }
}

fn configuration(members: &Members) -> Configuration {
    let sets = members.get_joint_config().iter();
    let voters: Vec<BTreeSet<NodeId>> =
        sets.map(|set| set.iter().copied().map(NodeId).collect()).collect();
    let votes = |id: &NodeId| voters.iter().any(|set| set.contains(id));
    let nodes = members.nodes().map(|(id, node)| (NodeId(*id), node.held_back));
    let learners = nodes.filter(|(id, _)| !votes(id)).collect();
    Configuration { voters, learners }
}

fn last_voters(config: &Configuration) -> BTreeSet<NodeId> {
    config.voters.last().cloned().unwrap_or_default()
}
