//! PURE. The fill leases of the keys whose home this member is, a super-node or, while none
//! answers, a node: soft state, never in the log. Losing it costs at most one second fill a key.
//!
//! Invariants: at any time at most one live lease a key; a lease ends by its holder's publish or
//! release, by time, or when its holder was suspected and found gone, and by nothing else; the table
//! is bounded. Must not know how anybody is reached.

#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;

pub(crate) use wire::lease;

use shoal_proto::{LeaseId, ManifestId, NodeId, ObjectKey};

/// Most leases at one home; beyond it askers are told to pass.
const LEASES_MAX: usize = 262_144;
/// Most keys remembered as passed; beyond it they are not, which costs waiting only.
const PASSES_MAX: usize = 65_536;
/// Longest time for which a key is passed, in milliseconds.
const PASS_MS_MAX: u64 = 120_000;

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) key: ObjectKey,
    pub(crate) node: NodeId,
    /// The manifest that it has and found stale.
    pub(crate) stale: Option<ManifestId>,
    /// The filler that it could not reach, and that filler's lease.
    pub(crate) suspect: Option<(NodeId, LeaseId)>,
    /// Holders that could not give it the object.
    pub(crate) failed: Vec<NodeId>,
    /// Fills that began before this position are of no use to it: a fence covers them.
    pub(crate) since: u64,
}

/// A right to fill that can be given now, should nobody have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// An id never used before.
    pub(crate) id: LeaseId,
    /// The newest fence that this home knows.
    pub(crate) fence_position: u64,
}

/// How a filler is doing, as far as the asker's home knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filler {
    Up,
    /// Its session lease has run out, or it did not answer a probe.
    Gone,
    /// No such member: nobody could be sent to it.
    Unknown,
}

/// A fill lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) node: NodeId,
    /// Fences after it hold against the fill; `None` where another home gave it and did not say.
    pub(crate) fence_position: Option<u64>,
    until_ms: u64,
    publishing: bool,
}

impl Lease {
    /// Whether its fill may have begun before that position.
    fn is_before(&self, position: u64) -> bool {
        self.fence_position.is_none_or(|began| began < position)
    }
}

/// What the asker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The index has it.
    Have,
    /// Somebody fetches it.
    Follow(Lease),
    /// The asker is to fetch it.
    Fill(Lease),
    /// Ask the origin, do not wait for one another.
    Pass,
    /// Not an answer yet: find out whether the filler is alive, then ask again.
    Probe(Lease),
}

/// One home's leases. Times are monotonic milliseconds.
#[derive(Debug)]
pub(crate) struct Home {
    lease_ms: u64,
    leases: HashMap<ObjectKey, Lease>,
    passes: HashMap<ObjectKey, u64>,
}

impl Home {
    /// No leases yet; each will live `lease_ms` without renewal.
    pub(crate) fn new(lease_ms: u64) -> Self {
        Self { lease_ms, leases: HashMap::new(), passes: HashMap::new() }
    }

    /// How many leases there are.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// A node wants a key. `have` says that the index has a fresh object of use to it, with live
    /// holders; `filler` tells how a lease's holder is doing.
    pub(crate) fn acquire(
        &mut self,
        now_ms: u64,
        ask: &Ask,
        (have, grant): (bool, Grant),
        filler: impl Fn(&Lease) -> Filler,
    ) -> Answer {
        if have {
            return Answer::Have;
        }
        let mut fence_position = grant.fence_position;
        if ask.since > 0
            && self.leases.get(&ask.key).is_some_and(|lease| lease.is_before(ask.since))
        {
            // What it fills is purged already: nobody else is to wait for it.
            self.leases.remove(&ask.key);
        }
        if let Some(lease) = self.live(now_ms, &ask.key) {
            if lease.node == ask.node {
                return Answer::Fill(self.extend(now_ms, &ask.key, lease));
            }
            let suspected = ask.suspect == Some((lease.node, lease.id)) && !lease.publishing;
            match (filler(&lease), suspected) {
                (Filler::Up, true) => return Answer::Probe(lease),
                (Filler::Up, false) | (Filler::Gone, false) => return Answer::Follow(lease),
                // Whoever goes on with that fill may have bytes of before the newest fence.
                (Filler::Gone, true) | (Filler::Unknown, _) => {
                    fence_position = fence_position.min(lease.fence_position.unwrap_or(u64::MAX));
                    self.leases.remove(&ask.key);
                }
            }
        }
        let passed = self.passes.get(&ask.key).is_some_and(|until| now_ms < *until);
        if passed || self.leases.len() >= LEASES_MAX {
            return Answer::Pass;
        }
        let lease = Lease {
            id: grant.id,
            node: ask.node,
            fence_position: Some(fence_position),
            until_ms: now_ms + self.lease_ms,
            publishing: false,
        };
        self.leases.insert(ask.key, lease);
        Answer::Fill(lease)
    }

    /// A filler tells of a lease that the key's other home gave, or renews one. False when somebody
    /// else's lease stands here.
    pub(crate) fn shadow(
        &mut self,
        now_ms: u64,
        key: ObjectKey,
        (id, fence_position): (LeaseId, Option<u64>),
        node: NodeId,
    ) -> bool {
        if let Some(lease) = self.live(now_ms, &key) {
            let same = (lease.id, lease.node) == (id, node);
            if same {
                self.extend(now_ms, &key, lease);
            }
            return same;
        }
        if self.leases.len() >= LEASES_MAX {
            return false;
        }
        let until_ms = now_ms + self.lease_ms;
        let lease = Lease { id, node, fence_position, until_ms, publishing: false };
        self.leases.insert(key, lease);
        true
    }

    /// A filler renews a lease. False when it is unknown here or somebody else's.
    pub(crate) fn renew(
        &mut self,
        now_ms: u64,
        key: &ObjectKey,
        id: LeaseId,
        node: NodeId,
    ) -> bool {
        match self.live(now_ms, key) {
            Some(lease) if (lease.id, lease.node) == (id, node) => {
                self.extend(now_ms, key, lease);
                true
            }
            _ => false,
        }
    }

    /// A filler gives its lease back; for `pass_ms` nobody is to wait for another's fill.
    pub(crate) fn release(
        &mut self,
        now_ms: u64,
        (key, id): (ObjectKey, LeaseId),
        node: NodeId,
        pass_ms: u32,
    ) {
        if !self.end(&key, id, node) && self.live(now_ms, &key).is_some() {
            return;
        }
        let pass_ms = u64::from(pass_ms).min(PASS_MS_MAX);
        if pass_ms > 0 && (self.passes.len() < PASSES_MAX || self.passes.contains_key(&key)) {
            self.passes.insert(key, now_ms + pass_ms);
        }
    }

    /// A lease has ended, here or at the key's other home. Whether it stood here.
    pub(crate) fn end(&mut self, key: &ObjectKey, id: LeaseId, node: NodeId) -> bool {
        let ends = self.leases.get(key).is_some_and(|lease| (lease.id, lease.node) == (id, node));
        if ends {
            self.leases.remove(key);
        }
        ends
    }

    /// A filler's publish is being agreed on, for at most `deadline_ms`: its lease does not expire
    /// meanwhile, and its silence is not held against it.
    pub(crate) fn publish_begun(
        &mut self,
        now_ms: u64,
        (key, id): (ObjectKey, LeaseId),
        node: NodeId,
        deadline_ms: u64,
    ) {
        if let Some(lease) = self.leases.get_mut(&key)
            && (lease.id, lease.node) == (id, node)
        {
            lease.publishing = true;
            lease.until_ms = lease.until_ms.max(now_ms + deadline_ms);
        }
    }

    /// A publish has ended. Without success the lease lives on as after a renewal.
    pub(crate) fn publish_ended(
        &mut self,
        now_ms: u64,
        (key, id): (ObjectKey, LeaseId),
        node: NodeId,
        done: bool,
    ) {
        if done {
            self.end(&key, id, node);
            self.passes.remove(&key);
        } else if let Some(lease) = self.leases.get_mut(&key)
            && (lease.id, lease.node) == (id, node)
        {
            lease.publishing = false;
            lease.until_ms = now_ms + self.lease_ms;
        }
    }

    /// Drops what has run out. Nothing depends on it but memory.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        self.leases.retain(|_, lease| now_ms < lease.until_ms);
        self.passes.retain(|_, until| now_ms < *until);
    }

    fn live(&self, now_ms: u64, key: &ObjectKey) -> Option<Lease> {
        self.leases.get(key).copied().filter(|lease| now_ms < lease.until_ms)
    }

    fn extend(&mut self, now_ms: u64, key: &ObjectKey, lease: Lease) -> Lease {
        let until_ms = lease.until_ms.max(now_ms + self.lease_ms);
        let lease = Lease { until_ms, ..lease };
        self.leases.insert(*key, lease);
        lease
    }
}
