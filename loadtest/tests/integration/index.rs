//! The benchmark of the index on real super-nodes, and its documentation.

use std::collections::BTreeSet;

use crate::{
    documented::{documented, keys},
    support::{Said, loadtest},
};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-index-json.md"));

async fn index(flags: &str) -> Said {
    loadtest(&format!("index --preset quick {flags}")).await
}

#[tokio::test]
async fn the_quick_preset_measures_everything_and_every_key_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let said = index(&format!("--json --html {}", page.display())).await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let shoal = &report["shoal"];
    assert_eq!(report["failures"], serde_json::json!([]), "{}", said.err);
    assert_eq!(shoal["loads"][0]["records_after"], 5_040);
    assert_eq!(shoal["footprints"][0]["records"], 5_040);
    assert!(shoal["footprints"][0]["disk_state_bytes"].as_u64().unwrap() > 0);
    let levels = ["locates", "leases"].map(|name| shoal[name].as_array().unwrap());
    for level in levels.into_iter().flatten() {
        assert!(level["times"]["count"].as_u64().unwrap() > 0, "{level}");
        assert_eq!(level["failures"], 0, "{level}");
    }
    assert_eq!(shoal["purges"]["sessions"], 12);
    assert_eq!(shoal["purges"]["times"]["count"], 5, "{}", shoal["purges"]);
    assert_eq!(shoal["failovers"]["each_ms"].as_array().unwrap().len(), 1);
    assert!(std::fs::read_to_string(page).unwrap().contains("leader killed to next write"));

    let mut found = BTreeSet::new();
    keys(&report, "", &mut found);
    let documented = documented(DOCUMENT);
    let undocumented: Vec<_> = found.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/loadtest-index-json.md: {undocumented:?}");
    // Nothing failed, and etcd is not there.
    let absent = |key: &&String| key.starts_with("failures[]") || key.starts_with("etcd.");
    let vanished: Vec<_> = documented.difference(&found).filter(|key| !absent(key)).collect();
    assert!(vanished.is_empty(), "in docs/loadtest-index-json.md, but not reported: {vanished:?}");
}

#[tokio::test]
async fn without_its_programs_it_says_what_to_do() {
    let said = index("--against etcd --etcd /nowhere/etcd").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("apt-get install etcd-server"), "{}", said.err);
    let said = index("--shoal /nowhere/shoal").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("--shoal FILE"), "{}", said.err);
    let said = index("--super-nodes 2").await;
    assert_eq!(said.code, 64, "{said:?}");
}
