//! What one request turned out to be, and the sums over many of them (PURE).
//!
//! All times are offsets from the run's start. Knows nothing of HTTP clients, edges' URLs or
//! thresholds: edges and objects are numbers here.

pub mod cache_status;
pub mod latency;
pub mod recorder;
pub mod timeline;
pub mod times;

use std::time::Duration;

use serde::Serialize;

pub use cache_status::CacheStatus;
pub use latency::Latency;
pub use recorder::Recorder;
pub use times::Times;

/// Why a request counts as failed. Every failed request has exactly one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection to the edge.
    Connect,
    /// The connection ended before the reply's head.
    Closed,
    /// Not complete within the timeout.
    Timeout,
    /// A status other than 200.
    Status,
    /// The body ended before its last byte.
    Truncated,
    /// A byte that is not the object's, or more bytes than it has.
    Wrong,
    /// Never sent: too many requests were in flight until after the end of the run.
    Unsent,
}

impl FailureKind {
    /// Every kind, in the order in which reports list them.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Closed,
        Self::Timeout,
        Self::Status,
        Self::Truncated,
        Self::Wrong,
        Self::Unsent,
    ];

    /// The kind's name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Truncated => "truncated",
            Self::Wrong => "wrong",
            Self::Unsent => "unsent",
        }
    }
}

/// A failure and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its class.
    pub kind: FailureKind,
    /// What was seen, for people.
    pub detail: String,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// One request, from its intended moment to its end.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Number of the edge it went to.
    pub edge: usize,
    /// Number of the object it asked for.
    pub object: usize,
    /// When it was due; latency counts from here.
    pub intended: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When the first byte of the body (or the head of an empty reply) was there.
    pub first_byte: Option<Duration>,
    /// When the last byte was verified, or the failure seen.
    pub finished: Duration,
    /// Body bytes received, verified or not.
    pub received_bytes: u64,
    /// How often it was sent again, after a connection that had served before was closed without a
    /// byte.
    pub resent: u32,
    /// What the reply said about caches.
    pub cache_status: CacheStatus,
    /// None when every byte was right.
    pub failure: Option<Failure>,
}
