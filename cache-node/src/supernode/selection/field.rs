//! PURE. The candidates as one decision sees them: voters, standbys from the best down, and what
//! each would do to the spread over zones.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use shoal_proto::NodeId;

use super::{Action, Candidate, MARGIN, score};

/// A candidate with its score.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rated<'a> {
    pub(super) id: NodeId,
    pub(super) zone: &'a str,
    pub(super) up: bool,
    pub(super) pinned: bool,
    caught_up: bool,
    score: i64,
}

/// All candidates, rated.
#[derive(Debug)]
pub(super) struct Field<'a> {
    me: NodeId,
    pub(super) voters: Vec<Rated<'a>>,
    /// Those who could be given a vote now, the best first.
    pub(super) standbys: Vec<Rated<'a>>,
}

impl<'a> Field<'a> {
    /// `held` says who is passed over for now.
    pub(super) fn new(
        candidates: &'a [Candidate],
        me: NodeId,
        held: impl Fn(NodeId) -> bool,
    ) -> Self {
        let rate = |candidate: &'a Candidate| Rated {
            id: candidate.id,
            zone: &candidate.zone,
            up: candidate.up,
            pinned: candidate.pinned,
            caught_up: candidate.caught_up,
            score: score(&candidate.capability, &candidate.stability),
        };
        let mut voters: Vec<_> = candidates.iter().filter(|c| c.voter).map(rate).collect();
        voters.sort_by_key(|voter| voter.id);
        let could = |c: &&Candidate| !c.voter && c.eligible && c.up && !held(c.id);
        let mut standbys: Vec<_> = candidates.iter().filter(could).map(rate).collect();
        standbys.sort_by_key(|c| (!c.pinned, !c.caught_up, Reverse(c.score), c.id));
        Self { me, voters, standbys }
    }

    /// Whom to give a vote, `out` being about to lose its own: one that gives no zone a majority
    /// when there is one; pinned ones, those that have the log and the fittest first.
    pub(super) fn best_standby(&self, out: Option<NodeId>) -> Option<NodeId> {
        let crowds = |standby: &Rated<'_>| self.is_crowded(out, Some(*standby));
        let spread = self.standbys.iter().find(|standby| !crowds(standby));
        spread.or(self.standbys.first()).map(|standby| standby.id)
    }

    /// Who loses its vote when there are too many: out of a zone with a majority when there is one;
    /// the leader last, and never one that configuration keeps.
    pub(super) fn worst_voter(&self) -> Option<NodeId> {
        let zones = self.zones(None, None);
        let in_zone = |zone: &str| zones.get(zone).copied().unwrap_or_default();
        let free = self.voters.iter().filter(|voter| !voter.pinned);
        let order = |v: &&Rated<'_>| {
            let crowded = 2 * in_zone(v.zone) > self.voters.len();
            (v.up, v.id == self.me, !crowded, v.score, v.id)
        };
        free.min_by_key(order).map(|voter| voter.id)
    }

    /// Whether `challenger` is worth a change, were it to last.
    pub(super) fn is_much_better(&self, challenger: &Rated<'_>, voter: &Rated<'_>) -> bool {
        let now = self.is_crowded(None, None);
        let then = self.is_crowded(Some(voter.id), Some(*challenger));
        match (now, then) {
            (true, false) => true,
            (false, true) => false,
            _ => challenger.pinned || challenger.score >= voter.score + MARGIN,
        }
    }

    /// The exchange that gains most, out of (voter, challenger) pairs.
    pub(super) fn best_exchange(
        &self,
        pairs: impl Iterator<Item = (NodeId, NodeId)>,
    ) -> Option<(NodeId, NodeId)> {
        let of = |all: &[Rated<'_>], id: NodeId| all.iter().find(|c| c.id == id).map(|c| c.score);
        let gain = |(out, into): &(NodeId, NodeId)| {
            let gain = of(&self.standbys, *into)? - of(&self.voters, *out)?;
            let spreads = !self.is_crowded(
                Some(*out),
                self.standbys.iter().find(|standby| standby.id == *into).copied(),
            );
            Some((*out != self.me, spreads, gain, Reverse((*out, *into))))
        };
        pairs.max_by_key(gain)
    }

    /// Whether enough voters are up before, and would be after the change.
    pub(super) fn is_safe(&self, action: Action) -> bool {
        let count = self.voters.len();
        let up = self.voters.iter().filter(|voter| voter.up).count();
        let is_up = |id: NodeId| self.voters.iter().any(|voter| voter.id == id && voter.up);
        let (count_then, up_then) = match action {
            Action::Promote(..) => (count + 1, up + 1),
            Action::Replace { out, .. } => (count, up + 1 - usize::from(is_up(out))),
            Action::Demote(out, _) => (count - 1, up - usize::from(is_up(out))),
            Action::Wait(_) => (count, up),
        };
        up > count / 2 && up_then > count_then / 2
    }

    /// Whether some zone has a majority, once `out` has gone and `into` has come.
    fn is_crowded(&self, out: Option<NodeId>, into: Option<Rated<'_>>) -> bool {
        let count = self.voters.len() + usize::from(into.is_some()) - usize::from(out.is_some());
        // Of two, one is no majority: it is the step to three that counts.
        let of = count + usize::from(count.is_multiple_of(2));
        self.zones(out, into).values().any(|in_zone| 2 * in_zone > of)
    }

    /// Voters by zone, those without one left out.
    fn zones<'b>(
        &'b self,
        out: Option<NodeId>,
        into: Option<Rated<'b>>,
    ) -> BTreeMap<&'b str, usize> {
        let mut zones = BTreeMap::new();
        let stay = self.voters.iter().filter(|voter| Some(voter.id) != out).copied();
        for voter in stay.chain(into).filter(|voter| !voter.zone.is_empty()) {
            *zones.entry(voter.zone).or_default() += 1;
        }
        zones
    }
}
