//! Sites: changed for one revision of their table, told to members on their sessions, and waited for
//! until everybody who can be heard has applied them.
//!
//! Which members have is known to the super-node that each has its session with; the others are
//! asked. A member that says nothing in time is named and waited for no longer: what it answers
//! requests by is older, and it takes the newest when it is back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::join_all;
use shoal_proto::limits::{RPC_DEADLINE_MS, SITES_APPLY_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1::command::Command;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::wire::v1::{self, SitesAppliedReply};
use shoal_proto::{NodeId, RpcError};

use super::tier::{Tier, ms};
use crate::membership::{Member, Role};
use crate::rpc::with_deadline;

/// Between two looks at who has applied a change, when nobody tells, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;

/// PURE. The revision of the sites that each member with an open session here has applied.
#[derive(Debug, Default)]
pub(super) struct Applied(HashMap<u64, (NodeId, u64)>);

impl Applied {
    /// A member's session begins.
    pub(super) fn open(&mut self, session_id: u64, node: NodeId) {
        self.0.insert(session_id, (node, 0));
    }

    /// The member of that session has applied the sites of `revision`.
    pub(super) fn acked(&mut self, session_id: u64, revision: u64) {
        if let Some((_, applied)) = self.0.get_mut(&session_id) {
            *applied = (*applied).max(revision);
        }
    }

    /// The session has ended.
    pub(super) fn closed(&mut self, session_id: u64) {
        self.0.remove(&session_id);
    }

    /// How many members have applied the sites of `revision`, and which have not.
    pub(super) fn count(&self, revision: u64) -> (u32, BTreeSet<NodeId>) {
        let mut newest: HashMap<NodeId, u64> = HashMap::new();
        for (node, applied) in self.0.values() {
            let known = newest.entry(*node).or_default();
            *known = (*known).max(*applied);
        }
        let waiting: BTreeSet<_> =
            newest.iter().filter(|(_, applied)| **applied < revision).map(|(id, _)| *id).collect();
        (u32::try_from(newest.len() - waiting.len()).unwrap_or(u32::MAX), waiting)
    }
}

/// All sites, as of everything that was committed before this was asked.
///
/// # Errors
/// `Retry` when the tier cannot be read in time.
pub(super) async fn read(tier: &Tier) -> Result<v1::SiteTable, RpcError> {
    tier.raft.read_barrier(ms(RPC_DEADLINE_MS)).await?;
    Ok(tier.index.sites())
}

/// Makes a change, and waits until everybody has applied it, as long as that is worth it.
///
/// # Errors
/// `Retry` when it could not be committed in time.
pub(super) async fn change(
    tier: &Arc<Tier>,
    change: v1::ChangeSites,
) -> Result<v1::ChangeSitesReply, RpcError> {
    let nothing = change.put.is_empty() && change.drop.is_empty();
    let revision = if nothing {
        change.base
    } else {
        let outcome = tier.submit(Command::ChangeSites(change)).await?;
        tier.raft.wait_applied(outcome.position, ms(WRITE_DEADLINE_MS)).await?;
        if outcome.reply.refused {
            let revision = tier.index.sites_revision();
            return Ok(v1::ChangeSitesReply { refused: true, revision, applied: None });
        }
        outcome.position
    };
    let applied = applied_everywhere(tier, revision).await;
    Ok(v1::ChangeSitesReply { refused: false, revision, applied: Some(applied) })
}

async fn applied_everywhere(tier: &Arc<Tier>, revision: u64) -> SitesAppliedReply {
    let records = tier.index.records();
    let others: Vec<Member> = records
        .iter()
        .map(|record| &record.member)
        .filter(|member| member.role == Role::Super && member.up && member.id != tier.me())
        .cloned()
        .collect();
    // A super-node that does not answer leaves it open what its members have.
    let asked = others.iter().map(|other| async {
        let theirs = || {
            let own = records.iter().filter(|record| record.super_node == other.id);
            let nodes = own.filter(|record| record.member.up && record.member.role == Role::Node);
            nodes.map(|record| record.member.name.clone()).collect()
        };
        ask(tier, other, revision).await.unwrap_or_else(|error| {
            tracing::debug!(name = other.name, %error, "a super-node could not be asked");
            SitesAppliedReply { applied_on: 0, waiting_for: theirs() }
        })
    });
    let (here, there) = tokio::join!(applied(tier, revision, SITES_APPLY_MS), join_all(asked));
    let mut sum = here;
    for reply in there {
        sum.applied_on = sum.applied_on.saturating_add(reply.applied_on);
        sum.waiting_for.extend(reply.waiting_for);
    }
    sum.waiting_for.sort_unstable();
    sum.waiting_for.dedup();
    sum
}

async fn ask(tier: &Tier, other: &Member, revision: u64) -> Result<SitesAppliedReply, RpcError> {
    let channel = tier.channels.to(&other.cluster_address, &other.name)?;
    let request = v1::SitesAppliedRequest { revision, wait_ms: SITES_APPLY_MS };
    let deadline = ms(u64::from(SITES_APPLY_MS) + RPC_DEADLINE_MS);
    with_deadline(deadline, IndexClient::new(channel).sites_applied(request)).await
}

/// Another super-node asks: which members here have applied the sites of `revision`?
///
/// # Errors
/// `Retry` when this super-node does not know that revision yet.
pub(super) async fn answer(
    tier: &Tier,
    request: v1::SitesAppliedRequest,
) -> Result<SitesAppliedReply, RpcError> {
    tier.raft.wait_applied(request.revision, ms(RPC_DEADLINE_MS)).await?;
    Ok(applied(tier, request.revision, request.wait_ms.min(SITES_APPLY_MS)).await)
}

/// Waits until every member with a session here has applied the sites of `revision`, or the time is
/// up.
async fn applied(tier: &Tier, revision: u64, wait_ms: u32) -> SitesAppliedReply {
    let mut acks = tier.sessions.acks();
    let until_ms = tier.now_ms() + u64::from(wait_ms);
    loop {
        acks.borrow_and_update();
        let (applied_on, waiting) = tier.sessions.sites(|sites| sites.count(revision));
        let left_ms = until_ms.saturating_sub(tier.now_ms());
        if waiting.is_empty() || left_ms == 0 {
            let name = |id: &NodeId| {
                tier.index.member(*id).map_or_else(|| id.to_string(), |member| member.name)
            };
            return SitesAppliedReply {
                applied_on,
                waiting_for: waiting.iter().map(name).collect(),
            };
        }
        // Told of acknowledgements; sessions end untold.
        let _ = tokio::time::timeout(ms(LOOK_EVERY_MS.min(left_ms)), acks.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_waited_for_while_it_has_a_session() {
        let mut applied = Applied::default();
        applied.open(1, NodeId(11));
        applied.open(2, NodeId(12));
        assert_eq!(applied.count(5), (0, [NodeId(11), NodeId(12)].into()));
        applied.acked(1, 5);
        applied.acked(2, 4);
        assert_eq!(applied.count(5), (1, [NodeId(12)].into()));
        assert_eq!(applied.count(4), (2, [].into()));
        // Its next session knows more.
        applied.open(3, NodeId(12));
        applied.acked(3, 7);
        applied.acked(3, 6);
        assert_eq!(applied.count(7), (1, [NodeId(11)].into()));
        applied.closed(1);
        applied.closed(3);
        applied.acked(3, 9);
        assert_eq!(applied.count(5), (0, [NodeId(12)].into()));
    }
}
