//! PURE. How fit a node is to keep the index: one number out of what it reports and how steady it
//! has been.
//!
//! Stability dominates: a voter that comes and goes costs the tier an election or a membership
//! change each time, a small one only costs it speed. Everything but flaps and missed heartbeats is
//! on a logarithmic scale, since the difference between 2 and 4 cores matters and the one between
//! 62 and 64 does not; and everything is capped, so that no single fact drowns the others.
//!
//! | fact | points | why |
//! |---|---|---|
//! | uptime | 0 to 30, full after an hour | a new process has proven nothing; one restart is soon forgotten |
//! | flaps in the last hour | -12 each, to -60 | what costs the tier most; leaves the count one by one, so recovery is slow |
//! | missed heartbeats | -2 each, to -10 | an overloaded machine or a bad network |
//! | cores | 0 to 12, full at 32 | applying, hashing, answering |
//! | memory | 0 to 12, full at 64 GiB | caches and memtables |
//! | free disk | 0 to 8, full at 1 TiB | log, state and snapshots |
//! | bandwidth | 0 to 8, full at 1 GiB/s; 4 while unknown | snapshots, sessions |

/// What a node has. Zero stands for unknown, which earns nothing, but for the bandwidth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Processors that it may use.
    pub cores: u32,
    /// Memory that it may use.
    pub memory_bytes: u64,
    /// What it can still write.
    pub disk_free_bytes: u64,
    /// Bytes a second of its fastest recent transfer; `None` before there was one, which is neutral.
    pub bandwidth_bytes_s: Option<u64>,
}

/// How steady a node has been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stability {
    /// Since its process started, in milliseconds.
    pub uptime_ms: u64,
    /// How often it was lost in the last hour.
    pub flaps: u32,
    /// Heartbeats that are overdue now.
    pub missed_heartbeats: u32,
}

const UPTIME_POINTS: f64 = 30.0;
const UPTIME_FULL_MINUTES: f64 = 60.0;
const FLAP_POINTS: f64 = 12.0;
const FLAP_POINTS_MAX: f64 = 60.0;
const MISSED_POINTS: f64 = 2.0;
const MISSED_POINTS_MAX: f64 = 10.0;
const CORES_POINTS: f64 = 12.0;
const CORES_FULL: f64 = 32.0;
const MEMORY_POINTS: f64 = 12.0;
const MEMORY_FULL_GIB: f64 = 64.0;
const DISK_POINTS: f64 = 8.0;
const DISK_FULL_GIB: f64 = 1_024.0;
const BANDWIDTH_POINTS: f64 = 8.0;
const BANDWIDTH_FULL_MIB_S: f64 = 1_024.0;
const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// A node's fitness in thousandths of a point: -70,000 to 70,000.
pub fn score(capability: &Capability, stability: &Stability) -> i64 {
    let Capability { cores, memory_bytes, disk_free_bytes, bandwidth_bytes_s } = *capability;
    let Stability { uptime_ms, flaps, missed_heartbeats } = *stability;
    let bandwidth = bandwidth_bytes_s.map_or(BANDWIDTH_POINTS / 2.0, |bytes| {
        BANDWIDTH_POINTS * share(bytes as f64 / MIB, BANDWIDTH_FULL_MIB_S)
    });
    let points = UPTIME_POINTS * share(uptime_ms as f64 / 60_000.0, UPTIME_FULL_MINUTES)
        - (FLAP_POINTS * f64::from(flaps)).min(FLAP_POINTS_MAX)
        - (MISSED_POINTS * f64::from(missed_heartbeats)).min(MISSED_POINTS_MAX)
        + CORES_POINTS * share(f64::from(cores), CORES_FULL)
        + MEMORY_POINTS * share(memory_bytes as f64 / GIB, MEMORY_FULL_GIB)
        + DISK_POINTS * share(disk_free_bytes as f64 / GIB, DISK_FULL_GIB)
        + bandwidth;
    (points * 1_000.0).round() as i64
}

/// 0 for nothing, 1 for `full` and more, logarithmic between.
fn share(amount: f64, full: f64) -> f64 {
    (amount.max(0.0).ln_1p() / full.ln_1p()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;
    const HOUR_MS: u64 = 3_600_000;

    fn machine(cores: u32) -> Capability {
        let gib = u64::from(cores) * 4 * GIB;
        Capability { cores, memory_bytes: gib, disk_free_bytes: 10 * gib, bandwidth_bytes_s: None }
    }

    fn steady(uptime_ms: u64) -> Stability {
        Stability { uptime_ms, flaps: 0, missed_heartbeats: 0 }
    }

    #[test]
    fn a_small_steady_node_beats_a_large_flapping_one() {
        let flapping = Stability { flaps: 3, ..steady(HOUR_MS) };
        assert!(score(&machine(2), &steady(HOUR_MS)) > score(&machine(32), &flapping));
    }

    #[test]
    fn more_of_anything_is_never_worse() {
        let grows = |scores: Vec<i64>| scores.windows(2).all(|pair| pair[0] <= pair[1]);
        assert!(grows((0..70).map(|n| score(&machine(n), &steady(HOUR_MS))).collect()));
        assert!(grows((0..90).map(|m| score(&machine(4), &steady(m * 60_000))).collect()));
        let flaps = |flaps| score(&machine(4), &Stability { flaps, ..steady(HOUR_MS) });
        assert!(grows((0..10).rev().map(flaps).collect()));
        let fast =
            |mib: u64| Capability { bandwidth_bytes_s: Some(mib * 1024 * 1024), ..machine(4) };
        assert!(grows((0..2_000).map(|mib| score(&fast(mib), &steady(0))).collect()));
    }

    #[test]
    fn an_unknown_bandwidth_is_neutral() {
        let of = |bandwidth_bytes_s| {
            score(&Capability { bandwidth_bytes_s, ..machine(4) }, &steady(HOUR_MS))
        };
        assert!(of(Some(0)) < of(None) && of(None) < of(Some(GIB)));
    }

    #[test]
    fn the_range_is_what_the_page_says() {
        let worst = Stability { uptime_ms: 0, flaps: u32::MAX, missed_heartbeats: u32::MAX };
        let none = Capability { bandwidth_bytes_s: Some(0), ..Capability::default() };
        assert_eq!(score(&none, &worst), -70_000);
        let all = Capability {
            cores: u32::MAX,
            memory_bytes: u64::MAX,
            disk_free_bytes: u64::MAX,
            bandwidth_bytes_s: Some(u64::MAX),
        };
        assert_eq!(score(&all, &steady(u64::MAX)), 70_000);
    }
}
