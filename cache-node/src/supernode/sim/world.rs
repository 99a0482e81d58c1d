//! What all in a simulated world share: the network, the origin, who is there, what was seen.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::future::BoxFuture;
use shoal_proto::ObjectKey;
use shoal_proto::wire::v1;

use super::super::raft::simulated::{EntryFacts, Message, Observer, Transport, now_us, sleep_us};
use super::super::timing::Timing;
use super::cache::Cache;
use super::check::Check;
use super::fills::Fills;
use super::history::Histories;
use super::net::{Net, arrival};
use super::node::SuperNode;
use super::plan::Plan;
use super::planted::Planted;
use super::rng::Rng;
use super::sites::Seen;
use crate::fences::Subject;

/// Keys are below.
const KEYS_MAX: u8 = 16;
/// Ids of caches begin here; below are super-nodes.
pub(super) const CACHES: u64 = 100;
/// Events that are kept as text for a report, when nobody follows along.
const EVENTS_KEPT: usize = 60;
/// Wall clocks begin here, in Unix milliseconds.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Shorter than the product's, so that more happens; their order is the product's own.
pub(super) const TIMING: Timing =
    Timing { session_lease_ms: 3_000, heartbeat_ms: 250, fill_lease_ms: 4_000 };

/// One process's clocks: the monotonic one runs a little fast or slow, the wall clock jumps.
pub(super) struct Clock {
    ppm: i64,
    offset_ms: AtomicI64,
}

impl Clock {
    pub(super) fn new(ppm: i64) -> Self {
        Self { ppm, offset_ms: AtomicI64::new(0) }
    }

    /// Monotonic milliseconds.
    pub(super) fn mono_ms(&self) -> u64 {
        let us = i128::from(now_us());
        u64::try_from((us + us * i128::from(self.ppm) / 1_000_000) / 1_000).unwrap_or(0)
    }

    /// Unix milliseconds.
    pub(super) fn wall_ms(&self) -> u64 {
        (EPOCH_MS + now_us() / 1_000).saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }

    /// The wall clock jumps.
    pub(super) fn jump(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Waits for so long by this clock.
    pub(super) async fn sleep(&self, ms: u64) {
        let us = i128::from(ms) * 1_000;
        let us = us - us * i128::from(self.ppm) / 1_000_000;
        sleep_us(u64::try_from(us).unwrap_or(0)).await;
    }
}

/// What happened, as one number, and the last of it as text.
pub(super) struct Trace {
    hasher: blake3::Hasher,
    line: String,
    pub(super) kept: std::collections::VecDeque<String>,
    pub(super) follow: bool,
    pub(super) events: u64,
}

/// A simulated world.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) planted: Option<Planted>,
    pub(super) net: Net,
    pub(super) check: Arc<Check>,
    pub(super) fills: Fills,
    pub(super) histories: Histories,
    pub(super) sites: Seen,
    pub(super) rng: Rng,
    supers: Mutex<BTreeMap<u64, Arc<SuperNode>>>,
    caches: Mutex<BTreeMap<u64, Arc<Cache>>>,
    /// The version of each key that the origin has now.
    origin: Mutex<BTreeMap<u8, u64>>,
    trace: Mutex<Trace>,
    numbers: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(plan: Plan, planted: Option<Planted>, follow: bool) -> Arc<Self> {
        let rng = Rng::new(plan.seed);
        let hasher = blake3::Hasher::new();
        let (line, kept) = Default::default();
        Arc::new(Self {
            net: Net::new(rng.fork("net", 0)),
            plan,
            planted,
            check: Arc::default(),
            fills: Fills::default(),
            histories: Histories::default(),
            sites: Seen::default(),
            rng,
            supers: Mutex::default(),
            caches: Mutex::default(),
            origin: Mutex::default(),
            trace: Mutex::new(Trace { hasher, line, kept, follow, events: 0 }),
            numbers: Mutex::default(),
        })
    }

    /// Whether this bug is planted.
    pub(super) fn is(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    /// A number never given before.
    pub(super) fn number(&self) -> u64 {
        let mut numbers = lock(&self.numbers);
        *numbers += 1;
        *numbers
    }

    /// Takes an event into the trace.
    pub(super) fn note(&self, event: std::fmt::Arguments<'_>) {
        let mut trace = lock(&self.trace);
        let trace = &mut *trace;
        trace.events += 1;
        trace.line.clear();
        let at = now_us();
        // Writing to a string cannot fail.
        let _ = write!(trace.line, "{:>4}.{:06} {event}", at / 1_000_000, at % 1_000_000);
        trace.hasher.update(trace.line.as_bytes());
        if trace.follow {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("{}\n", trace.line).as_bytes(),
            );
        }
        if trace.kept.len() == EVENTS_KEPT {
            trace.kept.pop_front();
        }
        trace.kept.push_back(trace.line.clone());
    }

    /// The trace as one number, the number of events, and the last of them.
    pub(super) fn traced(&self) -> (String, u64, Vec<String>) {
        let trace = lock(&self.trace);
        let digest = trace.hasher.finalize().to_hex().to_string();
        (digest, trace.events, trace.kept.iter().cloned().collect())
    }

    /// A super-node's present life.
    pub(super) fn super_node(&self, id: u64) -> Option<Arc<SuperNode>> {
        lock(&self.supers).get(&id).cloned()
    }

    /// All super-nodes that live.
    pub(super) fn super_nodes(&self) -> Vec<Arc<SuperNode>> {
        lock(&self.supers).values().cloned().collect()
    }

    /// A super-node's life begins or, with `None`, ends.
    pub(super) fn set_super(&self, id: u64, node: Option<Arc<SuperNode>>) {
        let mut supers = lock(&self.supers);
        match node {
            Some(node) => drop(supers.insert(id, node)),
            None => drop(supers.remove(&id)),
        }
    }

    /// A cache.
    pub(super) fn cache(&self, id: u64) -> Option<Arc<Cache>> {
        lock(&self.caches).get(&id).cloned()
    }

    /// All caches.
    pub(super) fn caches(&self) -> Vec<Arc<Cache>> {
        lock(&self.caches).values().cloned().collect()
    }

    /// A cache that is there from now on.
    pub(super) fn add_cache(&self, cache: Arc<Cache>) {
        lock(&self.caches).insert(cache.id, cache);
    }

    /// Ends everything, and lets go of it.
    pub(super) fn end(&self) {
        for node in self.super_nodes() {
            node.life.kill();
        }
        for cache in self.caches() {
            cache.life().kill();
        }
        lock(&self.supers).clear();
        lock(&self.caches).clear();
    }

    /// The version of a key that the origin has now.
    pub(super) fn version(&self, key: u8) -> u64 {
        lock(&self.origin).get(&key).copied().unwrap_or(1)
    }

    /// The origin has something new.
    pub(super) fn publish_at_origin(&self, key: u8) -> u64 {
        let mut origin = lock(&self.origin);
        let version = origin.entry(key).or_insert(1);
        *version += 1;
        *version
    }

    /// Asks a super-node for something.
    pub(super) async fn ask<A, F, Fut>(
        self: &Arc<Self>,
        way: (u64, u64),
        ms: u64,
        ask: F,
    ) -> Option<A>
    where
        A: Send + 'static,
        F: Fn(Arc<SuperNode>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Option<A>> + Send + 'static,
    {
        let world = Arc::downgrade(self);
        let arrive = move || {
            let node = world.upgrade()?.super_node(way.1)?;
            arrival(node.life.clone(), ask(node))
        };
        self.net.call(way, ms, false, arrive).await
    }

    /// Asks a cache for something.
    pub(super) async fn ask_cache<A, F, Fut>(
        self: &Arc<Self>,
        way: (u64, u64),
        ms: u64,
        ask: F,
    ) -> Option<A>
    where
        A: Send + 'static,
        F: Fn(Arc<Cache>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Option<A>> + Send + 'static,
    {
        let world = Arc::downgrade(self);
        let arrive = move || {
            let cache = world.upgrade()?.cache(way.1)?;
            let life = cache.life();
            if life.is_dead() {
                return None;
            }
            arrival(life, ask(cache))
        };
        self.net.call(way, ms, false, arrive).await
    }
}

/// A key's name in the index.
pub(super) fn object_key(key: u8) -> ObjectKey {
    ObjectKey::new(*blake3::hash(&[key]).as_bytes())
}

/// Which key that is.
pub(super) fn number_of(key: &ObjectKey) -> u8 {
    (0..KEYS_MAX).find(|number| object_key(*number) == *key).unwrap_or(u8::MAX)
}

/// What fences look at in an object of a key whose fill began at `fence_position`.
pub(super) fn with_subject<T>(
    key: u8,
    fence_position: u64,
    with: impl FnOnce(&Subject<'_>) -> T,
) -> T {
    with(&Subject {
        key: &object_key(key),
        site: site(key),
        labels: &labels(key),
        every_tag: false,
        fence_position,
    })
}

/// A key's site.
pub(super) fn site(key: u8) -> &'static str {
    if key.is_multiple_of(2) { "even" } else { "odd" }
}

/// A key's labels: its path's and its tag's.
pub(super) fn labels(key: u8) -> [u64; 2] {
    [path(key), tag(key)]
}

/// The label of the path that a key is under.
pub(super) fn path(key: u8) -> u64 {
    1_000 + u64::from(key / 4)
}

/// The label of a key's tag.
pub(super) fn tag(key: u8) -> u64 {
    2_000 + u64::from(key % 3)
}

/// A super-node's way to the others.
pub(super) struct Way {
    pub(super) world: Weak<World>,
    pub(super) me: u64,
}

impl Transport for Way {
    fn call(&self, to: u64, message: Message, ms: u64) -> BoxFuture<'static, Option<Message>> {
        let (world, me) = (self.world.clone(), self.me);
        Box::pin(async move {
            let net = world.upgrade()?.net.clone();
            let arrive = move || {
                let node = world.upgrade()?.super_node(to)?;
                let (raft, message) = (node.raft.clone(), message.clone());
                arrival(node.life.clone(), async move { raft.handle(message).await.ok() })
            };
            net.call((me, to), ms, true, arrive).await
        })
    }
}

/// Watches a super-node's disks: the judge looks, and its sessions hear what was applied.
pub(super) struct Watcher(pub(super) Weak<World>);

impl Observer for Watcher {
    fn appended(&self, host: u64, entry: &EntryFacts, before: Option<u64>) {
        let Some(world) = self.0.upgrade() else { return };
        world.note(format_args!("{host} appends {}/{}", entry.index, entry.term));
        world.check.appended(host, entry, before);
    }

    fn voted(&self, host: u64, vote: &v1::Vote) {
        let Some(world) = self.0.upgrade() else { return };
        let v1::Vote { term, node_id, committed } = vote;
        world.note(format_args!("{host} writes vote {term} for {node_id}, {committed}"));
        world.check.voted(host, vote);
    }

    fn granted(&self, host: u64, vote: &v1::Vote) {
        let Some(world) = self.0.upgrade() else { return };
        world.note(format_args!("{host} grants {} to {}", vote.term, vote.node_id));
        world.check.granted(host, vote);
    }

    fn applied(&self, host: u64, entry: &EntryFacts, replies: &[v1::CommandReply]) {
        let Some(world) = self.0.upgrade() else { return };
        world.note(format_args!("{host} applies {}/{}", entry.index, entry.term));
        world.check.applied(host, entry, replies);
        if let Some(node) = world.super_node(host) {
            node.poke();
        }
    }

    fn installed(&self, host: u64, index: u64) {
        let Some(world) = self.0.upgrade() else { return };
        world.note(format_args!("{host} installs a snapshot up to {index}"));
        world.check.installed(host, index);
        if let Some(node) = world.super_node(host) {
            node.poke();
        }
    }
}
