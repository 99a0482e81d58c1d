//! Who is in the tier and how each is doing, as the leader knows it; read linearizably.

use std::time::Duration;

use futures::FutureExt;
use shoal_proto::wire::v1;
use shoal_proto::{NodeId, RpcError};

use super::{Raft, RaftClient};
use crate::clock;

impl Raft {
    /// Asks the leader who is in the tier; waits out an election.
    ///
    /// # Errors
    /// `Retry` when no leader with a quorum answered within `deadline`.
    pub async fn members(&self, deadline: Duration) -> Result<v1::MembersReply, RpcError> {
        let local = |raft: Self| async move { raft.members_here().await }.boxed();
        let request = v1::MembersRequest { node_id: self.inner.me };
        let remote =
            move |mut leader: RaftClient| async move { leader.members(request).await }.boxed();
        self.at_leader(deadline, local, remote).await
    }

    /// The members, if this super-node leads and a quorum confirms it.
    pub(super) async fn members_here(&self) -> Result<v1::MembersReply, RpcError> {
        self.read_position().await?;
        let seen = self.seen();
        let (state, now) = (self.state(), clock::monotonic());
        let me = NodeId(self.inner.me);
        let member = |(id, node): (&NodeId, &v1::RaftNode)| {
            let heard = state.heartbeats.get(id).copied().flatten();
            let silent = heard.map(|at| now.saturating_duration_since(at).as_millis());
            let silent = silent.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
            v1::TierMember {
                node_id: id.0,
                node: Some(node.clone()),
                voter: seen.now.voters.iter().any(|set| set.contains(id)),
                up: seen.facts.up.contains(id),
                matched_position: seen.matched.get(id).copied().unwrap_or_default(),
                silent_ms: if *id == me { Some(0) } else { silent },
            }
        };
        let mut retired: Vec<_> = self.inner.state.index().retired().into_iter().collect();
        retired.sort_by_key(|(id, position)| (std::cmp::Reverse(*position), *id));
        Ok(v1::MembersReply {
            position: seen.facts.position,
            hash: seen.now.hash(),
            leader_node_id: me.0,
            term: state.term,
            last_position: seen.last_position,
            joint: seen.now.voters.len() > 1,
            members: seen.nodes.iter().map(member).collect(),
            retired_node_ids: retired.into_iter().map(|(id, _)| id.0).collect(),
        })
    }
}
