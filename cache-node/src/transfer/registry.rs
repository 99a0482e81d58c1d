//! What this node fills and pulls now, by key, for other nodes. A fill's entry is made before the
//! lease is asked for, since a follower may be told of the lease before its holder is.
//!
//! A key has more than one entry while a later request is looked after beside a running fill.
//!
//! Invariant: only a fill under a lease can be followed, never a pull: followers form no circles.
//! Chunks can be had of both.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use shoal_proto::wire::v1::follow_failed::Reason;
use shoal_proto::{LeaseId, ObjectId, ObjectKey};
use tokio::sync::watch;

use super::live::Live;
use super::survey::Remembered;

/// Objects that grew here whose growths' names are kept: others may still pull by them.
const GROWN_MAX: usize = 1_024;

/// Where a fill stands.
#[derive(Clone)]
pub enum Entry {
    /// No head from the origin yet.
    Pending,
    /// Growing.
    Live(Arc<Live>),
    /// Over before it grew, or not a fill at all.
    Ended(Reason, String),
}

/// This node's fills.
#[derive(Default)]
pub struct Fills {
    by_key: Mutex<HashMap<ObjectKey, Vec<Known>>>,
    growing: Mutex<HashMap<ObjectKey, Weak<Live>>>,
    grown: Mutex<VecDeque<(ObjectKey, u64, ObjectId)>>,
    pub(super) remembered: Remembered,
}

struct Known {
    lease: Option<LeaseId>,
    entry: watch::Sender<Entry>,
}

/// The right to say where a key's fill stands; dropping it ends the entry.
pub struct FillEntry {
    fills: Arc<Fills>,
    key: ObjectKey,
    sender: watch::Sender<Entry>,
}

impl Fills {
    /// Makes an entry for a key whose fill may begin.
    pub fn expect(self: &Arc<Self>, key: ObjectKey) -> FillEntry {
        let sender = watch::Sender::new(Entry::Pending);
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.entry(key).or_default().push(Known { lease: None, entry: sender.clone() });
        FillEntry { fills: self.clone(), key, sender }
    }

    /// Whether the key is being filled here under that lease.
    pub fn holds(&self, key: &ObjectKey, lease: LeaseId) -> bool {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.get(key).is_some_and(|all| all.iter().any(|known| known.lease == Some(lease)))
    }

    /// An object grows here, by a fill or a pull: others may have its chunks.
    pub fn grows(&self, live: &Arc<Live>) {
        self.remembered.remember(live.head().key, live.sources().clone());
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        growing.retain(|_, known| known.strong_count() > 0);
        growing.insert(live.head().key, Arc::downgrade(live));
    }

    /// The key's growing object.
    pub fn growing(&self, key: &ObjectKey) -> Option<Arc<Live>> {
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        growing.get(key).and_then(Weak::upgrade)
    }

    /// A growing object is whole: its growth's name stands for that object from now on.
    pub fn grown(&self, key: ObjectKey, growth: u64, object: ObjectId) {
        if growth == 0 {
            return;
        }
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        if grown.len() >= GROWN_MAX {
            grown.pop_front();
        }
        grown.push_back((key, growth, object));
    }

    /// The object that a growth became.
    pub fn grown_object(&self, key: &ObjectKey, growth: u64) -> Option<ObjectId> {
        let grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        let found = grown.iter().rev().find(|known| (&known.0, known.1) == (key, growth));
        found.map(|known| known.2)
    }

    /// The growing object of a key under a lease, once its head is there.
    ///
    /// # Errors
    /// Why there is none (any more).
    pub async fn follow(
        &self,
        key: &ObjectKey,
        lease: LeaseId,
    ) -> Result<Arc<Live>, (Reason, String)> {
        let gone = || (Reason::Gone, "no such fill here".to_owned());
        let watched = {
            let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
            let all = by_key.get(key).map(Vec::as_slice).unwrap_or_default();
            // The lease may not have reached its holder yet.
            let under = all.iter().find(|known| known.lease == Some(lease));
            let expected = || all.iter().rev().find(|known| known.lease.is_none());
            under.or_else(expected).map(|known| known.entry.subscribe())
        };
        let mut watched = watched.ok_or_else(gone)?;
        let entry = watched
            .wait_for(|entry| !matches!(entry, Entry::Pending))
            .await
            .map(|entry| entry.clone())
            .map_err(|_| gone())?;
        match entry {
            Entry::Live(live) if live.lease() == Some(lease) => Ok(live),
            Entry::Ended(reason, message) => Err((reason, message)),
            Entry::Live(_) | Entry::Pending => Err(gone()),
        }
    }
}

impl FillEntry {
    /// A fill under this lease begins: followers wait for its head.
    pub fn begin(&self, lease: Option<LeaseId>) {
        let mut by_key = self.fills.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = by_key.get_mut(&self.key).into_iter().flatten();
        if let Some(known) = all.find(|known| known.entry.same_channel(&self.sender)) {
            known.lease = lease;
        }
        self.sender.send_replace(Entry::Pending);
    }

    /// The fill has a head: followers may come.
    pub fn live(&self, live: Arc<Live>) {
        self.sender.send_replace(Entry::Live(live));
    }

    /// There is nothing to follow here.
    pub fn ended(&self, reason: Reason, message: impl Into<String>) {
        self.sender.send_replace(Entry::Ended(reason, message.into()));
    }
}

impl Drop for FillEntry {
    fn drop(&mut self) {
        let mut by_key = self.fills.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = by_key.get_mut(&self.key) else { return };
        all.retain(|known| !known.entry.same_channel(&self.sender));
        if all.is_empty() {
            by_key.remove(&self.key);
        }
    }
}
