//! The catalog in RAM: for every key what is needed to find, list, count and evict its object,
//! about 250 bytes each; manifests are not here but in the memory tier, within its bound.
//!
//! Invariants: an entry is here if and only if its record is in the catalog, but for the moment
//! between the two writes that only the holder of [`super::shared::Turn`] sees; every
//! entry is known to the eviction core with its body's length, and no other key is.
//! It must not know: disk. Its callers hold its lock for lookups only.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use shoal_proto::{ObjectId, ObjectKey};

use super::FileId;
use super::body::{Body, Disk, Reclaim};
use super::budget::{Budget, Reservation};
use super::catalog::{Place, Record};
use super::eviction::S3Fifo;

/// Small objects passed over in one search for a file.
const PASSED_MAX: usize = 10_000;

/// Who may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victims {
    /// Whoever is next.
    Any,
    /// Objects in files, as far as one is found without a long search.
    Files,
}

/// One stored object.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) object_id: ObjectId,
    pub(super) file: FileId,
    pub(super) place: Place,
    chunks: u32,
    /// Changes with every new manifest of the same object.
    generation: u32,
    reservation: Reservation,
    /// Whoever reads it.
    body: Weak<Body>,
}

impl Entry {
    pub(super) fn new(record: &Record, reservation: Reservation, body: Weak<Body>) -> Self {
        let Record { file, place, object_id, chunks, .. } = *record;
        Self { object_id, file, place, chunks, generation: 0, reservation, body }
    }

    /// Body bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }

    /// Whether it is still what was found, manifest and all.
    pub(super) fn is(&self, found: &Found) -> bool {
        self.file == found.body.id() && self.generation == found.generation
    }

    fn is_held(&self) -> bool {
        self.body.strong_count() > 0
    }

    /// Its body if somebody holds it, and the freeing of its space.
    pub(super) fn into_reclaim(self) -> (Option<Arc<Body>>, Reclaim) {
        let Self { file: id, place, chunks, reservation, body, .. } = self;
        (body.upgrade(), Reclaim { id, place, chunks, reservation, open: None })
    }
}

/// An entry as a reader needs it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) body: Arc<Body>,
    pub(super) object_id: ObjectId,
    pub(super) place: Place,
    pub(super) generation: u32,
}

/// All entries, by key.
#[derive(Debug)]
pub(super) struct Table {
    entries: BTreeMap<ObjectKey, Entry>,
    eviction: S3Fifo<ObjectKey>,
}

impl Table {
    pub(super) fn new(budget_bytes: u64) -> Self {
        Self { entries: BTreeMap::new(), eviction: S3Fifo::new(budget_bytes) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Finds an object for a reader, who holds it from now on; counts as a use.
    pub(super) fn find(
        &mut self,
        key: &ObjectKey,
        disk: &Arc<Disk>,
        budget: &Arc<Budget>,
    ) -> Option<Found> {
        let entry = self.entries.get_mut(key)?;
        self.eviction.on_use(key);
        let body = entry.body.upgrade().unwrap_or_else(|| {
            let body = Body::new(entry.file, disk, budget, entry.bytes());
            entry.body = Arc::downgrade(&body);
            body
        });
        let Entry { object_id, place, generation, .. } = *entry;
        Some(Found { body, object_id, place, generation })
    }

    /// Puts an object in, and hands out the one that it replaces.
    pub(super) fn insert(&mut self, key: ObjectKey, entry: Entry) -> Option<Entry> {
        self.eviction.on_insert(key, entry.bytes());
        self.entries.insert(key, entry)
    }

    /// Puts in an object of an earlier process; the oldest comes first.
    pub(super) fn restore(&mut self, key: ObjectKey, entry: Entry) {
        self.eviction.on_restore(key, entry.bytes());
        self.entries.insert(key, entry);
    }

    /// The object got another manifest.
    pub(super) fn renew(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.generation = entry.generation.wrapping_add(1);
        }
    }

    /// Takes an object out.
    pub(super) fn take(&mut self, key: &ObjectKey) -> Option<Entry> {
        self.eviction.on_remove(key);
        self.entries.remove(key)
    }

    /// Takes the object out that is to go next; `None` when all are held, or there are none.
    pub(super) fn take_victim(&mut self, victims: Victims) -> Option<(ObjectKey, Entry)> {
        let passed = Cell::new(0);
        let spared = |key: &ObjectKey| {
            let Some(entry) = self.entries.get(key) else { return false };
            let small = entry.place == Place::Inline && victims == Victims::Files;
            if small {
                passed.set(passed.get() + 1);
            }
            entry.is_held() || (small && passed.get() <= PASSED_MAX)
        };
        let key = self.eviction.victim(spared)?;
        self.entries.remove(&key).map(|entry| (key, entry))
    }

    /// Keys after `after`, in order.
    pub(super) fn list(
        &self,
        after: Option<ObjectKey>,
        limit: usize,
    ) -> Vec<(ObjectKey, ObjectId)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.entries.range((start, Bound::Unbounded));
        keys.take(limit).map(|(key, entry)| (*key, entry.object_id)).collect()
    }
}
