//! PURE. The members that the index knows, and their sessions.
//!
//! Invariants: one member a name; a live member's id is nobody else's to take; a member goes down
//! only with the session that vouches for it; members that are down are bounded, and so are all. A
//! super-node that was taken out of the tier is retired: its id is no super-node's ever again. Of
//! retired ids the newest are kept; an older one is still refused by its own data directory, which
//! knows that it was removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::NodeId;
use shoal_proto::limits::MEMBERS_MAX;
use shoal_proto::wire::{WireError, check_node_info, v1};

use crate::membership::{Member, Role};

/// Most members that are kept while they are down; the oldest is forgotten beyond it.
pub(super) const DOWN_MEMBERS_MAX: usize = 256;
/// Most ids of retired super-nodes that are kept; the oldest is dropped beyond it.
pub(super) const RETIRED_MAX: usize = 4_096;

/// A member and the session that vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The member; whether it votes is not the index's to know.
    pub member: Member,
    /// Its session.
    pub session_id: u64,
    /// The super-node that its session is with.
    pub super_node: NodeId,
    /// Position of the last change.
    pub position: u64,
}

/// All members.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    records: BTreeMap<NodeId, Record>,
    /// Super-nodes that were taken out of the tier, and the position at which they were.
    retired: BTreeMap<NodeId, u64>,
}

/// What a change of the members came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Members to be written, put or removed.
    pub(super) nodes: Vec<NodeId>,
    /// The id was another node's until now.
    pub(super) renamed: bool,
}

impl Members {
    /// A member's session began; `None` when a limit stands against it.
    pub(super) fn put(&mut self, position: u64, put: &v1::PutMember) -> Option<Changed> {
        let info = put.node.clone()?;
        let member = Member::try_from(v1::Member {
            info: Some(info),
            state: v1::MemberState::Up.into(),
            voter: false,
        })
        .ok()?;
        let id = member.id;
        if member.role == Role::Super && self.retired.contains_key(&id) {
            return None;
        }
        let holder_of_id = self.records.get(&id).map(|record| &record.member);
        if holder_of_id.is_some_and(|other| other.up && other.name != member.name) {
            return None;
        }
        let same_name = |record: &&Record| record.member.name == member.name;
        let replaced = self.records.values().filter(same_name).map(|record| record.member.id);
        let mut nodes: Vec<_> = replaced.filter(|other| *other != id).collect();
        if self.records.len() - nodes.len() >= MEMBERS_MAX && !self.records.contains_key(&id) {
            nodes.push(self.oldest_down()?);
        }
        nodes.iter().for_each(|gone| self.forget(*gone));
        let super_node = NodeId(put.super_node_id);
        let record = Record { member, session_id: put.session_id, super_node, position };
        let name = record.member.name.clone();
        let before = self.records.insert(id, record);
        nodes.push(id);
        Some(Changed { nodes, renamed: before.is_some_and(|other| other.member.name != name) })
    }

    /// A session's lease ran out; `None` when another session vouches for the member by now.
    pub(super) fn down(&mut self, position: u64, down: &v1::MemberDown) -> Option<Changed> {
        let id = NodeId(down.node_id);
        let record = self.records.get_mut(&id)?;
        if record.session_id != down.session_id || !record.member.up {
            return None;
        }
        record.member.up = false;
        record.position = position;
        let mut nodes = vec![id];
        if self.records.values().filter(|record| is_spare(record)).count() > DOWN_MEMBERS_MAX {
            let oldest = self.oldest_down()?;
            self.forget(oldest);
            nodes.push(oldest);
        }
        Some(Changed { nodes, renamed: false })
    }

    /// Super-nodes were taken out of the tier at `position`.
    pub(super) fn retire(&mut self, position: u64, ids: &[u64]) -> Changed {
        let mut nodes: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
        for id in &nodes {
            self.retired.entry(*id).or_insert(position);
            let known = self.records.get(id);
            if known.is_some_and(|record| record.member.role == Role::Super) {
                self.forget(*id);
            }
        }
        while self.retired.len() > RETIRED_MAX {
            let oldest = self.retired.iter().min_by_key(|(id, position)| (**position, **id));
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            self.retired.remove(&oldest);
            nodes.push(oldest);
        }
        Changed { nodes, renamed: false }
    }

    /// Takes in the mark of a retired super-node.
    pub(super) fn restore_retired(&mut self, id: NodeId, position: u64) {
        self.retired.insert(id, position);
    }

    /// The position at which this super-node was retired.
    pub(super) fn retired_at(&self, id: NodeId) -> Option<u64> {
        self.retired.get(&id).copied()
    }

    /// Retired super-nodes, and the positions at which they were.
    pub(super) fn retired(&self) -> &BTreeMap<NodeId, u64> {
        &self.retired
    }

    fn oldest_down(&self) -> Option<NodeId> {
        let down = self.records.values().filter(|record| is_spare(record));
        down.min_by_key(|record| (record.position, record.member.id)).map(|r| r.member.id)
    }

    fn forget(&mut self, id: NodeId) {
        self.records.remove(&id);
    }

    /// Takes in a record as it was written.
    pub(super) fn restore(&mut self, record: v1::MemberRecord) -> Result<(), WireError> {
        let facts = record.facts.unwrap_or_default();
        let info = facts.node.unwrap_or_default();
        check_node_info(&info)?;
        let state = if record.up { v1::MemberState::Up } else { v1::MemberState::Down };
        let member =
            Member::try_from(v1::Member { info: Some(info), state: state.into(), voter: false })?;
        let record = Record {
            session_id: facts.session_id,
            super_node: NodeId(facts.super_node_id),
            position: record.position,
            member,
        };
        self.records.insert(record.member.id, record);
        Ok(())
    }

    /// Whether a member is down, and has been since this session of its ended.
    pub(super) fn is_down(&self, id: NodeId, session_id: u64) -> bool {
        let record = self.records.get(&id);
        record.is_some_and(|record| !record.member.up && record.session_id == session_id)
    }

    /// A member's record, to be written.
    pub(super) fn get(&self, id: NodeId) -> Option<&Record> {
        self.records.get(&id)
    }

    /// All records in the order of their ids.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The position of the last change.
    pub(super) fn epoch(&self) -> u64 {
        self.records.values().map(|record| record.position).max().unwrap_or_default()
    }

    /// All members in the order of their ids.
    pub(super) fn list(&self) -> Arc<[Member]> {
        self.records.values().map(|record| record.member.clone()).collect()
    }
}

/// A member that may be forgotten to make room: super-nodes are not, the tier needs their addresses.
fn is_spare(record: &Record) -> bool {
    !record.member.up && record.member.role == Role::Node
}

impl From<&Record> for v1::MemberRecord {
    fn from(record: &Record) -> Self {
        let Record { member, session_id, super_node, position } = record;
        let facts = v1::PutMember {
            node: Some(member.into()),
            session_id: *session_id,
            super_node_id: super_node.0,
        };
        Self { facts: Some(facts), up: member.up, position: *position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(id: u64, name: &str, session_id: u64) -> v1::PutMember {
        let node = v1::NodeInfo {
            node_id: id,
            name: name.into(),
            role: v1::Role::Node.into(),
            ..Default::default()
        };
        v1::PutMember { node: Some(node), session_id, super_node_id: 1 }
    }

    fn down(node_id: u64, session_id: u64) -> v1::MemberDown {
        v1::MemberDown { node_id, session_id }
    }

    #[test]
    fn a_member_goes_down_only_with_its_own_session() {
        let mut members = Members::default();
        assert!(members.put(1, &put(5, "a", 10)).is_some());
        assert!(members.put(2, &put(5, "a", 11)).is_some());
        assert_eq!(members.down(3, &down(5, 10)), None);
        assert!(members.get(NodeId(5)).unwrap().member.up);
        assert!(members.down(4, &down(5, 11)).is_some());
        assert!(!members.get(NodeId(5)).unwrap().member.up);
        assert_eq!(members.down(5, &down(5, 11)), None);
        assert_eq!(members.epoch(), 4);
    }

    #[test]
    fn a_name_under_a_new_id_replaces_the_old_member() {
        let mut members = Members::default();
        members.put(1, &put(5, "a", 10));
        let changed = members.put(2, &put(6, "a", 11)).unwrap();
        assert_eq!(changed, Changed { nodes: vec![NodeId(5), NodeId(6)], renamed: false });
        assert_eq!(members.records().count(), 1);
    }

    #[test]
    fn a_live_members_id_cannot_be_taken() {
        let mut members = Members::default();
        members.put(1, &put(5, "a", 10));
        assert_eq!(members.put(2, &put(5, "b", 11)), None);
        members.down(3, &down(5, 10));
        assert!(members.put(4, &put(5, "b", 12)).unwrap().renamed);
    }

    #[test]
    fn members_are_bounded() {
        let mut members = Members::default();
        for id in 1..=MEMBERS_MAX as u64 {
            members.put(id, &put(id, &format!("n{id}"), id)).unwrap();
        }
        assert_eq!(members.put(9_000, &put(9_999, "late", 1)), None);
        members.down(9_001, &down(7, 7)).unwrap();
        let changed = members.put(9_002, &put(9_999, "late", 1)).unwrap();
        assert_eq!(changed.nodes, [NodeId(7), NodeId(9_999)]);
        assert_eq!(members.records().count(), MEMBERS_MAX);
    }

    #[test]
    fn members_that_are_down_are_bounded() {
        let mut members = Members::default();
        let count = DOWN_MEMBERS_MAX as u64 + 1;
        for id in 1..=count {
            members.put(id, &put(id, &format!("n{id}"), id)).unwrap();
        }
        for id in 1..=count {
            members.down(1_000 + id, &down(id, id)).unwrap();
        }
        assert_eq!(members.records().count(), DOWN_MEMBERS_MAX);
        assert!(members.get(NodeId(1)).is_none());
    }

    #[test]
    fn a_retired_super_node_is_never_taken_back() {
        let mut members = Members::default();
        let supers = |id, name, session_id| {
            let mut put = put(id, name, session_id);
            put.node.as_mut().unwrap().role = v1::Role::Super.into();
            put
        };
        members.put(1, &supers(5, "s", 10)).unwrap();
        assert_eq!(members.retire(2, &[5]).nodes, [NodeId(5)]);
        assert!(members.get(NodeId(5)).is_none());
        assert_eq!(members.put(3, &supers(5, "s", 11)), None);
        assert!(members.put(4, &supers(6, "s", 12)).is_some(), "the name is free");
        assert!(members.put(5, &put(5, "n", 13)).is_some(), "a node of that id is no super-node");
        assert_eq!(members.retired_at(NodeId(5)), Some(2));
    }

    #[test]
    fn retired_super_nodes_are_bounded() {
        let mut members = Members::default();
        let count = RETIRED_MAX as u64 + 1;
        for id in 1..count {
            assert_eq!(members.retire(id, &[id]).nodes, [NodeId(id)]);
        }
        assert_eq!(members.retire(count, &[count]).nodes, [NodeId(count), NodeId(1)]);
        assert_eq!((members.retired().len(), members.retired_at(NodeId(1))), (RETIRED_MAX, None));
    }
}
