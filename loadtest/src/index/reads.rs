//! Locates, fill leases and purges: calls of one kind, in a closed loop. Locates are asked of one
//! super-node at a time, so that the figure is that super-node's own.

use std::sync::Arc;

use shoal_proto::{RpcError, limits::HOLDERS_ANSWERED_MAX};

use super::{
    Bench,
    holdings::Holdings,
    note,
    results::{Level, PhaseFailure, Purges, Results},
    say,
    workers::{Step, Tally, run},
};
use crate::{
    rng::Rng,
    sample::Times,
    tier::{
        member::Member,
        wire::{self, Object},
    },
};

/// Calls in flight, level by level: latency is judged at each.
const LOCATES_IN_FLIGHT: [usize; 3] = [1, 4, 16];
/// Objects in one call: one, as for a request of a client; many, as when a node looks through what
/// it holds.
const OBJECTS_PER_CALL: [usize; 3] = [1, 16, 64];
const LEASES_IN_FLIGHT: [usize; 2] = [16, 64];
/// Streams of the seed.
const LOCATE_STREAM: u64 = 1 << 32;
const LEASE_STREAM: u64 = 2 << 32;
const PURGE_STREAM: u64 = 3 << 32;

/// Who is asked for how much at once.
struct Asked<'a> {
    server: &'a str,
    in_flight: usize,
    units_per_call: usize,
}

struct Locator {
    member: Arc<Member>,
    at: usize,
    holdings: Holdings,
    objects: usize,
    per_call: usize,
    rng: Rng,
}

impl Locator {
    async fn ask(&self, objects: &[Object]) -> Result<Vec<usize>, RpcError> {
        let channel = self.member.channel_to(self.at);
        match objects {
            [one] => Ok(vec![wire::locate(channel, one).await?]),
            many => wire::locate_many(channel, many).await,
        }
    }
}

impl Step for Locator {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        let numbers = (0..self.per_call).map(|_| self.rng.below(self.objects) as u64);
        let objects: Vec<_> = numbers.map(|number| self.holdings.object(number)).collect();
        let found = self.ask(&objects).await.map_err(|error| error.to_string())?;
        let wanted = self.holdings.holders.min(HOLDERS_ANSWERED_MAX as u64);
        let right = |count: &usize| *count as u64 == wanted;
        match found.len() == objects.len() && found.iter().all(right) {
            true => Ok(Some(objects.len() as u64)),
            false => Err(format!("{found:?} holders, {wanted} were announced for each object")),
        }
    }
}

struct Leaser {
    member: Arc<Member>,
    homes: [usize; 2],
    rng: Rng,
}

impl Step for Leaser {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        let mut key = [0; 32];
        for word in key.chunks_exact_mut(8) {
            word.copy_from_slice(&self.rng.next_u64().to_le_bytes());
        }
        let homes = self.homes.map(|at| self.member.channel_to(at));
        let leased = wire::lease(homes, self.member.id, key).await;
        leased.map(|()| Some(1)).map_err(|error| error.to_string())
    }
}

struct Purger {
    member: Arc<Member>,
    holdings: Holdings,
    objects: usize,
    left: u32,
    sessions: usize,
    turn: usize,
    rng: Rng,
}

impl Step for Purger {
    async fn step(&mut self) -> Result<Option<u64>, String> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.turn += 1;
        let object = self.holdings.object(self.rng.below(self.objects) as u64);
        let purged = wire::purge(self.member.channel_to(self.turn), self.member.id, &object).await;
        let purged = purged.map_err(|error| error.to_string())?;
        let missing = (self.sessions as u64).saturating_sub(purged.acknowledged.into());
        match missing {
            0 => Ok(Some(1)),
            _ => Err(format!("{missing} of {} sessions did not acknowledge", self.sessions)),
        }
    }
}

impl Bench<'_> {
    fn objects(&self) -> usize {
        usize::try_from(self.holdings.objects(self.rounds)).unwrap_or(usize::MAX)
    }

    fn level(&self, asked: Asked<'_>, tally: Tally, meter: &super::Meter) -> Level {
        let Asked { server, in_flight, units_per_call } = asked;
        let per_s = tally.per_s();
        let times = Times::from(&tally.latency);
        say(&format!(
            "{server}, {in_flight} x {units_per_call} in flight: {} a second, p99 {} us",
            per_s as u64, times.p99_us
        ));
        Level {
            server: server.to_owned(),
            in_flight,
            units_per_call,
            per_s,
            times,
            failures: tally.failures,
            failure: tally.failure,
            cost: self.cost(meter),
        }
    }

    /// Every super-node at every level.
    pub(super) async fn locates(&self, results: &mut Results) -> Vec<Level> {
        let mut levels = Vec::new();
        if self.rounds == 0 {
            let reason = "no records were loaded".to_owned();
            results.failures.push(PhaseFailure { phase: "locates".to_owned(), reason });
            return levels;
        }
        say("locates");
        for at in 0..self.tier.super_nodes.len() {
            for units_per_call in OBJECTS_PER_CALL {
                for in_flight in LOCATES_IN_FLIGHT {
                    levels.extend(self.locate(at, in_flight, units_per_call).await);
                }
            }
        }
        levels
    }

    async fn locate(&self, at: usize, in_flight: usize, units_per_call: usize) -> Option<Level> {
        if self.stop.is_cancelled() {
            return None;
        }
        let worker = |worker: usize| Locator {
            member: Arc::clone(self.members.get(worker)),
            at,
            holdings: self.holdings,
            objects: self.objects(),
            per_call: units_per_call,
            rng: Rng::new(self.holdings.seed, LOCATE_STREAM + worker as u64),
        };
        let meter = self.meter();
        let workers = (0..in_flight).map(worker).collect();
        let tally = run(workers, self.scenario.duration, self.stop).await;
        let asked = Asked { server: &self.tier.super_nodes[at].name, in_flight, units_per_call };
        Some(self.level(asked, tally, &meter))
    }

    /// Leases over all homes together.
    pub(super) async fn leases(&self, results: &mut Results) -> Vec<Level> {
        let mut levels = Vec::new();
        say("leases");
        for (turn, in_flight) in LEASES_IN_FLIGHT.into_iter().enumerate() {
            if self.stop.is_cancelled() {
                return levels;
            }
            let stream = |worker: usize| LEASE_STREAM + (turn * 10_000 + worker) as u64;
            let worker = |worker: usize| Leaser {
                member: Arc::clone(self.members.get(worker)),
                homes: [worker, worker + 1],
                rng: Rng::new(self.holdings.seed, stream(worker)),
            };
            let meter = self.meter();
            let workers = (0..in_flight).map(worker).collect();
            let tally = run(workers, self.scenario.duration, self.stop).await;
            if let Some(reason) = &tally.failure {
                let failed: Result<(), _> = Err(reason);
                note(results, "leases", failed);
            }
            let asked = Asked { server: "all", in_flight, units_per_call: 1 };
            levels.push(self.level(asked, tally, &meter));
        }
        levels
    }

    /// One purge after the other, while every member has a session.
    pub(super) async fn purges(&self) -> Option<Purges> {
        if self.stop.is_cancelled() {
            return None;
        }
        say(&format!("{} purges with {} sessions", self.scenario.purges, self.members.count()));
        let purger = Purger {
            member: Arc::clone(self.members.get(0)),
            holdings: self.holdings,
            objects: self.objects().max(1),
            left: self.scenario.purges,
            sessions: self.members.count(),
            turn: 0,
            rng: Rng::new(self.holdings.seed, PURGE_STREAM),
        };
        // The first purge after a session has ended elsewhere waits out its lease: not counted.
        let first = self.members.get(0);
        let warm = wire::purge(first.channel(), first.id, &self.holdings.object(0)).await;
        if let Err(error) = warm {
            say(&format!("the purge that does not count: {error}"));
        }
        let meter = self.meter();
        let tally = run(vec![purger], self.scenario.load_limit, self.stop).await;
        let times = Times::from(&tally.latency);
        say(&format!("p50 {} us, p99 {} us", times.p50_us, times.p99_us));
        Some(Purges {
            sessions: self.members.count(),
            times,
            failures: tally.failures,
            failure: tally.failure,
            cost: self.cost(&meter),
        })
    }
}
