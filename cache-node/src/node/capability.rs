//! What this node tells of itself, should the tier think of choosing it. Measured from what it does
//! anyway: no load is made to measure anything.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_proto::wire::v1;

use crate::clock;
use crate::config::machine;

/// Between two looks at disk and memory.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// PURE. The rate of the fastest recent transfer, out of a counter of all bytes moved.
#[derive(Debug, Default)]
struct Bandwidth {
    last: Option<(u64, u64)>,
    best_bytes_s: Option<u64>,
}

impl Bandwidth {
    /// Shorter spans say little, in milliseconds.
    const SPAN_MS: u64 = 400;
    /// A span with less in it says nothing of how fast the node is, only of how little was asked.
    const SPAN_BYTES_MIN: u64 = 256 * 1024;
    /// Of the best rate so much is forgotten in each span, one part in: half of it in some minutes.
    const FORGET: u64 = 1_024;

    fn moved(&mut self, now_ms: u64, bytes: u64) -> Option<u64> {
        let Some((at_ms, before)) = self.last else {
            self.last = Some((now_ms, bytes));
            return None;
        };
        let span_ms = now_ms.saturating_sub(at_ms);
        if span_ms < Self::SPAN_MS {
            return self.best_bytes_s;
        }
        self.last = Some((now_ms, bytes));
        let moved = bytes.saturating_sub(before);
        let kept = self.best_bytes_s.map(|best| best - best / Self::FORGET);
        let rate = moved.saturating_mul(1_000) / span_ms;
        self.best_bytes_s = match moved >= Self::SPAN_BYTES_MIN {
            true => kept.max(Some(rate)),
            false => kept,
        };
        self.best_bytes_s
    }
}

#[derive(Debug)]
struct Machine {
    looked: Instant,
    memory_bytes: u64,
    disk_free_bytes: u64,
}

/// Measures this node.
#[derive(Debug)]
pub(super) struct Meter {
    data_dir: PathBuf,
    started: Instant,
    bandwidth: Mutex<Bandwidth>,
    machine: Mutex<Option<Machine>>,
}

impl Meter {
    /// A meter of the disk under `data_dir`; the uptime counts from here.
    pub(super) fn new(data_dir: PathBuf) -> Self {
        let (bandwidth, machine) = (Mutex::default(), Mutex::default());
        Self { data_dir, started: clock::monotonic(), bandwidth, machine }
    }

    /// What this node has now, having moved so many bytes since it started.
    pub(super) fn read(&self, moved_bytes: u64, super_runs: bool) -> v1::Capability {
        let uptime_ms = u64::try_from(clock::since(self.started).as_millis()).unwrap_or(u64::MAX);
        let mut bandwidth = self.bandwidth.lock().unwrap_or_else(PoisonError::into_inner);
        let bandwidth_bytes_s = bandwidth.moved(uptime_ms, moved_bytes);
        drop(bandwidth);
        let (memory_bytes, disk_free_bytes) = self.machine();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        v1::Capability {
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            memory_bytes,
            disk_free_bytes,
            bandwidth_bytes_s,
            uptime_ms,
            super_runs,
        }
    }

    fn machine(&self) -> (u64, u64) {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if machine.as_ref().is_none_or(|seen| clock::since(seen.looked) >= LOOK_EVERY) {
            *machine = Some(Machine {
                looked: clock::monotonic(),
                memory_bytes: machine::memory_bytes().unwrap_or_default(),
                disk_free_bytes: machine::free_bytes(&self.data_dir).unwrap_or_default(),
            });
        }
        machine.as_ref().map_or((0, 0), |seen| (seen.memory_bytes, seen.disk_free_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_bandwidth_is_that_of_the_best_span() {
        let mut bandwidth = Bandwidth::default();
        assert_eq!(bandwidth.moved(0, 0), None);
        assert_eq!(bandwidth.moved(500, 1_000), None, "a trickle says nothing");
        assert_eq!(bandwidth.moved(1_000, 10 * MIB + 1_000), Some(20 * MIB));
        assert_eq!(bandwidth.moved(1_100, 11 * MIB), Some(20 * MIB), "too short");
        let later = bandwidth.moved(1_500, 11 * MIB).unwrap();
        assert!(later < 20 * MIB && later > 19 * MIB, "{later}");
        let mut now_ms = 1_500;
        for _ in 0..2_000 {
            now_ms += 500;
            bandwidth.moved(now_ms, 11 * MIB);
        }
        assert!(bandwidth.moved(now_ms, 11 * MIB).unwrap() < 5 * MIB, "forgotten in time");
    }

    #[test]
    fn a_machine_has_something_of_everything() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Meter::new(folder.path().to_owned()).read(0, true);
        assert!(seen.cores > 0 && seen.memory_bytes > MIB && seen.disk_free_bytes > 0, "{seen:?}");
        assert!(seen.super_runs && seen.bandwidth_bytes_s.is_none());
    }
}
