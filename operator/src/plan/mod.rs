//! PURE. What to do next: what is so and what is wanted in, steps with gates out. It reads no clock,
//! asks nobody and writes nothing: the same facts give the same plan, so that the operator may die
//! between any two steps and the next one goes on from what it finds.
//!
//! Invariants, of every plan: at most one change of the tier's membership, and it bears the mark of
//! the membership that was seen; nothing is stopped without which the living are no majority, but
//! the only super-node there is; nobody's data is given up before the tier confirmed that it is out;
//! a node that may have last copies is deleted only when it has handed them off; a cluster and a
//! pool that are as wanted give no steps.
//!
//! | file | purpose |
//! |---|---|
//! | `facts` | what is so, and what is wanted, of a cluster's super-nodes |
//! | `supers` | the plan for super-nodes: which concern comes first |
//! | `joining` | taking in: learner, caught up, voter |
//! | `leaving` | taking out, and replacing the dead |
//! | `roll` | restarting one by one for a change |
//! | `pool` | the plan for a pool's nodes |
//!
//! Must not know of Kubernetes' types or of HTTP.

pub mod facts;
mod joining;
mod leaving;
pub mod pool;
mod roll;
pub mod supers;

use std::fmt;

use serde::Serialize;

/// Something to do, by its name in status and events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum Op {
    /// Make a super-node's object, volume and pod. The name is drawn when it is done.
    CreateMember {
        /// It founds the tier.
        founder: bool,
    },
    /// Make a super-node's pod, on the volume that it has.
    CreatePod {
        /// Whose.
        member: String,
    },
    /// Write down that a super-node is to leave, so that nobody changes their mind half-way.
    MarkLeaving {
        /// Who.
        member: String,
    },
    /// Ask the tier to take a super-node in, which did not manage by itself.
    Add {
        /// Who.
        member: String,
        /// Its cluster address.
        address: String,
        /// The membership that this is for.
        expect: String,
    },
    /// Give a learner the vote.
    Promote {
        /// Who.
        member: String,
        /// Its id.
        id: String,
        /// The membership that this is for.
        expect: String,
    },
    /// Give a lost voter's vote to a learner, by one joint change.
    Replace {
        /// Who is lost.
        member: String,
        /// Its id.
        old: String,
        /// The learner's id.
        new: String,
        /// The membership that this is for.
        expect: String,
    },
    /// Take a super-node out of the tier, for ever.
    Remove {
        /// Who.
        member: String,
        /// Its id.
        id: String,
        /// The membership that this is for.
        expect: String,
    },
    /// Hand the lead to another voter.
    Transfer {
        /// Who leads next.
        member: String,
        /// Its id.
        id: String,
        /// The membership that this is for.
        expect: String,
    },
    /// Delete a super-node's pod: to restart it with what is wanted now, or since it has left.
    DeletePod {
        /// Whose.
        member: String,
    },
    /// Let a super-node's object go, and its volume as the retention says.
    DeleteMember {
        /// Who.
        member: String,
    },
    /// Make a node of a pool. The name is drawn when it is done.
    CreateNode,
    /// Make the pod of a node that has a volume.
    RestoreNode {
        /// Who.
        node: String,
    },
    /// Write down that a node is to leave, and ask it to hand off what only it has.
    DrainNode {
        /// Who.
        node: String,
    },
    /// Take that back: the node stays.
    KeepNode {
        /// Who.
        node: String,
    },
    /// Delete a node's pod and volume.
    DeleteNode {
        /// Who.
        node: String,
    },
}

impl Op {
    /// Its name, for status, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateMember { .. } => "CreateMember",
            Self::CreatePod { .. } => "CreatePod",
            Self::MarkLeaving { .. } => "MarkLeaving",
            Self::Add { .. } => "Add",
            Self::Promote { .. } => "Promote",
            Self::Replace { .. } => "Replace",
            Self::Remove { .. } => "Remove",
            Self::Transfer { .. } => "Transfer",
            Self::DeletePod { .. } => "DeletePod",
            Self::DeleteMember { .. } => "DeleteMember",
            Self::CreateNode => "CreateNode",
            Self::RestoreNode { .. } => "RestoreNode",
            Self::DrainNode { .. } => "DrainNode",
            Self::KeepNode { .. } => "KeepNode",
            Self::DeleteNode { .. } => "DeleteNode",
        }
    }

    /// Whom it is about; empty for one that is still to be made.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::CreateMember { .. } | Self::CreateNode => "",
            Self::CreatePod { member }
            | Self::MarkLeaving { member }
            | Self::Add { member, .. }
            | Self::Promote { member, .. }
            | Self::Replace { member, .. }
            | Self::Remove { member, .. }
            | Self::Transfer { member, .. }
            | Self::DeletePod { member }
            | Self::DeleteMember { member } => member,
            Self::RestoreNode { node }
            | Self::DrainNode { node }
            | Self::KeepNode { node }
            | Self::DeleteNode { node } => node,
        }
    }
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Gate {
    /// spec.paused is set.
    Paused,
    /// spec.mode is Plan.
    PlanMode,
    /// The tier does not say who is in it.
    TierUnknown,
    /// The tier that answers is another cluster's.
    ClusterId,
    /// A change of the membership is half-way.
    JointChange,
    /// Somebody is joining or leaving: one at a time.
    OneAtATime,
    /// Without the one in question the living would be no majority.
    Quorum,
    /// A learner has not caught up.
    CaughtUp,
    /// A voter beside the one in question is down or behind.
    OthersUp,
    /// The same super-node has not led for long enough.
    LeaderStable,
    /// No other voter can lead.
    NoSuccessor,
    /// spec.upgrade.pauseBeforeLeader is set.
    BeforeLeader,
    /// spec.upgrade.strategy is OnDelete.
    OnDelete,
    /// A pod is not ready, or not for long enough.
    PodsReady,
    /// A pod is on its way out.
    PodGone,
    /// Most super-nodes are lost for good.
    Recovery,
    /// A voter is nobody of ours.
    UnknownVoter,
    /// A finding must be seen twice.
    SeenTwice,
    /// A node hands off what only it has.
    HandOff,
    /// A node makes no progress in that.
    Stalled,
    /// Too few nodes would be left.
    Available,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A step, why, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    #[serde(flatten)]
    pub op: Op,
    /// Why.
    pub why: String,
    /// What it waits for, and what was found there; nothing when it can be done now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
}

/// What stands against a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// By its name.
    pub by: Gate,
    /// What was found.
    pub detail: String,
}

/// What to do next: steps that can be done now, in this order, and steps that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Adds a step that can be done now.
    fn now(&mut self, op: Op, why: impl Into<String>) {
        self.steps.push(Step { op, why: why.into(), blocked: None });
    }

    /// Adds a step that waits for the first gate that `gates` found shut, or can be done now.
    fn gated(&mut self, op: Op, why: impl Into<String>, gates: Result<(), Blocked>) {
        self.steps.push(Step { op, why: why.into(), blocked: gates.err() });
    }

    /// The steps that can be done now.
    pub fn ready(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.blocked.is_none())
    }

    /// Nothing to do and nothing to wait for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// The same plan with every step waiting for `gate`.
    #[must_use]
    pub fn held(mut self, gate: Gate, detail: &str) -> Self {
        for step in &mut self.steps {
            step.blocked = Some(Blocked { by: gate, detail: detail.to_owned() });
        }
        self
    }
}

/// A gate: open when `open`, else shut with `detail`.
fn gate(by: Gate, open: bool, detail: impl FnOnce() -> String) -> Result<(), Blocked> {
    if open { Ok(()) } else { Err(Blocked { by, detail: detail() }) }
}
