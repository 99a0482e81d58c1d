//! The benchmark of the index: real super-nodes, simulated members, phase after phase on one tier.
//!
//! A phase that fails is told in the results, and the next one is tried: one figure that cannot be
//! had does not cost the others. Every phase is bounded in calls or in time.

mod against;
mod failover;
mod footprint;
pub mod holdings;
mod load;
mod pause;
mod reads;
pub mod results;
pub mod targets;
mod workers;

use std::{
    io::{Write, stderr},
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, Clock},
    etcd::EtcdError,
    process::usage::{self, Usage},
    rng::Rng,
    scenario::{
        IndexScenario,
        index::{Against, Phase, Preset},
    },
    tasks::Group,
    tier::{Tier, TierError, TierOptions, member::Members},
};
use holdings::{Holdings, Rounds};
use results::{Cost, PhaseFailure, Results};

/// Stream of the seed that members' ids come from.
const MEMBER_STREAM: u64 = 9;
/// For tasks of members to end.
const MEMBERS_END: Duration = Duration::from_secs(5);

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The tier did not come up.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// etcd is not there.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// There is no place for the data.
    #[error("--data-dir: {0}; give an empty or a new folder that can be written to")]
    Folder(#[from] std::io::Error),
}

/// Runs everything that `scenario` asks for.
///
/// # Errors
/// When it cannot begin.
pub async fn bench(
    scenario: &IndexScenario,
    stop: &CancellationToken,
) -> Result<Results, IndexError> {
    let clock = Clock::start();
    let etcd = match scenario.against {
        Some(Against::Etcd) => Some(crate::etcd::find(scenario.etcd.as_deref())?),
        None => None,
    };
    let temporary = match &scenario.data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("shoal-index-").tempdir()?),
    };
    let folder = scenario.data_dir.clone().or(temporary.as_ref().map(|dir| dir.path().to_owned()));
    let folder = folder.unwrap_or_default();
    let mut results = Results { load_before: usage::machine_load(), ..Results::default() };
    let mut bench = Bench::start(scenario, folder.join("shoal"), stop, scenario.holders).await?;
    bench.phases(&mut results).await;
    bench.stop().await?;
    // What one holder an object takes can only be seen in an index that has nothing else.
    let single = scenario.preset == Preset::Full && scenario.has(Phase::Footprint);
    if single && scenario.holders > 1 && !stop.is_cancelled() {
        let mut single = Bench::start(scenario, folder.join("single"), stop, 1).await?;
        let size = scenario.records.first().copied().unwrap_or(1);
        single.grow(size, &mut results).await;
        single.stop().await?;
    }
    if let Some(program) = etcd.filter(|_| !stop.is_cancelled()) {
        let measured = against::measure(scenario, &program, folder.join("etcd"), stop).await;
        results.etcd = note(&mut results, "etcd", measured);
    }
    results.interrupted = stop.is_cancelled();
    results.elapsed_ms = ms(clock.now());
    Ok(results)
}

/// One tier and its members.
struct Bench<'a> {
    scenario: &'a IndexScenario,
    stop: &'a CancellationToken,
    tier: Tier,
    members: Members,
    sessions: Group,
    holdings: Holdings,
    /// Rounds of [`Holdings`] that are in the index.
    rounds: u64,
    /// Resident memory of each super-node before the first record.
    rss_empty: Vec<u64>,
}

impl<'a> Bench<'a> {
    async fn start(
        scenario: &'a IndexScenario,
        folder: PathBuf,
        stop: &'a CancellationToken,
        holders: u16,
    ) -> Result<Self, IndexError> {
        say(&format!("starting {} super-nodes in {}", scenario.super_nodes, folder.display()));
        let options = TierOptions {
            shoal: scenario.shoal.clone(),
            folder,
            super_nodes: scenario.super_nodes,
            insecure: scenario.insecure,
        };
        let tier = Tier::start(&options).await?;
        let seed = clock::wall_unix_ms();
        let mut rng = Rng::new(seed, MEMBER_STREAM);
        let ids: Vec<u64> = (0..scenario.members).map(|_| rng.next_u64() | 1).collect();
        let sessions = Group::new();
        let members = Members::open(&tier, &ids, &sessions).await?;
        let rss_empty = tier.usage().iter().map(|used| used.rss_bytes).collect();
        let holdings =
            Holdings { seed, members: u64::from(scenario.members), holders: u64::from(holders) };
        Ok(Self { scenario, stop, tier, members, sessions, holdings, rounds: 0, rss_empty })
    }

    async fn stop(self) -> Result<(), IndexError> {
        self.sessions.abort();
        self.sessions.finish(MEMBERS_END).await;
        Ok(self.tier.stop().await?)
    }

    async fn phases(&mut self, results: &mut Results) {
        for &records in &self.scenario.records {
            self.grow(records, results).await;
        }
        if self.scenario.has(Phase::Locates) {
            results.shoal.locates = self.locates(results).await;
        }
        if self.scenario.has(Phase::Leases) {
            results.shoal.leases = self.leases(results).await;
        }
        if self.scenario.has(Phase::Purges) {
            results.shoal.purges = self.purges().await;
        }
        if self.scenario.has(Phase::Pauses) {
            let measured = self.pauses().await;
            results.shoal.pauses = note(results, "pauses", measured);
        }
        if self.scenario.has(Phase::Failovers) {
            let measured = self.failovers().await;
            results.shoal.failovers = note(results, "failovers", measured);
        }
    }

    /// Loads records until there are at least so many, and looks at what they take.
    async fn grow(&mut self, records: u64, results: &mut Results) {
        if self.stop.is_cancelled() {
            return;
        }
        let to = self.holdings.rounds_for(records).max(self.rounds + 1);
        let loaded = self.load(Rounds { from: self.rounds, to }).await;
        let whole = loaded.records_after == self.holdings.records(to);
        let failure = loaded.failure.clone().unwrap_or_else(|| "--load-limit".to_owned());
        results.shoal.loads.push(loaded);
        if !whole {
            let reason = format!("{records} records were not loaded in time: {failure}");
            results.failures.push(PhaseFailure { phase: "load".to_owned(), reason });
            return;
        }
        self.rounds = to;
        if self.scenario.has(Phase::Footprint) && !self.stop.is_cancelled() {
            let measured = self.footprint().await;
            let measured = note(results, "footprint", measured);
            results.shoal.footprints.extend(measured);
        }
    }

    fn records(&self) -> u64 {
        self.holdings.records(self.rounds)
    }

    fn meter(&self) -> Meter {
        Meter::start(self.tier.usage())
    }

    fn cost(&self, meter: &Meter) -> Cost {
        meter.cost(&self.tier.usage())
    }
}

/// Keeps a result, or notes why there is none.
fn note<T>(
    results: &mut Results,
    phase: &str,
    measured: Result<T, impl std::fmt::Display>,
) -> Option<T> {
    match measured {
        Ok(measured) => Some(measured),
        Err(error) => {
            let reason = error.to_string();
            say(&format!("{phase}: {reason}"));
            results.failures.push(PhaseFailure { phase: phase.to_owned(), reason });
            None
        }
    }
}

/// What servers and this process have used since it was started.
struct Meter {
    clock: Clock,
    servers: Vec<Usage>,
    client: Usage,
}

impl Meter {
    fn start(servers: Vec<Usage>) -> Self {
        Self { clock: Clock::start(), servers, client: usage::of(std::process::id()) }
    }

    fn cost(&self, servers: &[Usage]) -> Cost {
        let used = |before: &Usage, after: &Usage| ms(after.cpu.saturating_sub(before.cpu));
        let pairs = self.servers.iter().zip(servers);
        Cost {
            elapsed_ms: ms(self.clock.now()),
            server_cpu_ms: pairs.map(|(before, after)| used(before, after)).sum(),
            client_cpu_ms: used(&self.client, &usage::of(std::process::id())),
            server_rss_bytes: servers.iter().map(|used| used.rss_bytes).max().unwrap_or_default(),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Progress, for whoever watches.
fn say(text: &str) {
    // When stderr is closed there is nobody to tell.
    drop(writeln!(stderr(), "index: {text}"));
}
