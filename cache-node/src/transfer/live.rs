//! A growing object: one writer (a fill, or a pull from peers), any number of readers, on this node
//! and, through the peer service, on others.
//!
//! Invariants: chunks in the store are verified or come from the origin itself; readers see bytes
//! in order and never past the end; an object that failed ends every reader's stream in an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use shoal_proto::{ChunkHash, LeaseId, NodeId, ObjectHead, ObjectId};
use tokio::sync::watch;

use super::survey::Sources;
use crate::store::{PartialObject, StoreError, StoredObject};

/// How a growing object ended.
#[derive(Clone)]
pub enum End {
    /// Whole, verified, stored.
    Done(Arc<StoredObject>),
    /// Broken off, with the reason.
    Failed(String),
}

/// What readers wait on.
#[derive(Clone, Default)]
pub struct Progress {
    /// Grows with every change.
    pub step: u64,
    /// Set once, at the end.
    pub end: Option<End>,
}

/// A chunk of which a part has arrived.
#[derive(Default)]
struct Begun {
    chunk: u32,
    bytes: BytesMut,
    /// Readers may have it before it is whole.
    shown: bool,
}

/// The end of what one fetch from the origin brings, chunk after chunk; gone when dropped. Several
/// may bring parts of one object at the same time.
pub struct Tail {
    live: Arc<Live>,
    number: u64,
}

/// A growing object.
pub struct Live {
    partial: Arc<PartialObject>,
    lease: Mutex<Option<LeaseId>>,
    hashes: Mutex<Vec<Option<ChunkHash>>>,
    /// Hashes that the filler named, of chunks that may not be here.
    announced: Mutex<Vec<ChunkHash>>,
    /// Chunks in the order in which they came.
    arrivals: Mutex<Vec<u32>>,
    object: OnceLock<ObjectId>,
    /// Names this version of the object for as long as it has no id.
    growth: AtomicU64,
    mates: Mutex<BTreeSet<NodeId>>,
    sources: Arc<Sources>,
    /// The chunk that the foremost reader waits for.
    reading: AtomicU32,
    tails: Mutex<BTreeMap<u64, Begun>>,
    next_tail: AtomicU64,
    progress: watch::Sender<Progress>,
    followers: AtomicU32,
}

impl Live {
    /// A new growing object over its place in the store.
    pub fn new(partial: PartialObject, lease: Option<LeaseId>) -> Arc<Self> {
        Arc::new(Self {
            partial: Arc::new(partial),
            lease: Mutex::new(lease),
            hashes: Mutex::default(),
            announced: Mutex::default(),
            arrivals: Mutex::default(),
            object: OnceLock::new(),
            growth: AtomicU64::new(lease.map_or(0, |lease| lease.0)),
            mates: Mutex::default(),
            sources: Arc::default(),
            reading: AtomicU32::new(0),
            tails: Mutex::default(),
            next_tail: AtomicU64::new(0),
            progress: watch::Sender::default(),
            followers: AtomicU32::new(0),
        })
    }

    /// Status, headers, length where known.
    pub fn head(&self) -> &Arc<ObjectHead> {
        self.partial.head()
    }

    /// How many chunks it will have; `None` while its length is not known.
    pub fn chunk_count(&self) -> Option<u32> {
        let length = self.head().length?;
        u32::try_from(length.div_ceil(u64::from(self.head().chunk_size))).ok()
    }

    /// Whom its chunks came from.
    pub(super) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// The lease under which it is filled; `None` for a pull or without a tier.
    pub fn lease(&self) -> Option<LeaseId> {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pull becomes a fill: its filler was lost, and this node took over.
    pub fn take_over(&self, lease: Option<LeaseId>) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    /// The object that it grows to be, where that is known: a pull's manifest says so.
    pub fn object(&self) -> Option<ObjectId> {
        self.object.get().copied()
    }

    /// What it grows to be.
    pub fn name_object(&self, object: ObjectId) {
        // The first name stands: a growing object is never two.
        let _ = self.object.set(object);
    }

    /// Follows its progress.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.progress.borrow().end.clone()
    }

    /// Whether the chunk can be read.
    pub fn has_chunk(&self, index: u32) -> bool {
        self.partial.has_chunk(index)
    }

    /// The hash of a chunk that can be read.
    pub fn hash(&self, index: u32) -> Option<ChunkHash> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.get(index as usize).copied().flatten()
    }

    /// The growth's name; 0 while it has none.
    pub fn growth(&self) -> u64 {
        self.growth.load(Ordering::Relaxed)
    }

    /// Takes over the name that the filler gave it.
    pub fn name_growth(&self, growth: u64) {
        self.growth.store(growth, Ordering::Relaxed);
    }

    /// The filler named the next chunk's hash; false when it named another before.
    pub fn announce(&self, index: u32, hash: ChunkHash) -> bool {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        match announced.get(index as usize) {
            Some(known) => *known == hash,
            None if announced.len() == index as usize => {
                announced.push(hash);
                drop(announced);
                self.step();
                true
            }
            None => false,
        }
    }

    /// The hash of a chunk, whether or not it is here.
    pub fn known_hash(&self, index: u32) -> Option<ChunkHash> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let known = announced.get(index as usize).copied();
        drop(announced);
        known.or_else(|| self.hash(index))
    }

    /// How many chunks from the first on have a known hash.
    pub fn known_in_order(&self) -> u32 {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner).len() as u32;
        announced.max(self.chunks_in_order())
    }

    /// Chunks that came after the first `seen`, in the order in which they came.
    pub fn arrivals_after(&self, seen: usize) -> Vec<u32> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.get(seen..).map(<[u32]>::to_vec).unwrap_or_default()
    }

    /// A reader waits for this chunk.
    pub fn reads(&self, chunk: u32) {
        self.reading.fetch_max(chunk, Ordering::Relaxed);
    }

    /// The chunk that the foremost reader waits for.
    pub fn reading(&self) -> u32 {
        self.reading.load(Ordering::Relaxed)
    }

    /// How many chunks from the first on can be read.
    pub fn chunks_in_order(&self) -> u32 {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.iter().take_while(|hash| hash.is_some()).count() as u32
    }

    /// Reads a chunk.
    ///
    /// # Errors
    /// When it is not there or the disk fails.
    pub async fn read_chunk(&self, index: u32) -> Result<Bytes, StoreError> {
        self.partial.read_chunk(index).await
    }

    /// Stores a chunk whose hash the caller has verified or computed.
    ///
    /// # Errors
    /// When there is no room or the disk fails.
    pub async fn put_chunk(
        &self,
        index: u32,
        data: Bytes,
        hash: ChunkHash,
    ) -> Result<(), StoreError> {
        self.partial.write_chunk(index, data, hash).await?;
        {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            let at = index as usize;
            if hashes.len() <= at {
                hashes.resize(at + 1, None);
            }
            if hashes[at].replace(hash).is_none() {
                self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(index);
                self.sources.came();
            }
        }
        self.step();
        Ok(())
    }

    /// A fetch from the origin begins.
    pub fn open_tail(self: &Arc<Self>) -> Tail {
        let number = self.next_tail.fetch_add(1, Ordering::Relaxed);
        self.tails.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Begun::default());
        Tail { live: self.clone(), number }
    }

    /// The bytes of `chunk` from `from` on, as far as they have arrived.
    pub fn tail_from(&self, chunk: u32, from: usize) -> Option<Bytes> {
        let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |tail: &&Begun| tail.shown && tail.chunk == chunk && tail.bytes.len() > from;
        tails.values().find(has).map(|tail| Bytes::copy_from_slice(&tail.bytes[from..]))
    }

    /// Ends it whole: the object is stored and readers see its end.
    ///
    /// # Errors
    /// When chunks are missing or the disk fails; readers are then told of the failure.
    pub async fn finish(&self, length: u64) -> Result<Arc<StoredObject>, StoreError> {
        match self.partial.finish(length).await {
            Ok(stored) => {
                self.close(End::Done(stored.clone()));
                Ok(stored)
            }
            Err(error) => {
                self.close(End::Failed(error.to_string()));
                Err(error)
            }
        }
    }

    /// Ends it broken.
    pub fn fail(&self, reason: impl Into<String>) {
        self.close(End::Failed(reason.into()));
    }

    /// Notes who pulls it too, should the filler be lost.
    pub fn meet_mates(&self, mates: &BTreeSet<NodeId>) {
        self.mates.lock().unwrap_or_else(PoisonError::into_inner).clone_from(mates);
    }

    /// Who pulled it too, as far as told last.
    pub fn mates(&self) -> BTreeSet<NodeId> {
        self.mates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts one more reader on another node.
    pub fn add_follower(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    /// How many readers on other nodes there have been.
    pub fn followers(&self) -> u32 {
        self.followers.load(Ordering::Relaxed)
    }

    fn step(&self) {
        self.progress.send_modify(|progress| progress.step += 1);
    }

    fn close(&self, end: End) {
        self.progress.send_modify(|progress| {
            progress.step += 1;
            // The first end stands: a failure after success is nobody's business.
            progress.end.get_or_insert(end);
        });
    }
}

impl Tail {
    /// More of a chunk arrived. Readers get it at once, unless its hash is known: then they get it
    /// when it is whole and matches.
    pub fn push(&self, chunk: u32, piece: &[u8]) {
        let shown = self.live.known_hash(chunk).is_none();
        {
            let mut tails = self.live.tails.lock().unwrap_or_else(PoisonError::into_inner);
            let tail = tails.entry(self.number).or_default();
            if tail.chunk != chunk {
                tail.chunk = chunk;
                tail.bytes.clear();
            }
            tail.shown = shown;
            tail.bytes.extend_from_slice(piece);
        }
        self.live.step();
    }

    /// A copy of the chunk's bytes, to be stored: readers may stand inside the tail until the chunk
    /// can be read.
    pub fn bytes(&self, chunk: u32) -> Bytes {
        let tails = self.live.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = tails.get(&self.number).filter(|tail| tail.chunk == chunk);
        tail.map(|tail| Bytes::copy_from_slice(&tail.bytes)).unwrap_or_default()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut tails = self.live.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails.remove(&self.number);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.fail("the fill was abandoned");
    }
}
