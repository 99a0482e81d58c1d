//! What a store's handles share, and the acts that change what is stored.
//!
//! Invariants: catalog and table change together, under `commit_turn`; the table's own lock is
//! never held over disk work, so that finding a known key never waits for the disk. What leaves
//! goes in this order: table, catalog, space, budget.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use shoal_proto::{ObjectHead, ObjectId, ObjectKey};
use tokio::sync::{Semaphore, broadcast, watch};

use super::absent::Absent;
use super::body::{Body, Disk};
use super::budget::{Budget, Reservation};
use super::error::{Fault, Full, StoreError};
use super::memory::Described;
use super::record::{Place, Record};
use super::table::{Entry, Found, Table, Victims};
use super::{FileId, lock, read, write};
use crate::clock;
use crate::metrics::StoreMetrics;

/// Losses that a slow listener may be behind by before it misses some.
const LOSSES_MAX: usize = 4096;
/// Most objects being filled at once.
pub(super) const PARTIALS_MAX: usize = 2048;

/// The store's parts.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<Disk>,
    pub(super) budget: Arc<Budget>,
    pub(super) metrics: StoreMetrics,
    pub(super) losses: broadcast::Sender<(ObjectKey, ObjectId)>,
    pub(super) partials: Arc<Semaphore>,
    pub(super) table: RwLock<Table>,
    pub(super) evict_turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) objects_max: usize,
    pub(super) cut_from_bytes: u64,
    /// The file system gives back no part of a file.
    pub(super) cannot_cut: AtomicBool,
    pub(super) scrub: watch::Sender<bool>,
    commit_turn: Mutex<()>,
    /// Locked while the store lives.
    _lock_file: std::fs::File,
}

/// The right to change catalog and table.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// A finished object, to be made visible.
pub(super) struct Finished<'a> {
    pub(super) described: &'a Arc<Described>,
    pub(super) body: &'a Arc<Body>,
    /// The body itself where it is small enough.
    pub(super) inline: Option<&'a [u8]>,
    /// What it takes of the budget.
    pub(super) charge_bytes: u64,
    /// What is not here of it.
    pub(super) absent: Option<&'a Absent>,
}

/// An object that is out of table and catalog; its space is still to be freed.
pub(super) struct Lost {
    entry: Entry,
    /// Whether the catalog took note.
    deleted: Result<(), StoreError>,
}

impl Lost {
    pub(super) fn is_file(&self) -> bool {
        self.entry.place == Place::File
    }
}

impl Shared {
    pub(super) fn new(
        (dir, lock_file): (PathBuf, std::fs::File),
        disk: Arc<Disk>,
        budget: Arc<Budget>,
        (table, objects_max, cut_from_bytes): (Table, usize, u64),
        metrics: StoreMetrics,
    ) -> Self {
        Self {
            dir,
            disk,
            budget,
            metrics,
            losses: broadcast::channel(LOSSES_MAX).0,
            partials: Arc::new(Semaphore::new(PARTIALS_MAX)),
            table: RwLock::new(table),
            evict_turn: Arc::default(),
            objects_max,
            cut_from_bytes,
            cannot_cut: AtomicBool::new(false),
            scrub: watch::Sender::new(false),
            commit_turn: Mutex::default(),
            _lock_file: lock_file,
        }
    }

    pub(super) fn commit_turn(&self) -> Turn<'_> {
        lock(&self.commit_turn)
    }

    /// Finds an object for a reader, who holds it from now on. Never waits for the disk.
    pub(super) fn find(&self, key: &ObjectKey) -> Option<Found> {
        write(&self.table).find(key, &self.disk, &self.budget)
    }

    /// The same for one who wants it: a miss that a larger store would have been spared counts.
    pub(super) fn find_wanted(&self, key: &ObjectKey) -> Option<Found> {
        if let Some(found) = read(&self.table).find_held(key) {
            return Some(found);
        }
        let mut table = write(&self.table);
        let found = table.find(key, &self.disk, &self.budget);
        if found.is_none()
            && let Some(bytes) = table.ghost_hit(key)
        {
            self.metrics.ghost_hits.inc();
            self.metrics.ghost_hit_bytes.inc_by(bytes);
        }
        found
    }

    /// Makes a finished object visible: catalog first, then table. `reservation` is asked for the
    /// body's bytes once nothing can fail any more. Blocks.
    pub(super) fn commit(
        &self,
        finished: &Finished<'_>,
        reservation: impl FnOnce() -> Reservation,
    ) -> Result<(), StoreError> {
        let key = finished.described.manifest.head().key;
        let turn = self.commit_turn();
        let surplus = self.take_surplus(&key, &turn)?;
        let mut replaced = self.write(finished, reservation);
        drop(turn);
        // Whoever made way is gone, even if what it made way for could not be written.
        let gone = surplus.into_iter().chain(replaced.as_mut().ok().and_then(Option::take));
        for lost in gone {
            let file = lost.entry.file;
            if let Err(error) = self.free(lost) {
                tracing::warn!(%key, %file, %error, "space of a dropped body was not freed");
            }
        }
        replaced?;
        if let Err(error) = self.disk.catalog.sync_when_due() {
            tracing::warn!(%error, "a power cut now would lose more than the newest objects");
        }
        Ok(())
    }

    fn write(
        &self,
        finished: &Finished<'_>,
        reservation: impl FnOnce() -> Reservation,
    ) -> Result<Option<Lost>, StoreError> {
        let Finished { described, body, inline, charge_bytes, absent } = *finished;
        let manifest = &described.manifest;
        let key = manifest.head().key;
        let record = Record {
            file: body.id(),
            place: if inline.is_some() { Place::Inline } else { Place::File },
            object_id: described.object_id,
            length: manifest.length(),
            chunks: manifest.chunk_count(),
            stored_ms: clock::unix_ms(),
            charge_bytes,
            absent: absent.map(Absent::bits).unwrap_or_default(),
            chunk_size: manifest.head().chunk_size,
        };
        let replaced = read(&self.table).get(&key).map(Entry::row);
        let inline = inline.filter(|body| !body.is_empty());
        self.disk.catalog.put(&record, manifest, inline, replaced)?;
        let entry = Entry::new(&record, reservation(), Arc::downgrade(body));
        let mut table = write(&self.table);
        self.disk.memory.put_manifest(record.file, Arc::clone(described));
        let replaced = table.insert(key, entry);
        self.metrics.stored.inc();
        self.metrics.objects.set(table.len() as i64);
        drop(table);
        if let Some(old) = replaced.as_ref().filter(|old| old.object_id != record.object_id) {
            self.tell(key, old.object_id);
        }
        Ok(replaced.map(|entry| Lost { entry, deleted: Ok(()) }))
    }

    /// Keeps the number of objects, and with it RAM and catalog, within its bound.
    fn take_surplus(&self, key: &ObjectKey, turn: &Turn<'_>) -> Result<Option<Lost>, StoreError> {
        let objects_max = self.objects_max;
        let table = read(&self.table);
        if table.len() < objects_max || table.get(key).is_some() {
            return Ok(None);
        }
        drop(table);
        let lost = self.take_victim(Victims::Any, turn);
        lost.map(Some).ok_or_else(|| self.full(0, Full::Objects { objects_max }))
    }

    /// Takes the object to go next out of table and catalog; `None` when none can go.
    pub(super) fn take_victim(&self, victims: Victims, turn: &Turn<'_>) -> Option<Lost> {
        let (key, entry, spared) = write(&self.table).take_victim(victims)?;
        self.metrics.last_copies_spared.inc_by(spared);
        Some(self.evicted(&key, entry, turn))
    }

    /// An object was taken out of the table to make room.
    pub(super) fn evicted(&self, key: &ObjectKey, entry: Entry, turn: &Turn<'_>) -> Lost {
        self.metrics.evictions.inc();
        self.metrics.evicted_bytes.inc_by(entry.bytes());
        self.lose(key, entry, turn)
    }

    fn lose(&self, key: &ObjectKey, entry: Entry, _turn: &Turn<'_>) -> Lost {
        self.metrics.objects.set(read(&self.table).len() as i64);
        let deleted = self.disk.catalog.delete(key, Some(entry.row()));
        self.tell(*key, entry.object_id);
        Lost { entry, deleted }
    }

    /// Frees a lost object's space, now or when its last reader is done, and says how much was
    /// freed now. Blocks.
    pub(super) fn free(&self, lost: Lost) -> Result<u64, StoreError> {
        let Lost { entry, deleted } = lost;
        let (place, bytes, file) = (entry.place, entry.bytes(), entry.file);
        if let Err(error) = &deleted {
            // A full disk refuses this too. A file goes all the same: that frees space, and a
            // record without its file is no object at the next start.
            tracing::warn!(%file, %error, "a dropped object stays in the catalog");
        }
        let (held, reclaim) = entry.into_reclaim();
        let freed = match held {
            Some(body) => {
                body.doom(reclaim);
                return deleted.map(|()| 0);
            }
            None => self.disk.reclaim(reclaim),
        };
        if place == Place::Inline {
            deleted?;
        }
        freed.map(|()| bytes)
    }

    /// Gives a stored object another manifest, which takes `growth` more of the budget. Blocks.
    pub(super) fn renew(
        &self,
        described: &Arc<Described>,
        growth: Reservation,
    ) -> Result<Found, StoreError> {
        let key = described.manifest.head().key;
        let _turn = self.commit_turn();
        let stored = self.find(&key).filter(|found| found.object_id == described.object_id);
        let Some(found) = stored else { return Err(StoreError::NotFound { key }) };
        let charge_bytes = found.charge_bytes + growth.bytes();
        self.disk.catalog.put_manifest(&described.manifest, charge_bytes)?;
        found.body.grow(growth.bytes());
        let mut table = write(&self.table);
        table.renew(&key, growth);
        self.disk.memory.put_manifest(found.body.id(), Arc::clone(described));
        Ok(found)
    }

    /// Drops the object of that key if `which` says so; false when there is none such. Blocks.
    pub(super) fn remove(
        &self,
        key: &ObjectKey,
        which: impl FnOnce(&Entry) -> bool,
    ) -> Result<bool, StoreError> {
        let turn = self.commit_turn();
        let entry = {
            let mut table = write(&self.table);
            let chosen = table.get(key).is_some_and(which);
            chosen.then(|| table.take(key)).flatten()
        };
        let Some(entry) = entry else { return Ok(false) };
        let lost = self.lose(key, entry, &turn);
        drop(turn);
        self.free(lost).map(|_| true)
    }

    /// The heads of those keys' objects, out of the catalog. Blocks.
    pub(super) fn heads(&self, keys: &[ObjectKey]) -> Result<Vec<ObjectHead>, StoreError> {
        let mut heads = Vec::with_capacity(keys.len());
        for key in keys {
            match self.disk.catalog.manifest(key) {
                Ok(manifest) => heads.extend(manifest.map(|manifest| manifest.head().clone())),
                Err(Fault::Damaged(_)) => {}
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
        Ok(heads)
    }

    /// The manifest of an object that was found, out of the catalog; `None` when the object
    /// changed or went meanwhile, or proved damaged. Blocks.
    pub(super) fn load(
        &self,
        key: &ObjectKey,
        found: &Found,
    ) -> Result<Option<Arc<Described>>, StoreError> {
        let reason = match self.disk.catalog.manifest(key) {
            Ok(Some(manifest)) => {
                let described = Described::new(manifest);
                let table = read(&self.table);
                if !table.get(key).is_some_and(|entry| entry.is(found)) {
                    return Ok(None);
                }
                if described.object_id == found.object_id {
                    self.disk.memory.put_manifest(found.body.id(), Arc::clone(&described));
                    return Ok(Some(described));
                }
                "its manifest is another object's".to_owned()
            }
            Ok(None) => "its manifest is missing".to_owned(),
            Err(Fault::Damaged(reason)) => reason,
            Err(Fault::Failed(error)) => return Err(error),
        };
        // A commit writes the catalog before the table: what does not match may just be newer. By
        // the time this has its turn, the table is newer too, and nothing is removed.
        if self.drop_damaged(key, found.body.id()) {
            tracing::warn!(%key, reason, "a damaged object was dropped");
        }
        Ok(None)
    }

    /// Drops an object whose bytes cannot be trusted; false when it is gone already. Blocks.
    pub(super) fn drop_damaged(&self, key: &ObjectKey, file: FileId) -> bool {
        self.remove(key, |entry| entry.file == file).unwrap_or_else(|error| {
            tracing::warn!(%key, %error, "a damaged object was dropped, its space was not freed");
            true
        })
    }

    pub(super) fn tell(&self, key: ObjectKey, object_id: ObjectId) {
        // Nobody listening is fine.
        let _ = self.losses.send((key, object_id));
    }

    pub(super) fn full(&self, needed_bytes: u64, cause: Full) -> StoreError {
        StoreError::NoRoom { path: self.dir.clone(), needed_bytes, cause }
    }
}
