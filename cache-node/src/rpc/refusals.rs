//! What callers were refused, and for what: counted always, logged once a peer and kind. Whatever a
//! service answers passes here, and what gRPC itself refuses before a service sees it.
//!
//! Invariants: kinds are a closed set; the memory of what was logged is bounded (`crate::refusals`);
//! nothing of a request's content is logged but what an error's message names.

use std::sync::Arc;

use shoal_proto::wire::v1;
use tonic::{Code, Status};

use crate::metrics::RefusalMetrics;
use crate::refusals::Refusals as Told;

/// Longest message that is logged, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It breaks a rule or a limit.
    Invalid,
    /// The caller is not who it says it is, or may not do this.
    Denied,
    /// Its bytes do not match their hash.
    Corrupt,
    /// It is no message at all.
    Malformed,
    /// It is larger than messages may be.
    Oversized,
    /// There is no such method.
    Unknown,
}

impl Refusal {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Invalid,
        Self::Denied,
        Self::Corrupt,
        Self::Malformed,
        Self::Oversized,
        Self::Unknown,
    ];

    /// Its name in labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Corrupt => "corrupt",
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Unknown => "unknown",
        }
    }

    /// Whether an answer is a refusal. What is merely late, elsewhere or not there is none.
    pub fn of(status: &Status) -> Option<Self> {
        let ours = prost::Message::decode(status.details());
        let detail: v1::ErrorDetail = ours.unwrap_or_default();
        match (status.code(), detail.kind.is_empty()) {
            (Code::InvalidArgument, _) => Some(Self::Invalid),
            (Code::PermissionDenied | Code::Unauthenticated, _) => Some(Self::Denied),
            (Code::DataLoss, _) => Some(Self::Corrupt),
            (Code::OutOfRange, _) => Some(Self::Oversized),
            (Code::Unimplemented, _) => Some(Self::Unknown),
            // Ours say what kind they are; this one is gRPC's, of a message that it cannot read.
            (Code::Internal, true) => Some(Self::Malformed),
            _ => None,
        }
    }
}

/// Counts and logs refusals. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    told: Arc<Told<Box<str>, Refusal>>,
    metrics: Option<RefusalMetrics>,
}

impl Refusals {
    /// Refusals that are counted there.
    pub fn new(metrics: RefusalMetrics) -> Self {
        Self { told: Arc::default(), metrics: Some(metrics) }
    }

    /// Takes in what `peer` was answered by `method`.
    pub(super) fn note(&self, peer: &str, method: &str, status: &Status) {
        let Some(refusal) = Refusal::of(status) else { return };
        if let Some(metrics) = &self.metrics {
            metrics.refused(refusal.name()).inc();
        }
        if self.told.first(peer.into(), refusal) {
            let message: String = status.message().chars().take(MESSAGE_CHARS_MAX).collect();
            let kind = refusal.name();
            tracing::warn!(peer, method, kind, message, "a request was refused, more are counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_proto::{ErrorKind, RpcError};

    use super::*;

    #[test]
    fn refusals_are_told_from_what_is_late_or_elsewhere() {
        let of = |kind| Refusal::of(&RpcError::new(kind, "why").into());
        assert_eq!(of(ErrorKind::Invalid), Some(Refusal::Invalid));
        assert_eq!(of(ErrorKind::Denied), Some(Refusal::Denied));
        assert_eq!(of(ErrorKind::Corrupt), Some(Refusal::Corrupt));
        for kind in [
            ErrorKind::Retry,
            ErrorKind::Redirect,
            ErrorKind::NotFound,
            ErrorKind::Closed,
            ErrorKind::Bug,
        ] {
            assert_eq!(of(kind), None, "{kind:?}");
        }
        assert_eq!(Refusal::of(&Status::internal("cannot decode")), Some(Refusal::Malformed));
        assert_eq!(Refusal::of(&Status::out_of_range("too large")), Some(Refusal::Oversized));
        assert_eq!(Refusal::of(&Status::unimplemented("")), Some(Refusal::Unknown));
        assert_eq!(Refusal::of(&Status::ok("")), None);
    }
}
