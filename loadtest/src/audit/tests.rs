//! Origin counts and what is concluded from them.

use std::time::Duration;

use super::*;
use crate::sample::{CacheStatus, Failure, Sample};

/// Two objects, of 1000 and 100 bytes.
fn catalog() -> Catalog {
    Catalog::new("load", 1, vec![1000, 100])
}

fn counts(paths: &[(&str, u64)]) -> StatsDocument {
    let mut document = StatsDocument { instance: "i".into(), ..StatsDocument::default() };
    for (path, body_bytes) in paths {
        let counts = Counts { requests: 1, body_bytes: *body_bytes, ..Counts::default() };
        document.paths.insert((*path).to_owned(), counts);
        document.totals.requests += 1;
        document.totals.body_bytes += body_bytes;
    }
    document
}

/// A run whose evidence a test can change before it is judged.
struct Run {
    recorder: Recorder,
    catalog: Catalog,
    before: StatsDocument,
    after: StatsDocument,
}

/// Ten verified requests for each of the two objects.
fn run(before: StatsDocument, after: StatsDocument) -> Run {
    let catalog = catalog();
    let mut recorder = Recorder::new(2);
    for object in [0, 1] {
        (0..10).for_each(|_| recorder.record(sample(object, &catalog, None), false));
    }
    Run { recorder, catalog, before, after }
}

impl Run {
    fn judge(&self, limits: &Limits) -> Findings {
        let Self { recorder, catalog, before, after } = self;
        let counts = Some(CountsAround { before, after: Ok(after) });
        Findings::new(&Evidence { recorder, catalog, sent: 20, counts }, limits)
    }
}

fn sample(object: usize, catalog: &Catalog, failure: Option<FailureKind>) -> Sample {
    Sample {
        edge: 0,
        object,
        intended: Duration::ZERO,
        sent: Duration::ZERO,
        first_byte: None,
        finished: Duration::ZERO,
        received_bytes: catalog.size_bytes(object),
        resent: 0,
        cache_status: CacheStatus::default(),
        failure: failure.map(|kind| Failure::new(kind, "")),
    }
}

const LIMITS: Limits = Limits {
    failures_max: 0,
    wrong_max: 0,
    origin_ratio_max: Some(1.05),
    object_ratio_max: Some(1.5),
    offload_min_pct: Some(80.0),
};

fn missed(findings: &Findings) -> Vec<&'static str> {
    findings.checks.iter().filter(|check| !check.met).map(|check| check.flag).collect()
}

#[test]
fn each_byte_once_is_a_ratio_of_one() {
    let before = counts(&[("/o/1000/load-1-0", 5000), ("/", 7)]);
    let after = counts(&[("/o/1000/load-1-0", 6000), ("/o/100/load-1-1", 100), ("/", 7)]);
    let findings = run(before, after).judge(&LIMITS);
    let origin = findings.origin.as_ref().unwrap().as_ref().unwrap();
    assert_eq!((findings.unique_bytes, findings.objects_touched), (1100, 2));
    assert_eq!((origin.requests, origin.origin_bytes, origin.elsewhere_bytes), (1, 1100, 0));
    assert_eq!(origin.origin_ratio, Some(1.0));
    assert_eq!(origin.offload_bytes_pct, Some(90.0));
    assert_eq!(origin.offload_requests_pct, Some(95.0));
    assert!(findings.ok(), "{:?}", missed(&findings));
}

#[test]
fn the_worst_object_is_named_even_if_it_is_small() {
    let after = counts(&[("/o/1000/load-1-0", 900), ("/o/100/load-1-1", 200)]);
    let findings = run(counts(&[]), after).judge(&LIMITS);
    let origin = findings.origin.as_ref().unwrap().as_ref().unwrap();
    let worst = origin.worst_object.as_ref().unwrap();
    assert_eq!((worst.path.as_str(), worst.origin_bytes), ("/o/100/load-1-1", 200));
    assert_eq!(missed(&findings), ["max-object-ratio"]);
}

#[test]
fn bytes_at_other_paths_count_and_are_shown() {
    let after = counts(&[("/o/1000/load-1-0", 1000), ("/o/1000/other", 500)]);
    let findings = run(counts(&[]), after).judge(&LIMITS);
    let origin = findings.origin.as_ref().unwrap().as_ref().unwrap();
    assert_eq!((origin.origin_bytes, origin.elsewhere_bytes), (1500, 500));
    assert_eq!(missed(&findings), ["max-origin-ratio"]);
}

#[test]
fn queries_that_a_cache_adds_belong_to_their_object() {
    let after = counts(&[("/o/1000/load-1-0", 1000), ("/o/1000/load-1-0?x=1", 1000)]);
    let findings = run(counts(&[]), after).judge(&LIMITS);
    let origin = findings.origin.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(origin.worst_object.as_ref().unwrap().origin_bytes, 2000);
}

#[test]
fn counts_that_do_not_compare_miss_every_threshold_that_needs_them() {
    let needing = ["max-origin-ratio", "max-object-ratio", "min-offload"];
    let restarted = StatsDocument { instance: "j".into(), ..counts(&[]) };
    let reset = StatsDocument { resets: 1, ..counts(&[]) };
    for (after, word) in [(restarted, "restarted"), (reset, "reset")] {
        let findings = run(counts(&[]), after).judge(&LIMITS);
        let reason = findings.origin.as_ref().unwrap().as_ref().unwrap_err();
        assert!(reason.contains(word), "{reason}");
        assert_eq!(missed(&findings), needing);
    }
}

#[test]
fn counts_that_cannot_be_read_are_said_and_miss_their_thresholds() {
    let run = run(counts(&[]), counts(&[]));
    let counts = CountsAround { before: &run.before, after: Err("no answer") };
    let Run { recorder, catalog, .. } = &run;
    let evidence = Evidence { recorder, catalog, sent: 20, counts: Some(counts) };
    let findings = Findings::new(&evidence, &LIMITS);
    assert_eq!(findings.origin, Some(Err("no answer".to_owned())));
    assert_eq!(missed(&findings), ["max-origin-ratio", "max-object-ratio", "min-offload"]);
}

#[test]
fn truncated_paths_leave_the_worst_object_unknown() {
    let after = StatsDocument { paths_truncated: true, ..counts(&[("/o/100/load-1-1", 100)]) };
    let findings = run(counts(&[]), after).judge(&LIMITS);
    assert_eq!(missed(&findings), ["max-object-ratio"]);
}

#[test]
fn a_warm_cache_takes_nothing_and_meets_everything() {
    let findings = run(counts(&[]), counts(&[])).judge(&LIMITS);
    assert!(findings.ok(), "{:?}", missed(&findings));
}

#[test]
fn wrong_bytes_miss_both_their_thresholds_and_an_allowance_is_kept() {
    let mut run = run(counts(&[]), counts(&[]));
    let wrong = sample(0, &catalog(), Some(FailureKind::Wrong));
    run.recorder.record(wrong, false);
    assert_eq!(missed(&run.judge(&LIMITS)), ["max-failures", "max-wrong"]);
    let allowing = Limits { failures_max: 1, wrong_max: 1, ..LIMITS };
    assert!(run.judge(&allowing).ok());
}

#[test]
fn bytes_taken_for_nothing_are_no_success() {
    let mut run = run(counts(&[]), counts(&[("/o/1000/load-1-0", 1000)]));
    run.recorder = Recorder::new(2);
    let findings = run.judge(&LIMITS);
    assert_eq!(missed(&findings), ["max-origin-ratio", "min-offload"]);
}
