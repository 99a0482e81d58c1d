//! A histogram of times (PURE): three significant digits from a microsecond to an hour.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;

/// The largest time told apart; longer ones count as this.
pub const LATENCY_MAX_US: u64 = 3_600_000_000;

const SIGNIFICANT_DIGITS: u8 = 3;

/// Times of many requests, in constant memory.
#[derive(Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants; every test makes one")]
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, SIGNIFICANT_DIGITS);
        Self { histogram: histogram.expect("constant bounds are valid") }
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latency({} times, median {} us)", self.count(), self.quantile_us(0.5))
    }
}

impl Latency {
    /// Adds one time.
    pub fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(us);
    }

    /// Adds all times of `other`.
    pub fn absorb(&mut self, other: &Self) {
        // Both have the same bounds, so that there is always room.
        let _ = self.histogram.add(&other.histogram);
    }

    /// How many times were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The time that the fraction `quantile` (0 to 1) of all lie at or below; 0 of none.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile).min(self.max_us())
    }

    /// The shortest time; 0 of none.
    #[must_use]
    pub fn min_us(&self) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.min() }
    }

    /// The longest time; 0 of none.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.histogram.max()
    }

    /// The mean; 0 of none.
    #[must_use]
    pub fn mean_us(&self) -> f64 {
        if self.histogram.is_empty() { 0.0 } else { self.histogram.mean() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_known_set() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|ms| latency.record(Duration::from_millis(ms)));
        assert_eq!(latency.count(), 1000);
        let near = |quantile, want_us: u64| {
            let got = latency.quantile_us(quantile);
            assert!(got.abs_diff(want_us) <= want_us / 1000, "{quantile}: {got} for {want_us}");
        };
        near(0.5, 500_000);
        near(0.99, 990_000);
        near(1.0, 1_000_000);
        assert_eq!(latency.min_us() / 1000, 1);
    }

    #[test]
    fn two_sets_become_one() {
        let (mut one, mut two) = (Latency::default(), Latency::default());
        one.record(Duration::from_millis(1));
        two.record(Duration::from_millis(9));
        one.absorb(&two);
        assert_eq!((one.count(), one.min_us() / 100, one.max_us() / 1000), (2, 10, 9));
    }

    #[test]
    fn nothing_recorded_is_zero_and_too_long_is_the_limit() {
        let mut latency = Latency::default();
        assert_eq!((latency.min_us(), latency.max_us(), latency.quantile_us(0.99)), (0, 0, 0));
        latency.record(Duration::from_secs(100_000));
        assert!(latency.max_us() >= LATENCY_MAX_US);
    }
}
