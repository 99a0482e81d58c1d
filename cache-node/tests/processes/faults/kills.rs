//! Super-nodes killed and paused, the leader and its followers, while clients go on reading.

use std::time::Duration;

use tempfile::TempDir;

use super::load::{Load, Plan, loadtest};
use crate::common::{Cluster, Origin, Setup, turn, until};

/// For another leader, and for one view of the tier.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// A pause that outlives elections and session leases alike.
const PAUSE: Duration = Duration::from_secs(8);

struct Loaded {
    cluster: Cluster,
    load: Load,
    origin: Origin,
    folder: TempDir,
}

fn start(seconds: u64) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 2).start();
    let edges = [cluster.edge_url(0), cluster.edge_url(1)];
    let load = Load::start(Plan {
        command: loadtest(),
        edges: &edges,
        origin: origin.url(),
        seconds,
        folder: folder.path(),
        origin_ratio: "1.1",
    });
    Loaded { cluster, load, origin, folder }
}

/// The leader that most super-nodes name, and its term; `None` while they disagree.
fn agreed(cluster: &Cluster, asked: &[&str]) -> Option<(String, u64)> {
    let named = asked.iter().map(|name| {
        let status = cluster.status(name);
        Some((status["leader"].as_str()?.to_owned(), status["term"].as_u64()?))
    });
    let mut named = named.collect::<Option<Vec<_>>>()?;
    named.dedup();
    (named.len() == 1).then(|| named.remove(0))
}

const SUPERS: [&str; 3] = ["super-0", "super-1", "super-2"];

fn others(name: &str) -> Vec<&'static str> {
    SUPERS.into_iter().filter(|other| *other != name).collect()
}

#[test]
fn every_super_node_is_killed_in_turn() {
    let _turn = turn();
    let Loaded { cluster, mut load, origin: _origin, folder: _folder } = start(40);
    let mut revived = Vec::new();
    for victim in SUPERS {
        let (_, term) = until("a leader", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
        load.still_runs();
        cluster.kill(victim);
        let left = others(victim);
        let led = until("the others agree", SETTLE_DEADLINE, || {
            agreed(&cluster, &left).filter(|(leader, _)| leader != victim)
        });
        assert!(led.1 >= term, "the term went back from {term} to {}", led.1);
        revived.push(cluster.revive(victim));
    }
    until("one leader for all", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
    load.passes();
}

#[test]
fn a_paused_leader_steps_down_when_it_wakes() {
    let _turn = turn();
    let Loaded { cluster, load, origin: _origin, folder: _folder } = start(25);
    let (leader, term) = until("a leader", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
    let paused = cluster.pause(&leader);
    let left = others(&leader);
    let (heir, newer) = until("another leads", SETTLE_DEADLINE, || {
        agreed(&cluster, &left).filter(|(heir, _)| *heir != leader)
    });
    assert!(newer > term, "{heir} leads in term {newer}, {leader} led in {term}");
    std::thread::sleep(PAUSE);
    drop(paused);
    // It must not go on as if nothing had happened: whoever leads now, all three agree.
    let (_, last) = until("all agree again", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
    assert!(last >= newer);
    load.passes();
}

#[test]
fn paused_followers_are_missed_by_nobody() {
    let _turn = turn();
    let Loaded { cluster, load, origin: _origin, folder: _folder } = start(30);
    let (leader, term) = until("a leader", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
    for follower in others(&leader) {
        let paused = cluster.pause(follower);
        std::thread::sleep(PAUSE);
        drop(paused);
        until("all agree again", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
    }
    let (_, last) = until("all agree", SETTLE_DEADLINE, || agreed(&cluster, &SUPERS));
    assert!(last >= term);
    load.passes();
}
