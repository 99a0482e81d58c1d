//! The documents behind `/v1/members`: who is in the cluster as the tier's leader knows it, and the
//! changes that may be asked for. Part of what users see: fields are added, never renamed.

use serde::{Deserialize, Serialize};

/// Who is in the tier, read linearizably, and who else is in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembersDocument {
    /// The cluster.
    pub cluster_id: String,
    /// The membership's mark, `POSITION/HASH`: what a change is guarded by.
    pub membership: String,
    /// A change of the voters is half-way.
    pub joint: bool,
    /// The leader's name.
    pub leader: String,
    /// Its term.
    pub term: u64,
    /// The leader's last position.
    pub last_position: u64,
    /// How often the tier was recovered from the loss of its majority.
    pub generation: u64,
    /// Super-nodes, then nodes, by name.
    pub members: Vec<TierMember>,
    /// Ids of super-nodes that were removed and are never taken back, the newest first.
    pub removed: Vec<String>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierMember {
    /// Its name.
    pub name: String,
    /// Its id, hexadecimal.
    pub node_id: String,
    /// `voter`, `learner` or `node`.
    pub role: String,
    /// A learner that was demoted: it gets no vote before somebody promotes it.
    pub held_back: bool,
    /// `up` or `down`.
    pub state: String,
    /// It leads.
    pub leader: bool,
    /// By how many positions its log is behind the leader's; `None` for nodes, and while unknown.
    pub lag: Option<u64>,
    /// Milliseconds since it last answered the leader; `None` for nodes, and when it never did.
    pub silent_ms: Option<u64>,
    /// `host:port` of its cluster listener.
    pub cluster_address: String,
}

/// The body of `POST /v1/members`: one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeOrder {
    /// The membership that it is meant for, as it was read.
    pub expect: String,
    /// What is asked for.
    pub change: Change,
}

/// A change of the tier's membership. Super-nodes are named by their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Change {
    /// Takes in the super-node at this address, as a learner.
    Add(String),
    /// Gives a learner the vote.
    Promote(String),
    /// Takes a voter's vote away; it stays as a learner that is held back.
    Demote(String),
    /// Takes a super-node out, for ever.
    Remove(String),
    /// Takes a voter out, for ever, and gives its vote to a learner.
    Replace {
        /// The voter.
        old: String,
        /// The learner.
        new: String,
    },
    /// Hands the lead to a voter.
    Transfer(String),
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The position of the membership that is so now.
    pub position: u64,
    /// The id of whom it was about.
    pub node_id: String,
}
