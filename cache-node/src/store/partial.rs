//! An object being filled: one writer, any number of readers of what is written.
//!
//! Invariants: a chunk is readable once it is written, never before; the object is in the catalog
//! once all of it is on disk, never before; every byte on disk is reserved first. Dropped without
//! [`PartialObject::finish`] it gives back its space. What one failed sync may have lost is never
//! called stored, whatever a later one says. In RAM stands only what is bounded: hashes,
//! and a body small enough for the catalog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use shoal_proto::limits::INLINE_BODY_BYTES_MAX;
use shoal_proto::{ChunkHash, Manifest, ObjectHead};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Body, Reclaim};
use super::budget::Reservation;
use super::error::{Fault, Full, StoreError};
use super::memory::Described;
use super::object::StoredObject;
use super::record::{BodyRow, Place};
use super::shared::{Finished, PARTIALS_MAX, Shared};
use super::written::Written;
use super::{FileId, charge, lock};
use crate::tasks;

/// What is evicted when the disk is too full for an object's record, in bytes.
const RECORD_ROOM_BYTES: u64 = 1024 * 1024;
/// A file is synced once in so many bytes written to it: neither does its end wait for all of a
/// large body, nor does the kernel hold more than this of it in memory that it cannot free.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;

/// An object being filled. Share it by `Arc`; the last one dropped ends it.
#[derive(Debug)]
pub struct PartialObject {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    head: Arc<ObjectHead>,
    body: Arc<Body>,
    state: Mutex<State>,
    file: Mutex<FileState>,
    unsynced_bytes: AtomicU64,
    finish_turn: Mutex<()>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct State {
    written: Written,
    reservation: Reservation,
    /// The whole body, where it is small enough for the catalog.
    inline: Option<Bytes>,
    in_file: bool,
    damaged: Option<u32>,
    done: Option<Arc<StoredObject>>,
}

/// What was done for the file before the first write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    Nothing,
    /// It takes space as it grows.
    Growing,
    /// Its space is set aside.
    SetAside,
}

/// A chunk on its way to the disk.
struct Chunk {
    index: u32,
    data: Bytes,
    hash: ChunkHash,
    /// Its bytes of the budget, where they were not reserved at the beginning.
    growth: Option<Reservation>,
}

impl PartialObject {
    pub(super) async fn begin(shared: &Arc<Shared>, head: ObjectHead) -> Result<Self, StoreError> {
        let written = Written::new(&head)?;
        let permit = Arc::clone(&shared.partials).try_acquire_owned().map_err(|_| {
            let cause = Full::Partials { partials_max: PARTIALS_MAX };
            shared.full(head.length.unwrap_or(0), cause)
        })?;
        let charge_bytes = match head.length {
            Some(length) => charge::of_object(&head, length),
            None => charge::of_head(&head),
        };
        let reservation = shared.reserve(charge_bytes).await?;
        let id = FileId::draw().map_err(|e| StoreError::body(&shared.dir, "name a file", e))?;
        let body = Body::new(id, &shared.disk, &shared.budget, reservation.bytes());
        let state =
            State { written, reservation, inline: None, in_file: false, damaged: None, done: None };
        let inner = Inner {
            shared: Arc::clone(shared),
            head: Arc::new(head),
            body,
            state: Mutex::new(state),
            file: Mutex::new(FileState::Nothing),
            unsynced_bytes: AtomicU64::new(0),
            finish_turn: Mutex::default(),
            _permit: permit,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What is known of the response.
    pub fn head(&self) -> &Arc<ObjectHead> {
        &self.inner.head
    }

    /// Whether chunk `index` is written.
    pub fn has_chunk(&self, index: u32) -> bool {
        lock(&self.inner.state).written.hash(index).is_some()
    }

    /// How many chunks are written.
    pub fn chunks_written(&self) -> u32 {
        lock(&self.inner.state).written.count()
    }

    /// Writes a chunk whose bytes have been checked against, or given, that hash. In any order; a
    /// chunk a second time is fine and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] when the body grew beyond what can be made free: stream on without
    /// storing. [`StoreError::Invalid`] when the chunk does not fit into the body.
    pub async fn write_chunk(
        &self,
        index: u32,
        data: Bytes,
        hash: ChunkHash,
    ) -> Result<(), StoreError> {
        {
            let state = lock(&self.inner.state);
            if state.written.hash(index).is_some() {
                return Ok(());
            }
            state.written.check(index, data.len())?;
        }
        let bytes = data.len() as u64;
        let growth = match self.inner.head.length {
            Some(_) => None,
            None => Some(self.inner.shared.reserve(charge::of_chunk(index, bytes)).await?),
        };
        let chunk = Chunk { index, data, hash, growth };
        // A first chunk this short is all of the body: it is checked against the length above.
        if index == 0 && bytes <= u64::from(INLINE_BODY_BYTES_MAX) {
            self.inner.keep_inline(chunk);
            return Ok(());
        }
        let (chunk, written) = self.write_to_file(chunk).await?;
        let Err(error) = written else { return Ok(()) };
        if !error.is_disk_full() {
            return Err(error);
        }
        self.inner.shared.relieve(self.inner.needed_bytes(bytes)).await?;
        self.write_to_file(chunk).await?.1
    }

    /// Hands the chunk back, with its reservation, for the case that it was not written.
    async fn write_to_file(
        &self,
        mut chunk: Chunk,
    ) -> Result<(Chunk, Result<(), StoreError>), StoreError> {
        let inner = Arc::clone(&self.inner);
        let work = move || {
            let written = inner.write_now(&mut chunk);
            (chunk, written)
        };
        Ok(tasks::blocking("store-write", work).await?)
    }

    /// Chunk `index`, if it is written. From memory it comes without a wait.
    ///
    /// # Errors
    /// [`StoreError::NoChunk`] when it is not written; [`StoreError::Corrupt`] when the disk gave
    /// other bytes back than it was given, and then this object will not finish.
    pub async fn read_chunk(&self, index: u32) -> Result<Bytes, StoreError> {
        let key = self.inner.head.key;
        let done = {
            let state = lock(&self.inner.state);
            let Some(_) = state.written.hash(index) else {
                return Err(StoreError::NoChunk { key, chunk: index });
            };
            if let Some(inline) = state.inline.as_ref().filter(|_| index == 0) {
                return Ok(inline.clone());
            }
            state.done.clone()
        };
        if let Some(done) = done {
            return done.read_chunk(index).await.map(|(chunk, _)| chunk);
        }
        let inner = &self.inner;
        if let Some(chunk) = inner.shared.disk.memory.chunk(inner.body.id(), index) {
            return Ok(chunk);
        }
        let inner = Arc::clone(inner);
        tasks::blocking("store-read", move || inner.read_now(index)).await?
    }

    /// Makes the object visible, in place of an older one of the same key, whose readers go on.
    /// `length` is the body's. Asked again, it answers with the same object.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] when a chunk is missing; [`StoreError::Invalid`] when length and
    /// head do not agree; [`StoreError::NoRoom`] when the disk is full.
    pub async fn finish(&self, length: u64) -> Result<Arc<StoredObject>, StoreError> {
        match self.finish_once(length).await {
            Err(error) if error.is_disk_full() && lock(&self.inner.state).damaged.is_none() => {
                self.inner.shared.relieve(RECORD_ROOM_BYTES).await?;
                self.finish_once(length).await
            }
            finished => finished,
        }
    }

    async fn finish_once(&self, length: u64) -> Result<Arc<StoredObject>, StoreError> {
        let inner = Arc::clone(&self.inner);
        tasks::blocking("store-finish", move || inner.finish_now(length)).await?
    }
}

impl Inner {
    fn keep_inline(&self, mut chunk: Chunk) {
        // A copy: the chunk may be a slice of a much larger buffer.
        let copy = Bytes::copy_from_slice(&chunk.data);
        let mut state = lock(&self.state);
        state.inline = Some(copy);
        self.record(&mut state, &mut chunk);
    }

    fn write_now(&self, chunk: &mut Chunk) -> Result<(), StoreError> {
        let bytes = chunk.data.len() as u64;
        let offset = lock(&self.state).written.offset(chunk.index);
        let written = self.prepare(bytes).and_then(|()| {
            self.body.file().write_at(&chunk.data, offset)?;
            self.sync_when_due(bytes)
        });
        written.map_err(|error| error.while_writing(&self.shared.dir, bytes))?;
        self.shared.disk.memory.copy_chunk(self.body.id(), chunk.index, &chunk.data);
        self.record(&mut lock(&self.state), chunk);
        Ok(())
    }

    /// What the file system must have for the next write of so many bytes.
    fn needed_bytes(&self, bytes: u64) -> u64 {
        match *lock(&self.file) {
            FileState::Nothing => self.head.length.unwrap_or(bytes),
            FileState::Growing | FileState::SetAside => bytes,
        }
    }

    /// Before the first write: notes that there is a file without a record, sets its space aside.
    fn prepare(&self, bytes: u64) -> Result<(), StoreError> {
        let mut file = lock(&self.file);
        match *file {
            FileState::SetAside => return Ok(()),
            FileState::Growing => {
                drop(file);
                return self.shared.check_disk(bytes);
            }
            FileState::Nothing => {}
        }
        let length = self.head.length;
        self.shared.check_disk(length.unwrap_or(bytes))?;
        self.shared.disk.catalog.note(BodyRow { file: self.body.id(), place: Place::File })?;
        lock(&self.state).in_file = true;
        let set_aside = length.map_or(Ok(false), |length| self.body.file().set_aside(length))?;
        *file = if set_aside { FileState::SetAside } else { FileState::Growing };
        Ok(())
    }

    fn sync_when_due(&self, bytes: u64) -> Result<(), StoreError> {
        let unsynced_bytes = self.unsynced_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if unsynced_bytes < SYNC_BYTES {
            return Ok(());
        }
        self.unsynced_bytes.store(0, Ordering::Release);
        self.sync()
    }

    /// After a failed sync the kernel may have let go of what it could not write, and the next
    /// sync would say that all is well: there is none.
    fn sync(&self) -> Result<(), StoreError> {
        self.body.file().sync().inspect_err(|_| lock(&self.state).damaged = Some(0))
    }

    fn record(&self, state: &mut State, chunk: &mut Chunk) {
        // Of two that write the same chunk at once, the first has its bytes counted.
        if state.written.record(chunk.index, chunk.data.len(), chunk.hash)
            && let Some(growth) = chunk.growth.take()
        {
            self.body.grow(growth.bytes());
            state.reservation.merge(growth);
        }
    }

    fn read_now(&self, index: u32) -> Result<Bytes, StoreError> {
        let (hash, length, offset) = {
            let state = lock(&self.state);
            let written = &state.written;
            (written.hash(index), written.chunk_length(index), written.offset(index))
        };
        let reason = match self.body.file().read_at(length as usize, offset) {
            Ok(chunk) if Some(ChunkHash::of(&chunk)) == hash => {
                self.shared.disk.memory.put_chunk(self.body.id(), index, chunk.clone());
                return Ok(chunk);
            }
            Ok(_) => "its bytes do not match their hash".to_owned(),
            Err(Fault::Damaged(reason)) => reason,
            Err(Fault::Failed(error)) => return Err(error),
        };
        self.shared.metrics.corrupt_chunks.inc();
        lock(&self.state).damaged = Some(index);
        Err(StoreError::Corrupt { key: self.head.key, chunk: index, reason })
    }

    fn finish_now(&self, length: u64) -> Result<Arc<StoredObject>, StoreError> {
        let _turn = lock(&self.finish_turn);
        let key = self.head.key;
        let (hashes, inline) = {
            let state = lock(&self.state);
            if let Some(done) = &state.done {
                return Ok(Arc::clone(done));
            }
            if let Some(chunk) = state.damaged {
                let reason = "it could not be read or synced while being filled".to_owned();
                return Err(StoreError::Corrupt { key, chunk, reason });
            }
            let hashes = state.written.complete(length);
            let hashes = hashes.map_err(|chunk| StoreError::Incomplete { key, chunk })?;
            (hashes, state.inline.clone())
        };
        let manifest = Manifest::new(ObjectHead::clone(&self.head), length, hashes)?;
        let inline = if length == 0 { Some(Bytes::new()) } else { inline };
        let place = if inline.is_some() { Place::Inline } else { Place::File };
        self.store(Described::new(manifest), inline, place)
            .map_err(|error| error.while_writing(&self.shared.dir, length))
    }

    fn store(
        &self,
        described: Arc<Described>,
        inline: Option<Bytes>,
        place: Place,
    ) -> Result<Arc<StoredObject>, StoreError> {
        self.shared.check_disk(inline.as_ref().map_or(0, |body| body.len() as u64))?;
        if place == Place::File {
            self.sync()?;
        }
        let charge_bytes = lock(&self.state).reservation.bytes();
        let finished = Finished {
            described: &described,
            body: &self.body,
            inline: inline.as_deref(),
            charge_bytes,
            absent: None,
        };
        self.shared.commit(&finished, || lock(&self.state).reservation.take())?;
        if let Some(inline) = inline.filter(|body| !body.is_empty()) {
            self.shared.disk.memory.put_chunk(self.body.id(), 0, inline);
        }
        let (shared, body) = (Arc::clone(&self.shared), Arc::clone(&self.body));
        let object = StoredObject::new(shared, described, (body, place, None));
        lock(&self.state).done = Some(Arc::clone(&object));
        Ok(object)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.done.is_none() && state.in_file {
            let reservation = state.reservation.take();
            let chunks = state.written.chunks_end();
            let (id, place) = (self.body.id(), Place::File);
            self.body.doom(Reclaim { id, place, chunks, reservation, open: None });
        }
    }
}
