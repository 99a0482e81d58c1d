//! Purges of real clusters: after one has returned, nobody gives an old answer; and without a token
//! that allows it there is no purge.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Cluster, Finished, Setup, Versions, run, shoal, turn, version_of};

const NODES: usize = 3;
/// Each of several kinds of purge covers some of them, and no kind but the site's all.
const TARGETS: [&str; 8] = [
    "/a/one",
    "/a/slow-two",
    "/a/b/one",
    "/a/b/slow-two",
    "/ab/one",
    "/c/slow-one?q=1",
    "/c/two?q=2",
    "/a%2Fb/two",
];
/// Rounds of purges of each kind.
const ROUNDS: usize = 4;
/// A reader's pause between two requests.
const READ_EVERY: Duration = Duration::from_millis(5);

/// Runs `shoal purge` at a node, with the token in `token`.
fn purge(cluster: &Cluster, node: usize, arguments: &[&str], token: &str) -> Finished {
    let admin = cluster.admin_url(&format!("node-{node}")).to_owned();
    let mut command = shoal(&["purge", "--admin", &admin]);
    run(command.args(arguments).env("SHOAL_TOKEN", token))
}

fn token(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.data_dir().join("admin-token")).unwrap()
}

/// Purges with `--json`, and fails unless all nodes answered.
fn purge_well(cluster: &Cluster, node: usize, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json", "--yes"]].concat();
    let finished = purge(cluster, node, &arguments, &token(cluster));
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}{}", finished.output, finished.errors);
    let report: Value = serde_json::from_str(&finished.output).unwrap();
    assert_eq!(report["failed"], 0, "{report}");
    report
}

/// The same of a cluster with nothing else to do: everybody acknowledges, nobody is outwaited.
fn purge_at_rest(cluster: &Cluster, node: usize, arguments: &[&str]) {
    let report = purge_well(cluster, node, arguments);
    for purged in report["purges"].as_array().unwrap() {
        assert_eq!(purged["nodes_acknowledged"], NODES, "{report}");
        assert_eq!(purged["nodes_expired"], 0, "{report}");
    }
}

fn site(cluster: &Cluster) -> String {
    let text = fs::read_to_string(cluster.config_file("node-0")).unwrap();
    let config: toml::Table = toml::from_str(&text).unwrap();
    config["site"][0]["name"].as_str().unwrap().to_owned()
}

/// A purge's words on the command line, and which targets it covers.
type Kind = (Vec<String>, fn(&str) -> bool);

fn kinds(cluster: &Cluster, site: &str) -> Vec<Kind> {
    let url = |path: &str| format!("{}{path}", cluster.edge_url(1));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        (vec![url("/a/one"), url("/c/slow-one?q=1")], |t| {
            ["/a/one", "/c/slow-one?q=1"].contains(&t)
        }),
        (vec!["--prefix".into(), url("/a/")], |t| t.starts_with("/a/")),
        (vec!["--prefix".into(), url("/c/two")], |t| t == "/c/two?q=2"),
        (words(&["--tag", "tag-o", "--site", site]), |t| t.ends_with('o')),
        (words(&["--tag", "all", "--site", site, "--soft"]), |_| true),
        (words(&["--site", site]), |_| true),
    ]
}

struct Readers {
    /// Of every target, the oldest version that may be answered to a request of now.
    floors: HashMap<&'static str, AtomicU64>,
    over: AtomicBool,
    answers: AtomicU64,
}

impl Readers {
    fn new() -> Self {
        let floors = TARGETS.map(|target| (target, AtomicU64::new(0))).into();
        Self { floors, over: AtomicBool::new(false), answers: AtomicU64::new(0) }
    }

    fn read(&self, cluster: &Cluster, reader: usize) {
        let mut edge = cluster.edge(reader % NODES);
        for at in reader.. {
            let target = TARGETS[at * 7 % TARGETS.len()];
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let floor = self.floors[target].load(Ordering::SeqCst);
            let reply = edge.get(target).unwrap();
            assert_eq!(reply.head.status, 200, "{target}");
            let found = version_of(&reply.body);
            let status = reply.head.header("cache-status");
            assert!(found >= floor, "{target}: {found}, purged up to {floor}; {status}");
            assert_eq!(reply.head.header("surrogate-key"), "", "tags end at the cache");
            self.answers.fetch_add(1, Ordering::SeqCst);
            // Readers that never wait would take the whole machine from those they ask.
            thread::sleep(READ_EVERY);
        }
    }
}

/// Ends the readers when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn after_a_purge_nobody_gives_an_old_answer() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Versions::start();
    let cluster = Setup::new(folder.path(), origin.url()).members(3, NODES).start();
    let site = site(&cluster);
    let readers = Readers::new();
    thread::scope(|scope| {
        for reader in 0..2 * NODES {
            let (readers, cluster) = (&readers, &cluster);
            scope.spawn(move || {
                let read = std::panic::AssertUnwindSafe(|| readers.read(cluster, reader));
                let read = std::panic::catch_unwind(read);
                readers.over.store(true, Ordering::SeqCst);
                read.unwrap();
            });
        }
        // Also when a purge fails: readers that go on would keep the test from ending.
        let over = Over(&readers.over);
        for round in 0..ROUNDS {
            for (arguments, covers) in kinds(&cluster, &site) {
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                let version = origin.change();
                purge_well(&cluster, round % NODES, &arguments);
                for (target, floor) in readers.floors.iter().filter(|(target, _)| covers(target)) {
                    floor.store(version, Ordering::SeqCst);
                    let reply = cluster.edge(round % NODES).get(target).unwrap();
                    assert!(version_of(&reply.body) >= version, "{target} by {arguments:?}");
                }
            }
        }
        drop(over);
    });
    let answers = readers.answers.load(Ordering::SeqCst);
    println!("{answers} answers, {} bodies from the origin", origin.bodies());
    assert!(answers > 200 && origin.bodies() < answers, "{answers}: nothing was cached");
}

#[test]
fn a_purge_covers_what_it_names_and_nothing_else() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Versions::start();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, NODES).start();
    let site = site(&cluster);
    for (arguments, covers) in kinds(&cluster, &site) {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        for target in TARGETS {
            cluster.edge(0).get(target).unwrap();
        }
        let version = origin.change();
        purge_at_rest(&cluster, 2, &arguments);
        for target in TARGETS {
            let found = version_of(&cluster.edge(0).get(target).unwrap().body);
            assert_eq!(found == version, covers(target), "{target} by {arguments:?}");
        }
        purge_well(&cluster, 2, &["--site", &site]);
    }
    let logs = fs::read_to_string(cluster.data_dir().join("logs/node-2.log")).unwrap();
    assert!(logs.contains("purged"), "{logs}");
    for word in ["/a/", "tag-o", "slow", "?q"] {
        assert!(!logs.contains(word), "the log names {word}:\n{logs}");
    }
}

#[test]
fn a_soft_purge_costs_the_origin_one_304() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Versions::start();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, NODES).start();
    let target = "/a/one";
    for node in 0..NODES {
        cluster.edge(node).get(target).unwrap();
    }
    let url = format!("{}{target}", cluster.edge_url(0));
    purge_at_rest(&cluster, 1, &[&url, "--soft"]);
    assert_eq!((origin.bodies(), origin.not_modified()), (1, 0));
    let validated = cluster.edge(0).get(target).unwrap();
    let status = validated.head.header("cache-status");
    assert!(status.contains("fwd=stale") && status.contains("fwd-status=304"), "{status}");
    for node in 0..NODES {
        let reply = cluster.edge(node).get(target).unwrap();
        assert_eq!(version_of(&reply.body), 0);
    }
    assert_eq!((origin.bodies(), origin.not_modified()), (1, 1), "fresh again for all");
    let fresh = cluster.edge(0).get(target).unwrap();
    assert!(fresh.head.header("cache-status").contains("; hit"), "validated for good");
}

#[test]
fn without_a_token_that_allows_it_nothing_is_purged() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Versions::start();
    let cluster = Setup::new(folder.path(), origin.url()).members(1, 1).start();
    let site = site(&cluster);
    cluster.kill("node-0");
    let secret = |name: &str| format!("{name}-{}", "0".repeat(32));
    let mut config = fs::read_to_string(cluster.config_file("node-0")).unwrap();
    let limited = format!("purge:site={site}:prefix=/a/");
    for (name, scope) in [("limited", limited.as_str()), ("reader", "read")] {
        let file = folder.path().join(name);
        fs::write(&file, secret(name)).unwrap();
        let table = "[[admin.tokens]]";
        config.push_str(&format!(
            "\n{table}\nname = {name:?}\nfile = {file:?}\nscopes = [{scope:?}]\n"
        ));
    }
    fs::write(cluster.config_file("node-0"), config).unwrap();
    let _node = cluster.revive("node-0");

    let url = |path: &str| format!("{}{path}", cluster.edge_url(0));
    let (inside, outside) = (url("/a/one"), url("/b/one"));
    for target in ["/a/one", "/b/one"] {
        cluster.edge(0).get(target).unwrap();
    }
    let (limited, reader) = (secret("limited"), secret("reader"));
    let under = url("/b/");
    let refused: [(&str, &[&str], &str); 8] = [
        ("", &[&inside], "brings no token"),
        ("", &[&inside], "SHOAL_TOKEN"),
        ("wrong", &[&inside], "does not know the token"),
        (&reader, &[&inside], "\"reader\" has no scope \"purge\""),
        (&limited, &[&inside, &outside], "may not purge that part of site"),
        (&limited, &["--prefix", &under], "may not purge that part of site"),
        (&limited, &["--site", &site, "--yes"], "as a whole"),
        (&limited, &["--tag", "all", "--site", &site], "as a whole"),
    ];
    for (token, arguments, why) in refused {
        let finished = purge(&cluster, 0, arguments, token);
        assert_eq!(finished.code, Some(1), "{arguments:?}: {}", finished.output);
        assert!(finished.errors.contains(why), "{why}: {}", finished.errors);
    }
    let unknown = purge(&cluster, 0, &["http://elsewhere.example/a"], &token(&cluster));
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.errors.contains(&format!("sites {site}")), "{}", unknown.errors);
    assert_eq!(cluster.metric("node-0", "shoal_admin_refusals_total"), 9.0);
    assert_eq!(cluster.metric("node-0", "shoal_admin_calls_total"), 0.0);
    for target in ["/a/one", "/b/one"] {
        let status = cluster.edge(0).get(target).unwrap().head.header("cache-status").to_owned();
        assert!(status.contains("; hit"), "{target} was purged: {status}");
    }
    let log = fs::read_to_string(folder.path().join("node-0.log")).unwrap();
    for reason in ["token-missing", "token-unknown", "scope", "invalid"] {
        let told = log.lines().filter(|line| line.contains("refused") && line.contains(reason));
        assert_eq!(told.count(), 1, "{reason}:\n{log}");
    }
    assert!(!log.contains(&limited) && !log.contains("elsewhere"), "{log}");

    assert_eq!(purge(&cluster, 0, &[&inside], &limited).code, Some(0));
    let status = cluster.edge(0).get("/a/one").unwrap().head.header("cache-status").to_owned();
    assert!(status.contains("fwd="), "{status}");
}
