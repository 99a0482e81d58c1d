//! One flight a key and node: the first request starts it, the others wait for what it comes to.
//! A flight is a task of its own, so that it outlives the client that started it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_proto::ObjectKey;
use tokio::sync::watch;

use super::types::{FetchError, Lookup};
use crate::metrics::Tier;
use crate::store::StoredObject;
use crate::transfer::Live;

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
    by_key: Mutex<HashMap<ObjectKey, watch::Sender<Outcome>>>,
}

/// The right to say what a flight comes to; dropping it ends the flight.
pub(super) struct Flight {
    flights: Arc<Flights>,
    key: ObjectKey,
    outcome: watch::Sender<Outcome>,
}

impl Flights {
    /// Joins the key's flight; the first to do so gets the duty to fly it.
    pub(super) fn join(
        self: &Arc<Self>,
        key: ObjectKey,
    ) -> (watch::Receiver<Outcome>, Option<Flight>) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = by_key.get(&key) {
            return (outcome.subscribe(), None);
        }
        let outcome = watch::Sender::new(Outcome::Pending);
        let receiver = outcome.subscribe();
        by_key.insert(key, outcome.clone());
        (receiver, Some(Flight { flights: self.clone(), key, outcome }))
    }

    /// The key's flight, if there is one.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<watch::Receiver<Outcome>> {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.get(key).map(watch::Sender::subscribe)
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
        if by_key.get(&self.key).is_some_and(|known| known.same_channel(&self.outcome)) {
            by_key.remove(&self.key);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.land();
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
        let (_, flight) = flights.join(key);
        let (mut waiting, none) = flights.join(key);
        assert!(none.is_none());
        flight.unwrap().set(Outcome::Pass);
        assert!(waiting.wait_for(|o| matches!(o, Outcome::Pass)).await.is_ok());
        assert!(flights.join(key).1.is_some(), "a landed flight is forgotten");
    }

    #[tokio::test]
    async fn an_abandoned_flight_sends_its_waiters_on() {
        let flights = Arc::new(Flights::default());
        let (mut waiting, flight) = flights.join(ObjectKey::new([2; 32]));
        drop(flight);
        assert!(waiting.wait_for(|o| matches!(o, Outcome::Again)).await.is_ok());
    }
}
