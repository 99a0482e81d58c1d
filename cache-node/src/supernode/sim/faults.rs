//! Carries out a plan's faults, and mends what they broke.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::raft::simulated::{
    LogDisk, Refused, SimRaft, StateDisk, now_us, sleep_ms, sleep_us, spawn_outside, within_ms,
};
use super::check::Disks;
use super::node::{Host, SuperNode};
use super::plan::Fault;
use super::planted::Planted;
use super::world::{CACHES, Clock, World};

/// Clocks run so much faster or slower at most, in parts per million: less than the slack of a
/// session lease allows between two of them.
const SKEW_PPM: u64 = 20_000;
/// A change of members is tried for so long, in milliseconds.
const CHANGE_MS: u64 = 15_000;
const CHANGE_TRY_MS: u64 = 4_000;
const CHANGE_PAUSE_MS: u64 = 200;
/// Between two looks at who gave a vote, in microseconds.
const VOTERS_LOOK_US: u64 = 300;

#[derive(Default)]
struct State {
    hosts: BTreeMap<u64, Host>,
    /// Not back yet.
    down: BTreeSet<u64>,
    /// Never to be back.
    gone: BTreeSet<u64>,
    counts: BTreeMap<&'static str, u64>,
    /// A change of members is under way.
    changing: bool,
}

/// Who breaks and mends.
#[derive(Clone)]
pub(super) struct Faults {
    world: Arc<World>,
    state: Arc<Mutex<State>>,
}

impl Faults {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened, by kind.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Clocks for a process.
    pub(super) fn clock(&self, id: u64) -> Clock {
        let mut rng = self.world.rng.fork("clock", id);
        Clock::new(rng.below(2 * SKEW_PPM + 1) as i64 - SKEW_PPM as i64)
    }

    fn host(&self, id: u64) -> Host {
        let disks = Disks {
            log: LogDisk::new(self.world.rng.fork("log disk", id)),
            state: StateDisk::new(self.world.rng.fork("state disk", id)),
        };
        Host { id, disks, clock: Arc::new(self.clock(id)) }
    }

    /// A super-node with empty disks.
    pub(super) async fn add(&self, id: u64) {
        let host = self.host(id);
        self.world.check.attach(id, host.disks.clone());
        self.state().hosts.insert(id, host.clone());
        self.start(&host, false).await;
    }

    async fn start(&self, host: &Host, lived: bool) {
        if let Err(error) = SuperNode::start(&self.world, host, lived).await {
            let what = format!("{} does not start: {error}", host.id);
            self.world.check.violated("a super-node starts again", what);
        }
    }

    async fn restart(&self, id: u64) {
        let host = {
            let mut state = self.state();
            if state.gone.contains(&id) || !state.down.remove(&id) {
                return;
            }
            state.hosts.get(&id).cloned()
        };
        if let Some(host) = host {
            self.world.fills.disturbed();
            self.start(&host, true).await;
        }
    }

    /// Ends a super-node's life; whether it had one.
    fn stop(&self, id: u64, power: bool) -> bool {
        let Some(node) = self.world.super_node(id) else { return false };
        node.life.kill();
        self.world.set_super(id, None);
        self.world.fills.disturbed();
        let mut state = self.state();
        state.down.insert(id);
        if power && let Some(host) = state.hosts.get(&id) {
            let lost = host.disks.log.crash();
            host.disks.state.crash(self.world.is(Planted::ApplyTorn));
            self.world.check.lost_power(id);
            self.world.note(format_args!("{id} loses its power, and {lost} writes"));
        } else {
            self.world.note(format_args!("{id} is killed"));
        }
        true
    }

    fn leader(&self) -> Option<u64> {
        let nodes = self.world.super_nodes();
        let leading = nodes.iter().filter(|node| node.raft.facts().leader == Some(node.id));
        leading.max_by_key(|node| node.raft.facts().term).map(|node| node.id)
    }

    /// Begins a fault; it ends by itself.
    pub(super) fn begin(&self, fault: Fault) {
        self.world.note(format_args!("fault: {fault:?}"));
        let me = self.clone();
        let name = fault.name();
        spawn_outside(async move {
            if me.happen(fault).await {
                *me.state().counts.entry(name).or_default() += 1;
                me.world.fills.disturbed();
            }
        });
    }

    /// Whether anything came of it.
    async fn happen(&self, fault: Fault) -> bool {
        let Some(fault) = self.aim(fault) else { return false };
        self.world.fills.disturbed();
        match fault {
            Fault::PowerCut { host, for_ms } => self.down(host, true, for_ms).await,
            Fault::Kill { host, for_ms } => self.down(host, false, for_ms).await,
            Fault::Blackout { for_ms } => {
                let all: Vec<u64> = self.world.super_nodes().iter().map(|node| node.id).collect();
                let stopped: Vec<_> = all.into_iter().filter(|id| self.stop(*id, true)).collect();
                sleep_ms(for_ms).await;
                for id in stopped {
                    self.restart(id).await;
                }
                true
            }
            Fault::Pause { host, for_ms } => self.pause(host, for_ms).await,
            Fault::OneWay { from, to, for_ms } => self.cut(vec![(from, to)], for_ms).await,
            Fault::Isolate { host, for_ms } => {
                let others = self.everybody().into_iter().filter(|id| *id != host);
                let ways = others.flat_map(|id| [(host, id), (id, host)]).collect();
                self.cut(ways, for_ms).await
            }
            Fault::Split { group, for_ms } => {
                let others: Vec<u64> = self.state().hosts.keys().copied().collect();
                let others = others.iter().filter(|id| !group.contains(id));
                let ways = others.flat_map(|a| group.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
                self.cut(ways.collect(), for_ms).await
            }
            Fault::Lossy { host, for_ms } => {
                self.world.net.bad(host, true);
                sleep_ms(for_ms).await;
                self.world.net.bad(host, false);
                true
            }
            Fault::Slow { host, by_us, for_ms } => {
                self.world.net.slow(host, by_us);
                sleep_ms(for_ms).await;
                self.world.net.slow(host, 0);
                true
            }
            Fault::Jump { host, by_ms } => {
                if let Some(cache) = self.world.cache(host) {
                    cache.clock.jump(by_ms);
                } else if let Some(host) = self.state().hosts.get(&host) {
                    host.clock.jump(by_ms);
                }
                true
            }
            Fault::Transfer => self.transfer().await,
            Fault::Join { id } => self.join(id).await,
            Fault::Leave { id } => self.leave(id).await,
            Fault::Replace { lost, by } => self.replace(lost, by).await,
            Fault::CutVoters { for_ms } => self.cut_voters(for_ms).await,
            Fault::Lose { host } => self.lose(host),
            Fault::CutLeader { .. } | Fault::PauseLeader { .. } | Fault::CutOffLeader { .. } => {
                false
            }
        }
    }

    /// A fault of whoever leads becomes one of a super-node.
    fn aim(&self, fault: Fault) -> Option<Fault> {
        Some(match fault {
            Fault::CutLeader { for_ms } => Fault::PowerCut { host: self.leader()?, for_ms },
            Fault::PauseLeader { for_ms } => Fault::Pause { host: self.leader()?, for_ms },
            Fault::CutOffLeader { for_ms } => Fault::Split { group: vec![self.leader()?], for_ms },
            fault => fault,
        })
    }

    fn everybody(&self) -> Vec<u64> {
        let caches = self.world.caches();
        self.state().hosts.keys().copied().chain(caches.iter().map(|cache| cache.id)).collect()
    }

    async fn down(&self, id: u64, power: bool, for_ms: u64) -> bool {
        if id >= CACHES {
            let Some(cache) = self.world.cache(id) else { return false };
            if cache.life().is_dead() {
                return false;
            }
            cache.life().kill();
            self.world.fills.lost(id);
            sleep_ms(for_ms).await;
            cache.start();
            return true;
        }
        if !self.stop(id, power) {
            return false;
        }
        sleep_ms(for_ms).await;
        self.restart(id).await;
        true
    }

    async fn pause(&self, id: u64, for_ms: u64) -> bool {
        let cache = self.world.cache(id).map(|cache| cache.life());
        let node = self.world.super_node(id).map(|node| node.life.clone());
        let Some(life) = cache.or(node).filter(|life| !life.is_paused()) else { return false };
        life.pause(true);
        sleep_ms(for_ms).await;
        life.pause(false);
        true
    }

    async fn cut(&self, ways: Vec<(u64, u64)>, for_ms: u64) -> bool {
        ways.iter().for_each(|(from, to)| self.world.net.cut(*from, *to, true));
        sleep_ms(for_ms).await;
        ways.iter().for_each(|(from, to)| self.world.net.cut(*from, *to, false));
        !ways.is_empty()
    }

    async fn transfer(&self) -> bool {
        let Some(node) = self.leader().and_then(|id| self.world.super_node(id)) else {
            return false;
        };
        let voters: BTreeSet<u64> = node.raft.facts().configs.iter().flatten().copied().collect();
        let Some(to) = voters.into_iter().find(|id| *id != node.id) else { return false };
        within_ms(CHANGE_TRY_MS, node.raft.transfer(to)).await.is_some()
    }

    /// Whether the voters that are left are a quorum of all, and will be.
    fn may_lose(&self, lost: u64) -> bool {
        let state = self.state();
        self.world.check.voters().iter().all(|voters| {
            let left = voters.iter().filter(|id| **id != lost && !state.gone.contains(id)).count();
            voters.contains(&lost) && left * 2 > voters.len()
        })
    }

    fn lose(&self, id: u64) -> bool {
        if !self.may_lose(id) || self.state().changing {
            return false;
        }
        self.stop(id, true);
        self.state().gone.insert(id);
        self.world.check.lost(id);
        true
    }

    async fn cut_voters(&self, for_ms: u64) -> bool {
        let Some(leader) = self.leader() else { return false };
        let mut rng = self.world.rng.fork("voters", now_us());
        let until_us = now_us() + for_ms * 1_000;
        let me = self.clone();
        spawn_outside(async move {
            me.down(leader, true, for_ms).await;
        });
        let mut seen = self.world.check.granted_count();
        while now_us() < until_us {
            sleep_us(VOTERS_LOOK_US).await;
            let granted = self.world.check.granted_after(seen);
            seen += granted.len();
            for voter in granted {
                let (me, back_ms) = (self.clone(), rng.between((5, 120)));
                spawn_outside(async move {
                    me.down(voter, true, back_ms).await;
                });
            }
        }
        true
    }

    fn turn(&self) -> bool {
        !std::mem::replace(&mut self.state().changing, true)
    }

    async fn join(&self, id: u64) -> bool {
        if !self.turn() {
            return false;
        }
        self.add(id).await;
        self.at_leader(move |raft| async move { raft.add_learner(id).await }).await;
        let done = self.change(move |voters| voters.insert(id)).await;
        self.state().changing = false;
        done
    }

    async fn leave(&self, id: u64) -> bool {
        if !(self.may_lose(id) || self.world.is(Planted::LeaveUnguarded)) || !self.turn() {
            return false;
        }
        let done = self.change(move |voters| voters.remove(&id)).await;
        if done {
            self.state().gone.insert(id);
            self.stop(id, false);
            self.world.check.left(id);
        }
        self.state().changing = false;
        done
    }

    async fn replace(&self, lost: u64, by: u64) -> bool {
        if !self.may_lose(lost) || !self.turn() {
            return false;
        }
        self.stop(lost, true);
        if self.world.is(Planted::ReusedNodeId) {
            self.add(lost).await;
            self.state().changing = false;
            return true;
        }
        self.state().gone.insert(lost);
        self.world.check.lost(lost);
        self.add(by).await;
        self.at_leader(move |raft| async move { raft.add_learner(by).await }).await;
        let done = self
            .change(move |voters| {
                voters.remove(&lost);
                voters.insert(by)
            })
            .await;
        self.state().changing = false;
        done
    }

    async fn change(
        &self,
        change: impl Fn(&mut BTreeSet<u64>) -> bool + Clone + Send + 'static,
    ) -> bool {
        self.at_leader(move |raft| {
            let change = change.clone();
            async move {
                let facts = raft.facts();
                let mut voters = facts.configs.last().cloned().unwrap_or_default();
                change(&mut voters);
                let silence = |id: &u64| facts.silent_ms.get(id).copied().flatten();
                let heir = voters.iter().copied().min_by_key(|id| silence(id).unwrap_or(u64::MAX));
                match heir {
                    None => Err(Refused::Other("nobody would be left".to_owned())),
                    // As in the product's plan: a leader takes out others only.
                    Some(heir) if facts.leader.is_some_and(|leader| !voters.contains(&leader)) => {
                        raft.transfer(heir).await;
                        Err(Refused::Leader(Some(heir)))
                    }
                    Some(_) => raft.change_voters(voters).await,
                }
            }
        })
        .await
    }

    async fn at_leader<F, Fut>(&self, work: F) -> bool
    where
        F: Fn(SimRaft) -> Fut,
        Fut: Future<Output = Result<(), Refused>> + Send,
    {
        let until_us = now_us() + CHANGE_MS * 1_000;
        while now_us() < until_us {
            if let Some(node) = self.leader().and_then(|id| self.world.super_node(id)) {
                let done = within_ms(CHANGE_TRY_MS, work(node.raft.clone())).await;
                self.world.note(format_args!("members, at {}: {done:?}", node.id));
                if done == Some(Ok(())) {
                    return true;
                }
            }
            sleep_ms(CHANGE_PAUSE_MS).await;
        }
        false
    }

    /// Everything works again.
    pub(super) async fn mend(&self) {
        self.world.note(format_args!("mended"));
        self.world.net.heal();
        self.world.fills.disturbed();
        for cache in self.world.caches() {
            cache.life().pause(false);
            if cache.life().is_dead() {
                cache.start();
            }
        }
        for node in self.world.super_nodes() {
            node.life.pause(false);
        }
        let down: Vec<u64> = self.state().down.iter().copied().collect();
        for id in down {
            self.restart(id).await;
        }
    }
}
