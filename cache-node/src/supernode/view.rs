//! Views of the cluster: the index's members joined with what Raft says of votes and leaders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::NodeId;

use super::raft::TierState;
use super::tier::Tier;
use crate::membership::{ClusterView, Member, Role};

/// Changes that come within this time make one view, in milliseconds.
const GATHER_MS: u64 = 20;
/// So many members make it a millisecond longer: a view goes to every member and names them all.
const MEMBERS_PER_MS: u64 = 4;

/// The view as of one position: PURE.
pub(super) fn build(members: &[Member], members_epoch: u64, tier: &TierState) -> ClusterView {
    let voting = |member: &Member| Member {
        voter: member.role == Role::Super && tier.voters.contains(&member.id),
        ..member.clone()
    };
    ClusterView {
        epoch: members_epoch.max(tier.applied),
        members: members.iter().map(voting).collect(),
        leader: tier.leader,
        term: tier.term,
    }
}

/// Keeps the tier's view up to date, and the address book of consensus with it.
pub(super) async fn run(tier: Arc<Tier>) {
    let mut index = tier.index.changed();
    let mut raft = tier.raft.watch();
    let mut learned = HashMap::new();
    loop {
        if refresh(&tier) {
            learn(&tier, &mut learned);
        }
        let changed = tokio::select! {
            changed = index.changed() => changed.is_ok(),
            changed = raft.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
        let members = tier.view.borrow().members.len() as u64;
        tokio::time::sleep(Duration::from_millis(GATHER_MS + members / MEMBERS_PER_MS)).await;
    }
}

fn refresh(tier: &Tier) -> bool {
    let view = tier.build_view();
    tier.view.send_if_modified(|current| {
        let same = (&current.members, current.leader, current.term)
            == (&view.members, view.leader, view.term);
        if !same {
            *current = view;
        }
        !same
    })
}

/// Only what the index says anew: what a super-node told us itself since then is newer.
fn learn(tier: &Tier, learned: &mut HashMap<NodeId, String>) {
    for member in tier.super_nodes().iter().filter(|member| member.id != tier.me()) {
        let address = member.cluster_address.clone();
        if learned.insert(member.id, address).as_ref() != Some(&member.cluster_address) {
            tier.raft.learn_address(&member.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, role: Role) -> Member {
        Member {
            id: NodeId(id),
            name: format!("n{id}"),
            role,
            cluster_address: String::new(),
            edge_address: String::new(),
            admin_address: String::new(),
            zone: String::new(),
            version: String::new(),
            up: true,
            voter: false,
            auto: false,
            draining: false,
        }
    }

    #[test]
    fn votes_come_from_raft_and_members_from_the_index() {
        let members = [member(1, Role::Super), member(2, Role::Super), member(3, Role::Node)];
        let tier = TierState {
            leader: Some(NodeId(1)),
            term: 4,
            applied: 9,
            voters: [NodeId(1), NodeId(3)].into(),
            ..Default::default()
        };
        let view = build(&members, 7, &tier);
        assert_eq!(view.voters().map(|m| m.id.0).collect::<Vec<_>>(), [1]);
        assert_eq!((view.epoch, view.leader, view.term), (9, Some(NodeId(1)), 4));
    }
}
