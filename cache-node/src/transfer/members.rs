//! Who pulls a key's object at the same time: followers of a fill here, or of an object that is
//! held here. They are told of one another, so that they can share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_proto::{NodeId, ObjectKey};
use tokio::sync::watch;

/// Most followers that are told of one another; more get what they want, untold.
const MEMBERS_MAX: usize = 1_024;

/// A key's followers, each with how often it follows.
type Followers = BTreeMap<NodeId, u32>;

/// The followers of all keys.
#[derive(Default)]
pub(super) struct Swarms {
    by_key: Mutex<HashMap<ObjectKey, watch::Sender<Followers>>>,
}

/// A place among a key's followers; given up when dropped.
pub(super) struct Membership {
    swarms: Arc<Swarms>,
    key: ObjectKey,
    node: NodeId,
    followers: watch::Receiver<Followers>,
}

impl Swarms {
    /// Takes a node in.
    pub(super) fn join(self: &Arc<Self>, key: ObjectKey, node: NodeId) -> Membership {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = by_key.entry(key).or_default();
        sender.send_modify(|followers| {
            if followers.len() < MEMBERS_MAX || followers.contains_key(&node) {
                *followers.entry(node).or_default() += 1;
            }
        });
        Membership { swarms: self.clone(), key, node, followers: sender.subscribe() }
    }
}

impl Membership {
    /// All others now.
    pub(super) fn others(&mut self) -> Vec<NodeId> {
        let followers = self.followers.borrow_and_update();
        followers.keys().copied().filter(|id| *id != self.node).collect()
    }

    /// Waits until somebody comes or goes.
    pub(super) async fn changed(&mut self) {
        if self.followers.changed().await.is_err() {
            // The sender lives as long as this place: there is nothing to come.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut by_key = self.swarms.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = by_key.get(&self.key) else { return };
        sender.send_modify(|followers| {
            if let Some(count) = followers.get_mut(&self.node) {
                *count -= 1;
                if *count == 0 {
                    followers.remove(&self.node);
                }
            }
        });
        if sender.borrow().is_empty() {
            by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ObjectKey = ObjectKey::new([1; 32]);

    #[tokio::test]
    async fn followers_hear_of_one_another() {
        let swarms = Arc::new(Swarms::default());
        let mut first = swarms.join(KEY, NodeId(1));
        assert!(first.others().is_empty());
        let mut second = swarms.join(KEY, NodeId(2));
        first.changed().await;
        assert_eq!(first.others(), [NodeId(2)]);
        assert_eq!(second.others(), [NodeId(1)]);
        let again = swarms.join(KEY, NodeId(2));
        drop(second);
        first.changed().await;
        assert_eq!(first.others(), [NodeId(2)], "it follows once more");
        drop(again);
        first.changed().await;
        assert!(first.others().is_empty());
        drop(first);
        assert!(swarms.by_key.lock().unwrap().is_empty(), "nothing is left behind");
    }
}
