//! PURE. What a node that is about to leave has still to give away, and to whom.
//!
//! `now` is the time since some moment, the same for all calls.
//!
//! Invariant: an object counts as safe only when the index names a node that has all of it, is up,
//! and stays. Nodes that leave at the same time do not count on one another.

use std::collections::HashMap;
use std::time::Duration;

use shoal_proto::{NodeId, ObjectKey};

use super::ClusterView;
use super::placement::rank;

/// For a copy to be there, however small the object.
const PATIENCE_MS: u64 = 3_000;
/// The slowest copy that is waited for, in bytes a second.
const SLOWEST_BYTES_S: u64 = 256 * 1024;
/// Before somebody who would not take a copy is asked again, when all others were asked too.
const REFUSED_MS: u64 = 500;

/// What is to be done about one object now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: somebody who stays has it, for whom so many bytes were given away, if any.
    Safe {
        /// What a node that was asked took.
        given_bytes: Option<u64>,
    },
    /// Ask that node to take a copy.
    Ask(NodeId),
    /// A copy is under way.
    Wait,
    /// Nobody is there to take it.
    Nobody,
}

/// Who was asked for what.
#[derive(Debug, Default)]
pub struct HandOff {
    asked: HashMap<ObjectKey, Asked>,
}

#[derive(Debug)]
struct Asked {
    times: usize,
    /// As `now`.
    until: Duration,
    /// What the last one took.
    taken_bytes: Option<u64>,
}

impl HandOff {
    /// What to do about an object of `me` that `holders` have too.
    pub fn next(
        &mut self,
        now: Duration,
        (key, holders): (&ObjectKey, &[NodeId]),
        (me, view): (NodeId, &ClusterView),
    ) -> Next {
        let others = || view.nodes_staying().map(|member| member.id).filter(|id| *id != me);
        if others().any(|id| holders.contains(&id)) {
            let asked = self.asked.remove(key);
            return Next::Safe { given_bytes: asked.and_then(|asked| asked.taken_bytes) };
        }
        let times = match self.asked.get(key) {
            Some(asked) if now < asked.until => return Next::Wait,
            Some(asked) => asked.times,
            None => 0,
        };
        let ranked = rank(key, others());
        match ranked.len() {
            0 => Next::Nobody,
            count => Next::Ask(ranked[times % count]),
        }
    }

    /// A node was asked to take a copy: of so many bytes, or it would not.
    pub fn asked(&mut self, now: Duration, key: ObjectKey, taken_bytes: Option<u64>) {
        let patience_ms = match taken_bytes {
            Some(bytes) => PATIENCE_MS + bytes.saturating_mul(1_000) / SLOWEST_BYTES_S,
            None => REFUSED_MS,
        };
        let until = now + Duration::from_millis(patience_ms);
        let times = self.asked.get(&key).map_or(0, |before| before.times) + 1;
        self.asked.insert(key, Asked { times, until, taken_bytes });
    }

    /// The object is gone from this node: nothing of it is left to give.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.asked.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    const KEY: ObjectKey = ObjectKey::new([7; 32]);
    const ME: NodeId = NodeId(1);

    fn view(members: &[(u64, bool, bool)]) -> ClusterView {
        let member = |(id, up, draining): &(u64, bool, bool)| Member {
            up: *up,
            draining: *draining,
            ..Member::node(NodeId(*id), format!("node-{id}"))
        };
        ClusterView { members: members.iter().map(member).collect(), ..Default::default() }
    }

    #[test]
    fn only_a_copy_of_somebody_who_stays_is_safe() {
        let (now, mut hand_off) = (Duration::ZERO, HandOff::default());
        let cluster =
            view(&[(1, true, true), (2, true, true), (3, false, false), (4, true, false)]);
        let mut next = |holders: &[u64]| {
            let holders: Vec<_> = holders.iter().copied().map(NodeId).collect();
            hand_off.next(now, (&KEY, &holders), (ME, &cluster))
        };
        assert_eq!(next(&[1, 4]), Next::Safe { given_bytes: None });
        assert_eq!(next(&[1]), Next::Ask(NodeId(4)), "its own copy leaves with it");
        assert_eq!(next(&[1, 2]), Next::Ask(NodeId(4)), "the other leaves too");
        assert_eq!(next(&[1, 3]), Next::Ask(NodeId(4)), "the other is down");
    }

    #[test]
    fn a_copy_has_its_time_and_then_the_next_node_is_asked() {
        let (start, mut hand_off) = (Duration::from_secs(9), HandOff::default());
        let cluster = view(&[(1, true, true), (2, true, false), (3, true, false)]);
        let after = |ms| start + Duration::from_millis(ms);
        let Next::Ask(first) = hand_off.next(start, (&KEY, &[]), (ME, &cluster)) else { panic!() };
        hand_off.asked(start, KEY, Some(SLOWEST_BYTES_S));
        assert_eq!(hand_off.next(after(3_999), (&KEY, &[]), (ME, &cluster)), Next::Wait);
        let Next::Ask(second) = hand_off.next(after(4_000), (&KEY, &[]), (ME, &cluster)) else {
            panic!()
        };
        assert_ne!(first, second);
        hand_off.asked(after(4_000), KEY, None);
        assert_eq!(hand_off.next(after(4_100), (&KEY, &[]), (ME, &cluster)), Next::Wait);
        assert_eq!(hand_off.next(after(4_500), (&KEY, &[]), (ME, &cluster)), Next::Ask(first));
        hand_off.asked(after(4_500), KEY, Some(7));
        let safe = hand_off.next(after(4_600), (&KEY, &[first]), (ME, &cluster));
        assert_eq!(safe, Next::Safe { given_bytes: Some(7) });
    }

    #[test]
    fn alone_there_is_nobody_to_give_to() {
        let mut hand_off = HandOff::default();
        let alone = view(&[(1, true, true), (2, true, true)]);
        assert_eq!(hand_off.next(Duration::ZERO, (&KEY, &[ME]), (ME, &alone)), Next::Nobody);
    }
}
