//! What callers were refused, and for what: counted always, logged once a peer and kind. Whatever a
//! service answers passes here, and what gRPC itself refuses before a service sees it.
//!
//! Invariants: kinds are a closed set; the memory of what was logged is bounded, and forgets the
//! earliest; nothing of a request's content is logged but what an error's message names.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_proto::wire::v1;
use tonic::{Code, Status};

use crate::metrics::RefusalMetrics;

/// Peers and kinds that are remembered as logged.
const LOGGED_MAX: usize = 1_024;
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

/// Who was told of in the log already. PURE.
#[derive(Debug, Default)]
struct Logged {
    known: HashSet<(Arc<str>, Refusal)>,
    order: VecDeque<(Arc<str>, Refusal)>,
}

impl Logged {
    /// Whether it is the first of its kind from this peer, as far as is remembered.
    fn is_first(&mut self, peer: &str, refusal: Refusal) -> bool {
        let entry: (Arc<str>, Refusal) = (peer.into(), refusal);
        if !self.known.insert(entry.clone()) {
            return false;
        }
        self.order.push_back(entry);
        if self.order.len() > LOGGED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Counts and logs refusals. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    logged: Arc<Mutex<Logged>>,
    metrics: Option<RefusalMetrics>,
}

impl Refusals {
    /// Refusals that are counted there.
    pub fn new(metrics: RefusalMetrics) -> Self {
        Self { logged: Arc::default(), metrics: Some(metrics) }
    }

    /// Takes in what `peer` was answered by `method`.
    pub(super) fn note(&self, peer: &str, method: &str, status: &Status) {
        let Some(refusal) = Refusal::of(status) else { return };
        if let Some(metrics) = &self.metrics {
            metrics.refused(refusal.name()).inc();
        }
        let first = {
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            logged.is_first(peer, refusal)
        };
        if first {
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

    #[test]
    fn each_kind_of_each_peer_is_logged_once_and_memory_is_bounded() {
        let mut logged = Logged::default();
        assert!(logged.is_first("a", Refusal::Invalid));
        assert!(!logged.is_first("a", Refusal::Invalid));
        assert!(logged.is_first("a", Refusal::Denied));
        assert!(logged.is_first("b", Refusal::Invalid));
        for n in 0..LOGGED_MAX {
            assert!(logged.is_first(&format!("peer-{n}"), Refusal::Invalid));
        }
        assert_eq!((logged.known.len(), logged.order.len()), (LOGGED_MAX, LOGGED_MAX));
        assert!(logged.is_first("a", Refusal::Invalid), "the earliest are forgotten");
    }
}
