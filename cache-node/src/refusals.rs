//! Refused callers, told once: the first refusal of a kind to a peer is worth a log line, its
//! thousandth is not. Counting every one of them is the metrics' work.
//!
//! Invariant: bounded, whatever peers do. When it is full it starts anew, so that a flood of peers
//! costs at most one line each, again and again, and never memory.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Most pairs of peer and kind that are remembered.
const PAIRS_MAX: usize = 4_096;

/// Which refusals were told already.
#[derive(Debug)]
pub struct Refusals<P, K>(Mutex<HashSet<(P, K)>>);

impl<P, K> Default for Refusals<P, K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Eq + Hash, K: Eq + Hash> Refusals<P, K> {
    /// Whether this is the first refusal of `kind` to `peer`, to be logged.
    pub fn first(&self, peer: P, kind: K) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= PAIRS_MAX {
            told.clear();
        }
        told.insert((peer, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_and_kind_is_told_once() {
        let refusals = Refusals::default();
        assert!(refusals.first("a", 1));
        assert!(!refusals.first("a", 1));
        assert!(refusals.first("a", 2));
        assert!(refusals.first("b", 1));
    }

    #[test]
    fn a_flood_of_peers_is_bounded() {
        let refusals = Refusals::default();
        for peer in 0..3 * PAIRS_MAX {
            refusals.first(peer, ());
        }
        assert!(refusals.0.lock().unwrap().len() <= PAIRS_MAX);
    }
}
