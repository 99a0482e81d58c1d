//! Whatever is wanted, and whatever is lost meanwhile: the operator keeps a majority alive, deletes
//! no data that is in use, and comes to an end.

use proptest::prelude::*;

use crate::world::World;
use shoal_operator::plan::facts::Wanted;
use shoal_operator::plan::supers::plan;
use shoal_operator::plan::{Op, Plan};

const CLUSTER: &str = "default.demo";
/// Rounds of 15 seconds after which a cluster left alone must be as wanted.
const ROUNDS_MAX: usize = 400;
const SIZES: [usize; 4] = [1, 3, 5, 7];

fn membership(plan: &Plan) -> usize {
    let change = |op: &Op| {
        matches!(
            op,
            Op::Add { .. }
                | Op::Promote { .. }
                | Op::Replace { .. }
                | Op::Remove { .. }
                | Op::Transfer { .. }
        )
    };
    plan.ready().filter(|step| change(&step.op)).count()
}

/// One look, and as many of the steps as the operator lived for.
fn round(world: &mut World, wanted: &Wanted, lives_for: usize) -> Result<Plan, TestCaseError> {
    let plan = plan(&world.observe(CLUSTER), wanted);
    prop_assert!(membership(&plan) <= 1, "several changes at once: {plan:?}");
    for step in plan.ready().take(lives_for) {
        let (quorum, voters) = (world.has_quorum(), world.voters());
        let done = world.apply(step);
        prop_assert!(done.is_ok(), "{}: {}", step.op.name(), done.unwrap_err());
        let kept = !quorum || voters == 1 || world.has_quorum();
        prop_assert!(kept, "{step:?} cost the majority: {world:?}");
    }
    Ok(plan)
}

fn settles(world: &mut World, wanted: &Wanted) -> Result<(), TestCaseError> {
    let mut last = Plan::default();
    for _ in 0..ROUNDS_MAX {
        last = round(world, wanted, usize::MAX)?;
        if last.is_done() && world.is_as_wanted(wanted.size) {
            return Ok(());
        }
        world.pass();
    }
    prop_assert!(false, "not as wanted after {ROUNDS_MAX} rounds: {last:?}\n{world:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_history_ends_as_wanted(
        eager in any::<bool>(),
        history in prop::collection::vec((0u8..12, any::<u8>(), 0usize..4), 0..80),
    ) {
        let mut world = World::new(eager);
        let mut wanted = Wanted { cluster_id: CLUSTER.to_owned(), ..Wanted::default() };
        for (event, which, lives_for) in history {
            match event {
                4 => wanted.size = SIZES[usize::from(which) % SIZES.len()],
                5 => world.wanted_version += 1,
                6 => {
                    // A version that never starts.
                    world.wanted_version += 1;
                    world.broken_version = Some(world.wanted_version);
                }
                _ => world.strike(event, which),
            }
            round(&mut world, &wanted, lives_for)?;
            world.pass();
        }
        if world.broken_version == Some(world.wanted_version) {
            world.wanted_version += 1;
        }
        settles(&mut world, &wanted)?;
    }

    #[test]
    fn what_was_seen_long_ago_changes_nothing(
        history in prop::collection::vec((0u8..12, any::<u8>()), 0..30),
    ) {
        let mut world = World::new(false);
        let mut wanted = Wanted { cluster_id: CLUSTER.to_owned(), ..Wanted::default() };
        settles(&mut world, &wanted)?;
        wanted.size = 5;
        let mut old: Vec<Plan> = Vec::new();
        for (event, which) in history {
            if let Some(stale) = old.get(usize::from(which) % old.len().max(1)) {
                // An operator that slept does now what it decided then.
                for step in stale.ready().filter(|step| !step.op.target().is_empty()) {
                    let (voters, quorum) = (world.voters(), world.has_quorum());
                    let change = matches!(step.op,
                        Op::Promote { .. } | Op::Replace { .. } | Op::Remove { .. });
                    if change {
                        let done = world.apply(step);
                        prop_assert!(done.is_ok(), "{done:?}");
                        prop_assert!(world.has_quorum() || !quorum || voters == 1);
                    }
                }
            }
            if event == 4 {
                wanted.size = SIZES[usize::from(which) % SIZES.len()];
            }
            old.push(round(&mut world, &wanted, 2)?);
            world.pass();
        }
        settles(&mut world, &wanted)?;
    }
}

#[test]
fn a_paused_cluster_is_left_alone() {
    let mut world = World::new(false);
    let mut wanted = Wanted { cluster_id: CLUSTER.to_owned(), ..Wanted::default() };
    settles(&mut world, &wanted).unwrap();
    wanted.size = 5;
    let free = plan(&world.observe(CLUSTER), &wanted);
    assert_eq!(free.ready().count(), 1, "{free:?}");
    for held in [
        Wanted { paused: true, ..wanted.clone() },
        Wanted { plan_only: true, ..wanted.clone() },
        Wanted { cluster_id: "default.other".to_owned(), ..wanted.clone() },
    ] {
        let plan = plan(&world.observe(CLUSTER), &held);
        assert_eq!(plan.ready().count(), 0, "{plan:?}");
        assert!(!plan.steps.is_empty(), "what would be done is still told: {plan:?}");
    }
}
