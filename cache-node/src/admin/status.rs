//! The document behind `/status`: one member's view of the cluster and its own figures. Part of
//! what users see: fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::events::Happened;
use crate::membership::mode::Shown;
use crate::membership::{ClusterView, Member};
use crate::metrics::{PerTier, Tier};

/// What a member knows of the cluster and of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// The cluster.
    pub cluster_id: String,
    /// The member's name.
    pub name: String,
    /// Its id, hexadecimal.
    pub node_id: String,
    /// `super` or `node`.
    pub role: String,
    /// Its version.
    pub version: String,
    /// The name of the tier's leader, where known.
    pub leader: Option<String>,
    /// The leader's term.
    pub term: u64,
    /// The position of the index that the view reflects.
    pub epoch: u64,
    /// The last position of the index that the member has applied; a node's newest fence.
    pub applied_position: u64,
    /// The mode that the member is in; `None` until it has looked for the tier.
    #[serde(default)]
    pub mode: Option<ModeStatus>,
    /// The members, as in the view.
    pub members: Vec<MemberStatus>,
    /// How voters are chosen; only from a leader that chooses.
    #[serde(default)]
    pub selection: Option<SelectionStatus>,
    /// What the member caches and serves; `None` for super-nodes.
    pub figures: Option<Figures>,
    /// How far it is with leaving; `None` for super-nodes.
    #[serde(default)]
    pub drain: Option<DrainStatus>,
    /// What happened last in its process, the oldest first.
    #[serde(default)]
    pub events: Vec<Happened>,
}

/// A member's mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeStatus {
    /// `pure`, `hybrid` or `super-node`.
    pub name: String,
    /// Unix milliseconds of the last change of mode.
    pub since_ms: u64,
    /// What it follows from.
    pub why: String,
}

impl From<&Shown> for ModeStatus {
    fn from(shown: &Shown) -> Self {
        let Shown { mode, since_ms, why } = shown;
        Self { name: mode.name().to_owned(), since_ms: *since_ms, why: why.clone() }
    }
}

/// How the tier's leader chooses voters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelectionStatus {
    /// Voters wanted.
    pub wanted: usize,
    /// Voters there are.
    pub voters: usize,
    /// Why nothing is changed now, or something is.
    pub state: String,
    /// The last change that this leader made.
    pub last_change: Option<SelectionChange>,
    /// The nodes that can be chosen, the best first.
    pub candidates: Vec<CandidateStatus>,
}

/// A change of the tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectionChange {
    /// `promote`, `replace` or `demote`.
    pub kind: String,
    /// The name of who got a vote.
    pub promoted: Option<String>,
    /// The name of who lost it.
    pub demoted: Option<String>,
    /// Why.
    pub reason: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

/// A node that can be chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// Its name.
    pub name: String,
    /// Its id, hexadecimal.
    pub node_id: String,
    /// `voter` or `standby`.
    pub standing: String,
    /// How fit it is: -70 to 70 points.
    pub score: f64,
}

/// A member in the view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Its id, hexadecimal.
    pub node_id: String,
    /// `super` or `node`.
    pub role: String,
    /// `up` or `down`.
    pub state: String,
    /// It has a vote in the tier.
    pub voter: bool,
    /// The tier chooses its role, not its configuration.
    #[serde(default)]
    pub auto: bool,
    /// It is about to leave.
    #[serde(default)]
    pub draining: bool,
    /// `host:port` of its cluster listener.
    pub cluster_address: String,
    /// `host:port` of its edge; empty where it has none.
    pub edge_address: String,
    /// `host:port` of its admin listener.
    pub admin_address: String,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// Its version.
    pub version: String,
}

/// A node's own figures since it started, but for the first three, which are of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Body bytes on disk.
    pub cached_bytes: u64,
    /// Objects stored whole.
    pub cached_objects: u64,
    /// The store's budget.
    pub budget_bytes: u64,
    /// Requests answered, by tier.
    pub hits: Hits,
    /// Body bytes sent to clients.
    pub response_bytes: u64,
    /// Body bytes received from origins.
    pub origin_bytes: u64,
    /// Chunk bytes received from peers.
    pub peer_bytes_in: u64,
    /// Chunk bytes sent to peers.
    pub peer_bytes_out: u64,
}

/// How far a node is; see docs/drain-json.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// `serving`, `draining` or `drained`.
    pub state: String,
    /// Objects that are still to be looked at or given away.
    pub objects_left: u64,
    /// Objects that were given away since the drain began, and their body bytes.
    pub handed_off: u64,
    /// Their body bytes.
    pub handed_off_bytes: u64,
    /// Nothing has become safe for a minute.
    pub stalled: bool,
    /// What it waits for.
    pub why: String,
}

impl DrainStatus {
    /// With nothing given away yet.
    pub(crate) fn new(state: &str, why: &str) -> Self {
        Self {
            state: state.to_owned(),
            objects_left: 0,
            handed_off: 0,
            handed_off_bytes: 0,
            stalled: false,
            why: why.to_owned(),
        }
    }

    /// Not asked to leave.
    pub(crate) fn serving() -> Self {
        Self::new("serving", "this node was not asked to drain")
    }
}

/// Requests answered, by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// From memory.
    pub memory: u64,
    /// From disk.
    pub disk: u64,
    /// From a peer.
    pub peer: u64,
    /// From the origin, to be cached.
    pub origin: u64,
    /// From the origin, passed through.
    pub pass: u64,
}

impl Hits {
    /// The counters of now.
    pub fn of(requests: &PerTier) -> Self {
        let of = |tier| requests.of(tier).get();
        Self {
            memory: of(Tier::Memory),
            disk: of(Tier::Disk),
            peer: of(Tier::Peer),
            origin: of(Tier::Origin),
            pass: of(Tier::Pass),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory + other.memory,
            disk: self.disk + other.disk,
            peer: self.peer + other.peer,
            origin: self.origin + other.origin,
            pass: self.pass + other.pass,
        }
    }
}

impl From<&Member> for MemberStatus {
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
            up,
            voter,
            auto,
            draining,
        } = member;
        Self {
            name: name.clone(),
            node_id: id.to_string(),
            role: role.name().to_owned(),
            state: if *up { "up" } else { "down" }.to_owned(),
            voter: *voter,
            auto: *auto,
            draining: *draining,
            cluster_address: cluster_address.clone(),
            edge_address: edge_address.clone(),
            admin_address: admin_address.clone(),
            zone: zone.clone(),
            version: version.clone(),
        }
    }
}

impl StatusDocument {
    /// Fills in what the view tells: epoch, term, leader and members.
    #[must_use]
    pub fn with_view(mut self, view: &ClusterView) -> Self {
        self.epoch = view.epoch;
        self.term = view.term;
        let leader = view.leader.and_then(|id| view.member(id));
        self.leader = leader.map(|member| member.name.clone());
        self.members = view.members.iter().map(MemberStatus::from).collect();
        self
    }
}
