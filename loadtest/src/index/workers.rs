//! Closed loops: workers that each have one call in flight at a time, and what they came to
//! together.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, sample::Latency, tasks::Group};

/// After so many failures in a row a worker gives up.
const FAILURES_IN_A_ROW_MAX: u64 = 100;
/// Pause after a failure, in milliseconds.
const FAILURE_PAUSE_MS: u64 = 20;
/// For workers to end after their time is up: as long as the longest call.
const END_DEADLINE: Duration = Duration::from_secs(40);

/// One step of a worker.
pub(super) trait Step: Send + 'static {
    /// Makes one call: how many units of work it did, or `None` when there is nothing left to do.
    ///
    /// # Errors
    /// Why the call failed; the step may be taken again.
    fn step(&mut self) -> impl Future<Output = Result<Option<u64>, String>> + Send;
}

/// What workers did.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Times of the calls that succeeded.
    pub(super) latency: Latency,
    /// Units of work done.
    pub(super) units: u64,
    /// Calls that failed.
    pub(super) failures: u64,
    /// One of the reasons.
    pub(super) failure: Option<String>,
    /// From the start to the end of the last call.
    pub(super) elapsed: Duration,
}

impl Tally {
    /// Units a second.
    #[must_use]
    pub(super) fn per_s(&self) -> f64 {
        self.units as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn absorb(&mut self, other: Self) {
        self.latency.absorb(&other.latency);
        self.units += other.units;
        self.failures += other.failures;
        self.failure = self.failure.take().or(other.failure);
    }
}

/// Runs all `workers` until they have nothing left to do, `time` is up, or `stop`.
pub(super) async fn run<W: Step>(
    workers: Vec<W>,
    time: Duration,
    stop: &CancellationToken,
) -> Tally {
    let (clock, group) = (Clock::start(), Group::new());
    let sum = Arc::new(Mutex::new(Tally::default()));
    for mut worker in workers {
        let (sum, stop) = (Arc::clone(&sum), stop.clone());
        group.spawn(async move {
            let tally = work(&mut worker, clock, time, &stop).await;
            sum.lock().unwrap_or_else(PoisonError::into_inner).absorb(tally);
        });
    }
    group.finish(time + END_DEADLINE).await;
    let mut sum = std::mem::take(&mut *sum.lock().unwrap_or_else(PoisonError::into_inner));
    sum.elapsed = clock.now();
    sum
}

async fn work<W: Step>(
    worker: &mut W,
    clock: Clock,
    time: Duration,
    stop: &CancellationToken,
) -> Tally {
    let mut tally = Tally::default();
    let mut in_a_row = 0;
    loop {
        let begun = clock.now();
        if begun >= time || stop.is_cancelled() || in_a_row >= FAILURES_IN_A_ROW_MAX {
            return tally;
        }
        match worker.step().await {
            Ok(Some(units)) => {
                tally.latency.record(clock.now() - begun);
                tally.units += units;
                in_a_row = 0;
            }
            Ok(None) => return tally,
            Err(reason) => {
                tally.failures += 1;
                tally.failure = Some(reason);
                in_a_row += 1;
                tokio::time::sleep(Duration::from_millis(FAILURE_PAUSE_MS)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Countdown {
        left: u64,
        fails: bool,
    }

    impl Step for Countdown {
        async fn step(&mut self) -> Result<Option<u64>, String> {
            if self.fails {
                self.fails = false;
                return Err("once".to_owned());
            }
            if self.left == 0 {
                return Ok(None);
            }
            self.left -= 1;
            Ok(Some(10))
        }
    }

    #[tokio::test]
    async fn all_workers_count_together() {
        let workers = vec![Countdown { left: 3, fails: false }, Countdown { left: 4, fails: true }];
        let tally = run(workers, Duration::from_secs(60), &CancellationToken::new()).await;
        assert_eq!((tally.units, tally.latency.count(), tally.failures), (70, 7, 1));
        assert_eq!(tally.failure.as_deref(), Some("once"));
        assert!(tally.per_s() > 0.0);
    }

    #[tokio::test]
    async fn a_stop_ends_them() {
        let stop = CancellationToken::new();
        stop.cancel();
        let endless = vec![Countdown { left: u64::MAX, fails: false }];
        assert_eq!(run(endless, Duration::from_secs(60), &stop).await.units, 0);
    }

    #[tokio::test]
    async fn one_that_always_fails_gives_up() {
        struct Never;
        impl Step for Never {
            async fn step(&mut self) -> Result<Option<u64>, String> {
                Err("no".to_owned())
            }
        }
        let tally = run(vec![Never], Duration::from_secs(600), &CancellationToken::new()).await;
        assert_eq!(tally.failures, FAILURES_IN_A_ROW_MAX);
    }
}
