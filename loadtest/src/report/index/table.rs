//! The benchmark's report for a terminal (PURE). The same sections make up the HTML page.

use std::fmt::Write as _;

use super::document::IndexReport;
use crate::{
    index::{
        results::{Cost, Level},
        targets::{Better, Target, Verdict},
    },
    report::grid::Grid,
    units::{show_bytes, show_us},
};

/// A titled table: a heading and rows of cells.
#[derive(Clone, Debug)]
pub struct Section {
    /// What it shows.
    pub title: &'static str,
    /// Names of the columns.
    pub heading: Vec<&'static str>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// The whole table.
#[must_use]
pub fn table(report: &IndexReport) -> String {
    let mut text = heading(report);
    for section in sections(report) {
        let heading: Vec<&str> =
            [section.title].into_iter().chain(section.heading.into_iter().skip(1)).collect();
        let mut grid = Grid::new(&heading);
        for row in &section.rows {
            grid.row(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text.push('\n');
        text.push_str(&grid.text());
    }
    for failure in &report.failures {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nnot measured: {}: {}", failure.phase, failure.reason);
    }
    text
}

/// One line on what ran where.
#[must_use]
pub fn heading(report: &IndexReport) -> String {
    let ended = if report.interrupted { ", ended early" } else { "" };
    let debug = if report.machine.debug_build { ", built without optimisation" } else { "" };
    let security = if report.scenario.insecure { "plain text" } else { "mutual TLS" };
    format!(
        "{} super-nodes, {} members, {security}; {} cores, load {:.1} before; {:.0} s{ended}{debug}\n",
        report.scenario.super_nodes,
        report.scenario.members,
        report.machine.cores,
        report.machine.load_before,
        report.elapsed_ms as f64 / 1e3,
    )
}

/// All sections that have rows.
#[must_use]
pub fn sections(report: &IndexReport) -> Vec<Section> {
    let sections = [
        targets(report),
        ratios(report),
        loads(report),
        footprints(report),
        levels("Locates", &report.shoal.locates),
        levels("Leases", &report.shoal.leases),
        events(report),
        etcd(report),
    ];
    sections.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

fn targets(report: &IndexReport) -> Section {
    let row = |target: &Target| {
        let side = match target.better {
            Better::Higher => "at least",
            Better::Lower => "at most",
        };
        let verdict = match target.verdict {
            Verdict::Aim => "aim reached",
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Unmeasured => "-",
        };
        vec![
            target.figure.to_owned(),
            target
                .value
                .map_or("-".to_owned(), |value| format!("{} {}", short(value), target.unit)),
            format!("{side} {}", short(target.least)),
            short(target.aim),
            verdict.to_owned(),
        ]
    };
    Section {
        title: "Figure",
        heading: vec!["Figure", "measured", "wanted", "aim", ""],
        rows: report.targets.iter().map(row).collect(),
    }
}

fn ratios(report: &IndexReport) -> Section {
    let ratios = &report.ratios;
    let all = [
        ("changes, to puts", ratios.changes_to_puts),
        ("changes, to transactions", ratios.changes_to_txns),
        ("locates, to linearizable reads", ratios.locates_to_linearizable_reads),
        ("locates, to serializable reads", ratios.locates_to_serializable_reads),
        ("less server CPU for a change", ratios.cpu_per_change),
    ];
    let rows = all.into_iter().filter_map(|(name, ratio)| {
        ratio.map(|ratio| vec![name.to_owned(), format!("{} x", short(ratio))])
    });
    Section { title: "Shoal by etcd", heading: vec!["ratio", ""], rows: rows.collect() }
}

fn loads(report: &IndexReport) -> Section {
    let rows = report.shoal.loads.iter().map(|load| {
        let mut row = vec![
            format!("{} to {}", load.records_before, load.records_after),
            load.holders_per_object.to_string(),
            format!("{} x {}", load.in_flight, load.changes_per_call),
            short(load.changes_per_s),
            show_us(load.times.p50_us),
            show_us(load.times.p99_us),
            load.failures.to_string(),
        ];
        row.extend(cost(&load.cost, load.records_after - load.records_before));
        row
    });
    let mut heading =
        vec!["Records loaded", "holders", "in flight", "changes/s", "p50", "p99", "failed"];
    heading.extend(COST);
    Section { title: "Records loaded", heading, rows: rows.collect() }
}

fn footprints(report: &IndexReport) -> Section {
    let rows = report.shoal.footprints.iter().map(|found| {
        vec![
            found.records.to_string(),
            found.holders_per_object.to_string(),
            format!("{:.1}", found.state_bytes_per_record),
            format!("{:.1}", found.disk_bytes_per_record),
            format!("{:.1}", found.memory_bytes_per_record),
            show_bytes(found.rss_loaded_bytes),
            show_bytes(found.rss_restarted_bytes),
            format!("{:.1} s", found.restart_ms as f64 / 1e3),
        ]
    });
    Section {
        title: "Bytes a record",
        heading: vec![
            "Records",
            "holders",
            "state",
            "all on disk",
            "memory",
            "rss",
            "rss restarted",
            "restart",
        ],
        rows: rows.collect(),
    }
}

const COST: [&str; 3] = ["server cpu", "client cpu", "rss"];

/// Processor time for a unit of work, and memory.
fn cost(cost: &Cost, units: u64) -> Vec<String> {
    let each = |ms: u64| match units {
        0 => "-".to_owned(),
        _ => format!("{} µs", short(ms as f64 * 1e3 / units as f64)),
    };
    vec![each(cost.server_cpu_ms), each(cost.client_cpu_ms), show_bytes(cost.server_rss_bytes)]
}

fn levels(title: &'static str, levels: &[Level]) -> Section {
    let mut heading = vec!["server", "in flight", "a second", "p50", "p99", "failed"];
    heading.extend(COST);
    Section { title, heading, rows: levels.iter().map(|row| level(&row.server, row)).collect() }
}

fn level(name: &str, level: &Level) -> Vec<String> {
    let in_flight = match level.units_per_call {
        1 => level.in_flight.to_string(),
        units => format!("{} x {units}", level.in_flight),
    };
    let mut row = vec![
        name.to_owned(),
        in_flight,
        short(level.per_s),
        show_us(level.times.p50_us),
        show_us(level.times.p99_us),
        level.failures.to_string(),
    ];
    row.extend(cost(&level.cost, level.times.count * level.units_per_call as u64));
    row
}

fn events(report: &IndexReport) -> Section {
    let mut rows = Vec::new();
    let shoal = &report.shoal;
    let mut add = |name: String, times: &crate::sample::Times, failures: u64| {
        let mut row = vec![name, times.count.to_string()];
        row.extend([times.p50_us, times.p99_us, times.max_us].map(show_us));
        row.push(failures.to_string());
        rows.push(row);
    };
    if let Some(found) = &shoal.purges {
        add(format!("purge, {} sessions", found.sessions), &found.times, found.failures);
    }
    if let Some(found) = &shoal.failovers {
        add("leader killed to next write".to_owned(), &found.times, found.failures);
        add("killed one back".to_owned(), &found.back_times, 0);
    }
    if let Some(found) = &shoal.pauses {
        let name = format!("between writes, {} snapshots", found.snapshots);
        add(name, &found.times, found.failures);
    }
    if let Some(longest) = shoal.pauses.as_ref().and_then(|found| found.longest_apply_pause_us) {
        let mut row = vec!["longest apply, as they say".to_owned()];
        row.extend(["-", "-", "-"].map(str::to_owned));
        row.extend([show_us(longest), "-".to_owned()]);
        rows.push(row);
    }
    let heading = vec!["Time", "count", "p50", "p99", "max", "failed"];
    Section { title: "Time", heading, rows }
}

fn etcd(report: &IndexReport) -> Section {
    let mut rows = Vec::new();
    if let Some(etcd) = &report.etcd {
        let all = [
            ("put", &etcd.puts),
            ("transaction", &etcd.txns),
            ("linearizable read", &etcd.linearizable_reads),
            ("serializable read", &etcd.serializable_reads),
        ];
        for (name, levels) in all {
            rows.extend(levels.iter().map(|row| level(name, row)));
        }
    }
    let mut heading = vec!["etcd", "in flight", "a second", "p50", "p99", "failed"];
    heading.extend(COST);
    Section { title: "etcd", heading, rows }
}

/// A number as people read it: few digits, thousands apart.
fn short(value: f64) -> String {
    if value < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(short(1_234_567.8), "1,234,568");
        assert_eq!(short(200_000.0), "200,000");
        assert_eq!(short(123.4), "123");
        assert_eq!(short(20.0), "20");
        assert_eq!(short(1.234), "1.23");
    }
}
