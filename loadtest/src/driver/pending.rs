//! Failures that may yet turn out to be abandoned (PURE).
//!
//! When an edge dies, its requests fail before anybody has rewritten the list of edges. Such a
//! failure waits for `--edge-down-grace`; then the list decides. Wrong bytes never wait: no edge's
//! end excuses them.

use std::{collections::VecDeque, time::Duration};

use super::edges::EdgeBook;
use crate::sample::{FailureKind, Sample};

/// Failures that wait at once; one more, and the oldest is judged at once.
pub const PENDING_MAX: usize = 65_536;

/// A failed sample, and whether its edge had gone away.
pub type Judged = (Sample, bool);

/// The failures that wait.
#[derive(Clone, Debug)]
pub struct Pending {
    grace: Duration,
    waiting: VecDeque<Sample>,
}

impl Pending {
    /// Nothing yet; each failure will wait for `grace`.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, waiting: VecDeque::new() }
    }

    /// True for a sample that may turn out to be abandoned.
    #[must_use]
    pub fn may_wait(sample: &Sample) -> bool {
        sample.failure.as_ref().is_some_and(|failure| failure.kind != FailureKind::Wrong)
    }

    /// Adds a failure; the oldest comes back judged when there are too many.
    pub fn push(&mut self, sample: Sample, edges: &EdgeBook) -> Option<Judged> {
        self.waiting.push_back(sample);
        if self.waiting.len() <= PENDING_MAX {
            return None;
        }
        self.waiting.pop_front().map(|sample| judge(sample, edges))
    }

    /// Takes out every failure that can be judged at `now`: its edge is known to have gone away, or
    /// its time is up.
    pub fn settle(&mut self, now: Duration, edges: &EdgeBook) -> Vec<Judged> {
        let (mut judged, mut waiting) = (Vec::new(), VecDeque::new());
        for sample in self.waiting.drain(..) {
            let due = sample.finished + self.grace <= now;
            let (sample, abandoned) = judge(sample, edges);
            if due || abandoned {
                judged.push((sample, abandoned));
            } else {
                waiting.push_back(sample);
            }
        }
        self.waiting = waiting;
        judged
    }

    /// When the last of them can be judged; none when nothing waits.
    #[must_use]
    pub fn settled_at(&self) -> Option<Duration> {
        self.waiting.iter().map(|sample| sample.finished + self.grace).max()
    }
}

fn judge(sample: Sample, edges: &EdgeBook) -> Judged {
    let abandoned = edges.missing_since(sample.edge, sample.sent);
    (sample, abandoned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sample::{CacheStatus, Failure},
        scenario::EdgeUrl,
    };

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn failed(sent: u64, finished: u64, kind: FailureKind) -> Sample {
        Sample {
            edge: 0,
            object: 0,
            intended: S(sent),
            sent: S(sent),
            first_byte: None,
            finished: S(finished),
            received_bytes: 0,
            resent: 0,
            cache_status: CacheStatus::default(),
            failure: Some(Failure::new(kind, "")),
        }
    }

    fn verdicts(judged: &[Judged]) -> Vec<bool> {
        judged.iter().map(|(_, abandoned)| *abandoned).collect()
    }

    fn edges() -> (EdgeBook, Vec<EdgeUrl>) {
        let list: Vec<EdgeUrl> = vec!["http://a:1".parse().unwrap(), "http://b:1".parse().unwrap()];
        let mut book = EdgeBook::default();
        book.update(&list, S(0));
        (book, list)
    }

    #[test]
    fn an_edge_that_leaves_within_the_grace_excuses_its_failures() {
        let (mut book, list) = edges();
        let mut pending = Pending::new(S(2));
        pending.push(failed(9, 10, FailureKind::Closed), &book);
        assert!(pending.settle(S(11), &book).is_empty());
        book.update(&list[1..], S(11));
        assert_eq!(verdicts(&pending.settle(S(11), &book)), [true]);
        assert_eq!(pending.settled_at(), None);
    }

    #[test]
    fn an_edge_that_stays_excuses_nothing() {
        let (book, _) = edges();
        let mut pending = Pending::new(S(2));
        pending.push(failed(9, 10, FailureKind::Timeout), &book);
        assert_eq!(pending.settled_at(), Some(S(12)));
        assert_eq!(verdicts(&pending.settle(S(12), &book)), [false]);
    }

    #[test]
    fn an_edge_that_was_away_during_the_request_excuses_it() {
        let (mut book, list) = edges();
        book.update(&list[1..], S(5));
        book.update(&list, S(7));
        let mut pending = Pending::new(S(0));
        pending.push(failed(6, 8, FailureKind::Closed), &book);
        pending.push(failed(7, 8, FailureKind::Closed), &book);
        assert_eq!(verdicts(&pending.settle(S(8), &book)), [true, false]);
    }

    #[test]
    fn wrong_bytes_do_not_wait_and_neither_does_success() {
        assert!(!Pending::may_wait(&failed(0, 1, FailureKind::Wrong)));
        assert!(Pending::may_wait(&failed(0, 1, FailureKind::Status)));
        let verified = Sample { failure: None, ..failed(0, 1, FailureKind::Status) };
        assert!(!Pending::may_wait(&verified));
    }

    #[test]
    fn the_oldest_is_judged_when_there_are_too_many() {
        let (book, _) = edges();
        let mut pending = Pending::new(S(100));
        let judged = (0..=PENDING_MAX as u64)
            .filter_map(|number| pending.push(failed(number, number, FailureKind::Closed), &book));
        let finished: Vec<_> = judged.map(|(sample, _)| sample.finished).collect();
        assert_eq!(finished, [S(0)]);
    }
}
