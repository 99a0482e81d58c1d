//! Seeds that must hold, bugs that must be found, and the proof that a seed is a history.

use super::many::{describe, run_many, say, shrink};
use super::plan::Plan;
use super::planted::ALL;
use super::run::run;

/// Seeds in CI, and in a quick run by hand.
const SEEDS_CI: u64 = 300;
const SEEDS_QUICK: u64 = 12;
/// A planted bug must show within so many seeds.
const PLANTED_SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

#[test]
fn seeds_hold() {
    if let Some(seed) = number("SHOAL_SIM_SEED") {
        return replay(seed);
    }
    let quick = if std::env::var_os("CI").is_some() { SEEDS_CI } else { SEEDS_QUICK };
    let asked = number("SHOAL_SIM_SEEDS");
    let range = (number("SHOAL_SIM_FROM").unwrap_or(1), asked.unwrap_or(quick));
    let summary = run_many(range, threads(), None, asked.is_some());
    let text = summary.text();
    say(&text);
    assert!(summary.failures.is_empty(), "{text}");
    assert_eq!(summary.seeds, range.1);
    let happened: u64 = summary.faults.values().sum();
    assert!(happened * 2 >= summary.planned, "the run never reached its faults:\n{text}");
    assert!(range.1 < 100 || summary.faults.len() > 12, "some faults never happened:\n{text}");
}

/// One seed, event by event; when it fails, also with as few faults as still break it.
fn replay(seed: u64) {
    let plan = Plan::of(seed);
    say(&format!("{plan:#?}"));
    let outcome = run(plan.clone(), None, true);
    if outcome.violations.is_empty() {
        return;
    }
    let smallest = shrink(&plan, None);
    panic!("{}\nenough for it: {:#?}", describe(&outcome), smallest.faults);
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [3, 8] {
        let here = run(Plan::of(seed), None, false);
        let there = std::thread::spawn(move || run(Plan::of(seed), None, false)).join().unwrap();
        assert!(here.events > 500, "{}", here.events);
        assert_eq!((&here.digest, here.events), (&there.digest, there.events));
        assert_ne!(here.digest, run(Plan::of(seed + 1), None, false).digest);
    }
}

/// Every planted bug shows within [`PLANTED_SEEDS`] seeds, and as what it is.
#[test]
fn planted_bugs_are_found() {
    let wanted = std::env::var("SHOAL_SIM_PLANTED").ok();
    let mut missed = Vec::new();
    for (planted, invariants) in ALL {
        let name = format!("{planted:?}");
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        let summary = run_many((1, PLANTED_SEEDS), threads(), Some(planted), false);
        let Some(first) = summary.failures.first() else {
            missed.push(format!("{name}: not found in {} seeds", summary.seeds));
            continue;
        };
        let found = first.violations.first().map_or("", |violation| violation.invariant);
        say(&format!("{name}: seed {}, after {} seeds: {found}", first.seed, summary.seeds));
        if !invariants.contains(&found) {
            missed.push(format!("{name}: found as {found:?}\n{}", describe(first)));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
