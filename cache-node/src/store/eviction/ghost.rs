//! The memory of what left: fingerprints only, bounded in bytes represented and in number.
//!
//! Two keys with one fingerprint cost a wrong promotion, nothing else. PURE.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Most fingerprints kept, tombstones included: about 40 MiB.
const GHOST_ENTRIES_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
struct Left {
    fingerprint: u64,
    bytes: u64,
}

/// A FIFO of fingerprints. One that came back leaves a tombstone, which its turn removes.
#[derive(Debug)]
pub(super) struct Ghost {
    bytes_max: u64,
    bytes: u64,
    /// Departures so far: the newest in the queue had this turn, the one before one less.
    turn: u64,
    queue: VecDeque<Left>,
    entries_max: usize,
    /// Fingerprint to the turn at which it left last: older queue slots are tombstones.
    turns: HashMap<u64, u64>,
}

impl Ghost {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self::bounded(bytes_max, GHOST_ENTRIES_MAX)
    }

    /// The same with a bound of its own on the number.
    pub(super) fn bounded(bytes_max: u64, entries_max: usize) -> Self {
        let entries_max = entries_max.min(GHOST_ENTRIES_MAX);
        let (queue, turns) = (VecDeque::new(), HashMap::new());
        Self { bytes_max, bytes: 0, turn: 0, queue, entries_max, turns }
    }

    /// Remembers that `key`, of so many bytes, left.
    pub(super) fn remember<K: Hash>(&mut self, key: &K, bytes: u64) {
        let fingerprint = fingerprint(key);
        self.turn += 1;
        self.turns.insert(fingerprint, self.turn);
        self.queue.push_back(Left { fingerprint, bytes });
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > self.bytes_max || self.queue.len() > self.entries_max {
            let turn = self.oldest_turn();
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            if self.turns.get(&oldest.fingerprint) == Some(&turn) {
                self.turns.remove(&oldest.fingerprint);
            }
        }
    }

    /// The bytes of `key` if it left not long ago; it is forgotten thereby.
    pub(super) fn recall<K: Hash>(&mut self, key: &K) -> Option<u64> {
        let turn = self.turns.remove(&fingerprint(key))?;
        let at = usize::try_from(turn.checked_sub(self.oldest_turn())?).ok()?;
        self.queue.get(at).map(|left| left.bytes)
    }

    fn oldest_turn(&self) -> u64 {
        self.turn + 1 - self.queue.len() as u64
    }
}

/// What a larger cache would still have: whoever left, until as many bytes left after it as that
/// cache has more. Feeds the ghost-hit counters; decides nothing.
#[derive(Debug)]
pub struct Departed(Ghost);

impl Departed {
    /// For a cache that is `bytes` larger, and has room for so many entries more.
    pub fn new(bytes: u64, entries: usize) -> Self {
        Self(Ghost::bounded(bytes, entries))
    }

    /// `key`, of so many bytes, left as a victim.
    pub fn remember<K: Hash>(&mut self, key: &K, bytes: u64) {
        self.0.remember(key, bytes);
    }

    /// The bytes of `key` if the larger cache would have it; asked again, it is forgotten.
    pub fn recall<K: Hash>(&mut self, key: &K) -> Option<u64> {
        self.0.recall(key)
    }
}

fn fingerprint<K: Hash>(key: &K) -> u64 {
    // Fixed keys: decisions must repeat. Object keys are hashes under the cluster's secret already.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_beyond_its_bytes() {
        let mut ghost = Ghost::new(10);
        ghost.remember(&1, 6);
        ghost.remember(&2, 6);
        assert_eq!(ghost.recall(&1), None);
        assert_eq!(ghost.recall(&2), Some(6));
        assert_eq!(ghost.recall(&2), None, "recalled once");
    }

    #[test]
    fn a_tombstone_does_not_forget_a_later_departure() {
        let mut ghost = Ghost::new(10);
        ghost.remember(&1, 4);
        assert_eq!(ghost.recall(&1), Some(4));
        ghost.remember(&1, 4);
        ghost.remember(&2, 4);
        assert_eq!(ghost.recall(&1), Some(4), "its second departure still stands");
    }

    #[test]
    fn is_bounded_in_number_for_things_of_no_size() {
        let mut ghost = Ghost::new(10);
        for key in 0..=GHOST_ENTRIES_MAX {
            ghost.remember(&key, 0);
        }
        assert_eq!(ghost.queue.len(), GHOST_ENTRIES_MAX);
        assert_eq!(ghost.turns.len(), GHOST_ENTRIES_MAX);
        assert_eq!(ghost.recall(&0usize), None);
    }
}
