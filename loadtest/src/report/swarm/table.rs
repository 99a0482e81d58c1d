//! The report of a swarm for a terminal (PURE).

use super::document::SwarmReport;
use crate::{
    report::grid::Grid,
    swarm::results::{LineUse, NodeUse, Ratios, Results},
    units::show_bytes,
};

/// The whole table.
#[must_use]
pub fn table(report: &SwarmReport) -> String {
    let parts = [
        heading(report),
        figures(report),
        against(report),
        costs(report),
        nodes(report),
        failures(report),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn heading(report: &SwarmReport) -> String {
    let asked = &report.scenario;
    let security = if asked.insecure { "plain text" } else { "mutual TLS" };
    let debug = if report.debug_build { ", built without optimisation" } else { "" };
    let ended = if report.results.interrupted { ", ended early" } else { "" };
    format!(
        "{} nodes in {} zones, {} at {} Mbit/s each way, {} rounds, {security}; {} cores, {:.2} of \
         them busy{debug}{ended}\n",
        asked.nodes,
        asked.zones,
        show_bytes(asked.size_bytes),
        asked.rate_bits_per_s as f64 / 1e6,
        asked.rounds,
        report.cores,
        report.results.busy_cores,
    )
}

fn figures(report: &SwarmReport) -> String {
    let mut grid = Grid::new(&["Figure", "measured", "at most", "aim", ""]);
    for target in &report.targets {
        let value = target.value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let verdict = match (target.value, target.met) {
            (None, _) => "-",
            (Some(_), false) => "MISSED",
            (Some(value), true) if value <= target.aim => "aim reached",
            _ => "met",
        };
        let (least, aim) = (target.least.to_string(), target.aim.to_string());
        grid.row(&[target.figure, &value, &least, &aim, verdict]);
    }
    grid.text()
}

/// Shoal and what it was held against.
fn against(report: &SwarmReport) -> String {
    let results = &report.results;
    if results.against.is_empty() {
        return String::new();
    }
    let head =
        ["By the ideal", "p50", "p99", "p99.9", "p99 by Shoal's", "left the origin", "failed"];
    let mut grid = Grid::new(&head);
    let mut row = |name: &str, times: Ratios, (by, sent, failed): (Option<f64>, f64, usize)| {
        let of = |value: f64| if times.count > 0 { format!("{value:.3}") } else { "-".to_owned() };
        let by = by.map_or("-".to_owned(), |by| format!("{by:.3}"));
        let (sent, failed) = (format!("{sent:.3}"), failed.to_string());
        grid.row(&[name, &of(times.p50), &of(times.p99), &of(times.p99_9), &by, &sent, &failed]);
    };
    row("shoal", results.times, (Some(1.0), results.origin_wire_per_object, results.failed));
    for one in &results.against {
        let rest = (one.p99_by_shoal, one.origin_wire_per_object, one.failures.len());
        row(one.name, one.times, rest);
    }
    grid.text()
}

fn costs(report: &SwarmReport) -> String {
    let results = &report.results;
    let mut grid = Grid::new(&["Swarm", ""]);
    let times = &results.times;
    let rows = [
        ("ideal time", format!("{:.2} s", results.ideal_ms as f64 / 1e3)),
        (
            "times by the ideal: p50, p99, p99.9, max",
            format!("{:.3}, {:.3}, {:.3}, {:.3}", times.p50, times.p99, times.p99_9, times.max),
        ),
        ("busiest node's uploads by the mean", format!("{:.2}", results.busiest_upload)),
        ("nodes' processor time", format!("{:.2} s a GB", results.cpu_s_per_gb)),
        ("largest node in memory", show_bytes(results.rss_peak_bytes)),
        ("chunks on lanes, by gRPC", ways(results)),
        ("lines in use for sending, %", percent(results, |part| part.up)),
        ("the same for receiving", percent(results, |part| part.down)),
        ("requests at the origin", results.origin_requests.to_string()),
        ("killed", results.killed.join(", ")),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        grid.row(&[name, value]);
    }
    grid.text()
}

fn ways(results: &Results) -> String {
    let sum = |of: fn(&NodeUse) -> u64| results.nodes.iter().map(of).sum::<u64>();
    format!("{}, {}", sum(|node| node.lane_chunks), sum(|node| node.grpc_chunks))
}

/// Every second part.
fn percent(results: &Results, of: fn(&LineUse) -> f64) -> String {
    let parts = results.line_use.chunks_exact(2);
    let means = parts.map(|pair| pair.iter().map(of).sum::<f64>() / pair.len() as f64);
    means.map(|mean| format!("{:.0}", mean * 100.0)).collect::<Vec<_>>().join(" ")
}

fn nodes(report: &SwarmReport) -> String {
    let mut grid =
        Grid::new(&["Node", "slowest", "from origin", "from peers", "to peers", "failed", "cpu"]);
    for node in &report.results.nodes {
        let gets = report.results.gets.iter().filter(|get| get.node == node.node);
        let slowest = gets.map(|get| get.times_ideal).fold(0.0, f64::max);
        grid.row(&[
            &node.node,
            &format!("{slowest:.3}"),
            &show_bytes(node.origin_bytes),
            &show_bytes(node.peer_bytes_in),
            &show_bytes(node.peer_bytes_out),
            &node.peer_failures.to_string(),
            &format!("{:.2} s", node.cpu_ms as f64 / 1e3),
        ]);
    }
    grid.text()
}

fn failures(report: &SwarmReport) -> String {
    let lived = report.results.gets.iter().filter(|get| !get.killed);
    let failed = lived.filter_map(|get| Some((get, get.failure.as_ref()?)));
    let failed = failed.map(|(get, why)| format!("failed: {}: {why}\n", get.node));
    let others = report.results.against.iter().flat_map(|one| {
        one.failures.iter().map(|failure| format!("{} failed: {failure}\n", one.name))
    });
    failed.chain(others).collect()
}
