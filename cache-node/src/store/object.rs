//! A stored object in a reader's hand.
//!
//! Invariants: who holds one keeps reading it, whatever happens to it in the store; what comes
//! from disk is checked against the manifest before anybody sees it, what fails the check is
//! dropped from the store.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use shoal_proto::{ChunkHash, Manifest, ManifestId, ObjectHead, ObjectId};

use super::absent::Absent;
use super::body::Body;
use super::error::{Fault, StoreError};
use super::memory::Described;
use super::record::Place;
use super::shared::Shared;
use super::table::Found;
use crate::metrics::Tier;
use crate::tasks;

/// A stored object, or as much of it as is here. While one lives, its space is not freed and nothing
/// of it is evicted.
#[derive(Clone, Debug)]
pub struct StoredObject {
    pub(super) shared: Arc<Shared>,
    pub(super) described: Arc<Described>,
    pub(super) body: Arc<Body>,
    place: Place,
    /// What is not here of it, where that ever was something.
    pub(super) absent: Option<Arc<Absent>>,
}

/// An object that is all in memory: its space may go, what is held here stays.
#[derive(Clone, Debug)]
pub struct Hit {
    pub(super) described: Arc<Described>,
    pub(super) body: Bytes,
}

impl Hit {
    /// The manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.described.manifest
    }

    /// The whole body, verified when it came into memory.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What `make` makes of the head, kept beside the manifest for as long as that is in memory;
    /// `None` when something else is kept there. It must not take much more memory than the head.
    pub fn note<T: Any + Send + Sync>(&self, make: impl FnOnce(&ObjectHead) -> T) -> Option<&T> {
        let head = self.described.manifest.head();
        self.described.note.get_or_init(|| Box::new(make(head))).downcast_ref()
    }

    /// An object that is in no store.
    #[cfg(test)]
    pub(crate) fn of(manifest: Manifest, body: Bytes) -> Self {
        Self { described: Described::new(manifest), body }
    }
}

impl StoredObject {
    pub(super) fn new(
        shared: Arc<Shared>,
        described: Arc<Described>,
        (body, place, absent): (Arc<Body>, Place, Option<Arc<Absent>>),
    ) -> Arc<Self> {
        Arc::new(Self { shared, described, body, place, absent })
    }

    pub(super) fn found(shared: Arc<Shared>, described: Arc<Described>, found: Found) -> Arc<Self> {
        Self::new(shared, described, (found.body, found.place, found.absent))
    }

    /// Whether every chunk is here.
    pub fn is_whole(&self) -> bool {
        self.absent.as_ref().is_none_or(|absent| absent.count() == 0)
    }

    /// Whether the chunk is here.
    pub fn has_chunk(&self, index: u32) -> bool {
        let absent = self.absent.as_ref().is_some_and(|absent| absent.has(index));
        !absent && index < self.described.manifest.chunk_count()
    }

    /// Runs of chunks that are here.
    pub fn held(&self) -> Vec<Range<u32>> {
        let all = 0..self.described.manifest.chunk_count();
        self.absent.as_ref().map_or_else(|| vec![all], |absent| absent.runs(false))
    }

    /// The manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.described.manifest
    }

    /// The object's id.
    pub fn object_id(&self) -> ObjectId {
        self.described.object_id
    }

    /// The manifest's id.
    pub fn manifest_id(&self) -> ManifestId {
        self.described.manifest_id
    }

    /// Where its first chunk would come from now: [`Tier::Memory`] or [`Tier::Disk`].
    pub fn tier(&self) -> Tier {
        let memory = &self.shared.disk.memory;
        let empty = self.described.manifest.chunk_count() == 0;
        if empty || memory.has_chunk(self.body.id(), 0) { Tier::Memory } else { Tier::Disk }
    }

    /// Chunk `index`, verified, and where it came from. From memory it comes without a wait.
    ///
    /// # Errors
    /// [`StoreError::NoChunk`] when there is no such chunk here; [`StoreError::Corrupt`] when its bytes
    /// are damaged, and then the object is dropped: fetch it elsewhere.
    pub async fn read_chunk(&self, index: u32) -> Result<(Bytes, Tier), StoreError> {
        let manifest = &self.described.manifest;
        let Some(hash) = manifest.hash(index).filter(|_| self.has_chunk(index)) else {
            return Err(StoreError::NoChunk { key: manifest.head().key, chunk: index });
        };
        if let Some(chunk) = self.shared.disk.memory.chunk(self.body.id(), index) {
            return Ok((chunk, Tier::Memory));
        }
        let object = self.clone();
        let read = move || object.read_from_disk(index, hash);
        Ok((tasks::blocking("store-read", read).await??, Tier::Disk))
    }

    /// Tells two bodies apart.
    #[cfg(test)]
    pub(super) fn file_number(&self) -> super::FileId {
        self.body.id()
    }

    fn read_from_disk(&self, index: u32, hash: ChunkHash) -> Result<Bytes, StoreError> {
        let key = self.described.manifest.head().key;
        let reason = match self.body.read(self.place, &self.described.manifest, index) {
            Ok(chunk) if ChunkHash::of(&chunk) == hash => {
                self.shared.disk.memory.put_chunk(self.body.id(), index, chunk.clone());
                return Ok(chunk);
            }
            Ok(_) => "its bytes do not match their hash".to_owned(),
            Err(Fault::Damaged(reason)) => reason,
            Err(Fault::Failed(error)) => return Err(error),
        };
        self.shared.metrics.corrupt_chunks.inc();
        tracing::warn!(%key, chunk = index, file = %self.body.id(), reason, "damaged on disk");
        self.shared.drop_damaged(&key, self.body.id());
        Err(StoreError::Corrupt { key, chunk: index, reason })
    }
}
