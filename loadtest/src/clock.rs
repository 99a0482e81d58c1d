//! The only reader of the clock in this crate.
//!
//! A run measures everything as an offset from its own start, so that the pure parts (token
//! bucket, workload, abandonment) take `now: Duration` and are tested without waiting.

use std::time::{Duration, Instant, SystemTime};

/// A monotonic clock that started at zero when it was made. Copies share the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "clock.rs is where the time is read")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The runtime's name for the moment `offset` after the start, for its timers.
    #[must_use]
    pub fn at(&self, offset: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + offset)
    }
}

/// Wall-clock time, for HTTP dates and for the time a report was made; never for measuring.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "clock.rs is where the time is read")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Wall-clock time in milliseconds since 1970; zero for a clock set before that.
#[must_use]
pub fn wall_unix_ms() -> u64 {
    let since = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
