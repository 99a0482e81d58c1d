//! A super-node's disk fills up under load. It may not acknowledge what it cannot keep; the others
//! go on, and once there is room it is part of the tier again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::lab::is_root;
use super::load::{Load, Plan, loadtest};
use crate::common::{Origin, Process, Setup, shoal, turn, until};

/// Room for a super-node's start and a few seconds of its work, and less than it sets aside for its
/// log: with room set aside it would go on for minutes on a full disk.
const DISK_SIZE: &str = "16m";
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
const BEFORE_FULL: Duration = Duration::from_secs(3);
const FULL: Duration = Duration::from_secs(10);
const LOAD_S: u64 = 40;

/// A small file system over a folder, seen only by who is started on it. It ends with this.
struct SmallDisk {
    holder: Process,
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts it over `folder`, with what is in there copied onto it.
    fn over(folder: &Path, log: &Path) -> Self {
        let script = "cp -a \"$1\" \"$1.kept\" && mount -t tmpfs -o size=\"$2\" shoal-test \"$1\" \
                      && cp -a \"$1.kept/.\" \"$1/\" && echo mounted && exec sleep 600";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", script, "sh"]).arg(folder).arg(DISK_SIZE);
        let mut holder = Process::start(&mut command, log);
        assert_eq!(holder.first_line(SETTLE_DEADLINE), "mounted");
        Self { holder, folder: folder.to_owned() }
    }

    /// A command that sees it.
    fn on(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--mount", "--target", &self.holder.pid().to_string()]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Takes everything that is left, until the guard goes out of scope.
    fn fill(&self) -> Filler {
        // What a process sees is open to root here.
        let root = Path::new("/proc").join(self.holder.pid().to_string()).join("root");
        let path = root.join(self.folder.strip_prefix("/").unwrap()).join("filler");
        let mut file = File::create(&path).unwrap();
        // Ends when the disk is full, which is what is wanted; small writes take the last of it.
        for bytes in [64 * 1024, 512] {
            while file.write_all(&vec![0xa5; bytes]).is_ok() {}
        }
        Filler(path)
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_super_node_with_a_full_disk_costs_nothing() {
    if !is_root("a_super_node_with_a_full_disk_costs_nothing") {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(&[]);
    let cluster = Setup::new(folder.path(), origin.url()).members(3, 2).start();
    let victim = "super-2";
    cluster.stop_member(victim);
    let config = cluster.config_file(victim);
    let disk = SmallDisk::over(&config.with_file_name("data"), &folder.path().join("disk.log"));
    let node = shoal(&["node", "--config", config.to_str().unwrap()]);
    let start = |log: &str| Process::start(&mut disk.on(&node), &folder.path().join(log));
    let mut process = start("victim.log");
    cluster.until_ready(victim);
    let load = Load::start(Plan {
        command: loadtest(),
        edges: &[cluster.edge_url(0), cluster.edge_url(1)],
        origin: origin.url(),
        seconds: LOAD_S,
        folder: folder.path(),
        origin_ratio: "1.1",
    });
    std::thread::sleep(BEFORE_FULL);
    let filler = disk.fill();
    until("the full disk is told", SETTLE_DEADLINE, || {
        let told = process.last_words().contains("No space left");
        (told || process.has_ended()).then_some(())
    });
    std::thread::sleep(FULL);
    drop(filler);
    // It ends by itself or an operator restarts it; either way it goes on from that disk.
    process.terminate();
    process.wait(SETTLE_DEADLINE);
    let again = start("victim-again.log");
    cluster.until_ready(victim);
    load.passes();
    drop(again);
}
