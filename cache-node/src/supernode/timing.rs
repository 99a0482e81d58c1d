//! The tier's times. All derive from the session lease, so that their order holds whatever its
//! length is.

use shoal_proto::limits::{FILL_LEASE_MS, HEARTBEAT_MS, SESSION_LEASE_MS};

/// How long things hold. The defaults are `shoal_proto::limits`'; tests take shorter ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A member's session lease, in milliseconds.
    pub session_lease_ms: u32,
    /// Between two heartbeats, in milliseconds.
    pub heartbeat_ms: u32,
    /// A fill lease's life without renewal, in milliseconds.
    pub fill_lease_ms: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            session_lease_ms: SESSION_LEASE_MS,
            heartbeat_ms: HEARTBEAT_MS,
            fill_lease_ms: FILL_LEASE_MS,
        }
    }
}

impl Timing {
    pub(super) fn lease_ms(&self) -> u64 {
        u64::from(self.session_lease_ms)
    }

    /// A super-node vouches for members for so long after it last knew all that was committed.
    pub(super) fn touch_ms(&self) -> u64 {
        self.lease_ms() / 3
    }

    /// Between two looks at whether all that is committed is known here.
    pub(super) fn touch_every_ms(&self) -> u64 {
        self.touch_ms() / 4
    }

    /// A member that owes an acknowledgement for longer is not vouched for any more.
    pub(super) fn fence_ack_ms(&self) -> u64 {
        self.lease_ms() / 6
    }

    /// By how much a member's clock may run slower than ours over a lease.
    pub(super) fn slack_ms(&self) -> u64 {
        self.lease_ms() / 12
    }

    /// For so long after our last answer a member may take its lease to hold.
    pub(super) fn trust_ms(&self) -> u64 {
        self.lease_ms() + self.slack_ms()
    }

    /// After so long, a fence that a super-node may not know of is known to, or trusted by, none of
    /// its members: it stopped vouching for those who had not acknowledged, and their leases ended.
    pub(super) fn blind_ms(&self) -> u64 {
        self.touch_ms() + self.fence_ack_ms() + self.trust_ms()
    }

    /// A member that closed its session in order and is not back by then has left.
    pub(super) fn leave_ms(&self) -> u64 {
        self.lease_ms() / 6
    }

    /// Between two comparisons with the other super-nodes' indexes.
    pub(super) fn agree_every_ms(&self) -> u64 {
        self.lease_ms() / 6
    }

    /// A member that is down for so long counts as gone: what it holds counts no more.
    pub(super) fn keep_ms(&self) -> u64 {
        self.lease_ms() * 100
    }

    /// Between two looks for what has run out.
    pub(super) fn sweep_every_ms(&self) -> u64 {
        (self.lease_ms() / 12).max(10)
    }
}
