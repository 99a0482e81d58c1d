//! What other nodes may ask of this one: manifests, chunks, its running fills, copies. Callers are
//! members (the cluster listener's mutual TLS says so) and name objects by hashes alone.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use shoal_proto::limits::{CHUNK_RANGES_MAX, CHUNKS_MAX, INLINE_BODY_BYTES_MAX};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::peer_server::{Peer, PeerServer};
use shoal_proto::wire::{WireError, id_from};
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, RpcError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::availability;
use super::follow::{self, Find};
use super::lane::LaneService;
use super::members::Swarms;
use super::registry::Fills;
use super::sealed::{Sealer, Source as CopySource};
use super::slots::{Discipline, Leaving, Slots};
use super::source::Source;
use super::survey;
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

/// Another node's wish that this one get an object, and where to say what came of it: the bytes that
/// it took, or why there is no object.
#[derive(Debug)]
pub struct PrefetchWish {
    /// What to ask for.
    pub source: CopySource,
    /// Told once.
    pub done: oneshot::Sender<Result<u64, String>>,
}

/// Where wishes for copies go, as many as its bound holds, and who can read them.
#[derive(Clone, Debug)]
pub struct CopyWishes {
    /// The queue.
    pub queue: mpsc::Sender<CopyRequest>,
    /// The queue of prefetches.
    pub prefetches: mpsc::Sender<PrefetchWish>,
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
    slots: Arc<Slots>,
    swarms: Arc<Swarms>,
    metrics: TransferMetrics,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<v1::ChunkPiece, Status>> + Send>>;
type Availability = Pin<Box<dyn Stream<Item = Result<v1::AvailabilityEvent, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Result<v1::FollowEvent, Status>> + Send>>;

/// Counts a stream while it lives.
pub(super) struct Upload {
    _permit: OwnedSemaphorePermit,
    metrics: TransferMetrics,
}

impl Upload {
    /// A chunk leaves.
    pub(super) fn sent(&self, data: &Bytes) {
        self.metrics.bytes_out.inc_by(data.len() as u64);
    }
}

/// A request for chunks that is in order: what they are read from, and which.
pub(super) struct Opened {
    pub(super) source: Source,
    pub(super) chunks: Vec<u32>,
    pub(super) upload: Upload,
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
        let (slots, swarms) = (Arc::default(), Arc::default());
        Self { me, store, fills, copies, uploads, slots, swarms, metrics }
    }

    /// The service, with the message limits, and what serves chunks on lanes beside it.
    pub fn into_servers(self) -> (Discipline<PeerServer<Self>>, LaneService) {
        Self::servers(Arc::new(self))
    }

    pub(super) fn servers(service: Arc<Self>) -> (Discipline<PeerServer<Self>>, LaneService) {
        let server = PeerServer::from_arc(service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        (Discipline(server), LaneService::new(service))
    }

    /// What a request for chunks comes to, on whatever it came by.
    pub(super) async fn open(&self, request: &v1::GetChunksRequest) -> Result<Opened, Status> {
        let source = self.source((&request.key, &request.object_id, request.growth)).await?;
        let chunks = wanted_chunks(&request.ranges, source.chunk_count())?;
        Ok(Opened { source, chunks, upload: self.upload()? })
    }

    /// What is here of an object, and whom it came from.
    pub(super) fn surveyed(&self, key: &ObjectKey) -> v1::SurveyReply {
        survey::answer(&self.store, self.fills.growing(key), &self.fills.remembered, key)
    }

    /// Which chunks leave next.
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// What is asked for, stored or growing.
    async fn source(&self, wanted: (&[u8], &[u8], u64)) -> Result<Source, Status> {
        let (key, object, growth) = wanted;
        let key: ObjectKey = id_from("key", key)?;
        let growing = self.fills.growing(&key).filter(|live| live.end().is_none());
        if growth != 0 {
            if let Some(live) = growing.filter(|live| live.growth() == growth) {
                return Ok(Source::Growing(live));
            }
            let missing = || RpcError::new(ErrorKind::NotFound, "no such object grows here");
            let object = self.fills.grown_object(&key, growth).ok_or_else(missing)?;
            return Ok(Source::Stored(self.stored(key, object).await?));
        }
        let object: ObjectId = id_from("object_id", object)?;
        match growing.filter(|live| live.object() == Some(object)) {
            Some(live) => Ok(Source::Growing(live)),
            None => Ok(Source::Stored(self.stored(key, object).await?)),
        }
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
    type AvailabilityStream = Availability;
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
        let Opened { source, chunks, upload } = self.open(&request.into_inner()).await?;
        let upload = Arc::new(upload);
        let (slots, leaving) = (self.slots.clone(), Leaving::default());
        let slots_of = leaving.clone();
        let pieces = stream::iter(chunks).filter_map(move |index| {
            let (source, upload, slots) = (source.clone(), upload.clone(), slots.clone());
            let leaving = leaving.clone();
            async move {
                let slot = slots.take().await;
                let data = source.read(index).await.transpose()?;
                leaving.push(slot);
                Some(
                    data.inspect(|data| upload.sent(data))
                        .map(|data| v1::ChunkPiece { index, data }),
                )
            }
        });
        let pieces: Chunks = Box::pin(pieces);
        let mut answer = Response::new(pieces);
        answer.extensions_mut().insert(slots_of);
        Ok(answer)
    }

    async fn availability(
        &self,
        request: Request<v1::AvailabilityRequest>,
    ) -> Result<Response<Availability>, Status> {
        let request = request.into_inner();
        let source = self.source((&request.key, &request.object_id, request.growth)).await?;
        Ok(Response::new(availability::stream(source)))
    }

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let key: ObjectKey = id_from("key", &request.key)?;
        let membership = self.swarms.join(key, NodeId(request.node_id));
        let find = if request.object_id.is_empty() {
            Find::Fill(key, LeaseId(request.lease_id))
        } else {
            self.stored(key, id_from("object_id", &request.object_id)?).await?;
            Find::Held
        };
        let parts = (self.store.clone(), self.fills.clone(), self.metrics.clone());
        // The answer starts at once; its first message comes when the origin has sent a head.
        Ok(Response::new(follow::stream(find, membership, parts)))
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
        let held = self
            .store
            .get(&key)
            .await
            .is_some_and(|s| Some(s.object_id()) == object && s.is_whole());
        let lease = Some(LeaseId(request.lease_id)).filter(|lease| lease.0 != 0);
        let holder = NodeId(request.holder_node_id);
        let source = self.copies.sealer.open(&key, &request.sealed_source)?;
        let copy = CopyRequest { key, object, holder, lease, source };
        let taken = !held && self.copies.queue.try_send(copy).is_ok();
        Ok(Response::new(v1::TakeCopyReply { taken }))
    }

    async fn prefetch(
        &self,
        request: Request<v1::PrefetchRequest>,
    ) -> Result<Response<v1::PrefetchReply>, Status> {
        let request = request.into_inner();
        let key: ObjectKey = id_from("key", &request.key)?;
        let source = self.copies.sealer.open(&key, &request.sealed_source)?;
        let (done, outcome) = oneshot::channel();
        let full = |_| RpcError::new(ErrorKind::Retry, "too many prefetches are under way here");
        self.copies.prefetches.try_send(PrefetchWish { source, done }).map_err(full)?;
        let ended = |_| RpcError::new(ErrorKind::Closed, "the node is shutting down");
        let (bytes, failure) = match outcome.await.map_err(ended)? {
            Ok(bytes) => (bytes, String::new()),
            Err(failure) => (0, failure),
        };
        Ok(Response::new(v1::PrefetchReply { bytes, failure }))
    }

    async fn survey(
        &self,
        request: Request<v1::SurveyRequest>,
    ) -> Result<Response<v1::SurveyReply>, Status> {
        let key: ObjectKey = id_from("key", &request.into_inner().key)?;
        Ok(Response::new(self.surveyed(&key)))
    }
}

fn wanted_chunks(ranges: &[v1::ChunkRange], count: Option<u32>) -> Result<Vec<u32>, WireError> {
    let count = count.unwrap_or(CHUNKS_MAX);
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

pub(super) fn store_error(error: crate::store::StoreError) -> Status {
    let kind = match error {
        crate::store::StoreError::Corrupt { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Retry,
    };
    RpcError::new(kind, error.to_string()).into()
}
