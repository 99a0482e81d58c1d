//! What a swarm came to. Names carry units; the report shows them as they are.

use serde::Serialize;

/// One node's client in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Get {
    /// Which round, from 0.
    pub round: u16,
    /// The node.
    pub node: String,
    /// Its zone.
    pub zone: u16,
    /// From the barrier to the last byte, in milliseconds.
    pub elapsed_ms: u64,
    /// The same, by the ideal.
    pub times_ideal: f64,
    /// From the barrier to the first byte of the body, in milliseconds; none without one.
    pub first_byte_ms: Option<u64>,
    /// Right bytes received.
    pub received_bytes: u64,
    /// Its node was killed: it does not count.
    pub killed: bool,
    /// Why it is not whole; none when every byte came and was right.
    pub failure: Option<String>,
}

/// Times of all clients whose nodes lived, by the ideal; by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// How many.
    pub count: usize,
    /// Half lie at or below.
    pub p50: f64,
    /// 99 % lie at or below.
    pub p99: f64,
    /// 99.9 % lie at or below.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

impl Ratios {
    /// Of these.
    #[must_use]
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * all.len() as f64).ceil() as usize;
            all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: all.len(), p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: at(1.0) }
    }
}

/// What entered a zone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ZoneEntry {
    /// The zone.
    pub zone: u16,
    /// Bytes on the wire, with all headers, also of the index and of acknowledgements.
    pub wire_bytes: u64,
    /// The same, by the sizes of all objects together.
    pub per_object: f64,
}

/// How full nodes' lines were in a part of the time, on average over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LineUse {
    /// Until when, by the ideal time.
    pub until_times_ideal: f64,
    /// Bytes sent, with all headers, by what the lines carry in that time.
    pub up: f64,
    /// The same of bytes received.
    pub down: f64,
}

/// What one node did, over all rounds; of one that was killed, until then.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeUse {
    /// The node.
    pub node: String,
    /// Fills begun, those taken over included.
    pub fills: u64,
    /// Fills taken over.
    pub fills_resumed: u64,
    /// Bytes that it had from its origin.
    pub origin_bytes: u64,
    /// Chunk bytes from peers.
    pub peer_bytes_in: u64,
    /// Chunk bytes to peers.
    pub peer_bytes_out: u64,
    /// Requests to peers that failed.
    pub peer_failures: u64,
    /// Chunks that did not match their hash.
    pub bad_chunks: u64,
    /// Chunks that came on lanes.
    pub lane_chunks: u64,
    /// Chunks that came by gRPC.
    pub grpc_chunks: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// Most resident memory at any time.
    pub rss_peak_bytes: u64,
    /// Resident memory at the end that is the process's own.
    pub rss_anonymous_bytes: u64,
    /// Resident memory at the end that are pages of files.
    pub rss_file_bytes: u64,
}

/// What another way of getting the object came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Contest {
    /// Which.
    pub name: &'static str,
    /// Times of its clients by the ideal.
    pub times: Ratios,
    /// Whose client failed, and why.
    pub failures: Vec<String>,
    /// Bytes on the wire that left the origin's host, by the size.
    pub origin_wire_per_object: f64,
    /// Its p99 by Shoal's; none when either is missing.
    pub p99_by_shoal: Option<f64>,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// The ideal time, in milliseconds.
    pub ideal_ms: u64,
    /// Times of clients by the ideal.
    pub times: Ratios,
    /// Clients whose node lived and that did not get every byte right.
    pub failed: usize,
    /// Body bytes that left the origin by the size, over all rounds.
    pub origin_bytes_per_object: f64,
    /// Bytes on the wire that left the origin's host by the size, over all rounds.
    pub origin_wire_per_object: f64,
    /// Requests that the origin saw.
    pub origin_requests: u64,
    /// The most that entered any zone by the size; none with one zone.
    pub zone_bytes_per_object: Option<f64>,
    /// Zone by zone; none with one zone.
    pub zones: Vec<ZoneEntry>,
    /// How full nodes' lines were in the first round, part by part.
    pub line_use: Vec<LineUse>,
    /// The busiest node's chunk bytes to peers by the mean.
    pub busiest_upload: f64,
    /// Processor time of all nodes for each 10^9 bytes that clients received.
    pub cpu_s_per_gb: f64,
    /// The largest resident memory of any node.
    pub rss_peak_bytes: u64,
    /// Processor time of super-nodes and origin together, in milliseconds.
    pub other_cpu_ms: u64,
    /// Processor time of the clients, in milliseconds.
    pub client_cpu_ms: u64,
    /// Processors busy while the clients waited: beyond what there are, lines are not what limits.
    pub busy_cores: f64,
    /// Nodes that were killed, in order.
    pub killed: Vec<String>,
    /// Other ways of getting the same, in the order of `--against`.
    pub against: Vec<Contest>,
    /// Every client.
    pub gets: Vec<Get>,
    /// Every node.
    pub nodes: Vec<NodeUse>,
    /// True when a signal ended it early.
    pub interrupted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let all: Vec<f64> = (1..=16).rev().map(f64::from).collect();
        let found = Ratios::of(all);
        assert_eq!((found.count, found.p50, found.p99, found.max), (16, 8.0, 16.0, 16.0));
        assert_eq!(Ratios::of(Vec::new()), Ratios::default());
    }
}
