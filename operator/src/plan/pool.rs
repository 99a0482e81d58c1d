//! The plan for a pool's nodes: scale out, scale in by cordon, hand-off and deletion, and replacing
//! for a change with some nodes to spare. A drain is taken back when more nodes are wanted again.

use serde::{Deserialize, Serialize};

use super::{Blocked, Gate, Op, Plan, gate};

/// Nodes that hand off at a time: two that leave together could hand off to one another.
const DRAINING_MAX: usize = 1;
/// Nodes that are made at a time.
const CREATED_MAX: usize = 8;

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Nodes.
    pub size: usize,
    /// Nodes above that while they are replaced.
    pub max_surge: usize,
    /// Nodes below that while they are replaced.
    pub max_unavailable: usize,
    /// For how long a node must be ready before it counts, in seconds.
    pub min_ready_s: i64,
    /// A node whose drain makes no progress leaves all the same.
    pub force: bool,
    /// The cluster is paused.
    pub paused: bool,
    /// The cluster's mode is Plan.
    pub plan_only: bool,
}

/// What is so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observed {
    /// Unix seconds.
    pub now_s: i64,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// It is written down that it leaves.
    pub leaving: bool,
    /// It has a pod.
    pub pod: bool,
    /// Its pod is on its way out.
    pub terminating: bool,
    /// Its container runs.
    pub running: bool,
    /// Its pod ended, and will not run again.
    pub ended: bool,
    /// Since when it is ready, in Unix seconds.
    pub ready_since_s: Option<i64>,
    /// It is what is wanted now.
    pub current: bool,
    /// It has a volume of its own.
    pub volume: bool,
    /// What it says of its drain; nothing when it did not answer.
    pub drain: Option<Drain>,
}

/// What a node says of its drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// How far it is.
    pub state: DrainState,
    /// Objects that only it has.
    pub objects_left: u64,
    /// It makes no progress.
    pub stalled: bool,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainState {
    /// It was not asked to leave.
    #[default]
    Serving,
    /// It hands off.
    Draining,
    /// It has nothing left that only it has.
    Drained,
}

impl Observed {
    fn available(&self, wanted: &Wanted, node: &Node) -> bool {
        let since = node.ready_since_s.filter(|_| !node.terminating && !node.leaving);
        since.is_some_and(|since| self.now_s.saturating_sub(since) >= wanted.min_ready_s)
    }
}

/// Plans for a pool.
#[must_use]
pub fn plan(observed: &Observed, wanted: &Wanted) -> Plan {
    let mut plan = Plan::default();
    ended(observed, &mut plan);
    leave(observed, wanted, &mut plan);
    resize(observed, wanted, &mut plan);
    if wanted.paused {
        return plan.held(Gate::Paused, "set the cluster's spec.paused to false to go on");
    }
    if wanted.plan_only {
        return plan.held(Gate::PlanMode, "set the cluster's spec.mode to Apply");
    }
    plan
}

/// Pods that ended by themselves, and nodes with a volume that have no pod.
fn ended(o: &Observed, plan: &mut Plan) {
    for node in o.nodes.iter().filter(|node| !node.leaving) {
        let name = node.name.clone();
        if node.ended && !node.terminating {
            plan.now(Op::DeleteNode { node: name }, "its pod ended and will not run again");
        } else if !node.pod && node.volume {
            plan.now(Op::RestoreNode { node: name }, "it has a volume and no pod");
        }
    }
}

/// Brings those who leave a step further, or keeps them.
fn leave(o: &Observed, wanted: &Wanted, plan: &mut Plan) {
    let mut missing = wanted.size.saturating_sub(stays(o).count());
    for node in o.nodes.iter().filter(|node| node.leaving && !node.terminating) {
        let name = node.name.clone();
        let state = node.drain.map(|drain| drain.state);
        if missing > 0 && node.current && node.running && state != Some(DrainState::Drained) {
            missing -= 1;
            plan.now(Op::KeepNode { node: name }, "more nodes are wanted again");
            continue;
        }
        if state == Some(DrainState::Serving) && node.running {
            plan.now(Op::DrainNode { node: name }, "it was not asked to hand off yet");
            continue;
        }
        plan.gated(Op::DeleteNode { node: name }, "it leaves", may_go(node, wanted));
    }
}

fn may_go(node: &Node, wanted: &Wanted) -> Result<(), Blocked> {
    // A pod that does not run has nothing to hand off, and nothing that anybody could reach.
    if !node.running {
        return Ok(());
    }
    let Some(drain) = node.drain else {
        return gate(Gate::HandOff, false, || {
            format!("{} does not say how far its drain is", node.name)
        });
    };
    if drain.stalled && drain.state == DrainState::Draining {
        return gate(Gate::Stalled, wanted.force, || {
            format!(
                "{} cannot hand off {} objects; make room, or set the cluster's \
                 spec.drain.onStall to Force",
                node.name, drain.objects_left
            )
        });
    }
    gate(Gate::HandOff, drain.state == DrainState::Drained, || {
        format!("{} has {} objects that only it has", node.name, drain.objects_left)
    })
}

/// Those who are not on their way out.
fn stays(o: &Observed) -> impl Iterator<Item = &Node> {
    o.nodes.iter().filter(|node| !node.leaving && !node.terminating && !node.ended)
}

fn resize(o: &Observed, wanted: &Wanted, plan: &mut Plan) {
    let staying = stays(o).count();
    let outdated = stays(o).filter(|node| !node.current).count();
    let kept = plan.steps.iter().filter(|step| matches!(step.op, Op::KeepNode { .. })).count();
    let surge = outdated.min(wanted.max_surge);
    let target = wanted.size + if staying >= wanted.size { surge } else { 0 };
    let current = staying - outdated;
    // Replacing needs a new one only as long as the new ones are too few.
    let wish = if current >= wanted.size { wanted.size } else { target };
    if staying + kept < wish {
        let why = format!("{staying} nodes, {} are wanted", wanted.size);
        for _ in 0..(wish - staying - kept).min(CREATED_MAX) {
            plan.now(Op::CreateNode, why.clone());
        }
        return;
    }
    let draining = o.nodes.iter().filter(|node| node.leaving).count();
    let Some(node) = next_to_go(o, wanted) else { return };
    let surplus = staying > wanted.size;
    if !surplus && node.current {
        return;
    }
    let why = match (node.current, surplus) {
        (false, _) => "it is not what is wanted now".to_owned(),
        (true, _) => format!("{staying} nodes, {} are wanted", wanted.size),
    };
    // One that does not run has nothing to hand off.
    let one = gate(Gate::OneAtATime, !node.running || draining < DRAINING_MAX, || {
        format!("{draining} nodes hand off already")
    });
    let gates = one.and_then(|()| enough_without(o, wanted, node));
    plan.gated(Op::DrainNode { node: node.name.clone() }, why, gates);
}

/// Enough nodes serve when `node` does not.
fn enough_without(o: &Observed, wanted: &Wanted, node: &Node) -> Result<(), Blocked> {
    let available = o.nodes.iter().filter(|other| o.available(wanted, other));
    let left = available.filter(|other| other.name != node.name).count();
    let least = wanted.size.saturating_sub(wanted.max_unavailable);
    // One that serves nobody is no loss.
    let harmless = !o.available(wanted, node) && node.ready_since_s.is_none();
    gate(Gate::Available, harmless || left >= least, || {
        format!("{left} other nodes are available, {least} have to be")
    })
}

/// Who leaves next: one that serves nobody, else one that is not what is wanted, else the last by
/// name. Of a pool that has the right number, only those that are not what is wanted.
fn next_to_go<'a>(o: &'a Observed, wanted: &Wanted) -> Option<&'a Node> {
    let surplus = stays(o).count() > wanted.size;
    let candidates = stays(o).filter(|node| surplus || !node.current);
    candidates.min_by_key(|node| {
        let serves = node.ready_since_s.is_some();
        // A new one that is starting is what a replacement waits for.
        let fresh = node.current && !serves && stays(o).any(|other| !other.current);
        (fresh, serves, node.current, std::cmp::Reverse(node.name.clone()))
    })
}
