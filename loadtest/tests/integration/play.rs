//! Scenarios on real clusters.

use serde_json::Value;

use crate::support::loadtest;

const LOSSES: &str = "
name = 'Two losses'
about = 'the leader and a node die'
[cluster]
super_nodes = 3
nodes = 3
[load]
duration = '12s'
rate = 40
objects = 30
sizes = '4KiB:80,300KiB:20'
[thresholds]
max_failures = 0
max_wrong = 0
[[fault]]
at = '3s'
kind = 'kill'
member = 'leader'
[[fault]]
at = '6s'
kind = 'pause'
member = 'node-1'
[[fault]]
at = '8s'
kind = 'resume'
member = 'paused'
[[fault]]
at = '9s'
kind = 'kill'
member = 'node-2'
";

#[tokio::test]
async fn what_breaks_is_marked_and_nobody_notices() {
    let folder = tempfile::tempdir().unwrap();
    let (file, page) = (folder.path().join("losses.toml"), folder.path().join("report.html"));
    std::fs::write(&file, LOSSES).unwrap();
    let said = loadtest(&format!("play {} --json --html {}", file.display(), page.display())).await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let marks: Vec<_> = report["marks"].as_array().unwrap().iter().collect();
    assert!(marks.iter().all(|mark| mark["done"] == Value::Bool(true)), "{marks:?}");
    let what: Vec<_> = marks.iter().map(|mark| mark["what"].as_str().unwrap()).collect();
    assert!(what[0].starts_with("killed super-") && what[0].ends_with("(it led)"), "{what:?}");
    assert_eq!(what[1..], ["paused node-1", "resumed node-1", "killed node-2"]);
    assert_eq!((&report["requests"]["failed"], &report["ok"]), (&0.into(), &true.into()));
    assert!(std::fs::read_to_string(page).unwrap().contains("killed node-2"));
}

#[tokio::test]
async fn what_cannot_be_played_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, LOSSES.replace("node-2", "node-7")).unwrap();
    let said = loadtest(&format!("play {}", file.display())).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("node-0 to node-2"), "{}", said.err);
    let said = loadtest("play no-such-scenario").await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("play --list"), "{}", said.err);
    let said = loadtest("play quick-look --set rate=-1").await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("--rate"), "{}", said.err);
    let said = loadtest("play quick-look --shoal /nowhere/shoal").await;
    assert_eq!(said.code, 1, "{said:?}");
    let said = loadtest("play --list").await;
    assert!(said.code == 0 && said.out.contains("cdn-offload"), "{said:?}");
}
