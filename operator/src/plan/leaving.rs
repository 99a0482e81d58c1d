//! Taking out: hand on the lead, leave the membership, then the pod, then the volume. Who is lost
//! for good leaves too, but somebody takes its place first.

use super::facts::{InTier, LOST_AFTER_S, Member, Observed, Tier, Wanted};
use super::{Blocked, Gate, Op, Plan, gate, joining};

/// Brings those who leave a step further; true when there is one.
pub(super) fn those_who_leave(o: &Observed, w: &Wanted, tier: &Tier, plan: &mut Plan) -> bool {
    // Those that the tier does not need any more first, then the dead: each makes the rest easier.
    let order = |member: &&Member| member.in_tier(tier).map(|it| (it.voter, it.up));
    let going = o.members.iter().filter(|member| member.goes());
    let Some(member) = going.min_by_key(order) else { return false };
    let name = member.name.clone();
    let Some(it) = member.in_tier(tier) else {
        out(member, plan);
        return true;
    };
    if !member.leaving {
        plan.now(Op::MarkLeaving { member: name }, "its object is being deleted");
        return true;
    }
    if !it.voter {
        let op = Op::Remove { member: name, id: it.id.clone(), expect: tier.mark.clone() };
        plan.gated(op, "it is to leave", joining::majority(tier));
        return true;
    }
    let staying = o.members.iter().filter(|member| !member.goes());
    let voting = staying.clone().filter_map(|m| m.in_tier(tier)).filter(|it| it.voter).count();
    let staying = staying.count();
    if voting < w.size && voting < staying {
        // Somebody is on the way to take its place.
        return false;
    }
    if staying < w.size {
        let why = format!("{} leaves, and somebody has to take its place first", it.name);
        let op = Op::CreateMember { founder: false };
        plan.gated(op, why, joining::ours(o, tier).and_then(|()| joining::majority(tier)));
        return true;
    }
    if it.leader {
        hand_on(o, tier, it, "who leads is to leave", plan);
        return true;
    }
    let op = Op::Remove { member: name, id: it.id.clone(), expect: tier.mark.clone() };
    let quorum = gate(Gate::Quorum, tier.survives_removal_of(&it.id), || {
        format!("without {} the living would be no majority", it.name)
    });
    // While somebody else is lost, this one is needed: first that one is given up.
    if quorum.is_err() && the_lost(o, w, tier, plan) {
        return true;
    }
    plan.gated(op, "it is to leave", quorum);
    true
}

/// Of one that is not in the tier: its pod first, so that it cannot join any more, then the rest.
fn out(member: &Member, plan: &mut Plan) {
    let name = member.name.clone();
    match &member.pod {
        Some(pod) if pod.terminating => {
            let op = Op::DeleteMember { member: name };
            let shut = gate(Gate::PodGone, false, || "its pod is still stopping".to_owned());
            plan.gated(op, "it is out of the tier", shut);
        }
        Some(pod) if pod.ended => {}
        Some(_) => plan.now(Op::DeletePod { member: name }, "it is out of the tier"),
        None => plan.now(Op::DeleteMember { member: name }, "it is out of the tier"),
    }
}

/// Hands the lead to the soundest other voter.
pub(super) fn hand_on(o: &Observed, tier: &Tier, from: &InTier, why: &str, plan: &mut Plan) {
    let current = |it: &InTier| {
        let member = o.members.iter().find(|m| m.in_tier(tier).is_some_and(|x| x.id == it.id));
        let fit = |m: &Member| !m.goes() && m.pod.as_ref().is_some_and(|p| p.current && m.runs());
        member.is_some_and(fit)
    };
    let others = tier.voters().filter(|it| it.id != from.id && it.sound());
    let next = others.min_by_key(|it| (!current(it), it.lag.unwrap_or(u64::MAX), it.id.clone()));
    let expect = tier.mark.clone();
    match next {
        Some(it) => {
            let op = Op::Transfer { member: it.name.clone(), id: it.id.clone(), expect };
            plan.now(op, why);
        }
        None => {
            let op = Op::Transfer { member: String::new(), id: String::new(), expect };
            let shut =
                gate(Gate::NoSuccessor, false, || "no other voter is up and caught up".to_owned());
            plan.gated(op, why, shut);
        }
    }
}

/// Marks one that is lost for good as leaving; true when somebody is lost.
pub(super) fn the_lost(o: &Observed, w: &Wanted, tier: &Tier, plan: &mut Plan) -> bool {
    let mut found = false;
    for member in o.members.iter().filter(|member| !member.goes()) {
        let Some((why, sure)) = loss(o, w, tier, member) else { continue };
        let gates = sure.and_then(|()| match member.in_tier(tier) {
            Some(it) if it.voter => can_be_given_up(tier, it),
            _ => Ok(()),
        });
        plan.gated(Op::MarkLeaving { member: member.name.clone() }, why, gates);
        found = true;
        break;
    }
    found
}

/// Why a super-node counts as lost, and whether that is sure already.
fn loss(
    o: &Observed,
    w: &Wanted,
    tier: &Tier,
    member: &Member,
) -> Option<(&'static str, Result<(), Blocked>)> {
    if member.is_removed(tier) {
        return Some(("the tier took it out, and takes no id back", Ok(())));
    }
    let up = member.in_tier(tier).is_some_and(|it| it.up);
    if up {
        return None;
    }
    let long = |since: i64, at_least: i64| {
        let for_s = o.now_s.saturating_sub(since);
        gate(Gate::SeenTwice, for_s >= at_least, || {
            format!("seen for {for_s} s, acted on after {at_least} s")
        })
    };
    if let Some(since) = member.volume_missing_since_s {
        return Some(("its volume is gone, and its identity with it", long(since, LOST_AFTER_S)));
    }
    let since = member.silent_since_s.filter(|_| !ready(member))?;
    let after = w.replace_after_s.max(LOST_AFTER_S);
    (o.now_s.saturating_sub(since) >= after)
        .then_some(("nobody has heard of it for spec.superNodes.replaceAfterSeconds", Ok(())))
}

fn ready(member: &Member) -> bool {
    member.pod.as_ref().is_some_and(|pod| pod.ready_since_s.is_some() && !pod.terminating)
}

/// The others decide without it: most voters are up, and it is none of them.
fn can_be_given_up(tier: &Tier, it: &InTier) -> Result<(), Blocked> {
    gate(Gate::Recovery, Tier::is_majority(tier.voters()), || {
        let up = tier.voters().filter(|it| it.up).count();
        let all = tier.voters().count();
        format!(
            "only {up} of {all} voters are up, so that {} cannot be given up; bring one back, or \
             recover from one survivor with `shoal recover`",
            it.name
        )
    })
}
