//! Rules of the tree that no compiler holds: layers, file sizes, headers, words, links, metric
//! names, dependencies. Each rule is a pure function from text to problems, applied here to the
//! whole workspace and, beside its code, to a bad sample that it must catch.
//!
//! Not here: what clippy holds (`clippy.toml`, `[workspace.lints]`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crates;
mod docs;
mod files;
mod hostile;
mod layers;
mod metrics;
mod page;
mod settings;
mod source;
mod tree;

use tree::Tree;

/// Fails with every problem at once, so that one run shows the whole work.
fn judge(problems: &[String]) {
    assert!(problems.is_empty(), "{} problem(s):\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn imports_only_go_down() {
    let tree = Tree::read();
    let table = tree.text("ARCHITECTURE.md");
    judge(&layers::check_modules(&tree, table, "cache-node/src", "shoal_node"));
    judge(&layers::check_modules(&tree, table, "loadtest/src", "shoal_loadtest"));
    judge(&layers::check_modules(&tree, table, "operator/src", "shoal_operator"));
    judge(&layers::check_crates(&tree, table));
}

#[test]
fn files_keep_their_form() {
    let tree = Tree::read();
    judge(&tree.each(files::lines));
    judge(&tree.each(files::header));
    judge(&tree.each(files::unfinished));
    judge(&tree.each(files::prints));
    judge(&tree.each(files::own_paths));
    judge(&tree.each(files::exemptions));
    judge(&tree.each(files::confined));
    judge(&files::executables(&tree));
}

#[test]
fn documents_hold_together() {
    let tree = Tree::read();
    judge(&tree.each(docs::one_title));
    judge(&docs::links(&tree));
}

#[test]
fn metrics_are_documented() {
    let tree = Tree::read();
    judge(&metrics::page(&tree));
    judge(&metrics::mentions(&tree));
}

#[test]
fn the_configuration_is_documented() {
    let tree = Tree::read();
    judge(&settings::page(&tree));
    judge(&settings::sites(&tree));
}

#[test]
fn hostile_input_is_tested() {
    judge(&hostile::tested(&Tree::read()));
}

#[test]
fn dependencies_are_the_chosen_ones() {
    let tree = Tree::read();
    judge(&crates::versions(tree.text("Cargo.lock")));
    judge(&crates::licences(&tree));
}
