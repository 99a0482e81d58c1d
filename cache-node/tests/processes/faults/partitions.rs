//! Lines cut between hosts, in both directions and in one, under load from everywhere.

use std::time::Duration;

use super::lab::{Spread, is_root};
use crate::common::{turn, until};

/// Longer than an election and than a session lease.
const CUT: Duration = Duration::from_secs(10);
const BEFORE_CUT: Duration = Duration::from_secs(3);
/// From before the cut to well after it.
const LOAD_S: u64 = 25;
const SETTLE_DEADLINE: Duration = Duration::from_secs(40);
const SUPERS: [&str; 3] = ["super-0", "super-1", "super-2"];

fn others(name: &str) -> Vec<&'static str> {
    SUPERS.into_iter().filter(|other| *other != name).collect()
}

/// The one leader that all super-nodes name.
fn agreed(spread: &Spread) -> Option<(String, u64)> {
    let mut named = SUPERS.iter().map(|name| spread.leader(name)).collect::<Option<Vec<_>>>()?;
    named.dedup();
    (named.len() == 1).then(|| named.remove(0))
}

type Cut = (String, String);

/// Cuts lines for a while under load, and sees all agree in the end.
fn survives(spread: &Spread, origin_ratio: &str, cuts: impl Fn(&str) -> Vec<Cut>) {
    let (leader, term) = until("a leader", SETTLE_DEADLINE, || agreed(spread));
    let cuts = cuts(&leader);
    let load = spread.load(LOAD_S, origin_ratio);
    std::thread::sleep(BEFORE_CUT);
    cuts.iter().for_each(|(from, to)| spread.lab.cut(from, to));
    std::thread::sleep(CUT);
    cuts.iter().for_each(|(from, to)| spread.lab.heal(from, to));
    let (_, last) = until("all agree again", SETTLE_DEADLINE, || agreed(spread));
    assert!(last >= term, "the term went back from {term} to {last}");
    load.passes();
}

/// Everything that goes from some to others.
fn lines<'a>(from: &[&'a str], to: &[&'a str]) -> Vec<Cut> {
    let line = |from: &'a str, to: &'a str| (from.to_owned(), to.to_owned());
    from.iter().flat_map(|from| to.iter().map(move |to| line(from, to))).collect()
}

#[test]
fn a_leader_without_its_followers_is_replaced() {
    if !is_root("a_leader_without_its_followers_is_replaced") {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let spread = Spread::start(folder.path(), 2);
    survives(&spread, "1.1", |leader| {
        [lines(&[leader], &others(leader)), lines(&others(leader), &[leader])].concat()
    });
}

#[test]
fn a_leader_is_replaced_when_one_direction_is_lost() {
    if !is_root("a_leader_is_replaced_when_one_direction_is_lost") {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let spread = Spread::start(folder.path(), 2);
    survives(&spread, "1.1", |leader| lines(&others(leader), &[leader]));
    survives(&spread, "1.1", |leader| lines(&[leader], &others(leader)));
}

#[test]
fn a_node_without_the_tier_goes_on() {
    if !is_root("a_node_without_the_tier_goes_on") {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let spread = Spread::start(folder.path(), 2);
    // What it needs it fetches itself; the others, who still have the tier, may have it already.
    survives(&spread, "2.0", |_| {
        [lines(&["node-0"], &SUPERS), lines(&SUPERS, &["node-0"])].concat()
    });
    until("the node is with the tier again", SETTLE_DEADLINE, || {
        (spread.sees("node-0", "state", &"up".into())? == spread.count()).then_some(())
    });
}

#[test]
fn nodes_that_cannot_meet_still_serve() {
    if !is_root("nodes_that_cannot_meet_still_serve") {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let spread = Spread::start(folder.path(), 2);
    // Nobody can hand anything over: both fetch what they need.
    survives(&spread, "2.0", |_| lines(&["node-0"], &["node-1"]));
}
