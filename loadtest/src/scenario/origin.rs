//! `origin`'s flags as values.

use std::{net::SocketAddr, time::Duration};

use super::cli::OriginArgs;

/// The longest wait that a flag or a query parameter may ask of the origin.
pub const WAIT_MAX_MS: u64 = 600_000;

/// How the origin behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginScenario {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The seed of its content.
    pub seed: u64,
    /// Body bytes per second over all connections; none for no limit.
    pub rate_bytes_per_s: Option<u64>,
    /// `max-age` of its replies.
    pub max_age_s: u64,
    /// Wait before each reply's head.
    pub latency: Duration,
}

impl OriginScenario {
    /// An unthrottled origin on a free port of the loopback, with the command line's defaults.
    #[must_use]
    pub fn loopback(seed: u64) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed,
            rate_bytes_per_s: None,
            max_age_s: 3600,
            latency: Duration::ZERO,
        }
    }
}

impl From<&OriginArgs> for OriginScenario {
    fn from(args: &OriginArgs) -> Self {
        let OriginArgs { listen, seed, rate, max_age, latency_ms, json: _, exit_with_parent: _ } =
            *args;
        Self {
            listen,
            seed,
            rate_bytes_per_s: rate,
            max_age_s: max_age,
            latency: Duration::from_millis(latency_ms),
        }
    }
}
