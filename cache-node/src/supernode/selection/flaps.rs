//! PURE. How often each member was lost lately, by what a super-node sees itself: members that the
//! index declares down, and processes that started anew.
//!
//! Soft: every super-node counts from its own start, over the same log, so that a new leader knows
//! about what the old one knew.

use std::collections::{BTreeMap, VecDeque};

use shoal_proto::NodeId;

/// For so long a loss counts, in milliseconds.
const MEMORY_MS: u64 = 3_600_000;
/// Losses of one member that are told apart.
const LOSSES_MAX: usize = 16;

#[derive(Debug, Default)]
struct Track {
    up: bool,
    losses: VecDeque<u64>,
}

/// The losses of all members.
#[derive(Debug, Default)]
pub struct Flaps {
    tracks: BTreeMap<NodeId, Track>,
}

impl Flaps {
    /// Takes in which members there are at `now_ms`, and which of them are up.
    pub fn update(&mut self, now_ms: u64, members: impl Iterator<Item = (NodeId, bool)>) {
        let mut before = std::mem::take(&mut self.tracks);
        for (id, up) in members {
            let mut track = before.remove(&id).unwrap_or(Track { up, losses: VecDeque::new() });
            if track.up && !up {
                track.lost(now_ms);
            }
            track.up = up;
            let over = |at: &u64| now_ms.saturating_sub(*at) >= MEMORY_MS;
            while track.losses.front().is_some_and(over) {
                track.losses.pop_front();
            }
            self.tracks.insert(id, track);
        }
    }

    /// A member's process started anew without having been declared down.
    pub fn restarted(&mut self, now_ms: u64, id: NodeId) {
        if let Some(track) = self.tracks.get_mut(&id).filter(|track| track.up) {
            track.lost(now_ms);
        }
    }

    /// How often a member was lost in the last hour.
    pub fn count(&self, id: NodeId) -> u32 {
        self.tracks.get(&id).map_or(0, |track| track.losses.len() as u32)
    }
}

impl Track {
    fn lost(&mut self, now_ms: u64) {
        if self.losses.len() >= LOSSES_MAX {
            self.losses.pop_front();
        }
        self.losses.push_back(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn losses_are_counted_for_an_hour() {
        let mut flaps = Flaps::default();
        flaps.update(0, [(A, true), (B, false)].into_iter());
        assert_eq!((flaps.count(A), flaps.count(B)), (0, 0), "it was down before");
        for (at, up) in [(10, false), (20, false), (30, true), (40, false)] {
            flaps.update(at, [(A, up), (B, true)].into_iter());
        }
        assert_eq!((flaps.count(A), flaps.count(B)), (2, 0));
        flaps.update(MEMORY_MS + 10, [(A, true), (B, true)].into_iter());
        assert_eq!(flaps.count(A), 1);
        flaps.update(MEMORY_MS + 40, [(A, true), (B, true)].into_iter());
        assert_eq!(flaps.count(A), 0);
    }

    #[test]
    fn a_restart_counts_once() {
        let mut flaps = Flaps::default();
        flaps.update(0, [(A, true)].into_iter());
        flaps.restarted(1, A);
        assert_eq!(flaps.count(A), 1);
        flaps.update(2, [(A, false)].into_iter());
        flaps.restarted(3, A);
        assert_eq!(flaps.count(A), 2, "declared down, so it is counted already");
        flaps.update(4, std::iter::empty());
        assert_eq!(flaps.count(A), 0, "no member any more");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut flaps = Flaps::default();
        for at in 0..200 {
            flaps.update(at, [(A, at % 2 == 0)].into_iter());
        }
        assert_eq!(flaps.count(A) as usize, LOSSES_MAX);
    }
}
