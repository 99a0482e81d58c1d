//! The report for a terminal (PURE): aligned columns, plain text.

use std::fmt::Write as _;

use super::{document::Report, grid::Grid};
use crate::{
    audit::{Bound, Check, OriginUse},
    sample::Times,
    units::{show_bytes, show_us},
};

/// Edges shown one by one; the others are in the JSON form.
const EDGE_ROWS_MAX: usize = 24;

/// The whole table, ending with what became of the thresholds.
#[must_use]
pub fn table(report: &Report) -> String {
    let parts = [
        Some(heading(report)),
        Some(requests(report)),
        Some(times(report)),
        cache_statuses(report),
        Some(edges(report)),
        origin(report),
        uploads(report),
        failures(report),
        Some(thresholds(report)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn heading(report: &Report) -> String {
    let ended = if report.interrupted { ", ended early" } else { "" };
    let received = &report.received;
    format!(
        "{} in {:.1} s{ended}: {} of {} objects, {} received ({}/s), {} unique\n",
        count(report.requests.due, "request"),
        report.elapsed_ms as f64 / 1e3,
        received.objects_touched,
        report.scenario.objects,
        show_bytes(received.bytes),
        show_bytes(received.bytes_per_s as u64),
        show_bytes(received.unique_bytes),
    )
}

fn uploads(report: &Report) -> Option<String> {
    let uploads = report.uploads.as_ref()?;
    let (nodes, sum) = (uploads.bytes.len(), uploads.bytes.iter().sum());
    let busiest = uploads.busiest_by_mean.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
    Some(format!("Uploads of {nodes} nodes: {}, busiest by mean {busiest}\n", show_bytes(sum)))
}

/// A number with its word, in the plural where that is right.
fn count(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

fn requests(report: &Report) -> String {
    let requests = &report.requests;
    let mut grid = Grid::new(&["", "due", "sent", "verified", "failed", "abandoned", "verified/s"]);
    grid.row(&[
        "Requests",
        &requests.due.to_string(),
        &requests.sent.to_string(),
        &requests.verified.to_string(),
        &requests.failed.to_string(),
        &requests.abandoned.to_string(),
        &format!("{:.1}", requests.verified_per_s),
    ]);
    let mut text = grid.text();
    if requests.unfinished > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} in flight when the run was ended", requests.unfinished);
    }
    text
}

fn times(report: &Report) -> String {
    let mut grid = Grid::new(&["Time", "p50", "p90", "p99", "p99.9", "max", "mean"]);
    let rows = [
        ("to last byte", &report.latency),
        ("to first byte", &report.first_byte),
        ("due to sent", &report.send_lag),
    ];
    for (name, times) in rows {
        let Times { count: _, min_us: _, mean_us, p50_us, p90_us, p99_us, p99_9_us, max_us } =
            *times;
        let mean_us = mean_us.round() as u64;
        let cells = [p50_us, p90_us, p99_us, p99_9_us, max_us, mean_us].map(show_us);
        let cells: Vec<&str> = [name].into_iter().chain(cells.iter().map(String::as_str)).collect();
        grid.row(&cells);
    }
    grid.text()
}

fn cache_statuses(report: &Report) -> Option<String> {
    let all_silent = report.cache_statuses.iter().all(|row| row.cache_status == "none");
    if all_silent {
        return None;
    }
    let mut grid = Grid::new(&["Cache-Status", "requests", "share", "received", "p50", "p99"]);
    for row in &report.cache_statuses {
        let name = match row.source {
            "unstated" => row.cache_status.to_owned(),
            source => format!("{} {source}", row.cache_status),
        };
        grid.row(&[
            &name,
            &row.requests.to_string(),
            &format!("{:.1} %", row.requests_pct),
            &show_bytes(row.received_bytes),
            &show_us(row.p50_us),
            &show_us(row.p99_us),
        ]);
    }
    Some(grid.text())
}

fn edges(report: &Report) -> String {
    let mut grid = Grid::new(&["Edge", "verified", "failed", "abandoned", "received"]);
    for row in report.edges.iter().take(EDGE_ROWS_MAX) {
        grid.row(&[
            &row.edge,
            &row.verified.to_string(),
            &row.failed.to_string(),
            &row.abandoned.to_string(),
            &show_bytes(row.received_bytes),
        ]);
    }
    let mut text = grid.text();
    if report.edges.len() > EDGE_ROWS_MAX {
        let _ = writeln!(text, "and {} more, see --json", report.edges.len() - EDGE_ROWS_MAX);
    }
    text
}

fn origin(report: &Report) -> Option<String> {
    if let Some(reason) = &report.origin_unknown_reason {
        return Some(format!("Origin: unknown, {reason}\n"));
    }
    let OriginUse {
        requests,
        not_modified,
        origin_bytes,
        elsewhere_bytes,
        paths_truncated,
        origin_ratio,
        worst_object,
        offload_bytes_pct,
        offload_requests_pct,
    } = report.origin.as_ref()?;
    let percent = |value: &Option<f64>| value.map_or("-".into(), |value| format!("{value:.2} %"));
    let mut grid = Grid::new(&[
        "",
        "requests",
        "304",
        "bytes",
        "bytes/unique",
        "offload (bytes)",
        "offload (requests)",
    ]);
    grid.row(&[
        "Origin",
        &requests.to_string(),
        &not_modified.to_string(),
        &show_bytes(*origin_bytes),
        &origin_ratio.map_or("-".into(), |ratio| format!("{ratio:.4}")),
        &percent(offload_bytes_pct),
        &percent(offload_requests_pct),
    ]);
    let mut text = grid.text();
    if let Some(worst) = worst_object {
        let bytes = show_bytes(worst.origin_bytes);
        let _ = writeln!(
            text,
            "most for one object: {bytes} of {} ({:.2} times) for {}",
            show_bytes(worst.size_bytes),
            worst.ratio,
            worst.path
        );
    }
    if *elsewhere_bytes > 0 {
        let bytes = show_bytes(*elsewhere_bytes);
        let _ = writeln!(text, "of them {bytes} for paths that this run did not ask for");
    }
    if *paths_truncated {
        text.push_str("the origin saw more paths than it counts one by one\n");
    }
    Some(text)
}

fn failures(report: &Report) -> Option<String> {
    if report.requests.failed == 0 {
        return None;
    }
    let mut grid = Grid::new(&["Failures", "count"]);
    for failure in report.failures.iter().filter(|failure| failure.count > 0) {
        grid.row(&[failure.kind.name(), &failure.count.to_string()]);
    }
    let mut text = grid.text();
    text.push_str("the first of each kind:\n");
    for example in &report.failure_examples {
        let edge = example.edge.as_deref().unwrap_or("");
        let _ = writeln!(
            text,
            "  {:>8.3} s  {:<9}  {edge}{}: {}",
            example.at_ms as f64 / 1e3,
            example.kind.name(),
            example.path,
            example.detail
        );
    }
    Some(text)
}

fn thresholds(report: &Report) -> String {
    let mut text = String::from("Thresholds\n");
    for check in &report.thresholds {
        let _ = writeln!(text, "  {}", verdict(check));
    }
    text
}

/// One threshold in one line: met or missed, value, limit.
#[must_use]
pub fn verdict(check: &Check) -> String {
    let Check { flag, bound, limit, value, met } = check;
    let word = if *met { "met   " } else { "missed" };
    let side = match bound {
        Bound::Max => "at most",
        Bound::Min => "at least",
    };
    let value = value.map_or("could not be measured".into(), |value| short(value).to_string());
    format!("{word}  --{flag}: {value}, wanted {side} {}", short(*limit))
}

/// Up to four decimals, none where they are zero.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_name_flag_value_and_limit() {
        let check = Check {
            flag: "max-origin-ratio",
            bound: Bound::Max,
            limit: 1.05,
            value: Some(1.3),
            met: false,
        };
        assert_eq!(verdict(&check), "missed  --max-origin-ratio: 1.3, wanted at most 1.05");
        let check = Check { flag: "min-offload", bound: Bound::Min, value: None, ..check };
        let wanted = "missed  --min-offload: could not be measured, wanted at least 1.05";
        assert_eq!(verdict(&check), wanted);
    }

    #[test]
    fn numbers_lose_only_their_zeros() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(100.0), "100");
        assert_eq!(short(1.0512), "1.0512");
        assert_eq!(count(1, "request"), "1 request");
        assert_eq!(count(0, "request"), "0 requests");
    }
}
