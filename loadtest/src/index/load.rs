//! Holder changes: every member announces what it holds, as fast as the tier acknowledges it. A
//! change counts once the tier says that it is durable.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Semaphore;

use super::{
    Bench,
    holdings::{Holdings, Rounds},
    results::Load,
    say,
    workers::{Step, run},
};
use crate::{
    sample::Times,
    tasks::Group,
    tier::{
        member::Member,
        wire::{self, Holding, Object},
    },
};

/// Between two lines of progress, in milliseconds.
const PROGRESS_EVERY_MS: u64 = 5_000;

/// One member that announces all that it holds in `rounds`.
struct Announcer {
    member: Arc<Member>,
    number: u64,
    holdings: Holdings,
    rounds: Rounds,
    /// Records acknowledged.
    at: u64,
    batch: Vec<Object>,
    /// In how many calls members may be at once.
    room: Arc<Semaphore>,
    acknowledged: Arc<AtomicU64>,
}

impl Step for Announcer {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        let left = self.holdings.records_of_member(self.rounds) - self.at;
        if left == 0 {
            return Ok(None);
        }
        let changes = left.min(wire::CHANGES_MAX as u64);
        self.batch.clear();
        let records = self.at..self.at + changes;
        let object = |at| self.holdings.record(self.rounds, self.number, at);
        self.batch.extend(records.map(|at| self.holdings.object(object(at))));
        let _permit = self.room.acquire().await.map_err(|error| error.to_string())?;
        let (channel, id) = (self.member.channel(), self.member.id);
        let announced = wire::announce(channel, id, &self.batch, Holding::Complete).await;
        announced.map_err(|error| error.to_string())?;
        self.at += changes;
        self.acknowledged.fetch_add(changes, Relaxed);
        Ok(Some(changes))
    }
}

impl Bench<'_> {
    /// Loads what comes in `rounds`.
    pub(super) async fn load(&self, rounds: Rounds) -> Load {
        let wanted = self.holdings.records(rounds.to) - self.holdings.records(rounds.from);
        say(&format!("loading {wanted} records, {} an object", self.holdings.holders));
        let room = Arc::new(Semaphore::new(self.scenario.in_flight));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let announcer = |number: u64| Announcer {
            member: Arc::clone(self.members.get(usize::try_from(number).unwrap_or_default())),
            number,
            holdings: self.holdings,
            rounds,
            at: 0,
            batch: Vec::with_capacity(wire::CHANGES_MAX),
            room: Arc::clone(&room),
            acknowledged: Arc::clone(&acknowledged),
        };
        let announcers = (0..self.holdings.members).map(announcer).collect();
        let watching = Group::new();
        watching.spawn(tell(Arc::clone(&acknowledged), wanted));
        let meter = self.meter();
        let tally = run(announcers, self.scenario.load_limit, self.stop).await;
        let cost = self.cost(&meter);
        watching.abort();
        say(&format!("{} changes/s", tally.per_s() as u64));
        let records_before = self.holdings.records(rounds.from);
        Load {
            holders_per_object: self.holdings.holders,
            records_before,
            records_after: records_before + tally.units,
            changes_per_call: wire::CHANGES_MAX,
            in_flight: self.scenario.in_flight,
            changes_per_s: tally.per_s(),
            times: Times::from(&tally.latency),
            failures: tally.failures,
            failure: tally.failure,
            cost,
        }
    }
}

async fn tell(acknowledged: Arc<AtomicU64>, wanted: u64) {
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(PROGRESS_EVERY_MS)).await;
        say(&format!("{} of {wanted} records", acknowledged.load(Relaxed)));
    }
}
