//! The whole tier killed and brought back while clients go on reading: nodes find one another
//! without it, the origin is asked for each new object's bytes once, and afterwards the index knows
//! what happened meanwhile.

use std::time::Duration;

use crate::common::{Cluster, Origin, Process, Setup, shoal, turn, until};

use super::load::{Load, Plan, loadtest};

/// For a session lease to run out, and for a tier to be one again.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
const SUPERS: [&str; 3] = ["super-0", "super-1", "super-2"];
const NODES: [&str; 3] = ["node-0", "node-1", "node-2"];

fn until_mode(cluster: &Cluster, nodes: &[&str], mode: &str) {
    let series = format!("shoal_mode{{mode=\"{mode}\"}}");
    until(&format!("{nodes:?} are in mode {mode}"), SETTLE_DEADLINE, || {
        nodes.iter().all(|node| cluster.metric(node, &series) == 1.0).then_some(())
    });
}

/// The same objects at the same moment from every node; each body whole.
fn ask_everywhere(cluster: &Cluster, targets: &[String]) {
    let asked = NODES.iter().enumerate().map(|(i, _)| {
        let (mut client, targets) = (cluster.edge(i), targets.to_vec());
        std::thread::spawn(move || {
            for target in &targets {
                let reply = client.get(target).unwrap();
                assert_eq!(
                    (reply.head.status, reply.body.len()),
                    (200, length(target)),
                    "{target}"
                );
            }
        })
    });
    let asked: Vec<_> = asked.collect();
    asked.into_iter().for_each(|thread| thread.join().unwrap());
}

fn targets(name: &str) -> Vec<String> {
    let sizes = [1_000, 20_000, 270_000];
    let all = (0..2).flat_map(|n| sizes.map(|size| format!("/o/{size}/{name}-{n}")));
    all.collect()
}

fn length(target: &str) -> usize {
    target.split('/').nth(2).unwrap().parse().unwrap()
}

/// Fails unless the origin sent each object's bytes exactly once.
fn sent_once(origin: &Origin, targets: &[String]) {
    for target in targets {
        assert_eq!(origin.bytes_for(target), length(target) as u64, "{target}");
    }
}

fn start_all(cluster: &Cluster, folder: &std::path::Path) -> Vec<Process> {
    let started = SUPERS.map(|name| {
        let config = cluster.config_file(name);
        let mut command = shoal(&["node", "--config", config.to_str().unwrap()]);
        Process::start(&mut command, &folder.join(format!("{name}.log")))
    });
    SUPERS.iter().for_each(|name| cluster.until_ready(name));
    started.into()
}

#[test]
fn the_tier_is_lost_and_comes_back_under_load() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 3).start();
    until_mode(&cluster, &NODES, "super-node");
    let (before, during) = (targets("before"), targets("during"));
    ask_everywhere(&cluster, &before);
    let mut load = Load::start(Plan {
        command: loadtest(),
        edges: &[cluster.edge_url(0), cluster.edge_url(1), cluster.edge_url(2)],
        origin: origin.url(),
        seconds: 40,
        folder: folder.path(),
        origin_ratio: "1.1",
    });
    std::thread::sleep(Duration::from_secs(5));
    SUPERS.iter().for_each(|name| cluster.kill(name));
    until_mode(&cluster, &NODES, "pure");
    let status = cluster.status("node-0");
    assert_eq!(status["mode"]["name"], "pure", "{status}");

    // What was there is served, what is new is fetched once, asked for at once or one by one.
    ask_everywhere(&cluster, &before);
    ask_everywhere(&cluster, &during);
    ask_everywhere(&cluster, &during);
    sent_once(&origin, &before);
    sent_once(&origin, &during);
    let alone = targets("alone");
    for target in &alone {
        assert_eq!(cluster.edge(0).get(target).unwrap().body.len(), length(target));
    }
    load.still_runs();

    let _revived = start_all(&cluster, folder.path());
    until_mode(&cluster, &NODES, "super-node");
    load.passes();
    // The index knows what one node filled without it: the others need no origin.
    let requests = || alone.iter().map(|target| origin.requests_for(target)).sum::<u64>();
    let asked = requests();
    ask_everywhere(&cluster, &alone);
    assert_eq!(requests(), asked, "the origin was asked for what a node had");
    sent_once(&origin, &alone);
    assert!(cluster.metric("node-0", "shoal_mode_changes_total") >= 3.0);
}

#[test]
fn an_invalidation_without_the_tier_reaches_it_later() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 2).start();
    until_mode(&cluster, &NODES[..2], "hybrid");
    let target = "/o/5000/changed";
    for node in 0..2 {
        assert_eq!(cluster.edge(node).get(target).unwrap().body.len(), 5_000);
    }
    assert_eq!(origin.requests_for(target), 1);
    cluster.kill("super-0");
    until_mode(&cluster, &NODES[..2], "pure");
    let reply = cluster.edge(0).request("DELETE", target, &[]).unwrap();
    assert!(reply.head.status < 300, "{}", reply.head.status);
    let after = origin.bytes_for(target);

    let _revived = cluster.revive("super-0");
    until_mode(&cluster, &NODES[..2], "hybrid");
    // A purge works again: the other node has to fetch it anew.
    until("the other node's copy is purged", SETTLE_DEADLINE, || {
        assert_eq!(cluster.edge(1).get(target).unwrap().body.len(), 5_000);
        (origin.bytes_for(target) == after + 5_000).then_some(())
    });
}
