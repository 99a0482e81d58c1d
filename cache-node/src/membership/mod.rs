//! PURE. A node's picture of the cluster: members, roles, state, mode; and where keys have their
//! homes.
//! Must not know how the picture arrives or how anybody is reached.

pub mod handoff;
pub mod mode;
pub mod placement;

use std::sync::Arc;

use shoal_proto::NodeId;
use shoal_proto::limits::MEMBERS_MAX;
use shoal_proto::wire::{WireError, check_node_info, v1};

/// A node's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Caches, serves clients and peers.
    Node,
    /// Keeps the index.
    Super,
}

impl Role {
    /// Its name in configuration, JSON and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Super => "super",
        }
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Node => Self::Node,
            Role::Super => Self::Super,
        }
    }
}

/// What configuration makes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfiguredRole {
    /// A node.
    Node,
    /// A super-node.
    Super,
    /// A node that is a super-node too while the tier chooses it.
    Auto,
}

impl ConfiguredRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Node, Self::Super, Self::Auto];

    /// Its name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Super => "super",
            Self::Auto => "auto",
        }
    }

    /// Whether it has an edge and a store.
    pub fn caches(self) -> bool {
        matches!(self, Self::Node | Self::Auto)
    }

    /// Whether it can found a cluster.
    pub fn founds(self) -> bool {
        matches!(self, Self::Super | Self::Auto)
    }

    /// How it introduces itself before the tier has chosen anybody.
    pub fn first(self) -> Role {
        if self == Self::Super { Role::Super } else { Role::Node }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its name, as in its certificate.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// `host:port` of its cluster listener.
    pub cluster_address: String,
    /// `host:port` of its edge; empty where it has none.
    pub edge_address: String,
    /// `host:port` of its admin listener.
    pub admin_address: String,
    /// Failure zone; empty when unknown.
    pub zone: String,
    /// Its version.
    pub version: String,
    /// Its session lease holds.
    pub up: bool,
    /// It has a vote in the tier.
    pub voter: bool,
    /// The tier chooses its role, not its configuration.
    pub auto: bool,
    /// It is about to leave: it gives copies away and is given none.
    pub draining: bool,
}

impl Member {
    /// Whether it caches: every node does, and a super-node with an edge.
    pub fn caches(&self) -> bool {
        self.role == Role::Node || !self.edge_address.is_empty()
    }
}

/// The cluster as of one position of the index. Cheap to clone and share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// The position of the index that this view reflects.
    pub epoch: u64,
    /// Members in the order of their ids.
    pub members: Arc<[Member]>,
    /// The tier's leader, where known.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
}

impl ClusterView {
    /// The member of that id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|at| &self.members[at])
    }

    /// The tier's voters.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.voter)
    }

    /// Members that cache, and whose session lease holds.
    pub fn nodes_up(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.up && member.caches())
    }

    /// Those of them that are there to stay: they can be given copies.
    pub fn nodes_staying(&self) -> impl Iterator<Item = &Member> {
        self.nodes_up().filter(|member| !member.draining)
    }
}

impl TryFrom<v1::View> for ClusterView {
    type Error = WireError;

    fn try_from(wire: v1::View) -> Result<Self, WireError> {
        if wire.members.len() > MEMBERS_MAX {
            return Err(WireError::field("members", wire.members.len(), "at most 4,096"));
        }
        let mut members =
            wire.members.into_iter().map(Member::try_from).collect::<Result<Vec<_>, _>>()?;
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        let leader = Some(NodeId(wire.leader_node_id)).filter(|id| id.0 != 0);
        Ok(Self { epoch: wire.epoch, members: members.into(), leader, term: wire.term })
    }
}

impl From<&ClusterView> for v1::View {
    fn from(view: &ClusterView) -> Self {
        Self {
            epoch: view.epoch,
            members: view.members.iter().map(v1::Member::from).collect(),
            leader_node_id: view.leader.map_or(0, |id| id.0),
            term: view.term,
        }
    }
}

impl TryFrom<v1::Member> for Member {
    type Error = WireError;

    fn try_from(wire: v1::Member) -> Result<Self, WireError> {
        let up = wire.state() == v1::MemberState::Up;
        let info =
            wire.info.ok_or_else(|| WireError::field("info", "missing", "a node's facts"))?;
        check_node_info(&info)?;
        let role = if info.role() == v1::Role::Super { Role::Super } else { Role::Node };
        Ok(Self {
            id: NodeId(info.node_id),
            name: info.name,
            role,
            cluster_address: info.cluster_address,
            edge_address: info.edge_address,
            admin_address: info.admin_address,
            zone: info.zone,
            version: info.version,
            up,
            voter: wire.voter,
            auto: info.auto,
            draining: info.draining,
        })
    }
}

impl From<&Member> for v1::Member {
    fn from(member: &Member) -> Self {
        let state = if member.up { v1::MemberState::Up } else { v1::MemberState::Down };
        Self { info: Some(member.into()), state: state.into(), voter: member.voter }
    }
}

impl From<&Member> for v1::NodeInfo {
    fn from(member: &Member) -> Self {
        let Member {
            id,
            name,
            role,
            cluster_address,
            edge_address,
            admin_address,
            zone,
            version,
            up: _,
            voter: _,
            auto,
            draining,
        } = member;
        let role = v1::Role::from(*role);
        Self {
            node_id: id.0,
            name: name.clone(),
            role: role.into(),
            cluster_address: cluster_address.clone(),
            edge_address: edge_address.clone(),
            admin_address: admin_address.clone(),
            zone: zone.clone(),
            version: version.clone(),
            auto: *auto,
            draining: *draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id: NodeId(id),
            name: format!("node-{id}"),
            role: Role::Node,
            cluster_address: "127.0.0.1:7400".into(),
            edge_address: String::new(),
            admin_address: String::new(),
            zone: String::new(),
            version: "0.1.0".into(),
            up: true,
            voter: false,
            auto: false,
            draining: false,
        }
    }

    #[test]
    fn a_view_round_trips_sorted() {
        let wire = v1::View {
            epoch: 9,
            members: [3, 1, 2].map(|id| v1::Member::from(&member(id))).to_vec(),
            leader_node_id: 0,
            term: 4,
        };
        let view = ClusterView::try_from(wire).unwrap();
        assert_eq!(view.members.iter().map(|m| m.id.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(view.member(NodeId(2)), Some(&member(2)));
        assert_eq!(view.leader, None);
        assert_eq!(ClusterView::try_from(v1::View::from(&view)), Ok(view));
    }

    #[test]
    fn a_member_without_an_id_is_refused() {
        let wire = v1::View { members: vec![v1::Member::from(&member(0))], ..Default::default() };
        assert_eq!(ClusterView::try_from(wire).unwrap_err().field, "node_id");
    }
}
