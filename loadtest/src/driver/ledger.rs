//! What the tasks of a run share: sums, edges, and failures that wait for a verdict.
//!
//! One short lock around pure parts; nothing is awaited and nothing is sent under it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    edges::{Change, EdgeBook},
    pending::Pending,
};
use crate::{
    sample::{FailureKind, Recorder, Sample, recorder::Example},
    scenario::EdgeUrl,
};

/// Counts for the progress display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests verified.
    pub verified: u64,
    /// Requests failed.
    pub failed: u64,
    /// Of them, with wrong bytes.
    pub wrong: u64,
    /// Requests abandoned.
    pub abandoned: u64,
    /// Times that a request was sent again.
    pub resent: u64,
    /// Body bytes received.
    pub received_bytes: u64,
}

#[derive(Debug)]
struct Inner {
    recorder: Recorder,
    edges: EdgeBook,
    pending: Option<Pending>,
}

/// The shared state; see the module.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

impl Ledger {
    /// Empty sums for `objects` objects. With `down_grace`, failures wait for a verdict.
    #[must_use]
    pub fn new(objects: usize, down_grace: Option<Duration>) -> Self {
        let recorder = Recorder::new(objects);
        let pending = down_grace.map(Pending::new);
        Self { inner: Mutex::new(Inner { recorder, edges: EdgeBook::default(), pending }) }
    }

    /// Takes `list` as what is listed from `now` on.
    pub fn update_edges(&self, list: &[EdgeUrl], now: Duration) -> Change {
        self.lock().edges.update(list, now)
    }

    /// How many edges are listed.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.lock().edges.listed()
    }

    /// The edge for the request `number`.
    #[must_use]
    pub fn pick(&self, number: u64) -> Option<(usize, EdgeUrl)> {
        self.lock().edges.pick(number)
    }

    /// A request that was sent has ended.
    pub fn finished(&self, sample: Sample) {
        let inner = &mut *self.lock();
        let judged = match &mut inner.pending {
            Some(pending) if Pending::may_wait(&sample) => pending.push(sample, &inner.edges),
            _ => Some((sample, false)),
        };
        if let Some((sample, abandoned)) = judged {
            inner.recorder.record(sample, abandoned);
        }
    }

    /// A request could not be sent until `now`.
    pub fn unsent(&self, object: usize, now: Duration, detail: &str) {
        self.lock().recorder.unsent(object, now, detail.to_owned());
    }

    /// Judges the failures whose time has come.
    pub fn settle(&self, now: Duration) {
        let inner = &mut *self.lock();
        let Some(pending) = &mut inner.pending else { return };
        for (sample, abandoned) in pending.settle(now, &inner.edges) {
            inner.recorder.record(sample, abandoned);
        }
    }

    /// When every failure so far can be judged; none when no failure waits.
    #[must_use]
    pub fn settled_at(&self) -> Option<Duration> {
        self.lock().pending.as_ref().and_then(Pending::settled_at)
    }

    /// Counts so far.
    #[must_use]
    pub fn live(&self) -> Live {
        let recorder = &self.lock().recorder;
        Live {
            verified: recorder.verified,
            failed: recorder.failures(),
            wrong: recorder.failures_of(FailureKind::Wrong),
            abandoned: recorder.abandoned,
            resent: recorder.resent,
            received_bytes: recorder.received_bytes,
        }
    }

    /// The first failures since the last call.
    #[must_use]
    pub fn take_failures(&self) -> Vec<Example> {
        self.lock().recorder.take_recent()
    }

    /// The sums, and the edges by number.
    #[must_use]
    pub fn close(&self) -> (Recorder, Vec<EdgeUrl>) {
        let inner = self.lock();
        (inner.recorder.clone(), inner.edges.urls())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
