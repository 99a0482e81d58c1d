//! What the index is to reach (PURE): each figure with its least and its aim, and what was measured
//! against them. A figure that was not measured is neither met nor missed.

use serde::Serialize;

use super::results::{Level, Results, ShoalResults};

/// Locates count at the largest rate whose p99 is within this, in microseconds.
const LOCATE_P99_MAX_US: u64 = 2_000;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
}

/// How a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As good as aimed at.
    Aim,
    /// Good enough.
    Met,
    /// Not good enough.
    Missed,
    /// Not measured.
    Unmeasured,
}

/// One figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Target {
    /// What it is.
    pub figure: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What was measured.
    pub value: Option<f64>,
    /// Which way is better.
    pub better: Better,
    /// The least that is good enough.
    pub least: f64,
    /// What is aimed at.
    pub aim: f64,
    /// How it stands.
    pub verdict: Verdict,
}

/// Shoal by etcd, each at its best.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ratios {
    /// Changes, against one put a change.
    pub changes_to_puts: Option<f64>,
    /// Changes, against transactions.
    pub changes_to_txns: Option<f64>,
    /// Locates of one super-node, against linearizable reads of all members: each has the whole
    /// machine.
    pub locates_to_linearizable_reads: Option<f64>,
    /// The same, against serializable reads.
    pub locates_to_serializable_reads: Option<f64>,
    /// Server processor time for a change, against transactions: etcd's by Shoal's.
    pub cpu_per_change: Option<f64>,
}

impl Ratios {
    /// The ratios that `results` allow.
    #[must_use]
    pub fn of(results: &Results) -> Self {
        let Some(etcd) = &results.etcd else { return Self::default() };
        let changes = changes_per_s(&results.shoal);
        let locates = slowest_locates_per_s(&results.shoal);
        let by = |ours: Option<f64>, levels: &[Level]| Some(ours? / best(levels)?.per_s);
        Self {
            changes_to_puts: by(changes, &etcd.puts),
            changes_to_txns: by(changes, &etcd.txns),
            locates_to_linearizable_reads: by(locates, &etcd.linearizable_reads),
            locates_to_serializable_reads: by(locates, &etcd.serializable_reads),
            cpu_per_change: cpu_ratio(&results.shoal, best(&etcd.txns)),
        }
    }
}

/// The level with the largest rate.
#[must_use]
pub fn best(levels: &[Level]) -> Option<&Level> {
    let worked = levels.iter().filter(|level| level.per_s > 0.0);
    worked.max_by(|a, b| a.per_s.total_cmp(&b.per_s))
}

/// Changes a second over all loads of the main index.
#[must_use]
pub fn changes_per_s(shoal: &ShoalResults) -> Option<f64> {
    let holders = shoal.loads.first()?.holders_per_object;
    let loads = || shoal.loads.iter().filter(|load| load.holders_per_object == holders);
    let changes: u64 = loads().map(|load| load.records_after - load.records_before).sum();
    let elapsed_ms: u64 = loads().map(|load| load.cost.elapsed_ms).sum();
    (elapsed_ms > 0).then(|| changes as f64 * 1e3 / elapsed_ms as f64)
}

fn cpu_ratio(shoal: &ShoalResults, txns: Option<&Level>) -> Option<f64> {
    let ours = shoal.loads.first()?;
    let changes = ours.records_after - ours.records_before;
    let theirs = txns?;
    let puts = theirs.times.count * theirs.units_per_call as u64;
    let each = |cpu_ms: u64, count: u64| (count > 0).then(|| cpu_ms as f64 / count as f64);
    let ours = each(ours.cost.server_cpu_ms, changes).filter(|each| *each > 0.0)?;
    Some(each(theirs.cost.server_cpu_ms, puts)? / ours)
}

/// Each super-node at its best level with p99 in bounds; of these the slowest.
#[must_use]
pub fn slowest_locates_per_s(shoal: &ShoalResults) -> Option<f64> {
    let mut names: Vec<&str> = shoal.locates.iter().map(|level| level.server.as_str()).collect();
    names.dedup();
    let of = |name: &&str| {
        let in_bounds =
            |level: &&Level| level.server == **name && level.times.p99_us <= LOCATE_P99_MAX_US;
        let rates = shoal.locates.iter().filter(in_bounds).map(|level| level.per_s);
        rates.max_by(f64::total_cmp)
    };
    // One that never is within bounds counts as none at all.
    let all: Option<Vec<f64>> = names.iter().map(|name| Some(of(name).unwrap_or(0.0))).collect();
    all?.into_iter().min_by(f64::total_cmp)
}

/// Every figure of `results`.
#[must_use]
pub fn judge(results: &Results) -> Vec<Target> {
    let shoal = &results.shoal;
    let ms = |us: u64| us as f64 / 1e3;
    let purges = shoal.purges.as_ref().filter(|purges| purges.times.count > 0);
    let failovers = shoal.failovers.as_ref().filter(|kills| kills.times.count > 0);
    let pauses = shoal.pauses.as_ref().filter(|pauses| pauses.snapshots > 0);
    let longest = pauses.map(|found| found.longest_apply_pause_us.unwrap_or(found.times.max_us));
    // The widest layout of the largest index: complete holders, several an object.
    let footprint = shoal.footprints.iter().max_by_key(|found| found.records);
    let ratio = Ratios::of(results).changes_to_txns;
    let higher = |figure, unit, value, least, aim| {
        target((figure, unit), Better::Higher, value, (least, aim))
    };
    let lower = |figure, unit, value, least, aim| {
        target((figure, unit), Better::Lower, value, (least, aim))
    };
    vec![
        higher("holder changes, durable", "/s", changes_per_s(shoal), 200_000.0, 1_000_000.0),
        higher("ratio to etcd's transactions", "x", ratio, 5.0, 20.0),
        higher(
            "locates of a super-node, p99 <= 2 ms",
            "/s",
            slowest_locates_per_s(shoal),
            50_000.0,
            150_000.0,
        ),
        lower(
            "state on disk for a complete holder",
            "bytes",
            footprint.map(|found| found.state_bytes_per_record),
            48.0,
            16.0,
        ),
        lower("purge, p99", "ms", purges.map(|p| ms(p.times.p99_us)), 100.0, 20.0),
        lower(
            "leader killed to next write, p99",
            "ms",
            failovers.map(|f| ms(f.times.p99_us)),
            1_500.0,
            1_500.0,
        ),
        lower(
            "leader killed to next write, p50",
            "ms",
            failovers.map(|f| ms(f.times.p50_us)),
            1_500.0,
            500.0,
        ),
        lower("longest pause of applies", "ms", longest.map(ms), 100.0, 20.0),
    ]
}

fn target(
    (figure, unit): (&'static str, &'static str),
    better: Better,
    value: Option<f64>,
    (least, aim): (f64, f64),
) -> Target {
    let reaches = |value: f64, wanted: f64| match better {
        Better::Higher => value >= wanted,
        Better::Lower => value <= wanted,
    };
    let verdict = match value {
        None => Verdict::Unmeasured,
        Some(value) if reaches(value, aim) => Verdict::Aim,
        Some(value) if reaches(value, least) => Verdict::Met,
        Some(_) => Verdict::Missed,
    };
    Target { figure, unit, value, better, least, aim, verdict }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        index::results::{Cost, EtcdResults, Load},
        sample::{Latency, Times},
    };

    fn times(us: u64) -> Times {
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(us));
        Times::from(&latency)
    }

    fn level(server: &str, per_s: f64, p99_us: u64) -> Level {
        Level {
            server: server.to_owned(),
            in_flight: 1,
            units_per_call: 1,
            per_s,
            times: times(p99_us),
            failures: 0,
            failure: None,
            cost: Cost::default(),
        }
    }

    fn load(records: u64, elapsed_ms: u64) -> Load {
        Load {
            holders_per_object: 10,
            records_before: 0,
            records_after: records,
            changes_per_call: 1,
            in_flight: 1,
            changes_per_s: 0.0,
            times: times(1),
            failures: 0,
            failure: None,
            cost: Cost { elapsed_ms, ..Cost::default() },
        }
    }

    #[test]
    fn the_slowest_super_node_counts_and_late_answers_do_not() {
        let levels =
            vec![level("a", 60_000.0, 900), level("a", 90_000.0, 2_500), level("b", 70_000.0, 900)];
        let mut shoal = ShoalResults { locates: levels, ..ShoalResults::default() };
        assert_eq!(slowest_locates_per_s(&shoal), Some(60_000.0));
        shoal.locates.push(level("c", 99_000.0, 3_000));
        assert_eq!(slowest_locates_per_s(&shoal), Some(0.0));
        assert_eq!(slowest_locates_per_s(&ShoalResults::default()), None);
    }

    #[test]
    fn ratios_take_etcd_at_its_best() {
        let shoal = ShoalResults {
            loads: vec![load(100_000, 500), load(100_000, 1_500)],
            ..ShoalResults::default()
        };
        let etcd = EtcdResults {
            puts: vec![level("all", 1_000.0, 1), level("all", 10_000.0, 1)],
            txns: vec![level("all", 50_000.0, 1)],
            ..EtcdResults::default()
        };
        let results = Results { shoal, etcd: Some(etcd), ..Results::default() };
        let ratios = Ratios::of(&results);
        assert_eq!(changes_per_s(&results.shoal), Some(100_000.0));
        assert_eq!(ratios.changes_to_puts, Some(10.0));
        assert_eq!(ratios.changes_to_txns, Some(2.0));
        assert_eq!(ratios.locates_to_serializable_reads, None);
    }

    #[test]
    fn verdicts_follow_the_better_side() {
        let verdict = |better, value| target(("f", "u"), better, value, (100.0, 20.0)).verdict;
        assert_eq!(verdict(Better::Lower, Some(20.0)), Verdict::Aim);
        assert_eq!(verdict(Better::Lower, Some(99.0)), Verdict::Met);
        assert_eq!(verdict(Better::Lower, Some(101.0)), Verdict::Missed);
        assert_eq!(verdict(Better::Lower, None), Verdict::Unmeasured);
        let nothing = judge(&Results::default());
        assert!(nothing.iter().all(|target| target.verdict == Verdict::Unmeasured));
        assert_eq!(nothing.len(), 8);
    }
}
