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
    /// Nothing: somebody who stays has it.
    Safe,
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
            self.asked.remove(key);
            return Next::Safe;
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

    /// A node was asked for a copy of `length` bytes, and takes it or not.
    pub fn asked(&mut self, now: Duration, key: ObjectKey, length: u64, taken: bool) {
        let patience_ms = match taken {
            true => PATIENCE_MS + length.saturating_mul(1_000) / SLOWEST_BYTES_S,
            false => REFUSED_MS,
        };
        let until = now + Duration::from_millis(patience_ms);
        let asked = self.asked.entry(key).or_insert(Asked { times: 0, until });
        asked.times += 1;
        asked.until = until;
    }

    /// The object is gone from this node: nothing of it is left to give.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.asked.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Member, Role};

    const KEY: ObjectKey = ObjectKey::new([7; 32]);
    const ME: NodeId = NodeId(1);

    fn view(members: &[(u64, bool, bool)]) -> ClusterView {
        let member = |(id, up, draining): &(u64, bool, bool)| Member {
            id: NodeId(*id),
            name: format!("node-{id}"),
            role: Role::Node,
            cluster_address: "127.0.0.1:7400".into(),
            edge_address: String::new(),
            admin_address: String::new(),
            zone: String::new(),
            version: "0.1.0".into(),
            up: *up,
            voter: false,
            auto: false,
            draining: *draining,
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
        assert_eq!(next(&[1, 4]), Next::Safe);
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
        hand_off.asked(start, KEY, SLOWEST_BYTES_S, true);
        assert_eq!(hand_off.next(after(3_999), (&KEY, &[]), (ME, &cluster)), Next::Wait);
        let Next::Ask(second) = hand_off.next(after(4_000), (&KEY, &[]), (ME, &cluster)) else {
            panic!()
        };
        assert_ne!(first, second);
        hand_off.asked(after(4_000), KEY, 1, false);
        assert_eq!(hand_off.next(after(4_100), (&KEY, &[]), (ME, &cluster)), Next::Wait);
        assert_eq!(hand_off.next(after(4_500), (&KEY, &[]), (ME, &cluster)), Next::Ask(first));
    }

    #[test]
    fn alone_there_is_nobody_to_give_to() {
        let mut hand_off = HandOff::default();
        let alone = view(&[(1, true, true), (2, true, true)]);
        assert_eq!(hand_off.next(Duration::ZERO, (&KEY, &[ME]), (ME, &alone)), Next::Nobody);
    }
}
