//! Restarting one by one for a change: whoever does not serve anyway first, the leader last and only
//! after it handed the lead on.

use super::facts::{InTier, Member, Observed, Tier, Wanted};
use super::{Blocked, Gate, Op, Plan, gate, leaving};

/// Those whose pod is not what is wanted now.
pub(super) fn outdated(o: &Observed) -> impl Iterator<Item = &Member> {
    let old = |member: &&Member| {
        member.pod.as_ref().is_some_and(|pod| !pod.current && !pod.terminating && !pod.ended)
    };
    o.members.iter().filter(old)
}

/// Restarts the next one; true when there is one, or one was restarted and is not back yet.
pub(super) fn one_by_one(o: &Observed, w: &Wanted, tier: &Tier, plan: &mut Plan) -> bool {
    let order = |member: &&Member| {
        let it = member.in_tier(tier);
        let leads = it.is_some_and(|it| it.leader);
        let up = it.is_some_and(|it| it.up);
        (leads, up && member.runs(), member.name.clone())
    };
    let Some(member) = outdated(o).min_by_key(order) else { return false };
    let why = "its pod is not what is wanted now";
    let op = Op::DeletePod { member: member.name.clone() };
    if w.on_delete {
        let shut = gate(Gate::OnDelete, false, || {
            format!("delete the pod {} to have it restarted", member.name)
        });
        plan.gated(op, why, shut);
        return true;
    }
    let Some(it) = member.in_tier(tier) else { return false };
    let gates = gates(o, w, tier, member, it);
    if it.leader && tier.voters().count() > 1 {
        let pause = gate(Gate::BeforeLeader, !w.pause_before_leader, || {
            "set spec.upgrade.pauseBeforeLeader to false to go on with the leader".to_owned()
        });
        match pause.and(gates) {
            Ok(()) => leaving::hand_on(o, tier, it, "who leads is restarted next", plan),
            shut => plan.gated(op, why, shut),
        }
        return true;
    }
    plan.gated(op, why, gates);
    true
}

fn gates(
    o: &Observed,
    w: &Wanted,
    tier: &Tier,
    member: &Member,
    it: &InTier,
) -> Result<(), Blocked> {
    if !it.up && !member.runs() {
        // It serves nobody; what it was started with may be what is wrong.
        return Ok(());
    }
    if tier.voters().count() == 1 && it.voter {
        // The only one: while it restarts there is no tier, and nodes do without.
        return Ok(());
    }
    let other = |x: &&InTier| x.id != it.id;
    let weak = tier.voters().filter(other).find(|x| !x.sound());
    gate(Gate::OthersUp, weak.is_none(), || {
        let (name, lag) = weak.map_or(("", None), |x| (x.name.as_str(), x.lag));
        format!("{name} is down or behind ({} positions)", lag.unwrap_or_default())
    })?;
    gate(Gate::Quorum, tier.survives_stop_of(&it.id), || {
        format!("while {} restarts, the living would be no majority", it.name)
    })?;
    let min_ready_s = w.min_ready_s;
    let for_s = o.leader_since_s.map(|since| o.now_s.saturating_sub(since));
    gate(Gate::LeaderStable, for_s.is_some_and(|for_s| for_s >= min_ready_s), || {
        format!("the same one leads for {} s of {min_ready_s} s", for_s.unwrap_or_default())
    })?;
    let unready = o.members.iter().filter(|m| m.name != member.name).find(|m| {
        let since = m.pod.as_ref().filter(|p| !p.terminating).and_then(|p| p.ready_since_s);
        since.is_none_or(|since| o.now_s.saturating_sub(since) < min_ready_s)
    });
    gate(Gate::PodsReady, unready.is_none(), || {
        let name = unready.map_or("", |m| m.name.as_str());
        format!("{name} has not been ready for {min_ready_s} s")
    })
}
