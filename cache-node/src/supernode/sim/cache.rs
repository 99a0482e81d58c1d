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
use shoal_proto::{LeaseId, ManifestId, NodeId, ObjectId, ObjectKey};
use tokio::sync::oneshot;

use super::super::raft::simulated::{Life, within_ms};
use super::net::End;
use super::node::info;
use super::planted::Planted;
use super::world::{Clock, World, with_subject};
use crate::fences::table::FenceTable;
use crate::fences::{Subject, Verdict};
use crate::membership::{ClusterView, Role};

/// Heartbeats without an answer before another super-node is tried.
const UNANSWERED_MAX: usize = 4;
/// Pause after every known super-node was tried in vain, in milliseconds.
const ROUND_PAUSE_MS: u64 = 200;
/// Fences gather for so long before they are held against everything stored, in milliseconds.
const PASS_EVERY_MS: u64 = 1_000;

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

    /// Its manifest's name, which says how fresh it is as well.
    pub(super) fn manifest(&self) -> ManifestId {
        let facts = [self.fence_position.to_le_bytes(), self.fresh_until_ms.to_le_bytes()].concat();
        let name = [self.id().as_bytes().as_slice(), &facts].concat();
        ManifestId::new(*blake3::hash(&name).as_bytes())
    }

    /// What fences say of it.
    pub(super) fn held_against<T>(&self, with: impl FnOnce(&Subject<'_>) -> T) -> T {
        with_subject(self.key, self.fence_position, with)
    }
}

/// What is on a node's disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) objects: BTreeMap<u8, Object>,
    /// No fence up to here covers anything of it.
    mark: u64,
    /// Of the sites that it knew last.
    sites_revision: u64,
}

impl Disk {
    /// The next life is to start no further on.
    pub(super) fn hold_mark(&mut self, upto: u64) {
        self.mark = self.mark.min(upto);
    }
}

/// What a life of a node has in memory.
pub(super) struct Soft {
    pub(super) fences: FenceTable,
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

impl Soft {
    fn after(mark: u64) -> Self {
        let (lease_until_ms, view, held, expected, flights) = Default::default();
        let fences = FenceTable::after_pass(mark);
        Self { fences, lease_until_ms, view, held, expected, flights }
    }
}

/// A node over all its lives.
pub(super) struct Cache {
    pub(super) world: Arc<World>,
    pub(super) id: u64,
    pub(super) clock: Clock,
    life: Mutex<Life>,
    soft: Mutex<Soft>,
    disk: Mutex<Disk>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(super) fn new(world: &Arc<World>, id: u64, clock: Clock) -> Arc<Self> {
        let world = Arc::clone(world);
        let (life, disk) = Default::default();
        Arc::new(Self { world, id, clock, life, soft: Mutex::new(Soft::after(0)), disk })
    }

    /// Begins a life: with what is on the disk, and nothing else.
    pub(super) fn start(self: &Arc<Self>) {
        let life = Life::default();
        *lock(&self.life) = life.clone();
        *lock(&self.soft) = Soft::after(self.disk(|disk| disk.mark));
        life.spawn(Arc::clone(self).agent());
        life.spawn(Arc::clone(self).users());
        life.spawn(Arc::clone(self).hold_fences());
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

    pub(super) fn disk<T>(&self, with: impl FnOnce(&mut Disk) -> T) -> T {
        with(&mut lock(&self.disk))
    }

    pub(super) fn stored(&self, key: u8) -> Option<Object> {
        self.disk(|disk| disk.objects.get(&key).cloned())
    }

    /// What the fences that it knows leave of an object.
    pub(super) fn verdict(&self, object: &Object) -> Verdict {
        object.held_against(|subject| self.soft(|soft| soft.fences.verdict(subject)))
    }

    /// Whether an object may be served that was asked for now: fresh, and clear of all fences.
    pub(super) fn is_current(&self, object: &Object) -> bool {
        self.clock.wall_ms() < object.fresh_until_ms && self.verdict(object) == Verdict::Clear
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
        let found = self.stored(key).filter(|found| self.is_current(found));
        found.filter(|_| self.lease_holds())
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
            fence_position: self.fence_position(),
            sites_revision: self.sites_revision(),
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
                Some(Some(Down::Sites(table))) => {
                    let revision = self.take_sites(&table);
                    if !end.send(Up::SitesAck(v1::SitesAck { revision })).await {
                        return;
                    }
                }
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
        let until_ms = sent_ms + u64::from(lease_ms);
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
        self.world.fills.fenced(batch);
        self.soft(|soft| {
            if !self.world.is(Planted::AckWithoutFences) {
                batch.fences.iter().for_each(|fence| soft.fences.add(fence));
            }
            soft.fences.advance(batch.position);
            soft.fences.position()
        })
    }

    fn take_sites(&self, table: &v1::SiteTable) -> u64 {
        let before = self.disk(|disk| std::mem::replace(&mut disk.sites_revision, table.revision));
        self.world.sites.taken(&self.world, self.id, before, table);
        table.revision
    }

    /// Of the sites that it took in last.
    pub(super) fn sites_revision(&self) -> u64 {
        self.disk(|disk| disk.sites_revision)
    }

    /// The position up to which it knows every fence.
    pub(super) fn fence_position(&self) -> u64 {
        self.soft(|soft| soft.fences.position())
    }

    /// Holds fences against what is stored, and remembers up to where.
    async fn hold_fences(self: Arc<Self>) {
        let mut passed_upto = 0;
        loop {
            self.clock.sleep(PASS_EVERY_MS).await;
            if !self.soft(|soft| soft.fences.wants_pass(passed_upto)) {
                continue;
            }
            let Some(pass) = self.soft(|soft| soft.fences.begin_pass()) else { continue };
            passed_upto = pass.upto;
            self.disk(|disk| {
                let doomed = |object: &Object| {
                    object.held_against(|of| self.soft(|soft| soft.fences.doomed(of)))
                };
                disk.objects.retain(|_, object| !doomed(object));
                disk.mark = self.soft(|soft| soft.fences.end_pass(pass));
            });
        }
    }
}
