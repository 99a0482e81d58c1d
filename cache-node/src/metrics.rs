//! Every metric's name, unit and labels; one handle struct a subsystem. Children of labelled
//! metrics are resolved once, here: a request touches atomics only. Label values are closed enums
//! or configured names, never input.
//!
//! Names follow the Prometheus conventions: `shoal_` prefix, base units, `_total` for counters.

mod index;
mod labels;
mod registry;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

pub use index::IndexMetrics;
pub use labels::{PerRefusal, PerTier, Refusal, Tier};
pub use registry::Metrics;

/// Seconds, from a memory hit to a stalled origin.
const LATENCY_S: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The edge's metrics.
#[derive(Clone, Debug)]
pub struct EdgeMetrics {
    /// Requests answered, by the tier that answered.
    pub requests: PerTier,
    /// Body bytes sent to clients, by the tier they came from.
    pub response_bytes: PerTier,
    /// Requests answered with a status of 500 or more that Shoal made itself.
    pub errors: IntCounter,
    /// Lines that found no room on their way to the access log.
    pub access_lines_lost: IntCounter,
    /// Client connections open now.
    pub connections: IntGauge,
    /// Client connections that speak another protocol now, past HTTP.
    pub tunnels: IntGauge,
    /// Seconds from a request's arrival to its response head.
    pub first_byte_seconds: Histogram,
}

impl EdgeMetrics {
    /// Registers the edge's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        let requests = m.counters(
            "shoal_edge_requests_total",
            "Requests answered, by the tier that answered.",
            "tier",
        )?;
        let bytes = m.counters(
            "shoal_edge_response_bytes_total",
            "Body bytes sent to clients, by the tier they came from.",
            "tier",
        )?;
        Ok(Self {
            requests: PerTier::new(&requests),
            response_bytes: PerTier::new(&bytes),
            errors: m.counter(
                "shoal_edge_errors_total",
                "Requests answered with a status of 500 or more that Shoal made itself.",
            )?,
            access_lines_lost: m.counter(
                "shoal_edge_access_lines_lost_total",
                "Lines that found no room on their way to the access log.",
            )?,
            connections: m.gauge("shoal_edge_connections", "Client connections open now.")?,
            tunnels: m.gauge(
                "shoal_edge_tunnels",
                "Client connections that speak another protocol now, past HTTP.",
            )?,
            first_byte_seconds: m.histogram(
                "shoal_edge_first_byte_seconds",
                "Seconds from a request's arrival to its response head.",
                &LATENCY_S,
            )?,
        })
    }
}

/// Metrics of fills and of the origin.
#[derive(Clone, Debug)]
pub struct OriginMetrics {
    /// Requests sent to origins.
    pub requests: IntCounter,
    /// Body bytes received from origins, cached or passed through.
    pub bytes: IntCounter,
    /// Requests to origins that failed: not reached, timed out, broken off.
    pub failures: IntCounter,
    /// Responses `304 Not Modified` from origins.
    pub not_modified: IntCounter,
    /// Fills begun.
    pub fills: IntCounter,
    /// Fills taken over from a filler that was lost.
    pub fills_resumed: IntCounter,
}

impl OriginMetrics {
    /// Registers the origin's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: m.counter("shoal_origin_requests_total", "Requests sent to origins.")?,
            bytes: m.counter(
                "shoal_origin_bytes_total",
                "Body bytes received from origins, cached or passed through.",
            )?,
            failures: m.counter(
                "shoal_origin_failures_total",
                "Requests to origins that failed: not reached, timed out, broken off.",
            )?,
            not_modified: m.counter(
                "shoal_origin_not_modified_total",
                "Responses 304 Not Modified from origins.",
            )?,
            fills: m.counter("shoal_fills_total", "Fills begun.")?,
            fills_resumed: m.counter(
                "shoal_fills_resumed_total",
                "Fills taken over from a filler that was lost.",
            )?,
        })
    }
}

/// Metrics of the traffic between peers.
#[derive(Clone, Debug)]
pub struct TransferMetrics {
    /// Verified chunk bytes received from peers.
    pub bytes_in: IntCounter,
    /// Chunk bytes sent to peers.
    pub bytes_out: IntCounter,
    /// Chunks received on lanes.
    pub chunks_by_lane: IntCounter,
    /// Chunks received by gRPC.
    pub chunks_by_grpc: IntCounter,
    /// Chunks from peers that did not match their hash.
    pub bad_chunks: IntCounter,
    /// Requests to peers that failed and were taken elsewhere.
    pub failures: IntCounter,
    /// Copies taken at another node's request.
    pub copies_taken: IntCounter,
    /// Streams to peers open now.
    pub uploads: IntGauge,
}

impl TransferMetrics {
    /// Registers the transfer metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        let bytes = m.counters(
            "shoal_peer_bytes_total",
            "Chunk bytes exchanged with peers, by direction (in: received and verified).",
            "direction",
        )?;
        let chunks = m.counters(
            "shoal_peer_chunks_total",
            "Chunks received from peers that were asked for one by one, by the way they came \
             (lane, grpc), before they are verified.",
            "way",
        )?;
        Ok(Self {
            bytes_in: bytes.with_label_values(&["in"]),
            bytes_out: bytes.with_label_values(&["out"]),
            chunks_by_lane: chunks.with_label_values(&["lane"]),
            chunks_by_grpc: chunks.with_label_values(&["grpc"]),
            bad_chunks: m.counter(
                "shoal_peer_bad_chunks_total",
                "Chunks from peers that did not match their hash.",
            )?,
            failures: m.counter(
                "shoal_peer_failures_total",
                "Requests to peers that failed and were taken elsewhere.",
            )?,
            copies_taken: m.counter(
                "shoal_peer_copies_taken_total",
                "Copies of objects taken at another node's request.",
            )?,
            uploads: m.gauge("shoal_peer_uploads", "Streams to peers open now.")?,
        })
    }
}

/// Metrics of the store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Bytes of the budget taken.
    pub bytes: IntGauge,
    /// The byte budget.
    pub budget_bytes: IntGauge,
    /// Objects stored.
    pub objects: IntGauge,
    /// Body bytes held in the memory tier.
    pub memory_bytes: IntGauge,
    /// Objects that came into the store.
    pub stored: IntCounter,
    /// Objects evicted.
    pub evictions: IntCounter,
    /// Parts of large objects evicted.
    pub parts_evicted: IntCounter,
    /// Bytes of the budget that evictions freed.
    pub evicted_bytes: IntCounter,
    /// Times that a last copy was passed over by an eviction.
    pub last_copies_spared: IntCounter,
    /// Lookups that missed, and would have hit with half as large a budget again.
    pub ghost_hits: IntCounter,
    /// The bytes of those objects.
    pub ghost_hit_bytes: IntCounter,
    /// Stored chunks that did not match their hash when read.
    pub corrupt_chunks: IntCounter,
}

impl StoreMetrics {
    /// Registers the store's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes: m.gauge(
                "shoal_store_bytes",
                "Bytes of the budget taken, by bodies and by what describes them.",
            )?,
            budget_bytes: m.gauge("shoal_store_budget_bytes", "The store's byte budget.")?,
            objects: m.gauge("shoal_store_objects", "Objects stored.")?,
            memory_bytes: m
                .gauge("shoal_store_memory_bytes", "Body bytes held in the memory tier.")?,
            stored: m
                .counter("shoal_store_objects_stored_total", "Objects that came into the store.")?,
            evictions: m.counter("shoal_store_evictions_total", "Objects evicted.")?,
            parts_evicted: m.counter(
                "shoal_store_parts_evicted_total",
                "Parts of large objects evicted, while the rest of them stayed.",
            )?,
            evicted_bytes: m.counter(
                "shoal_store_evicted_bytes_total",
                "Bytes of the budget that evictions freed.",
            )?,
            last_copies_spared: m.counter(
                "shoal_store_last_copies_spared_total",
                "Times that the last copy of a wanted object was passed over by an eviction.",
            )?,
            ghost_hits: m.counter(
                "shoal_store_ghost_hits_total",
                "Lookups that missed, and would have hit with half as large a budget again.",
            )?,
            ghost_hit_bytes: m.counter(
                "shoal_store_ghost_hit_bytes_total",
                "Bytes of the objects of such lookups.",
            )?,
            corrupt_chunks: m.counter(
                "shoal_store_corrupt_chunks_total",
                "Stored chunks that did not match their hash when read.",
            )?,
        })
    }
}

/// Metrics of a node's session with the tier.
#[derive(Clone, Debug)]
pub struct DirectoryMetrics {
    /// 1 while the session lease holds.
    pub session: IntGauge,
    /// Sessions begun.
    pub sessions: IntCounter,
    /// Requests to super-nodes that failed and were sent to another.
    pub failures: IntCounter,
    /// The newest fence position that this node has applied.
    pub fence_position: IntGauge,
}

impl DirectoryMetrics {
    /// Registers the directory's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            session: m.gauge("shoal_session_up", "1 while the session lease holds.")?,
            sessions: m.counter("shoal_sessions_begun_total", "Sessions begun.")?,
            failures: m.counter(
                "shoal_directory_failures_total",
                "Requests to super-nodes that failed and were sent to another.",
            )?,
            fence_position: m.gauge(
                "shoal_fence_position",
                "The newest fence position that this node has applied.",
            )?,
        })
    }
}

/// Requests of other members that were refused.
#[derive(Clone, Debug)]
pub struct RefusalMetrics {
    kinds: IntCounterVec,
}

impl RefusalMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        let kinds = m.counters(
            "shoal_refused_requests_total",
            "Requests of other members that were refused, by kind of fault.",
            "kind",
        )?;
        Ok(Self { kinds })
    }

    /// The counter of a kind.
    pub fn refused(&self, kind: &'static str) -> IntCounter {
        self.kinds.with_label_values(&[kind])
    }
}

/// Metrics of a member's mode.
#[derive(Clone, Debug)]
pub struct ModeMetrics {
    modes: IntGaugeVec,
    changes: IntCounter,
}

impl ModeMetrics {
    /// Registers the mode's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            modes: m.gauges(
                "shoal_mode",
                "1 for the mode that the member is in (pure, hybrid, super-node), 0 for the others.",
                "mode",
            )?,
            changes: m.counter("shoal_mode_changes_total", "Changes of mode.")?,
        })
    }

    /// Shows which of `modes` it is.
    pub fn show(&self, modes: impl IntoIterator<Item = (&'static str, bool)>) {
        for (name, is) in modes {
            self.modes.with_label_values(&[name]).set(i64::from(is));
        }
    }

    /// Counts a change.
    pub fn changed(&self) {
        self.changes.inc();
    }
}

/// Metrics of a node that leaves without loss.
#[derive(Clone, Debug)]
pub struct DrainMetrics {
    /// 1 while it drains.
    pub draining: IntGauge,
    /// Objects still to be looked at or given away.
    pub objects_left: IntGauge,
    /// Objects given away.
    pub objects: IntCounter,
    /// Their body bytes.
    pub bytes: IntCounter,
}

impl DrainMetrics {
    /// Registers the drain's metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            draining: m.gauge("shoal_draining", "1 while the node is about to leave.")?,
            objects_left: m.gauge(
                "shoal_drain_objects_left",
                "Objects that a draining node has still to look at or give away.",
            )?,
            objects: m.counter(
                "shoal_drain_objects_total",
                "Objects that the node gave away, being the last to have them.",
            )?,
            bytes: m.counter("shoal_drain_bytes_total", "Body bytes of those objects.")?,
        })
    }
}

/// Metrics of the control calls.
#[derive(Clone, Debug)]
pub struct AdminMetrics {
    /// Calls answered with what they asked for.
    pub calls: IntCounter,
    /// Calls refused, by reason.
    pub refusals: PerRefusal,
}

impl AdminMetrics {
    /// Registers the control calls' metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        let refusals = m.counters(
            "shoal_admin_refusals_total",
            "Control calls that were refused without effect, by reason.",
            "reason",
        )?;
        let calls =
            m.counter("shoal_admin_calls_total", "Control calls that did what was asked.")?;
        Ok(Self { calls, refusals: PerRefusal::new(&refusals) })
    }
}

#[cfg(test)]
mod tests;
