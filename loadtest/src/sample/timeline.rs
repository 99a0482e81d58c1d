//! What happened in each second of a run (PURE).

use std::time::Duration;

use serde::Serialize;

/// Seconds told apart; what comes later counts in the last one. A run's duration has the same
/// limit, so only its end can fall there.
pub const SECONDS_MAX: usize = 24 * 3600 + 600;

/// Sums of the requests that ended within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Requests whose every byte was right.
    pub verified: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests whose edge went away.
    pub abandoned: u64,
    /// Body bytes of all of them.
    pub received_bytes: u64,
    /// The longest latency of a verified request.
    pub latency_max_us: u64,
}

/// One [`Second`] after the other, from the run's start.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    seconds: Vec<Second>,
}

impl Timeline {
    /// The second that `at` falls into.
    pub fn second_mut(&mut self, at: Duration) -> &mut Second {
        let index = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(SECONDS_MAX - 1);
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }

    /// All seconds up to the last in which something ended.
    #[must_use]
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_seconds_are_kept_and_late_ones_gathered() {
        let mut timeline = Timeline::default();
        timeline.second_mut(Duration::from_millis(999)).verified += 1;
        timeline.second_mut(Duration::from_millis(3000)).failed += 1;
        let counts: Vec<_> = timeline.seconds().iter().map(|s| (s.verified, s.failed)).collect();
        assert_eq!(counts, [(1, 0), (0, 0), (0, 0), (0, 1)]);
        timeline.second_mut(Duration::from_secs(u64::MAX)).failed += 1;
        assert_eq!(timeline.seconds().len(), SECONDS_MAX);
    }
}
