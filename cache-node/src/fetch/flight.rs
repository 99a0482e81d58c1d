//! One flight a key and node: the first request starts it, the others wait for what it comes to.
//! A flight is a task of its own, so that it outlives the client that started it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use shoal_proto::ObjectKey;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use super::types::{FetchError, Lookup};
use crate::metrics::Tier;
use crate::store::StoredObject;
use crate::transfer::{End, Live};

/// What a flight has come to.
#[derive(Clone)]
pub(super) enum Outcome {
    /// Nothing yet.
    Pending,
    /// A whole object.
    Stored(Arc<StoredObject>, Tier, Lookup),
    /// An object that grows.
    Live(Arc<Live>, Tier, Lookup),
    /// The origin's answer may not be stored: everybody asks for himself.
    Pass,
    /// It ended without an answer: start another.
    Again,
    /// No response.
    Failed(FetchError),
}

/// The flights of this node.
#[derive(Default)]
pub(super) struct Flights {
    by_key: Mutex<HashMap<ObjectKey, Joinable>>,
    growing: Mutex<HashMap<ObjectKey, (Weak<Live>, Tier)>>,
    turns: Mutex<HashMap<ObjectKey, Arc<AsyncMutex<()>>>>,
}

struct Joinable {
    outcome: watch::Sender<Outcome>,
    /// It has the tier's word already: only those who can trust that word may join.
    decided: bool,
}

/// A key's turn to be validated; whoever comes meanwhile waits, and shares the next one.
pub(super) struct Turn {
    flights: Arc<Flights>,
    key: ObjectKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut turns = self.flights.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waits holds the lock too.
        if turns.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.key);
        }
    }
}

/// The right to say what a flight comes to; dropping it ends the flight.
pub(super) struct Flight {
    flights: Arc<Flights>,
    key: ObjectKey,
    outcome: watch::Sender<Outcome>,
}

impl Flights {
    /// Joins the key's flight; the first to do so gets the duty to fly it. Who does not trust the
    /// tier's word starts another one when the flight follows it.
    pub(super) fn join(
        self: &Arc<Self>,
        key: ObjectKey,
        trusts: bool,
    ) -> (watch::Receiver<Outcome>, Option<Flight>) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = by_key.get(&key).filter(|flight| trusts || !flight.decided) {
            return (flight.outcome.subscribe(), None);
        }
        let outcome = watch::Sender::new(Outcome::Pending);
        let receiver = outcome.subscribe();
        by_key.insert(key, Joinable { outcome: outcome.clone(), decided: false });
        (receiver, Some(Flight { flights: self.clone(), key, outcome }))
    }

    /// Requests that come from now on start a flight of their own, unless another has begun since.
    pub(super) fn abandon(&self, key: &ObjectKey, outcome: &watch::Receiver<Outcome>) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key.get(key).is_some_and(|known| known.outcome.subscribe().same_channel(outcome)) {
            by_key.remove(key);
        }
    }

    /// The key's flight, if there is one.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<watch::Receiver<Outcome>> {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.get(key).map(|flight| flight.outcome.subscribe())
    }

    /// Waits for the key's turn.
    pub(super) async fn turn(self: &Arc<Self>, key: ObjectKey) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(key).or_default().clone()
        };
        let guard = Some(turn.lock_owned().await);
        Turn { flights: self.clone(), key, guard }
    }

    /// The key's object that grows here now, and where it comes from.
    pub(super) fn growing(&self, key: &ObjectKey) -> Option<(Arc<Live>, Tier)> {
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let (live, tier) = growing.get(key)?;
        let live = live.upgrade()?;
        let failed = matches!(live.end(), Some(End::Failed(_)));
        (!failed).then_some((live, *tier))
    }
}

impl Flight {
    /// Tells everybody who waits.
    pub(super) fn set(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }

    /// What was told last.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.borrow().clone()
    }

    /// Requests that come from now on start a flight of their own.
    pub(super) fn land(&self) {
        let mut by_key = self.flights.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key.get(&self.key).is_some_and(|known| known.outcome.same_channel(&self.outcome)) {
            by_key.remove(&self.key);
        }
    }

    /// The tier has said who has or fetches the object.
    pub(super) fn decided(&self) {
        let mut by_key = self.flights.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = by_key.get_mut(&self.key);
        if let Some(known) = mine.filter(|known| known.outcome.same_channel(&self.outcome)) {
            known.decided = true;
        }
    }

    /// Others may find the growing object, until this flight ends.
    pub(super) fn grows(&self, live: &Arc<Live>, tier: Tier) {
        let mut growing = self.flights.growing.lock().unwrap_or_else(PoisonError::into_inner);
        growing.insert(self.key, (Arc::downgrade(live), tier));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.land();
        if let Outcome::Live(live, ..) = &*self.outcome.borrow() {
            let mut growing = self.flights.growing.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |(known, _): &(Weak<Live>, Tier)| known.as_ptr() == Arc::as_ptr(live);
            if growing.get(&self.key).is_some_and(same) {
                growing.remove(&self.key);
            }
        }
        self.outcome.send_if_modified(|outcome| {
            let pending = matches!(outcome, Outcome::Pending);
            if pending {
                *outcome = Outcome::Again;
            }
            pending
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_flies_and_the_others_wait() {
        let flights = Arc::new(Flights::default());
        let key = ObjectKey::new([1; 32]);
        let (_, flight) = flights.join(key, true);
        let (mut waiting, none) = flights.join(key, true);
        assert!(none.is_none());
        flight.unwrap().set(Outcome::Pass);
        assert!(waiting.wait_for(|o| matches!(o, Outcome::Pass)).await.is_ok());
        assert!(flights.join(key, true).1.is_some(), "a landed flight is forgotten");
    }

    #[tokio::test]
    async fn who_does_not_trust_the_tiers_word_flies_alone() {
        let flights = Arc::new(Flights::default());
        let key = ObjectKey::new([3; 32]);
        let (_, first) = flights.join(key, true);
        let first = first.unwrap();
        assert!(flights.join(key, false).1.is_none(), "nothing is decided yet");
        first.decided();
        assert!(flights.join(key, true).1.is_none());
        let (mut waiting, second) = flights.join(key, false);
        let second = second.unwrap();
        drop(first);
        assert!(flights.join(key, false).1.is_none(), "the end of the first is not the second's");
        second.set(Outcome::Pass);
        assert!(waiting.wait_for(|o| matches!(o, Outcome::Pass)).await.is_ok());
    }

    #[tokio::test]
    async fn turns_are_taken_one_after_the_other_and_forgotten() {
        let flights = Arc::new(Flights::default());
        let key = ObjectKey::new([4; 32]);
        let first = flights.turn(key).await;
        let mut second = Box::pin(flights.turn(key));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        assert!(flights.turns.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_abandoned_flight_sends_its_waiters_on() {
        let flights = Arc::new(Flights::default());
        let (mut waiting, flight) = flights.join(ObjectKey::new([2; 32]), true);
        drop(flight);
        assert!(waiting.wait_for(|o| matches!(o, Outcome::Again)).await.is_ok());
    }
}
