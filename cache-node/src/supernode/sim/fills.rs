//! At most one fill: what every home was told of leases, and which fills ran at the same time.
//!
//! A home that was told of a live lease gives no other for the key, unless its asker knows of a
//! fence after that fill's beginning. Over the whole cluster two fills of a key run at once only if a
//! purge came between them, or something went wrong lately: one more for each disturbance, and for
//! each home that did not answer an asker of the key in time, which is lost to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shoal_proto::wire::v1;
use shoal_proto::{LeaseId, NodeId, ObjectKey};

use super::super::raft::simulated::now_us;
use super::node::SuperNode;
use super::world::{TIMING, World, with_subject};
use crate::fences::{Fenced, Fences};
use crate::home::{Ask, Lease};

/// A disturbance may lead to a second fill for so long, in microseconds.
const AFTERMATH_US: u64 = 15_000_000;

/// Until then super-nodes register, and nodes differ in whom they take for a key's home, in
/// microseconds.
const BEGINNING_US: u64 = 3_000_000;

/// A lease that a home was told of.
struct Told {
    id: LeaseId,
    node: NodeId,
    /// Fences after it hold against the fill; `None` where nobody said.
    began: Option<u64>,
    until_ms: u64,
}

/// A fill under way.
struct Fill {
    lease: LeaseId,
    node: u64,
    fence_position: u64,
}

#[derive(Default)]
struct State {
    /// By a home's life and the key.
    told: BTreeMap<(u64, ObjectKey), Told>,
    running: BTreeMap<u8, Vec<Fill>>,
    /// Every fence that a node was told of.
    fences: Fences,
    disturbed_us: Vec<u64>,
    /// Homes that did not answer who asked for a key, and when: as good as lost.
    unanswered_us: BTreeMap<(u8, u64), u64>,
    filled: u64,
    doubled: u64,
}

/// The fills of one world.
#[derive(Default)]
pub(super) struct Fills(Mutex<State>);

impl Fills {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many fills there were, and how many ran beside another of the same key.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.filled, state.doubled)
    }

    /// Something went wrong, or was mended.
    pub(super) fn disturbed(&self) {
        self.state().disturbed_us.push(now_us());
    }

    /// A node takes in fences.
    pub(super) fn fenced(&self, batch: &v1::FenceBatch) {
        let mut state = self.state();
        for fence in &batch.fences {
            if let Some(Ok(fenced)) = fence.matcher.as_ref().map(Fenced::try_from) {
                state.fences.add(fence.position, fenced);
            }
        }
    }

    /// A home is asked: the asker knows that a fence covers what began before a position, and
    /// follows no such fill. Another may then be given beside it.
    pub(super) fn asked(&self, home: &SuperNode, ask: &Ask) {
        let mut state = self.state();
        let at = (home.number, ask.key);
        let is_before = |told: &Told| told.began.is_none_or(|began| began < ask.since);
        if state.told.get(&at).is_some_and(is_before) {
            state.told.remove(&at);
        }
    }

    /// A home did not answer: it may have been lost, and the next one is asked.
    pub(super) fn unanswered(&self, key: u8, home: u64) {
        self.state().unanswered_us.insert((key, home), now_us());
    }

    /// A home says: fill. `new` is the number of a lease that did not exist before.
    pub(super) fn granted(
        &self,
        home: &SuperNode,
        ask: &Ask,
        (lease, new): (Lease, LeaseId),
        found_gone: bool,
    ) {
        let mut state = self.state();
        let at = (home.number, ask.key);
        let now_ms = home.now_ms();
        if let Some(told) = state.told.get(&at)
            && (told.id, told.node) != (lease.id, ask.node)
            && now_ms < told.until_ms
            && !found_gone
            && home.index.member(told.node).is_some_and(|member| member.up)
        {
            let what = format!(
                "{} gives lease {} though it was told of {} by {}",
                home.id, lease.id.0, told.id.0, told.node
            );
            home.world.check.violated("one lease a key at a home", what);
        }
        if lease.id == new || state.told.contains_key(&at) {
            let until_ms = now_ms + u64::from(TIMING.fill_lease_ms);
            let began = lease.fence_position;
            state.told.insert(at, Told { id: lease.id, node: ask.node, began, until_ms });
        }
    }

    /// A home has taken in a lease, or its renewal.
    pub(super) fn told(
        &self,
        home: &SuperNode,
        key: ObjectKey,
        (id, began): (LeaseId, Option<u64>),
        node: NodeId,
    ) {
        let until_ms = home.now_ms() + u64::from(TIMING.fill_lease_ms);
        self.state().told.insert((home.number, key), Told { id, node, began, until_ms });
    }

    /// A home was told that a lease has ended.
    pub(super) fn ended(&self, home: &SuperNode, key: &ObjectKey, id: LeaseId) {
        let mut state = self.state();
        let at = (home.number, *key);
        if state.told.get(&at).is_some_and(|told| told.id == id) {
            state.told.remove(&at);
        }
    }

    /// A fill begins.
    pub(super) fn began(
        &self,
        world: &World,
        (key, node): (u8, u64),
        lease: LeaseId,
        fence_position: u64,
    ) {
        let mut state = self.state();
        state.filled += 1;
        let State { running, fences, .. } = &mut *state;
        let running = running.entry(key).or_default();
        // A fill that a purge overtook is followed by nobody: another may run beside it. That may
        // be this one, when its lease was on its way while the purge and the other fill came.
        let stands = |fill: &Fill| {
            with_subject(key, fill.fence_position, |subject| fences.covering(subject).is_none())
        };
        let beside = running.iter().filter(|fill| stands(fill)).count();
        let this = Fill { lease, node, fence_position };
        let overtaken = !stands(&this);
        running.push(this);
        if beside == 0 || overtaken {
            return;
        }
        state.doubled += 1;
        let now = now_us();
        let lately = |at: &&u64| **at + AFTERMATH_US >= now;
        let lost = state.unanswered_us.range((key, 0)..=(key, u64::MAX)).map(|(_, at)| at);
        let disturbances = state.disturbed_us.iter().chain(lost).filter(lately).count();
        if beside > disturbances && now > BEGINNING_US {
            let what = format!(
                "{beside} other fills of key {key} when {node} begins, {disturbances} disturbances"
            );
            world.check.violated("at most one fill", what);
        }
    }

    /// A fill is over.
    pub(super) fn over(&self, (key, node): (u8, u64), lease: LeaseId) {
        if let Some(running) = self.state().running.get_mut(&key) {
            running.retain(|fill| (fill.lease, fill.node) != (lease, node));
        }
    }

    /// A node's life has ended, and its fills with it.
    pub(super) fn lost(&self, node: u64) {
        self.state().running.values_mut().for_each(|fills| fills.retain(|f| f.node != node));
    }
}
