//! The report as a document. Names carry units; times of requests are in microseconds.

use serde::Serialize;

use crate::{
    audit::{Check, Findings, OriginUse},
    clock,
    driver::{Outcome, uploads::Uploads},
    play::Mark,
    sample::{FailureKind, Latency, Recorder, Times, timeline::Second},
    scenario::{Scenario, cli::Spacing, run::EdgeSource, sizes::SizeClass},
};

/// Changes when a key is removed or means something else.
pub const REPORT_VERSION: u32 = 1;

/// Points of the latency curve for each power of ten.
const CURVE_POINTS_PER_DECADE: u32 = 8;
/// The curve ends at 99.999 %, or where the number of requests ends.
const CURVE_DECADES_MAX: u32 = 5;

/// Everything there is to say about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub report_version: u32,
    /// Version of the tool.
    pub tool_version: &'static str,
    /// When the report was made.
    pub made_at_unix_ms: u64,
    /// True when every threshold holds.
    pub ok: bool,
    /// True when the run was ended early.
    pub interrupted: bool,
    /// From the first request's due moment to the last reply.
    pub elapsed_ms: u64,
    /// What was asked for.
    pub scenario: Asked,
    /// How many requests there were.
    pub requests: Requests,
    /// What was received.
    pub received: Received,
    /// Due moment to last byte, of verified requests.
    pub latency: Times,
    /// Due moment to first byte, of verified requests.
    pub first_byte: Times,
    /// Due moment to sending, of all requests sent.
    pub send_lag: Times,
    /// Latency by percentile.
    pub latency_curve: Vec<CurvePoint>,
    /// Failures by kind, every kind listed.
    pub failures: Vec<FailureCount>,
    /// The first failures of each kind.
    pub failure_examples: Vec<FailureExample>,
    /// Verified requests by what the nearest cache said.
    pub cache_statuses: Vec<CacheStatusSums>,
    /// By edge.
    pub edges: Vec<EdgeReport>,
    /// What the origin's counts say; none without `--origin`, or when they do not compare.
    pub origin: Option<OriginUse>,
    /// Why they do not compare.
    pub origin_unknown_reason: Option<String>,
    /// What nodes sent to one another; none without `--admins`, or when one did not say.
    pub uploads: Option<Uploads>,
    /// Every threshold.
    pub thresholds: Vec<Check>,
    /// By second of the run.
    pub timeline: Vec<Second>,
    /// What was done to the cluster meanwhile; none when it was left alone.
    pub marks: Vec<Mark>,
}

/// The scenario, as far as it shapes the result.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `--duration`
    pub duration_ms: u64,
    /// `--rate`
    pub rate_per_s: f64,
    /// `--arrivals`
    pub arrivals: Spacing,
    /// `--objects`
    pub objects: usize,
    /// `--zipf`
    pub zipf_exponent: f64,
    /// `--sizes`
    pub sizes: Vec<SizeClass>,
    /// `--seed`
    pub content_seed: u64,
    /// `--workload-seed`
    pub workload_seed: u64,
    /// `--prefix`
    pub prefix: String,
    /// `--host`
    pub host: Option<String>,
    /// `--origin`
    pub origin: Option<String>,
    /// `--max-in-flight`
    pub in_flight_max: usize,
    /// `--timeout`
    pub timeout_ms: u64,
    /// `--edge-down-grace`; none without `--edges-file`.
    pub edge_down_grace_ms: Option<u64>,
}

/// Counts of requests. `due` is the sum of `sent` and the failures of kind `unsent`; `sent` is the
/// sum of `verified`, `abandoned`, `unfinished` and all other failures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Requests {
    /// Due within the run.
    pub due: u64,
    /// Sent.
    pub sent: u64,
    /// Every byte was right.
    pub verified: u64,
    /// Of any kind.
    pub failed: u64,
    /// Their edge went away.
    pub abandoned: u64,
    /// Cut off by an interruption.
    pub unfinished: u64,
    /// Times that one was sent again with `--resend`.
    pub resent: u64,
    /// Verified requests per second.
    pub verified_per_s: f64,
}

/// What was received.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Received {
    /// Body bytes, failed requests' too.
    pub bytes: u64,
    /// The same per second.
    pub bytes_per_s: f64,
    /// Objects of which at least one request was verified.
    pub objects_touched: u64,
    /// Their sizes together.
    pub unique_bytes: u64,
}

/// One point of the latency curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CurvePoint {
    /// Share of requests at or below.
    pub percentile: f64,
    /// Their latency.
    pub latency_us: u64,
    /// Their time to the first byte.
    pub first_byte_us: u64,
}

/// Failures of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FailureCount {
    /// Which kind.
    pub kind: FailureKind,
    /// How many.
    pub count: u64,
}

/// One failure.
#[derive(Clone, Debug, Serialize)]
pub struct FailureExample {
    /// Which kind.
    pub kind: FailureKind,
    /// Where it was sent.
    pub edge: Option<String>,
    /// What was asked for.
    pub path: String,
    /// When it failed, from the run's start.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
}

/// Verified requests with one cache status.
#[derive(Clone, Debug, Serialize)]
pub struct CacheStatusSums {
    /// `hit`, `fwd=...`, `unstated` or `none`.
    pub cache_status: &'static str,
    /// `memory`, `disk`, `peer`, `origin` or `unstated`.
    pub source: &'static str,
    /// How many.
    pub requests: u64,
    /// Share of all verified requests.
    pub requests_pct: f64,
    /// Body bytes.
    pub received_bytes: u64,
    /// Their median latency.
    pub p50_us: u64,
    /// 99 % lie at or below.
    pub p99_us: u64,
}

/// Sums of one edge.
#[derive(Clone, Debug, Serialize)]
pub struct EdgeReport {
    /// Its address.
    pub edge: String,
    /// Requests verified.
    pub verified: u64,
    /// Requests failed.
    pub failed: u64,
    /// Requests abandoned.
    pub abandoned: u64,
    /// Body bytes.
    pub received_bytes: u64,
}

impl Report {
    /// Puts together what a run was, what came of it and what that proves.
    #[must_use]
    pub fn new(scenario: &Scenario, outcome: &Outcome, findings: Findings) -> Self {
        let recorder = &outcome.recorder;
        let ok = findings.ok();
        let Findings { unique_bytes, objects_touched, origin, checks } = findings;
        let (origin, origin_unknown_reason) = match origin {
            Some(Ok(origin)) => (Some(origin), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        let per_s = |amount: u64| amount as f64 / outcome.elapsed.as_secs_f64().max(1e-6);
        Self {
            report_version: REPORT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION"),
            made_at_unix_ms: clock::wall_unix_ms(),
            ok,
            interrupted: outcome.interrupted,
            elapsed_ms: ms(outcome.elapsed),
            scenario: Asked::from(scenario),
            requests: Requests {
                due: outcome.due,
                sent: outcome.sent,
                verified: recorder.verified,
                failed: recorder.failures(),
                abandoned: recorder.abandoned,
                unfinished: outcome.unfinished(),
                resent: recorder.resent,
                verified_per_s: per_s(recorder.verified),
            },
            received: Received {
                bytes: recorder.received_bytes,
                bytes_per_s: per_s(recorder.received_bytes),
                objects_touched,
                unique_bytes,
            },
            latency: Times::from(&recorder.latency),
            first_byte: Times::from(&recorder.first_byte),
            send_lag: Times::from(&recorder.send_lag),
            latency_curve: curve(&recorder.latency, &recorder.first_byte),
            failures: FailureKind::ALL
                .map(|kind| FailureCount { kind, count: recorder.failures_of(kind) })
                .to_vec(),
            failure_examples: examples(outcome),
            cache_statuses: cache_statuses(recorder),
            edges: edges(outcome),
            origin,
            origin_unknown_reason,
            uploads: None,
            thresholds: checks,
            timeline: recorder.timeline.seconds().to_vec(),
            marks: Vec::new(),
        }
    }

    /// The JSON form, with a final line break.
    ///
    /// # Errors
    /// Never in practice: the document's keys are texts.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Scenario> for Asked {
    fn from(scenario: &Scenario) -> Self {
        let edge_down_grace_ms = match &scenario.edges {
            EdgeSource::Fixed(_) => None,
            EdgeSource::File { down_grace, .. } => Some(ms(*down_grace)),
        };
        Self {
            duration_ms: ms(scenario.duration),
            rate_per_s: scenario.rate_per_s,
            arrivals: scenario.spacing,
            objects: scenario.objects,
            zipf_exponent: scenario.zipf_exponent,
            sizes: scenario.sizes.classes().to_vec(),
            content_seed: scenario.seed,
            workload_seed: scenario.workload_seed,
            prefix: scenario.prefix.clone(),
            host: scenario.host.clone(),
            origin: scenario.origin.as_ref().map(ToString::to_string),
            in_flight_max: scenario.in_flight_max,
            timeout_ms: ms(scenario.timeout),
            edge_down_grace_ms,
        }
    }
}

/// Points that are evenly spread on a scale of nines, as far as there are requests to tell.
fn curve(latency: &Latency, first_byte: &Latency) -> Vec<CurvePoint> {
    let points = 0..=CURVE_POINTS_PER_DECADE * CURVE_DECADES_MAX;
    let above = |point: u32| 10_f64.powf(-f64::from(point) / f64::from(CURVE_POINTS_PER_DECADE));
    points
        .map(above)
        .take_while(|above| above * latency.count() as f64 >= 1.0)
        .map(|above| CurvePoint {
            percentile: 100.0 * (1.0 - above),
            latency_us: latency.quantile_us(1.0 - above),
            first_byte_us: first_byte.quantile_us(1.0 - above),
        })
        .collect()
}

fn examples(outcome: &Outcome) -> Vec<FailureExample> {
    let examples = outcome.recorder.examples.iter().map(|example| FailureExample {
        kind: example.failure.kind,
        edge: example.edge.and_then(|edge| outcome.edges.get(edge)).map(ToString::to_string),
        path: outcome.catalog.path(example.object),
        at_ms: ms(example.at),
        detail: example.failure.detail.clone(),
    });
    examples.collect()
}

fn cache_statuses(recorder: &Recorder) -> Vec<CacheStatusSums> {
    let mut rows: Vec<CacheStatusSums> = recorder
        .statuses
        .iter()
        .map(|(status, sums)| CacheStatusSums {
            cache_status: status.handling.name(),
            source: status.source.name(),
            requests: sums.latency.count(),
            requests_pct: 100.0 * sums.latency.count() as f64 / recorder.verified.max(1) as f64,
            received_bytes: sums.received_bytes,
            p50_us: sums.latency.quantile_us(0.5),
            p99_us: sums.latency.quantile_us(0.99),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.requests));
    rows
}

fn edges(outcome: &Outcome) -> Vec<EdgeReport> {
    let edges = outcome.edges.iter().enumerate().map(|(number, edge)| {
        let sums = outcome.recorder.edges.get(number).copied().unwrap_or_default();
        EdgeReport {
            edge: edge.to_string(),
            verified: sums.verified,
            failed: sums.failed,
            abandoned: sums.abandoned,
            received_bytes: sums.received_bytes,
        }
    });
    edges.collect()
}
