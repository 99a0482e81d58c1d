//! The local chunk store: objects on this node's disk, their hot chunks in its memory.
//!
//! ```text
//! DIR/store/LOCK                      one process at a time
//! DIR/store/catalog/                  RocksDB: records, manifests, bodies up to 64 KiB
//! DIR/store/bodies/<2 hex>/<16 hex>   larger bodies, one sparse file each
//! ```
//!
//! | file | purpose |
//! |---|---|
//! | [`partial`] | an object being filled |
//! | [`object`] | an object in a reader's hand |
//! | [`shared`], [`room`] | commits, removals, evictions |
//! | [`table`], [`eviction`] | what is stored, in RAM, and who leaves first |
//! | [`catalog`], [`bodies`], [`body`] | what is on disk |
//! | [`memory`] | what is in memory |
//! | [`budget`] | the ledger of body bytes |
//! | [`absent`], [`pieces`], [`cut`] | what is not here of an object; its coming, its leaving |
//! | [`record`], [`charge`] | what a body's row says, and what an object takes of the budget |
//! | [`recover`], [`scrub`] | opening after whatever happened; the look at every file afterwards |
//!
//! Invariants:
//! - A chunk is readable only after it was verified, by the caller before it is written and here
//!   whenever it comes from disk.
//! - An object is found only once all that is said to be here of it is on disk (`fdatasync`, then the catalog). A kill
//!   loses nothing finished; a power cut loses at most the newest 64 MiB, whole; neither tears one.
//! - What objects take (bodies, manifests, records), whole or being filled or removed and still
//!   read, never passes the budget.
//! - What was stored under a key is replaced in one step; its readers go on with what they have.
//! - All disk work runs on the blocking pool; what is in memory is found without a wait.
//! - An act once begun ends, even when the future that asked for it is dropped.
//!
//! It must not know: the index, peers, HTTP, freshness. How many others hold an object it is told
//! ([`Store::note_others`]), so that last copies of wanted objects leave last.
//!
//! Some of an object may be here only: what was asked for of it ([`Store::outline`]), or what was
//! left when the rest made room for others. Its chunks come back one by one.

mod absent;
mod bodies;
mod body;
mod budget;
mod catalog;
mod charge;
mod cut;
mod error;
pub mod eviction;
mod memory;
mod object;
mod partial;
mod pieces;
mod record;
mod recover;
mod room;
mod scrub;
mod shared;
mod table;
mod written;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use shoal_proto::{Manifest, ObjectHead, ObjectId, ObjectKey};
use tokio::sync::broadcast;

pub use cut::CUT_FROM_BYTES;
pub use error::{Full, StoreError};
pub use object::{Hit, StoredObject};
pub use partial::PartialObject;

use memory::Described;
use shared::Shared;

use crate::clock;
use crate::metrics::StoreMetrics;
use crate::tasks;

/// Most keys in one answer of [`Store::list`].
pub const LIST_MAX: usize = 1024;
/// One object is kept for so many bytes of budget, so that small ones fill no RAM.
const BYTES_PER_OBJECT: u64 = 4096;
/// Objects that are kept however small the budget is; no configuration asks for fewer.
pub const OBJECTS_MIN: usize = 4096;
/// No configuration asks for more.
pub const OBJECTS_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of RAM that an object takes beside the memory tier: its entry, its place in the queues
/// and its share of what is remembered of those that left.
pub const OBJECT_BYTES: usize = 640;
/// Times that a lookup begins again because the object changed meanwhile.
const LOOKUPS_MAX: usize = 4;
/// How long [`Store::close`] waits for space that is being freed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Where the store is and how much it may hold.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The node's data directory: the store makes its own folder `store` in it.
    pub dir: PathBuf,
    /// Most bytes on disk of bodies and of what describes them.
    pub budget_bytes: u64,
    /// Most bytes of chunks and manifests in the memory tier.
    pub memory_bytes: u64,
    /// Most objects: each takes up to [`OBJECT_BYTES`] of RAM. RocksDB's caches and buffers come on
    /// top, about 64 MiB.
    pub objects_max: usize,
    /// Objects from so many bytes on give way a part at a time: [`CUT_FROM_BYTES`].
    pub cut_from_bytes: u64,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes accounted for: stored, being filled, removed and still read.
    pub bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Objects stored whole.
    pub objects: usize,
    /// Bytes charged to the memory tier.
    pub memory_bytes: u64,
}

/// The local store.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store in its directory, which is made when there is none; removes what an earlier
    /// process left unfinished, and the oldest objects when the budget is smaller now. It reads no
    /// more than a record an object; every file is looked at afterwards, in the background.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub async fn open(config: StoreConfig, metrics: StoreMetrics) -> Result<Arc<Self>, StoreError> {
        let opened =
            tasks::blocking("store-open", move || recover::open(&config, metrics)).await??;
        let shared = Arc::new(opened.shared);
        opened.scrub.run(&shared);
        Ok(Arc::new(Self { shared }))
    }

    /// The object stored under `key`; counts as a use for eviction. Waits for the disk only when
    /// the manifest is not in the memory tier. One that proves damaged is dropped, and is `None`.
    pub async fn get(&self, key: &ObjectKey) -> Option<Arc<StoredObject>> {
        for _ in 0..LOOKUPS_MAX {
            let found = self.shared.find_wanted(key)?;
            let cached = self.shared.disk.memory.manifest(found.body.id());
            let described = match cached {
                Some(described) => Some(described),
                None => self.load(*key, &found).await?,
            };
            if let Some(described) = described {
                let shared = Arc::clone(&self.shared);
                return Some(StoredObject::found(shared, described, found));
            }
        }
        None
    }

    /// The object stored under `key`, if it is one chunk, in memory with its manifest, and `wanted`
    /// by its head: then this counts as a use, and else as nothing. Neither waits nor makes those
    /// wait who do the same.
    pub fn hit(&self, key: &ObjectKey, wanted: impl FnOnce(&ObjectHead) -> bool) -> Option<Hit> {
        let table = read(&self.shared.table);
        let file = table.get(key).filter(|entry| entry.absent.is_none())?.file;
        let memory = &self.shared.disk.memory;
        let (described, body) = memory.whole(file)?;
        if !wanted(described.manifest.head()) {
            return None;
        }
        table.on_use(key);
        memory.on_use_of_whole(file);
        Some(Hit { described, body })
    }

    /// Its manifest from the catalog: `Some(None)` to look again, `None` to give up.
    async fn load(&self, key: ObjectKey, found: &table::Found) -> Option<Option<Arc<Described>>> {
        let (shared, found) = (Arc::clone(&self.shared), found.clone());
        let loaded = tasks::blocking("store-load", move || shared.load(&key, &found)).await;
        match loaded.map_err(StoreError::from).flatten() {
            Ok(described) => Some(described),
            Err(error) => {
                tracing::warn!(%key, %error, "a stored object could not be loaded");
                None
            }
        }
    }

    /// The id of the object stored under `key`. Never waits, and counts as no use.
    pub fn locate(&self, key: &ObjectKey) -> Option<ObjectId> {
        read(&self.shared.table).get(key).map(|entry| entry.object_id)
    }

    /// The id of the object stored under `key`, and a bit for each chunk that is here, least
    /// significant first; no bits when all are. Never waits, and counts as no use.
    pub fn holding(&self, key: &ObjectKey) -> Option<(ObjectId, Option<Vec<u8>>)> {
        read(&self.shared.table).get(key).map(|entry| (entry.object_id, entry.held()))
    }

    /// How many chunks the object stored under `key` has, and runs of those that are here. Never
    /// waits, and counts as no use.
    pub fn runs(&self, key: &ObjectKey) -> Option<(u32, Vec<Range<u32>>)> {
        read(&self.shared.table).get(key).map(|entry| (entry.chunks, entry.runs()))
    }

    /// Stores an object without any of its chunks: they come one by one, as somebody wants them
    /// ([`StoredObject::put_chunk`]), and only what is here takes space.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] when there is none even for what describes it;
    /// [`StoreError::Invalid`] for a body so short that it is stored whole or not at all.
    pub async fn outline(&self, manifest: Manifest) -> Result<Arc<StoredObject>, StoreError> {
        pieces::outline(&self.shared, manifest).await
    }

    /// Begins to fill an object. A known length is reserved at once, evicting what must go for it;
    /// an unknown one as it grows.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] when it cannot fit, even with everything evicted that nobody holds;
    /// [`StoreError::Invalid`] when the head is beyond the limits.
    pub async fn begin(self: &Arc<Self>, head: ObjectHead) -> Result<PartialObject, StoreError> {
        PartialObject::begin(&self.shared, head).await
    }

    /// Gives the stored object newer headers and freshness: the same object under a new manifest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when that object is not, or no longer, stored under its key;
    /// [`StoreError::NoRoom`] when the newer headers are longer and there is none for them.
    pub async fn refresh(&self, manifest: Manifest) -> Result<Arc<StoredObject>, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (head, length) = (manifest.head(), manifest.length());
        let more = |entry: &table::Entry| {
            let charge_bytes = match entry.pieces_bytes() {
                Some(pieces_bytes) => charge::of_outline(head, length) + pieces_bytes,
                None => charge::of_object(head, length),
            };
            charge_bytes.saturating_sub(entry.bytes())
        };
        let growth_bytes = read(&shared.table).get(&head.key).map_or(0, more);
        let growth = shared.reserve(growth_bytes).await?;
        let renew = move || {
            let described = Described::new(manifest);
            let found = shared.renew(&described, growth)?;
            Ok(StoredObject::found(shared, described, found))
        };
        tasks::blocking("store-refresh", renew).await?
    }

    /// Drops the object stored under `key`; false when there is none. Its readers go on.
    ///
    /// # Errors
    /// When the disk refuses. It is not found any more all the same, while this process lives.
    pub async fn remove(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let (shared, key) = (Arc::clone(&self.shared), *key);
        tasks::blocking("store-remove", move || shared.remove(&key, |_| true)).await?
    }

    /// What the manifests of those keys say, of objects that are stored. Counts as no use, and leaves
    /// the memory tier as it is.
    ///
    /// # Errors
    /// When the disk refuses. A damaged manifest is no error: its object is dropped when found.
    pub async fn heads(&self, keys: Vec<ObjectKey>) -> Result<Vec<ObjectHead>, StoreError> {
        let shared = Arc::clone(&self.shared);
        tasks::blocking("store-heads", move || shared.heads(&keys)).await?
    }

    /// A number that the store's owner keeps with it; 0 until one is set. A later process that finds
    /// it finds nothing of what was removed before it was set.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn set_mark(&self, mark: u64) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        tasks::blocking("store-mark", move || shared.disk.catalog.set_mark(mark)).await?
    }

    /// Takes the mark back to `upto`, if it is further on: before what comes into the store from now
    /// on is found there. Not to be called beside [`Store::set_mark`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn lower_mark(&self, upto: u64) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        tasks::blocking("store-mark", move || shared.disk.catalog.lower_mark(upto)).await?
    }

    /// See [`Store::set_mark`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn mark(&self) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.shared);
        tasks::blocking("store-mark", move || shared.disk.catalog.mark()).await?
    }

    /// How much is stored now.
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.shared.budget.used(),
            budget_bytes: self.shared.budget.limit(),
            objects: read(&self.shared.table).len(),
            memory_bytes: self.shared.disk.memory.bytes(),
        }
    }

    /// Keys after `after` and their objects, in key order: at most `limit`, at most [`LIST_MAX`].
    pub fn list(&self, after: Option<ObjectKey>, limit: usize) -> Vec<(ObjectKey, ObjectId)> {
        read(&self.shared.table).list(after, limit.min(LIST_MAX))
    }

    /// Objects that are not stored any more, or less of them: evicted, removed, damaged, or replaced
    /// by another version. [`Store::holding`] says what is left. Lossy: a listener that falls behind is told so, and compares with [`Store::list`].
    /// The same object may have come back since: ask [`Store::locate`] before acting on it.
    pub fn evictions(&self) -> broadcast::Receiver<(ObjectKey, ObjectId)> {
        self.shared.losses.subscribe()
    }

    /// Wanted objects among about the next `limit` to go of which nobody has said how many others
    /// hold them.
    pub fn doubtful(&self, limit: usize) -> Vec<(ObjectKey, ObjectId)> {
        read(&self.shared.table).doubtful(limit.min(LIST_MAX))
    }

    /// So many others hold these objects. Of those that were asked for, the ones that nobody else
    /// holds are passed over when something has to go, a bounded number of times.
    pub fn note_others(&self, others: &[(ObjectKey, ObjectId, u32)]) {
        let mut table = write(&self.shared.table);
        for (key, object_id, others) in others {
            table.note_others(key, *object_id, *others);
        }
    }

    /// How many objects came into the store so far.
    pub fn stored(&self) -> u64 {
        self.shared.metrics.stored.get()
    }

    /// How many objects, and parts of objects, were evicted so far.
    pub fn evicted(&self) -> u64 {
        self.shared.metrics.evictions.get() + self.shared.metrics.parts_evicted.get()
    }

    /// Brings everything to the disk and waits for space that is being freed. For a graceful stop;
    /// without it nothing finished is lost either, short of a power cut.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let flushed = tasks::blocking("store-close", move || {
            shared.disk.reclaim_waiting();
            shared.disk.catalog.flush()
        });
        if let Err(error) = flushed.await.map_err(StoreError::from).flatten() {
            tracing::warn!(%error, "the store was not flushed");
        }
        if !self.shared.disk.background.shutdown(CLOSE_DEADLINE).await {
            tracing::warn!("space of dropped bodies is freed at the next start");
        }
    }
}

/// A body's number: names its file or its row in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FileId(u64);

impl FileId {
    /// A number never used before, with the odds of 64 random bits: a number of an earlier file
    /// must not come back after a power cut that the catalog's deletion did not survive.
    fn draw() -> std::io::Result<Self> {
        clock::random_u64().map(Self)
    }

    /// Exactly what `Display` writes.
    fn parse(name: &str) -> Option<Self> {
        let id = u64::from_str_radix(name, 16).ok().map(Self)?;
        (id.to_string() == name).then_some(id)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Most objects within a configuration.
fn objects_max(config: &StoreConfig) -> usize {
    let fit = usize::try_from(config.budget_bytes / BYTES_PER_OBJECT).unwrap_or(OBJECTS_MAX);
    fit.min(config.objects_max).clamp(OBJECTS_MIN, OBJECTS_MAX)
}

/// A lock whose holders do not panic half-way: what they left is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(locked: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    locked.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(locked: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    locked.write().unwrap_or_else(PoisonError::into_inner)
}
