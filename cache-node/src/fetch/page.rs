//! Chunks of a stored object that are not here: they come as a reader wants them, some at a time,
//! from nodes that have them or, where nobody does, from the origin; and they stay.
//!
//! Invariants: a chunk is used only if it matches the hash in the object's manifest, wherever it
//! comes from; of one object one run of chunks is fetched at a time, so that readers who want the
//! same chunks share them. The memory for it is [`PAGE_BYTES`] a response.
//!
//! Not here: two nodes that miss the same chunk, which no third one has, both ask the origin for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::Method;
use shoal_proto::{ChunkHash, ObjectId, ObjectKey, RpcError};
use tokio::sync::Mutex as AsyncMutex;

use super::types::{BodyError, FetchError, FetchRequest, OriginRequest, OriginResponse};
use super::{Inner, lock};
use crate::directory::{Change, Held, PartHolder};
use crate::policy::resume::{self, Continues};
use crate::store::{StoreError, StoredObject};
use crate::transfer::Wanted;

/// Most bytes of chunks that are fetched at a time.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// Holders that are asked for a run of chunks before the origin is.
const HOLDERS_MAX: usize = 4;

/// Who fetches what is not here, one at a time for each object.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<ObjectId, Weak<AsyncMutex<()>>>>);

impl Turns {
    fn of(&self, object: ObjectId) -> Arc<AsyncMutex<()>> {
        let mut turns = lock(&self.0);
        if let Some(turn) = turns.get(&object).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(object, Arc::downgrade(&turn));
        turn
    }
}

/// How one response gets at chunks that are not here.
pub(super) struct Pager {
    inner: Arc<Inner>,
    request: FetchRequest,
    /// The object of which chunks came, to be told of at the end.
    came: Mutex<Option<(ObjectKey, ObjectId)>>,
    failed: AtomicBool,
}

/// A run of chunks being fetched.
struct Run<'a> {
    object: &'a StoredObject,
    /// Those that have not come.
    missing: Vec<u32>,
    /// The chunk that the reader waits for.
    first: u32,
    data: Option<Bytes>,
}

impl Pager {
    pub(super) fn new(inner: Arc<Inner>, request: FetchRequest) -> Self {
        Self { inner, request, came: Mutex::default(), failed: AtomicBool::new(false) }
    }

    /// Chunk `index` of an object, for a reader who goes on to `end` at most.
    ///
    /// # Errors
    /// When neither another node nor the origin has it any more.
    pub(super) async fn chunk(
        &self,
        object: &StoredObject,
        (index, end): (u32, u32),
    ) -> Result<Bytes, BodyError> {
        let turn = self.inner.pages.of(object.object_id());
        let _turn = turn.lock().await;
        // Whoever had the turn before may have brought it.
        match object.read_chunk(index).await {
            Ok((data, _)) => return Ok(data),
            Err(StoreError::NoChunk { .. }) if index < object.manifest().chunk_count() => {}
            Err(error) => return Err(BodyError(error.to_string())),
        }
        let page = (PAGE_BYTES / u64::from(object.manifest().head().chunk_size)).max(1) as u32;
        let end = end.min(index.saturating_add(page)).max(index + 1);
        let missing = (index..end).take_while(|chunk| !object.has_chunk(*chunk)).collect();
        let mut run = Run { object, missing, first: index, data: None };
        self.ask_holders(&mut run).await;
        if !run.missing.is_empty() && run.missing.contains(&index) {
            self.ask_origin(&mut run).await?;
        }
        *lock(&self.came) = Some((object.manifest().head().key, object.object_id()));
        run.data.ok_or_else(|| BodyError("a chunk that is not here did not come".to_owned()))
    }

    async fn ask_holders(&self, run: &mut Run<'_>) {
        let key = run.object.manifest().head().key;
        let object = run.object.object_id();
        let mut holders = self.inner.directory.holders(&key, &object).await;
        let view = self.inner.directory.view();
        let zone = view.member(self.inner.directory.node_id()).map(|me| me.zone.clone());
        let zone = zone.filter(|zone| !zone.is_empty());
        // Not everybody's first, and not one for all: the load is spread over whoever has it.
        let spread = self.inner.directory.node_id().0.wrapping_add(u64::from(run.first));
        let first = spread.checked_rem(holders.len() as u64).unwrap_or(0);
        holders.rotate_left(first as usize);
        holders.sort_by_key(|holder| Some(&holder.member.zone) != zone.as_ref());
        for holder in holders.iter().take(HOLDERS_MAX) {
            if run.missing.is_empty() {
                return;
            }
            if let Err(error) = self.ask_holder(run, holder).await {
                self.inner.peers.metrics().failures.inc();
                tracing::debug!(holder = holder.member.name, %error, "a holder gave no chunks");
            }
        }
    }

    async fn ask_holder(&self, run: &mut Run<'_>, holder: &PartHolder) -> Result<(), RpcError> {
        let wanted: Vec<u32> = run.missing.iter().copied().filter(|c| holder.has(*c)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (key, object) = (run.object.manifest().head().key, Some(run.object.object_id()));
        let of = Wanted { key, object, growth: 0 };
        let mut pieces =
            std::pin::pin!(self.inner.peers.chunks(&holder.member, of, &wanted).await?);
        let metrics = self.inner.peers.metrics();
        while let Some(piece) = pieces.next().await {
            let (index, data) = piece?;
            metrics.bytes_in.inc_by(data.len() as u64);
            if !run.take(index, &data).await {
                metrics.bad_chunks.inc();
                tracing::warn!(
                    peer = holder.member.name,
                    index,
                    "a chunk is not what was asked for"
                );
                return Ok(());
            }
        }
        Ok(())
    }

    async fn ask_origin(&self, run: &mut Run<'_>) -> Result<(), BodyError> {
        let manifest = Arc::clone(run.object.manifest());
        let head = manifest.head();
        let size = u64::from(head.chunk_size);
        let end = run.missing.iter().copied().max().map_or(run.first, |last| last) + 1;
        let part = u64::from(run.first) * size..(u64::from(end) * size).min(manifest.length());
        let asked = self.inner.ask(&self.request, resume::headers(head, &part)).await;
        let response = asked.map_err(|error| BodyError(error.to_string()))?;
        let answer = (response.status, &response.headers, response.length);
        let from = match resume::continues(head, &part, answer) {
            Continues::AtOffset => run.first,
            Continues::FromStart => {
                // It comes all the same: what is not here of it is kept, so that this is done once.
                let all = 0..manifest.chunk_count();
                run.missing = all.filter(|chunk| !run.object.has_chunk(*chunk)).collect();
                0
            }
            Continues::No => return Err(self.outdated(run.object).await),
        };
        self.inner.metrics.fills.inc();
        let mut body = response.body;
        let (mut index, mut gathered) = (from, BytesMut::new());
        while let Some(piece) = body.next().await {
            let mut piece = piece.map_err(|error| BodyError(error.to_string()))?;
            while !piece.is_empty() {
                let whole = manifest.chunk_length(index) as usize;
                if whole == 0 {
                    return Err(self.outdated(run.object).await);
                }
                gathered
                    .extend_from_slice(&piece.split_to((whole - gathered.len()).min(piece.len())));
                if gathered.len() < whole {
                    continue;
                }
                let data = gathered.split().freeze();
                if run.missing.contains(&index) && !run.take(index, &data).await {
                    // The same validator, other bytes.
                    return Err(self.outdated(run.object).await);
                }
                index += 1;
                if run.missing.is_empty() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The origin has another version by now: what is here in part is of no use to anybody.
    async fn outdated(&self, object: &StoredObject) -> BodyError {
        if !self.failed.swap(true, Ordering::Relaxed) {
            let key = object.manifest().head().key;
            let same = self.inner.store.locate(&key) == Some(object.object_id());
            if same && let Err(error) = self.inner.store.remove(&key).await {
                tracing::warn!(%error, "an outdated object could not be removed");
            }
        }
        BodyError("the rest of the object is gone: the origin has another version now".to_owned())
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let came = self.came.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((key, object)) = came {
            let inner = Arc::clone(&self.inner);
            self.inner.tasks.spawn("tell-part", async move { inner.announce(key, object).await });
        }
    }
}

impl Run<'_> {
    /// Takes a chunk that is wanted and right; false for any other.
    async fn take(&mut self, index: u32, data: &Bytes) -> bool {
        let Some(at) = self.missing.iter().position(|chunk| *chunk == index) else { return false };
        if self.object.manifest().hash(index) != Some(ChunkHash::of(data)) {
            return false;
        }
        self.missing.swap_remove(at);
        if index == self.first {
            self.data = Some(data.clone());
        }
        if let Err(error) = self.object.put_chunk(index, data.clone()).await {
            tracing::debug!(%error, index, "a chunk is used and not kept");
        }
        true
    }
}

impl Inner {
    /// Asks the origin for what the request asks for.
    pub(super) async fn ask(
        &self,
        request: &FetchRequest,
        extra: http::HeaderMap,
    ) -> Result<OriginResponse, FetchError> {
        let mut headers = request.headers.clone();
        headers.extend(extra);
        let asked = OriginRequest {
            method: Method::GET,
            target: request.target.clone(),
            client_authority: request.client_authority.clone(),
            headers,
            body: None,
            interims: request.interims.clone(),
        };
        Ok(self.origin.send(&request.site, asked).await?)
    }

    /// Tells the tier what this node holds of the object.
    pub(super) async fn announce(&self, key: ObjectKey, object: ObjectId) {
        let held = match self.store.holding(&key) {
            Some((here, None)) if here == object => Held::All,
            Some((here, Some(bits))) if here == object => Held::Some(bits),
            _ => Held::Nothing,
        };
        self.directory.announce(Change { key, object, held }).await;
    }
}
