//! A simulated super-node: the product's index, lease table, ledger, absences and sweep over real
//! consensus. Says again, briefly, what `tier`, `standing`, `reaper` and `leader` do, whose sockets
//! and runtime are not to be had here; every decision is the cores'.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_proto::NodeId;
use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1::{self, command::Command};
use tokio::sync::mpsc;

use super::super::index::Index;
use super::super::ledger::Ledger;
use super::super::purge::Absences;
use super::super::raft::simulated::{
    Life, Parts, RaftFacts, Refused, SimRaft, now_us, sleep_ms, within_ms,
};
use super::super::raft::{Proposed, TierState};
use super::super::sweep::Sweep;
use super::super::view;
use super::planted::Planted;
use super::serving::Event;
use super::world::{Clock, TIMING, Watcher, Way, World};
use crate::home::Home;
use crate::membership::{ClusterView, Role};

/// Between two tries while the leader stays the same, in milliseconds.
const RETRY_PAUSE_MS: u64 = 50;
/// Between two looks for a change of members that broke off, in milliseconds.
const KEEP_EVERY_MS: u64 = 1_000;

/// What survives a super-node's lives.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) id: u64,
    pub(super) disks: super::check::Disks,
    pub(super) clock: Arc<Clock>,
}

/// One life of a super-node.
pub(super) struct SuperNode {
    pub(super) world: Arc<World>,
    pub(super) id: u64,
    pub(super) life: Life,
    /// The number of this life; also the id of its session with the tier.
    pub(super) number: u64,
    pub(super) raft: SimRaft,
    pub(super) index: Arc<Index>,
    pub(super) clock: Arc<Clock>,
    started_ms: u64,
    home: Mutex<Home>,
    ledger: Mutex<Ledger>,
    absences: Mutex<Absences>,
    touched_ms: Mutex<Option<u64>>,
    pub(super) lines: Mutex<BTreeMap<u64, mpsc::Sender<Event>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A super-node as it introduces itself.
pub(super) fn info(id: u64, role: v1::Role) -> v1::NodeInfo {
    v1::NodeInfo {
        node_id: id,
        name: format!("n{id}"),
        role: role.into(),
        cluster_address: format!("n{id}:7400"),
        ..Default::default()
    }
}

impl SuperNode {
    /// Begins a life on a host's disks; `lived` when it is not the first.
    pub(super) async fn start(world: &Arc<World>, host: &Host, lived: bool) -> Result<(), String> {
        let life = Life::default();
        let parts = Parts {
            id: host.id,
            log: host.disks.log.clone(),
            state: host.disks.state.clone(),
            transport: Arc::new(Way { world: Arc::downgrade(world), me: host.id }),
            observer: Arc::new(Watcher(Arc::downgrade(world))),
            planted: world.planted,
            snapshot_every: world.plan.snapshot_every,
        };
        world.check.began(host.id);
        let started = life.spawn(SimRaft::start(parts)).await;
        let (raft, index) = started.map_err(|error| error.to_string())??;
        let former_until_ms = if lived { TIMING.trust_ms() } else { 0 };
        let node = Arc::new(Self {
            world: Arc::clone(world),
            id: host.id,
            life: life.clone(),
            number: world.number(),
            raft,
            index,
            clock: Arc::clone(&host.clock),
            started_ms: host.clock.mono_ms(),
            home: Mutex::new(Home::new(u64::from(TIMING.fill_lease_ms))),
            ledger: Mutex::new(Ledger::new(TIMING, former_until_ms)),
            absences: Mutex::default(),
            touched_ms: Mutex::default(),
            lines: Mutex::default(),
        });
        world.note(format_args!("{} lives, life {}", host.id, node.number));
        world.set_super(host.id, Some(Arc::clone(&node)));
        life.spawn(Arc::clone(&node).standing());
        life.spawn(Arc::clone(&node).keeping());
        life.spawn(node.reaping());
        Ok(())
    }

    /// Monotonic milliseconds of this life.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.mono_ms().saturating_sub(self.started_ms)
    }

    pub(super) fn me(&self) -> NodeId {
        NodeId(self.id)
    }

    pub(super) fn home<T>(&self, with: impl FnOnce(&mut Home) -> T) -> T {
        with(&mut lock(&self.home))
    }

    pub(super) fn ledger<T>(&self, with: impl FnOnce(&mut Ledger) -> T) -> T {
        with(&mut lock(&self.ledger))
    }

    pub(super) fn absences<T>(&self, with: impl FnOnce(&mut Absences) -> T) -> T {
        with(&mut lock(&self.absences))
    }

    /// Something was applied: the sessions look.
    pub(super) fn poke(&self) {
        for line in lock(&self.lines).values() {
            // A full queue has a look in it already.
            drop(line.try_send(Event::Look));
        }
    }

    /// Whether all that was committed until a moment ago is known here.
    pub(super) fn in_touch(&self) -> bool {
        lock(&self.touched_ms).is_some_and(|at| self.now_ms() < at + TIMING.touch_ms())
    }

    /// Waits, not for long, until it is.
    pub(super) async fn until_in_touch(&self) -> bool {
        let until = self.now_ms() + RPC_DEADLINE_MS / 2;
        while !self.in_touch() {
            if self.now_ms() >= until {
                return false;
            }
            sleep_ms(RETRY_PAUSE_MS).await;
        }
        true
    }

    /// The cluster as this super-node knows it.
    pub(super) fn view(&self) -> ClusterView {
        let RaftFacts { leader, term, applied, configs, .. } = self.raft.facts();
        let voters = configs.iter().flatten().map(|id| NodeId(*id)).collect();
        let leader = leader.map(NodeId);
        let tier = TierState { leader, term, applied, voters, ..Default::default() };
        let (members, epoch) = self.index.members();
        view::build(&members, epoch, &tier)
    }

    /// Runs `local` here while this super-node leads, else `remote` at the leader; again until it
    /// is done or the time is up.
    async fn at_leader<A, F, Fut>(&self, ms: u64, write: F) -> Option<A>
    where
        A: Send + 'static,
        F: Fn(SimRaft) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<A, Refused>> + Send + 'static,
    {
        let until_us = now_us() + ms * 1_000;
        while now_us() < until_us {
            let left_ms = (until_us - now_us()) / 1_000;
            let done = match self.raft.facts().leader {
                None => None,
                Some(id) if id == self.id => {
                    // The product waits until somebody else leads; looking now and then does too.
                    within_ms(left_ms.min(RPC_DEADLINE_MS), write(self.raft.clone()))
                        .await
                        .and_then(Result::ok)
                }
                Some(id) => {
                    let write = write.clone();
                    let ask = move |leader: Arc<Self>| {
                        let write = write.clone();
                        async move { write(leader.raft.clone()).await.ok() }
                    };
                    self.world.ask((self.id, id), left_ms.min(RPC_DEADLINE_MS), ask).await
                }
            };
            if done.is_some() {
                return done;
            }
            sleep_ms(RETRY_PAUSE_MS).await;
        }
        None
    }

    /// Has the tier agree on a command; `None` when the outcome is unknown.
    pub(super) async fn submit(&self, command: Command) -> Option<(u64, v1::CommandReply)> {
        let commands = vec![v1::Command { command: Some(command) }];
        let batch = v1::CommandBatch { commands };
        if self.world.is(Planted::AckBeforeCommit) {
            let (raft, batch) = (self.raft.clone(), batch.clone());
            if self.raft.facts().leader == Some(self.id) {
                self.life.spawn(async move { drop(raft.write(batch).await) });
                return Some((self.raft.facts().last, v1::CommandReply::default()));
            }
        }
        let write = move |raft: SimRaft| {
            let batch = batch.clone();
            async move { raft.write(batch).await }
        };
        let Proposed { position, replies } = self.at_leader(WRITE_DEADLINE_MS, write).await?;
        Some((position, replies.first().copied()?))
    }

    /// Returns once everything that was committed before the call is applied here.
    pub(super) async fn read_barrier(&self, ms: u64) -> bool {
        let read = |raft: SimRaft| async move { raft.read_position().await };
        let Some(position) = self.at_leader(ms, read).await else { return false };
        self.raft.wait_applied(position, ms).await
    }

    /// As `standing`: keeps in touch, and keeps its own membership.
    async fn standing(self: Arc<Self>) {
        loop {
            let asked_ms = self.now_ms();
            if self.read_barrier(RPC_DEADLINE_MS).await {
                let record = self.index.record(self.me());
                if record.is_some_and(|r| r.member.up && r.session_id == self.number) {
                    *lock(&self.touched_ms) = Some(asked_ms);
                } else {
                    self.register().await;
                }
            }
            self.clock.sleep(TIMING.touch_every_ms()).await;
        }
    }

    async fn register(&self) {
        let put = v1::PutMember {
            node: Some(info(self.id, v1::Role::Super)),
            session_id: self.number,
            super_node_id: self.id,
        };
        if let Some((position, _)) = self.submit(Command::PutMember(put)).await {
            self.raft.wait_applied(position, RPC_DEADLINE_MS).await;
        }
    }

    /// As `raft::members`: while it leads, finishes a change of members that broke off half-way.
    async fn keeping(self: Arc<Self>) {
        let mut seen = None;
        loop {
            self.clock.sleep(KEEP_EVERY_MS).await;
            let RaftFacts { leader, term, configs, .. } = self.raft.facts();
            let joint = leader == Some(self.id) && configs.len() > 1;
            let now = joint.then_some((term, configs));
            // Not at the first look: whoever is changing it may be between its two steps.
            if let Some((_, configs)) = now.as_ref().filter(|_| now == seen)
                && let Some(target) = configs.last()
            {
                let done = self.raft.change_voters(target.clone()).await;
                self.world.note(format_args!("{} finishes {configs:?}: {done:?}", self.id));
            }
            seen = now;
        }
    }

    /// As `reaper`: what has run out.
    async fn reaping(self: Arc<Self>) {
        let mut sweep = Sweep::default();
        loop {
            self.clock.sleep(TIMING.sweep_every_ms()).await;
            let now_ms = self.now_ms();
            let records = self.index.records();
            self.home(|home| home.sweep(now_ms));
            self.ledger(|ledger| ledger.sweep(now_ms));
            let retired = self.index.retired();
            self.absences(|absences| absences.update(now_ms, &records, &retired));
            let mut downs = self.lost_sessions(now_ms);
            if now_ms >= TIMING.trust_ms() {
                let former = records.iter().filter(|record| {
                    let ours = record.super_node == self.me() && record.member.role == Role::Node;
                    let known = self.ledger(|ledger| ledger.knows(record.session_id));
                    record.member.up && ours && !known
                });
                downs.extend(former.map(|record| v1::MemberDown {
                    node_id: record.member.id.0,
                    session_id: record.session_id,
                }));
            }
            let facts = self.raft.facts();
            if facts.leader == Some(self.id) {
                let heard = |id: NodeId| {
                    let silent = facts.silent_ms.get(&id.0).copied().flatten();
                    silent.is_some_and(|ms| ms < TIMING.touch_ms())
                };
                let times = (now_ms, TIMING.lease_ms());
                downs.extend(sweep.due(times, self.me(), &records, heard));
            } else {
                sweep.forget();
            }
            let downs: BTreeSet<_> = downs.iter().map(|d| (d.node_id, d.session_id)).collect();
            for (node_id, session_id) in downs {
                self.world.note(format_args!("{} declares {node_id} down", self.id));
                let down = v1::MemberDown { node_id, session_id };
                self.submit(Command::MemberDown(down)).await;
            }
        }
    }

    fn lost_sessions(&self, now_ms: u64) -> Vec<v1::MemberDown> {
        let mut downs = Vec::new();
        for (node, session_id) in self.ledger(|ledger| ledger.lost(now_ms)) {
            let record = self.index.record(node);
            if record.is_some_and(|record| record.member.up && record.session_id == session_id) {
                downs.push(v1::MemberDown { node_id: node.0, session_id });
            } else {
                self.ledger(|ledger| ledger.settled(session_id));
            }
        }
        downs
    }
}
