//! A small model of a cluster: pods, volumes, and a tier that keeps the rules of `/v1/members`. It
//! does what steps say, as the operator's shell would, and says whether that was allowed.

use std::collections::{BTreeMap, BTreeSet};

use shoal_operator::plan::facts::{CAUGHT_UP_POSITIONS, InTier, Member, Observed, Pod, Tier};
use shoal_operator::plan::{Op, Step};

pub(crate) const ROUND_S: i64 = 15;

#[derive(Clone, Debug, Default)]
struct Super {
    leaving: bool,
    deleting: bool,
    latched: Option<String>,
    /// The id that the data on the volume says; nothing when there is no volume.
    volume: Option<String>,
    missing_since: Option<i64>,
    pod: Option<Running>,
    silent_since: Option<i64>,
}

#[derive(Clone, Debug)]
struct Running {
    version: u32,
    since: i64,
    broken: bool,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) now: i64,
    pub(crate) wanted_version: u32,
    pub(crate) broken_version: Option<u32>,
    members: BTreeMap<String, Super>,
    drawn: u32,
    founded: bool,
    position: u64,
    voters: BTreeSet<String>,
    learners: BTreeMap<String, u64>,
    removed: BTreeSet<String>,
    leader: Option<String>,
    leader_since: i64,
    /// Super-nodes ask for a vote by themselves, as the real ones do.
    pub(crate) eager: bool,
}

impl World {
    /// Nothing is there yet. `eager`: super-nodes ask for a vote by themselves, as the real ones do.
    pub(crate) fn new(eager: bool) -> Self {
        Self { now: 1_000_000, wanted_version: 1, eager, ..Self::default() }
    }

    fn up(&self, id: &str) -> bool {
        let runs = |m: &Super| {
            m.volume.as_deref() == Some(id) && m.pod.as_ref().is_some_and(|pod| !pod.broken)
        };
        self.members.values().any(runs)
    }

    pub(crate) fn has_quorum(&self) -> bool {
        self.majority_up(&self.voters)
    }

    fn majority_up(&self, voters: &BTreeSet<String>) -> bool {
        voters.iter().filter(|id| self.up(id)).count() > voters.len() / 2
    }

    pub(crate) fn voters(&self) -> usize {
        self.voters.len()
    }

    fn name_of(&self, id: &str) -> String {
        let of = |m: &Super| m.latched.as_deref() == Some(id) || m.volume.as_deref() == Some(id);
        let found = self.members.iter().find(|(_, m)| of(m));
        found.map_or_else(|| format!("gone-{id}"), |(name, _)| name.clone())
    }

    /// What the operator sees.
    pub(crate) fn observe(&self, cluster_id: &str) -> Observed {
        let members = self.members.iter().map(|(name, m)| Member {
            name: name.clone(),
            leaving: m.leaving,
            deleting: m.deleting,
            id: m.latched.clone(),
            pod: m.pod.as_ref().map(|pod| Pod {
                running: !pod.broken,
                ready_since_s: (!pod.broken && m.volume.is_some()).then_some(pod.since),
                created_s: pod.since,
                terminating: false,
                ended: false,
                current: pod.version == self.wanted_version,
            }),
            volume_missing_since_s: m.missing_since,
            silent_since_s: m.silent_since,
            address: format!("{name}:7400"),
        });
        Observed {
            now_s: self.now,
            founded: self.founded,
            members: members.collect(),
            tier: (self.founded && self.has_quorum()).then(|| self.tier(cluster_id)),
            leader_since_s: self.leader.is_some().then_some(self.leader_since),
        }
    }

    fn tier(&self, cluster_id: &str) -> Tier {
        let entry = |id: &String, voter: bool, lag: u64| InTier {
            name: self.name_of(id),
            id: id.clone(),
            voter,
            leader: self.leader.as_ref() == Some(id),
            up: self.up(id),
            lag: Some(if self.up(id) { lag } else { CAUGHT_UP_POSITIONS * 9 }),
        };
        let voters = self.voters.iter().map(|id| entry(id, true, 0));
        let learners = self.learners.iter().map(|(id, lag)| entry(id, false, *lag));
        Tier {
            cluster_id: cluster_id.to_owned(),
            mark: self.mark(),
            joint: false,
            members: voters.chain(learners).collect(),
            removed: self.removed.clone(),
        }
    }

    fn mark(&self) -> String {
        format!("{}/{:08x}", self.position, self.voters.len())
    }

    /// Time goes on: pods found and join, learners catch up, a leader is chosen.
    pub(crate) fn pass(&mut self) {
        self.now += ROUND_S;
        for lag in self.learners.values_mut() {
            *lag /= 16;
        }
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            self.run(&name);
        }
        self.learners.retain(|id, _| !self.removed.contains(id));
        if self.leader.as_ref().is_none_or(|id| !self.voters.contains(id) || !self.up(id)) {
            let next = self.voters.iter().find(|id| self.up(id)).cloned();
            self.leader = next.filter(|_| self.has_quorum());
            self.leader_since = self.now;
        }
        if self.eager && self.has_quorum() {
            let ready = self.learners.iter().find(|(id, lag)| **lag == 0 && self.up(id));
            if let Some(id) = ready.map(|(id, _)| id.clone()) {
                self.promote(&id);
            }
        }
        let heard: BTreeSet<String> = self
            .voters
            .iter()
            .chain(self.learners.keys())
            .filter(|id| self.up(id))
            .cloned()
            .collect();
        for m in self.members.values_mut() {
            let up = m.volume.as_ref().is_some_and(|id| heard.contains(id));
            if up {
                m.latched.clone_from(&m.volume);
                m.silent_since = None;
            } else {
                m.silent_since = m.silent_since.or(Some(self.now));
            }
            if m.volume.is_none() && m.latched.is_some() {
                m.missing_since = m.missing_since.or(Some(self.now));
            }
        }
    }

    fn run(&mut self, name: &str) {
        let quorum = self.has_quorum();
        let Some(member) = self.members.get(name) else { return };
        let Some(id) = member.volume.clone() else { return };
        let runs = member.pod.as_ref().is_some_and(|pod| !pod.broken);
        if !runs || self.removed.contains(&id) || self.voters.contains(&id) {
            return;
        }
        if !self.founded {
            self.founded = true;
            self.voters.insert(id);
            self.position += 1;
        } else if quorum && !self.learners.contains_key(&id) && self.eager {
            self.learners.insert(id, CAUGHT_UP_POSITIONS * 20);
            self.position += 1;
        }
    }

    fn promote(&mut self, id: &str) {
        self.learners.remove(id);
        self.voters.insert(id.to_owned());
        self.position += 1;
    }

    /// Does what a step says; an error says which rule it broke.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<(), String> {
        match &step.op {
            Op::CreateMember { founder } => self.create(*founder),
            Op::CreatePod { member } => self.start(member),
            Op::MarkLeaving { member } => {
                self.member(member)?.leaving = true;
                Ok(())
            }
            Op::DeletePod { member } => {
                self.member(member)?.pod = None;
                Ok(())
            }
            Op::DeleteMember { member } => self.delete(member),
            op => self.change(op),
        }
    }

    fn member(&mut self, name: &str) -> Result<&mut Super, String> {
        self.members.get_mut(name).ok_or_else(|| format!("no super-node {name:?}"))
    }

    fn create(&mut self, founder: bool) -> Result<(), String> {
        if founder && self.founded {
            return Err("a second tier would be founded".to_owned());
        }
        self.drawn += 1;
        let id = format!("{:016x}", self.drawn);
        let pod = self.new_pod();
        let member = Super { volume: Some(id), pod: Some(pod), ..Super::default() };
        self.members.insert(format!("super-{:03}", self.drawn), member);
        Ok(())
    }

    fn new_pod(&self) -> Running {
        let version = self.wanted_version;
        Running { version, since: self.now, broken: self.broken_version == Some(version) }
    }

    fn start(&mut self, name: &str) -> Result<(), String> {
        let pod = self.new_pod();
        let member = self.member(name)?;
        if member.pod.is_some() || member.volume.is_none() {
            return Err(format!("{name} has a pod, or no volume"));
        }
        member.pod = Some(pod);
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), String> {
        let member = self.member(name)?.clone();
        let id = member.volume.or(member.latched).unwrap_or_default();
        if self.voters.contains(&id) || self.learners.contains_key(&id) {
            return Err(format!("{name} is in the tier, and its data would be deleted"));
        }
        if member.pod.is_some() {
            return Err(format!("{name} still runs"));
        }
        self.members.remove(name);
        Ok(())
    }

    /// `/v1/members`: an outdated mark, or a rule that stands against it, changes nothing.
    fn change(&mut self, op: &Op) -> Result<(), String> {
        let expect = match op {
            Op::Add { expect, .. }
            | Op::Promote { expect, .. }
            | Op::Replace { expect, .. }
            | Op::Remove { expect, .. }
            | Op::Transfer { expect, .. } => expect,
            other => return Err(format!("{other:?} is no step for super-nodes")),
        };
        if *expect != self.mark() || !self.has_quorum() {
            return Ok(());
        }
        let mut next = self.voters.clone();
        match op {
            Op::Add { member, .. } => {
                let id = self.member(member)?.volume.clone().unwrap_or_default();
                if self.up(&id) && !self.removed.contains(&id) && !next.contains(&id) {
                    self.learners.entry(id).or_insert(CAUGHT_UP_POSITIONS * 20);
                    self.position += 1;
                }
                return Ok(());
            }
            Op::Transfer { id, .. } => {
                if self.voters.contains(id) && self.up(id) {
                    self.leader = Some(id.clone());
                    self.leader_since = self.now;
                }
                return Ok(());
            }
            Op::Promote { id, .. } => {
                next.insert(id.clone());
            }
            Op::Replace { old, new, .. } => {
                next.remove(old);
                next.insert(new.clone());
            }
            Op::Remove { id, .. } => {
                next.remove(id);
            }
            _ => {}
        }
        self.commit(next, op)
    }

    fn commit(&mut self, next: BTreeSet<String>, op: &Op) -> Result<(), String> {
        for id in next.difference(&self.voters) {
            let lag = self.learners.get(id).copied().unwrap_or(u64::MAX);
            if lag > CAUGHT_UP_POSITIONS || !self.up(id) {
                return Err(format!("{op:?} gives a vote to one that has not caught up"));
            }
        }
        if next.is_empty() || !self.majority_up(&next) {
            return Err(format!("{op:?} would leave no majority"));
        }
        if let Op::Replace { old: id, .. } | Op::Remove { id, .. } = op {
            self.removed.insert(id.clone());
            self.learners.remove(id);
        }
        self.learners.retain(|id, _| !next.contains(id));
        self.voters = next;
        self.position += 1;
        Ok(())
    }

    /// One of the things that happen; who it happens to is `which` of them.
    pub(crate) fn strike(&mut self, event: u8, which: u8) {
        let count = self.members.len().max(1);
        let nth = self.members.keys().nth(usize::from(which) % count).cloned();
        let Some(name) = nth else { return };
        match event {
            0 => {
                // A pod is killed, or its machine is lost and its volume is not.
                if let Some(member) = self.members.get_mut(&name) {
                    member.pod = None;
                }
            }
            1 => self.lose_volume(&name),
            2 => {
                if let Some(member) = self.members.get_mut(&name) {
                    member.deleting = true;
                }
            }
            3 => self.leader = None,
            _ => {}
        }
    }

    /// Never more volumes than a majority survives.
    fn lose_volume(&mut self, name: &str) {
        let Some(lost) = self.members.get(name).and_then(|m| m.volume.clone()) else { return };
        let has = |id: &&String| {
            **id != lost && self.members.values().any(|m| m.volume.as_ref() == Some(*id))
        };
        if self.founded && self.voters.iter().filter(has).count() <= self.voters.len() / 2 {
            return;
        }
        if let Some(member) = self.members.get_mut(name) {
            member.volume = None;
            member.pod = None;
            member.missing_since = Some(self.now);
        }
    }

    /// Whether all is as wanted.
    pub(crate) fn is_as_wanted(&self, size: usize) -> bool {
        let whole = |m: &Super| {
            let current = m.pod.as_ref().is_some_and(|pod| pod.version == self.wanted_version);
            let votes = m.volume.as_ref().is_some_and(|id| self.voters.contains(id));
            current && votes && !m.leaving && !m.deleting
        };
        self.members.len() == size
            && self.voters.len() == size
            && self.learners.is_empty()
            && self.members.values().all(whole)
    }
}
