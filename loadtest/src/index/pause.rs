//! Snapshots under load: a writer that never waits notes the time between its acknowledgements,
//! while others keep changes coming until enough snapshots have been taken.
//!
//! A write is acknowledged once the leader has applied it, so that a leader that stops applying
//! shows up as a gap. Followers are seen through their own metric, where they have one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Bench,
    holdings::Holdings,
    results::Pauses,
    say,
    workers::{Step, run},
};
use crate::{
    clock::Clock,
    rng::Rng,
    sample::Times,
    scenario::index::Preset,
    tasks::Group,
    tier::{
        TierError,
        member::Member,
        metrics::ApplyPauses,
        wire::{self, Holding, Object},
    },
};

/// Changes in one announcement of the writers in the background.
const CHANGES_PER_CALL: usize = 16;
/// Writers in the background.
const WRITERS: usize = 24;
/// Snapshots to wait for, over all super-nodes.
const SNAPSHOTS_WANTED: u64 = 3;
/// Longest wait for them, in times of `--duration`; the quick preset does not wait for any.
const DURATIONS_MAX: u32 = 60;
const DURATIONS_QUICK: u32 = 10;
/// Between two looks for snapshots, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// Stream of the seed.
const STREAM: u64 = 4 << 32;

/// Announces the same objects as complete again: entries are applied, the index does not grow.
struct Churner {
    member: Arc<Member>,
    number: u64,
    holdings: Holdings,
    rounds: u64,
    changes: usize,
    rng: Rng,
}

impl Churner {
    fn objects(&mut self) -> Vec<Object> {
        let rounds = super::Rounds { from: 0, to: self.rounds };
        let count = usize::try_from(self.holdings.records_of_member(rounds)).unwrap_or(1);
        let pick = |rng: &mut Rng| rng.below(count) as u64;
        let numbers: Vec<u64> = (0..self.changes)
            .map(|_| self.holdings.record(rounds, self.number, pick(&mut self.rng)))
            .collect();
        numbers.into_iter().map(|number| self.holdings.object(number)).collect()
    }
}

impl Step for Churner {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        let objects = self.objects();
        let (channel, id) = (self.member.channel(), self.member.id);
        let announced = wire::announce(channel, id, &objects, Holding::Complete).await;
        announced.map(|()| Some(objects.len() as u64)).map_err(|error| error.to_string())
    }
}

impl Bench<'_> {
    pub(super) async fn pauses(&mut self) -> Result<Pauses, TierError> {
        if self.rounds == 0 {
            return Err(self.unhealthy(0, "no records were loaded"));
        }
        say("snapshots under load");
        let churner = |at: usize, changes: usize| Churner {
            member: Arc::clone(self.members.get(at)),
            number: at as u64 % self.holdings.members,
            holdings: self.holdings,
            rounds: self.rounds,
            changes,
            rng: Rng::new(self.holdings.seed, STREAM + at as u64),
        };
        let time = match self.scenario.preset {
            Preset::Quick => self.scenario.duration * DURATIONS_QUICK,
            Preset::Full => self.scenario.duration * DURATIONS_MAX,
        };
        let enough = self.stop.child_token();
        let watching = Group::new();
        let seen = Arc::new(std::sync::Mutex::new(0));
        let folders: Vec<_> = self.tier.super_nodes.iter().map(|one| one.data.clone()).collect();
        watching.spawn(watch(folders, Arc::clone(&seen), enough.clone(), self.scenario.duration));
        let before = self.apply_pauses().await;
        let meter = self.meter();
        let writers = (1..=WRITERS).map(|at| churner(at, CHANGES_PER_CALL)).collect();
        let (probe, others) =
            tokio::join!(run(vec![churner(0, 1)], time, &enough), run(writers, time, &enough),);
        let cost = self.cost(&meter);
        watching.abort();
        let after = self.apply_pauses().await;
        let longest = |(now, then): (&Option<ApplyPauses>, &Option<ApplyPauses>)| {
            Some(now.as_ref()?.longest_since_us(then.as_ref()?))
        };
        let longest = after.iter().zip(&before).filter_map(longest).max();
        let snapshots = *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let times = Times::from(&probe.latency);
        let own = longest.unwrap_or_default();
        say(&format!("{snapshots} snapshots, longest gap {} us, pause {own} us", times.max_us));
        Ok(Pauses {
            records: self.records(),
            snapshots,
            times,
            longest_apply_pause_us: longest,
            background_changes_per_s: others.per_s(),
            failures: probe.failures + others.failures,
            cost,
        })
    }

    async fn apply_pauses(&self) -> Vec<Option<ApplyPauses>> {
        let all = self.tier.super_nodes.iter().map(|one| ApplyPauses::of(&one.admin));
        futures::future::join_all(all).await
    }
}

/// Counts snapshots as they appear below `folders`; ends everything once there are enough.
async fn watch(
    folders: Vec<std::path::PathBuf>,
    seen: Arc<std::sync::Mutex<u64>>,
    enough: CancellationToken,
    least: Duration,
) {
    let clock = Clock::start();
    let mut known: BTreeMap<_, _> = snapshots(&folders);
    loop {
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        let now = snapshots(&folders);
        let new = now.iter().filter(|(path, made)| known.get(*path) != Some(*made)).count() as u64;
        known = now;
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *seen += new;
        if *seen >= SNAPSHOTS_WANTED && clock.now() >= least {
            enough.cancel();
            return;
        }
    }
}

/// Finished snapshots and when each was made.
fn snapshots(
    folders: &[std::path::PathBuf],
) -> BTreeMap<std::path::PathBuf, Option<std::time::SystemTime>> {
    let entries =
        folders.iter().filter_map(|data| std::fs::read_dir(data.join("raft/snapshots")).ok());
    let files = entries.flatten().flatten();
    let files = files.filter(|entry| !entry.file_name().to_string_lossy().contains("tmp"));
    let made = |entry: &std::fs::DirEntry| entry.metadata().and_then(|facts| facts.modified()).ok();
    files.map(|entry| (entry.path(), made(&entry))).collect()
}
