//! PURE. What a seed is made of: how many there are, which faults come when. A fault can be left out
//! without moving anything else, so that a failing history can be made smaller.

use super::rng::Rng;
use super::world::CACHES;

/// Faults come until then, in virtual milliseconds.
pub(super) const FAULTS_UNTIL_MS: u64 = 22_000;
/// Nothing comes before: the tier begins.
const FAULTS_FROM_MS: u64 = 3_000;
/// Ids of super-nodes that come later.
const FRESH: u64 = 10;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A super-node loses its power, and what it had not synced; it is back after so long.
    PowerCut { host: u64, for_ms: u64 },
    /// The process is killed; what it wrote is there.
    Kill { host: u64, for_ms: u64 },
    /// All super-nodes lose their power at once.
    Blackout { for_ms: u64 },
    /// A process stands still.
    Pause { host: u64, for_ms: u64 },
    /// One cannot reach the other, but is reached.
    OneWay { from: u64, to: u64, for_ms: u64 },
    /// A process reaches nobody, and nobody reaches it.
    Isolate { host: u64, for_ms: u64 },
    /// Super-nodes are split in two; nodes reach all of them.
    Split { group: Vec<u64>, for_ms: u64 },
    /// Messages from and to a process are lost.
    Lossy { host: u64, for_ms: u64 },
    /// Messages from and to a process are late.
    Slow { host: u64, by_us: u64, for_ms: u64 },
    /// The wall clock of a process jumps.
    Jump { host: u64, by_ms: i64 },
    /// Leadership is handed on.
    Transfer,
    /// Whoever leads loses its power.
    CutLeader { for_ms: u64 },
    /// Whoever leads stands still.
    PauseLeader { for_ms: u64 },
    /// Whoever leads is cut off from the other super-nodes, not from the nodes.
    CutOffLeader { for_ms: u64 },
    /// Whoever leads is lost, and for so long whoever gives a vote loses its power at once, and is
    /// back soon.
    CutVoters { for_ms: u64 },
    /// A super-node is lost for good.
    Lose { host: u64 },
    /// A new super-node is taken in.
    Join { id: u64 },
    /// A voter is taken out.
    Leave { id: u64 },
    /// A voter is lost for good, and a new one takes its place in one change.
    Replace { lost: u64, by: u64 },
}

impl Fault {
    /// Its name in summaries.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::PowerCut { .. } => "power cut",
            Self::Kill { .. } => "kill",
            Self::Blackout { .. } => "blackout",
            Self::Pause { .. } => "pause",
            Self::OneWay { .. } => "one-way cut",
            Self::Isolate { .. } => "isolation",
            Self::Split { .. } => "split",
            Self::Lossy { .. } => "loss",
            Self::Slow { .. } => "slow link",
            Self::Jump { .. } => "clock jump",
            Self::Transfer => "transfer",
            Self::CutLeader { .. } => "leader's power cut",
            Self::PauseLeader { .. } => "leader's pause",
            Self::CutOffLeader { .. } => "leader cut off",
            Self::CutVoters { .. } => "voters' power cuts",
            Self::Lose { .. } => "loss for good",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Replace { .. } => "replacement",
        }
    }
}

/// A seed's history before it happens.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) supers: u64,
    pub(super) caches: u64,
    pub(super) keys: u8,
    pub(super) snapshot_every: u64,
    /// Between two requests at one node, at most, in milliseconds.
    pub(super) get_every_ms: u64,
    /// Between two purges of one who purges, at most, in milliseconds.
    pub(super) purge_every_ms: u64,
    pub(super) faults: Vec<(u64, Fault)>,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("plan", 0);
        let supers = rng.pick(&[1, 3, 3, 3, 5, 5]);
        let caches = rng.between((2, 4));
        let mut plan = Self {
            seed,
            supers,
            caches,
            keys: rng.between((2, 5)) as u8,
            snapshot_every: rng.pick(&[20, 40, 100, 10_000]),
            get_every_ms: rng.pick(&[80, 200, 500]),
            purge_every_ms: rng.pick(&[600, 1_500, 4_000]),
            faults: Vec::new(),
        };
        // Some worlds are calm: what must hold there is stricter.
        let count = if rng.one_in(10) { 0 } else { rng.between((3, 14)) };
        let mut fresh = FRESH;
        for number in 0..count {
            let mut rng = Rng::new(seed).fork("fault", number);
            let at_ms = rng.between((FAULTS_FROM_MS, FAULTS_UNTIL_MS));
            plan.faults.push((at_ms, plan.fault(&mut rng, &mut fresh)));
        }
        plan.faults.sort_by_key(|(at_ms, _)| *at_ms);
        plan
    }

    fn fault(&self, rng: &mut Rng, fresh: &mut u64) -> Fault {
        let supers: Vec<u64> = (1..=self.supers).collect();
        let caches: Vec<u64> = (CACHES..CACHES + self.caches).collect();
        let all: Vec<u64> = supers.iter().chain(&caches).copied().collect();
        let for_ms = match rng.below(3) {
            0 => rng.between((50, 800)),
            1 => rng.between((800, 3_500)),
            _ => rng.between((3_500, 9_000)),
        };
        let host = rng.pick(&supers);
        match rng.below(25) {
            0 | 1 => Fault::PowerCut { host, for_ms },
            2 => Fault::Kill { host, for_ms },
            3 => Fault::Blackout { for_ms: for_ms.min(3_000) },
            4 | 5 => Fault::Pause { host: rng.pick(&all), for_ms },
            6 => Fault::OneWay { from: rng.pick(&all), to: rng.pick(&supers), for_ms },
            7 => Fault::Isolate { host: rng.pick(&all), for_ms },
            8 => {
                let group = supers.iter().copied().filter(|_| rng.one_in(2)).collect();
                Fault::Split { group, for_ms }
            }
            9 => Fault::Lossy { host: rng.pick(&all), for_ms },
            10 => {
                Fault::Slow { host: rng.pick(&all), by_us: rng.between((5_000, 400_000)), for_ms }
            }
            11 => Fault::Jump {
                host: rng.pick(&all),
                by_ms: rng.between((0, 20 * 31_536_000_000)) as i64 - 10 * 31_536_000_000,
            },
            12 => Fault::Transfer,
            13 | 14 => Fault::CutLeader { for_ms },
            15 => Fault::PauseLeader { for_ms },
            16 => Fault::CutOffLeader { for_ms },
            17 => Fault::Kill { host: rng.pick(&caches), for_ms },
            18 => {
                *fresh += 1;
                Fault::Join { id: *fresh }
            }
            19 => Fault::Leave { id: host },
            20 => Fault::Lose { host },
            21 | 22 => Fault::CutVoters { for_ms: rng.between((1_500, 4_000)) },
            _ => {
                *fresh += 1;
                Fault::Replace { lost: host, by: *fresh }
            }
        }
    }
}
