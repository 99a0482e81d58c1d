//! One seed from start to verdict, in two phases: safety under faults; then faults off, and the
//! cluster must heal within a bounded time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::super::raft::simulated::{self, now_us, panics, sleep_ms, spawn_outside};
use super::cache::Cache;
use super::check::Violation;
use super::clients::{self, READERS_COUNT, WRITERS_COUNT};
use super::faults::Faults;
use super::plan::{FAULTS_UNTIL_MS, Plan};
use super::planted::Planted;
use super::sites::{self, EDITORS_COUNT};
use super::world::{CACHES, World};

/// Between two looks at everybody's state, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;
/// One in so many looks compares contents.
const CONTENT_EVERY: u64 = 25;
/// Faults are mended then; clients go on until then. In milliseconds.
const MENDED_MS: u64 = FAULTS_UNTIL_MS + 1_500;
const CLIENTS_UNTIL_MS: u64 = MENDED_MS + 3_000;
/// Everything must be well so long after the last fault, in milliseconds.
const HEALED_MS: u64 = MENDED_MS + 25_000;
/// Between two looks at whether it is, in milliseconds.
const HEAL_LOOK_MS: u64 = 100;

/// What a seed came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) violations: Vec<Violation>,
    /// All that happened, as one number; how many events; the last of them.
    pub(super) digest: String,
    pub(super) events: u64,
    pub(super) last: Vec<String>,
    pub(super) virtual_us: u64,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) planned: u64,
    pub(super) served: u64,
    pub(super) purged: u64,
    pub(super) index_ops: u64,
    pub(super) committed: u64,
    pub(super) elections: u64,
    pub(super) fills: u64,
    pub(super) messages: u64,
}

/// Runs a plan; with `follow`, every event goes to standard error as it happens.
pub(super) fn run(plan: Plan, planted: Option<Planted>, follow: bool) -> Outcome {
    let seed = plan.seed;
    let world = World::new(plan, planted, follow);
    let watched = Arc::clone(&world);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        simulated::run(seed, async move {
            let faults = Faults::new(&watched);
            history(&watched, &faults).await;
            let (at, counts) = (now_us(), faults.counts());
            watched.end();
            (at, counts)
        })
    }));
    let (virtual_us, faults) = match ran {
        Ok((ended, panics)) => {
            panics.into_iter().for_each(|what| world.check.violated_outside("no panic", what));
            ended
        }
        Err(_) => {
            world.check.violated_outside("no panic", "the world itself".to_owned());
            Default::default()
        }
    };
    world.end();
    if !world.check.is_broken() {
        for (invariant, what) in world.histories.judge() {
            world.check.violated_outside(invariant, what);
        }
    }
    let (digest, events, last) = world.traced();
    let (served, purged, index_ops) = world.histories.counts();
    Outcome {
        seed,
        violations: world.check.violations(),
        digest,
        events,
        last,
        virtual_us,
        planned: world.plan.faults.len() as u64,
        faults,
        served,
        purged,
        index_ops,
        committed: world.check.committed(),
        elections: world.check.elections(),
        fills: world.fills.counts().0,
        messages: world.net.counts().0,
    }
}

async fn history(world: &Arc<World>, faults: &Faults) {
    for id in 1..=world.plan.supers {
        faults.add(id).await;
    }
    let voters: Vec<u64> = (1..=world.plan.supers).collect();
    if let Some(first) = world.super_node(1)
        && let Err(error) = first.raft.initialize(&voters).await
    {
        world.check.violated("a tier begins", error);
    }
    for id in CACHES..CACHES + world.plan.caches {
        let cache = Cache::new(world, id, faults.clock(id));
        world.add_cache(Arc::clone(&cache));
        cache.start();
    }
    for number in 0..WRITERS_COUNT {
        spawn_outside(clients::write(Arc::clone(world), number));
    }
    for number in 0..READERS_COUNT {
        spawn_outside(clients::read(Arc::clone(world), number));
    }
    for number in 0..EDITORS_COUNT {
        spawn_outside(sites::edit(Arc::clone(world), number));
    }
    spawn_outside(clients::purge(Arc::clone(world), 0));
    spawn_outside(clients::purge(Arc::clone(world), 1));
    for (at_ms, fault) in world.plan.faults.clone() {
        let faults = faults.clone();
        spawn_outside(async move {
            sleep_ms(at_ms).await;
            faults.begin(fault);
        });
    }
    if !until(world, MENDED_MS).await {
        return;
    }
    faults.mend().await;
    if !until(world, CLIENTS_UNTIL_MS).await {
        return;
    }
    world.histories.end();
    heal(world).await;
}

/// Looks at everything until then; false when something is wrong already.
async fn until(world: &Arc<World>, ms: u64) -> bool {
    let mut looks = 0;
    while now_us() < ms * 1_000 {
        sleep_ms(LOOK_EVERY_MS).await;
        looks += 1;
        look(world, looks);
        if world.check.is_broken() {
            return false;
        }
    }
    true
}

fn look(world: &World, looks: u64) {
    for what in panics() {
        world.check.violated("no panic", what);
    }
    for node in world.super_nodes() {
        let facts = node.raft.facts();
        if let Some(why) = &facts.failed {
            world.check.violated("consensus goes on", format!("{}: {why}", node.id));
        }
        world.check.look(node.id, &facts);
        if looks.is_multiple_of(CONTENT_EVERY) {
            world.check.content(node.id, node.raft.content());
        }
    }
    world.check.look_at_commits(looks % 8);
}

/// What is not well yet.
fn ails(world: &World) -> Option<String> {
    let voters = world.check.voters();
    let nodes = world.super_nodes();
    let voting = nodes.iter().filter(|n| voters.iter().any(|voters| voters.contains(&n.id)));
    let voting: Vec<_> = voting.collect();
    let leaders = voting.iter().filter(|n| n.raft.facts().leader == Some(n.id)).count();
    if leaders != 1 {
        return Some(format!("{leaders} leaders of {voters:?}"));
    }
    if voters.len() != 1 {
        return Some(format!("a change of members is not over: {voters:?}"));
    }
    let contents: Vec<_> = voting.iter().map(|node| (node.id, node.raft.content())).collect();
    if contents.iter().any(|(_, content)| *content != contents[0].1) {
        return Some(format!("replicas differ: {contents:?}"));
    }
    let leases: usize = voting.iter().map(|node| node.home(|home| home.len())).sum();
    if leases > 0 {
        return Some(format!("{leases} fill leases are left"));
    }
    let caches = world.caches();
    let newest = voting.iter().map(|node| node.index.sites_revision()).max().unwrap_or_default();
    if let Some(behind) = caches.iter().find(|cache| cache.sites_revision() != newest) {
        return Some(format!("{} has not the sites of {newest}", behind.id));
    }
    let lost = caches.iter().find(|cache| !cache.lease_holds());
    lost.map(|cache| format!("{} has no session lease", cache.id))
}

async fn heal(world: &Arc<World>) {
    loop {
        sleep_ms(HEAL_LOOK_MS).await;
        look(world, now_us() / 1_000 / HEAL_LOOK_MS);
        if world.check.is_broken() {
            return;
        }
        let Some(what) = ails(world) else { break };
        if now_us() > HEALED_MS * 1_000 {
            world.check.violated("heals", what);
            return;
        }
    }
    world.note(format_args!("healed"));
    let mut rng = world.rng.fork("last purge", 0);
    if !clients::purge_once(world, 9, &mut rng).await {
        world.check.violated("heals", "a purge does not return".to_owned());
    }
    if !clients::read_all(world).await {
        world.check.violated("heals", "the index cannot be read".to_owned());
    }
}
