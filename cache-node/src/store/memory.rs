//! The memory tier: hot chunks and the manifests of hot objects under one bound of bytes, led by
//! the same eviction core as the disk.
//!
//! Invariant: charged bytes never pass the bound. Entries are named by file number, which is never
//! used twice, so that nothing here can be taken for another version's. What is here was verified.
//! It must not know: keys, disk, budget.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, RwLock};

use bytes::Bytes;
use prometheus::IntGauge;
use shoal_proto::{Manifest, ManifestId, ObjectId};

use super::eviction::S3Fifo;
use super::{FileId, read, write};

/// What an entry costs beside its bytes: map, queue and allocation, in bytes.
const ENTRY_BYTES: u64 = 192;
/// What a header costs beside its name and value, in what is noted of it too, in bytes.
const HEADER_BYTES: u64 = 320;
/// Entries forgotten under one hold of the lock.
const FORGET_STEP: u32 = 512;

/// What those who send an object make of its manifest, once for all of them.
type Note = Box<dyn Any + Send + Sync>;

/// A manifest with its names, which cost a hash over all of it to compute.
pub(super) struct Described {
    pub(super) manifest: Arc<Manifest>,
    pub(super) manifest_id: ManifestId,
    pub(super) object_id: ObjectId,
    pub(super) note: OnceLock<Note>,
}

impl std::fmt::Debug for Described {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Described").field("object_id", &self.object_id).finish_non_exhaustive()
    }
}

impl Described {
    /// Computes the names: for large objects a matter of a millisecond.
    pub(super) fn new(manifest: Manifest) -> Arc<Self> {
        let (manifest_id, object_id) = (manifest.id(), manifest.object_id());
        let note = OnceLock::new();
        Arc::new(Self { manifest: Arc::new(manifest), manifest_id, object_id, note })
    }

    fn bytes(&self) -> u64 {
        let headers = &self.manifest.head().headers;
        let text = |h: &shoal_proto::Header| (h.name.len() + h.value.len()) as u64 + HEADER_BYTES;
        size_of::<Manifest>() as u64
            + size_of_val(self.manifest.hashes()) as u64
            + headers.iter().map(text).sum::<u64>()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Part {
    Manifest,
    Chunk(u32),
}

type Slot = (FileId, Part);

#[derive(Clone, Debug)]
enum Held {
    Manifest(Arc<Described>),
    Chunk(Bytes),
}

#[derive(Debug)]
struct State {
    held: HashMap<Slot, Held>,
    eviction: S3Fifo<Slot>,
}

/// The memory tier.
#[derive(Debug)]
pub(super) struct Memory {
    limit_bytes: u64,
    gauge: IntGauge,
    /// Whoever only looks for something waits for nobody who does the same.
    state: RwLock<State>,
}

impl Memory {
    pub(super) fn new(limit_bytes: u64, gauge: IntGauge) -> Self {
        let state = State { held: HashMap::new(), eviction: S3Fifo::new(limit_bytes) };
        Self { limit_bytes, gauge, state: RwLock::new(state) }
    }

    pub(super) fn bytes(&self) -> u64 {
        read(&self.state).eviction.bytes()
    }

    /// The chunk, if it is here; counts as a use.
    pub(super) fn chunk(&self, file: FileId, index: u32) -> Option<Bytes> {
        match self.get((file, Part::Chunk(index)))? {
            Held::Chunk(chunk) => Some(chunk),
            Held::Manifest(_) => None,
        }
    }

    /// Whether the chunk is here; counts as nothing.
    pub(super) fn has_chunk(&self, file: FileId, index: u32) -> bool {
        read(&self.state).held.contains_key(&(file, Part::Chunk(index)))
    }

    /// The manifest, if it is here; counts as a use.
    pub(super) fn manifest(&self, file: FileId) -> Option<Arc<Described>> {
        match self.get((file, Part::Manifest))? {
            Held::Manifest(described) => Some(described),
            Held::Chunk(_) => None,
        }
    }

    /// The manifest of an object of one chunk, and the chunk; counts as nothing.
    pub(super) fn whole(&self, file: FileId) -> Option<(Arc<Described>, Bytes)> {
        let state = read(&self.state);
        let Held::Manifest(described) = state.held.get(&(file, Part::Manifest))? else {
            return None;
        };
        let Held::Chunk(chunk) = state.held.get(&(file, Part::Chunk(0)))? else { return None };
        let is_all = described.manifest.length() == chunk.len() as u64;
        is_all.then(|| (Arc::clone(described), chunk.clone()))
    }

    /// What [`Memory::whole`] found was used.
    pub(super) fn on_use_of_whole(&self, file: FileId) {
        let state = read(&self.state);
        state.eviction.on_use(&(file, Part::Manifest));
        state.eviction.on_use(&(file, Part::Chunk(0)));
    }

    /// Keeps a chunk. Its bytes must be an allocation of their own: a slice of a larger one would
    /// hold more memory than is charged for.
    pub(super) fn put_chunk(&self, file: FileId, index: u32, chunk: Bytes) {
        let bytes = chunk.len() as u64;
        self.put((file, Part::Chunk(index)), Held::Chunk(chunk), bytes);
    }

    /// Keeps a copy of a chunk, if it could be kept at all.
    pub(super) fn copy_chunk(&self, file: FileId, index: u32, chunk: &[u8]) {
        if (chunk.len() as u64).saturating_add(ENTRY_BYTES) <= self.limit_bytes {
            self.put_chunk(file, index, Bytes::copy_from_slice(chunk));
        }
    }

    /// Keeps a manifest, in place of an older one of the same object.
    pub(super) fn put_manifest(&self, file: FileId, described: Arc<Described>) {
        let bytes = described.bytes();
        self.put((file, Part::Manifest), Held::Manifest(described), bytes);
    }

    /// Lets go of all that belongs to a file of so many chunks.
    pub(super) fn forget(&self, file: FileId, chunks: u32) {
        self.remove(&[(file, Part::Manifest)]);
        for start in (0..chunks).step_by(FORGET_STEP as usize) {
            let end = chunks.min(start.saturating_add(FORGET_STEP));
            let slots: Vec<Slot> = (start..end).map(|index| (file, Part::Chunk(index))).collect();
            self.remove(&slots);
        }
    }

    /// Lets go of those chunks.
    pub(super) fn forget_chunks(&self, file: FileId, chunks: &[u32]) {
        for part in chunks.chunks(FORGET_STEP as usize) {
            let slots: Vec<Slot> = part.iter().map(|index| (file, Part::Chunk(*index))).collect();
            self.remove(&slots);
        }
    }

    fn get(&self, slot: Slot) -> Option<Held> {
        let state = read(&self.state);
        let held = state.held.get(&slot).cloned()?;
        state.eviction.on_use(&slot);
        Some(held)
    }

    fn put(&self, slot: Slot, held: Held, bytes: u64) {
        let charge = bytes.saturating_add(ENTRY_BYTES);
        let mut freed = Vec::new();
        let mut state = write(&self.state);
        // The bytes of what this replaces count for nothing, even when this does not fit.
        if let Some(old) = state.held.remove(&slot) {
            freed.push(old);
            state.eviction.on_insert(slot, 0);
        }
        let fits = charge <= self.limit_bytes;
        while fits && state.eviction.bytes().saturating_add(charge) > self.limit_bytes {
            let Some(victim) = state.eviction.victim(|held| *held == slot) else { break };
            freed.extend(state.held.remove(&victim));
        }
        if fits {
            state.eviction.on_insert(slot, charge);
            state.held.insert(slot, held);
        } else {
            state.eviction.on_remove(&slot);
        }
        self.show(&state);
        drop(state);
        // Freed after the lock: giving back megabytes takes its time.
        drop(freed);
    }

    fn remove(&self, slots: &[Slot]) {
        let mut state = write(&self.state);
        let mut freed = Vec::new();
        for slot in slots {
            if state.eviction.on_remove(slot) {
                freed.extend(state.held.remove(slot));
            }
        }
        self.show(&state);
        drop(state);
        drop(freed);
    }

    fn show(&self, state: &State) {
        self.gauge.set(i64::try_from(state.eviction.bytes()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit_bytes: u64) -> Memory {
        Memory::new(limit_bytes, IntGauge::new("memory", "memory").unwrap())
    }

    fn chunk(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn stays_within_its_bound() {
        let memory = memory(10_000);
        for index in 0..100 {
            memory.put_chunk(FileId(1), index, chunk(1000));
            assert!(memory.bytes() <= 10_000);
            assert_eq!(memory.gauge.get() as u64, memory.bytes());
        }
        assert_eq!((0..100).filter(|index| memory.has_chunk(FileId(1), *index)).count(), 8);
    }

    #[test]
    fn what_is_larger_than_all_of_it_is_not_kept() {
        let memory = memory(1000);
        memory.put_chunk(FileId(1), 0, chunk(500));
        memory.put_chunk(FileId(1), 1, chunk(1000));
        assert!(memory.has_chunk(FileId(1), 0));
        assert!(!memory.has_chunk(FileId(1), 1));
        memory.put_chunk(FileId(1), 0, chunk(1000));
        assert_eq!(memory.chunk(FileId(1), 0), None, "replaced by what does not fit");
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn a_bound_of_nothing_keeps_nothing() {
        let memory = memory(0);
        memory.put_chunk(FileId(1), 0, chunk(0));
        assert_eq!(memory.chunk(FileId(1), 0), None);
    }

    #[test]
    fn forgets_one_file_and_keeps_the_other() {
        let memory = memory(10_000_000);
        for index in 0..1000 {
            memory.put_chunk(FileId(1), index, chunk(10));
            memory.put_chunk(FileId(2), index, chunk(10));
        }
        memory.forget(FileId(1), 1000);
        assert!((0..1000).all(|index| memory.chunk(FileId(1), index).is_none()));
        assert!((0..1000).all(|index| memory.chunk(FileId(2), index).is_some()));
        assert_eq!(memory.bytes(), 1000 * (10 + ENTRY_BYTES));
    }

    #[test]
    fn a_chunk_put_again_is_charged_once() {
        let memory = memory(10_000);
        memory.put_chunk(FileId(1), 0, chunk(100));
        memory.put_chunk(FileId(1), 0, chunk(300));
        assert_eq!(memory.bytes(), 300 + ENTRY_BYTES);
        memory.put_chunk(FileId(1), 1, chunk(9000));
        memory.put_chunk(FileId(1), 1, chunk(9000));
        assert!(memory.has_chunk(FileId(1), 0), "nobody goes for what is replaced");
    }
}
