//! One rate for all connections together.
//!
//! [`TokenBucket`] decides (PURE, `now` is an argument), [`Pacer`] shares it. Bytes are reserved
//! slice by slice in the order in which connections ask, so that all of them go on evenly and the
//! total never runs ahead of the rate by more than one slice.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

/// The largest slice of a body that is made, counted and paced as one.
pub const SLICE_MAX_BYTES: usize = 64 << 10;
/// The smallest slice under a slow rate.
pub const SLICE_MIN_BYTES: usize = 1 << 10;
/// Slices per second that a slow rate is cut into, for a smooth flow.
const SLICES_PER_SECOND: u64 = 20;

const _: () = assert!(SLICE_MIN_BYTES <= SLICE_MAX_BYTES);

/// Reservations at a fixed rate: each is told how long to wait.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate_bytes_per_s: u64,
    free_at: Duration,
}

impl TokenBucket {
    /// A bucket that lets `rate_bytes_per_s` through; a rate of 0 counts as 1.
    #[must_use]
    pub fn new(rate_bytes_per_s: u64) -> Self {
        Self { rate_bytes_per_s: rate_bytes_per_s.max(1), free_at: Duration::ZERO }
    }

    /// Reserves `bytes` and returns how long from `now` to wait before sending them. Time that
    /// went by unused is not saved up.
    pub fn reserve(&mut self, now: Duration, bytes: usize) -> Duration {
        let start = self.free_at.max(now);
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.rate_bytes_per_s);
        self.free_at = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        start - now
    }
}

/// A [`TokenBucket`] that all connections of an origin share.
#[derive(Debug)]
pub struct Pacer {
    bucket: Mutex<TokenBucket>,
    clock: Clock,
    slice_bytes: usize,
}

impl Pacer {
    /// A pacer at `rate_bytes_per_s`.
    #[must_use]
    pub fn new(rate_bytes_per_s: u64, clock: Clock) -> Self {
        let slice = usize::try_from(rate_bytes_per_s / SLICES_PER_SECOND).unwrap_or(usize::MAX);
        Self {
            bucket: Mutex::new(TokenBucket::new(rate_bytes_per_s)),
            clock,
            slice_bytes: slice.clamp(SLICE_MIN_BYTES, SLICE_MAX_BYTES),
        }
    }

    /// The size of slice that keeps the flow smooth at this rate.
    #[must_use]
    pub fn slice_bytes(&self) -> usize {
        self.slice_bytes
    }

    /// Reserves `bytes` and returns how long to wait before sending them.
    pub fn reserve(&self, bytes: usize) -> Duration {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.reserve(self.clock.now(), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn reservations_queue_up_at_the_rate() {
        let mut bucket = TokenBucket::new(1000);
        assert_eq!(bucket.reserve(MS(0), 100), MS(0));
        assert_eq!(bucket.reserve(MS(0), 100), MS(100));
        assert_eq!(bucket.reserve(MS(50), 100), MS(150));
        assert_eq!(bucket.reserve(MS(300), 100), MS(0));
        assert_eq!(bucket.reserve(MS(300), 0), MS(100));
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut bucket = TokenBucket::new(1000);
        assert_eq!(bucket.reserve(MS(60_000), 500), MS(0));
        assert_eq!(bucket.reserve(MS(60_000), 500), MS(500));
    }

    #[test]
    fn no_window_gets_more_than_its_rate_and_one_slice() {
        let (rate, slice) = (1_000_000, 10_000);
        let mut bucket = TokenBucket::new(rate);
        let mut now = MS(0);
        let mut sent: Vec<(Duration, usize)> = Vec::new();
        for step in 0..300_u64 {
            now += MS(step % 7);
            sent.push((now + bucket.reserve(now, slice), slice));
        }
        for (index, (from, _)) in sent.iter().enumerate() {
            let mut bytes = 0;
            for (to, len) in &sent[index..] {
                bytes += len;
                let allowed = (*to - *from).as_secs_f64() * rate as f64 + slice as f64;
                assert!(bytes as f64 <= allowed + 1.0, "{bytes} bytes in {:?}", *to - *from);
            }
        }
    }

    #[test]
    fn slices_follow_the_rate() {
        let slice = |rate| Pacer::new(rate, Clock::start()).slice_bytes();
        assert_eq!(slice(100), SLICE_MIN_BYTES);
        assert_eq!(slice(400_000), 20_000);
        assert_eq!(slice(1 << 30), SLICE_MAX_BYTES);
    }

    #[test]
    fn absurd_rates_neither_divide_by_zero_nor_overflow() {
        let mut bucket = TokenBucket::new(0);
        bucket.reserve(MS(0), usize::MAX);
        let mut bucket = TokenBucket::new(u64::MAX);
        assert_eq!(bucket.reserve(MS(0), 1 << 20), MS(0));
    }
}
