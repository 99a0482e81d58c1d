//! A load that reads many objects for the first time and popular ones again, and that judges
//! itself: every byte verified, no failure, hardly a byte twice from the origin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::common::{Process, binary};

/// For a load to end after its last request was due.
const END_DEADLINE: Duration = Duration::from_secs(120);
/// The load test reads its list of edges again every 200 ms.
const EDGES_READ_AGAIN: Duration = Duration::from_millis(400);
/// Requests each second: misses throughout, and room for tests on two cores.
const RATE: &str = "50";
const OBJECTS: &str = "600";
const SIZES: &str = "4KiB:60,64KiB:35,1MiB:5";

/// What to load, and by which measure.
pub(super) struct Plan<'a> {
    /// Runs the load test where it can reach the edges.
    pub(super) command: Command,
    pub(super) edges: &'a [&'a str],
    pub(super) origin: &'a str,
    pub(super) seconds: u64,
    /// Where the list of edges and the log are kept.
    pub(super) folder: &'a Path,
    /// Most bytes from the origin, as a multiple of those of the objects.
    pub(super) origin_ratio: &'a str,
}

static LOADS: AtomicU32 = AtomicU32::new(0);

/// A running load.
pub(super) struct Load {
    process: Process,
    edges: PathBuf,
}

impl Load {
    /// Starts it, on objects that no load before asked for.
    pub(super) fn start(plan: Plan<'_>) -> Self {
        let number = LOADS.fetch_add(1, Ordering::Relaxed);
        let edges = plan.folder.join(format!("edges-{number}"));
        list(&edges, plan.edges);
        let mut command = plan.command;
        command.args(["run", "--rate", RATE, "--objects", OBJECTS, "--sizes", SIZES]);
        command.args(["--zipf", "0.4", "--prefix", &format!("load{number}")]);
        command.args(["--duration", &format!("{}s", plan.seconds)]);
        command.arg("--edges-file").arg(&edges).args(["--origin", plan.origin]);
        command.args(["--max-failures", "0", "--max-wrong", "0"]);
        command.args(["--max-origin-ratio", plan.origin_ratio]);
        let log = plan.folder.join(format!("load-{number}.log"));
        Self { process: Process::start(&mut command, &log), edges }
    }

    /// Goes on with other edges; returns once the load has taken them in.
    pub(super) fn use_edges(&self, edges: &[&str]) {
        list(&self.edges, edges);
        std::thread::sleep(EDGES_READ_AGAIN);
    }

    /// Waits for its end, which must be a good one.
    pub(super) fn passes(mut self) {
        let status = self.process.wait(END_DEADLINE);
        assert!(status.success(), "{status}: {}", self.process.last_words());
    }

    /// Fails when the load has ended before its time.
    pub(super) fn still_runs(&mut self) {
        assert!(!self.process.has_ended(), "ended early: {}", self.process.last_words());
    }
}

fn list(path: &Path, edges: &[&str]) {
    let new = path.with_extension("new");
    fs::write(&new, edges.join("\n") + "\n").unwrap();
    fs::rename(new, path).unwrap();
}

/// The load test, here on the loopback.
pub(super) fn loadtest() -> Command {
    Command::new(binary("shoal-loadtest"))
}
