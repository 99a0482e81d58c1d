//! The sums over all requests of a run (PURE).
//!
//! Invariant: every sample is exactly one of verified, failed (of one kind) or abandoned. Only
//! verified requests enter the latency histograms; failures are counted beside them, so that a
//! fast refusal makes no latency look better.

use std::{collections::BTreeMap, time::Duration};

use super::{CacheStatus, Failure, FailureKind, Latency, Sample, timeline::Timeline};

/// Failures of one kind kept with their details; the others are only counted. The bound is by
/// kind, so that a flood of one does not hide another.
pub const FAILURE_EXAMPLES_PER_KIND_MAX: usize = 3;

/// Failures kept with their details until somebody takes them.
pub const RECENT_FAILURES_MAX: usize = 64;

/// One failed request, to be looked into.
#[derive(Clone, Debug)]
pub struct Example {
    /// Number of the edge; none for a request that was never sent.
    pub edge: Option<usize>,
    /// Number of the object.
    pub object: usize,
    /// When it failed.
    pub at: Duration,
    /// How.
    pub failure: Failure,
}

/// Sums for one edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeSums {
    /// Verified requests.
    pub verified: u64,
    /// Failed requests.
    pub failed: u64,
    /// Abandoned requests.
    pub abandoned: u64,
    /// Body bytes received from it.
    pub received_bytes: u64,
}

/// Sums for one [`CacheStatus`].
#[derive(Clone, Debug, Default)]
pub struct StatusSums {
    /// Body bytes.
    pub received_bytes: u64,
    /// Latency of its requests; their number too.
    pub latency: Latency,
}

/// The sums; see the module.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// Verified requests.
    pub verified: u64,
    /// Requests whose edge went away while they were in flight.
    pub abandoned: u64,
    /// Times that a request was sent again, after a connection that had served before was closed
    /// without a byte.
    pub resent: u64,
    /// Body bytes of all requests, failed ones too.
    pub received_bytes: u64,
    /// Intended moment to last verified byte.
    pub latency: Latency,
    /// Intended moment to first byte of the body.
    pub first_byte: Latency,
    /// Intended moment to the moment of sending: what the load generator itself added.
    pub send_lag: Latency,
    /// Verified requests by what the nearest cache said.
    pub statuses: BTreeMap<CacheStatus, StatusSums>,
    /// By edge number.
    pub edges: Vec<EdgeSums>,
    /// By second.
    pub timeline: Timeline,
    /// The first failures.
    pub examples: Vec<Example>,
    recent: Vec<Example>,
    failed: [u64; FailureKind::ALL.len()],
    touched: Vec<bool>,
}

impl Recorder {
    /// Empty sums for a run over `objects` objects.
    #[must_use]
    pub fn new(objects: usize) -> Self {
        Self {
            verified: 0,
            abandoned: 0,
            resent: 0,
            received_bytes: 0,
            latency: Latency::default(),
            first_byte: Latency::default(),
            send_lag: Latency::default(),
            statuses: BTreeMap::new(),
            edges: Vec::new(),
            timeline: Timeline::default(),
            examples: Vec::new(),
            recent: Vec::new(),
            failed: [0; FailureKind::ALL.len()],
            touched: vec![false; objects],
        }
    }

    /// Adds a request that was sent; `abandoned` says that its edge had gone away.
    pub fn record(&mut self, sample: Sample, abandoned: bool) {
        let bytes = sample.received_bytes;
        self.received_bytes += bytes;
        self.resent += u64::from(sample.resent);
        self.send_lag.record(sample.sent.saturating_sub(sample.intended));
        self.timeline.second_mut(sample.finished).received_bytes += bytes;
        self.edge_mut(sample.edge).received_bytes += bytes;
        match sample.failure {
            None => self.verified(&sample),
            Some(_) if abandoned => {
                self.abandoned += 1;
                self.edge_mut(sample.edge).abandoned += 1;
                self.timeline.second_mut(sample.finished).abandoned += 1;
            }
            Some(failure) => {
                self.edge_mut(sample.edge).failed += 1;
                let edge = Some(sample.edge);
                self.failed(Example { edge, object: sample.object, at: sample.finished, failure });
            }
        }
    }

    /// Adds a request that was due and still could not be sent at `now`.
    pub fn unsent(&mut self, object: usize, now: Duration, detail: String) {
        let failure = Failure::new(FailureKind::Unsent, detail);
        self.failed(Example { edge: None, object, at: now, failure });
    }

    /// Failures of one kind.
    #[must_use]
    pub fn failures_of(&self, kind: FailureKind) -> u64 {
        self.failed[kind as usize]
    }

    /// Failures of all kinds.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Numbers of the objects of which at least one request was verified.
    pub fn touched(&self) -> impl Iterator<Item = usize> {
        self.touched.iter().enumerate().filter(|(_, touched)| **touched).map(|(object, _)| object)
    }

    /// The first failures since they were taken last.
    pub fn take_recent(&mut self) -> Vec<Example> {
        std::mem::take(&mut self.recent)
    }

    fn verified(&mut self, sample: &Sample) {
        let latency = sample.finished.saturating_sub(sample.intended);
        self.verified += 1;
        self.edge_mut(sample.edge).verified += 1;
        self.latency.record(latency);
        if let Some(first_byte) = sample.first_byte {
            self.first_byte.record(first_byte.saturating_sub(sample.intended));
        }
        if let Some(touched) = self.touched.get_mut(sample.object) {
            *touched = true;
        }
        let status = self.statuses.entry(sample.cache_status).or_default();
        status.received_bytes += sample.received_bytes;
        status.latency.record(latency);
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let second = self.timeline.second_mut(sample.finished);
        second.verified += 1;
        second.latency_max_us = second.latency_max_us.max(latency_us);
    }

    fn failed(&mut self, example: Example) {
        let kind = example.failure.kind;
        self.failed[kind as usize] += 1;
        self.timeline.second_mut(example.at).failed += 1;
        if self.recent.len() < RECENT_FAILURES_MAX {
            self.recent.push(example.clone());
        }
        let alike = self.examples.iter().filter(|known| known.failure.kind == kind).count();
        if alike < FAILURE_EXAMPLES_PER_KIND_MAX {
            self.examples.push(example);
        }
    }

    fn edge_mut(&mut self, edge: usize) -> &mut EdgeSums {
        if self.edges.len() <= edge {
            self.edges.resize(edge + 1, EdgeSums::default());
        }
        &mut self.edges[edge]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(object: usize, failure: Option<FailureKind>) -> Sample {
        Sample {
            edge: 1,
            object,
            intended: Duration::from_millis(100),
            sent: Duration::from_millis(150),
            first_byte: Some(Duration::from_millis(160)),
            finished: Duration::from_millis(1200),
            received_bytes: 10,
            cache_status: CacheStatus::default(),
            resent: 1,
            failure: failure.map(|kind| Failure::new(kind, "seen")),
        }
    }

    #[test]
    fn latency_counts_from_the_intended_moment() {
        let mut recorder = Recorder::new(3);
        recorder.record(sample(2, None), false);
        assert_eq!(recorder.latency.max_us() / 1000, 1100);
        assert_eq!(recorder.first_byte.max_us() / 1000, 60);
        assert_eq!(recorder.send_lag.max_us() / 1000, 50);
        assert_eq!(recorder.touched().collect::<Vec<_>>(), [2]);
        assert_eq!(recorder.timeline.seconds()[1].verified, 1);
        assert_eq!(recorder.edges[1].received_bytes, 10);
    }

    #[test]
    fn a_request_is_verified_failed_or_abandoned() {
        let mut recorder = Recorder::new(1);
        recorder.record(sample(0, None), false);
        recorder.record(sample(0, Some(FailureKind::Closed)), false);
        recorder.record(sample(0, Some(FailureKind::Closed)), true);
        recorder.unsent(0, Duration::from_secs(9), "no room".to_owned());
        assert_eq!((recorder.verified, recorder.failures(), recorder.abandoned), (1, 2, 1));
        assert_eq!(recorder.failures_of(FailureKind::Closed), 1);
        assert_eq!(recorder.failures_of(FailureKind::Unsent), 1);
        assert_eq!(recorder.latency.count(), 1, "only verified requests have a latency");
        assert_eq!((recorder.received_bytes, recorder.resent), (30, 3));
    }

    #[test]
    fn examples_show_every_kind_and_stay_few() {
        let mut recorder = Recorder::new(1);
        for kind in FailureKind::ALL {
            (0..50).for_each(|_| recorder.record(sample(0, Some(kind)), false));
        }
        for kind in FailureKind::ALL {
            let alike = recorder.examples.iter().filter(|example| example.failure.kind == kind);
            assert_eq!(alike.count(), FAILURE_EXAMPLES_PER_KIND_MAX);
        }
        assert_eq!(recorder.failures(), 350);
        assert_eq!(recorder.take_recent().len(), RECENT_FAILURES_MAX);
        assert!(recorder.take_recent().is_empty(), "they are told once");
    }
}
