//! The way into the tier, as the leader sees it: a super-node that asks to be taken in is a learner
//! until it has caught up, then a voter, unless it is held back. One that lost its data comes under
//! its old name with a new id, and takes the place of its former self by one joint change.

use std::time::Duration;

use shoal_proto::wire::{WireError, check_node_info, v1};
use shoal_proto::{ErrorKind, NodeId, RpcError};

use super::Raft;
use super::members::ChangeError;
use super::plan::{Change, Refusal};
use crate::clock;

/// Between two looks at whether a learner has caught up, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;

impl Raft {
    /// On the leader: takes a super-node into the tier. One whose name is another's must wait until
    /// that one has been silent for `absence`. Asking again, also after an unknown outcome, does no
    /// harm.
    ///
    /// # Errors
    /// `Redirect` with the leader's address elsewhere, `Denied` when the id is another member's or
    /// was removed, or the name's owner is alive, `Retry` when it has not caught up within
    /// `deadline`.
    pub async fn join(
        &self,
        info: v1::NodeInfo,
        absence: Duration,
        deadline: Duration,
    ) -> Result<u64, RpcError> {
        check_node_info(&info)?;
        if info.role() != v1::Role::Super {
            return Err(WireError::field("role", info.role, "super").into());
        }
        let late = |_| RpcError::new(ErrorKind::Retry, "the new super-node has not caught up yet");
        tokio::time::timeout(deadline, self.take_in(&info, absence)).await.map_err(late)?
    }

    async fn take_in(&self, info: &v1::NodeInfo, absence: Duration) -> Result<u64, RpcError> {
        if !self.is_leader() {
            let leader = self.state().leader;
            return Err(self.redirect(leader.map(|id| id.0)));
        }
        let id = NodeId(info.node_id);
        if self.inner.state.index().is_retired(id) {
            return Err(RpcError::new(ErrorKind::Denied, Refusal::Retired(id).to_string()));
        }
        self.check_name(info)?;
        let former = self.former_selves(info, absence)?;
        self.learn_address(info);
        let state = self.state();
        if state.held_back.contains(&id) {
            return Ok(state.applied);
        }
        let mut position = self.insist(Change::Add(id), Some(info)).await?;
        let votes = |id: &NodeId| self.state().voters.contains(id);
        if !votes(&id) {
            let old = former.iter().copied().find(votes);
            let vote = old.map_or(Change::Promote(id), |old| Change::Replace { old, new: id });
            position = self.insist(vote, None).await?;
        }
        for gone in former {
            if self.member(gone.0).is_some() {
                position = self.insist(Change::Remove(gone), None).await?;
            }
        }
        Ok(position)
    }

    /// On the leader: gives a node that the tier has chosen a vote once it has caught up, the one of
    /// `out` where there is one. Asking again does no harm.
    ///
    /// # Errors
    /// `Redirect` when another leads, or had to be made the leader first; `Denied` when the id is
    /// another member's; `Retry` when it is not done within `deadline`, or a rule stands against it.
    pub async fn choose(
        &self,
        info: &v1::NodeInfo,
        out: Option<NodeId>,
        deadline: Duration,
    ) -> Result<u64, RpcError> {
        check_node_info(info)?;
        self.check_name(info)?;
        self.learn_address(info);
        let id = NodeId(info.node_id);
        let vote = out.map_or(Change::Promote(id), |old| Change::Replace { old, new: id });
        let chosen = async {
            self.insist(Change::Add(id), Some(info)).await?;
            self.insist(vote, None).await
        };
        let late = |_| RpcError::new(ErrorKind::Retry, "the chosen node has not caught up yet");
        tokio::time::timeout(deadline, chosen).await.map_err(late)?
    }

    /// On the leader: takes a super-node out of the tier.
    ///
    /// # Errors
    /// As [`Raft::choose`].
    pub async fn dismiss(&self, id: NodeId, deadline: Duration) -> Result<u64, RpcError> {
        let late = |_| RpcError::new(ErrorKind::Retry, "not taken out of the tier in time");
        let dismissed = self.insist(Change::Remove(id), None);
        tokio::time::timeout(deadline, dismissed).await.map_err(late)?
    }

    /// Those under whose name `info` comes, all of them silent for `absence`.
    fn former_selves(
        &self,
        info: &v1::NodeInfo,
        absence: Duration,
    ) -> Result<Vec<NodeId>, RpcError> {
        let namesakes = self.seen().nodes.into_iter();
        let namesakes =
            namesakes.filter(|(id, node)| node.name == info.name && id.0 != info.node_id);
        let (state, now) = (self.state(), clock::monotonic());
        let me = NodeId(self.inner.me);
        let mut former = Vec::new();
        for (id, _) in namesakes {
            let silence = state.silence(id, now);
            if id == me || silence < absence {
                let message = format!(
                    "{:?} is super-node {id}, heard of {} ms ago; stop that one, or give this one \
                     another name",
                    info.name,
                    if id == me { 0 } else { silence.as_millis() },
                );
                return Err(RpcError::new(ErrorKind::Denied, message));
            }
            former.push(id);
        }
        Ok(former)
    }

    /// Makes `change`, as soon as it can be made.
    async fn insist(&self, change: Change, added: Option<&v1::NodeInfo>) -> Result<u64, RpcError> {
        loop {
            match self.change_here(change, added, None).await {
                Ok(position) => return Ok(position),
                Err(ChangeError::Rpc(error)) => return Err(error),
                Err(ChangeError::Refused(refusal)) if !refusal.is_for_now() => {
                    return Err(RpcError::new(ErrorKind::Retry, refusal.to_string()));
                }
                Err(ChangeError::Refused(_)) => {}
            }
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        }
    }
}
