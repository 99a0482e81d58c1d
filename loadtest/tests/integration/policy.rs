//! Traces through the policy, on the command line.

use std::{collections::BTreeSet, io::Write as _};

use flate2::{Compression, write::GzEncoder};

use crate::{
    documented::{documented, keys},
    support::loadtest,
};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-policy-json.md"));

/// A small hot set among objects asked for once.
fn trace() -> String {
    let requests = (0..4_000).map(|i| match i % 2 {
        0 => format!("hot-{},1000\n", i / 2 % 20),
        _ => format!("once-{i},1000\n"),
    });
    format!("id,size\n{}", requests.collect::<String>())
}

#[tokio::test]
async fn a_packed_trace_is_replayed_and_every_key_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv.gz");
    let mut packed = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    packed.write_all(trace().as_bytes()).unwrap();
    packed.finish().unwrap();
    let line = format!("policy --trace {} --capacity 40KB,100% --json", path.display());
    let said = loadtest(&line).await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!(report["shape"]["requests"], 4_000);
    assert_eq!(report["shape"]["objects"], 2_020);
    assert_eq!(report["shape"]["one_hit_objects"], 2_000);
    let [small, whole] = [0, 1].map(|i| &report["capacities"][i]);
    assert_eq!(small["capacity_bytes"], 40_000);
    assert_eq!(whole["misses"], 2_020, "who never evicts misses each object once: {whole}");
    // Of the hot set next to nothing may be pushed out by what is asked for once.
    let misses = small["misses"].as_u64().unwrap();
    assert!((2_020..2_100).contains(&misses), "{small}");

    let mut found = BTreeSet::new();
    keys(&report, "", &mut found);
    let documented = documented(DOCUMENT);
    let differ: Vec<_> = found.symmetric_difference(&documented).collect();
    assert!(differ.is_empty(), "docs/loadtest-policy-json.md and the report differ: {differ:?}");
}

#[tokio::test]
async fn bad_input_is_named_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    std::fs::write(&path, "1,10\n2;10\n").unwrap();
    for (flags, code, wanted) in [
        (
            format!("--trace {} --capacity 1", path.display()),
            1,
            "line 2 is \"2;10\"; write `id,size`",
        ),
        ("--trace /nowhere/trace --capacity 1".to_owned(), 1, "--trace /nowhere/trace"),
        (format!("--trace {} --capacity 0%", path.display()), 64, "above 0% and up to 100%"),
        (format!("--trace {}", path.display()), 64, "--capacity"),
    ] {
        let said = loadtest(&format!("policy {flags}")).await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(wanted), "{flags}: {}", said.err);
    }
}
