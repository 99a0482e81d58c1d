//! What the phases came to. Names carry units; the report shows them as they are.

use serde::Serialize;

use crate::sample::Times;

/// What a phase cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// From its first call to its last reply.
    pub elapsed_ms: u64,
    /// Processor time of all servers together.
    pub server_cpu_ms: u64,
    /// Processor time of this process.
    pub client_cpu_ms: u64,
    /// Resident memory of the server with most of it, at the end.
    pub server_rss_bytes: u64,
}

/// Records announced.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Holders of each object.
    pub holders_per_object: u64,
    /// Holder records before.
    pub records_before: u64,
    /// Holder records after.
    pub records_after: u64,
    /// Changes in one announcement.
    pub changes_per_call: usize,
    /// Announcements in flight.
    pub in_flight: usize,
    /// Changes acknowledged as durable, a second.
    pub changes_per_s: f64,
    /// Times of the announcements.
    pub times: Times,
    /// Calls that failed and were made again.
    pub failures: u64,
    /// One of the reasons.
    pub failure: Option<String>,
    /// What it cost.
    pub cost: Cost,
}

/// What records take.
#[derive(Clone, Debug, Serialize)]
pub struct Footprint {
    /// Holders of each object.
    pub holders_per_object: u64,
    /// Holder records.
    pub records: u64,
    /// Resident memory of a super-node before the first record.
    pub rss_empty_bytes: u64,
    /// Resident memory of a super-node after the load.
    pub rss_loaded_bytes: u64,
    /// Resident memory of a super-node that was started anew.
    pub rss_restarted_bytes: u64,
    /// Growth of the memory by the load, by `records`.
    pub memory_bytes_per_record: f64,
    /// The same of the one that was started anew.
    pub restarted_memory_bytes_per_record: f64,
    /// The index on disk.
    pub disk_state_bytes: u64,
    /// The log of the consensus on disk.
    pub disk_log_bytes: u64,
    /// Snapshots and all else, but for files that are the state's too.
    pub disk_rest_bytes: u64,
    /// The state by `records`.
    pub state_bytes_per_record: f64,
    /// Everything on disk by `records`.
    pub disk_bytes_per_record: f64,
    /// From the super-node's start until a write through it was acknowledged.
    pub restart_ms: u64,
}

/// Locates at one level of concurrency.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    /// Who was asked.
    pub server: String,
    /// Calls in flight.
    pub in_flight: usize,
    /// Units of work in one call.
    pub units_per_call: usize,
    /// Units a second.
    pub per_s: f64,
    /// Times of the calls.
    pub times: Times,
    /// Calls that failed.
    pub failures: u64,
    /// One of the reasons.
    pub failure: Option<String>,
    /// What it cost.
    pub cost: Cost,
}

/// Purges, one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Purges {
    /// Members with a session.
    pub sessions: usize,
    /// Times of the purges.
    pub times: Times,
    /// Purges that failed, or came back without every session's acknowledgement.
    pub failures: u64,
    /// One of the reasons.
    pub failure: Option<String>,
    /// What it cost.
    pub cost: Cost,
}

/// Leaders killed, one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Failovers {
    /// Holder records in the index meanwhile.
    pub records: u64,
    /// From SIGKILL to the acknowledgement of a write that began after it.
    pub times: Times,
    /// One by one, in order.
    pub each_ms: Vec<u64>,
    /// From a killed one's start until a write through it was acknowledged.
    pub back_times: Times,
    /// Kills after which no write was acknowledged in time.
    pub failures: u64,
    /// One of the reasons.
    pub failure: Option<String>,
}

/// Snapshots under load.
#[derive(Clone, Debug, Serialize)]
pub struct Pauses {
    /// Holder records in the index.
    pub records: u64,
    /// Snapshots that were finished meanwhile, over all super-nodes.
    pub snapshots: u64,
    /// Time between the acknowledgements of one writer, who never waits.
    pub times: Times,
    /// Longest time between two applied entries that the super-nodes measured themselves; none
    /// when they do not.
    pub longest_apply_pause_us: Option<u64>,
    /// Changes a second, by the other writers.
    pub background_changes_per_s: f64,
    /// Calls that failed.
    pub failures: u64,
    /// What it cost.
    pub cost: Cost,
}

/// Everything measured on Shoal.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShoalResults {
    /// Every load.
    pub loads: Vec<Load>,
    /// What records take, for every number of them.
    pub footprints: Vec<Footprint>,
    /// Locates, every super-node at every level.
    pub locates: Vec<Level>,
    /// Fill leases: given, told to a second home, ended.
    pub leases: Vec<Level>,
    /// Purges.
    pub purges: Option<Purges>,
    /// Leaders killed.
    pub failovers: Option<Failovers>,
    /// Snapshots under load.
    pub pauses: Option<Pauses>,
}

/// The same work on etcd.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EtcdResults {
    /// What `etcd --version` says.
    pub version: String,
    /// One put a change.
    pub puts: Vec<Level>,
    /// Transactions of many puts.
    pub txns: Vec<Level>,
    /// Range reads through the consensus.
    pub linearizable_reads: Vec<Level>,
    /// Range reads of what the member has.
    pub serializable_reads: Vec<Level>,
    /// Records put.
    pub records: u64,
    /// Data directory of one member.
    pub disk_bytes: u64,
    /// Resident memory of the member with most of it.
    pub rss_bytes: u64,
}

/// A phase that could not be measured.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseFailure {
    /// Which.
    pub phase: String,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Shoal.
    pub shoal: ShoalResults,
    /// etcd, when asked for.
    pub etcd: Option<EtcdResults>,
    /// What could not be measured.
    pub failures: Vec<PhaseFailure>,
    /// True when a signal ended it early.
    pub interrupted: bool,
    /// The machine's load over the minute before.
    pub load_before: f64,
    /// All phases together, in milliseconds.
    pub elapsed_ms: u64,
}
