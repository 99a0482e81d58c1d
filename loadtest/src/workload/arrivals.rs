//! When requests are due (PURE): an open loop, so replies have no say in it.

use std::time::Duration;

use crate::{rng::Rng, scenario::cli::Spacing};

/// The moments at which requests are due, from the run's start, never at or after its end.
#[derive(Clone, Debug)]
pub struct Arrivals {
    spacing: Spacing,
    rate_per_s: f64,
    end_s: f64,
    rng: Rng,
    last_s: f64,
    count: u64,
}

impl Arrivals {
    /// `rate_per_s` requests per second on average over `duration`.
    #[must_use]
    pub fn new(spacing: Spacing, rate_per_s: f64, duration: Duration, rng: Rng) -> Self {
        Self { spacing, rate_per_s, end_s: duration.as_secs_f64(), rng, last_s: 0.0, count: 0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at_s = match self.spacing {
            // From the count, not from the last moment: rounding must not add up.
            Spacing::Constant => self.count as f64 / self.rate_per_s,
            // Exponential gaps; 1 - unit() is never 0.
            Spacing::Poisson => self.last_s - (1.0 - self.rng.unit()).ln() / self.rate_per_s,
        };
        self.last_s = at_s;
        self.count += 1;
        (at_s < self.end_s).then(|| Duration::from_secs_f64(at_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(spacing: Spacing, rate_per_s: f64, seconds: u64) -> Vec<f64> {
        Arrivals::new(spacing, rate_per_s, Duration::from_secs(seconds), Rng::new(1, 0))
            .map(|at| at.as_secs_f64())
            .collect()
    }

    #[test]
    fn constant_arrivals_are_even() {
        let all = arrivals(Spacing::Constant, 4.0, 2);
        assert_eq!(all, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]);
    }

    #[test]
    fn poisson_gaps_have_the_right_mean_and_spread() {
        let all = arrivals(Spacing::Poisson, 100.0, 200);
        let gaps: Vec<f64> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.01).abs() < 0.0005, "mean {mean}");
        assert!(
            (square.sqrt() / mean - 1.0).abs() < 0.05,
            "an exponential's deviation is its mean"
        );
    }
}
