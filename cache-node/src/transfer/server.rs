//! What other nodes may ask of this one: manifests, chunks, its running fills, copies. Callers are
//! members (the cluster listener's mutual TLS says so) and name objects by hashes alone.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use shoal_proto::limits::{CHUNK_RANGES_MAX, INLINE_BODY_BYTES_MAX, STREAM_IDLE_MS};
use shoal_proto::wire::v1::peer_server::{Peer, PeerServer};
use shoal_proto::wire::v1::{self, follow_event::Event, follow_failed::Reason};
use shoal_proto::wire::{WireError, id_from};
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, RpcError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status};

use super::live::{End, Live, Progress};
use super::registry::Fills;
use super::sealed::{Sealer, Source as CopySource};
use crate::metrics::TransferMetrics;
use crate::rpc::MESSAGE_BYTES_MAX;
use crate::store::{Store, StoredObject};

/// Streams to peers at a time; more are told to try another holder.
const UPLOADS_MAX: usize = 256;

/// Another node's wish that this one take a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRequest {
    /// The key.
    pub key: ObjectKey,
    /// The object; `None` while its fill is running.
    pub object: Option<ObjectId>,
    /// Who has it.
    pub holder: NodeId,
    /// The running fill's lease.
    pub lease: Option<LeaseId>,
    /// What to ask the origin for, should the filler be lost.
    pub source: CopySource,
}

/// Where wishes for copies go, as many as its bound holds, and who can read them.
#[derive(Clone, Debug)]
pub struct CopyWishes {
    /// The queue.
    pub queue: mpsc::Sender<CopyRequest>,
    /// Opens what they say of the origin.
    pub sealer: Sealer,
}

/// The peer service over this node's store and fills.
pub struct PeerService {
    me: NodeId,
    store: Arc<Store>,
    fills: Arc<Fills>,
    copies: CopyWishes,
    uploads: Arc<Semaphore>,
    metrics: TransferMetrics,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<v1::ChunkPiece, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Result<v1::FollowEvent, Status>> + Send>>;

/// Counts a stream while it lives.
struct Upload {
    _permit: OwnedSemaphorePermit,
    metrics: TransferMetrics,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.metrics.uploads.dec();
    }
}

impl PeerService {
    /// A service; wishes for copies go to `copies`.
    pub fn new(
        me: NodeId,
        store: Arc<Store>,
        fills: Arc<Fills>,
        copies: CopyWishes,
        metrics: TransferMetrics,
    ) -> Self {
        let uploads = Arc::new(Semaphore::new(UPLOADS_MAX));
        Self { me, store, fills, copies, uploads, metrics }
    }

    /// The service, with the message limits.
    pub fn into_server(self) -> PeerServer<Self> {
        PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn stored(
        &self,
        key: ObjectKey,
        object: ObjectId,
    ) -> Result<Arc<StoredObject>, RpcError> {
        let missing = || RpcError::new(ErrorKind::NotFound, "no such object here");
        let stored = self.store.get(&key).await.ok_or_else(missing)?;
        if stored.object_id() == object { Ok(stored) } else { Err(missing()) }
    }

    fn upload(&self) -> Result<Upload, RpcError> {
        let permit = self.uploads.clone().try_acquire_owned().map_err(|_| {
            RpcError::new(ErrorKind::Retry, format!("{UPLOADS_MAX} uploads are under way"))
        })?;
        self.metrics.uploads.inc();
        Ok(Upload { _permit: permit, metrics: self.metrics.clone() })
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type GetChunksStream = Chunks;
    type FollowStream = Events;

    async fn ping(
        &self,
        request: Request<v1::PingRequest>,
    ) -> Result<Response<v1::PingReply>, Status> {
        let request = request.into_inner();
        let holds_lease = ObjectKey::try_from(request.key.as_ref())
            .is_ok_and(|key| self.fills.holds(&key, LeaseId(request.lease_id)));
        Ok(Response::new(v1::PingReply { node_id: self.me.0, holds_lease }))
    }

    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::GetManifestReply>, Status> {
        let request = request.into_inner();
        let key = id_from("key", &request.key)?;
        let stored = self.stored(key, id_from("object_id", &request.object_id)?).await?;
        let manifest = stored.manifest();
        let inline_max = u64::from(request.inline_body_max.min(INLINE_BODY_BYTES_MAX));
        let has_body = manifest.length() <= inline_max;
        let body = if has_body && manifest.length() > 0 {
            stored.read_chunk(0).await.map_err(store_error)?.0
        } else {
            Bytes::new()
        };
        self.metrics.bytes_out.inc_by(body.len() as u64);
        let manifest = Some(manifest.as_ref().into());
        Ok(Response::new(v1::GetManifestReply { manifest, has_body, body }))
    }

    async fn get_chunks(
        &self,
        request: Request<v1::GetChunksRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        let key = id_from("key", &request.key)?;
        let stored = self.stored(key, id_from("object_id", &request.object_id)?).await?;
        let chunks = wanted_chunks(&request.ranges, stored.manifest().chunk_count())?;
        let upload = Arc::new(self.upload()?);
        let pieces = stream::iter(chunks).then(move |index| {
            let (stored, upload) = (stored.clone(), upload.clone());
            async move {
                let (data, _) = stored.read_chunk(index).await.map_err(store_error)?;
                upload.metrics.bytes_out.inc_by(data.len() as u64);
                Ok(v1::ChunkPiece { index, data })
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let key: ObjectKey = id_from("key", &request.key)?;
        let follower = Follower {
            source: Source::Unknown(key, LeaseId(request.lease_id)),
            next: Step::Head,
            first_chunk: request.first_chunk,
            store: self.store.clone(),
            fills: self.fills.clone(),
            upload: self.upload()?,
        };
        // The answer starts at once; its first message comes when the origin has sent a head.
        Ok(Response::new(Box::pin(stream::unfold(Some(follower), follow_step))))
    }

    async fn take_copy(
        &self,
        request: Request<v1::TakeCopyRequest>,
    ) -> Result<Response<v1::TakeCopyReply>, Status> {
        let request = request.into_inner();
        let key: ObjectKey = id_from("key", &request.key)?;
        let object = match request.object_id.is_empty() {
            true => None,
            false => Some(id_from("object_id", &request.object_id)?),
        };
        let held = self.store.get(&key).await.is_some_and(|s| Some(s.object_id()) == object);
        let lease = Some(LeaseId(request.lease_id)).filter(|lease| lease.0 != 0);
        let holder = NodeId(request.holder_node_id);
        let source = self.copies.sealer.open(&key, &request.sealed_source)?;
        let copy = CopyRequest { key, object, holder, lease, source };
        let taken = !held && self.copies.queue.try_send(copy).is_ok();
        Ok(Response::new(v1::TakeCopyReply { taken }))
    }
}

enum Source {
    Unknown(ObjectKey, LeaseId),
    Live(tokio::sync::watch::Receiver<Progress>, Arc<Live>),
    Stored(Arc<StoredObject>),
}

#[derive(Clone, Copy)]
enum Step {
    Head,
    Chunk(u32),
}

struct Follower {
    source: Source,
    next: Step,
    first_chunk: u32,
    store: Arc<Store>,
    fills: Arc<Fills>,
    upload: Upload,
}

async fn follow_step(
    follower: Option<Follower>,
) -> Option<(Result<v1::FollowEvent, Status>, Option<Follower>)> {
    let mut follower = follower?;
    let (event, last) = match follower.next_event().await {
        Ok(event) => {
            let last = matches!(event, Event::Done(_) | Event::Failed(_));
            (Ok(v1::FollowEvent { event: Some(event) }), last)
        }
        Err(status) => (Err(status), true),
    };
    Some((event, (!last).then_some(follower)))
}

impl Follower {
    async fn next_event(&mut self) -> Result<Event, Status> {
        match self.next {
            Step::Head => {
                self.next = Step::Chunk(0);
                if let Err((reason, message)) = self.find().await {
                    return Ok(fill_failed(reason, message));
                }
                Ok(Event::Head(match &self.source {
                    Source::Live(_, live) => live.head().as_ref().into(),
                    Source::Stored(stored) => stored.manifest().head().into(),
                    Source::Unknown(..) => return Err(Status::internal("a fill without a source")),
                }))
            }
            Step::Chunk(index) => {
                self.next = Step::Chunk(index.saturating_add(1));
                self.chunk(index).await
            }
        }
    }

    /// Waits for the fill's head. It may have ended between the lease's answer and this call.
    async fn find(&mut self) -> Result<(), (Reason, String)> {
        let Source::Unknown(key, lease) = self.source else { return Ok(()) };
        let idle = Duration::from_millis(STREAM_IDLE_MS);
        let silent = Err((Reason::Gone, "the fill has no head yet".to_owned()));
        let found = tokio::time::timeout(idle, self.fills.follow(&key, lease)).await;
        self.source = match found.unwrap_or(silent) {
            Ok(live) => {
                live.add_follower();
                Source::Live(live.watch(), live)
            }
            Err((Reason::Gone, message)) => match self.store.get(&key).await {
                Some(stored) => Source::Stored(stored),
                None => return Err((Reason::Gone, message)),
            },
            Err(other) => return Err(other),
        };
        Ok(())
    }

    async fn chunk(&mut self, index: u32) -> Result<Event, Status> {
        let wanted = index >= self.first_chunk;
        if let Source::Live(watched, live) = &mut self.source {
            loop {
                // The end is read first: what it finished is then seen by the check below it.
                let end = watched.borrow_and_update().end.clone();
                if let Some(hash) = live.hash(index) {
                    let data = match wanted {
                        true => live.read_chunk(index).await.map_err(store_error)?,
                        false => Bytes::new(),
                    };
                    self.upload.metrics.bytes_out.inc_by(data.len() as u64);
                    let hash = hash.to_wire();
                    return Ok(Event::Chunk(v1::FollowChunk { index, hash, data }));
                }
                match end {
                    Some(End::Done(stored)) => return Ok(done(&stored)),
                    Some(End::Failed(message)) => return Ok(fill_failed(Reason::Origin, message)),
                    None => {}
                }
                if watched.changed().await.is_err() {
                    return Ok(fill_failed(Reason::Gone, "the fill was abandoned".to_owned()));
                }
            }
        }
        let Source::Stored(stored) = &self.source else {
            return Err(Status::internal("a fill ended without an end"));
        };
        let Some(hash) = stored.manifest().hash(index) else { return Ok(done(stored)) };
        let data = match wanted {
            true => stored.read_chunk(index).await.map_err(store_error)?.0,
            false => Bytes::new(),
        };
        self.upload.metrics.bytes_out.inc_by(data.len() as u64);
        Ok(Event::Chunk(v1::FollowChunk { index, hash: hash.to_wire(), data }))
    }
}

fn done(stored: &StoredObject) -> Event {
    Event::Done(v1::FollowDone { manifest: Some(stored.manifest().as_ref().into()) })
}

fn fill_failed(reason: Reason, message: String) -> Event {
    Event::Failed(v1::FollowFailed { reason: reason.into(), message })
}

fn wanted_chunks(ranges: &[v1::ChunkRange], count: u32) -> Result<Vec<u32>, WireError> {
    if ranges.len() > CHUNK_RANGES_MAX {
        return Err(WireError::field("ranges", ranges.len(), "at most 256 ranges"));
    }
    let mut chunks = Vec::new();
    for range in ranges {
        let end = range.first.checked_add(range.count).filter(|end| *end <= count);
        let Some(end) = end else {
            let value = format!("{}+{}", range.first, range.count);
            return Err(WireError::field("ranges", value, format!("within {count} chunks")));
        };
        chunks.extend(range.first..end);
    }
    Ok(chunks)
}

fn store_error(error: crate::store::StoreError) -> Status {
    let kind = match error {
        crate::store::StoreError::Corrupt { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Retry,
    };
    RpcError::new(kind, error.to_string()).into()
}
