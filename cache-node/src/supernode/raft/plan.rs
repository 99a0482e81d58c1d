//! PURE. Plans one change of the tier's membership: what is asked for and the facts of the moment
//! in, the one configuration to go to out, or a refusal that names the rule and the remedy.
//!
//! Invariants, of every configuration planned: from the old voters to the new there is one joint
//! change, and a majority of both is alive; nobody gets a vote who has not caught up; at most one
//! voter comes and one goes; an id that was removed is never taken back; who leads hands that on
//! before giving up its vote; nothing is planned while another change is under way.
//!
//! Must not know how a configuration is written to the log, or who asks.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use shoal_proto::NodeId;
use shoal_proto::wire::v1;

/// Most voters of a tier.
pub(crate) const VOTERS_MAX: usize = 9;
/// Most super-nodes without a vote.
pub(crate) const LEARNERS_MAX: usize = 64;
/// A learner that is at most so many entries behind the leader's last has caught up.
pub(crate) const CAUGHT_UP_ENTRIES: u64 = 1_024;

/// A membership, by the position of its entry and a short hash of who votes and who does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The entry's position in the log.
    pub position: u64,
    /// The first bytes of a BLAKE3 hash over voters, learners and those held back.
    pub hash: u32,
}

impl From<&v1::MembersReply> for Mark {
    fn from(members: &v1::MembersReply) -> Self {
        Self { position: members.position, hash: members.hash }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.position, self.hash)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no membership; expected POSITION/HASH as in 412/9f3a01bc");
        let (position, hash) = text.split_once('/').ok_or_else(wrong)?;
        let position = position.parse().map_err(|_| wrong())?;
        let hash = u32::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 8);
        Ok(Self { position, hash: hash.ok_or_else(wrong)? })
    }
}

/// Who is in the tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// Voter sets: one, or two while a joint change is under way.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    /// Super-nodes with no vote in any set, and whether they are held back from one.
    pub(crate) learners: BTreeMap<NodeId, bool>,
}

impl Configuration {
    /// A configuration that is not joint.
    #[cfg(test)]
    pub(crate) fn uniform(
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = (NodeId, bool)>,
    ) -> Self {
        let voters = vec![voters.into_iter().collect()];
        Self { voters, learners: learners.into_iter().collect() }
    }

    /// The voters, where no joint change is under way.
    pub(crate) fn settled(&self) -> Option<&BTreeSet<NodeId>> {
        self.voters.first().filter(|_| self.voters.len() == 1)
    }

    /// Whether a quorum of `alive` is left: a majority of every voter set.
    pub(crate) fn has_quorum(&self, alive: &BTreeSet<NodeId>) -> bool {
        let majority = |set: &BTreeSet<NodeId>| set.intersection(alive).count() > set.len() / 2;
        !self.voters.is_empty() && self.voters.iter().all(majority)
    }

    /// What stands in the log between this configuration and `target`.
    #[cfg(test)]
    pub(crate) fn joint(&self, target: &Self) -> Self {
        let mut voters = self.voters.clone();
        voters.extend(target.voters.iter().filter(|set| !self.voters.contains(set)).cloned());
        Self { voters, learners: target.learners.clone() }
    }

    /// The short hash of who votes and who does not.
    pub(crate) fn hash(&self) -> u32 {
        let mut hasher = blake3::Hasher::new();
        for set in &self.voters {
            hasher.update(b"v");
            for id in set {
                hasher.update(&id.0.to_be_bytes());
            }
        }
        for (id, held) in &self.learners {
            hasher.update(if *held { b"h" } else { b"l" }).update(&id.0.to_be_bytes());
        }
        let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// What the leader knows at the moment of planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Who leads, and plans.
    pub(crate) leader: NodeId,
    /// Super-nodes heard of lately, the leader included.
    pub(crate) up: BTreeSet<NodeId>,
    /// Entries by which each lags behind the leader's last, where known.
    pub(crate) lag: BTreeMap<NodeId, u64>,
    /// Ids that were removed.
    pub(crate) retired: BTreeSet<NodeId>,
    /// Position of the membership's entry.
    pub(crate) position: u64,
    /// The membership's entry is not committed yet, or another change is being made.
    pub(crate) in_flight: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Take in as a learner.
    Add(NodeId),
    /// Give a learner the vote; it is held back no longer.
    Promote(NodeId),
    /// Take the vote away; it goes on as a learner that is held back.
    Demote(NodeId),
    /// Take out of the tier, for ever.
    Remove(NodeId),
    /// One voter for another, which is a learner that has caught up.
    Replace {
        /// Taken out of the tier, for ever.
        old: NodeId,
        /// Gets its vote.
        new: NodeId,
    },
    /// Hand the lead to this voter.
    Transfer(NodeId),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All is as asked already.
    Nothing,
    /// Hand the lead to this voter; for other changes, who leads then plans again.
    Transfer(NodeId),
    /// Go to this configuration, by one joint change when the voters differ.
    Go(Configuration),
}

/// Why a change is not made: the rule, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// One at a time.
    #[error("another change of the membership is under way; try again when it is done")]
    InFlight,
    /// The guard.
    #[error("the membership is {now}, not {expected} as expected; look at it and ask again")]
    Stale {
        /// What the caller expected.
        expected: Mark,
        /// What is.
        now: Mark,
    },
    /// Nobody of that id.
    #[error("super-node {0} is not in the tier; `shoal members` lists who is")]
    Unknown(NodeId),
    /// An id is never taken back.
    #[error(
        "super-node {0} was removed from the tier and is never taken back; empty its data \
             directory and it joins under a new id"
    )]
    Retired(NodeId),
    /// No vote without the log.
    #[error(
        "super-node {id} is {entries} entries behind, at most 1024 are allowed; try again when \
             it has caught up"
    )]
    Behind {
        /// Who.
        id: NodeId,
        /// By how much.
        entries: u64,
    },
    /// Nobody is trusted with a vote, or the lead, who is not there.
    #[error("super-node {0} was not heard of lately; start it, then try again")]
    Down(NodeId),
    /// The change could not be committed, or nothing after it.
    #[error(
        "{alive} of the {voters} voters would be up, more than half are needed; bring one \
             back, or replace one that is down"
    )]
    NoQuorum {
        /// Voters that are up.
        alive: usize,
        /// All voters.
        voters: usize,
    },
    /// A tier has a voter.
    #[error("super-node {0} is the only voter; give another the vote first")]
    LastVoter(NodeId),
    /// Only voters lead, and only they can be replaced.
    #[error("super-node {0} has no vote; promote it first, or name a voter")]
    NoVoter(NodeId),
    /// It votes already.
    #[error("super-node {0} is a voter already; name a learner in its place")]
    Voter(NodeId),
    /// A bound.
    #[error("the tier has {0} already, which is the most; remove one first")]
    Full(&'static str),
}

impl Refusal {
    /// The rule's stable name, for JSON and metrics.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Stale { .. } => "stale",
            Self::Unknown(_) => "unknown",
            Self::Retired(_) => "retired",
            Self::Behind { .. } => "behind",
            Self::Down(_) => "down",
            Self::NoQuorum { .. } => "quorum",
            Self::LastVoter(_) => "last-voter",
            Self::NoVoter(_) => "no-voter",
            Self::Voter(_) => "voter",
            Self::Full(_) => "full",
        }
    }

    /// Whether the same may be asked again a little later.
    pub(crate) fn is_for_now(&self) -> bool {
        matches!(self, Self::InFlight | Self::Behind { .. } | Self::Down(_))
    }
}

/// The membership's mark.
pub(crate) fn mark(now: &Configuration, facts: &Facts) -> Mark {
    Mark { position: facts.position, hash: now.hash() }
}

/// Plans `change` of the membership `now`, which must be the `expected` one where that is given.
///
/// # Errors
/// When a rule stands against it.
pub(crate) fn plan(
    now: &Configuration,
    facts: &Facts,
    change: Change,
    expected: Option<Mark>,
) -> Result<Step, Refusal> {
    let Some(voters) = now.settled().filter(|_| !facts.in_flight) else {
        return Err(Refusal::InFlight);
    };
    let asked = Asked { now, voters, facts };
    // One that is asked for again, since its outcome was not known, is no stale one.
    if asked.is_done(change) {
        return Ok(Step::Nothing);
    }
    let mark = mark(now, facts);
    if let Some(expected) = expected.filter(|expected| *expected != mark) {
        return Err(Refusal::Stale { expected, now: mark });
    }
    let step = match change {
        Change::Add(id) => asked.add(id)?,
        Change::Promote(id) => asked.promote(id)?,
        Change::Demote(id) => asked.leave(id, true)?,
        Change::Remove(id) => asked.leave(id, false)?,
        Change::Replace { old, new } => asked.replace(old, new)?,
        Change::Transfer(to) => asked.transfer(to)?,
    };
    if let Step::Go(target) = &step {
        asked.keeps_quorum(target)?;
    }
    Ok(step)
}

/// The configuration that ends a joint change which its leader did not live to finish: whoever
/// gave up the vote and is not held back, leaves.
pub(crate) fn finish(now: &Configuration, held: impl Fn(NodeId) -> bool) -> Option<Configuration> {
    let target = now.voters.last().filter(|_| now.voters.len() > 1)?;
    let gone = now.voters.iter().flatten().filter(|id| !target.contains(id) && held(**id));
    let mut learners = now.learners.clone();
    learners.extend(gone.map(|id| (*id, true)));
    Some(Configuration { voters: vec![target.clone()], learners })
}

struct Asked<'a> {
    now: &'a Configuration,
    voters: &'a BTreeSet<NodeId>,
    facts: &'a Facts,
}

impl Asked<'_> {
    fn is_done(&self, change: Change) -> bool {
        let votes = |id| self.voters.contains(&id);
        let gone = |id| self.facts.retired.contains(&id) && !self.is_member(id);
        match change {
            Change::Add(id) => self.is_member(id),
            Change::Promote(id) => votes(id),
            Change::Demote(id) => self.now.learners.get(&id) == Some(&true),
            Change::Remove(id) => gone(id),
            Change::Replace { old, new } => gone(old) && votes(new),
            Change::Transfer(to) => to == self.facts.leader,
        }
    }

    fn add(&self, id: NodeId) -> Result<Step, Refusal> {
        if self.facts.retired.contains(&id) {
            return Err(Refusal::Retired(id));
        }
        if self.now.learners.len() >= LEARNERS_MAX {
            return Err(Refusal::Full("64 learners"));
        }
        let mut target = self.now.clone();
        target.learners.insert(id, false);
        Ok(Step::Go(target))
    }

    fn promote(&self, id: NodeId) -> Result<Step, Refusal> {
        if self.voters.len() >= VOTERS_MAX {
            return Err(Refusal::Full("9 voters"));
        }
        self.can_vote(id)?;
        let mut target = self.now.clone();
        target.learners.remove(&id);
        target.voters = vec![self.voters.iter().copied().chain([id]).collect()];
        Ok(Step::Go(target))
    }

    /// `id` gives up its vote, and stays as a learner or not at all.
    fn leave(&self, id: NodeId, stays: bool) -> Result<Step, Refusal> {
        let mut target = self.now.clone();
        if let Some(held) = target.learners.get_mut(&id) {
            match stays {
                true => *held = true,
                false => drop(target.learners.remove(&id)),
            }
            return Ok(Step::Go(target));
        }
        self.check_voter(id, Refusal::Unknown(id))?;
        if self.voters.len() == 1 {
            return Err(Refusal::LastVoter(id));
        }
        target.voters = vec![self.voters.iter().copied().filter(|other| *other != id).collect()];
        if stays {
            target.learners.insert(id, true);
        }
        self.after_handing_on(id, target)
    }

    fn replace(&self, old: NodeId, new: NodeId) -> Result<Step, Refusal> {
        let without =
            if self.is_member(old) { Refusal::NoVoter(old) } else { Refusal::Unknown(old) };
        self.check_voter(old, without)?;
        if self.voters.contains(&new) {
            return Err(Refusal::Voter(new));
        }
        self.can_vote(new)?;
        let mut target = self.now.clone();
        target.learners.remove(&new);
        let others = self.voters.iter().copied().filter(|id| *id != old);
        target.voters = vec![others.chain([new]).collect()];
        self.after_handing_on(old, target)
    }

    fn transfer(&self, to: NodeId) -> Result<Step, Refusal> {
        let without = if self.is_member(to) { Refusal::NoVoter(to) } else { Refusal::Unknown(to) };
        self.check_voter(to, without)?;
        self.is_fit(to)?;
        Ok(Step::Transfer(to))
    }

    /// `target`, unless `leaver` leads and another must take over first.
    fn after_handing_on(&self, leaver: NodeId, target: Configuration) -> Result<Step, Refusal> {
        if leaver != self.facts.leader {
            return Ok(Step::Go(target));
        }
        self.keeps_quorum(&target)?;
        let heirs = self.voters.iter().copied().filter(|id| *id != leaver);
        let fit = heirs.filter(|id| self.is_fit(*id).is_ok());
        let nearest = fit.min_by_key(|id| (self.facts.lag.get(id).copied(), *id));
        let alive = self.voters.intersection(&self.facts.up).count().saturating_sub(1);
        let nobody = Refusal::NoQuorum { alive, voters: self.voters.len() };
        nearest.map(Step::Transfer).ok_or(nobody)
    }

    fn is_member(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.now.learners.contains_key(&id)
    }

    fn check_voter(&self, id: NodeId, refusal: Refusal) -> Result<(), Refusal> {
        match self.voters.contains(&id) {
            true => Ok(()),
            false if self.facts.retired.contains(&id) => Err(Refusal::Retired(id)),
            false => Err(refusal),
        }
    }

    fn can_vote(&self, id: NodeId) -> Result<(), Refusal> {
        if self.facts.retired.contains(&id) {
            return Err(Refusal::Retired(id));
        }
        if !self.now.learners.contains_key(&id) {
            return Err(Refusal::Unknown(id));
        }
        self.is_fit(id)
    }

    fn is_fit(&self, id: NodeId) -> Result<(), Refusal> {
        if !self.facts.up.contains(&id) {
            return Err(Refusal::Down(id));
        }
        match self.facts.lag.get(&id).copied().unwrap_or(u64::MAX) {
            entries if entries > CAUGHT_UP_ENTRIES => Err(Refusal::Behind { id, entries }),
            _ => Ok(()),
        }
    }

    /// The joint change needs a majority of both voter sets.
    fn keeps_quorum(&self, target: &Configuration) -> Result<(), Refusal> {
        for voters in [self.now, target].into_iter().flat_map(|config| &config.voters) {
            let alive = voters.intersection(&self.facts.up).count();
            if alive <= voters.len() / 2 {
                return Err(Refusal::NoQuorum { alive, voters: voters.len() });
            }
        }
        Ok(())
    }
}
