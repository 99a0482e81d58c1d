//! Every rule once by name, then random clusters, requests and crashes.

use proptest::prelude::*;

use super::*;

fn ids<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
    ids.map(NodeId).into()
}

/// Three voters led by 1, learner 4, and 5 which is held back; all are up and caught up.
fn tier() -> (Configuration, Facts) {
    let now = Configuration::uniform(ids([1, 2, 3]), [(NodeId(4), false), (NodeId(5), true)]);
    let facts = Facts {
        leader: NodeId(1),
        up: ids([1, 2, 3, 4, 5]),
        lag: (1..=5).map(|id| (NodeId(id), id)).collect(),
        retired: ids([9]),
        position: 40,
        in_flight: false,
    };
    (now, facts)
}

fn ask(change: Change) -> Result<Step, Refusal> {
    let (now, facts) = tier();
    plan(&now, &facts, change, None)
}

fn goes(change: Change) -> Configuration {
    match ask(change) {
        Ok(Step::Go(target)) => target,
        other => panic!("{change:?}: {other:?}"),
    }
}

#[test]
fn each_change_goes_where_it_should() {
    let four = NodeId(4);
    let target = goes(Change::Add(NodeId(6)));
    assert_eq!(target.learners.get(&NodeId(6)), Some(&false));
    assert_eq!(goes(Change::Promote(four)).voters, [ids([1, 2, 3, 4])]);
    // Being promoted ends being held back.
    let target = goes(Change::Promote(NodeId(5)));
    assert_eq!((target.voters, target.learners), (vec![ids([1, 2, 3, 5])], [(four, false)].into()));
    let target = goes(Change::Demote(NodeId(2)));
    assert_eq!(target.voters, [ids([1, 3])]);
    assert_eq!(target.learners.get(&NodeId(2)), Some(&true));
    assert_eq!(goes(Change::Demote(four)).learners.get(&four), Some(&true));
    let target = goes(Change::Remove(NodeId(2)));
    assert_eq!(target.voters, [ids([1, 3])]);
    assert!(!target.learners.contains_key(&NodeId(2)));
    assert!(!goes(Change::Remove(four)).learners.contains_key(&four));
    let target = goes(Change::Replace { old: NodeId(3), new: four });
    assert_eq!(
        (target.voters, target.learners),
        (vec![ids([1, 2, 4])], [(NodeId(5), true)].into())
    );
    assert_eq!(ask(Change::Transfer(NodeId(2))), Ok(Step::Transfer(NodeId(2))));
}

#[test]
fn what_is_so_already_is_nothing() {
    let changes = [
        Change::Add(NodeId(2)),
        Change::Add(NodeId(4)),
        Change::Promote(NodeId(2)),
        Change::Demote(NodeId(5)),
        Change::Transfer(NodeId(1)),
        Change::Remove(NodeId(9)),
        Change::Replace { old: NodeId(9), new: NodeId(3) },
    ];
    let (now, facts) = tier();
    let earlier = Mark::default();
    for change in changes {
        assert_eq!(plan(&now, &facts, change, Some(earlier)), Ok(Step::Nothing), "{change:?}");
    }
}

#[test]
fn who_leads_hands_that_on_first() {
    let one = NodeId(1);
    let leaving =
        [Change::Remove(one), Change::Demote(one), Change::Replace { old: one, new: NodeId(4) }];
    for change in leaving {
        // 2 is nearer to the leader's log than 3.
        assert_eq!(ask(change), Ok(Step::Transfer(NodeId(2))), "{change:?}");
    }
}

#[test]
fn each_rule_refuses() {
    let refused = [
        (Change::Add(NodeId(9)), Refusal::Retired(NodeId(9))),
        (Change::Promote(NodeId(9)), Refusal::Retired(NodeId(9))),
        (Change::Demote(NodeId(9)), Refusal::Retired(NodeId(9))),
        (Change::Promote(NodeId(7)), Refusal::Unknown(NodeId(7))),
        (Change::Remove(NodeId(7)), Refusal::Unknown(NodeId(7))),
        (Change::Demote(NodeId(7)), Refusal::Unknown(NodeId(7))),
        (Change::Transfer(NodeId(4)), Refusal::NoVoter(NodeId(4))),
        (Change::Transfer(NodeId(7)), Refusal::Unknown(NodeId(7))),
        (Change::Replace { old: NodeId(4), new: NodeId(5) }, Refusal::NoVoter(NodeId(4))),
        (Change::Replace { old: NodeId(2), new: NodeId(3) }, Refusal::Voter(NodeId(3))),
        (Change::Replace { old: NodeId(2), new: NodeId(7) }, Refusal::Unknown(NodeId(7))),
    ];
    for (change, refusal) in refused {
        assert_eq!(ask(change), Err(refusal), "{change:?}");
    }
    let (now, mut facts) = tier();
    facts.lag.insert(NodeId(4), CAUGHT_UP_ENTRIES + 1);
    facts.lag.remove(&NodeId(5));
    for (id, entries) in [(NodeId(4), CAUGHT_UP_ENTRIES + 1), (NodeId(5), u64::MAX)] {
        let behind = Refusal::Behind { id, entries };
        assert_eq!(plan(&now, &facts, Change::Promote(id), None), Err(behind.clone()));
        assert!(behind.to_string().contains(&CAUGHT_UP_ENTRIES.to_string()), "{behind}");
        let replace = Change::Replace { old: NodeId(2), new: id };
        assert_eq!(plan(&now, &facts, replace, None), Err(behind));
    }
    facts.up.remove(&NodeId(4));
    let promote = plan(&now, &facts, Change::Promote(NodeId(4)), None);
    assert_eq!(promote, Err(Refusal::Down(NodeId(4))));
}

#[test]
fn a_quorum_of_the_living_is_kept() {
    let (now, mut facts) = tier();
    facts.up.remove(&NodeId(3));
    // Two live voters of three: without one of them there would be one of two.
    let refused = plan(&now, &facts, Change::Remove(NodeId(2)), None);
    assert_eq!(refused, Err(Refusal::NoQuorum { alive: 1, voters: 2 }));
    let refused = plan(&now, &facts, Change::Demote(NodeId(1)), None);
    assert_eq!(
        refused,
        Err(Refusal::NoQuorum { alive: 1, voters: 2 }),
        "not even after a transfer"
    );
    // The dead one can be taken out, and replaced by one joint change.
    for change in [Change::Remove(NodeId(3)), Change::Replace { old: NodeId(3), new: NodeId(4) }] {
        assert!(matches!(plan(&now, &facts, change, None), Ok(Step::Go(_))), "{change:?}");
    }
    facts.up.remove(&NodeId(2));
    let refused = plan(&now, &facts, Change::Replace { old: NodeId(3), new: NodeId(4) }, None);
    assert_eq!(refused, Err(Refusal::NoQuorum { alive: 1, voters: 3 }));
    let alone = Configuration::uniform(ids([1]), []);
    let last = plan(&alone, &facts, Change::Remove(NodeId(1)), None);
    assert_eq!(last, Err(Refusal::LastVoter(NodeId(1))));
}

#[test]
fn one_change_at_a_time_on_the_membership_that_was_seen() {
    let (now, mut facts) = tier();
    let seen = mark(&now, &facts);
    let change = Change::Remove(NodeId(2));
    assert!(plan(&now, &facts, change, Some(seen)).is_ok());
    let older = Mark { position: 39, ..seen };
    let stale = Refusal::Stale { expected: older, now: seen };
    assert_eq!(plan(&now, &facts, change, Some(older)), Err(stale.clone()));
    assert!(stale.to_string().contains(&seen.to_string()), "{stale}");
    facts.in_flight = true;
    assert_eq!(plan(&now, &facts, change, Some(seen)), Err(Refusal::InFlight));
    facts.in_flight = false;
    let joint = now.joint(&goes(change));
    assert_eq!(plan(&joint, &facts, change, None), Err(Refusal::InFlight));
}

#[test]
fn an_unfinished_joint_change_ends_as_it_was_meant() {
    let (now, _) = tier();
    for change in [Change::Remove(NodeId(2)), Change::Demote(NodeId(2))] {
        let target = goes(change);
        // In the log, a voter that is to be held back is marked so from the joint entry on.
        let held = |id| target.learners.get(&id).copied().unwrap_or_default();
        let mut joint = now.joint(&target);
        joint.learners.retain(|id, _| !joint.voters.iter().any(|set| set.contains(id)));
        assert_eq!(finish(&joint, held), Some(target.clone()), "{change:?}");
    }
    assert_eq!(finish(&now, |_| true), None);
}

#[test]
fn marks_round_trip_and_tell_memberships_apart() {
    let mark = Mark { position: 412, hash: 0x9f3a_01bc };
    assert_eq!(mark.to_string(), "412/9f3a01bc");
    assert_eq!("412/9f3a01bc".parse(), Ok(mark));
    for wrong in ["", "412", "412/", "412/9f3a01bcd", "x/9f3a01bc", "412/9f3a01bg"] {
        assert!(wrong.parse::<Mark>().unwrap_err().contains("POSITION/HASH"), "{wrong}");
    }
    let changes = [
        Change::Promote(NodeId(4)),
        Change::Demote(NodeId(4)),
        Change::Remove(NodeId(4)),
        Change::Demote(NodeId(2)),
        Change::Remove(NodeId(2)),
    ];
    let hashes = changes.map(|change| goes(change).hash()).into_iter().chain([tier().0.hash()]);
    assert_eq!(hashes.collect::<BTreeSet<_>>().len(), 6);
}

/// One move of a random history.
#[derive(Clone, Copy, Debug)]
enum Move {
    Ask(Change),
    Crash(NodeId),
    Start(NodeId),
    CatchUp(NodeId),
    Elect(NodeId),
}

fn moves() -> impl Strategy<Value = Move> {
    let id = || (1..=8u64).prop_map(NodeId);
    prop_oneof![
        id().prop_map(|id| Move::Ask(Change::Add(id))),
        id().prop_map(|id| Move::Ask(Change::Promote(id))),
        id().prop_map(|id| Move::Ask(Change::Demote(id))),
        id().prop_map(|id| Move::Ask(Change::Remove(id))),
        (id(), id()).prop_map(|(old, new)| Move::Ask(Change::Replace { old, new })),
        id().prop_map(|id| Move::Ask(Change::Transfer(id))),
        id().prop_map(Move::Crash),
        id().prop_map(Move::Start),
        id().prop_map(Move::CatchUp),
        id().prop_map(Move::Elect),
    ]
}

fn all_voters(config: &Configuration) -> BTreeSet<NodeId> {
    config.voters.iter().flatten().copied().collect()
}

/// What must hold of every step that is planned.
fn check_step(now: &Configuration, facts: &Facts, change: Change, step: &Step) {
    let old = now.settled().unwrap();
    match step {
        Step::Nothing => {}
        Step::Transfer(to) => {
            assert!(old.contains(to) && facts.up.contains(to) && *to != facts.leader);
        }
        Step::Go(target) => {
            let new = target.settled().unwrap();
            let joint = now.joint(target);
            assert!(now.has_quorum(&facts.up), "{change:?} could not be committed");
            assert!(joint.has_quorum(&facts.up), "{change:?} loses the quorum on the way");
            assert!(target.has_quorum(&facts.up), "{change:?} loses the quorum");
            assert!(joint.voters.len() <= 2 && new.contains(&facts.leader));
            assert!(new.difference(old).count() <= 1 && old.difference(new).count() <= 1);
            for come in new.difference(old) {
                assert!(now.learners.contains_key(come), "{come} votes without the log");
                assert!(facts.lag[come] <= CAUGHT_UP_ENTRIES && facts.up.contains(come));
            }
            let members = all_voters(target).into_iter().chain(target.learners.keys().copied());
            for id in members {
                assert!(!facts.retired.contains(&id), "{id} was taken back");
            }
            assert!(new.iter().all(|id| !target.learners.contains_key(id)));
            assert!(new.len() <= VOTERS_MAX && target.learners.len() <= LEARNERS_MAX);
        }
    }
}

/// A random history from a tier of one; the steps that were made.
fn run(history: &[Move]) -> usize {
    let mut now = Configuration::uniform(ids([1]), []);
    let mut facts =
        Facts { leader: NodeId(1), up: ids([1]), lag: [(NodeId(1), 0)].into(), ..Facts::default() };
    let mut made = 0;
    for each in history {
        match *each {
            Move::Crash(id) if id != facts.leader => drop(facts.up.remove(&id)),
            Move::Start(id) => drop(facts.up.insert(id)),
            Move::CatchUp(id) if facts.up.contains(&id) => drop(facts.lag.insert(id, 0)),
            Move::Elect(id) if facts.up.contains(&id) && all_voters(&now).contains(&id) => {
                facts.leader = id;
            }
            Move::Crash(_) | Move::CatchUp(_) | Move::Elect(_) => {}
            Move::Ask(change) => {
                let Ok(step) = plan(&now, &facts, change, Some(mark(&now, &facts))) else {
                    continue;
                };
                check_step(&now, &facts, change, &step);
                match step {
                    Step::Nothing => {}
                    Step::Transfer(to) => facts.leader = to,
                    Step::Go(target) => {
                        // While it is joint nothing else is planned.
                        let joint = now.joint(&target);
                        if joint.voters.len() > 1 {
                            let other = plan(&joint, &facts, Change::Add(NodeId(99)), None);
                            assert_eq!(other, Err(Refusal::InFlight));
                        }
                        let before = all_voters(&now).into_iter().chain(now.learners.into_keys());
                        let stays = |id: &NodeId| {
                            target.learners.contains_key(id) || all_voters(&target).contains(id)
                        };
                        facts.retired.extend(before.filter(|id| !stays(id)));
                        now = target;
                        facts.position += 1;
                        made += 1;
                    }
                }
            }
        }
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_step_of_any_history_breaks_a_rule(history in prop::collection::vec(moves(), 1..200)) {
        run(&history);
    }
}

#[test]
fn histories_do_get_somewhere() {
    let grow = |id| {
        let id = NodeId(id);
        let asks = [Change::Add(id), Change::Promote(id)].map(Move::Ask);
        [Move::Start(id), asks[0], Move::CatchUp(id), asks[1]]
    };
    let mut history: Vec<Move> = [2, 3, 4].into_iter().flat_map(grow).collect();
    history.push(Move::Crash(NodeId(3)));
    history.extend(grow(5).into_iter().take(3));
    history.push(Move::Ask(Change::Replace { old: NodeId(3), new: NodeId(5) }));
    history.extend([Move::Start(NodeId(3)), Move::Ask(Change::Add(NodeId(3)))]);
    history.extend([Move::Ask(Change::Remove(NodeId(1))), Move::Ask(Change::Remove(NodeId(1)))]);
    assert_eq!(run(&history), 9);
}
