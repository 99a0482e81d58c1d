//! A distribution of times as reports show it (PURE).

use serde::Serialize;

use super::Latency;

/// A distribution of times; all zero when nothing was counted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Shortest.
    pub min_us: u64,
    /// Mean.
    pub mean_us: f64,
    /// Half lie at or below.
    pub p50_us: u64,
    /// 90 % lie at or below.
    pub p90_us: u64,
    /// 99 % lie at or below.
    pub p99_us: u64,
    /// 99.9 % lie at or below.
    pub p99_9_us: u64,
    /// Longest.
    pub max_us: u64,
}

impl From<&Latency> for Times {
    fn from(latency: &Latency) -> Self {
        Self {
            count: latency.count(),
            min_us: latency.min_us(),
            mean_us: latency.mean_us(),
            p50_us: latency.quantile_us(0.5),
            p90_us: latency.quantile_us(0.9),
            p99_us: latency.quantile_us(0.99),
            p99_9_us: latency.quantile_us(0.999),
            max_us: latency.max_us(),
        }
    }
}
