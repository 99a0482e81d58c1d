//! `docs/hostile-input.md` names a test for each kind of hostile input, and the test is there.

use crate::tree::Tree;

const PAGE: &str = "docs/hostile-input.md";

/// Every row of the table ends in the names of tests, and the sources have each of them.
pub(crate) fn tested(tree: &Tree) -> Vec<String> {
    let rows: Vec<_> = tree
        .text(PAGE)
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| input"))
        .collect();
    if rows.is_empty() {
        return vec![format!("{PAGE}: no table")];
    }
    rows.into_iter().flat_map(|row| untested(tree, row)).collect()
}

fn untested(tree: &Tree, row: &str) -> Vec<String> {
    let last = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    let names: Vec<_> = last.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return vec![format!("{PAGE}: no test in {row}")];
    }
    let is_there = |name: &str| {
        let head = format!("fn {name}(");
        tree.files.iter().any(|(path, text)| path.ends_with(".rs") && text.contains(&head))
    };
    let missing = names.into_iter().filter(|name| !is_there(name));
    missing.map(|name| format!("{PAGE}: no such test: {name}")).collect()
}

#[test]
fn a_row_without_a_test_is_caught() {
    let table = "| input | rule | test |\n|---|---|---|\n| a | b | `good`, `also_good` |\n";
    let source = ("x.rs", "fn good() {}\nasync fn also_good() {}\n");
    let of = |text: &str| tested(&Tree::of(&[(PAGE, text), source]));
    assert_eq!(of(table), Vec::<String>::new());
    assert_eq!(of(&table.replace("also_good", "gone")).len(), 1);
    assert_eq!(of(&table.replace("`good`, `also_good`", "none")).len(), 1);
    assert_eq!(of("").len(), 1);
}
