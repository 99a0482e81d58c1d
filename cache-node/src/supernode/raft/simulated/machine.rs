//! The state machine of a simulated super-node: the real index over a real database in memory. The
//! disk under it is a base, as of the last snapshot, and the write batches since, of which a crash
//! keeps a prefix: what was applied and its position are in the same batch, as in the product.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use rocksdb::{DB, Env, IteratorMode, Options, WriteBatch};
use shoal_proto::wire::v1;

use super::super::disk::other;
use super::super::machine::retired;
use super::super::wire::{Entry, LogId, Meta, StoredMembers, meta_from, meta_to};
use super::log::{LogDisk, facts};
use super::{Observer, Parts, Types};
use crate::supernode::index::{COLUMN_FAMILIES, Index, descriptors};
use crate::supernode::sim::planted::Planted;
use crate::supernode::sim::rng::Rng;

/// Most entries of one write batch; drawn below it, so that groups differ between replicas.
const GROUP_ENTRIES_MAX: u64 = 8;
/// Memory that a database sets aside, in bytes.
const MEMTABLE_BYTES: usize = 1024 * 1024;
const ARENA_BYTES: usize = 16 * 1024;
/// The family that the fences stand in.
const FENCES: &str = "fences";

type SnapshotOf = openraft::alias::SnapshotOf<Types, Arc<Contents>>;
type Pair = (usize, Box<[u8]>, Box<[u8]>);

/// A whole state: what was applied, and every pair with the number of its family.
pub(in crate::supernode) struct Contents {
    pub(super) applied: v1::AppliedState,
    pairs: Vec<Pair>,
}

struct Image {
    base: Option<Arc<Contents>>,
    batches: Vec<(Vec<u8>, v1::AppliedState)>,
    synced: usize,
    rng: Rng,
}

/// The disk; it outlives its super-node's lives.
#[derive(Clone)]
pub(in crate::supernode) struct StateDisk(Arc<Mutex<Image>>);

impl StateDisk {
    /// An empty disk.
    pub(in crate::supernode) fn new(rng: Rng) -> Self {
        let (base, batches) = Default::default();
        Self(Arc::new(Mutex::new(Image { base, batches, synced: 0, rng })))
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails. `torn` is a fault of the product's that a plan may plant: the position is
    /// there, what was applied up to it is not.
    pub(in crate::supernode) fn crash(&self, torn: bool) {
        let mut image = self.lock();
        let (synced, all) = (image.synced, image.batches.len());
        let kept = synced + image.rng.below((all - synced) as u64 + 1) as usize;
        if torn && kept < all {
            let applied = image.batches[kept].1.clone();
            image.batches.truncate(kept);
            image.batches.push((WriteBatch::default().data().to_vec(), applied));
        } else {
            image.batches.truncate(kept);
        }
        image.synced = image.batches.len();
    }

    /// Up to where a snapshot on this disk reaches.
    pub(in crate::supernode) fn snapshot(&self) -> u64 {
        self.lock().base.as_ref().map_or(0, |base| position(&base.applied))
    }
}

fn position(applied: &v1::AppliedState) -> u64 {
    applied.last_log_id.map_or(0, |id| id.index)
}

fn options() -> io::Result<Options> {
    let mut options = Options::default();
    options.set_env(&Env::mem_env().map_err(other)?);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_arena_block_size(ARENA_BYTES);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(rocksdb::LogLevel::Fatal);
    Ok(options)
}

fn empty() -> io::Result<Arc<DB>> {
    let options = options()?;
    Ok(Arc::new(DB::open_cf_descriptors(&options, "/sim", descriptors(&options)).map_err(other)?))
}

fn open(image: &Image) -> io::Result<Arc<DB>> {
    let db = empty()?;
    if let Some(base) = &image.base {
        load(&db, base, None)?;
    }
    for (batch, _) in &image.batches {
        db.write(WriteBatch::from_data(batch)).map_err(other)?;
    }
    Ok(db)
}

fn load(db: &DB, contents: &Contents, without: Option<&str>) -> io::Result<()> {
    let mut batch = WriteBatch::default();
    for (number, key, value) in &contents.pairs {
        let name = COLUMN_FAMILIES[*number];
        if without != Some(name) {
            batch.put_cf(family(db, name)?, key, value);
        }
    }
    db.write(batch).map_err(other)
}

fn family<'a>(db: &'a DB, name: &str) -> io::Result<&'a rocksdb::ColumnFamily> {
    db.cf_handle(name).ok_or_else(|| io::Error::other("a family is missing"))
}

fn pairs(db: &DB) -> io::Result<Vec<Pair>> {
    let mut all = Vec::new();
    for (number, name) in COLUMN_FAMILIES.iter().enumerate() {
        for item in db.iterator_cf(family(db, name)?, IteratorMode::Start) {
            let (key, value) = item.map_err(other)?;
            all.push((number, key, value));
        }
    }
    Ok(all)
}

struct State {
    disk: StateDisk,
    index: Arc<Index>,
    applied: Mutex<v1::AppliedState>,
}

/// Everything that the index holds, as one number.
pub(super) fn digest(db: &DB) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for (number, key, value) in pairs(db).unwrap_or_default() {
        hasher.update(&(number as u64).to_le_bytes());
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(&key);
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(&value);
    }
    let first = hasher.finalize().as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_le_bytes(first)
}

type Report = Box<dyn Fn(u64) + Send + Sync>;

/// The state machine of one life.
pub(super) struct Machine {
    state: Arc<State>,
    meta: Meta,
    log: LogDisk,
    report: Report,
    host: u64,
    observer: Arc<dyn Observer>,
    planted: Option<Planted>,
}

/// Looks into a state machine from outside.
#[derive(Clone)]
pub(in crate::supernode) struct StateProbe(Arc<State>);

impl StateProbe {
    /// The last position applied, if any, and all that the index holds, as one number.
    pub(in crate::supernode) fn digest(&self) -> (Option<u64>, u64) {
        let applied = self.0.applied.lock().unwrap_or_else(PoisonError::into_inner);
        (applied.last_log_id.map(|id| id.index), digest(&self.0.index.db()))
    }
}

impl Machine {
    /// Rebuilt from what the disk kept.
    pub(super) fn open(parts: &Parts, report: Report) -> Result<Self, String> {
        let disk = parts.state.clone();
        let (db, applied) = {
            let mut image = disk.lock();
            // Opening a database makes durable what was written.
            image.synced = image.batches.len();
            let none = || v1::AppliedState {
                membership: Some(v1::Membership::default()),
                ..Default::default()
            };
            let base = image.base.as_ref().map(|base| base.applied.clone());
            let last = image.batches.last().map(|(_, applied)| applied.clone());
            let db = open(&image).map_err(|error| error.to_string())?;
            (db, last.or(base).unwrap_or_else(none))
        };
        let index = Index::open(db).map_err(|error| error.to_string())?;
        let meta = meta_from(applied.clone()).map_err(|error| error.to_string())?;
        report(position(&applied));
        let applied = Mutex::new(applied);
        let state = Arc::new(State { disk, index: Arc::new(index), applied });
        let (host, planted, observer) = (parts.id, parts.planted, Arc::clone(&parts.observer));
        let log = parts.log.clone();
        Ok(Self { state, meta, log, report, host, observer, planted })
    }

    pub(super) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.state.index)
    }

    pub(super) fn probe(&self) -> StateProbe {
        StateProbe(Arc::clone(&self.state))
    }

    async fn apply_group(
        &mut self,
        group: Vec<io::Result<EntryResponder<Types>>>,
    ) -> io::Result<()> {
        let mut meta = self.meta.clone();
        let (mut seen, mut commands, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for item in group {
            let (entry, responder): (Entry, _) = item?;
            meta.last_log_id = Some(entry.log_id);
            seen.push(facts(&entry));
            let batch = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(batch) => Some(batch.0),
                EntryPayload::Membership(members) => {
                    let gone = retired(meta.last_membership.membership(), &members);
                    meta.last_membership = StoredMembers::new(Some(entry.log_id), members);
                    gone
                }
            };
            waiting.push((batch.is_some(), responder));
            commands.extend(batch.map(|batch| (entry.log_id.index, batch)));
        }
        if let Some(last) = meta.last_log_id {
            self.log.wait_durable(last.index).await;
        }
        let mut batch = WriteBatch::default();
        let replies = self.state.index.apply(&commands, &mut batch).map_err(other)?;
        let applied = meta_to(&meta);
        self.state.disk.lock().batches.push((batch.data().to_vec(), applied.clone()));
        self.state.index.db().write(batch).map_err(other)?;
        self.state.index.committed();
        *self.state.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        self.meta = meta;
        let mut replies = replies.into_iter();
        for (facts, (is_commands, responder)) in seen.iter().zip(waiting) {
            let reply = if is_commands { replies.next().unwrap_or_default() } else { Vec::new() };
            self.observer.applied(self.host, facts, &reply);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        (self.report)(self.meta.last_log_id.map_or(0, |id| id.index));
        Ok(())
    }
}

/// Builds snapshots.
pub(super) struct Builder(Arc<State>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Arc<Contents>;

    /// At once, as of now; durable, and with it all that was applied before.
    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let State { disk, index, applied } = &*self.0;
        let applied = applied.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let contents = Arc::new(Contents { applied, pairs: pairs(&index.db())? });
        let mut image = disk.lock();
        image.base = Some(Arc::clone(&contents));
        image.batches.clear();
        image.synced = 0;
        snapshot(contents)
    }
}

fn snapshot(contents: Arc<Contents>) -> io::Result<SnapshotOf> {
    Ok(Snapshot { meta: meta_from(contents.applied.clone()).map_err(other)?, snapshot: contents })
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Arc<Contents>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembers)> {
        Ok((self.meta.last_log_id, self.meta.last_membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let most = 1 + self.state.disk.lock().rng.below(GROUP_ENTRIES_MAX);
        let mut groups = entries.ready_chunks(most as usize);
        while let Some(group) = groups.next().await {
            self.apply_group(group).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(Arc::clone(&self.state))
    }

    async fn install_snapshot(&mut self, meta: &Meta, contents: Arc<Contents>) -> io::Result<()> {
        let State { disk, index, applied } = &*self.state;
        let without = (self.planted == Some(Planted::SnapshotWithoutFences)).then_some(FENCES);
        let db = empty()?;
        load(&db, &contents, without)?;
        let kept = Contents { applied: contents.applied.clone(), pairs: pairs(&db)? };
        index.replace(db).map_err(other)?;
        {
            let mut image = disk.lock();
            image.base = Some(Arc::new(kept));
            image.batches.clear();
            image.synced = 0;
        }
        *applied.lock().unwrap_or_else(PoisonError::into_inner) = contents.applied.clone();
        self.meta = meta.clone();
        let position = position(&contents.applied);
        self.observer.installed(self.host, position);
        (self.report)(position);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let base = self.state.disk.lock().base.clone();
        base.map(snapshot).transpose()
    }
}
