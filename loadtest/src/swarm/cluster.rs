//! The members and the origin of a lab, one process a host.
//!
//! `shoal up` makes certificates and configurations on loopback and ends; every member is then
//! started anew on its host, with that host's addresses, and founds the cluster again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    SwarmError,
    lab::{Host, Lab},
    results::NodeUse,
    space,
};
use crate::{
    clock::Clock,
    origin::stats::{Counts, StatsDocument},
    process::{Process, find_program, usage},
    scenario::SwarmScenario,
    tier::{
        TierError,
        setup::{self, UpOptions},
    },
};

/// For all members to see one another, cold and on few processors.
const READY_DEADLINE: Duration = Duration::from_secs(180);
/// Between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 200;
pub(super) const ORIGIN_PORT: u16 = 7000;
const CLUSTER_PORT: u16 = 7400;
const EDGE_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9400;
/// The origin's host.
pub(super) const ORIGIN: &str = "origin";

/// One member on its host.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) zone: u16,
    pub(super) space: String,
    address: Ipv4Addr,
    process: Process,
    /// What it had done when it was killed.
    pub(super) last: Option<NodeUse>,
}

impl Member {
    /// Where its clients connect to, from its own host.
    pub(super) fn edge(&self) -> SocketAddr {
        (self.address, EDGE_PORT).into()
    }

    fn usage(&self) -> usage::Usage {
        usage::of(self.process.pid())
    }
}

/// All processes.
pub(super) struct Cluster {
    // Before the lab: processes end before their hosts go.
    pub(super) nodes: Vec<Member>,
    super_nodes: Vec<Member>,
    origin: Process,
    pub(super) lab: Lab,
}

#[derive(Deserialize)]
struct Status {
    members: Vec<StatusMember>,
}

#[derive(Deserialize)]
struct StatusMember {
    state: String,
}

impl Cluster {
    /// Lays lines, starts everything, and waits until all members see one another.
    pub(super) async fn start(scenario: &SwarmScenario, folder: &Path) -> Result<Self, SwarmError> {
        let program = find_program("shoal", scenario.shoal.as_deref());
        let program = program.ok_or(TierError::NoProgram)?;
        let zone = |at: u16| at % scenario.zones;
        let in_zone = |name: &str, at| Host { name: format!("{name}-{at}"), zone: Some(zone(at)) };
        let nodes = (0..scenario.nodes).map(|at| in_zone("node", at));
        let super_nodes = (0..scenario.super_nodes).map(|at| in_zone("super", at));
        let origin = Host { name: ORIGIN.to_owned(), zone: None };
        let hosts = nodes.chain(super_nodes).chain([origin]).collect();
        let lab = Lab::new(hosts, scenario.zones, scenario.rate_bits_per_s)?;
        let (_, origin_address) = lab.place(ORIGIN).ok_or(SwarmError::NoHost)?;
        let up = UpOptions {
            program: program.clone(),
            folder: folder.to_owned(),
            super_nodes: scenario.super_nodes,
            nodes: scenario.nodes,
            origin: Some(format!("http://{origin_address}:{ORIGIN_PORT}")),
            insecure: scenario.insecure,
            more: Vec::new(),
        };
        let facts = setup::up(&up).await?;
        let starter = Starter { scenario, folder, program, lab: &lab };
        let origin = starter.origin(origin_address)?;
        let mut super_nodes = Vec::new();
        for (facts, at) in facts.super_nodes.iter().zip(0..) {
            super_nodes.push(starter.member(&facts.name, zone(at), true)?);
        }
        let mut nodes = Vec::new();
        for (facts, at) in facts.nodes.iter().zip(0..) {
            nodes.push(starter.member(&facts.name, zone(at), false)?);
        }
        let cluster = Self { nodes, super_nodes, origin, lab };
        cluster.ready().await?;
        Ok(cluster)
    }

    async fn ready(&self) -> Result<(), SwarmError> {
        let clock = Clock::start();
        let count = self.nodes.len() + self.super_nodes.len();
        for member in self.nodes.iter().chain(&self.super_nodes) {
            while seen(member).await != Some(count) {
                if clock.now() >= READY_DEADLINE {
                    let (name, said) = (member.name.clone(), member.process.log_tail());
                    return Err(SwarmError::NotReady { name, said });
                }
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            }
        }
        Ok(())
    }

    /// Bytes that have left the origin's host so far, with all headers.
    pub(super) fn origin_sent(&self) -> u64 {
        self.lab.carried(ORIGIN).0
    }

    /// What has left the origin for a path.
    pub(super) async fn origin_counts(&self, path: &str) -> Result<Counts, SwarmError> {
        let (space, address) = self.lab.place(ORIGIN).ok_or(SwarmError::NoHost)?;
        let page = space::page(&space, (address, ORIGIN_PORT).into(), "/_origin/stats").await;
        let page = page.map_err(|source| self.silent(source))?;
        let stats: StatsDocument = serde_json::from_str(&page)
            .map_err(|error| self.silent(std::io::Error::other(error)))?;
        Ok(stats.paths.get(path).copied().unwrap_or_default())
    }

    fn silent(&self, source: std::io::Error) -> SwarmError {
        SwarmError::Origin { source, said: self.origin.log_tail() }
    }

    /// Kills nodes: first those that fill, then others from the last on. Their names, in order.
    pub(super) async fn kill(&mut self, count: u16) -> Result<Vec<String>, SwarmError> {
        let mut order = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let used = used(node).await;
            order.push((used.fills == 0, usize::MAX - at, at, used));
        }
        order.sort_unstable_by_key(|(idle, last, ..)| (*idle, *last));
        let mut killed = Vec::new();
        for (_, _, at, used) in order.into_iter().take(count.into()) {
            let node = &mut self.nodes[at];
            node.last = Some(used);
            node.process.kill_now().map_err(TierError::from)?;
            killed.push(node.name.clone());
        }
        Ok(killed)
    }

    /// What every node has done so far.
    pub(super) async fn node_uses(&self) -> Vec<NodeUse> {
        let mut uses = Vec::new();
        for node in &self.nodes {
            uses.push(match &node.last {
                Some(last) => last.clone(),
                None => used(node).await,
            });
        }
        uses
    }

    /// Processor time of super-nodes and origin so far.
    pub(super) fn other_cpu(&self) -> Duration {
        let members: Duration = self.super_nodes.iter().map(|member| member.usage().cpu).sum();
        members + usage::of(self.origin.pid()).cpu
    }

    /// Ends everything, all at once: what a swarm leaves behind is of no use to anybody.
    pub(super) async fn stop(mut self) -> Result<(), SwarmError> {
        for member in self.nodes.iter_mut().chain(&mut self.super_nodes) {
            member.process.kill_now().map_err(TierError::from)?;
        }
        for member in self.nodes.iter_mut().chain(&mut self.super_nodes) {
            member.process.kill().await.map_err(TierError::from)?;
        }
        self.origin.kill().await.map_err(TierError::from)?;
        Ok(())
    }
}

struct Starter<'a> {
    scenario: &'a SwarmScenario,
    folder: &'a Path,
    program: PathBuf,
    lab: &'a Lab,
}

impl Starter<'_> {
    fn origin(&self, address: Ipv4Addr) -> Result<Process, SwarmError> {
        let own = std::env::current_exe().map_err(|source| self.failed(source))?;
        self.run(ORIGIN, own, origin_args(address))
    }

    fn member(&self, name: &str, zone: u16, is_super: bool) -> Result<Member, SwarmError> {
        let (space, address) = self.lab.place(name).ok_or(SwarmError::NoHost)?;
        let folder = self.folder.join("tier").join(name);
        // What it has learnt of the cluster on loopback does not hold here.
        std::fs::remove_dir_all(folder.join("data")).map_err(|source| self.failed(source))?;
        let seeds = (0..self.scenario.super_nodes).filter_map(|at| {
            let (_, address) = self.lab.place(&format!("super-{at}"))?;
            Some(format!("{address}:{CLUSTER_PORT}"))
        });
        let mut args = vec![
            "node".to_owned(),
            "--exit-with-parent".to_owned(),
            format!("--config={}", folder.join("config.toml").display()),
            format!("--log-level={}", self.scenario.log_level),
            format!("--zone=zone-{zone}"),
            format!("--cluster-listen={address}:{CLUSTER_PORT}"),
            format!("--admin-listen={address}:{ADMIN_PORT}"),
            format!("--super-nodes={}", seeds.collect::<Vec<_>>().join(",")),
        ];
        if !is_super {
            args.push(format!("--edge-listen={address}:{EDGE_PORT}"));
        }
        let process = self.run(name, self.program.clone(), args)?;
        Ok(Member { name: name.to_owned(), zone, space, address, process, last: None })
    }

    fn run(&self, host: &str, program: PathBuf, args: Vec<String>) -> Result<Process, SwarmError> {
        let log = self.folder.join(format!("{host}.log"));
        host_process(self.lab, (host, &log), &program, args)
    }

    fn failed(&self, source: std::io::Error) -> TierError {
        TierError::File { path: self.folder.to_owned(), source }
    }
}

/// What an origin of ours at `address` is started with.
pub(super) fn origin_args(address: Ipv4Addr) -> Vec<String> {
    let listen = format!("{address}:{ORIGIN_PORT}");
    ["origin", "--exit-with-parent", "--listen", &listen].map(str::to_owned).to_vec()
}

/// Starts a program on a host of the lab.
pub(super) fn host_process(
    lab: &Lab,
    (host, log): (&str, &Path),
    program: &Path,
    args: Vec<String>,
) -> Result<Process, SwarmError> {
    let (space, _) = lab.place(host).ok_or(SwarmError::NoHost)?;
    let ip = find_program("ip", None).ok_or(SwarmError::NoHost)?;
    let inside = ["netns", "exec", &space].map(str::to_owned).into_iter();
    let program = program.to_string_lossy().into_owned();
    let args: Vec<_> = inside.chain([program]).chain(args).collect();
    Ok(Process::start(host, &ip, &args, log, false).map_err(TierError::from)?)
}

/// How many members a member sees up.
async fn seen(member: &Member) -> Option<usize> {
    let page = space::page(&member.space, (member.address, ADMIN_PORT).into(), "/status").await;
    let status: Status = serde_json::from_str(&page.ok()?).ok()?;
    Some(status.members.iter().filter(|member| member.state == "up").count())
}

/// What a node has done so far, by its own metrics and by the operating system.
async fn used(node: &Member) -> NodeUse {
    let usage = node.usage();
    let page = space::page(&node.space, (node.address, ADMIN_PORT).into(), "/metrics").await;
    let page = page.unwrap_or_default();
    let metric = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_default() as u64
    };
    NodeUse {
        node: node.name.clone(),
        fills: metric("shoal_fills_total"),
        fills_resumed: metric("shoal_fills_resumed_total"),
        origin_bytes: metric("shoal_origin_bytes_total"),
        peer_bytes_in: metric("shoal_peer_bytes_total{direction=\"in\"}"),
        peer_bytes_out: metric("shoal_peer_bytes_total{direction=\"out\"}"),
        peer_failures: metric("shoal_peer_failures_total"),
        bad_chunks: metric("shoal_peer_bad_chunks_total"),
        lane_chunks: metric("shoal_peer_chunks_total{way=\"lane\"}"),
        grpc_chunks: metric("shoal_peer_chunks_total{way=\"grpc\"}"),
        cpu_ms: u64::try_from(usage.cpu.as_millis()).unwrap_or(u64::MAX),
        rss_peak_bytes: usage.rss_peak_bytes,
        rss_anonymous_bytes: usage.rss_anonymous_bytes,
        rss_file_bytes: usage.rss_file_bytes,
    }
}
