//! How a simulated node gets what it does not have: from holders, by following another's fill, or
//! from the origin under a lease, or without one when no super-node answers.

use std::sync::Arc;

use shoal_proto::id::OBJECT_REF_BYTES;
use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{LeaseId, NodeId};
use tokio::sync::oneshot;

use super::super::acquire::Found;
use super::super::raft::simulated::{now_us, sleep_ms, within_ms};
use super::cache::{Cache, Object};
use super::rng::Rng;
use super::serving::Given;
use super::world::{TIMING, labels, number_of, object_key, site};
use crate::fences::Verdict;
use crate::home::Ask;
use crate::membership::placement;

/// Sources tried before a request gives up.
const ATTEMPTS_MAX: u64 = 12;
/// How long a node without a session looks for a super-node.
const ALONE_AFTER_MS: u64 = 500;
/// How long a fill waits for the second home to know of it.
const SHADOW_DEADLINE_MS: u64 = 250;
/// Longest wait for another's fill.
const FOLLOW_MS: u64 = 6_000;
/// Between two looks at whether a lease that was asked for is there, in milliseconds.
const EXPECTED_LOOK_MS: u64 = 10;
/// What comes from the origin is fresh for so long.
const FRESH_MS: u64 = 60_000;
/// Between two looks at whether the tier is there to be told what it is owed, in milliseconds.
const OWED_LOOK_MS: u64 = 500;
/// Tries to publish an object.
const PUBLISH_TRIES: u32 = 3;
/// A fill takes so long; one in so many takes long.
const FILL_MS: (u64, u64) = (20, 400);
const LONG_ONE_IN: u64 = 8;
const LONG_MS: (u64, u64) = (1_000, 5_000);

impl Cache {
    /// Requests, one after the other, as long as this life lasts.
    pub(super) async fn users(self: Arc<Self>) {
        let mut rng = self.world.rng.fork("users", self.id * 1_000 + self.world.number());
        loop {
            self.clock.sleep(rng.below(self.world.plan.get_every_ms) + 1).await;
            if self.world.histories.is_over() {
                return;
            }
            let key = rng.below(u64::from(self.world.plan.keys)) as u8;
            // Requests overlap, also for one key on one node.
            for _ in 0..rng.pick(&[1, 1, 1, 3]) {
                let number = rng.next();
                let request = Arc::clone(&self).request(key, rng.fork("get", number));
                self.life().spawn(request);
            }
        }
    }

    async fn request(self: Arc<Self>, key: u8, mut rng: Rng) {
        let called = now_us();
        let Some(object) = self.get(key, &mut rng).await else { return };
        self.world.note(format_args!("{} serves {key} version {}", self.id, object.version));
        self.world.histories.served(key, (called, now_us()), (self.id, object.version));
    }

    async fn get(self: &Arc<Self>, key: u8, rng: &mut Rng) -> Option<Object> {
        if let Some(found) = self.local(key) {
            return Some(found);
        }
        // Without a lease nothing is known, and what others asked for before may be purged.
        let (called, trusts) = (now_us(), self.lease_holds());
        for attempt in 0..ATTEMPTS_MAX {
            let pause_ms = if attempt == 0 { 0 } else { (20 << (attempt - 1).min(5)).min(1_000) };
            self.clock.sleep(pause_ms).await;
            let joined = self.soft(|soft| {
                let waiting = soft.flights.get_mut(&key)?;
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                Some(receiver)
            });
            let got = match joined {
                Some(flight) => flight.await.ok().flatten(),
                None => {
                    self.soft(|soft| soft.flights.insert(key, Vec::new()));
                    let got = self.fly(key, rng).await;
                    let waiting = self.soft(|soft| soft.flights.remove(&key)).unwrap_or_default();
                    waiting.into_iter().for_each(|one| drop(one.send(got.clone())));
                    got
                }
            };
            let new = |object: &Object| trusts || object.asked_us >= called;
            if let Some(object) = got.filter(|got| self.verdict(got) == Verdict::Clear && new(got))
            {
                return Some(object);
            }
        }
        None
    }

    /// One try to get a key from wherever the tier says.
    async fn fly(self: &Arc<Self>, key: u8, rng: &mut Rng) -> Option<Object> {
        let stale = self.stored(key).filter(|found| self.verdict(found) != Verdict::Gone);
        let mut ask = Ask {
            key: object_key(key),
            node: self.me(),
            stale: stale.map(|object| object.manifest()),
            suspect: None,
            failed: Vec::new(),
            since: 0,
        };
        for _ in 0..4 {
            let (asked_us, known) = (now_us(), self.fence_position());
            // A follower may be told of a lease before its holder is.
            self.soft(|soft| soft.expected.insert(key));
            let given = self.acquire(&ask, known).await;
            if let Some(Given::Fill { id, fence_position }) = &given {
                self.soft(|soft| soft.held.insert(object_key(key), (*id, *fence_position)));
            }
            self.soft(|soft| soft.expected.remove(&key));
            match given {
                Some(Given::Fill { id, fence_position }) => {
                    return self.fill(key, Some((id, fence_position)), rng).await;
                }
                // A super-node may be cut off itself: under a session lease alone its word counts.
                None => return self.fill(key, None, rng).await,
                Some(_) if !self.lease_holds() => return self.fill(key, None, rng).await,
                Some(Given::Pass) => return None,
                Some(Given::Follow(lease)) => {
                    let Some(object) = self.pull(key, lease.node, Some(lease.id)).await else {
                        ask.suspect = Some((lease.node, lease.id));
                        continue;
                    };
                    match self.covering(&object) {
                        // A purge has come since that fill began: another is needed.
                        Some(purged) => ask.since = ask.since.max(purged),
                        None => return self.keep_copy(object, 0),
                    }
                }
                Some(Given::Have(found)) => {
                    let got = self.pull_any(key, &found, (asked_us, known)).await;
                    if let Some(object) = got {
                        return self.keep_copy(object, known);
                    }
                    ask.failed.extend(found.holders.into_iter().map(|holder| holder.member.id));
                }
            }
        }
        None
    }

    /// An object that the index vouches for, from whoever has it.
    async fn pull_any(
        &self,
        key: u8,
        found: &Found,
        (asked_us, known): (u64, u64),
    ) -> Option<Object> {
        let head = found.head.as_ref()?;
        for holder in &found.holders {
            let got = self.pull(key, holder.member.id, None).await;
            let of_use = |object: &Object| {
                object.id().to_wire() == head.object_id
                    && self.is_current(object)
                    && self.admits(object, known)
            };
            if let Some(object) = got.filter(of_use) {
                return Some(Object { asked_us, ..object });
            }
        }
        None
    }

    /// The newest fence that it knows to cover an object.
    fn covering(&self, object: &Object) -> Option<u64> {
        object.held_against(|of| self.soft(|soft| soft.fences.covering(of)))
    }

    fn admits(&self, object: &Object, vouched: u64) -> bool {
        object.held_against(|of| self.soft(|soft| soft.fences.admits(of, vouched)))
    }

    /// Whether an object may come into the store; one that a fence covers may, and leaves.
    fn may_come_in(&self, object: &Object, vouched: u64) -> bool {
        if self.verdict(object) != Verdict::Gone {
            return self.admits(object, vouched);
        }
        let upto = object.held_against(|of| self.soft(|soft| soft.fences.let_in(of)));
        self.disk(|disk| disk.hold_mark(upto));
        true
    }

    fn homes(&self, key: u8) -> Vec<u64> {
        let view = self.soft(|soft| soft.view.clone());
        let ranked = placement::rank(&object_key(key), view.voters().map(|member| member.id));
        ranked.into_iter().map(|id| id.0).collect()
    }

    /// Asks the key's home, then the next.
    async fn acquire(&self, ask: &Ask, known: u64) -> Option<Given> {
        let patience_ms = if self.lease_holds() { WRITE_DEADLINE_MS } else { ALONE_AFTER_MS };
        let until_ms = self.clock.mono_ms() + patience_ms;
        let key = number_of(&ask.key);
        loop {
            for home in self.homes(key) {
                let left_ms = until_ms.saturating_sub(self.clock.mono_ms());
                if left_ms == 0 {
                    return None;
                }
                let ask = ask.clone();
                let acquire =
                    move |node: Arc<super::node::SuperNode>| node.acquire(ask.clone(), known);
                let way = (self.id, home);
                let given = self.world.ask(way, left_ms.min(RPC_DEADLINE_MS), acquire).await;
                if given.is_some() {
                    return given;
                }
                self.world.fills.unanswered(key, home);
            }
            if self.clock.mono_ms() >= until_ms {
                return None;
            }
            self.clock.sleep(50).await;
        }
    }

    /// Takes an object from another node: what it has, or what it is fetching.
    async fn pull(&self, key: u8, from: NodeId, lease: Option<LeaseId>) -> Option<Object> {
        let give = move |cache: Arc<Self>| cache.give(key, lease);
        self.world.ask_cache((self.id, from.0), FOLLOW_MS, give).await
    }

    async fn give(self: Arc<Self>, key: u8, lease: Option<LeaseId>) -> Option<Object> {
        let Some(lease) = lease else { return self.stored(key) };
        while self.soft(|soft| soft.expected.contains(&key)) {
            sleep_ms(EXPECTED_LOOK_MS).await;
        }
        if !self.holds(&object_key(key), lease) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.soft(|soft| soft.flights.get_mut(&key).map(|waiting| waiting.push(sender)))?;
        within_ms(FOLLOW_MS, receiver).await?.ok().flatten()
    }

    /// Takes an object into the store, which the index vouched for at position `vouched`.
    fn keep_copy(self: &Arc<Self>, object: Object, vouched: u64) -> Option<Object> {
        if !self.may_come_in(&object, vouched) {
            return None;
        }
        self.disk(|disk| disk.objects.insert(object.key, object.clone()));
        let (cache, copy) = (Arc::clone(self), object.clone());
        self.life().spawn(async move { cache.announce(&copy).await });
        Some(object)
    }

    async fn announce(&self, object: &Object) {
        let named = object.id().as_bytes()[..OBJECT_REF_BYTES].to_vec();
        let complete = named.into();
        let holders = v1::NodeHolders { node_id: self.id, complete, ..Default::default() };
        for home in self.homes(object.key) {
            let command = v1::command::Command::Holders(holders.clone());
            let submit = move |node: Arc<super::node::SuperNode>| {
                let command = command.clone();
                async move { node.submit(command).await }
            };
            if self.world.ask((self.id, home), WRITE_DEADLINE_MS, submit).await.is_some() {
                return;
            }
        }
    }

    async fn fill(
        self: &Arc<Self>,
        key: u8,
        lease: Option<(LeaseId, u64)>,
        rng: &mut Rng,
    ) -> Option<Object> {
        if let Some((id, position)) = lease {
            self.world.fills.began(&self.world, (key, self.id), id, position);
            let homes = self.homes(key);
            self.tell(homes.get(1).copied(), (key, id), false, SHADOW_DEADLINE_MS).await;
            self.life().spawn(Arc::clone(self).renew(key, id));
        }
        let ms = if rng.one_in(LONG_ONE_IN) { rng.between(LONG_MS) } else { rng.between(FILL_MS) };
        // What the origin answers is younger than all that was known here and to the lease's giver.
        let known = self.fence_position();
        let fence_position = lease.map_or(known, |(_, position)| position.max(known));
        let asked_us = now_us();
        self.clock.sleep(ms / 2).await;
        // The origin reads its own version when it hears the request.
        let version = self.world.version(key);
        let fresh_until_ms = self.clock.wall_ms() + FRESH_MS;
        self.clock.sleep(ms - ms / 2).await;
        let failed = rng.one_in(20);
        let object = Object { key, version, fence_position, fresh_until_ms, asked_us };
        if !failed && self.may_come_in(&object, 0) {
            self.disk(|disk| disk.objects.insert(key, object.clone()));
            match self.lease_holds() {
                true => self.publish(&object, lease.map(|(id, _)| id)).await,
                false => drop(self.life().spawn(Arc::clone(self).owe(object.clone()))),
            }
        }
        if let Some((id, _)) = lease {
            self.world.fills.over((key, self.id), id);
            self.end_lease(key, id).await;
        }
        (!failed).then_some(object)
    }

    /// Without the tier an object is published once it answers again, if it is still there.
    async fn owe(self: Arc<Self>, object: Object) {
        while !self.lease_holds() {
            self.clock.sleep(OWED_LOOK_MS).await;
        }
        if self.stored(object.key).is_some_and(|stored| stored == object) {
            self.publish(&object, None).await;
        }
    }

    async fn publish(&self, object: &Object, lease: Option<LeaseId>) {
        let head = v1::IndexHead {
            key: object_key(object.key).to_wire(),
            object_id: object.id().to_wire(),
            manifest_id: object.manifest().to_wire(),
            site: site(object.key).to_owned(),
            length: 10,
            chunk_count: 1,
            fresh_until_ms: object.fresh_until_ms,
            fence_position: object.fence_position,
            publisher_node_id: self.id,
            labels: Some(v1::Labels { hashes: labels(object.key).to_vec(), every_tag: false }),
        };
        let lease = (object_key(object.key), lease.unwrap_or(LeaseId(0)));
        let me = self.me();
        for _ in 0..PUBLISH_TRIES {
            for home in self.homes(object.key) {
                let head = head.clone();
                let publish =
                    move |node: Arc<super::node::SuperNode>| node.publish(lease, me, head.clone());
                let done = self.world.ask((self.id, home), WRITE_DEADLINE_MS, publish).await;
                if done == Some(false) {
                    self.disk(|disk| disk.objects.retain(|_, stored| stored != object));
                }
                if done.is_some() {
                    return;
                }
            }
        }
    }

    async fn end_lease(&self, key: u8, id: LeaseId) {
        if !self.holds(&object_key(key), id) {
            return;
        }
        self.soft(|soft| soft.held.remove(&object_key(key)));
        let me = self.me();
        for home in self.homes(key).into_iter().take(2) {
            let release = move |node: Arc<super::node::SuperNode>| async move {
                node.release(object_key(key), id, me);
                Some(())
            };
            self.world.ask((self.id, home), RPC_DEADLINE_MS, release).await;
        }
    }

    async fn renew(self: Arc<Self>, key: u8, id: LeaseId) {
        while self.holds(&object_key(key), id) {
            self.clock.sleep(u64::from(TIMING.fill_lease_ms) / 5).await;
            let homes = self.homes(key);
            if self.holds(&object_key(key), id) {
                let both = [homes.first().copied(), homes.get(1).copied()];
                let told = both.map(|home| self.tell(home, (key, id), false, RPC_DEADLINE_MS));
                futures::future::join_all(told).await;
            }
        }
    }

    async fn tell(&self, home: Option<u64>, (key, id): (u8, LeaseId), ended: bool, ms: u64) {
        let Some(home) = home else { return };
        let me = self.me();
        let began = self.soft(|soft| soft.held.get(&object_key(key)).map(|held| held.1));
        let shadow = move |node: Arc<super::node::SuperNode>| async move {
            node.shadow((object_key(key), me), (id, began), ended);
            Some(())
        };
        self.world.ask((self.id, home), ms, shadow).await;
    }
}
