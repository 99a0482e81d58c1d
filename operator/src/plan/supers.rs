//! The plan for super-nodes: which concern comes first. Pods that are missing are made whatever else
//! is so; of everything that touches the tier, one thing at a time.

use super::facts::{Member, Observed, Tier, Wanted};
use super::{Gate, Op, Plan, gate, joining, leaving, roll};

/// Plans for a cluster's super-nodes.
#[must_use]
pub fn plan(observed: &Observed, wanted: &Wanted) -> Plan {
    let plan = unheld(observed, wanted);
    if wanted.paused {
        return plan.held(Gate::Paused, "set spec.paused to false to go on");
    }
    if wanted.plan_only {
        return plan.held(Gate::PlanMode, "set spec.mode to Apply to let it be done");
    }
    plan
}

fn unheld(observed: &Observed, wanted: &Wanted) -> Plan {
    let mut plan = Plan::default();
    if !observed.founded {
        let lost = |member: &&Member| !member.goes() && member.volume_missing_since_s.is_some();
        if let Some(member) = observed.members.iter().find(lost) {
            let why = "its volume is gone, and nothing was founded on it";
            plan.now(Op::MarkLeaving { member: member.name.clone() }, why);
            return plan;
        }
        if observed.members.iter().all(Member::goes) {
            plan.now(Op::CreateMember { founder: true }, "the tier is not founded yet");
            return plan;
        }
    }
    pods(observed, &mut plan);
    match trusted(observed, wanted) {
        Ok(tier) => with_tier(observed, wanted, tier, &mut plan),
        Err((by, detail)) => {
            without_tier(observed, wanted, &mut plan);
            waiting(observed, wanted, (by, detail), &mut plan);
        }
    }
    plan
}

/// Pods that are missing or have ended: a super-node that can run should.
fn pods(observed: &Observed, plan: &mut Plan) {
    for member in &observed.members {
        let name = member.name.clone();
        let needless = match &observed.tier {
            // One that leaves runs until the tier let it go: the others may need it until then.
            Some(tier) if member.goes() => !member.in_tier(tier).is_some_and(|it| it.voter),
            Some(tier) => member.is_removed(tier),
            None => member.goes() && member.id.is_none(),
        };
        match &member.pod {
            None if needless || member.volume_missing_since_s.is_some() => {}
            None => plan.now(Op::CreatePod { member: name }, "it has no pod"),
            Some(pod) if pod.ended && !pod.terminating => {
                plan.now(Op::DeletePod { member: name }, "its pod ended and will not run again");
            }
            Some(_) => {}
        }
    }
}

/// The tier's word, where it can be acted on.
fn trusted<'a>(observed: &'a Observed, wanted: &Wanted) -> Result<&'a Tier, (Gate, String)> {
    let Some(tier) = &observed.tier else {
        let detail = "no super-node says who is in the tier".to_owned();
        return Err((Gate::TierUnknown, detail));
    };
    if tier.cluster_id != wanted.cluster_id {
        let (theirs, ours) = (&tier.cluster_id, &wanted.cluster_id);
        let detail = format!("the tier is cluster {theirs:?}, this one is {ours:?}");
        return Err((Gate::ClusterId, detail));
    }
    if tier.joint {
        let detail = format!("the membership {} is half-way to the next", tier.mark);
        return Err((Gate::JointChange, detail));
    }
    Ok(tier)
}

/// Restarts what does not run, and is not what is wanted: it cannot serve anybody less.
fn without_tier(observed: &Observed, wanted: &Wanted, plan: &mut Plan) {
    if wanted.on_delete || observed.tier.is_some() {
        return;
    }
    let stuck = observed.members.iter().find(|member| {
        let pod = member.pod.as_ref();
        pod.is_some_and(|pod| !pod.running && !pod.current && !pod.terminating && !pod.ended)
    });
    if let Some(member) = stuck {
        let why = "its pod does not run, and is not what is wanted now";
        plan.now(Op::DeletePod { member: member.name.clone() }, why);
    }
}

/// What would come next if the tier could be asked, so that status says what everybody waits for.
fn waiting(observed: &Observed, wanted: &Wanted, by: (Gate, String), plan: &mut Plan) {
    let (gate_name, detail) = by;
    let staying = observed.members.iter().filter(|member| !member.goes()).count();
    let shut = || gate(gate_name, false, || detail.clone());
    let lost = |member: &&Member| member.volume_missing_since_s.is_some();
    let losses = observed.members.iter().filter(lost).count();
    if losses * 2 >= observed.members.len()
        && let Some(member) = observed.members.iter().find(lost)
    {
        let op = Op::MarkLeaving { member: member.name.clone() };
        let all = observed.members.len();
        let shut = gate(Gate::Recovery, false, || {
            format!(
                "{losses} of {all} volumes are gone: pause the cluster, recover from one survivor \
                 with `shoal recover`, and go on"
            )
        });
        plan.gated(op, "its volume is gone, and its identity with it", shut);
    } else if let Some(member) = observed.members.iter().find(|member| member.goes()) {
        let op = Op::DeleteMember { member: member.name.clone() };
        plan.gated(op, "it is to leave", shut());
    } else if staying < wanted.size {
        let why = format!("{staying} super-nodes, {} are wanted", wanted.size);
        plan.gated(Op::CreateMember { founder: false }, why, shut());
    } else if staying > wanted.size {
        let last = observed.members.iter().map(|member| &member.name).max();
        let op = Op::MarkLeaving { member: last.cloned().unwrap_or_default() };
        plan.gated(op, format!("{staying} super-nodes, {} are wanted", wanted.size), shut());
    } else if let Some(member) = roll::outdated(observed).next() {
        let op = Op::DeletePod { member: member.name.clone() };
        plan.gated(op, "its pod is not what is wanted now", shut());
    }
}

/// Plans what concerns it, and says whether that was anything.
type Concern = fn(&Observed, &Wanted, &Tier, &mut Plan) -> bool;

fn with_tier(observed: &Observed, wanted: &Wanted, tier: &Tier, plan: &mut Plan) {
    // Whoever leaves goes first: the tier is whole again the sooner. Then those too many, then the
    // dead are found, then those who join, then the number; a restart for a change waits for all.
    let concerns: [Concern; 6] = [
        leaving::those_who_leave,
        joining::too_many,
        leaving::the_lost,
        joining::taken_in,
        joining::too_few,
        roll::one_by_one,
    ];
    for concern in concerns {
        if concern(observed, wanted, tier, plan) {
            return;
        }
    }
}
