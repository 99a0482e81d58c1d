//! Plans as pages to read: each file in `tests/plans/` says what is so and what is wanted, and the
//! plan that follows. `SHOAL_WRITE_PLANS=1` writes the plans anew.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use serde::Deserialize;
use shoal_operator::plan::{Plan, facts, pool, supers};

/// What begins the plan in a file.
const MARK: &str = "\nplan:\n";

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Case {
    Pool { pool: pool::Wanted, nodes: pool::Observed },
    Cluster { wanted: facts::Wanted, observed: facts::Observed },
}

fn plan(case: &Case) -> Plan {
    match case {
        Case::Cluster { wanted, observed } => supers::plan(observed, wanted),
        Case::Pool { pool, nodes } => pool::plan(nodes, pool),
    }
}

fn written(plan: &Plan) -> String {
    if plan.is_done() {
        return "  steps: []\n".to_owned();
    }
    let yaml = serde_saphyr::to_string(plan).unwrap();
    yaml.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn plans_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let write = std::env::var_os("SHOAL_WRITE_PLANS").is_some();
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 15, "{} plans", names.len());
    let mut wrong = Vec::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let (input, found) = text.split_once(MARK).unwrap_or((text.trim_end(), ""));
        let case: Case = serde_saphyr::from_str(input)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let plan = written(&plan(&case));
        if write {
            fs::write(&path, format!("{input}{MARK}{plan}")).unwrap();
        } else if found != plan {
            wrong.push(format!("{}:\n{plan}instead of\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
