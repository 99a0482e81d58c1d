//! PURE. Who is to keep the index: from what the leader knows of all candidates to at most one
//! change of the tier at a time.
//!
//! | file | purpose |
//! |---|---|
//! | `score` | how fit a node is |
//! | `flaps` | how often each was lost lately |
//! | `field` | the candidates, sorted for the questions that are asked of them |
//! | `mod` | [`Selection`]: what to change, and when to leave all as it is |
//!
//! Invariants: the same inputs give the same answer; nothing is changed while a quorum is not
//! healthy, or when the change would leave fewer live voters than a majority; an even number of
//! voters is only ever a step on the way; a voter that is away for less than the grace time costs no
//! change; a sitting voter gives way to a better candidate only after that one was better by
//! [`MARGIN`] for the whole patience, with no change of the tier in that time.
//!
//! Not here: how a change is made, or what is known of a candidate and from whom.

mod field;
pub mod flaps;
#[cfg(test)]
mod histories;
pub mod score;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use shoal_proto::NodeId;

use self::field::Field;
pub use self::score::{Capability, Stability, score};

/// By how much a candidate must be better than a sitting voter, in thousandths of a point: more
/// than one restart costs for longer than the first minutes.
pub const MARGIN: i64 = 30_000;
/// So long a candidate that could not be taken in is passed over, in milliseconds.
const HOLD_MS: u64 = 30_000;
/// Challengers that are watched for each voter.
const CHALLENGERS_MAX: usize = 8;

/// What is wanted. The same on every member, by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Voters: 1, 3, 5 or 7.
    pub voters: usize,
    /// A voter that is away for longer is replaced, in milliseconds.
    pub replace_after_ms: u64,
    /// A better candidate takes a voter's place after so long, in milliseconds.
    pub upgrade_after_ms: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { voters: 3, replace_after_ms: 15_000, upgrade_after_ms: 600_000 }
    }
}

/// A voter, or a node that could be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub id: NodeId,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// What it has.
    pub capability: Capability,
    /// How steady it is.
    pub stability: Stability,
    /// It answers.
    pub up: bool,
    /// It has most of the log already.
    pub caught_up: bool,
    /// It has a vote.
    pub voter: bool,
    /// It may be given one.
    pub eligible: bool,
    /// Configuration makes it a super-node, not selection.
    pub pinned: bool,
}

/// What the leader knows at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// The leader: the last to lose its vote.
    pub me: NodeId,
    /// A quorum confirmed the leader a moment ago.
    pub quorum: bool,
    /// Everybody, in any order.
    pub candidates: &'a [Candidate],
}

/// Why something is done, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// As many voters as wanted, and nobody is much better.
    Settled,
    /// Fewer voters than wanted.
    TooFew,
    /// More voters than wanted.
    TooMany,
    /// An even number of voters protects no better than one less.
    Even,
    /// A voter is away for longer than the grace time.
    Lost,
    /// Another node was much better for a long time.
    Better,
    /// A voter is away, but not for long yet.
    Grace,
    /// There is nobody to take in.
    NoStandby,
    /// No quorum answers.
    NoQuorum,
    /// The change would leave too few live voters.
    Unsafe,
    /// Configuration keeps those voters.
    Pinned,
}

impl Why {
    /// As users see it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::TooFew => "fewer voters than wanted",
            Self::TooMany => "more voters than wanted",
            Self::Even => "an even number of voters",
            Self::Lost => "a voter was lost",
            Self::Better => "a better candidate",
            Self::Grace => "a voter is away, and may be back",
            Self::NoStandby => "no standby to take in",
            Self::NoQuorum => "no quorum answers",
            Self::Unsafe => "too few voters are up",
            Self::Pinned => "configured super-nodes stay",
        }
    }
}

/// At most one change of the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives a node a vote.
    Promote(NodeId, Why),
    /// Gives one node the vote of another, in one change.
    Replace {
        /// Who loses it.
        out: NodeId,
        /// Who gets it.
        into: NodeId,
        /// Why.
        why: Why,
    },
    /// Takes a node's vote.
    Demote(NodeId, Why),
    /// Nothing.
    Wait(Why),
}

impl Action {
    /// Why.
    pub fn why(self) -> Why {
        match self {
            Self::Promote(_, why)
            | Self::Replace { why, .. }
            | Self::Demote(_, why)
            | Self::Wait(why) => why,
        }
    }
}

/// What the leader remembers between two looks. A new leader begins with nothing, and so waits the
/// grace time and the patience anew.
#[derive(Debug)]
pub struct Selection {
    wanted: Wanted,
    /// The first look.
    began_ms: Option<u64>,
    changed_ms: Option<u64>,
    lost_since_ms: BTreeMap<NodeId, u64>,
    /// Since when who is much better than which voter: (voter, challenger).
    better_since_ms: BTreeMap<(NodeId, NodeId), u64>,
    held_until_ms: BTreeMap<NodeId, u64>,
}

impl Selection {
    /// Nothing seen yet.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            began_ms: None,
            changed_ms: None,
            lost_since_ms: BTreeMap::new(),
            better_since_ms: BTreeMap::new(),
            held_until_ms: BTreeMap::new(),
        }
    }

    /// The last change was made, or may have been.
    pub fn changed(&mut self, now_ms: u64) {
        self.changed_ms = Some(now_ms);
        self.better_since_ms.clear();
    }

    /// A node could not be taken in: others get their turn.
    pub fn failed(&mut self, now_ms: u64, id: NodeId) {
        self.held_until_ms.insert(id, now_ms + HOLD_MS);
    }

    /// What to do now.
    pub fn decide(&mut self, seen: &Situation<'_>) -> Action {
        let now_ms = seen.now_ms;
        let began_ms = *self.began_ms.get_or_insert(now_ms);
        self.held_until_ms.retain(|_, until| *until > now_ms);
        let held = |id: NodeId| self.held_until_ms.contains_key(&id);
        let field = Field::new(seen.candidates, seen.me, held);
        self.watch_lost(now_ms, &field);
        self.watch_better(now_ms, &field);
        if !seen.quorum {
            return Action::Wait(Why::NoQuorum);
        }
        let lost = self.lost(now_ms, &field);
        let long_enough = now_ms >= began_ms + self.wanted.replace_after_ms;
        let action = match field.voters.len() {
            count if count > self.wanted.voters => self.fewer(&field, &lost, Why::TooMany),
            count if count.is_multiple_of(2) => self.make_odd(&field, &lost),
            _ if !lost.is_empty() => self.without(&field, &lost),
            count if count < self.wanted.voters => self.grow(&field),
            _ => self.upgrade(now_ms, &field),
        };
        match action {
            // A new leader has not heard of every standby yet.
            Action::Demote(..) if !long_enough => Action::Wait(Why::Grace),
            Action::Promote(..) | Action::Replace { .. } | Action::Demote(..)
                if !field.is_safe(action) =>
            {
                Action::Wait(Why::Unsafe)
            }
            action => action,
        }
    }

    fn watch_lost(&mut self, now_ms: u64, field: &Field<'_>) {
        let away = |id: &NodeId| field.voters.iter().any(|voter| voter.id == *id && !voter.up);
        self.lost_since_ms.retain(|id, _| away(id));
        for voter in field.voters.iter().filter(|voter| !voter.up) {
            self.lost_since_ms.entry(voter.id).or_insert(now_ms);
        }
    }

    /// Voters that are away for longer than the grace time.
    fn lost(&self, now_ms: u64, field: &Field<'_>) -> Vec<NodeId> {
        let over = |since: &u64| now_ms.saturating_sub(*since) >= self.wanted.replace_after_ms;
        let lost = |id: NodeId| self.lost_since_ms.get(&id).is_some_and(over);
        field.voters.iter().map(|voter| voter.id).filter(|id| lost(*id)).collect()
    }

    fn watch_better(&mut self, now_ms: u64, field: &Field<'_>) {
        let mut better = BTreeMap::new();
        for voter in field.voters.iter().filter(|voter| voter.up && !voter.pinned) {
            let much = field.standbys.iter().filter(|other| field.is_much_better(other, voter));
            for challenger in much.take(CHALLENGERS_MAX) {
                let pair = (voter.id, challenger.id);
                let since = self.better_since_ms.get(&pair).copied().unwrap_or(now_ms);
                better.insert(pair, since);
            }
        }
        self.better_since_ms = better;
    }

    /// An even number: up when there is somebody and more are wanted, else down.
    fn make_odd(&self, field: &Field<'_>, lost: &[NodeId]) -> Action {
        match field.best_standby(None) {
            Some(id) if field.voters.len() < self.wanted.voters => Action::Promote(id, Why::Even),
            _ => self.fewer(field, lost, Why::Even),
        }
    }

    fn fewer(&self, field: &Field<'_>, lost: &[NodeId], why: Why) -> Action {
        match lost.first().copied().or_else(|| field.worst_voter()) {
            Some(id) => Action::Demote(id, why),
            None => Action::Wait(Why::Pinned),
        }
    }

    /// A voter was lost: somebody takes its place; where there is nobody, two lost ones of five or
    /// more are given up, which lets one more be lost. Giving up one of three would only leave fewer
    /// disks with the index.
    fn without(&self, field: &Field<'_>, lost: &[NodeId]) -> Action {
        let Some(out) = lost.first().copied() else { return Action::Wait(Why::Settled) };
        match field.best_standby(Some(out)) {
            Some(into) => Action::Replace { out, into, why: Why::Lost },
            None if lost.len() >= 2 && field.voters.len() >= 5 => Action::Demote(out, Why::Lost),
            None => Action::Wait(Why::NoStandby),
        }
    }

    /// From one odd number to the next, when there are two to take in.
    fn grow(&self, field: &Field<'_>) -> Action {
        match field.best_standby(None) {
            _ if field.voters.iter().any(|voter| !voter.up) => Action::Wait(Why::Grace),
            Some(id) if field.standbys.len() >= 2 => Action::Promote(id, Why::TooFew),
            _ => Action::Wait(Why::NoStandby),
        }
    }

    fn upgrade(&self, now_ms: u64, field: &Field<'_>) -> Action {
        if field.voters.iter().any(|voter| !voter.up) {
            return Action::Wait(Why::Grace);
        }
        let patience_ms = self.wanted.upgrade_after_ms;
        let long = |since: u64| now_ms.saturating_sub(since) >= patience_ms;
        if !self.changed_ms.is_none_or(long) {
            return Action::Wait(Why::Settled);
        }
        let ripe = self.better_since_ms.iter().filter(|(_, since)| long(**since));
        match field.best_exchange(ripe.map(|(pair, _)| *pair)) {
            Some((out, into)) => Action::Replace { out, into, why: Why::Better },
            None => Action::Wait(Why::Settled),
        }
    }
}
