//! A local cluster by `shoal up`, described by the line of JSON that it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use super::process::{kill, runs, terminate};
use super::{Client, Finished, Paused, Process, free_base_port, run, shoal, until};

/// For all members to be ready: `shoal up` itself gives up earlier.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// For all members to stop in order.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    folder: PathBuf,
    flags: Vec<String>,
}

impl Setup {
    /// A cluster that keeps everything in `folder`, before the origin at that URL.
    pub(crate) fn new(folder: &Path, origin: &str) -> Self {
        let setup = Self { folder: folder.to_owned(), flags: Vec::new() };
        setup.flags(&["--origin", origin])
    }

    pub(crate) fn members(self, super_nodes: usize, nodes: usize) -> Self {
        let (super_nodes, nodes) = (super_nodes.to_string(), nodes.to_string());
        self.flags(&["--super-nodes", &super_nodes, "--nodes", &nodes])
    }

    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Starts it on free ports, or on those that its folder remembers.
    pub(crate) fn start(&self) -> Cluster {
        fs::create_dir_all(&self.folder).unwrap();
        let data = self.folder.join("data");
        let mut command = shoal(&["up", "--json", "--data-dir", data.to_str().unwrap()]);
        command.args(&self.flags);
        if !data.exists() {
            command.args(["--base-port", &free_base_port().to_string()]);
        }
        let mut up = Process::start(&mut command, &self.folder.join("up.log"));
        let line = up.first_line(READY_DEADLINE);
        let facts = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Cluster { up, facts, folder: self.folder.clone() }
    }
}

/// A running cluster; stopped when it goes out of scope.
pub(crate) struct Cluster {
    up: Process,
    facts: Value,
    folder: PathBuf,
}

impl Cluster {
    fn member(&self, name: &str) -> &Value {
        let both = ["nodes", "super_nodes"].into_iter();
        let mut all = both.flat_map(|kind| self.facts[kind].as_array().unwrap());
        all.find(|member| member["name"] == name).unwrap_or_else(|| panic!("no member {name}"))
    }

    fn text(&self, name: &str, key: &str) -> &str {
        self.member(name)[key].as_str().unwrap()
    }

    /// Base URL of node `i`'s edge.
    pub(crate) fn edge_url(&self, i: usize) -> &str {
        self.text(&format!("node-{i}"), "edge")
    }

    /// Base URL of a member's admin listener.
    pub(crate) fn admin_url(&self, name: &str) -> &str {
        self.text(name, "admin")
    }

    /// A client of node `i`'s edge.
    pub(crate) fn edge(&self, i: usize) -> Client {
        Client::new(self.edge_url(i))
    }

    /// All processes, `shoal up` first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let both = ["nodes", "super_nodes"].into_iter();
        let all = both.flat_map(|kind| self.facts[kind].as_array().unwrap());
        let pids = all.map(|member| u32::try_from(member["pid"].as_u64().unwrap()).unwrap());
        std::iter::once(self.up.pid()).chain(pids).collect()
    }

    /// A member's process, as it was started by `shoal up`.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        u32::try_from(self.member(name)["pid"].as_u64().unwrap()).unwrap()
    }

    /// SIGKILL to a member.
    pub(crate) fn kill(&self, name: &str) {
        kill(self.pid(name));
    }

    /// SIGSTOP to a member, until the guard goes out of scope.
    pub(crate) fn pause(&self, name: &str) -> Paused {
        Paused::new(self.pid(name))
    }

    /// Starts a member that was killed on the data that it left behind, and waits until it is
    /// ready.
    pub(crate) fn revive(&self, name: &str) -> Process {
        let process = self.launch(name);
        self.until_ready(name);
        process
    }

    /// Starts a member that was killed, and does not wait for anything.
    pub(crate) fn launch(&self, name: &str) -> Process {
        let config = self.config_file(name);
        let mut command = shoal(&["node", "--config", config.to_str().unwrap()]);
        Process::start(&mut command, &self.folder.join(format!("{name}.log")))
    }

    /// What a member's `/readyz` says, if it answers.
    pub(crate) fn readiness(&self, name: &str) -> Option<(u16, String)> {
        let reply = Client::new(self.text(name, "admin")).get("/readyz").ok()?;
        Some((reply.head.status, String::from_utf8(reply.body).unwrap()))
    }

    /// A command with the cluster's token, asked of that member.
    pub(crate) fn control(&self, name: &str, arguments: &[&str]) -> Finished {
        let token = self.facts["token_file"].as_str().unwrap();
        let whom = ["--admin", self.text(name, "admin"), "--token-file", token];
        run(shoal(arguments).args(whom))
    }

    /// The data directory of a member.
    pub(crate) fn member_data(&self, name: &str) -> PathBuf {
        self.data_dir().join(name).join("data")
    }

    /// Waits until a member is ready.
    pub(crate) fn until_ready(&self, name: &str) {
        let admin = self.text(name, "admin");
        until(&format!("{name} is ready again"), READY_DEADLINE, || {
            let reply = Client::new(admin).get("/readyz").ok()?;
            (reply.head.status == 200).then_some(())
        });
    }

    /// Stops a member in order, and waits until it is gone.
    pub(crate) fn stop_member(&self, name: &str) {
        terminate(self.pid(name));
    }

    /// The configuration file of a member.
    pub(crate) fn config_file(&self, name: &str) -> PathBuf {
        self.data_dir().join(name).join("config.toml")
    }

    pub(crate) fn data_dir(&self) -> &Path {
        Path::new(self.facts["data_dir"].as_str().unwrap())
    }

    /// `shoal status --json`, asked of that member.
    pub(crate) fn status(&self, name: &str) -> Value {
        let finished = run(&mut shoal(&["status", "--json", "--admin", self.text(name, "admin")]));
        serde_json::from_str(&finished.output)
            .unwrap_or_else(|error| panic!("{error}: {}{}", finished.output, finished.errors))
    }

    /// The sum of a metric's series on a member; 0 when it has none.
    pub(crate) fn metric(&self, name: &str, metric: &str) -> f64 {
        let reply = Client::new(self.text(name, "admin")).get("/metrics").unwrap();
        let text = String::from_utf8(reply.body).unwrap();
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next())?
        });
        series.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// SIGTERM to `shoal up`; how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.up.terminate();
        let status = self.up.wait(STOP_DEADLINE);
        let left: Vec<_> = self.pids().into_iter().filter(|pid| runs(*pid)).collect();
        assert!(left.is_empty(), "processes {left:?} outlived shoal up: {}", self.up.last_words());
        status
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("shoal up said:\n{}", self.up.last_words());
        }
        // Members end with `shoal up`, even when it is killed: the guard of its process does that
        // when it does not end by itself.
        self.up.terminate();
        for _ in 0..STOP_DEADLINE.as_secs() * 20 {
            if self.up.has_ended() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
