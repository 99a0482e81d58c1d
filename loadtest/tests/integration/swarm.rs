//! The benchmark of a swarm on real members over shaped lines, and its documentation.

use std::collections::BTreeSet;

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
    let line = "swarm --nodes 4 --zones 2 --super-nodes 1 --size 8MiB --rate 100Mbit --json";
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
    let left = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let own = format!("shoalswarm{}", pid);
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    assert_eq!(left.count(), 0, "namespaces are left behind");
}

#[tokio::test]
async fn what_cannot_be_measured_is_said() {
    let said = loadtest("swarm --nodes 2 --kill 2").await;
    assert_eq!(said.code, 64, "{said:?}");
    let said = loadtest("swarm --shoal /nowhere/shoal").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("--shoal FILE"), "{}", said.err);
}
