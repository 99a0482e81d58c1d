//! A growing object: one writer (a fill, or a pull from peers), any number of readers, on this node
//! and, through the peer service, on others.
//!
//! Invariants: chunks in the store are verified or come from the origin itself; readers see bytes
//! in order and never past the end; an object that failed ends every reader's stream in an error.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use shoal_proto::{ChunkHash, LeaseId, ObjectHead};
use tokio::sync::watch;

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

#[derive(Default)]
struct Tail {
    chunk: u32,
    bytes: BytesMut,
}

/// A growing object.
pub struct Live {
    partial: Arc<PartialObject>,
    lease: Mutex<Option<LeaseId>>,
    hashes: Mutex<Vec<Option<ChunkHash>>>,
    tail: Mutex<Tail>,
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
            tail: Mutex::default(),
            progress: watch::Sender::default(),
            followers: AtomicU32::new(0),
        })
    }

    /// Status, headers, length where known.
    pub fn head(&self) -> &Arc<ObjectHead> {
        self.partial.head()
    }

    /// The lease under which it is filled; `None` for a pull or without a tier.
    pub fn lease(&self) -> Option<LeaseId> {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pull becomes a fill: its filler was lost, and this node took over.
    pub fn take_over(&self, lease: Option<LeaseId>) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
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
            hashes[at] = Some(hash);
        }
        self.step();
        Ok(())
    }

    /// Shows readers the beginning of a chunk that is still arriving from the origin.
    pub fn show_tail(&self, chunk: u32, piece: &[u8]) {
        {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.chunk != chunk {
                tail.chunk = chunk;
                tail.bytes.clear();
            }
            tail.bytes.extend_from_slice(piece);
        }
        self.step();
    }

    /// The bytes of `chunk` from `from` on, as far as they have arrived.
    pub fn tail_from(&self, chunk: u32, from: usize) -> Option<Bytes> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.chunk != chunk || tail.bytes.len() <= from {
            return None;
        }
        Some(Bytes::copy_from_slice(&tail.bytes[from..]))
    }

    /// A copy of the tail's bytes, to be stored as a chunk: readers may stand inside the tail until
    /// the chunk can be read.
    pub fn tail(&self, chunk: u32) -> Bytes {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.chunk != chunk {
            return Bytes::new();
        }
        Bytes::copy_from_slice(&tail.bytes)
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

impl Drop for Live {
    fn drop(&mut self) {
        self.fail("the fill was abandoned");
    }
}
