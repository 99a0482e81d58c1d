//! Selection over many seeded histories: nodes of all kinds that grow, shrink, flap, are lost and
//! come back, leaders that are lost with all that they remembered, changes that fail.
//!
//! Invariants, looked at on every step: nothing is changed without a quorum, and no change leaves
//! none; never more voters than wanted, but for those there were; nobody loses its vote for an
//! absence shorter than the grace time; who gets a vote is up. Over a whole history the changes are
//! bounded by what happened. In the end there are as many voters as wanted.

use std::collections::BTreeMap;

use super::flaps::Flaps;
use super::*;
use crate::supernode::sim::rng::Rng;

const HISTORIES: u64 = 1_000;
const STEP_MS: u64 = 1_000;
const TROUBLE_MS: u64 = 1_800_000;
const QUIET_MS: u64 = 120_000;
const GIB: u64 = 1 << 30;
/// A change cannot be made, one time in so many.
const FAILS_ONE_IN: u64 = 10;

#[derive(Default)]
struct Counted {
    /// Voters that were away for longer than the grace time, at least.
    absences: u64,
    leaders: u64,
    failed: u64,
    changes: BTreeMap<&'static str, u64>,
}

impl Counted {
    fn changes(&self, why: Why) -> u64 {
        self.changes.get(why.text()).copied().unwrap_or(0)
    }
}

struct World {
    seed: u64,
    rng: Rng,
    wanted: Wanted,
    now_ms: u64,
    nodes: Vec<Candidate>,
    back_ms: BTreeMap<NodeId, u64>,
    away_since_ms: BTreeMap<NodeId, u64>,
    flaps: Flaps,
    leader: Option<(NodeId, Selection)>,
    counted: Counted,
}

fn any_capability(rng: &mut Rng) -> Capability {
    Capability {
        cores: rng.between((1, 64)) as u32,
        memory_bytes: rng.between((1, 256)) * GIB,
        disk_free_bytes: rng.between((0, 2_000)) * GIB,
        bandwidth_bytes_s: Some(rng.below(2 * GIB)).filter(|_| rng.one_in(2)),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("selection", 0);
        let voters = rng.pick(&[1usize, 3, 3, 5, 7]);
        let count = voters as u64 + rng.between((1, 5));
        let zones = rng.pick(&[&[""][..], &["a", "b", "c"], &["a", "a", "b", ""]]);
        let candidate = |id: u64| Candidate {
            id: NodeId(id),
            zone: rng.pick(zones).to_owned(),
            capability: any_capability(&mut rng),
            stability: Stability { uptime_ms: rng.below(7_200_000), ..Stability::default() },
            up: true,
            caught_up: rng.one_in(2),
            voter: id == 1,
            eligible: true,
            pinned: false,
        };
        let nodes = (1..=count).map(candidate).collect();
        let wanted = Wanted { voters, ..Wanted::default() };
        let leader = Some((NodeId(1), Selection::new(wanted)));
        let (back_ms, away_since_ms, flaps, counted) = Default::default();
        let now_ms = 0;
        Self { seed, rng, wanted, now_ms, nodes, back_ms, away_since_ms, flaps, leader, counted }
    }

    fn node(&mut self, id: NodeId) -> &mut Candidate {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    fn voters(&self) -> usize {
        self.nodes.iter().filter(|node| node.voter).count()
    }

    fn has_quorum(&self) -> bool {
        2 * self.nodes.iter().filter(|node| node.voter && node.up).count() > self.voters()
    }

    /// Something goes wrong, or is other than it was.
    fn trouble(&mut self) {
        let id = NodeId(self.rng.between((1, self.nodes.len() as u64)));
        match self.rng.below(8) {
            0 => self.node(id).capability = any_capability(&mut self.rng.fork("new", self.now_ms)),
            1 => self.node(id).stability.missed_heartbeats = self.rng.below(8) as u32,
            // Leadership is handed on: the next one has seen nothing yet.
            2 => self.leader = None,
            _ => {
                let long = self.rng.pick(&[(1, 14), (16, 60), (60, 400)]);
                let away_ms = self.rng.between(long) * 1_000;
                self.node(id).up = false;
                self.node(id).stability.uptime_ms = 0;
                self.away_since_ms.entry(id).or_insert(self.now_ms);
                let back_ms = self.back_ms.entry(id).or_default();
                *back_ms = (*back_ms).max(self.now_ms + away_ms);
            }
        }
    }

    fn pass(&mut self) {
        self.now_ms += STEP_MS;
        let now_ms = self.now_ms;
        for node in &mut self.nodes {
            if self.back_ms.get(&node.id).is_some_and(|back| *back <= now_ms) {
                self.back_ms.remove(&node.id);
                let since = self.away_since_ms.remove(&node.id).unwrap_or(now_ms);
                let long = now_ms - since >= self.wanted.replace_after_ms;
                self.counted.absences += u64::from(long);
                node.up = true;
            }
            node.stability.uptime_ms += if node.up { STEP_MS } else { 0 };
        }
        self.flaps.update(now_ms, self.nodes.iter().map(|node| (node.id, node.up)));
        for node in &mut self.nodes {
            node.stability.flaps = self.flaps.count(node.id);
        }
        let leads = |id: NodeId| self.nodes.iter().any(|n| n.id == id && n.up && n.voter);
        if self.leader.as_ref().is_none_or(|(id, _)| !leads(*id)) {
            self.leader = None;
        }
        if self.leader.is_none() && self.has_quorum() {
            let could: Vec<_> = self.nodes.iter().filter(|n| n.up && n.voter).collect();
            let id = could[self.rng.below(could.len() as u64) as usize].id;
            self.leader = Some((id, Selection::new(self.wanted)));
            self.counted.leaders += 1;
        }
    }

    fn decide(&mut self) {
        let quorum = self.has_quorum();
        let Some((me, selection)) = self.leader.as_mut() else { return };
        let seen = Situation { now_ms: self.now_ms, me: *me, quorum, candidates: &self.nodes };
        let action = selection.decide(&seen);
        if matches!(action, Action::Wait(_)) {
            return;
        }
        let at = format!("seed {} at {} s: {action:?}", self.seed, self.now_ms / 1_000);
        assert!(quorum, "{at} without a quorum");
        self.is_allowed(action, &at);
        let into = match action {
            Action::Promote(into, _) | Action::Replace { into, .. } => Some(into),
            Action::Demote(..) | Action::Wait(_) => None,
        };
        if let (Some(into), true) = (into, self.rng.one_in(FAILS_ONE_IN)) {
            self.counted.failed += 1;
            let now_ms = self.now_ms;
            if let Some((_, selection)) = &mut self.leader {
                selection.failed(now_ms, into);
            }
            return;
        }
        let before = self.voters();
        match action {
            Action::Promote(id, _) => self.node(id).voter = true,
            Action::Demote(id, _) => self.node(id).voter = false,
            Action::Replace { out, into, .. } => {
                self.node(out).voter = false;
                self.node(into).voter = true;
            }
            Action::Wait(_) => {}
        }
        assert!(self.has_quorum(), "{at} leaves no quorum");
        assert!(self.voters() <= before.max(self.wanted.voters), "{at}: too many voters");
        *self.counted.changes.entry(action.why().text()).or_default() += 1;
        if let Some((_, selection)) = &mut self.leader {
            selection.changed(self.now_ms);
        }
    }

    fn is_allowed(&mut self, action: Action, at: &str) {
        let (out, into) = match action {
            Action::Promote(into, _) => (None, Some(into)),
            Action::Replace { out, into, .. } => (Some(out), Some(into)),
            Action::Demote(out, _) => (Some(out), None),
            Action::Wait(_) => (None, None),
        };
        if let Some(into) = into {
            let node = self.node(into);
            assert!(node.up && node.eligible && !node.voter, "{at}: takes in whoever cannot");
        }
        if let Some(out) = out.filter(|_| action.why() == Why::Lost) {
            let away_ms = self.now_ms - self.away_since_ms.get(&out).copied().unwrap_or(u64::MAX);
            assert!(away_ms >= self.wanted.replace_after_ms, "{at}: away for {away_ms} ms");
        }
    }

    /// What it cost, held against what happened.
    fn judge(&self) {
        let (seed, wanted, counted) = (self.seed, self.wanted, &self.counted);
        let at = |what: &str| format!("seed {seed}, {wanted:?}: {what}: {:?}", counted.changes);
        assert_eq!(self.voters(), wanted.voters, "{}", at("not as many voters as wanted"));
        let lost = counted.changes(Why::Lost);
        assert!(lost <= counted.absences, "{}", at("more than one exchange a lost voter"));
        // From an odd number to the next, and back when the second step could not be made.
        let steps = counted.changes(Why::TooFew) + counted.changes(Why::Even);
        let most = wanted.voters as u64 - 1 + 2 * (lost + counted.absences + counted.leaders);
        assert!(steps <= most, "{}", at("more steps than losses explain"));
        assert_eq!(counted.changes(Why::TooMany), 0, "{}", at("more voters than wanted"));
        let patiences = self.now_ms / wanted.upgrade_after_ms;
        let better = counted.changes(Why::Better);
        assert!(better <= patiences, "{}", at("no patience with sitting voters"));
    }
}

#[test]
fn many_histories_hold() {
    let (mut absences, mut leaders, mut failed) = (0, 0, 0);
    let mut changes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 1..=HISTORIES {
        let mut world = World::new(seed);
        let every_s = world.rng.pick(&[20, 60, 300]);
        while world.now_ms < TROUBLE_MS {
            if world.rng.one_in(every_s) {
                world.trouble();
            }
            world.pass();
            world.decide();
        }
        world.back_ms.values_mut().for_each(|back_ms| *back_ms = 0);
        while world.now_ms < TROUBLE_MS + QUIET_MS {
            world.pass();
            world.decide();
        }
        world.judge();
        absences += world.counted.absences;
        leaders += world.counted.leaders;
        failed += world.counted.failed;
        for (why, count) in world.counted.changes {
            *changes.entry(why).or_default() += count;
        }
    }
    let rich = absences > HISTORIES && leaders > HISTORIES && failed > HISTORIES / 10;
    let all = [Why::TooFew, Why::Even, Why::Lost, Why::Better].map(Why::text);
    let all = all.iter().all(|why| changes.contains_key(why));
    assert!(rich && all, "{absences} absences, {leaders} leaders, {failed} failed, {changes:?}");
}
