//! `docs/metrics.md` lists exactly the metrics of `cache-node/src/metrics.rs` and of
//! `operator/src/metrics.rs`, and no dashboard, alert or page names one that is not there.

use std::fmt::Write;

use crate::page;
use crate::source::{code, literal};
use crate::tree::{Tree, line_of, words};

const SOURCE: &str = "cache-node/src/metrics.rs";
/// Where the operator registers its own, and their part of the page.
const OPERATOR: (&str, &str) = ("operator/src/metrics.rs", "operator-metrics");
const PAGE: &str = "docs/metrics.md";

/// Registering methods of `Metrics`, with the type that Prometheus shows and whether a label's
/// name follows the help.
const METHODS: [(&str, &str, bool); 7] = [
    ("counter", "counter", false),
    ("counters", "counter", true),
    ("gauge", "gauge", false),
    ("gauges", "gauge", true),
    ("histogram", "histogram", false),
    ("histograms", "histogram", true),
    ("seconds", "gauge", false),
];

/// One metric as it is registered.
#[derive(Debug, PartialEq, Eq)]
struct Metric {
    name: String,
    kind: &'static str,
    label: String,
    help: String,
}

/// The metrics that `source` registers, in its order, and what cannot be read.
fn registered(source: &str) -> (Vec<Metric>, Vec<String>) {
    let source = shipped(source);
    let code = code(source);
    let mut found = Vec::new();
    for (method, kind, labelled) in METHODS {
        for (at, call) in code.match_indices(&format!(".{method}(")) {
            found.push((at, arguments(&source[at + call.len()..], kind, labelled)));
        }
    }
    found.sort_by_key(|(at, _)| *at);
    let mut metrics = Vec::new();
    let mut problems = Vec::new();
    for (at, metric) in found {
        match metric {
            Some(metric) => metrics.push(metric),
            None => problems.push(format!(
                "{SOURCE}:{}: write name, help and label as literals",
                line_of(source, at)
            )),
        }
    }
    let named = source.matches("\"shoal_").count();
    if named != metrics.len() || metrics.is_empty() {
        let read = metrics.len();
        problems.push(format!("{SOURCE}: {named} names \"shoal_...\", {read} registrations read"));
    }
    (metrics, problems)
}

fn arguments(text: &str, kind: &'static str, labelled: bool) -> Option<Metric> {
    let (name, rest) = literal(text.trim_start())?;
    let (help, rest) = literal(rest.trim_start().strip_prefix(',')?.trim_start())?;
    let label = if labelled {
        literal(rest.trim_start().strip_prefix(',')?.trim_start())?.0
    } else {
        String::new()
    };
    Some(Metric { name, kind, label, help })
}

fn table(metrics: &[Metric]) -> String {
    let mut text = "| name | type | label | meaning |\n|---|---|---|---|\n".to_owned();
    for Metric { name, kind, label, help } in metrics {
        let label = if label.is_empty() { String::new() } else { format!("`{label}`") };
        writeln!(text, "| `{name}` | {kind} | {label} | {help} |").unwrap();
    }
    text
}

/// What stands before a file's tests.
fn shipped(source: &str) -> &str {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    &source[..end]
}

/// What is shipped of [`SOURCE`] and of the files of the folder beside it.
fn sources(tree: &Tree) -> String {
    let beside = SOURCE.trim_end_matches(".rs");
    let of_metrics = |path: &str| {
        let within = path.starts_with(&format!("{beside}/")) && !path.ends_with("/tests.rs");
        path == SOURCE || within
    };
    let found = tree.files.iter().filter(|(path, _)| of_metrics(path));
    found.map(|(_, text)| shipped(text)).collect()
}

/// The page agrees with the source.
pub(crate) fn page(tree: &Tree) -> Vec<String> {
    let (metrics, mut problems) = registered(&sources(tree));
    problems.extend(page::check(tree, PAGE, "metrics", &table(&metrics), SOURCE));
    let (source, part) = OPERATOR;
    if tree.has(source) {
        let (metrics, wrong) = registered(tree.text(source));
        problems.extend(wrong);
        problems.extend(page::check(tree, PAGE, part, &table(&metrics), source));
    }
    problems
}

/// Every metric that a page, dashboard or alert names exists.
pub(crate) fn mentions(tree: &Tree) -> Vec<String> {
    let (mut metrics, mut problems) = registered(&sources(tree));
    if tree.has(OPERATOR.0) {
        metrics.extend(registered(tree.text(OPERATOR.0)).0);
    }
    let pages = tree.files.iter().filter(|(path, _)| {
        path.starts_with("deploy/") || path.starts_with("docs/") || path.ends_with(".md")
    });
    for (path, text) in pages {
        for (at, name) in mentioned(text) {
            if !metrics.iter().any(|metric| is_series(metric, name)) {
                let line = line_of(text, at);
                problems.push(format!("{path}:{line}: {name}: {SOURCE} has no such metric"));
            }
        }
    }
    problems
}

/// The words `shoal_...` that are neither a crate nor the bare prefix.
fn mentioned(text: &str) -> Vec<(usize, &str)> {
    let starts = text.match_indices("shoal_").map(|(at, _)| at);
    let whole = starts.map(|at| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        (at, &rest[..end])
    });
    let whole = whole.filter(|&(at, name)| words(text, name).any(|word| word == at));
    let others = ["shoal_", "shoal_node", "shoal_proto", "shoal_loadtest", "shoal_operator"];
    whole.filter(|(_, name)| !others.contains(name)).collect()
}

fn is_series(metric: &Metric, name: &str) -> bool {
    let suffix = name.strip_prefix(metric.name.as_str());
    match suffix {
        Some("") => true,
        Some("_bucket" | "_sum" | "_count") => metric.kind == "histogram",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
        fn counter(&self, name: &str) {}
        let a = m
            .counter("shoal_a_total", "Things, \
                     counted.")?;
        // m.gauge("ignored", "In a comment.")
        let b = m.counters("shoal_b_total", "By tier.", "tier")?;
        let c = m.histogram(
            "shoal_c_seconds",
            "Waits.",
            &LATENCY_S,
        )?;
        #[cfg(test)]
        mod tests { fn t() { text.contains("shoal_z") } }
    "#;

    fn tree(page: &str, dashboard: &str) -> Tree {
        Tree::of(&[(SOURCE, SAMPLE), (PAGE, page), ("deploy/a.json", dashboard)])
    }

    #[test]
    fn registrations_are_read() {
        let (metrics, problems) = registered(SAMPLE);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            table(&metrics),
            "| name | type | label | meaning |\n|---|---|---|---|\n\
             | `shoal_a_total` | counter |  | Things, counted. |\n\
             | `shoal_b_total` | counter | `tier` | By tier. |\n\
             | `shoal_c_seconds` | histogram |  | Waits. |\n"
        );
    }

    #[test]
    fn unreadable_registrations_are_caught() {
        for bad in [
            "m.counter(NAME, \"Help.\")",
            "m.counter(\"shoal_a\", HELP)",
            "m.counters(\"shoal_a\", \"Help.\", LABEL)",
            "m.summary(\"shoal_a\", \"Help.\")",
            "",
        ] {
            assert!(!registered(bad).1.is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_page_that_differs_is_caught() {
        let marks = "# M\n<!-- metrics: begin -->\n<!-- metrics: end -->\n";
        let right = page::replaced(marks, "metrics", &table(&registered(SAMPLE).0)).unwrap();
        assert_eq!(page(&tree(&right, "")), Vec::<String>::new());
        for bad in [right.replace("Waits.", "Waiting."), right.replace("end", ""), String::new()] {
            assert_eq!(page(&tree(&bad, "")).len(), 1, "{bad}");
        }
    }

    #[test]
    fn mentions_of_unknown_metrics_are_caught() {
        let good = "rate(shoal_a_total[1m]) shoal_c_seconds_bucket shoal_node my_shoal_x";
        assert_eq!(mentions(&tree("", good)), Vec::<String>::new());
        for bad in ["shoal_a_totals", "sum(shoal_gone)", "shoal_a_total_bucket"] {
            assert_eq!(mentions(&tree("", bad)).len(), 1, "{bad}");
        }
    }
}
