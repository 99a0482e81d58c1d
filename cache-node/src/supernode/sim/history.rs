//! What clients saw, and the models that say whether they may have seen it: holdings are registers
//! with one writer each; a purge moves the oldest version that a key may be served in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::linear::{self, Called, Model, Verdict};

/// What happens to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyOp {
    /// The origin has a new version from now on.
    Update(u64),
    Purge,
    /// A node served that version.
    Served {
        node: u64,
        version: u64,
    },
}

/// A key as clients may see it: after a purge nothing older than what the origin had then.
pub(super) struct Key;

impl Model for Key {
    type Op = KeyOp;
    /// The origin's version, and the oldest that may be served.
    type State = (u64, u64);

    fn start(&self) -> (u64, u64) {
        (1, 1)
    }

    fn is_read(&self, op: &KeyOp) -> bool {
        matches!(op, KeyOp::Served { .. })
    }

    fn step(&self, (now, oldest): &(u64, u64), op: &KeyOp) -> Option<(u64, u64)> {
        match op {
            KeyOp::Update(version) => (*version == now + 1).then_some((*version, *oldest)),
            KeyOp::Purge => Some((*now, *now)),
            KeyOp::Served { version, .. } => {
                (oldest <= version && version <= now).then_some((*now, *oldest))
            }
        }
    }
}

/// What happens to what a node says that it holds. Numbers stand for bitmaps, 0 for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HoldingOp {
    Say(u64),
    Read(u64),
}

/// A holding: a register.
pub(super) struct Holding;

impl Model for Holding {
    type Op = HoldingOp;
    type State = u64;

    fn start(&self) -> u64 {
        0
    }

    fn is_read(&self, op: &HoldingOp) -> bool {
        matches!(op, HoldingOp::Read(_))
    }

    fn step(&self, state: &u64, op: &HoldingOp) -> Option<u64> {
        match op {
            HoldingOp::Say(value) => Some(*value),
            HoldingOp::Read(value) => (value == state).then_some(*state),
        }
    }
}

/// What happens to the table of sites. Numbers stand for tables, 0 for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SitesOp {
    /// It was changed, for the table that was read before.
    Change {
        from: u64,
        to: u64,
    },
    Read(u64),
}

/// The table of sites: a register that is changed only by who knows what is in it.
pub(super) struct Sites;

impl Model for Sites {
    type Op = SitesOp;
    type State = u64;

    fn start(&self) -> u64 {
        0
    }

    fn is_read(&self, op: &SitesOp) -> bool {
        matches!(op, SitesOp::Read(_))
    }

    fn step(&self, state: &u64, op: &SitesOp) -> Option<u64> {
        match op {
            SitesOp::Change { from, to } => (from == state).then_some(*to),
            SitesOp::Read(value) => (value == state).then_some(*state),
        }
    }
}

type Keys = BTreeMap<u8, Vec<Called<KeyOp>>>;
type Holdings = BTreeMap<(u64, u64), Vec<Called<HoldingOp>>>;

/// The histories of one world.
#[derive(Default)]
pub(super) struct Histories {
    keys: Mutex<Keys>,
    holdings: Mutex<Holdings>,
    sites: Mutex<Vec<Called<SitesOp>>>,
    over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Histories {
    /// Clients are to stop.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether clients are to stop.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A node served a key.
    pub(super) fn served(&self, key: u8, (called, returned): (u64, u64), by: (u64, u64)) {
        let (node, version) = by;
        let op = KeyOp::Served { node, version };
        self.key(key, Called { op, called, returned: Some(returned) });
    }

    /// Something happened to a key.
    pub(super) fn key(&self, key: u8, called: Called<KeyOp>) {
        lock(&self.keys).entry(key).or_default().push(called);
    }

    /// Something was said or read of what a node holds of an object.
    pub(super) fn holding(&self, of: (u64, u64), called: Called<HoldingOp>) {
        lock(&self.holdings).entry(of).or_default().push(called);
    }

    /// What was last said of it is known to have been done.
    pub(super) fn returned(&self, of: (u64, u64), at: u64) {
        let mut holdings = lock(&self.holdings);
        let said = |called: &&mut Called<HoldingOp>| matches!(called.op, HoldingOp::Say(_));
        let history = holdings.entry(of).or_default();
        if let Some(last) = history.iter_mut().rev().find(said) {
            last.returned = Some(at);
        }
    }

    /// Sites were changed or read; the number of the operation.
    pub(super) fn sites(&self, called: Called<SitesOp>) -> usize {
        let mut sites = lock(&self.sites);
        sites.push(called);
        sites.len() - 1
    }

    /// That operation is known to have been done.
    pub(super) fn sites_returned(&self, number: usize, at: u64) {
        if let Some(called) = lock(&self.sites).get_mut(number) {
            called.returned = Some(at);
        }
    }

    /// Operations with a known outcome: served, purged, said or read.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let keys = lock(&self.keys);
        let of = |wanted: fn(&KeyOp) -> bool| {
            let all = keys.values().flatten().filter(|called| called.returned.is_some());
            all.filter(|called| wanted(&called.op)).count() as u64
        };
        let served = of(|op| matches!(op, KeyOp::Served { .. }));
        let purged = of(|op| *op == KeyOp::Purge);
        let holdings = lock(&self.holdings);
        let known = holdings.values().flatten().filter(|called| called.returned.is_some());
        (served, purged, known.count() as u64)
    }

    /// What is not linearizable.
    pub(super) fn judge(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (key, history) in lock(&self.keys).iter() {
            // A purge that may not have happened forbids nothing.
            let known = history.iter().filter(|called| called.returned.is_some());
            if let Some(what) = broken(&Key, &known.cloned().collect::<Vec<_>>()) {
                found.push(("purge is linearizable", format!("key {key}: {what}")));
            }
        }
        for ((node, object), history) in lock(&self.holdings).iter() {
            if let Some(what) = broken(&Holding, history) {
                let what = format!("node {node}, object {object}: {what}");
                found.push(("index is linearizable", what));
            }
        }
        if let Some(what) = broken(&Sites, &lock(&self.sites)) {
            found.push(("sites are linearizable", what));
        }
        found
    }
}

fn broken<M: Model<Op: std::fmt::Debug>>(model: &M, history: &[Called<M::Op>]) -> Option<String> {
    match linear::check(model, history) {
        Verdict::Linearizable => None,
        Verdict::Undecided => Some(format!("undecided after {} operations", history.len())),
        Verdict::Broken(most) => {
            let mut sorted: Vec<_> = history.iter().collect();
            sorted.sort_by_key(|called| called.called);
            let near = most.saturating_sub(6)..(most + 6).min(sorted.len());
            Some(format!("of {} operations {most} fit; near {:?}", history.len(), &sorted[near]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(op: KeyOp, called: u64, returned: Option<u64>) -> Called<KeyOp> {
        Called { op, called, returned }
    }

    fn served(version: u64, at: u64, until: u64) -> Called<KeyOp> {
        called(KeyOp::Served { node: 1, version }, at, Some(until))
    }

    #[test]
    fn what_was_purged_may_be_served_only_to_who_asked_before() {
        let update = called(KeyOp::Update(2), 5, Some(5));
        let purge = called(KeyOp::Purge, 10, Some(20));
        let judge = |more: Called<KeyOp>| {
            linear::check(&Key, &[served(1, 1, 2), update.clone(), purge.clone(), more])
        };
        assert_eq!(judge(served(1, 19, 40)), Verdict::Linearizable);
        assert_eq!(judge(served(2, 21, 22)), Verdict::Linearizable);
        assert_eq!(judge(served(1, 21, 22)), Verdict::Broken(3));
        assert!(matches!(judge(served(3, 21, 22)), Verdict::Broken(_)), "nobody has it yet");
    }

    #[test]
    fn sites_are_changed_by_who_knows_them() {
        let op = |op, called, returned| Called { op, called, returned };
        let change = |from, to, at, returned| op(SitesOp::Change { from, to }, at, returned);
        let judge = |last| {
            let one = change(0, 7, 1, Some(5));
            // Of two for one table, the second came to nothing.
            linear::check(&Sites, &[one, change(0, 8, 2, None), last])
        };
        assert_eq!(judge(op(SitesOp::Read(7), 6, Some(7))), Verdict::Linearizable);
        assert_eq!(judge(change(7, 9, 6, Some(7))), Verdict::Linearizable);
        assert!(matches!(judge(op(SitesOp::Read(8), 6, Some(7))), Verdict::Broken(_)));
        assert!(matches!(judge(change(0, 9, 6, Some(7))), Verdict::Broken(_)));
    }

    #[test]
    fn a_purge_of_unknown_outcome_binds_nobody_but_counts_once_seen() {
        let update = called(KeyOp::Update(2), 5, Some(5));
        let purge = called(KeyOp::Purge, 10, None);
        let all = [update, purge, served(1, 30, 31), served(2, 32, 33)];
        assert_eq!(linear::check(&Key, &all), Verdict::Linearizable);
    }
}
