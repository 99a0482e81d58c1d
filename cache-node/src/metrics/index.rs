//! The metrics of a super-node.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::{LATENCY_S, Metrics};

/// Metrics of a super-node.
#[derive(Clone, Debug)]
pub struct IndexMetrics {
    /// The last applied position.
    pub applied_position: IntGauge,
    /// The current term.
    pub term: IntGauge,
    /// 1 while this super-node leads.
    pub leader: IntGauge,
    /// Changes of leader seen.
    pub leader_changes: IntCounter,
    /// Commands applied.
    pub commands: IntCounter,
    /// Batches proposed.
    pub batches: IntCounter,
    /// Fill leases held in this home's memory.
    pub leases: IntGauge,
    /// Fill leases given.
    pub leases_given: IntCounter,
    /// Sessions open now.
    pub sessions: IntGauge,
    /// Object heads in the index.
    pub heads: IntGauge,
    /// Slots of nodes that are gone and still have holdings to be cleared.
    pub void_slots: IntGauge,
    /// Differences found between this super-node's index and others'.
    pub digest_mismatches: IntCounter,
    /// Seconds to append and sync entries to the log.
    pub sync_seconds: Histogram,
    /// Seconds that each group of entries took to be applied; the next waits so long.
    pub apply_pause_seconds: Histogram,
    /// The longest of them since the start, in seconds.
    pub apply_pause_max_seconds: Gauge,
    /// Bytes of snapshots sent to other super-nodes.
    pub snapshot_sent_bytes: IntCounter,
    /// Bytes of snapshots received from other super-nodes.
    pub snapshot_received_bytes: IntCounter,
    /// Leaders whose process was found to have ended.
    pub lost_leaders: IntCounter,
    /// Changes of the tier that selection made, by kind.
    pub selection_changes: IntCounterVec,
    /// Voters wanted; 0 while this super-node does not lead a tier that chooses its voters.
    pub selection_wanted: IntGauge,
    /// Voters there are; likewise.
    pub selection_voters: IntGauge,
}

impl IndexMetrics {
    /// Registers a super-node's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            applied_position: m
                .gauge("shoal_index_applied_position", "The last applied position.")?,
            term: m.gauge("shoal_index_term", "The current term.")?,
            leader: m.gauge("shoal_index_leader", "1 while this super-node leads.")?,
            leader_changes: m
                .counter("shoal_index_leader_changes_total", "Changes of leader seen.")?,
            commands: m.counter("shoal_index_commands_total", "Commands applied.")?,
            batches: m.counter("shoal_index_batches_total", "Batches proposed.")?,
            leases: m.gauge("shoal_index_leases", "Fill leases in this home's memory.")?,
            leases_given: m.counter("shoal_index_leases_given_total", "Fill leases given.")?,
            sessions: m.gauge("shoal_index_sessions", "Sessions open now.")?,
            heads: m.gauge("shoal_index_heads", "Object heads in the index.")?,
            void_slots: m.gauge(
                "shoal_index_void_slots",
                "Slots of nodes that are gone and whose holdings are still to be cleared.",
            )?,
            digest_mismatches: m.counter(
                "shoal_index_digest_mismatches_total",
                "Differences found between this super-node's index and others'.",
            )?,
            selection_changes: m.counters(
                "shoal_selection_changes_total",
                "Changes of the tier that its leader made to choose voters, by kind (promote, \
                 replace, demote).",
                "kind",
            )?,
            selection_wanted: m.gauge(
                "shoal_selection_wanted",
                "Voters wanted, on the leader of a tier that chooses them; elsewhere 0.",
            )?,
            selection_voters: m.gauge(
                "shoal_selection_voters",
                "Voters there are, on the leader of a tier that chooses them; elsewhere 0.",
            )?,
            sync_seconds: m.histogram(
                "shoal_index_sync_seconds",
                "Seconds to append and sync entries to the log.",
                &LATENCY_S,
            )?,
            apply_pause_seconds: m.histogram(
                "shoal_index_apply_pause_seconds",
                "Seconds that a group of entries took to be applied; the next waits so long.",
                &LATENCY_S,
            )?,
            apply_pause_max_seconds: m.seconds(
                "shoal_index_apply_pause_max_seconds",
                "The longest that a group of entries took to be applied since the start.",
            )?,
            snapshot_sent_bytes: m.counter(
                "shoal_index_snapshot_sent_bytes_total",
                "Bytes of snapshots sent to other super-nodes.",
            )?,
            snapshot_received_bytes: m.counter(
                "shoal_index_snapshot_received_bytes_total",
                "Bytes of snapshots received from other super-nodes.",
            )?,
            lost_leaders: m.counter(
                "shoal_index_lost_leaders_total",
                "Leaders whose process was found to have ended.",
            )?,
        })
    }

    /// A group of entries took so long to be applied.
    pub fn note_apply(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.apply_pause_seconds.observe(seconds);
        if seconds > self.apply_pause_max_seconds.get() {
            self.apply_pause_max_seconds.set(seconds);
        }
    }
}
