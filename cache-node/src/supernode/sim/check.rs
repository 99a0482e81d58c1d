//! Raft's safety, judged as it happens: every write to a log, every vote, every entry applied goes
//! by here (Ongaro, 2014, section 3.2: election safety, log matching, leader completeness, state
//! machine safety; and that what is committed is durable on a quorum and stays so).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message;
use shoal_proto::wire::v1;

use super::super::raft::simulated::{EntryFacts, LogDisk, Observer, RaftFacts, StateDisk, now_us};

/// Most violations that are kept: the first says most.
const VIOLATIONS_MAX: usize = 20;

/// Something that must never happen, and when it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// The invariant, by its name.
    pub(super) invariant: &'static str,
    pub(super) what: String,
    pub(super) at_us: u64,
}

/// A super-node's disks.
#[derive(Clone)]
pub(super) struct Disks {
    pub(super) log: LogDisk,
    pub(super) state: StateDisk,
}

#[derive(Default)]
struct State {
    disks: BTreeMap<u64, Disks>,
    leaders: BTreeMap<u64, u64>,
    granted: BTreeMap<(u64, u64), u64>,
    /// Who gave a vote, in order.
    voters: Vec<u64>,
    votes: BTreeMap<u64, (u64, bool)>,
    /// What every entry written under a position and a term is, and the term before it.
    written: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    /// Voter sets that were proposed.
    proposed: BTreeMap<(u64, u64), Vec<BTreeSet<u64>>>,
    committed: BTreeMap<u64, (EntryFacts, u64)>,
    configs: Vec<BTreeSet<u64>>,
    applied: BTreeMap<u64, u64>,
    floors: BTreeMap<u64, RaftFacts>,
    digests: BTreeMap<u64, (u64, u64)>,
    /// Super-nodes that will never be back.
    lost: BTreeSet<u64>,
    violations: Vec<Violation>,
}

/// The judge of one world.
#[derive(Default)]
pub(super) struct Check(Mutex<State>);

impl State {
    fn violated(&mut self, invariant: &'static str, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { invariant, what, at_us: now_us() });
        }
    }

    /// Whether a crash of everybody now would leave the entry on a quorum.
    fn is_safe(&self, configs: &[BTreeSet<u64>], index: u64, term: u64) -> bool {
        let has = |id: &u64| {
            let Some(disks) = self.disks.get(id) else { return false };
            match disks.log.durable_term(index) {
                Ok(found) => found == Some(term) || disks.state.snapshot() >= index,
                Err(()) => true,
            }
        };
        configs.iter().all(|voters| voters.iter().filter(|id| has(id)).count() * 2 > voters.len())
    }

    /// The voter sets by which something may have been committed lately.
    fn possible_configs(&self) -> Vec<Vec<BTreeSet<u64>>> {
        let known = self.committed.last_key_value().map_or(0, |(index, _)| *index);
        let later = self.proposed.range((known, 0)..).map(|(_, configs)| configs.clone());
        later.chain([self.configs.clone()]).filter(|configs| !configs.is_empty()).collect()
    }

    /// Those who can be back are a quorum.
    fn has_quorum(&mut self, configs: &[BTreeSet<u64>]) {
        let lost = |voters: &&BTreeSet<u64>| {
            voters.iter().filter(|id| self.lost.contains(id)).count() * 2 >= voters.len()
        };
        if let Some(voters) = configs.iter().find(lost) {
            let what = format!("of voters {voters:?} {:?} are lost", self.lost);
            self.violated("a change of members leaves a quorum", what);
        }
    }

    fn leads(&mut self, host: u64, term: u64) {
        let leader = *self.leaders.entry(term).or_insert(host);
        if leader != host {
            let what = format!("{leader} and {host} both lead in term {term}");
            self.violated("election safety", what);
        }
    }

    /// A new leader has everything that was committed before.
    fn is_complete(&mut self, host: u64, term: u64) {
        let Some(disks) = self.disks.get(&host).cloned() else { return };
        let last = self.committed.iter().rev().find(|(_, (entry, _))| entry.term < term);
        let Some((index, entry)) = last.map(|(index, (entry, _))| (*index, entry.clone())) else {
            return;
        };
        let there = match disks.log.term(index) {
            Ok(found) => found == Some(entry.term) || disks.state.snapshot() >= index,
            Err(()) => true,
        };
        if !there {
            let what = format!("{host} leads in term {term} without entry {index}");
            self.violated("leader completeness", what);
        }
    }
}

impl Check {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that others found.
    pub(super) fn violated(&self, invariant: &'static str, what: String) {
        self.state().violated(invariant, what);
    }

    /// Something found when virtual time has ended.
    pub(super) fn violated_outside(&self, invariant: &'static str, what: String) {
        let mut state = self.state();
        if state.violations.len() < VIOLATIONS_MAX {
            state.violations.push(Violation { invariant, what, at_us: 0 });
        }
    }

    /// What was found.
    pub(super) fn violations(&self) -> Vec<Violation> {
        self.state().violations.clone()
    }

    /// Whether anything was found.
    pub(super) fn is_broken(&self) -> bool {
        !self.state().violations.is_empty()
    }

    /// A super-node's disks, to be looked at.
    pub(super) fn attach(&self, host: u64, disks: Disks) {
        self.state().disks.insert(host, disks);
    }

    /// A life began: what it has applied, and what else counts from zero.
    pub(super) fn began(&self, host: u64) {
        let mut state = self.state();
        state.applied.remove(&host);
        state.floors.remove(&host);
    }

    /// A super-node will never be back.
    pub(super) fn lost(&self, host: u64) {
        let mut state = self.state();
        state.lost.insert(host);
        let configs = state.configs.clone();
        state.has_quorum(&configs);
    }

    /// A super-node is no voter any more, and ends.
    pub(super) fn left(&self, host: u64) {
        self.lost(host);
    }

    /// The host lost its power: a vote that it wrote and had not synced, and so gave nobody, may be
    /// gone.
    pub(super) fn lost_power(&self, host: u64) {
        let mut state = self.state();
        let durable = state.disks.get(&host).and_then(|disks| disks.log.durable_vote_term());
        match durable {
            Some(term) => state.votes.insert(host, (term, false)),
            None => state.votes.remove(&host),
        };
    }

    /// How many votes were given.
    pub(super) fn granted_count(&self) -> usize {
        self.state().voters.len()
    }

    /// Who gave the votes after the first `seen`.
    pub(super) fn granted_after(&self, seen: usize) -> Vec<u64> {
        self.state().voters.get(seen..).map(<[u64]>::to_vec).unwrap_or_default()
    }

    /// How many entries were committed.
    pub(super) fn committed(&self) -> u64 {
        self.state().committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The voters as they were last agreed on.
    pub(super) fn voters(&self) -> Vec<BTreeSet<u64>> {
        self.state().configs.clone()
    }

    /// How many terms had a leader.
    pub(super) fn elections(&self) -> u64 {
        self.state().leaders.len() as u64
    }

    /// Looks at what a super-node says of itself.
    pub(super) fn look(&self, host: u64, now: &RaftFacts) {
        let mut state = self.state();
        if now.leader == Some(host) && now.silent_ms.contains_key(&host) {
            state.leads(host, now.term);
        }
        let order = [now.purged, now.snapshot, now.applied, now.committed, now.last];
        if !order.is_sorted() {
            let what = format!("{host}: purged, snapshot, applied, committed, last: {order:?}");
            state.violated("order of positions", what);
        }
        if let Some(before) = state.floors.get(&host) {
            let fell = now.term < before.term
                || now.applied < before.applied
                || now.committed < before.committed
                || now.purged < before.purged
                || now.snapshot < before.snapshot;
            if fell {
                let what = format!("{host}: was {before:?}, is {now:?}");
                state.violated("positions only grow", what);
            }
        }
        state.floors.insert(host, now.clone());
    }

    /// Looks whether what was committed is still safe.
    pub(super) fn look_at_commits(&self, offset: u64) {
        let mut state = self.state();
        let Some((last, _)) = state.committed.last_key_value() else { return };
        let index = last.saturating_sub(offset);
        let Some((entry, _)) = state.committed.get(&index).cloned() else { return };
        let possible = state.possible_configs();
        if !possible.iter().any(|configs| state.is_safe(configs, index, entry.term)) {
            let what =
                format!("entry {index} of term {} is on no quorum of {possible:?}", entry.term);
            state.violated("committed is durable on a quorum", what);
        }
    }

    /// A replica's content at a position: equal on all that were there.
    pub(super) fn content(&self, host: u64, (applied, digest): (Option<u64>, u64)) {
        // Nothing applied yet, nothing to compare: the first entry has position 0.
        let Some(applied) = applied else { return };
        let mut state = self.state();
        let (first, expected) = *state.digests.entry(applied).or_insert((host, digest));
        if expected != digest {
            let what = format!("{first} and {host} differ at position {applied}");
            state.violated("state machine safety", what);
        }
    }
}

impl Observer for Check {
    fn appended(&self, host: u64, entry: &EntryFacts, before: Option<u64>) {
        let mut state = self.state();
        let at = (entry.index, entry.term);
        let (digest, known_before) = *state.written.entry(at).or_insert((entry.digest, before));
        let matches = known_before.is_none() || before.is_none() || known_before == before;
        if digest != entry.digest || !matches {
            let what =
                format!("{host} writes another entry {} of term {}", entry.index, entry.term);
            state.violated("log matching", what);
        }
        if let Some((known, _)) = state.committed.get(&entry.index)
            && known.digest != entry.digest
        {
            let what = format!("{host} overwrites committed entry {}", entry.index);
            let applied = state.applied.get(&host).copied().unwrap_or(0);
            if applied >= entry.index {
                state.violated("committed is immutable", what);
            }
        }
        if let Some(configs) = &entry.configs {
            // Who catches up writes it again, when it may be long outdated.
            if state.proposed.insert(at, configs.clone()).is_none() {
                state.has_quorum(configs);
            }
        }
    }

    fn voted(&self, host: u64, vote: &v1::Vote) {
        let mut state = self.state();
        let (term, _) = state.votes.get(&host).copied().unwrap_or_default();
        if vote.term < term {
            let what = format!("{host} votes in term {} after term {term}", vote.term);
            state.violated("terms only grow", what);
        }
        state.votes.insert(host, (vote.term, vote.committed));
        if vote.committed {
            state.leads(vote.node_id, vote.term);
            if vote.node_id == host {
                state.is_complete(host, vote.term);
            }
        }
    }

    fn granted(&self, host: u64, vote: &v1::Vote) {
        let mut state = self.state();
        state.voters.push(host);
        let durable = state.disks.get(&host).and_then(|disks| disks.log.durable_vote_term());
        if durable < Some(vote.term) {
            let what = format!("{host} gives a vote of term {}, durable is {durable:?}", vote.term);
            state.violated("a vote is durable before it is given", what);
        }
        let to = *state.granted.entry((host, vote.term)).or_insert(vote.node_id);
        if to != vote.node_id {
            let what = format!("{host} votes for {to} and {} in term {}", vote.node_id, vote.term);
            state.violated("one vote a term", what);
        }
    }

    fn applied(&self, host: u64, entry: &EntryFacts, replies: &[v1::CommandReply]) {
        let mut state = self.state();
        let index = entry.index;
        if let Some(before) = state.applied.insert(host, index)
            && before + 1 != index
        {
            let what = format!("{host} applies {index} after {before}");
            state.violated("entries are applied in order", what);
        }
        let mut hasher = blake3::Hasher::new();
        for reply in replies {
            hasher.update(&reply.encode_length_delimited_to_vec());
        }
        let first = hasher.finalize().as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        let outcome = u64::from_le_bytes(first);
        if let Some((known, expected)) = state.committed.get(&index).cloned() {
            if known != *entry || expected != outcome {
                let what = format!("{host} applies another entry {index}, or otherwise");
                state.violated("state machine safety", what);
            }
            return;
        }
        let possible = state.possible_configs();
        state.committed.insert(index, (entry.clone(), outcome));
        if let Some(configs) = &entry.configs {
            state.configs.clone_from(configs);
        }
        if !possible.iter().any(|configs| state.is_safe(configs, index, entry.term)) {
            let what = format!("{host} applies entry {index}, which is on no quorum's disks");
            state.violated("committed is durable on a quorum", what);
        }
    }

    fn installed(&self, host: u64, index: u64) {
        self.state().applied.insert(host, index);
    }
}
