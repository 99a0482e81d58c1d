//! Stops in order, kills without warning, and what is left after either.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{Cluster, Origin, Process, Setup, binary, turn, until};

/// For a new leader after the old one was killed, and for a member to be seen again.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// For a load of a few seconds to end.
const LOAD_DEADLINE: Duration = Duration::from_secs(60);

/// Objects of one chunk, of several, of none, and one too large for a single message.
const TARGETS: [&str; 6] = [
    "/o/0/empty",
    "/o/1/one",
    "/o/65536/inline",
    "/o/262144/chunk",
    "/o/262145/two",
    "/o/9000000/many",
];

#[test]
fn a_restart_serves_what_it_had() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let setup = Setup::new(folder.path(), origin.url()).members(3, 2);
    let cluster = setup.start();
    let before: Vec<_> = TARGETS.iter().map(|target| ask(&cluster, 0, target)).collect();
    assert_eq!(origin.requests(), TARGETS.len() as u64);
    assert!(cluster.stop().success());

    let cluster = setup.start();
    for (target, body) in TARGETS.iter().zip(&before) {
        assert!(ask(&cluster, 0, target) == *body, "{target} changed over a restart");
        assert!(ask(&cluster, 1, target) == *body, "{target} differs on the other node");
    }
    assert_eq!(origin.requests(), TARGETS.len() as u64, "the origin was asked again");
    for (target, body) in TARGETS.iter().zip(&before) {
        assert!(origin.body(target) == *body, "{target} was never right");
    }
    assert!(cluster.stop().success());
}

fn ask(cluster: &Cluster, node: usize, target: &str) -> Vec<u8> {
    let reply = cluster.edge(node).get(target).unwrap();
    assert_eq!(reply.head.status, 200, "{target}");
    reply.body
}

#[test]
fn a_stop_lets_a_download_end() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&["--rate", "1MiB"]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let target = "/o/3000000/slow";
    let mut client = cluster.edge(0);
    let download = std::thread::spawn(move || client.get(target));
    until("the download runs", SETTLE_DEADLINE, || (origin.requests_for(target) > 0).then_some(()));
    assert!(cluster.stop().success());
    let reply = download.join().unwrap().unwrap();
    assert_eq!((reply.head.status, reply.body.len()), (200, 3_000_000));
}

/// Load against the edges that a file lists.
struct Load<'a> {
    edges: &'a Path,
    origin: &'a Origin,
    folder: &'a Path,
}

impl Load<'_> {
    fn list(&self, edges: &[&str]) {
        let new = self.edges.with_extension("new");
        fs::write(&new, edges.join("\n") + "\n").unwrap();
        fs::rename(new, self.edges).unwrap();
    }

    /// Starts a run whose exit code says that no request failed and no byte was wrong.
    fn start(&self, seconds: u32) -> Process {
        let mut command = Command::new(binary("shoal-loadtest"));
        command.args(["run", "--rate", "60", "--objects", "60", "--duration"]);
        command.arg(format!("{seconds}s")).arg("--edges-file").arg(self.edges);
        command.args(["--origin", self.origin.url(), "--max-failures", "0", "--max-wrong", "0"]);
        Process::start(&mut command, &self.folder.join("load.log"))
    }

    fn passes(&self, mut load: Process) {
        let status = load.wait(LOAD_DEADLINE);
        assert!(status.success(), "{status}: {}", load.last_words());
    }
}

#[test]
fn a_killed_node_comes_back_on_its_data() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 2).start();
    let edges = folder.path().join("edges");
    let load = Load { edges: &edges, origin: &origin, folder: folder.path() };
    let both = [cluster.edge_url(0), cluster.edge_url(1)];

    load.list(&both);
    let running = load.start(8);
    let busy = || (origin.requests() > 20).then_some(());
    until("the load runs", SETTLE_DEADLINE, busy);
    load.list(&both[..1]);
    std::thread::sleep(Duration::from_millis(300));
    cluster.kill("node-1");
    load.passes(running);

    let _revived = cluster.revive("node-1");
    load.list(&both[1..]);
    load.passes(load.start(3));
    assert_eq!(cluster.metric("node-1", "shoal_store_corrupt_chunks_total"), 0.0);
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 1).start();
    let body = ask(&cluster, 0, "/o/300000/before");
    let first = leader(&cluster, "").unwrap();
    cluster.kill(&first);
    // What is here needs nobody; what is not needs a home, and a leader to publish to.
    assert!(ask(&cluster, 0, "/o/300000/before") == body);
    assert_eq!(ask(&cluster, 0, "/o/300000/during").len(), 300_000);
    until("another leads", SETTLE_DEADLINE, || leader(&cluster, &first));
    assert_eq!(ask(&cluster, 0, "/o/300000/after").len(), 300_000);

    let _revived = cluster.revive(&first);
    until("all members are seen again", SETTLE_DEADLINE, || {
        let status = cluster.status("node-0");
        let members = status["members"].as_array().unwrap().clone();
        let here = members.iter().filter(|member| member["reachable"] == true);
        (members.len() == 4 && here.count() == 4).then_some(())
    });
    assert_eq!(origin.requests(), 3);
}

/// The leader that a node knows, unless it is `but`.
fn leader(cluster: &Cluster, but: &str) -> Option<String> {
    let status = cluster.status("node-0");
    status["leader"].as_str().filter(|name| *name != but).map(str::to_owned)
}

#[test]
fn a_stop_ends_every_process_soon() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 3).start();
    assert_eq!(cluster.pids().len(), 7);
    // `stop` has the deadline, and fails when a process is left.
    assert_eq!(cluster.stop().code(), Some(0));
}
