//! A simulated node: keeps a session with the tier, counts its lease by its own clock, knows fences,
//! serves what it has while it may. The design's rules (sections 3 and 5) and nothing more.
//!
//! Invariants: the lease is counted from the sending of what was answered; without it nothing here
//! counts as fresh; what a known fence covers is served to nobody who asked after it was known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::{session_down::Event as Down, session_up::Event as Up};
use shoal_proto::{LeaseId, NodeId, ObjectId, ObjectKey};
use tokio::sync::oneshot;

use super::super::raft::simulated::{Life, within_ms};
use super::net::End;
use super::node::info;
use super::planted::Planted;
use super::world::{Clock, World, labels, object_key, site};
use crate::fences::{Fenced, Fences, Subject, Verdict};
use crate::membership::{ClusterView, Role};

/// Heartbeats without an answer before another super-node is tried.
const UNANSWERED_MAX: usize = 4;
/// Pause after every known super-node was tried in vain, in milliseconds.
const ROUND_PAUSE_MS: u64 = 200;

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: u8,
    pub(super) version: u64,
    pub(super) fence_position: u64,
    pub(super) fresh_until_ms: u64,
    /// When whoever gave it last asked for it, in virtual microseconds.
    pub(super) asked_us: u64,
}

impl Object {
    /// Named by its content.
    pub(super) fn id(&self) -> ObjectId {
        let name = [u64::from(self.key).to_le_bytes(), self.version.to_le_bytes()].concat();
        ObjectId::new(*blake3::hash(&name).as_bytes())
    }
}

/// What a node knows of fences.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    fences: Fences,
    floor: u64,
    pub(super) position: u64,
}

impl Known {
    fn take(&mut self, batch: &v1::FenceBatch) {
        for fence in &batch.fences {
            match fence.matcher.as_ref().map(Fenced::try_from) {
                Some(Ok(fenced)) => self.fences.add(fence.position, fenced),
                _ => self.floor = self.floor.max(fence.position),
            }
        }
        self.position = self.position.max(batch.position);
    }

    /// Whether a fence covers the object, hard or soft: it is served to nobody without asking.
    pub(super) fn covers(&self, object: &Object) -> bool {
        let key = object_key(object.key);
        let subject = Subject {
            key: &key,
            site: site(object.key),
            labels: &labels(object.key),
            every_tag: false,
            fence_position: object.fence_position,
        };
        object.fence_position < self.floor || self.fences.verdict(&subject) != Verdict::Clear
    }
}

/// What a life of a node has in memory.
#[derive(Default)]
pub(super) struct Soft {
    pub(super) fences: Known,
    /// Until when it trusts, by its own clock.
    pub(super) lease_until_ms: u64,
    pub(super) view: ClusterView,
    /// Fill leases, with the fence position of each.
    pub(super) held: BTreeMap<ObjectKey, (LeaseId, u64)>,
    /// Keys for which a lease was asked, and the answer is not there yet.
    pub(super) expected: BTreeSet<u8>,
    /// Fetches under way, and who waits for each.
    pub(super) flights: BTreeMap<u8, Vec<oneshot::Sender<Option<Object>>>>,
}

/// A node over all its lives.
pub(super) struct Cache {
    pub(super) world: Arc<World>,
    pub(super) id: u64,
    pub(super) clock: Clock,
    life: Mutex<Life>,
    soft: Mutex<Soft>,
    /// What is on its disk.
    store: Mutex<BTreeMap<u8, Object>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(super) fn new(world: &Arc<World>, id: u64, clock: Clock) -> Arc<Self> {
        let world = Arc::clone(world);
        let (life, soft, store) = Default::default();
        Arc::new(Self { world, id, clock, life, soft, store })
    }

    /// Begins a life: with what is on the disk, and nothing else.
    pub(super) fn start(self: &Arc<Self>) {
        let life = Life::default();
        *lock(&self.life) = life.clone();
        *lock(&self.soft) = Soft::default();
        life.spawn(Arc::clone(self).agent());
        life.spawn(Arc::clone(self).users());
    }

    pub(super) fn life(&self) -> Life {
        lock(&self.life).clone()
    }

    pub(super) fn me(&self) -> NodeId {
        NodeId(self.id)
    }

    pub(super) fn soft<T>(&self, with: impl FnOnce(&mut Soft) -> T) -> T {
        with(&mut lock(&self.soft))
    }

    pub(super) fn store<T>(&self, with: impl FnOnce(&mut BTreeMap<u8, Object>) -> T) -> T {
        with(&mut lock(&self.store))
    }

    /// Whether the session lease holds.
    pub(super) fn lease_holds(&self) -> bool {
        let now_ms = self.clock.mono_ms();
        self.soft(|soft| now_ms < soft.lease_until_ms)
            || (self.world.is(Planted::TrustWithoutLease)
                && self.soft(|soft| soft.lease_until_ms > 0))
    }

    /// Whether it holds that fill lease.
    pub(super) fn holds(&self, key: &ObjectKey, id: LeaseId) -> bool {
        self.soft(|soft| soft.held.get(key).is_some_and(|held| held.0 == id))
    }

    /// What may be served without asking anybody.
    pub(super) fn local(&self, key: u8) -> Option<Object> {
        let found = self.store(|store| store.get(&key).cloned())?;
        let fresh = self.clock.wall_ms() < found.fresh_until_ms;
        let fenced = self.soft(|soft| soft.fences.covers(&found));
        (fresh && !fenced && self.lease_holds()).then_some(found)
    }

    /// Keeps a session, with one super-node after the other.
    async fn agent(self: Arc<Self>) {
        loop {
            let known = self.soft(|soft| soft.view.clone());
            let up = known.members.iter().filter(|m| m.role == Role::Super && m.up);
            let mut all: Vec<u64> = up.map(|member| member.id.0).collect();
            // The configured addresses lead to whoever is there.
            let seeds = self.world.super_nodes().into_iter().map(|node| node.id);
            all.extend(seeds.filter(|id| !all.contains(id)).collect::<Vec<_>>());
            let first = (self.id % all.len().max(1) as u64) as usize;
            all.rotate_left(first);
            for id in all {
                self.session(id).await;
            }
            self.clock.sleep(ROUND_PAUSE_MS).await;
        }
    }

    async fn session(&self, to: u64) {
        let sent_ms = self.clock.mono_ms();
        let (mut end, there) = self.world.net.stream::<Up, Down>(self.id, to);
        let there = Arc::new(Mutex::new(Some(there)));
        let open = move |node: Arc<super::node::SuperNode>| {
            let end = lock(&there).take();
            async move {
                node.life.spawn(Arc::clone(&node).session(end?));
                Some(())
            }
        };
        let hello = v1::Hello {
            cluster_id: "sim".to_owned(),
            node: Some(info(self.id, v1::Role::Node)),
            fence_position: self.soft(|soft| soft.fences.position),
        };
        if !end.send(Up::Hello(hello)).await {
            return;
        }
        if self.world.ask((self.id, to), RPC_DEADLINE_MS, open).await.is_none() {
            return;
        }
        let welcome = within_ms(RPC_DEADLINE_MS, end.down.recv()).await;
        let Some(Some(Down::Welcome(welcome))) = welcome else { return };
        self.take_view(welcome.view.unwrap_or_default());
        self.take_fences(&welcome.fences.unwrap_or_default());
        self.extend(sent_ms, welcome.lease_ms);
        self.world.note(format_args!("{} has a session with {to}", self.id));
        self.keep(&mut end, welcome.lease_ms).await;
    }

    async fn keep(&self, end: &mut End<Up, Down>, lease_ms: u32) {
        let beat_ms = u64::from(super::world::TIMING.heartbeat_ms);
        let mut unanswered: VecDeque<(u64, u64)> = VecDeque::new();
        let mut sequence = 0;
        let mut next_ms = self.clock.mono_ms();
        loop {
            let now_ms = self.clock.mono_ms();
            if now_ms >= next_ms {
                if unanswered.len() >= UNANSWERED_MAX {
                    return;
                }
                next_ms = now_ms + beat_ms;
                sequence += 1;
                unanswered.push_back((sequence, now_ms));
                if !end.send(Up::Heartbeat(v1::Heartbeat { sequence, stats: None })).await {
                    return;
                }
            }
            match within_ms((next_ms - now_ms.min(next_ms)).max(1), end.down.recv()).await {
                None => {}
                Some(None | Some(Down::Welcome(_))) => return,
                Some(Some(Down::HeartbeatAck(ack))) => {
                    while let Some((number, sent_ms)) = unanswered.front().copied() {
                        if number > ack.sequence {
                            break;
                        }
                        unanswered.pop_front();
                        self.extend(sent_ms, lease_ms);
                    }
                }
                Some(Some(Down::View(view))) => self.take_view(view),
                Some(Some(Down::Fences(batch))) => {
                    let position = self.take_fences(&batch);
                    if !end.send(Up::FenceAck(v1::FenceAck { position })).await {
                        return;
                    }
                }
            }
        }
    }

    fn extend(&self, sent_ms: u64, lease_ms: u32) {
        let from_ms = match self.world.is(Planted::LeaseFromReceipt) {
            true => self.clock.mono_ms(),
            false => sent_ms,
        };
        let until_ms = from_ms + u64::from(lease_ms);
        self.soft(|soft| soft.lease_until_ms = soft.lease_until_ms.max(until_ms));
    }

    fn take_view(&self, wire: v1::View) {
        let Ok(view) = ClusterView::try_from(wire) else { return };
        self.soft(|soft| {
            if view.epoch >= soft.view.epoch {
                soft.view = view;
            }
        });
    }

    fn take_fences(&self, batch: &v1::FenceBatch) -> u64 {
        self.soft(|soft| {
            let mut batch = batch.clone();
            if self.world.is(Planted::AckWithoutFences) {
                batch.fences.clear();
            }
            soft.fences.take(&batch);
            soft.fences.position
        })
    }
}
