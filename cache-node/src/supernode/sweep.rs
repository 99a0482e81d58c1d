//! PURE. On the leader: super-nodes that fell silent, and the members that only they vouched for.

use std::collections::{BTreeSet, HashMap};

use shoal_proto::NodeId;
use shoal_proto::wire::v1;

use super::index::Record;
use crate::membership::Role;

/// Since when each silent super-node has been silent, in monotonic milliseconds.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    silent: HashMap<NodeId, u64>,
}

impl Sweep {
    /// Somebody else leads: silence is no longer ours to judge.
    pub(super) fn forget(&mut self) {
        self.silent.clear();
    }

    /// Members to be declared down at `now_ms`: silent super-nodes, and whom they vouch for. `heard`
    /// says whether a super-node answered lately.
    pub(super) fn due(
        &mut self,
        (now_ms, lease_ms): (u64, u64),
        me: NodeId,
        records: &[Record],
        heard: impl Fn(NodeId) -> bool,
    ) -> Vec<v1::MemberDown> {
        let up = || records.iter().filter(|record| record.member.up);
        let vouching: BTreeSet<NodeId> = up().map(voucher).filter(|id| *id != me).collect();
        self.silent.retain(|id, _| vouching.contains(id) && !heard(*id));
        for id in vouching.into_iter().filter(|id| !heard(*id)) {
            self.silent.entry(id).or_insert(now_ms);
        }
        let gone = |id: NodeId| {
            self.silent.get(&id).is_some_and(|since| now_ms.saturating_sub(*since) >= lease_ms)
        };
        let lost = up().filter(|record| gone(voucher(record)));
        let down = |record: &Record| v1::MemberDown {
            node_id: record.member.id.0,
            session_id: record.session_id,
        };
        lost.map(down).collect()
    }
}

fn voucher(record: &Record) -> NodeId {
    if record.member.role == Role::Super { record.member.id } else { record.super_node }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    fn record(id: u64, role: Role, super_node: u64) -> Record {
        let member = Member {
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
        };
        Record { member, session_id: id + 100, super_node: NodeId(super_node), position: 1 }
    }

    fn ids(downs: &[v1::MemberDown]) -> Vec<u64> {
        downs.iter().map(|down| down.node_id).collect()
    }

    #[test]
    fn a_silent_super_node_goes_down_with_its_members() {
        let records = [
            record(1, Role::Super, 1),
            record(2, Role::Super, 2),
            record(7, Role::Node, 1),
            record(8, Role::Node, 2),
            record(9, Role::Node, 3),
        ];
        let mut sweep = Sweep::default();
        let me = NodeId(1);
        let silent = |id: NodeId| id == me;
        assert!(sweep.due((0, 6_000), me, &records, silent).is_empty());
        assert!(sweep.due((5_999, 6_000), me, &records, silent).is_empty());
        assert_eq!(ids(&sweep.due((6_000, 6_000), me, &records, silent)), [2, 8, 9]);
        let all_but = |silent: u64| move |id: NodeId| id.0 != silent;
        assert_eq!(ids(&sweep.due((6_001, 6_000), me, &records, all_but(3))), [9]);
        assert!(sweep.due((6_002, 6_000), me, &records, all_but(2)).is_empty(), "2 was back");
        sweep.forget();
        assert!(sweep.due((20_000, 6_000), me, &records, silent).is_empty(), "judged anew");
    }
}
