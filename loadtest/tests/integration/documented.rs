//! The JSON report and its documentation say the same.

use std::collections::BTreeSet;

use serde_json::Value;
use shoal_loadtest::play::Mark;

use crate::support::{FalseEdge, Lie, Running, SEED, loadtest};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest-json.md"));

/// Every key with the keys above it: `origin.worst_object.path`, `edges[].edge`.
pub(crate) fn keys(value: &Value, above: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
                found.insert(key.clone());
                keys(value, &key, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                keys(item, &format!("{above}[]"), found);
            }
        }
        _ => {}
    }
}

/// The first column of every table: `key` in backquotes.
pub(crate) fn documented(document: &str) -> BTreeSet<String> {
    let cells = document.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.filter_map(|cell| cell.split('`').next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_key_is_documented_and_no_other() {
    let origin = Running::plain().await;
    // One honest edge and one liar, so that no part of the report is empty.
    let liar = FalseEdge::start(Lie::Unavailable).await;
    let line = format!(
        "run --edges {0},{1} --origin {0} --seed {SEED} --duration 500ms --objects 10 \
         --sizes 1000:1 --json",
        origin.url(),
        liar.url()
    );
    let mut found = BTreeSet::new();
    keys(&loadtest(&line).await.json(), "", &mut found);
    // Only a scenario that is played has marks.
    let mark = Mark { at_ms: 0, what: String::new(), done: true };
    keys(&serde_json::json!({ "marks": [mark] }), "", &mut found);
    assert!(
        found.contains("origin.worst_object.path") && found.contains("failure_examples[].edge")
    );
    let documented = documented(DOCUMENT);
    let undocumented: Vec<_> = found.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/loadtest-json.md: {undocumented:?}");
    let vanished: Vec<_> = documented.difference(&found).collect();
    assert!(vanished.is_empty(), "in docs/loadtest-json.md, but not reported: {vanished:?}");
}
