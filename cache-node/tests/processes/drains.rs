//! Nodes that leave: what they alone have is given away first, and clients notice nothing.

use std::{fs, thread};

use serde_json::Value;

use crate::common::{Cluster, Finished, Origin, Setup, turn, until};
use std::time::Duration;

/// From within a record to several chunks.
const LENGTHS: [usize; 4] = [700, 70_000, 1_500_000, 5_000_000];
const OBJECTS: usize = 32;
/// For an answer of a node that is up.
const PATIENCE: Duration = Duration::from_secs(20);

fn targets() -> Vec<String> {
    (0..OBJECTS).map(|i| format!("/o/{}/leaving-{i}", LENGTHS[i % LENGTHS.len()])).collect()
}

fn fetch(cluster: &Cluster, node: usize, target: &str) -> Vec<u8> {
    let reply = cluster.edge(node).get(target).unwrap();
    assert_eq!(reply.head.status, 200, "{target} at node {node}");
    reply.body
}

fn drain(cluster: &Cluster, node: &str, arguments: &[&str]) -> Finished {
    cluster.control(node, &[&["drain", "--json"], arguments].concat())
}

fn status(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{}{}", finished.output, finished.errors);
    serde_json::from_str(&finished.output).unwrap()
}

#[test]
fn two_that_leave_together_give_everything_to_the_third() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 3).start();
    let targets = targets();
    let bodies: Vec<_> =
        targets.iter().enumerate().map(|(i, target)| fetch(&cluster, i % 3, target)).collect();
    thread::scope(|scope| {
        let both = ["node-0", "node-1"].map(|node| {
            let cluster = &cluster;
            scope.spawn(move || drain(cluster, node, &["--timeout", "60s"]))
        });
        for one in both {
            let status = status(&one.join().unwrap());
            assert_eq!((&status["state"], &status["objects_left"]), (&"drained".into(), &0.into()));
        }
    });
    for node in ["node-0", "node-1"] {
        assert_eq!(cluster.readiness(node), Some((503, "draining\n".into())), "{node}");
        let members = cluster.status("super-0")["members"].as_array().unwrap().clone();
        let member = members.iter().find(|member| member["name"] == node).unwrap();
        assert_eq!(member["draining"], true, "{node}");
    }
    // It goes on serving, and asks for another connection.
    let reply = cluster.edge(0).get(&targets[1]).unwrap();
    assert_eq!((reply.head.status, reply.head.header("connection")), (200, "close"));
    cluster.stop_member("node-0");
    cluster.stop_member("node-1");
    for (target, body) in targets.iter().zip(bodies) {
        assert!(fetch(&cluster, 2, target) == body, "{target} differs");
        assert_eq!(origin.requests_for(target), 1, "{target} was fetched again");
        assert!(origin.body(target) == body, "{target} is not what the origin has");
    }
}

/// Told to stop, a node serves on for a while, asks for other connections, gives away what only it
/// has, and ends.
#[test]
fn one_that_is_stopped_serves_on_and_hands_off() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 2).start();
    cluster.stop_member("node-0");
    let file = cluster.config_file("node-0");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("[edge]\n"), "{text}");
    fs::write(&file, text.replacen("[edge]\n", "[edge]\nstop_wait = \"6s\"\n", 1)).unwrap();
    let mut node = cluster.revive("node-0");
    let targets = targets();
    let bodies: Vec<_> = targets.iter().map(|target| fetch(&cluster, 0, target)).collect();
    node.terminate();
    until("the node to be unready", PATIENCE, || {
        cluster.readiness("node-0").filter(|(status, _)| *status == 503)
    });
    let reply = until("the node to ask for another connection", PATIENCE, || {
        let reply = cluster.edge(0).get(&targets[1]).unwrap();
        Some(reply).filter(|reply| reply.head.header("connection") == "close")
    });
    assert_eq!(reply.head.status, 200);
    assert!(node.wait(PATIENCE).success());
    for (target, body) in targets.iter().zip(bodies) {
        assert!(fetch(&cluster, 1, target) == body, "{target} differs");
        assert_eq!(origin.requests_for(target), 1, "{target} was fetched again");
    }
}

#[test]
fn one_that_is_alone_says_so_and_may_stay() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let target = &targets()[0];
    fetch(&cluster, 0, target);
    let refused = drain(&cluster, "node-0", &["--timeout", "2s"]);
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(refused.errors.contains("nobody to give copies to"), "{}", refused.errors);
    let shown = status(&drain(&cluster, "node-0", &["--status"]));
    assert_eq!((&shown["state"], &shown["objects_left"]), (&"draining".into(), &1.into()));
    let cancelled = status(&drain(&cluster, "node-0", &["--cancel"]));
    assert_eq!(cancelled["state"], "serving");
    until("the node to be ready again", PATIENCE, || {
        cluster.readiness("node-0").filter(|(status, _)| *status == 200)
    });
    let reply = cluster.edge(0).get(target).unwrap();
    assert_eq!((reply.head.status, reply.head.header("connection")), (200, ""));
}
