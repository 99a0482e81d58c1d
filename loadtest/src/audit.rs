//! What a run proves (PURE): how much left the origin, and which thresholds hold.
//!
//! Origin bytes are all that left the origin during the run, not only those of the run's objects:
//! a cache that asks for other paths must not look better for it. What lies elsewhere is shown
//! beside. A threshold whose value could not be measured is missed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    origin::stats::{Counts, StatsDocument},
    sample::{FailureKind, Recorder},
    scenario::run::Limits,
    workload::Catalog,
};

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What the clients saw.
    pub recorder: &'a Recorder,
    /// The objects they asked for.
    pub catalog: &'a Catalog,
    /// Requests they sent.
    pub sent: u64,
    /// With `--origin`: its counts.
    pub counts: Option<CountsAround<'a>>,
}

/// The origin's counts around a run.
#[derive(Clone, Copy, Debug)]
pub struct CountsAround<'a> {
    /// Before the first request.
    pub before: &'a StatsDocument,
    /// After the last; or why they could not be read.
    pub after: Result<&'a StatsDocument, &'a str>,
}

/// The object with the largest ratio of origin bytes to size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorstObject {
    /// Its path.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// Bytes of it that left the origin.
    pub origin_bytes: u64,
    /// Origin bytes by size.
    pub ratio: f64,
}

/// What the origin's counts say about a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OriginUse {
    /// Requests that reached the origin.
    pub requests: u64,
    /// Those it answered with 304.
    pub not_modified: u64,
    /// Body bytes that left it.
    pub origin_bytes: u64,
    /// Of them, for paths that are none of the run's objects.
    pub elsewhere_bytes: u64,
    /// True when it counted more paths than it keeps apart; the worst object is then unknown.
    pub paths_truncated: bool,
    /// Origin bytes by unique bytes; none when no object was received.
    pub origin_ratio: Option<f64>,
    /// The worst single object; none when no byte of any object left the origin.
    pub worst_object: Option<WorstObject>,
    /// Share of the received bytes that did not leave the origin; none without any.
    pub offload_bytes_pct: Option<f64>,
    /// Share of the requests that did not reach the origin; none without any.
    pub offload_requests_pct: Option<f64>,
}

/// Which way a limit works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The value may be as large as the limit.
    Max,
    /// The value may be as small as the limit.
    Min,
}

/// One threshold and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// Which way it works.
    pub bound: Bound,
    /// What was asked for.
    pub limit: f64,
    /// What was measured; none when it could not be.
    pub value: Option<f64>,
    /// Whether it holds.
    pub met: bool,
}

/// Everything that a run proves.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// Sizes of all objects of which at least one request was verified.
    pub unique_bytes: u64,
    /// How many objects that are.
    pub objects_touched: u64,
    /// With `--origin`: the use, or why it is unknown.
    pub origin: Option<Result<OriginUse, String>>,
    /// Every threshold of the run.
    pub checks: Vec<Check>,
}

impl Findings {
    /// Judges a run.
    #[must_use]
    pub fn new(evidence: &Evidence<'_>, limits: &Limits) -> Self {
        let Evidence { recorder, catalog, sent, counts } = *evidence;
        let sizes = recorder.touched().map(|object| catalog.size_bytes(object));
        let (objects_touched, unique_bytes) =
            sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
        let received = Received { requests: sent, bytes: recorder.received_bytes, unique_bytes };
        let origin = counts.map(|counts| origin_use(counts, catalog, received));
        let failures = recorder.failures();
        let wrong = recorder.failures_of(FailureKind::Wrong);
        let checks = checks(limits, failures, wrong, origin.as_ref().and_then(|o| o.as_ref().ok()));
        Self { unique_bytes, objects_touched, origin, checks }
    }

    /// True when every threshold holds.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.met)
    }
}

/// What the clients got, to set the origin's counts against.
#[derive(Clone, Copy, Debug)]
struct Received {
    requests: u64,
    bytes: u64,
    unique_bytes: u64,
}

fn origin_use(
    counts: CountsAround<'_>,
    catalog: &Catalog,
    received: Received,
) -> Result<OriginUse, String> {
    let CountsAround { before, after } = counts;
    let after = after.map_err(str::to_owned)?;
    if before.instance != after.instance {
        return Err("the origin was restarted during the run, so its counts do not compare".into());
    }
    if before.resets != after.resets {
        return Err("the origin's counts were reset during the run, so they do not compare".into());
    }
    let totals = difference(&after.totals, &before.totals);
    let by_object = bytes_by_object(before, after, catalog);
    let own_bytes: u64 = by_object.values().sum();
    let percent_kept = |origin: u64, all: u64| part(origin, all).map(|part| 100.0 * (1.0 - part));
    Ok(OriginUse {
        requests: totals.requests,
        not_modified: totals.not_modified,
        origin_bytes: totals.body_bytes,
        elsewhere_bytes: totals.body_bytes.saturating_sub(own_bytes),
        paths_truncated: after.paths_truncated,
        origin_ratio: part(totals.body_bytes, received.unique_bytes),
        worst_object: worst(&by_object, catalog),
        offload_bytes_pct: percent_kept(totals.body_bytes, received.bytes),
        offload_requests_pct: percent_kept(totals.requests, received.requests),
    })
}

fn part(amount: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| amount as f64 / whole as f64)
}

fn difference(after: &Counts, before: &Counts) -> Counts {
    let Counts { requests, conditional_requests, range_requests, not_modified, body_bytes } =
        *after;
    Counts {
        requests: requests.saturating_sub(before.requests),
        conditional_requests: conditional_requests.saturating_sub(before.conditional_requests),
        range_requests: range_requests.saturating_sub(before.range_requests),
        not_modified: not_modified.saturating_sub(before.not_modified),
        body_bytes: body_bytes.saturating_sub(before.body_bytes),
    }
}

fn bytes_by_object(
    before: &StatsDocument,
    after: &StatsDocument,
    catalog: &Catalog,
) -> BTreeMap<usize, u64> {
    let mut by_object = BTreeMap::new();
    for (path, counts) in &after.paths {
        // A cache may add a query; the object is the same.
        let bare = path.split('?').next().unwrap_or(path);
        let Some(object) = catalog.number(bare) else { continue };
        let known = before.paths.get(path).copied().unwrap_or_default();
        *by_object.entry(object).or_insert(0) += difference(counts, &known).body_bytes;
    }
    by_object
}

fn worst(by_object: &BTreeMap<usize, u64>, catalog: &Catalog) -> Option<WorstObject> {
    let ratios = by_object.iter().filter_map(|(&object, &bytes)| {
        let ratio = part(bytes, catalog.size_bytes(object)).filter(|ratio| *ratio > 0.0)?;
        Some((object, bytes, ratio))
    });
    let (object, origin_bytes, ratio) = ratios.max_by(|a, b| a.2.total_cmp(&b.2))?;
    let size_bytes = catalog.size_bytes(object);
    Some(WorstObject { path: catalog.path(object), size_bytes, origin_bytes, ratio })
}

fn checks(limits: &Limits, failures: u64, wrong: u64, origin: Option<&OriginUse>) -> Vec<Check> {
    let Limits { failures_max, wrong_max, origin_ratio_max, object_ratio_max, offload_min_pct } =
        limits;
    // No object received and no byte taken from the origin: nothing was taken twice.
    let origin_ratio = origin.and_then(|origin| match origin.origin_bytes {
        0 => Some(0.0),
        _ => origin.origin_ratio,
    });
    let object_ratio = origin.filter(|origin| !origin.paths_truncated);
    let object_ratio =
        object_ratio.map(|origin| origin.worst_object.as_ref().map_or(0.0, |worst| worst.ratio));
    let offload = origin.and_then(|origin| origin.offload_bytes_pct);
    let max = |flag, limit, value| check(flag, Bound::Max, limit, value);
    [
        Some(max("max-failures", *failures_max as f64, Some(failures as f64))),
        Some(max("max-wrong", *wrong_max as f64, Some(wrong as f64))),
        origin_ratio_max.map(|limit| max("max-origin-ratio", limit, origin_ratio)),
        object_ratio_max.map(|limit| max("max-object-ratio", limit, object_ratio)),
        offload_min_pct.map(|limit| check("min-offload", Bound::Min, limit, offload)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check(flag: &'static str, bound: Bound, limit: f64, value: Option<f64>) -> Check {
    let met = value.is_some_and(|value| match bound {
        Bound::Max => value <= limit,
        Bound::Min => value >= limit,
    });
    Check { flag, bound, limit, value, met }
}

#[cfg(test)]
mod tests;
