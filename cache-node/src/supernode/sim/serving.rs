//! What a simulated super-node answers: sessions, leases, publications, purges. The same order of
//! steps as in `session`, `acquire`, `service` and `purge`; every decision is the cores'.

use std::sync::{Arc, PoisonError};

use futures::future::join_all;
use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1::{self, command::Command};
use shoal_proto::wire::v1::{session_down::Event as Down, session_up::Event as Up};
use shoal_proto::{LeaseId, NodeId, ObjectId, ObjectKey};
use tokio::sync::mpsc;

use super::super::acquire::{self, Found};
use super::super::holders;
use super::super::index::Holding;
use super::super::ledger::{Debt, Opened};
use super::super::raft::simulated::{sleep_ms, within_ms};
use super::super::service;
use super::net::End;
use super::node::SuperNode;
use super::planted::Planted;
use super::world::{TIMING, number_of};
use crate::home::{Answer, Ask, Grant, Lease};
use crate::membership::Role;

/// Events that wait at one session.
const EVENTS_MAX: usize = 64;
/// A filler that does not answer for so long is gone, in milliseconds.
const PROBE_DEADLINE_MS: u64 = 300;
/// Between two looks at who has acknowledged, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;

/// What happens at a session.
pub(super) enum Event {
    Up(Up),
    /// The member's side ended.
    Gone,
    /// Something was applied.
    Look,
    /// A newer session of the member began.
    End,
}

/// What a home answers.
#[derive(Clone, Debug)]
pub(super) enum Given {
    Have(Found),
    Follow(Lease),
    Fill { id: LeaseId, fence_position: u64 },
    Pass,
}

impl SuperNode {
    /// One session from hello to end.
    pub(super) async fn session(self: Arc<Self>, mut end: End<Down, Up>) {
        let Some(Some(Up::Hello(hello))) = within_ms(RPC_DEADLINE_MS, end.down.recv()).await else {
            return;
        };
        let Some(info) = hello.node else { return };
        if !self.until_in_touch().await {
            return;
        }
        let opened = Opened {
            session_id: self.world.number(),
            node: NodeId(info.node_id),
            keeps_itself: false,
            fence_position: hello.fence_position,
        };
        let (id, has) = (opened.session_id, hello.sites_revision);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let superseded = self.ledger(|ledger| ledger.open(self.now_ms(), opened));
        {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            for old in superseded.iter().filter_map(|id| lines.get(id)) {
                drop(old.try_send(Event::End));
            }
            lines.insert(id, sender.clone());
        }
        let in_order = self.keep(info, (opened, has), end, (sender, events)).await;
        self.ledger(|ledger| ledger.closed(self.now_ms(), id, in_order));
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    async fn keep(
        self: &Arc<Self>,
        info: v1::NodeInfo,
        (opened, mut has): (Opened, u64),
        mut end: End<Down, Up>,
        (sender, mut events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    ) -> bool {
        let put = v1::PutMember {
            node: Some(info),
            session_id: opened.session_id,
            super_node_id: self.id,
        };
        let Some((position, reply)) = self.submit(Command::PutMember(put)).await else {
            return false;
        };
        if reply.refused || !self.raft.wait_applied(position, RPC_DEADLINE_MS).await {
            return false;
        }
        let mut offered = self.welcome(opened, &end).await;
        // What comes up goes the same way as all else that happens here.
        let mut up = std::mem::replace(&mut end.down, mpsc::channel(1).1);
        self.life.spawn(async move {
            while let Some(event) = up.recv().await {
                if sender.send(Event::Up(event)).await.is_err() {
                    return;
                }
            }
            drop(sender.send(Event::Gone).await);
        });
        if !self.offer_sites(&mut has, &end).await {
            return false;
        }
        loop {
            let Some(Some(event)) = within_ms(TIMING.lease_ms(), events.recv()).await else {
                return false;
            };
            let going = match event {
                Event::Gone | Event::End => return false,
                Event::Up(event) => self.heard(opened.session_id, event, &end).await,
                Event::Look => {
                    let record = self.index.record(opened.node);
                    let ours = |id: u64| id == opened.session_id;
                    record.is_some_and(|r| r.member.up && ours(r.session_id))
                }
            };
            if !going
                || !self.offer(opened.session_id, &mut offered, &end).await
                || !self.offer_sites(&mut has, &end).await
            {
                return false;
            }
        }
    }

    async fn welcome(&self, opened: Opened, end: &End<Down, Up>) -> u64 {
        let position = self.index.fence_position();
        let fences = self.index.fences_after(opened.fence_position);
        let id = opened.session_id;
        self.ledger(|ledger| ledger.welcomed(self.now_ms(), id, position));
        self.world.note(format_args!("{} welcomes {} at {position}", self.id, opened.node.0));
        let welcome = v1::Welcome {
            session_id: id,
            lease_ms: TIMING.session_lease_ms,
            heartbeat_ms: TIMING.heartbeat_ms,
            view: Some((&self.view()).into()),
            fences: Some(v1::FenceBatch { fences, position }),
            ..Default::default()
        };
        end.send(Down::Welcome(welcome)).await;
        position
    }

    async fn heard(&self, id: u64, event: Up, end: &End<Down, Up>) -> bool {
        match event {
            Up::Hello(_) => false,
            // Only those who wait for it need it.
            Up::SitesAck(_) => true,
            Up::FenceAck(ack) => {
                self.ledger(|ledger| ledger.acked(id, ack.position));
                true
            }
            Up::Heartbeat(beat) => {
                let (now_ms, in_touch) = (self.now_ms(), self.in_touch());
                if self.ledger(|ledger| ledger.heard(now_ms, id, in_touch)) {
                    let ack = v1::HeartbeatAck { sequence: beat.sequence };
                    let view = v1::View::from(&self.view());
                    return end.send(Down::HeartbeatAck(ack)).await
                        && end.send(Down::View(view)).await;
                }
                true
            }
        }
    }

    async fn offer(&self, id: u64, offered: &mut u64, end: &End<Down, Up>) -> bool {
        let position = self.index.fence_position();
        if position <= *offered {
            return true;
        }
        let fences = self.index.fences_after(*offered);
        self.ledger(|ledger| ledger.offered(self.now_ms(), id, position));
        *offered = position;
        end.send(Down::Fences(v1::FenceBatch { fences, position })).await
    }

    async fn offer_sites(&self, has: &mut u64, end: &End<Down, Up>) -> bool {
        let revision = self.index.sites_revision();
        let new = std::mem::replace(has, revision) != revision;
        !new || end.send(Down::Sites(self.index.sites())).await
    }

    /// A node wants a key.
    pub(super) async fn acquire(self: Arc<Self>, ask: Ask, known: u64) -> Option<Given> {
        if !self.until_in_touch().await || !self.is_member(ask.node).await {
            return None;
        }
        // The answer is to reflect every fence that the asker knows.
        if !self.raft.wait_applied(known, RPC_DEADLINE_MS / 2).await {
            return None;
        }
        let is_live = |node| {
            let session = self.index.session_of(node);
            session.is_some_and(|id| !self.ledger(|ledger| ledger.has_ended(id)))
        };
        let found = acquire::look(&self.index, &ask, self.clock.wall_ms(), is_live).ok()?;
        let mut answer = self.decide(&ask, found.fresh, None);
        if let Answer::Probe(lease) = answer {
            let alive = self.probe(&ask.key, lease).await;
            let settled = if alive { Ask { suspect: None, ..ask.clone() } } else { ask.clone() };
            let gone = (!alive).then_some(lease.id);
            answer = self.decide(&settled, found.fresh, gone);
        }
        Some(match answer {
            Answer::Have => {
                let publisher = found.head.as_ref().map_or(0, |head| head.publisher_node_id);
                let asker = self.index.member(ask.node);
                let holders = holders::choose(found.holders, NodeId(publisher), asker.as_ref());
                Given::Have(Found { holders, ..found })
            }
            Answer::Fill(lease) => Given::Fill {
                id: lease.id,
                fence_position: lease.fence_position.unwrap_or_else(|| self.index.fence_position()),
            },
            Answer::Follow(lease) | Answer::Probe(lease) => Given::Follow(lease),
            Answer::Pass => Given::Pass,
        })
    }

    /// A member whose session began a moment ago elsewhere may not be known here yet.
    async fn is_member(&self, id: NodeId) -> bool {
        let known = || self.index.member(id).is_some();
        known() || (self.read_barrier(RPC_DEADLINE_MS / 2).await && known())
    }

    fn decide(&self, ask: &Ask, have: bool, gone: Option<LeaseId>) -> Answer {
        let filler = |lease: &Lease| acquire::filler(&self.index, lease, gone);
        let id = LeaseId(self.world.number());
        let grant = Grant { id, fence_position: self.index.fence_position() };
        let now_ms = self.now_ms();
        self.world.fills.asked(self, ask);
        let answer = self.home(|home| home.acquire(now_ms, ask, (have, grant), filler));
        let (key, asker, since) = (number_of(&ask.key), ask.node.0, ask.since);
        let said = format_args!("{} tells {asker}, of {key} since {since}: {answer:?}", self.id);
        self.world.note(said);
        if let Answer::Fill(lease) = answer {
            self.world.fills.granted(self, ask, (lease, id), gone.is_some());
        }
        answer
    }

    async fn probe(&self, key: &ObjectKey, lease: Lease) -> bool {
        let key = *key;
        let ping =
            move |cache: Arc<super::cache::Cache>| async move { Some(cache.holds(&key, lease.id)) };
        let way = (self.id, lease.node.0);
        self.world.ask_cache(way, PROBE_DEADLINE_MS, ping).await.unwrap_or(false)
    }

    /// A filler tells of a lease, renews it, or says that it has ended.
    pub(super) fn shadow(
        &self,
        (key, node): (ObjectKey, NodeId),
        (id, began): (LeaseId, Option<u64>),
        ended: bool,
    ) {
        if self.world.is(Planted::ShadowForgotten) && !ended {
            let known = self.home(|home| home.renew(self.now_ms(), &key, id, node));
            self.world.fills.told(self, key, (id, began), node);
            if !known {
                return;
            }
        }
        let now_ms = self.now_ms();
        if ended {
            self.home(|home| home.end(&key, id, node));
            self.world.fills.ended(self, &key, id);
        } else if self.home(|home| home.shadow(now_ms, key, (id, began), node)) {
            self.world.fills.told(self, key, (id, began), node);
        }
    }

    /// A filler gives its lease back.
    pub(super) fn release(&self, key: ObjectKey, id: LeaseId, node: NodeId) {
        self.home(|home| home.release(self.now_ms(), (key, id), node, 0));
        self.world.fills.ended(self, &key, id);
    }

    /// A filler has an object; whether it is current.
    pub(super) async fn publish(
        self: Arc<Self>,
        (key, id): (ObjectKey, LeaseId),
        node: NodeId,
        head: v1::IndexHead,
    ) -> Option<bool> {
        let known = self.index.head(&key).ok()?;
        if id == LeaseId(0) && known.is_some_and(|known| service::is_outdated(&known, &head)) {
            return Some(false);
        }
        let lease = (key, id);
        let begun_ms = self.now_ms();
        self.home(|home| home.publish_begun(begun_ms, lease, node, WRITE_DEADLINE_MS));
        let mut published = self.submit(Command::PutHead(head)).await;
        if let Some((position, _)) = published
            && !self.raft.wait_applied(position, WRITE_DEADLINE_MS).await
        {
            published = None;
        }
        let ended_ms = self.now_ms();
        let done = published.is_some();
        self.home(|home| home.publish_ended(ended_ms, lease, node, done));
        if done {
            self.world.fills.ended(&self, &key, id);
        }
        published.map(|(_, reply)| !reply.refused)
    }

    /// A purge: returns when nobody can serve what it covers; the fence's position.
    pub(super) async fn purge(self: Arc<Self>, matcher: v1::FenceMatcher) -> Option<u64> {
        let (position, _) = self.submit(Command::Fence(matcher)).await?;
        if !self.raft.wait_applied(position, WRITE_DEADLINE_MS).await {
            return None;
        }
        let committed_ms = self.now_ms();
        let blind_ms = TIMING.blind_ms();
        let (records, retired) = (self.index.records(), self.index.retired());
        let absent_until = self.absences(|absences| {
            absences.update(committed_ms, &records, &retired);
            absences.over_ms(committed_ms, blind_ms)
        });
        let members = records.iter().map(|record| &record.member);
        let others = members.filter(|m| m.role == Role::Super && m.up);
        let others = others.map(|member| member.id.0).filter(|id| *id != self.id);
        let asked = others.map(|other| self.others_acked(other, position, committed_ms + blind_ms));
        let absent = async {
            if let Some(until_ms) = absent_until {
                self.clock.sleep(until_ms.saturating_sub(committed_ms)).await;
            }
        };
        if self.world.is(Planted::PurgeWithoutOthers) {
            self.acked(position).await;
            return Some(position);
        }
        futures::future::join3(self.acked(position), join_all(asked), absent).await;
        Some(position)
    }

    async fn others_acked(&self, other: u64, position: u64, blind_until_ms: u64) {
        loop {
            let left_ms = blind_until_ms.saturating_sub(self.now_ms());
            if left_ms == 0 {
                return;
            }
            let ask = move |node: Arc<Self>| async move {
                if !node.raft.wait_applied(position, RPC_DEADLINE_MS).await {
                    return None;
                }
                node.acked(position).await;
                Some(())
            };
            if self.world.ask((self.id, other), left_ms, ask).await.is_some() {
                return;
            }
            self.clock.sleep(100.min(left_ms)).await;
        }
    }

    /// Waits until every member with a session here has acknowledged or can trust nothing any more.
    async fn acked(&self, position: u64) {
        loop {
            let now_ms = self.now_ms();
            let (mut debts, former_until_ms) =
                self.ledger(|ledger| (ledger.debts(now_ms, position), ledger.former_until_ms()));
            if self.world.is(Planted::PurgeForgetsOne) {
                debts.pop_last();
            }
            let owing = debts.values().any(|debt| matches!(debt, Debt::Owes(_)));
            let former = now_ms < former_until_ms && !self.world.is(Planted::PurgeForgetsFormer);
            if !owing && !former {
                return;
            }
            sleep_ms(LOOK_EVERY_MS).await;
        }
    }

    /// A linearizable read of all sites.
    pub(super) async fn read_sites(self: Arc<Self>) -> Option<v1::SiteTable> {
        let stale = self.world.is(Planted::StaleRead);
        (stale || self.read_barrier(RPC_DEADLINE_MS).await).then(|| self.index.sites())
    }

    /// A linearizable read: what one node has of an object.
    pub(super) async fn read_holding(
        self: Arc<Self>,
        object: ObjectId,
        node: NodeId,
    ) -> Option<Option<Holding>> {
        let stale = self.world.is(Planted::StaleRead);
        if !stale && !self.read_barrier(RPC_DEADLINE_MS).await {
            return None;
        }
        let holders = self.index.holders(&object).ok()?;
        Some(holders.into_iter().find(|(id, _)| *id == node).map(|(_, holding)| holding))
    }
}
