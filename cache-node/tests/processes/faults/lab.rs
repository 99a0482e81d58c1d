//! Hosts of our own: one network namespace each, all on one bridge in a namespace of its own, so
//! that nothing of the machine's network is touched. A line is cut by making the sender believe in
//! a wrong hardware address: what it sends is lost in silence, and the other direction goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use toml::Table;

use super::load::{Load, Plan, loadtest};
use crate::common::{Finished, Process, Setup, binary, run, shoal, until};

/// For a member to be ready, cold, with others busy.
const READY_DEADLINE: Duration = Duration::from_secs(90);
const ORIGIN_PORT: u16 = 7000;
const EDGE_PORT: u16 = 8080;
const CLUSTER_PORT: u16 = 7400;
const ADMIN_PORT: u16 = 9400;
/// Nobody has this address.
const NOBODY: &str = "02:00:00:00:00:01";

static LABS: AtomicU32 = AtomicU32::new(0);

/// Whether this process may make namespaces; tells the reader when it may not.
pub(super) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("{test}: needs root for network namespaces and mounts, not run");
    }
    root
}

/// Namespaces, gone when this goes out of scope.
pub(super) struct Lab {
    prefix: String,
    hosts: Vec<String>,
}

impl Lab {
    pub(super) fn new(hosts: &[&str]) -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("shoal{}x{number}", std::process::id());
        let lab = Self { prefix, hosts: hosts.iter().map(|name| (*name).to_owned()).collect() };
        let hub = format!("{}-hub", lab.prefix);
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "bridge", "up"]);
        for (i, host) in lab.hosts.iter().enumerate() {
            let (space, port) = (lab.space(host), format!("port{i}"));
            ip(&["netns", "add", &space]);
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &space];
            ip(&[&["-n", &hub, "link", "add", &port][..], &pair].concat());
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
            let address = format!("{}/24", lab.address(host));
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
        }
        lab
    }

    fn space(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    pub(super) fn address(&self, host: &str) -> String {
        let at = self.hosts.iter().position(|own| own == host);
        format!("10.89.0.{}", at.unwrap_or_else(|| panic!("no host {host}")) + 1)
    }

    /// A command that runs `command` on that host.
    pub(super) fn on(&self, host: &str, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.space(host)]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// What `from` sends to `to` is lost.
    pub(super) fn cut(&self, from: &str, to: &str) {
        self.neighbour(&["replace", &self.address(to), "lladdr", NOBODY, "nud", "permanent"], from);
    }

    /// What `from` sends to `to` arrives again.
    pub(super) fn heal(&self, from: &str, to: &str) {
        self.neighbour(&["delete", &self.address(to)], from);
    }

    fn neighbour(&self, what: &[&str], host: &str) {
        let (verb, rest) = what.split_at(1);
        let space = self.space(host);
        ip(&[&["-n", &space, "neighbour"][..], verb, rest, &["dev", "eth0"]].concat());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hosts = self.hosts.iter().map(|host| self.space(host));
        for space in hosts.chain([format!("{}-hub", self.prefix)]) {
            let gone = Command::new("ip").args(["netns", "delete", &space]).status();
            if !gone.is_ok_and(|status| status.success()) {
                println!("the network namespace {space} could not be removed");
            }
        }
    }
}

fn ip(arguments: &[&str]) {
    let Finished { code, errors, .. } = run(Command::new("ip").args(arguments));
    assert_eq!(code, Some(0), "ip {}: {errors}", arguments.join(" "));
}

/// The host of clients and origin; those of the members have the members' names.
pub(super) const CLIENTS: &str = "clients";

/// A cluster with one member a host.
pub(super) struct Spread {
    members: Vec<(String, Process)>,
    _origin: Process,
    pub(super) lab: Lab,
    folder: PathBuf,
}

impl Drop for Spread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, process) in &self.members {
                println!("{name} said:\n{}", process.last_words());
            }
        }
    }
}

impl Spread {
    /// Three super-nodes and `nodes` nodes. `shoal up` makes certificates and configurations, which
    /// then get the hosts' addresses.
    pub(super) fn start(folder: &Path, nodes: usize) -> Self {
        let supers = (0..3).map(|i| format!("super-{i}"));
        let names: Vec<_> = supers.chain((0..nodes).map(|i| format!("node-{i}"))).collect();
        let hosts: Vec<_> = names.iter().map(String::as_str).chain([CLIENTS]).collect();
        let lab = Lab::new(&hosts);
        let origin_url = format!("http://{}:{ORIGIN_PORT}", lab.address(CLIENTS));
        let setup = Setup::new(folder, &origin_url).members(3, nodes);
        assert!(setup.start().stop().success());
        let mut origin = Command::new(binary("shoal-loadtest"));
        origin.args(["origin", "--json", "--listen"]);
        origin.arg(format!("{}:{ORIGIN_PORT}", lab.address(CLIENTS)));
        let log = folder.join("origin.log");
        let mut origin = Process::start(&mut lab.on(CLIENTS, &origin), &log);
        origin.first_line(READY_DEADLINE);
        let mut spread =
            Self { members: Vec::new(), _origin: origin, lab, folder: folder.to_owned() };
        for name in &names {
            spread.rewrite(name);
            let process = spread.run(name);
            spread.members.push((name.clone(), process));
        }
        names.iter().for_each(|name| spread.ready(name));
        spread
    }

    fn member_folder(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    /// Gives a member its host's addresses, and an empty data directory.
    fn rewrite(&self, name: &str) {
        let folder = self.member_folder(name);
        fs::remove_dir_all(folder.join("data")).unwrap();
        let path = folder.join("config.toml");
        let mut config: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let at = |host: &str, port: u16| format!("{}:{port}", self.lab.address(host));
        let supers: Vec<_> = (0..3).map(|i| at(&format!("super-{i}"), CLUSTER_PORT)).collect();
        let cluster = config["cluster"].as_table_mut().unwrap();
        cluster.insert("listen".into(), at(name, CLUSTER_PORT).into());
        cluster.insert("super_nodes".into(), supers.into());
        config["admin"]
            .as_table_mut()
            .unwrap()
            .insert("listen".into(), at(name, ADMIN_PORT).into());
        if let Some(edge) = config.get_mut("edge") {
            edge.as_table_mut().unwrap().insert("listen".into(), at(name, EDGE_PORT).into());
            let site = config["site"].as_array_mut().unwrap()[0].as_table_mut().unwrap();
            site.insert("hosts".into(), vec!["*"].into());
        }
        fs::write(path, config.to_string()).unwrap();
    }

    fn run(&self, name: &str) -> Process {
        let config = self.member_folder(name).join("config.toml");
        let command = shoal(&["node", "--config", config.to_str().unwrap()]);
        let log = self.folder.join(format!("{name}.log"));
        Process::start(&mut self.lab.on(name, &command), &log)
    }

    fn ready(&self, name: &str) {
        until(&format!("{name} is ready"), READY_DEADLINE, || {
            (self.sees(name, "state", &"up".into())? == self.members.len()
                && self.sees(name, "voter", &true.into())? == 3)
                .then_some(())
        });
    }

    /// How many members have that in that member's view.
    pub(super) fn sees(&self, name: &str, key: &str, value: &Value) -> Option<usize> {
        let status = self.status(name)?;
        Some(status["members"].as_array()?.iter().filter(|member| member[key] == *value).count())
    }

    /// How many members there are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// `shoal status --json` of that member, asked from the clients' host.
    pub(super) fn status(&self, name: &str) -> Option<Value> {
        let admin = format!("http://{}:{ADMIN_PORT}", self.lab.address(name));
        let command = shoal(&["status", "--json", "--admin", &admin]);
        let finished = run(&mut self.lab.on(CLIENTS, &command));
        serde_json::from_str(&finished.output).ok()
    }

    /// The leader and its term, as that member knows them.
    pub(super) fn leader(&self, name: &str) -> Option<(String, u64)> {
        let status = self.status(name)?;
        Some((status["leader"].as_str()?.to_owned(), status["term"].as_u64()?))
    }

    /// Starts a load on all nodes from the clients' host.
    pub(super) fn load(&self, seconds: u64, origin_ratio: &str) -> Load {
        let nodes = self.members.iter().filter(|(name, _)| name.starts_with("node-"));
        let edge = |name: &str| format!("http://{}:{EDGE_PORT}", self.lab.address(name));
        let edges: Vec<_> = nodes.map(|(name, _)| edge(name)).collect();
        Load::start(Plan {
            command: self.lab.on(CLIENTS, &loadtest()),
            edges: &edges.iter().map(String::as_str).collect::<Vec<_>>(),
            origin: &format!("http://{}:{ORIGIN_PORT}", self.lab.address(CLIENTS)),
            seconds,
            folder: &self.folder,
            origin_ratio,
        })
    }
}
