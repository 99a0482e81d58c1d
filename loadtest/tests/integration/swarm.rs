//! The benchmark of a swarm on real members over shaped lines, and its documentation.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    documented::{documented, keys},
    support::{end, loadtest, start},
};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-swarm-json.md"));

#[tokio::test]
async fn a_small_swarm_is_measured_and_every_key_is_documented() {
    if !rustix::process::geteuid().is_root() {
        println!("network namespaces need root: not run");
        return;
    }
    let line = "swarm --nodes 4 --zones 2 --super-nodes 1 --size 8MiB --rate 100Mbit \
                --against origin --json";
    let child = start(&line.split(' ').collect::<Vec<_>>());
    let pid = child.id().unwrap();
    let said = end(child).await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let results = &report["results"];
    assert_eq!(results["times"]["count"], 4, "{results}");
    assert_eq!(results["origin_bytes_per_object"], 1.0, "{results}");
    let gets = results["gets"].as_array().unwrap();
    assert!(gets.iter().all(|get| get["received_bytes"] == 8 << 20), "{results}");
    assert!(results["zone_bytes_per_object"].as_f64().unwrap() > 1.0, "{results}");
    assert!(results["times"]["p50"].as_f64().unwrap() > 0.9, "no line was shaped: {results}");

    let mut found = BTreeSet::new();
    keys(&report, "", &mut found);
    let documented = documented(DOCUMENT);
    let undocumented: Vec<_> = found.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/loadtest-swarm-json.md: {undocumented:?}");
    let vanished: Vec<_> = documented.difference(&found).collect();
    assert!(vanished.is_empty(), "in docs/loadtest-swarm-json.md, but not reported: {vanished:?}");
    let straight = &results["against"][0];
    assert_eq!(straight["times"]["count"], 4, "{straight}");
    assert!(straight["times"]["p50"].as_f64().unwrap() > 3.0, "one line for all: {straight}");
    assert!(straight["origin_wire_per_object"].as_f64().unwrap() > 4.0, "{straight}");
    assert!(results["line_use"].as_array().unwrap().len() > 10, "{results}");
    assert_eq!(spaces_of(pid), 0, "namespaces are left behind");
}

/// Namespaces of the benchmark with that process id.
fn spaces_of(pid: u32) -> usize {
    let own = format!("shoalswarm{pid}-");
    let spaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    spaces.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count()
}

/// Processes whose command line names the folder.
fn processes_in(folder: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(folder)).count()
}

#[tokio::test]
async fn ctrl_c_takes_down_all_namespaces_and_processes() {
    if !rustix::process::geteuid().is_root() {
        println!("network namespaces need root: not run");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    // At this rate it would take minutes.
    let line = "swarm --nodes 3 --super-nodes 1 --size 64MiB --rate 2Mbit --data-dir";
    let mut child = start(&line.split(' ').chain([folder]).collect::<Vec<_>>());
    let pid = child.id().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut heard = String::new();
    while !heard.contains("all clients ask") {
        heard = said.next_line().await.unwrap().expect("it ended before it began");
    }
    assert_eq!(spaces_of(pid), 6, "three nodes, a super-node, the origin, the hub");
    assert!(processes_in(folder) >= 5);
    let pid_of = |pid: u32| Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid_of(pid), Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), end(child)).await;
    assert_eq!(ended.expect("it does not end").code, 1);
    assert_eq!(spaces_of(pid), 0, "namespaces are left behind");
    let mut looks = 0;
    while processes_in(folder) > 0 {
        looks += 1;
        assert!(looks < 100, "processes are left behind");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_measured_is_said() {
    let said = loadtest("swarm --nodes 2 --kill 2").await;
    assert_eq!(said.code, 64, "{said:?}");
    let said = loadtest("swarm --against bittorrent").await;
    assert_eq!(said.code, 64, "{said:?}");
    let said = loadtest("swarm --shoal /nowhere/shoal").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("--shoal FILE"), "{}", said.err);
}
