//! The benchmark of a transfer between real processes, and its documentation.

use std::collections::BTreeSet;

use crate::{
    documented::{documented, keys},
    support::loadtest,
};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-transfer-json.md"));

#[tokio::test]
async fn every_way_is_measured_and_every_key_is_documented() {
    let said = loadtest("transfer --size 20MiB --hot 3MiB --rounds 1 --json").await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let runs = report["results"]["runs"].as_array().unwrap();
    let ways: Vec<_> = runs.iter().map(|run| run["way"].as_str().unwrap()).collect();
    assert_eq!(ways, ["grpc", "lane"], "{report}");
    assert!(runs.iter().all(|run| run["bytes"] == 20 << 20), "{report}");

    let mut found = BTreeSet::new();
    keys(&report, "", &mut found);
    let documented = documented(DOCUMENT);
    let undocumented: Vec<_> = found.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/loadtest-transfer-json.md: {undocumented:?}");
    let vanished: Vec<_> = documented.difference(&found).collect();
    assert!(vanished.is_empty(), "documented, but not reported: {vanished:?}");
}
