//! The documents of control calls, as far as the operator reads them. Fields that it does not know
//! are passed over: members of a later version say more.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `GET /v1/members`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Members {
    /// The cluster.
    pub cluster_id: String,
    /// The membership's mark.
    pub membership: String,
    /// A change of the voters is half-way.
    pub joint: bool,
    /// Super-nodes and nodes.
    pub members: Vec<TierMember>,
    /// Ids that are never taken back.
    pub removed: Vec<String>,
}

/// A member in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TierMember {
    /// Its name.
    pub name: String,
    /// Its id.
    pub node_id: String,
    /// `voter`, `learner` or `node`.
    pub role: String,
    /// `up` or `down`.
    pub state: String,
    /// It leads.
    pub leader: bool,
    /// Positions that it is behind.
    pub lag: Option<u64>,
}

/// `GET /status`, of which the operator needs only who runs what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The members.
    pub members: Vec<MemberVersion>,
}

/// A member's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MemberVersion {
    /// Its name.
    pub name: String,
    /// `up` or `down`: the tier remembers those that left for a while.
    pub state: String,
    /// Its version.
    pub version: String,
}

/// A change for `POST /v1/members`.
#[must_use]
pub fn change(expect: &str, change: &Value) -> Value {
    json!({ "expect": expect, "change": change })
}

/// `GET /v1/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// `serving`, `draining` or `drained`.
    pub state: String,
    /// Objects that only it has.
    pub objects_left: u64,
    /// It makes no progress.
    pub stalled: bool,
}

/// `PUT /v1/sites/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Site {
    /// Its revision, a position in the index.
    pub revision: String,
    /// Nodes that serve it.
    pub applied_on: u64,
    /// Nodes that do not yet.
    pub waiting_for: Vec<String>,
}

/// `POST /v1/purge`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Purged {
    /// What came of each.
    pub purges: Vec<PurgedOne>,
    /// How many failed.
    pub failed: u64,
}

/// What came of one purge.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PurgedOne {
    /// The fence's position.
    pub position: Option<u64>,
    /// Nodes that have applied it.
    pub nodes_acknowledged: Option<u64>,
    /// Why it failed.
    pub error: Option<Value>,
}

/// `POST /v1/prefetch` and `GET /v1/prefetch/ID`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prefetch {
    /// Its name.
    pub id: String,
    /// Objects to be had.
    pub total: u64,
    /// Objects had.
    pub done: u64,
    /// Objects that could not be.
    pub failed: u64,
    /// Bytes fetched.
    pub bytes: u64,
    /// The first failures.
    pub failures: Vec<Value>,
    /// It is over.
    pub finished: bool,
}
