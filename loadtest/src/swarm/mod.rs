//! The benchmark of a swarm: one object that nobody has, asked for by a client of every node at the
//! same moment, over lines of a known rate.
//!
//! | file | purpose |
//! |---|---|
//! | `lab` | hosts and shaped lines, as network namespaces |
//! | `space` | connections from within a namespace |
//! | `cluster` | members and origin, one process a host |
//! | `clients` | one client a node, every byte compared |
//! | `against` | the same by other means |
//! | `results` | what it came to |
//! | `targets` | what it is to come to |

mod against;
mod clients;
mod cluster;
mod lab;
pub mod results;
mod space;
pub mod targets;

use std::{
    io::{self, Write, stderr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::join_all;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, Clock},
    process::usage,
    scenario::SwarmScenario,
    tasks::Group,
    tier::TierError,
};
use clients::{Client, Expected, ms};
use cluster::Cluster;
pub use lab::LabError;
use results::{Contest, Get, LineUse, NodeUse, Ratios, Results, ZoneEntry};

/// Between two looks at how far clients are, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;
/// Lines are looked at so often in the ideal time.
const LOOKS_PER_IDEAL: u32 = 20;
/// For what goes on after the last byte to come to rest: the object is published and announced.
const REST: Duration = Duration::from_millis(500);
/// For connections to end.
const CONNECTIONS_END: Duration = Duration::from_secs(1);

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum SwarmError {
    /// No hosts.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// No cluster.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// A host that was not made.
    #[error("a host is missing; this is a mistake in the benchmark")]
    NoHost,
    /// A member that does not see all others.
    #[error("{name} does not see all other members; its log ends:\n{said}")]
    NotReady {
        /// Which.
        name: String,
        /// The end of its log.
        said: String,
    },
    /// The origin does not answer.
    #[error("the origin does not answer: {source}; its log ends:\n{said}")]
    Origin {
        /// What the operating system said.
        source: io::Error,
        /// The end of its log.
        said: String,
    },
    /// A client could not connect.
    #[error("no connection to {node}: {source}")]
    Connect {
        /// Whose.
        node: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// What is to be compared with is not here.
    #[error(
        "--against: {program} is not on PATH; install it (Debian: apt-get install aria2 \
         opentracker, or ci/deps.sh swarm)"
    )]
    NoContender {
        /// What is missing.
        program: &'static str,
    },
    /// There is no place for the data.
    #[error("--data-dir: {0}; give an empty or a new folder that can be written to")]
    Folder(#[from] io::Error),
}

/// Runs everything that `scenario` asks for. All processes and hosts are gone when it returns, or
/// when it is dropped.
///
/// # Errors
/// When it cannot begin.
pub async fn bench(
    scenario: &SwarmScenario,
    stop: &CancellationToken,
) -> Result<Results, SwarmError> {
    against::check(&scenario.against)?;
    let temporary = match &scenario.data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("shoal-swarm-").tempdir()?),
    };
    let folder = scenario.data_dir.clone().or(temporary.as_ref().map(|dir| dir.path().to_owned()));
    let folder = folder.unwrap_or_default();
    say(&format!("starting {} nodes in {}", scenario.nodes, folder.display()));
    tokio::select! {
        results = measure(scenario, &folder) => results,
        () = stop.cancelled() => Ok(Results { interrupted: true, ..Results::default() }),
    }
}

async fn measure(scenario: &SwarmScenario, folder: &Path) -> Result<Results, SwarmError> {
    let mut cluster = Cluster::start(scenario, folder).await?;
    let mut results = Results { ideal_ms: ms(scenario.ideal()), ..Results::default() };
    let before = cluster.node_uses().await;
    let (other, client) = (cluster.other_cpu(), usage::of(std::process::id()).cpu);
    let (entered, sent) = (cluster.lab.entered(), cluster.origin_sent());
    let mut waited = Duration::ZERO;
    for round in 0..scenario.rounds {
        waited += one_round(scenario, (folder, round), &mut cluster, &mut results).await?;
    }
    results.other_cpu_ms = ms(cluster.other_cpu().saturating_sub(other));
    results.client_cpu_ms = ms(usage::of(std::process::id()).cpu.saturating_sub(client));
    let after = cluster.node_uses().await;
    results.nodes = before.iter().zip(after).map(|(before, after)| since(before, after)).collect();
    if scenario.zones > 1 {
        let now = cluster.lab.entered();
        results.zones = zones(scenario, entered.iter().zip(now).map(|(then, now)| now - then));
    }
    let objects = scenario.size_bytes as f64 * f64::from(scenario.rounds);
    results.origin_wire_per_object = cluster.origin_sent().saturating_sub(sent) as f64 / objects;
    cluster.stop().await?;
    sum_up(scenario, waited, &mut results);
    for contender in &scenario.against {
        let contest = against::contend(scenario, folder, *contender).await?;
        let known = contest.times.count > 0 && results.times.count > 0;
        let p99_by_shoal = known.then(|| contest.times.p99 / results.times.p99);
        results.against.push(Contest { p99_by_shoal, ..contest });
    }
    Ok(results)
}

/// One object to all nodes; how long the last client waited.
async fn one_round(
    scenario: &SwarmScenario,
    (folder, round): (&Path, u16),
    cluster: &mut Cluster,
    results: &mut Results,
) -> Result<Duration, SwarmError> {
    let size_bytes = scenario.size_bytes;
    let path = format!("/o/{size_bytes}/swarm-{}-{round}", clock::wall_unix_ms());
    let expected = Arc::new(Expected::write(folder, path.clone(), size_bytes)?);
    let connections = Group::new();
    let connect = cluster.nodes.iter().map(async |node| {
        let get = Get { round, node: node.name.clone(), zone: node.zone, ..Get::default() };
        let at = (node.space.as_str(), node.edge());
        let client = Client::connect(at, get, &expected, &connections).await;
        client.map_err(|source| SwarmError::Connect { node: node.name.clone(), source })
    });
    let clients: Result<Vec<_>, _> = join_all(connect).await.into_iter().collect();
    let clients = clients?;
    let progress: Vec<_> = clients.iter().map(Client::progress).collect();
    let (open, barrier) = watch::channel(false);
    let (done, mut gets) = mpsc::channel(clients.len());
    for client in clients {
        let (done, barrier, limit) = (done.clone(), barrier.clone(), scenario.limit());
        connections.spawn(async move {
            let get = client.run(barrier, limit).await;
            // The receiver outlives all clients of the round.
            drop(done.send(get).await);
        });
    }
    drop(done);
    say(&format!("round {round}: all clients ask for {path}"));
    let clock = Clock::start();
    open.send_replace(true);
    if scenario.kill > 0 {
        half_way(&progress, size_bytes).await;
        results.killed = cluster.kill(scenario.kill).await?;
        say(&format!("killed {}", results.killed.join(", ")));
    }
    let mut lines = Lines::new(scenario, cluster, clock);
    while let Some(mut get) = lines.look_until(cluster, gets.recv()).await {
        get.killed = results.killed.contains(&get.node);
        get.times_ideal = get.elapsed_ms as f64 / 1e3 / scenario.ideal().as_secs_f64();
        if let Some(why) = get.failure.as_ref().filter(|_| !get.killed) {
            say(&format!("{}: {why}", get.node));
        }
        results.gets.push(get);
    }
    let waited = clock.now();
    if round == 0 {
        results.line_use = lines.uses;
    }
    tokio::time::sleep(REST).await;
    let counts = cluster.origin_counts(&path).await?;
    results.origin_requests += counts.requests;
    results.origin_bytes_per_object +=
        counts.body_bytes as f64 / size_bytes as f64 / f64::from(scenario.rounds);
    connections.finish(CONNECTIONS_END).await;
    Ok(waited)
}

/// Looks at how full nodes' lines are.
struct Lines {
    clock: Clock,
    every: Duration,
    ideal: Duration,
    /// What the lines carry in a second, in bytes.
    bytes_per_s: f64,
    last: (Duration, (u64, u64)),
    uses: Vec<LineUse>,
}

impl Lines {
    fn new(scenario: &SwarmScenario, cluster: &Cluster, clock: Clock) -> Self {
        let lines = f64::from(scenario.nodes);
        Self {
            clock,
            every: scenario.ideal() / LOOKS_PER_IDEAL,
            ideal: scenario.ideal(),
            bytes_per_s: scenario.rate_bits_per_s as f64 / 8.0 * lines,
            last: (clock.now(), cluster.lab.carried("node-")),
            uses: Vec::new(),
        }
    }

    /// Looks again and again until `wanted` is there.
    async fn look_until<T>(&mut self, cluster: &Cluster, wanted: impl Future<Output = T>) -> T {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            let next = (self.last.0 + self.every).saturating_sub(self.clock.now());
            tokio::select! {
                biased;
                got = &mut wanted => return got,
                () = tokio::time::sleep(next) => self.look(cluster),
            }
        }
    }

    fn look(&mut self, cluster: &Cluster) {
        let now = (self.clock.now(), cluster.lab.carried("node-"));
        let (then, (up, down)) = self.last;
        let most = self.bytes_per_s * now.0.saturating_sub(then).as_secs_f64();
        let use_of = |now: u64, then: u64| now.saturating_sub(then) as f64 / most.max(1.0);
        self.uses.push(LineUse {
            until_times_ideal: now.0.as_secs_f64() / self.ideal.as_secs_f64(),
            up: use_of(now.1.0, up),
            down: use_of(now.1.1, down),
        });
        self.last = now;
    }
}

/// Waits until clients have half of all bytes, or move no more.
async fn half_way(progress: &[Arc<AtomicU64>], size_bytes: u64) {
    let half = size_bytes / 2 * progress.len() as u64;
    while progress.iter().map(|one| one.load(Relaxed)).sum::<u64>() < half {
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
}

fn since(before: &NodeUse, after: NodeUse) -> NodeUse {
    NodeUse {
        fills: after.fills.saturating_sub(before.fills),
        fills_resumed: after.fills_resumed.saturating_sub(before.fills_resumed),
        origin_bytes: after.origin_bytes.saturating_sub(before.origin_bytes),
        peer_bytes_in: after.peer_bytes_in.saturating_sub(before.peer_bytes_in),
        peer_bytes_out: after.peer_bytes_out.saturating_sub(before.peer_bytes_out),
        peer_failures: after.peer_failures.saturating_sub(before.peer_failures),
        bad_chunks: after.bad_chunks.saturating_sub(before.bad_chunks),
        lane_chunks: after.lane_chunks.saturating_sub(before.lane_chunks),
        grpc_chunks: after.grpc_chunks.saturating_sub(before.grpc_chunks),
        cpu_ms: after.cpu_ms.saturating_sub(before.cpu_ms),
        ..after
    }
}

fn zones(scenario: &SwarmScenario, entered: impl Iterator<Item = u64>) -> Vec<ZoneEntry> {
    let objects = scenario.size_bytes as f64 * f64::from(scenario.rounds);
    let entry = |(wire_bytes, zone): (u64, u16)| ZoneEntry {
        zone,
        wire_bytes,
        per_object: wire_bytes as f64 / objects,
    };
    entered.zip(0..).map(entry).collect()
}

fn sum_up(scenario: &SwarmScenario, waited: Duration, results: &mut Results) {
    let lived = || results.gets.iter().filter(|get| !get.killed);
    let whole = lived().filter(|get| get.failure.is_none());
    results.times = Ratios::of(whole.map(|get| get.times_ideal).collect());
    results.failed = lived().filter(|get| get.failure.is_some()).count();
    let entered = results.zones.iter().map(|zone| zone.per_object);
    results.zone_bytes_per_object = (scenario.zones > 1).then(|| entered.fold(0.0, f64::max));
    let sent = || results.nodes.iter().map(|node| node.peer_bytes_out as f64);
    let mean = sent().sum::<f64>() / results.nodes.len() as f64;
    results.busiest_upload = if mean > 0.0 { sent().fold(0.0, f64::max) / mean } else { 0.0 };
    let cpu_ms: u64 = results.nodes.iter().map(|node| node.cpu_ms).sum();
    let received: u64 = results.gets.iter().map(|get| get.received_bytes).sum();
    results.cpu_s_per_gb = cpu_ms as f64 * 1e6 / received.max(1) as f64;
    let peaks = results.nodes.iter().map(|node| node.rss_peak_bytes);
    results.rss_peak_bytes = peaks.max().unwrap_or_default();
    let all_cpu_ms = cpu_ms + results.other_cpu_ms + results.client_cpu_ms;
    results.busy_cores = all_cpu_ms as f64 / ms(waited).max(1) as f64;
    results.gets.sort_by(|a, b| (a.round, &a.node).cmp(&(b.round, &b.node)));
}

/// Progress, for whoever watches.
fn say(text: &str) {
    // When stderr is closed there is nobody to tell.
    drop(writeln!(stderr(), "swarm: {text}"));
}
