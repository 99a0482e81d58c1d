//! The catalog in RAM: for every key what is needed to find, list, count and evict its object,
//! at most [`super::OBJECT_BYTES`] each; manifests are not here but in the memory tier, within its bound.
//!
//! Invariants: an entry is here if and only if its record is in the catalog, but for the moment
//! between the two writes that only the holder of [`super::shared::Turn`] sees; every
//! entry is known to the eviction core with its body's length, and no other key is.
//! It must not know: disk. Its callers hold its lock for lookups only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use shoal_proto::manifest::chunk_length;
use shoal_proto::{ObjectId, ObjectKey};

use super::FileId;
use super::absent::Absent;
use super::body::{Body, Disk, Reclaim};
use super::budget::{Budget, Reservation};
use super::charge;
use super::cut;
use super::eviction::{Departed, S3Fifo};
use super::record::{BodyRow, HoleRow, Place, Record};

/// Small objects passed over in one search for a file.
const PASSED_MAX: usize = 10_000;

/// Passes over a last copy, since it was last used.
const SPARES_MAX: u8 = 2;

/// Who may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victims {
    /// Whoever is next.
    Any,
    /// Objects in files, as far as one is found without a long search.
    Files,
}

/// Who goes, or what of it.
#[derive(Debug)]
pub(super) enum Victim {
    Whole(ObjectKey, Entry),
    Part(ObjectKey, Part),
}

/// Chunks of a large object that go, while the rest of it stays.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: FileId,
    pub(super) object_id: ObjectId,
    pub(super) absent: Arc<Absent>,
    pub(super) holes: Vec<HoleRow>,
    /// Their bytes of the budget.
    pub(super) reservation: Reservation,
    /// What the rest takes of it.
    pub(super) charge_bytes: u64,
}

/// One stored object.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) object_id: ObjectId,
    pub(super) file: FileId,
    pub(super) place: Place,
    pub(super) length: u64,
    pub(super) chunks: u32,
    /// 0 where it is not known.
    pub(super) chunk_size: u32,
    /// What is not here of it, where that ever was something.
    pub(super) absent: Option<Arc<Absent>>,
    /// Changes with every new manifest of the same object.
    generation: u32,
    reservation: Reservation,
    /// Whoever reads it.
    body: Weak<Body>,
    /// Whether it was asked for since it came.
    wanted: AtomicBool,
    /// Times it was passed over as a last copy since it was last asked for.
    spares: AtomicU8,
    /// How many others hold it, where somebody said so since it was passed over last.
    others: Option<u32>,
}

impl Entry {
    pub(super) fn new(record: &Record, reservation: Reservation, body: Weak<Body>) -> Self {
        let some = !record.absent.is_empty();
        let absent = some.then(|| Absent::read(record.chunks, &record.absent)).flatten();
        Self {
            object_id: record.object_id,
            file: record.file,
            place: record.place,
            length: record.length,
            chunks: record.chunks,
            chunk_size: record.chunk_size,
            absent: absent.map(Arc::new),
            generation: 0,
            reservation,
            body,
            wanted: AtomicBool::new(false),
            spares: AtomicU8::new(0),
            others: None,
        }
    }

    /// How the catalog names its body.
    pub(super) fn row(&self) -> BodyRow {
        BodyRow { file: self.file, place: self.place }
    }

    /// Bytes of the budget.
    pub(super) fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }

    /// Whether it is still what was found, manifest and all.
    pub(super) fn is(&self, found: &Found) -> bool {
        self.file == found.body.id() && self.generation == found.generation
    }

    /// A bit for each chunk that is here; none when all are.
    pub(super) fn held(&self) -> Option<Vec<u8>> {
        self.absent.as_ref().filter(|absent| absent.count() > 0).map(|absent| absent.held())
    }

    /// Runs of chunks that are here.
    pub(super) fn runs(&self) -> Vec<Range<u32>> {
        let all = 0..self.chunks;
        self.absent.as_ref().map_or_else(|| vec![all], |absent| absent.runs(false))
    }

    /// What its chunks take that are here, where some may not be.
    pub(super) fn pieces_bytes(&self) -> Option<u64> {
        let absent = self.absent.as_ref()?;
        let piece = |chunk| charge::of_piece(chunk_length(self.length, self.chunk_size, chunk));
        Some(absent.runs(false).into_iter().flatten().map(piece).sum())
    }

    fn is_held(&self) -> bool {
        self.body.strong_count() > 0
    }

    fn on_use(&self) {
        // Written only where it changes: readers share the line.
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
        }
        if self.spares.load(Ordering::Relaxed) > 0 {
            self.spares.store(0, Ordering::Relaxed);
        }
    }

    fn found(&self, body: Arc<Body>) -> Found {
        let Self { object_id, place, generation, .. } = *self;
        let (charge_bytes, absent) = (self.bytes(), self.absent.clone());
        Found { body, object_id, place, generation, charge_bytes, absent }
    }

    /// Whether it goes for somebody else this time: the last copy of something wanted.
    fn spare(&mut self) -> bool {
        let spares = *self.spares.get_mut();
        let spared = *self.wanted.get_mut() && self.others == Some(0) && spares < SPARES_MAX;
        if spared {
            *self.spares.get_mut() = spares + 1;
            // By its next turn this may have changed.
            self.others = None;
        }
        spared
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
    pub(super) charge_bytes: u64,
    pub(super) absent: Option<Arc<Absent>>,
}

/// A key's first eight bytes, by which the eviction core knows it: a quarter of the memory. Keys are
/// hashes, so that no two here have the same; if two ever had, the later one would outlive its turn.
type Short = u64;

fn short(key: &ObjectKey) -> Short {
    let mut first = [0; size_of::<Short>()];
    first.copy_from_slice(&key.as_bytes()[..size_of::<Short>()]);
    Short::from_be_bytes(first)
}

/// The lowest key that is shortened so.
fn lowest(short: Short) -> ObjectKey {
    let mut key = [0; 32];
    key[..size_of::<Short>()].copy_from_slice(&short.to_be_bytes());
    ObjectKey::new(key)
}

/// Entries in key order.
type Entries = BTreeMap<ObjectKey, Entry>;

fn by_short(entries: &mut Entries, shortened: Short) -> Option<(&ObjectKey, &mut Entry)> {
    let found = entries.range_mut(lowest(shortened)..).next();
    found.filter(|(key, _)| short(key) == shortened)
}

/// All entries, by key.
#[derive(Debug)]
pub(super) struct Table {
    entries: Entries,
    eviction: S3Fifo<Short>,
    /// What a store half as large again would still have.
    departed: Departed,
}

impl Table {
    pub(super) fn new(budget_bytes: u64, objects_max: usize) -> Self {
        Self {
            entries: Entries::new(),
            eviction: S3Fifo::new(budget_bytes),
            departed: Departed::new(budget_bytes / 2, objects_max / 2),
        }
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
        self.eviction.on_use(&short(key));
        entry.on_use();
        let body = entry.body.upgrade().unwrap_or_else(|| {
            let body = Body::new(entry.file, disk, budget, entry.bytes());
            entry.body = Arc::downgrade(&body);
            body
        });
        Some(entry.found(body))
    }

    /// The same for an object that another reader holds already.
    pub(super) fn find_held(&self, key: &ObjectKey) -> Option<Found> {
        let entry = self.entries.get(key)?;
        let body = entry.body.upgrade()?;
        self.eviction.on_use(&short(key));
        entry.on_use();
        Some(entry.found(body))
    }

    /// The object was used without being held.
    pub(super) fn on_use(&self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get(key) {
            self.eviction.on_use(&short(key));
            entry.on_use();
        }
    }

    /// The bytes of an object that is not here and would be, were there half as much room again;
    /// told once for each time that it left.
    pub(super) fn ghost_hit(&mut self, key: &ObjectKey) -> Option<u64> {
        self.departed.recall(key)
    }

    /// Puts an object in, and hands out the one that it replaces.
    pub(super) fn insert(&mut self, key: ObjectKey, entry: Entry) -> Option<Entry> {
        self.eviction.on_insert(short(&key), entry.bytes());
        self.departed.recall(&key);
        self.entries.insert(key, entry)
    }

    /// Puts in the objects of an earlier process, given in key order; `oldest_first` are places in
    /// that list. For an empty table.
    pub(super) fn restore(
        &mut self,
        objects: Vec<(ObjectKey, Entry)>,
        oldest_first: impl Iterator<Item = usize>,
    ) {
        self.eviction.expect(objects.len());
        for (key, entry) in oldest_first.filter_map(|at| objects.get(at)) {
            self.eviction.on_restore(short(key), entry.bytes());
        }
        // From a sorted list a map is made at once, in full nodes.
        self.entries = objects.into_iter().collect();
    }

    /// The object got another manifest.
    pub(super) fn renew(&mut self, key: &ObjectKey, growth: Reservation) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.reservation.merge(growth);
            self.eviction.on_insert(short(key), entry.bytes());
        }
    }

    /// The object got a chunk more.
    pub(super) fn grow(&mut self, key: &ObjectKey, growth: Reservation) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.reservation.merge(growth);
            self.eviction.on_insert(short(key), entry.bytes());
        }
    }

    /// Wanted objects among the next `limit` to go of which nobody has said how many others hold
    /// them.
    pub(super) fn doubtful(&self, limit: usize) -> Vec<(ObjectKey, ObjectId)> {
        let doubtful = |shortened: Short| {
            let (key, entry) = self.entries.range(lowest(shortened)..).next()?;
            (short(key) == shortened
                && entry.wanted.load(Ordering::Relaxed)
                && entry.others.is_none())
            .then_some((*key, entry.object_id))
        };
        self.eviction.next_to_go(limit).filter_map(doubtful).collect()
    }

    /// So many others hold that object.
    pub(super) fn note_others(&mut self, key: &ObjectKey, object_id: ObjectId, others: u32) {
        if let Some(entry) = self.entries.get_mut(key).filter(|e| e.object_id == object_id) {
            entry.others = Some(others);
        }
    }

    /// Takes an object out.
    pub(super) fn take(&mut self, key: &ObjectKey) -> Option<Entry> {
        self.eviction.on_remove(&short(key));
        self.entries.remove(key)
    }

    /// Takes the object out that is to go next, and says how many last copies were passed over for
    /// it; `None` when all are held, or there are none.
    pub(super) fn take_victim(&mut self, victims: Victims) -> Option<(ObjectKey, Entry, u64)> {
        self.victim(victims)
    }

    /// The same for one who needs so many bytes: of an object of at least `cut_from_bytes` only a
    /// part goes, as long as enough is left.
    pub(super) fn take_part(
        &mut self,
        victims: Victims,
        (needed_bytes, cut_from_bytes): (u64, u64),
    ) -> Option<(Victim, u64)> {
        let (key, mut entry, spared) = self.victim(victims)?;
        let Some(cut) = cut::plan(&entry, needed_bytes, cut_from_bytes) else {
            return Some((Victim::Whole(key, entry), spared));
        };
        let none = || Arc::new(Absent::none(entry.chunks));
        let absent = Arc::clone(entry.absent.get_or_insert_with(none));
        absent.left(&cut.chunks());
        let reservation = entry.reservation.split(cut.freed_bytes);
        let part = Part {
            file: entry.file,
            object_id: entry.object_id,
            absent,
            holes: cut.holes,
            reservation,
            charge_bytes: entry.bytes(),
        };
        self.eviction.put_back(short(&key), entry.bytes());
        self.departed.recall(&key);
        self.entries.insert(key, entry);
        Some((Victim::Part(key, part), spared))
    }

    fn victim(&mut self, victims: Victims) -> Option<(ObjectKey, Entry, u64)> {
        let Self { entries, eviction, departed } = self;
        let entries = RefCell::new(entries);
        let passed = Cell::new(0);
        let held = |key: &Short| {
            let mut entries = entries.borrow_mut();
            let Some((_, entry)) = by_short(&mut entries, *key) else { return false };
            let small = entry.place == Place::Inline && victims == Victims::Files;
            if small {
                passed.set(passed.get() + 1);
            }
            entry.is_held() || (small && passed.get() <= PASSED_MAX)
        };
        let mut spared = 0;
        let spare = |key: &Short| {
            let mut entries = entries.borrow_mut();
            let spare = by_short(&mut entries, *key).is_some_and(|(_, entry)| entry.spare());
            spared += u64::from(spare);
            spare
        };
        let victim = eviction.victim_sparing(held, spare)?;
        let entries = entries.into_inner();
        let key = *by_short(entries, victim)?.0;
        let entry = entries.remove(&key)?;
        departed.remember(&key, entry.bytes());
        Some((key, entry, spared))
    }

    /// Up to `limit` bodies in files after `after`, in key order, with the last key looked at.
    pub(super) fn files(
        &self,
        after: Option<ObjectKey>,
        limit: usize,
    ) -> (Option<ObjectKey>, Vec<(ObjectKey, FileId)>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut files = Vec::new();
        for (key, entry) in self.entries.range((start, Bound::Unbounded)).take(limit) {
            last = Some(*key);
            if entry.place == Place::File {
                files.push((*key, entry.file));
            }
        }
        (last, files)
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
