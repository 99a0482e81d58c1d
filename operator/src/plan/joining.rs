//! Taking in: a new super-node is a learner, catches up, and gets the vote; of a lost one by one
//! joint change, so that there is never one voter more of whom one cannot vote.

use super::facts::{InTier, JOIN_WAIT_S, Member, Observed, Tier, Wanted};
use super::{Blocked, Gate, Op, Plan, gate};

/// Brings the one that joins a step further; true when there is one.
pub(super) fn taken_in(o: &Observed, _: &Wanted, tier: &Tier, plan: &mut Plan) -> bool {
    let joins = |member: &&Member| {
        let voter = member.in_tier(tier).is_some_and(|it| it.voter);
        !member.goes() && !member.is_removed(tier) && !voter
    };
    // One that joins and cannot any more is a matter of the lost.
    let can = |member: &&Member| member.volume_missing_since_s.is_none();
    let Some(member) = o.members.iter().find(|m| joins(m) && can(m)) else { return false };
    let expect = tier.mark.clone();
    if stuck(member) {
        let op = Op::DeletePod { member: member.name.clone() };
        plan.now(op, "its pod does not run, and is not what is wanted now");
        return true;
    }
    match member.in_tier(tier) {
        Some(learner) => promote(o, tier, member, learner, plan),
        None => {
            let op =
                Op::Add { member: member.name.clone(), address: member.address.clone(), expect };
            plan.gated(op, "it is not in the tier yet", running_for_a_while(o, member));
        }
    }
    true
}

/// What it was started with may be what is wrong.
fn stuck(member: &Member) -> bool {
    let pod = member.pod.as_ref();
    pod.is_some_and(|pod| !pod.running && !pod.current && !pod.terminating && !pod.ended)
}

fn running_for_a_while(o: &Observed, member: &Member) -> Result<(), Blocked> {
    let pod = member.pod.as_ref().filter(|pod| pod.running && !pod.terminating);
    let since = pod.map(|pod| o.now_s.saturating_sub(pod.created_s));
    gate(Gate::PodsReady, since.is_some_and(|since| since >= JOIN_WAIT_S), || {
        format!("its pod has to start first; it joins by itself within {JOIN_WAIT_S} s")
    })
}

fn promote(o: &Observed, tier: &Tier, member: &Member, learner: &InTier, plan: &mut Plan) {
    let expect = tier.mark.clone();
    let id = learner.id.clone();
    let caught_up = gate(Gate::CaughtUp, learner.sound(), || match learner.lag {
        _ if !learner.up => format!("{} is down", learner.name),
        Some(lag) => format!("{} is {lag} positions behind", learner.name),
        None => format!("how far {} is behind is not known yet", learner.name),
    });
    let going = o.members.iter().filter(|other| other.goes()).filter_map(|m| m.in_tier(tier));
    if let Some(lost) = going.into_iter().find(|it| it.voter && !it.up) {
        let why = format!("{} takes the vote of {}, which is lost", learner.name, lost.name);
        let (old, new) = (lost.id.clone(), id);
        let op = Op::Replace { member: lost.name.clone(), old, new, expect };
        plan.gated(op, why, caught_up.and_then(|()| majority(tier)));
        return;
    }
    let op = Op::Promote { member: member.name.clone(), id, expect };
    // With one voter more, of whom all that are up now and the new one are up.
    let (all, up) = (tier.voters().count() + 1, tier.voters().filter(|it| it.up).count() + 1);
    let quorum = gate(Gate::Quorum, up > all / 2, || format!("{up} of {all} voters would be up"));
    plan.gated(op, "it has no vote yet", caught_up.and_then(|()| majority(tier)).and(quorum));
}

/// Most voters are up now.
pub(super) fn majority(tier: &Tier) -> Result<(), Blocked> {
    gate(Gate::Quorum, Tier::is_majority(tier.voters()), || {
        let up = tier.voters().filter(|it| it.up).count();
        format!("{up} of {} voters are up", tier.voters().count())
    })
}

/// Makes one more where there are too few; true when there are.
pub(super) fn too_few(o: &Observed, wanted: &Wanted, tier: &Tier, plan: &mut Plan) -> bool {
    let staying = o.members.iter().filter(|member| !member.goes()).count();
    if staying >= wanted.size {
        return false;
    }
    let why = format!("{staying} super-nodes, {} are wanted", wanted.size);
    let op = Op::CreateMember { founder: false };
    plan.gated(op, why, ours(o, tier).and_then(|()| majority(tier)));
    true
}

/// Lets one leave where there are too many; true when there are.
pub(super) fn too_many(o: &Observed, wanted: &Wanted, tier: &Tier, plan: &mut Plan) -> bool {
    let staying: Vec<_> = o.members.iter().filter(|member| !member.goes()).collect();
    if staying.len() <= wanted.size {
        return false;
    }
    let why = format!("{} super-nodes, {} are wanted", staying.len(), wanted.size);
    let Some(member) = superfluous(&staying, tier) else { return false };
    let removal = member.in_tier(tier).filter(|it| it.voter).map_or(Ok(()), |it| {
        gate(Gate::Quorum, tier.survives_removal_of(&it.id), || {
            format!("without {} the living would be no majority", it.name)
        })
    });
    let op = Op::MarkLeaving { member: member.name.clone() };
    plan.gated(op, why, ours(o, tier).and(removal));
    true
}

/// Who leaves when there are too many: one that does not vote or is down, else one that is not what is
/// wanted, else the last by name; the leader only when there is nobody else.
fn superfluous<'a>(staying: &[&'a Member], tier: &Tier) -> Option<&'a Member> {
    let key = |member: &&&Member| {
        let it = member.in_tier(tier);
        let votes = it.is_some_and(|it| it.voter);
        let up = it.is_some_and(|it| it.up);
        let leads = it.is_some_and(|it| it.leader);
        let current = member.pod.as_ref().is_some_and(|pod| pod.current);
        (leads, votes && up, votes, current, std::cmp::Reverse(member.name.clone()))
    };
    staying.iter().min_by_key(key).copied()
}

/// Every voter is one of ours.
pub(super) fn ours(o: &Observed, tier: &Tier) -> Result<(), Blocked> {
    let ours = |voter: &InTier| {
        let mut all = o.members.iter().filter_map(|member| member.in_tier(tier));
        all.any(|it| it.id == voter.id)
    };
    let strange = tier.voters().find(|voter| !ours(voter));
    gate(Gate::UnknownVoter, strange.is_none(), || {
        let (name, id) = strange.map_or(("", ""), |it| (it.name.as_str(), it.id.as_str()));
        format!("voter {name:?} ({id}) has no CacheMember; remove it with `shoal members remove`")
    })
}
