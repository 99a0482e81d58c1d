//! What is so, and what is wanted, of a cluster's super-nodes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A learner, and a voter that may be relied on, is at most so many positions behind the leader.
pub const CAUGHT_UP_POSITIONS: u64 = 1_024;
/// A finding that gives up a super-node's data must hold for so long.
pub const LOST_AFTER_S: i64 = 30;
/// A super-node that runs for so long without being taken in is taken in by the operator.
pub const JOIN_WAIT_S: i64 = 30;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Super-nodes.
    pub size: usize,
    /// The cluster's name for itself.
    pub cluster_id: String,
    /// spec.paused.
    pub paused: bool,
    /// spec.mode is Plan.
    pub plan_only: bool,
    /// Restart pods only when somebody deletes them.
    pub on_delete: bool,
    /// For how long the tier must have been whole before the next restart, in seconds.
    pub min_ready_s: i64,
    /// For how long a super-node may be silent before it is replaced, in seconds.
    pub replace_after_s: i64,
    /// Wait before the leader is restarted.
    pub pause_before_leader: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            size: 3,
            cluster_id: "default.demo".to_owned(),
            paused: false,
            plan_only: false,
            on_delete: false,
            min_ready_s: 10,
            replace_after_s: 300,
            pause_before_leader: false,
        }
    }
}

/// What is so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observed {
    /// Unix seconds.
    pub now_s: i64,
    /// The tier was founded, ever.
    pub founded: bool,
    /// The super-nodes that are ours.
    pub members: Vec<Member>,
    /// What the tier says; nothing when it did not.
    pub tier: Option<Tier>,
    /// Since when the same one leads.
    pub leader_since_s: Option<i64>,
}

/// A super-node of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// It is to leave.
    pub leaving: bool,
    /// Somebody deletes its object.
    pub deleting: bool,
    /// Its id, once it had one.
    pub id: Option<String>,
    /// Its pod.
    pub pod: Option<Pod>,
    /// Since when its volume is missing, or another's, in Unix seconds.
    pub volume_missing_since_s: Option<i64>,
    /// Since when the tier has not heard of it, in Unix seconds.
    pub silent_since_s: Option<i64>,
    /// Its cluster address.
    pub address: String,
}

/// A super-node's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pod {
    /// Its container runs.
    pub running: bool,
    /// Since when it is ready, in Unix seconds.
    pub ready_since_s: Option<i64>,
    /// Since when it exists, in Unix seconds.
    pub created_s: i64,
    /// It is on its way out.
    pub terminating: bool,
    /// It ended, and will not run again.
    pub ended: bool,
    /// It is what is wanted now.
    pub current: bool,
}

/// What the tier says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tier {
    /// The cluster's name for itself.
    pub cluster_id: String,
    /// The membership's mark.
    pub mark: String,
    /// A change of the voters is half-way.
    pub joint: bool,
    /// The super-nodes.
    pub members: Vec<InTier>,
    /// Ids that were removed for ever.
    pub removed: BTreeSet<String>,
}

/// A super-node as the tier knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InTier {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// It votes.
    pub voter: bool,
    /// It leads.
    pub leader: bool,
    /// The leader heard of it lately.
    pub up: bool,
    /// Positions that it is behind; nothing while unknown.
    pub lag: Option<u64>,
}

impl InTier {
    /// It can be relied on.
    pub(super) fn sound(&self) -> bool {
        self.up && self.caught_up()
    }

    pub(super) fn caught_up(&self) -> bool {
        self.leader || self.lag.is_some_and(|lag| lag <= CAUGHT_UP_POSITIONS)
    }
}

impl Tier {
    /// Those with a vote.
    pub fn voters(&self) -> impl Iterator<Item = &InTier> {
        self.members.iter().filter(|member| member.voter)
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> Option<&InTier> {
        self.members.iter().find(|member| member.leader)
    }

    /// Whether the living among `voters` are a majority of them.
    pub(super) fn is_majority<'a>(voters: impl Iterator<Item = &'a InTier>) -> bool {
        let (mut all, mut up) = (0, 0);
        for voter in voters {
            all += 1;
            up += usize::from(voter.up);
        }
        up > all / 2
    }

    /// Whether most of all voters, as they are now, would be up without `id` running.
    pub(super) fn survives_stop_of(&self, id: &str) -> bool {
        let all = self.voters().count();
        let up = self.voters().filter(|voter| voter.up && voter.id != id).count();
        up > all / 2
    }

    /// Whether most voters would be up if `id` were no voter.
    pub(super) fn survives_removal_of(&self, id: &str) -> bool {
        Self::is_majority(self.voters()) && Self::is_majority(self.voters().filter(|v| v.id != id))
    }
}

impl Member {
    /// It is on its way out, by plan or by somebody's deletion.
    pub(super) fn goes(&self) -> bool {
        self.leaving || self.deleting
    }

    /// What the tier says of it. Names are never used twice; of two entries of one name, one is
    /// what the other was before it lost its disk.
    pub(super) fn in_tier<'a>(&self, tier: &'a Tier) -> Option<&'a InTier> {
        let named = tier.members.iter().filter(|other| other.name == self.name);
        named.max_by_key(|other| (other.up, other.voter))
    }

    /// The tier took it out for ever.
    pub(super) fn is_removed(&self, tier: &Tier) -> bool {
        let removed = self.id.as_ref().is_some_and(|id| tier.removed.contains(id));
        removed && self.in_tier(tier).is_none()
    }

    /// Its container runs, as far as anybody knows.
    pub(super) fn runs(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.running && !pod.terminating)
    }
}
