//! Leases by script, and by chance.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LEASE_MS: u64 = 10_000;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn key(n: u8) -> ObjectKey {
    ObjectKey::new([n; 32])
}

fn ask(node: NodeId) -> Ask {
    Ask { key: key(1), node, stale: None, suspect: None, failed: Vec::new(), since: 0 }
}

fn suspecting(node: NodeId, filler: NodeId, lease: u64) -> Ask {
    Ask { suspect: Some((filler, LeaseId(lease))), ..ask(node) }
}

fn grant(id: u64) -> (bool, Grant) {
    (false, Grant { id: LeaseId(id), fence_position: id })
}

fn up(_: &Lease) -> Filler {
    Filler::Up
}

fn gone(_: &Lease) -> Filler {
    Filler::Gone
}

fn filled(answer: Answer) -> u64 {
    match answer {
        Answer::Fill(lease) => lease.id.0,
        other => panic!("expected a lease, got {other:?}"),
    }
}

fn followed(answer: Answer) -> u64 {
    match answer {
        Answer::Follow(lease) => lease.id.0,
        other => panic!("expected to follow, got {other:?}"),
    }
}

#[test]
fn the_first_fills_and_the_others_follow() {
    let mut home = Home::new(LEASE_MS);
    assert_eq!(filled(home.acquire(0, &ask(A), grant(1), up)), 1);
    assert_eq!(followed(home.acquire(10, &ask(B), grant(2), up)), 1);
    assert_eq!(filled(home.acquire(20, &ask(A), grant(3), up)), 1, "the same lease again");
    assert_eq!(home.acquire(30, &ask(B), (true, grant(4).1), up), Answer::Have);
    assert_eq!(home.len(), 1);
}

#[test]
fn a_lease_runs_out_unless_it_is_renewed() {
    let mut home = Home::new(LEASE_MS);
    home.acquire(0, &ask(A), grant(1), up);
    assert!(home.renew(9_000, &key(1), LeaseId(1), A));
    assert_eq!(followed(home.acquire(18_999, &ask(B), grant(2), up)), 1);
    assert_eq!(filled(home.acquire(19_000, &ask(B), grant(3), up)), 3);
    assert!(!home.renew(19_001, &key(1), LeaseId(1), A), "it is B's by now");
}

#[test]
fn a_suspected_filler_is_probed_and_replaced_only_when_it_is_gone() {
    let mut home = Home::new(LEASE_MS);
    home.acquire(0, &ask(A), grant(1), up);
    let probed = home.acquire(10, &suspecting(B, A, 1), grant(2), up);
    assert!(matches!(probed, Answer::Probe(lease) if lease.node == A));
    assert_eq!(followed(home.acquire(20, &suspecting(B, A, 9), grant(3), gone)), 1, "old news");
    assert_eq!(followed(home.acquire(20, &ask(B), grant(3), gone)), 1, "nobody complained");
    let taken = home.acquire(30, &suspecting(B, A, 1), grant(4), gone);
    assert!(matches!(taken, Answer::Fill(lease) if lease.fence_position == Some(1)));
    assert_eq!(followed(home.acquire(40, &suspecting(C, A, 1), grant(5), gone)), 4);
}

#[test]
fn a_filler_that_nobody_knows_is_replaced_at_once() {
    let mut home = Home::new(LEASE_MS);
    home.acquire(0, &ask(A), grant(1), up);
    assert_eq!(filled(home.acquire(1, &ask(B), grant(2), |_| Filler::Unknown)), 2);
}

#[test]
fn the_second_home_knows_who_fills() {
    let mut second = Home::new(LEASE_MS);
    assert!(second.shadow(0, key(1), (LeaseId(7), None), A));
    assert_eq!(followed(second.acquire(1, &ask(B), grant(2), up)), 7);
    assert!(!second.shadow(2, key(1), (LeaseId(8), None), C), "one lease a key");
    assert!(second.shadow(9_000, key(1), (LeaseId(7), None), A), "renewed");
    assert_eq!(followed(second.acquire(18_000, &ask(B), grant(3), up)), 7);
    let taken = second.acquire(18_001, &suspecting(B, A, 7), grant(4), gone);
    assert!(matches!(taken, Answer::Fill(lease) if lease.fence_position == Some(4)));
    second.end(&key(1), LeaseId(7), A);
    assert_eq!(followed(second.acquire(18_002, &ask(C), grant(5), up)), 4, "the end is of another");
}

#[test]
fn a_publish_ends_the_lease_and_holds_off_time() {
    let mut home = Home::new(LEASE_MS);
    home.acquire(0, &ask(A), grant(1), up);
    home.publish_begun(9_000, (key(1), LeaseId(1)), A, 10_000);
    let late = home.acquire(15_000, &suspecting(B, A, 1), grant(2), gone);
    assert_eq!(followed(late), 1, "its publish is on the way");
    home.publish_ended(16_000, (key(1), LeaseId(1)), A, false);
    assert_eq!(followed(home.acquire(25_999, &ask(B), grant(3), up)), 1);
    home.publish_ended(25_999, (key(1), LeaseId(1)), A, true);
    assert_eq!(home.len(), 0);
}

#[test]
fn what_cannot_be_stored_is_passed_for_a_while() {
    let mut home = Home::new(LEASE_MS);
    home.acquire(0, &ask(A), grant(1), up);
    home.release(10, (key(1), LeaseId(1)), A, 5_000);
    assert_eq!(home.acquire(20, &ask(B), grant(2), up), Answer::Pass);
    assert_eq!(home.acquire(20, &ask(B), (true, grant(2).1), up), Answer::Have);
    assert_eq!(filled(home.acquire(5_010, &ask(B), grant(3), up)), 3);
    home.release(5_020, (key(1), LeaseId(1)), A, 60_000);
    assert_eq!(followed(home.acquire(5_030, &ask(C), grant(4), up)), 3, "not A's to release");
}

#[test]
fn the_table_is_bounded_and_swept() {
    let mut home = Home::new(LEASE_MS);
    for n in 0..LEASES_MAX as u64 {
        let key = ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes());
        assert!(home.shadow(0, key, (LeaseId(n + 1), None), A));
    }
    assert_eq!(home.acquire(1, &ask(B), grant(9), up), Answer::Pass);
    home.sweep(LEASE_MS);
    assert_eq!(home.len(), 0);
    assert_eq!(filled(home.acquire(LEASE_MS, &ask(B), grant(9), up)), 9);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire { node: u64, k: u8, suspects: bool, filler: Filler },
    Renew { node: u64, k: u8 },
    Shadow { node: u64, k: u8 },
    Release { node: u64, k: u8 },
    Publish { node: u64, k: u8, done: bool },
    Sweep,
}

fn any_step() -> impl Strategy<Value = Step> {
    let (node, k) = (1u64..5, 0u8..3);
    let filler = prop_oneof![Just(Filler::Up), Just(Filler::Gone), Just(Filler::Unknown)];
    prop_oneof![
        4 => (node.clone(), k.clone(), any::<bool>(), filler)
            .prop_map(|(node, k, suspects, filler)| Step::Acquire { node, k, suspects, filler }),
        1 => (node.clone(), k.clone()).prop_map(|(node, k)| Step::Renew { node, k }),
        1 => (node.clone(), k.clone()).prop_map(|(node, k)| Step::Shadow { node, k }),
        1 => (node.clone(), k.clone()).prop_map(|(node, k)| Step::Release { node, k }),
        1 => (node, k, any::<bool>())
            .prop_map(|(node, k, done)| Step::Publish { node, k, done }),
        1 => Just(Step::Sweep),
    ]
}

/// What the fillers themselves believe: each lease they were given, until when it surely lives.
type Believed = HashMap<u8, (u64, u64, u64)>;

proptest! {
    #[test]
    fn never_two_live_leases_for_a_key(
        steps in prop::collection::vec((0u64..4_000, any_step()), 1..200),
    ) {
        let mut home = Home::new(LEASE_MS);
        let mut believed = Believed::new();
        let mut now = 0;
        for (n, (pause, step)) in steps.into_iter().enumerate() {
            now += pause;
            let next = n as u64 + 1;
            let lease_of = |believed: &Believed, k: u8, node: u64| {
                believed.get(&k).filter(|(_, holder, _)| *holder == node).map_or(0, |b| b.0)
            };
            match step {
                Step::Acquire { node, k, suspects, filler } => {
                    let held = believed.get(&k).copied().filter(|(.., until)| now < *until);
                    let suspect = held.filter(|_| suspects);
                    let suspect = suspect.map(|(id, node, _)| (NodeId(node), LeaseId(id)));
                    let ask = Ask { key: key(k), node: NodeId(node), suspect, ..ask(A) };
                    match home.acquire(now, &ask, grant(next), |_| filler) {
                        Answer::Fill(lease) => {
                            let lost = filler == Filler::Unknown
                                || (filler == Filler::Gone && suspect.is_some());
                            let others = held.is_some_and(|(_, holder, _)| holder != node);
                            prop_assert!(!others || lost, "two live leases at {}", now);
                            believed.insert(k, (lease.id.0, node, now + LEASE_MS));
                        }
                        Answer::Follow(lease) | Answer::Probe(lease) => {
                            prop_assert_ne!(lease.node, NodeId(node));
                        }
                        Answer::Have | Answer::Pass => {}
                    }
                }
                Step::Renew { node, k } => {
                    let id = lease_of(&believed, k, node);
                    if home.renew(now, &key(k), LeaseId(id), NodeId(node)) {
                        believed.insert(k, (id, node, now + LEASE_MS));
                    }
                }
                Step::Shadow { node, k } => {
                    let held = believed.get(&k).copied().filter(|(.., until)| now < *until);
                    let known = held.filter(|(_, holder, _)| *holder == node);
                    let id = known.map_or(next, |(id, ..)| id);
                    if home.shadow(now, key(k), (LeaseId(id), None), NodeId(node)) {
                        prop_assert!(held.is_none_or(|(_, holder, _)| holder == node));
                        believed.insert(k, (id, node, now + LEASE_MS));
                    }
                }
                Step::Release { node, k } => {
                    let id = lease_of(&believed, k, node);
                    home.release(now, (key(k), LeaseId(id)), NodeId(node), 0);
                    believed.retain(|at, (_, holder, _)| *at != k || *holder != node);
                }
                Step::Publish { node, k, done } => {
                    let id = lease_of(&believed, k, node);
                    home.publish_begun(now, (key(k), LeaseId(id)), NodeId(node), 1_000);
                    home.publish_ended(now, (key(k), LeaseId(id)), NodeId(node), done);
                    if done {
                        believed.retain(|at, (_, holder, _)| *at != k || *holder != node);
                    }
                }
                Step::Sweep => home.sweep(now),
            }
        }
    }
}

#[test]
fn a_fill_of_before_a_purge_is_nobodys_any_more() {
    let mut home = Home::new(LEASE_MS);
    let since = |node, since| Ask { since, ..ask(node) };
    assert_eq!(filled(home.acquire(0, &ask(A), grant(5), up)), 5);
    assert_eq!(followed(home.acquire(0, &since(B, 5), grant(6), up)), 5, "it began at 5");
    assert_eq!(filled(home.acquire(0, &since(B, 7), grant(8), up)), 8);
    assert_eq!(followed(home.acquire(0, &since(A, 7), grant(9), up)), 8, "the second one will do");
    assert!(!home.renew(1, &key(1), LeaseId(5), A));
    // The same node may have begun too early, too.
    assert_eq!(filled(home.acquire(0, &since(B, 9), grant(10), up)), 10);
    // Of a shadow's beginning nothing may be known.
    let mut second = Home::new(LEASE_MS);
    assert!(second.shadow(0, key(1), (LeaseId(3), None), A));
    assert_eq!(filled(second.acquire(0, &since(B, 1), grant(4), up)), 4);
    let mut told = Home::new(LEASE_MS);
    assert!(told.shadow(0, key(1), (LeaseId(3), Some(2)), A));
    assert_eq!(followed(told.acquire(0, &since(B, 2), grant(4), up)), 3);
}
