//! Sites of real clusters: changed while requests run, known to every node, kept over restarts.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::{
    Client, Cluster, Finished, Setup, Versions, run, shoal, turn, until, version_of,
};

const NODES: usize = 3;
const HOST: &str = "second.test";
/// For a node to serve what a call has said is applied: at once, on a machine of any speed.
const DEADLINE: Duration = Duration::from_secs(30);

fn site(cluster: &Cluster, member: &str, arguments: &[&str]) -> Finished {
    cluster.control(member, &[&["site"], arguments].concat())
}

fn json(cluster: &Cluster, member: &str, arguments: &[&str]) -> Value {
    let finished = site(cluster, member, &[arguments, &["--json"]].concat());
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}{}", finished.output, finished.errors);
    serde_json::from_str(&finished.output).unwrap()
}

/// Changes with `site`, and fails unless every node has applied it.
fn change(cluster: &Cluster, member: &str, arguments: &[&str]) -> Value {
    let report = json(cluster, member, arguments);
    assert_eq!(report["sites"][0]["applied_on"], NODES, "{report}");
    assert_eq!(report["sites"][0]["waiting_for"], Value::Array(vec![]), "{report}");
    report["sites"][0].clone()
}

fn ask(cluster: &Cluster, node: usize, target: &str) -> (u16, Vec<u8>) {
    let mut edge = Client::for_host(cluster.edge_url(node), HOST);
    let reply = edge.get(target).unwrap();
    (reply.head.status, reply.body)
}

fn origin_key(origin: &Versions) -> String {
    format!("origin={}", origin.url())
}

#[test]
fn a_site_changes_on_all_nodes_while_requests_run() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (first, other) = (Versions::start(), Versions::start());
    other.change();
    // It serves the hosts of this machine alone.
    let setup =
        Setup::new(folder.path(), first.url()).members(3, NODES).flags(&["--host", "a.test"]);
    let cluster = setup.start();
    let listed = json(&cluster, "super-0", &["list"]);
    assert_eq!(listed["sites"][0]["source"], "file", "{listed}");
    for node in 0..NODES {
        assert_eq!(ask(&cluster, node, "/x").0, 421);
    }

    let hosts = format!("hosts=[\"{HOST}\"]");
    let made = change(&cluster, "node-1", &["set", "second", &hosts, &origin_key(&first)]);
    assert_eq!(made["change"], "created");
    for node in 0..NODES {
        let (status, body) = ask(&cluster, node, "/x");
        assert_eq!((status, version_of(&body)), (200, 0), "node {node}");
    }

    // Requests run all the time, slow ones among them, and none fails or is cut.
    let (over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for reader in 0..2 * NODES {
            let (cluster, over, answers) = (&cluster, &over, &answers);
            scope.spawn(move || {
                let mut edge = Client::for_host(cluster.edge_url(reader % NODES), HOST);
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let target = format!("/{}{reader}-{number}", ["", "slow-"][number % 2]);
                    let reply = edge.get(&target).unwrap();
                    assert_eq!(reply.head.status, 200, "{target}");
                    answers.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        for round in 0..24 {
            let origin = if round % 2 == 0 { &other } else { &first };
            let member = ["super-2", "node-0"][round % 2];
            change(&cluster, member, &["set", "second", &origin_key(origin)]);
            for node in 0..NODES {
                let (status, body) = ask(&cluster, node, &format!("/new/{round}-{node}"));
                assert_eq!((status, version_of(&body)), (200, 1 - round as u64 % 2));
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(answers.load(Ordering::SeqCst) > 20);

    // What is cached of a deleted site is gone, also when it is made again.
    let kept = json(&cluster, "node-2", &["get", "second"]);
    change(&cluster, "node-2", &["delete", "second"]);
    for node in 0..NODES {
        assert_eq!(ask(&cluster, node, "/x").0, 421);
    }
    let gone = site(&cluster, "node-2", &["get", "second"]);
    assert!(gone.code == Some(1) && gone.errors.contains("no site \"second\""), "{}", gone.errors);
    let file = folder.path().join("second.json");
    fs::write(&file, kept.to_string()).unwrap();
    let latest = first.change();
    change(&cluster, "super-0", &["set", file.to_str().unwrap(), "--expect", "0"]);
    for node in 0..NODES {
        let (status, body) = ask(&cluster, node, "/x");
        assert_eq!((status, version_of(&body)), (200, latest), "node {node}");
    }
    assert!(cluster.stop().success());
}

#[test]
fn what_is_wrong_is_refused_before_anything_happens() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Versions::start();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let before = json(&cluster, "node-0", &["list"]);
    let name = before["sites"][0]["name"].as_str().unwrap();
    let origin = origin_key(&origin);
    for (arguments, words) in [
        (&["set", "second", &origin][..], "hosts is missing"),
        (&["set", "second", &origin, "hosts=[\"localhost\"]"], "a host belongs to one site"),
        (&["set", "second", "origin=ftp://x", "hosts=[\"b.test\"]"], "write http:// or https://"),
        (&["set", name, "orign=http://x"], "did you mean origin?"),
        (&["set", name, "connect_timeout_ms=0"], "write 1 to 600000"),
        (&["set", name, "connect_timeout_ms=1000", "--expect", "1"], "is of revision"),
        (&["set", "second", &origin, "hosts=[\"b.test\"]", "--expect", "7"], "there is no site"),
        (&["delete", "second"], "there is no site"),
    ] {
        let refused = site(&cluster, "node-0", arguments);
        assert_eq!(refused.code, Some(1), "{arguments:?}: {}", refused.output);
        assert!(refused.errors.contains(words), "{arguments:?}: {}", refused.errors);
    }
    // The document for programs says what members answer, and nothing else.
    let document = fs::read_to_string("../docs/openapi.json").unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let token = fs::read_to_string(cluster.data_dir().join("admin-token")).unwrap();
    for (member, role) in [("node-0", "node"), ("super-0", "super-node")] {
        let mut admin = Client::new(cluster.admin_url(member));
        let bearer = format!("Bearer {}", token.trim());
        let calls = admin.request("GET", "/v1/calls", &[("authorization", &bearer)]).unwrap();
        let calls: Value = serde_json::from_slice(&calls.body).unwrap();
        let text = |call: &Value, key: &str| call[key].as_str().unwrap().to_owned();
        let answered: std::collections::BTreeSet<_> = calls["calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| ["method", "path", "scope"].map(|key| text(call, key)))
            .collect();
        let told = document["paths"].as_object().unwrap().iter().flat_map(|(path, calls)| {
            let calls = calls.as_object().unwrap().iter();
            let here = calls.filter(|(_, call)| {
                call["x-answered-by"].as_array().unwrap().iter().any(|by| by == role)
            });
            here.map(|(method, call)| [method.to_uppercase(), path.clone(), text(call, "x-scope")])
        });
        assert_eq!(told.collect::<std::collections::BTreeSet<_>>(), answered, "{member}");
    }

    let mut nobody = shoal(&["site", "delete", name, "--admin", cluster.admin_url("node-0")]);
    let nobody = run(nobody.env_remove("SHOAL_TOKEN"));
    assert!(nobody.errors.contains("brings no token"), "{}", nobody.errors);
    assert_eq!(json(&cluster, "node-0", &["list"]), before);
    assert!(cluster.stop().success());
}

#[test]
fn sites_outlive_restarts_and_a_tier_that_is_away() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Versions::start();
    let setup = Setup::new(folder.path(), origin.url()).members(1, 2);
    let cluster = setup.start();
    let own = json(&cluster, "node-0", &["list"])["sites"][0]["name"].as_str().unwrap().to_owned();
    let hosts = format!("hosts=[\"{HOST}\"]");
    let report = json(&cluster, "node-0", &["set", "second", &hosts, &origin_key(&origin)]);
    assert_eq!(report["sites"][0]["applied_on"], 2, "{report}");
    json(&cluster, "node-0", &["delete", &own]);
    let kept = cluster.member_data("node-1").join("sites.json");
    until("node-1 keeps the sites", DEADLINE, || {
        let text = fs::read_to_string(&kept).ok()?;
        (text.contains("second") && text.contains("\"removed\":[{")).then_some(())
    });

    // Without the tier, node-1 begins with what it knew, and without what its file says.
    cluster.kill("super-0");
    cluster.kill("node-1");
    let revived = cluster.launch("node-1");
    until("node-1 serves", DEADLINE, || {
        let mut edge = Client::for_host(cluster.edge_url(1), HOST);
        (edge.get("/alone").ok()?.head.status == 200).then_some(())
    });
    assert_eq!(cluster.edge(1).get("/x").unwrap().head.status, 421);
    drop((revived, cluster));

    let cluster = setup.start();
    let listed = json(&cluster, "super-0", &["list"]);
    assert_eq!(listed["sites"].as_array().unwrap().len(), 1, "the file brings nothing back");
    for node in 0..2 {
        assert_eq!(ask(&cluster, node, "/x").0, 200, "node {node}");
        assert_eq!(cluster.edge(node).get("/x").unwrap().head.status, 421, "node {node}");
    }
    assert!(cluster.stop().success());
}
