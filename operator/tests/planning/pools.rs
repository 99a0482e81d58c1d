//! Pools under random sizes, versions, losses and crashes of the operator: no last copy is deleted,
//! the operator itself never takes more nodes away than it may, and it comes to an end.

use proptest::prelude::*;

use crate::nodes::Nodes;
use shoal_operator::plan::pool::{Observed, Wanted, plan};
use shoal_operator::plan::{Gate, Op, Plan};

const ROUNDS_MAX: usize = 600;

fn round(pool: &mut Nodes, wanted: &Wanted, lives_for: usize) -> Result<Plan, TestCaseError> {
    let plan = plan(&pool.observe(), wanted);
    for step in plan.ready().take(lives_for) {
        let before = pool.serving(wanted.min_ready_s);
        let done = pool.apply(step, wanted.force);
        prop_assert!(done.is_ok(), "{}", done.unwrap_err());
        let after = pool.serving(wanted.min_ready_s);
        let least = wanted.size.saturating_sub(wanted.max_unavailable);
        prop_assert!(after >= before || after >= least, "{step:?}: {after} of {least} serve");
    }
    Ok(plan)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_history_ends_as_wanted(
        surge in 0usize..3,
        unavailable in 0usize..3,
        force in any::<bool>(),
        history in prop::collection::vec((0u8..8, any::<u8>(), 0usize..5), 0..80),
    ) {
        let mut pool = Nodes::new();
        let mut wanted = Wanted {
            size: 2,
            max_surge: if unavailable == 0 { surge.max(1) } else { surge },
            max_unavailable: unavailable,
            min_ready_s: 20,
            force,
            ..Wanted::default()
        };
        for (event, which, lives_for) in history {
            match event {
                2 => wanted.size = usize::from(which) % 9,
                3 => pool.version += 1,
                4 => {
                    pool.version += 1;
                    pool.broken_version = Some(pool.version);
                }
                _ => pool.strike(event, which),
            }
            round(&mut pool, &wanted, lives_for)?;
            pool.pass();
        }
        if pool.broken_version == Some(pool.version) {
            pool.version += 1;
        }
        pool.unstick();
        // A last node has nobody to hand off to.
        wanted.size = wanted.size.max(1);
        let mut last = Plan::default();
        for _ in 0..ROUNDS_MAX {
            last = round(&mut pool, &wanted, usize::MAX)?;
            if last.is_done() && pool.is_as_wanted(wanted.size) {
                return Ok(());
            }
            pool.pass();
        }
        prop_assert!(false, "not as wanted: {last:?}\n{pool:?}");
    }
}

fn whole(size: usize) -> (Nodes, Wanted) {
    let mut pool = Nodes::new();
    let wanted = Wanted { size, max_surge: 1, ..Wanted::default() };
    for _ in 0..20 {
        round(&mut pool, &wanted, usize::MAX).unwrap();
        pool.pass();
    }
    (pool, wanted)
}

#[test]
fn a_scale_in_is_taken_back() {
    let (mut pool, mut wanted) = whole(3);
    wanted.size = 2;
    let started = round(&mut pool, &wanted, usize::MAX).unwrap();
    assert!(matches!(started.steps[0].op, Op::DrainNode { .. }), "{started:?}");
    let waits = plan(&pool.observe(), &wanted);
    assert_eq!(waits.steps[0].blocked.as_ref().map(|b| b.by), Some(Gate::HandOff), "{waits:?}");
    wanted.size = 3;
    let back = round(&mut pool, &wanted, usize::MAX).unwrap();
    assert_eq!(back.steps.len(), 1, "nobody is made instead: {back:?}");
    assert!(matches!(back.steps[0].op, Op::KeepNode { .. }), "{back:?}");
    assert!(plan(&pool.observe(), &wanted).is_done());
}

#[test]
fn a_silent_node_is_not_deleted_while_it_runs() {
    let (pool, mut wanted) = whole(3);
    wanted.size = 2;
    let Observed { now_s, mut nodes } = pool.observe();
    nodes[2].leaving = true;
    nodes[2].drain = None;
    let plan = plan(&Observed { now_s, nodes }, &wanted);
    assert_eq!(plan.ready().count(), 0, "{plan:?}");
    assert_eq!(plan.steps[0].blocked.as_ref().map(|b| b.by), Some(Gate::HandOff));
}
