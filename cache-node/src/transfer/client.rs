//! Asking other nodes: manifests, chunks, running fills, copies. Every chunk is verified here,
//! before anybody else sees a byte of it.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use prometheus::IntCounter;
use shoal_proto::limits::{INLINE_BODY_BYTES_MAX, RPC_DEADLINE_MS, STREAM_IDLE_MS};
use shoal_proto::wire::v1::peer_client::PeerClient;
use shoal_proto::wire::v1::{self, follow_event::Event};
use shoal_proto::{
    ChunkHash, ErrorKind, LeaseId, Manifest, NodeId, ObjectHead, ObjectId, ObjectKey, RpcError,
};
use tonic::transport::Channel;

use super::lane::Lanes;
use super::sealed::{Sealer, Source};
use super::server::CopyRequest;
use crate::membership::Member;
use crate::metrics::TransferMetrics;
use crate::rpc::{Channels, MESSAGE_BYTES_MAX, with_deadline};

/// Deadline of a request for a manifest, which may be megabytes long.
const MANIFEST_DEADLINE_MS: u64 = 10_000;

/// Asks peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    channels: Channels,
    lanes: Option<Lanes>,
    sealer: Sealer,
    metrics: TransferMetrics,
}

/// What chunks are wanted of.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The key.
    pub key: ObjectKey,
    /// The object, where its id is known; else
    pub object: Option<ObjectId>,
    /// the growth's name.
    pub growth: u64,
}

/// What a followed fill sends.
#[derive(Clone, Debug)]
pub enum Followed {
    /// The head, first.
    Head(Box<ObjectHead>),
    /// A chunk, verified against the hash that came with it; empty data for one not asked for.
    Chunk {
        /// Its index.
        index: u32,
        /// Its hash.
        hash: ChunkHash,
        /// Its bytes.
        data: Bytes,
    },
    /// Who follows too, and the growing object's name.
    Members {
        /// All others.
        nodes: Vec<NodeId>,
        /// The growth.
        growth: u64,
    },
    /// The end: the whole manifest.
    Done(Box<Manifest>),
    /// The fill came to nothing.
    Failed(v1::follow_failed::Reason, String),
}

impl Peers {
    /// Asks over these channels.
    pub fn new(channels: Channels, sealer: Sealer, metrics: TransferMetrics) -> Self {
        Self { channels, lanes: None, sealer, metrics }
    }

    /// Takes chunks over lanes where the other side has them too.
    pub fn with_lanes(self, lanes: Option<Lanes>) -> Self {
        Self { lanes, ..self }
    }

    /// The metrics of what is asked here.
    pub fn metrics(&self) -> &TransferMetrics {
        &self.metrics
    }

    fn client(&self, peer: &Member) -> Result<PeerClient<Channel>, RpcError> {
        let channel = self.channels.to(&peer.cluster_address, &peer.name)?;
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// An object's manifest, with its body when that is small: both verified.
    ///
    /// # Errors
    /// When the peer does not answer, has another object, or lies.
    pub async fn manifest(
        &self,
        peer: &Member,
        key: ObjectKey,
        object: ObjectId,
    ) -> Result<(Manifest, Option<Bytes>), RpcError> {
        let request = v1::GetManifestRequest {
            key: key.to_wire(),
            object_id: object.to_wire(),
            inline_body_max: INLINE_BODY_BYTES_MAX,
        };
        let deadline = Duration::from_millis(MANIFEST_DEADLINE_MS);
        let mut client = self.client(peer)?;
        let reply = with_deadline(deadline, client.get_manifest(request)).await?;
        let wire = reply.manifest.ok_or_else(|| corrupt(peer, "sent no manifest"))?;
        let manifest = Manifest::try_from(wire)?;
        if manifest.object_id() != object || manifest.head().key != key {
            return Err(corrupt(peer, "sent the manifest of another object"));
        }
        if !reply.has_body {
            return Ok((manifest, None));
        }
        let whole = reply.body.len() as u64 == manifest.length() && manifest.chunk_count() <= 1;
        let matches = manifest.hash(0).is_none_or(|hash| hash == ChunkHash::of(&reply.body));
        if !whole || !matches {
            self.metrics.bad_chunks.inc();
            return Err(corrupt(peer, "sent a body that does not match its manifest"));
        }
        self.metrics.bytes_in.inc_by(manifest.length());
        Ok((manifest, Some(reply.body)))
    }

    /// Chunks as `(index, bytes)`, not yet verified: the caller has the hashes.
    ///
    /// # Errors
    /// When the peer does not answer; later failures come on the stream.
    pub async fn chunks(
        &self,
        peer: &Member,
        wanted: Wanted,
        chunks: &[u32],
    ) -> Result<BoxStream<'static, Result<(u32, Bytes), RpcError>>, RpcError> {
        let range = |chunk: &u32| v1::ChunkRange { first: *chunk, count: 1 };
        let request = v1::GetChunksRequest {
            key: wanted.key.to_wire(),
            object_id: wanted.object.map(ObjectId::to_wire).unwrap_or_default(),
            ranges: chunks.iter().map(range).collect(),
            growth: wanted.growth,
        };
        if let Some(lanes) = &self.lanes
            && let Some(pieces) = lanes.ask(peer, &request, chunks).await?
        {
            let came = self.metrics.chunks_by_lane.clone();
            return Ok(pieces.inspect(move |piece| count(piece, &came)).boxed());
        }
        let mut client = self.client(peer)?;
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        let pieces = with_deadline(deadline, client.get_chunks(request)).await?;
        let came = self.metrics.chunks_by_grpc.clone();
        let pieces = watched(pieces).map(|piece| piece.map(|piece| (piece.index, piece.data)));
        Ok(pieces.inspect(move |piece| count(piece, &came)).boxed())
    }

    /// Which chunks a peer has, as they come. Silence is no failure here: nothing may be coming.
    ///
    /// # Errors
    /// When the peer does not answer; later failures come on the stream.
    pub async fn availability(
        &self,
        peer: &Member,
        wanted: Wanted,
    ) -> Result<tonic::Streaming<v1::AvailabilityEvent>, RpcError> {
        let request = v1::AvailabilityRequest {
            key: wanted.key.to_wire(),
            object_id: wanted.object.map(ObjectId::to_wire).unwrap_or_default(),
            growth: wanted.growth,
        };
        let mut client = self.client(peer)?;
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        with_deadline(deadline, client.availability(request)).await
    }

    /// A running fill, its chunks' hashes, and who else follows.
    ///
    /// # Errors
    /// When the peer does not answer; later failures come on the stream.
    pub async fn follow(
        &self,
        peer: &Member,
        key: ObjectKey,
        lease: LeaseId,
        me: NodeId,
    ) -> Result<impl Stream<Item = Result<Followed, RpcError>> + Send + use<>, RpcError> {
        let request = v1::FollowRequest {
            key: key.to_wire(),
            lease_id: lease.0,
            object_id: Bytes::new(),
            node_id: me.0,
        };
        self.follow_as(peer, request).await
    }

    /// Who else pulls an object that the peer holds.
    ///
    /// # Errors
    /// When the peer does not answer; later failures come on the stream.
    pub async fn members(
        &self,
        peer: &Member,
        (key, object): (ObjectKey, ObjectId),
        me: NodeId,
    ) -> Result<impl Stream<Item = Result<Followed, RpcError>> + Send + use<>, RpcError> {
        let request = v1::FollowRequest {
            key: key.to_wire(),
            lease_id: 0,
            object_id: object.to_wire(),
            node_id: me.0,
        };
        self.follow_as(peer, request).await
    }

    async fn follow_as(
        &self,
        peer: &Member,
        request: v1::FollowRequest,
    ) -> Result<impl Stream<Item = Result<Followed, RpcError>> + Send + use<>, RpcError> {
        let mut client = self.client(peer)?;
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        let events = with_deadline(deadline, client.follow(request)).await?;
        let name = peer.name.clone();
        let metrics = self.metrics.clone();
        let events = events.map(|event| event.map_err(RpcError::from));
        Ok(events.map(move |event| read_event(event?, &name, &metrics)))
    }

    /// Asks a peer to take a copy; true when it does.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub async fn take_copy(&self, peer: &Member, copy: CopyRequest) -> Result<bool, RpcError> {
        let CopyRequest { key, object, holder, lease, source } = copy;
        let request = v1::TakeCopyRequest {
            key: key.to_wire(),
            object_id: object.map(ObjectId::to_wire).unwrap_or_default(),
            holder_node_id: holder.0,
            lease_id: lease.map_or(0, |lease| lease.0),
            sealed_source: self.sealer.seal(&key, source)?,
        };
        let mut client = self.client(peer)?;
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        Ok(with_deadline(deadline, client.take_copy(request)).await?.taken)
    }

    /// What the peer has of an object, and whom that came from.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn survey(&self, peer: &Member, key: ObjectKey) -> Result<v1::SurveyReply, RpcError> {
        let request = v1::SurveyRequest { key: key.to_wire() };
        let mut client = self.client(peer)?;
        with_deadline(Duration::from_millis(RPC_DEADLINE_MS), client.survey(request)).await
    }

    /// Has the peer get an object, and waits until it has it: the bytes that came, or why not.
    ///
    /// # Errors
    /// When it cannot be asked, or does not answer in time.
    pub async fn prefetch(
        &self,
        peer: &Member,
        (key, source): (ObjectKey, Source),
        deadline: Duration,
    ) -> Result<Result<u64, String>, RpcError> {
        let sealed_source = self.sealer.seal(&key, source)?;
        let request = v1::PrefetchRequest { key: key.to_wire(), sealed_source };
        let mut client = self.client(peer)?;
        let v1::PrefetchReply { bytes, failure } =
            with_deadline(deadline, client.prefetch(request)).await?;
        Ok(if failure.is_empty() { Ok(bytes) } else { Err(failure) })
    }
}

fn count<T>(piece: &Result<T, RpcError>, came: &IntCounter) {
    if piece.is_ok() {
        came.inc();
    }
}

/// The stream's messages; one that stays silent too long ends in an error.
fn watched<T: Send + 'static>(
    messages: tonic::Streaming<T>,
) -> impl Stream<Item = Result<T, RpcError>> + Send {
    stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        let idle = Duration::from_millis(STREAM_IDLE_MS);
        match tokio::time::timeout(idle, messages.message()).await {
            Ok(Ok(Some(message))) => Some((Ok(message), Some(messages))),
            Ok(Ok(None)) => None,
            Ok(Err(status)) => Some((Err(status.into()), None)),
            Err(_) => {
                let error = RpcError::new(ErrorKind::Retry, "the peer's stream went silent");
                Some((Err(error), None))
            }
        }
    })
}

fn read_event(
    event: v1::FollowEvent,
    peer: &str,
    metrics: &TransferMetrics,
) -> Result<Followed, RpcError> {
    match event.event {
        Some(Event::Head(head)) => Ok(Followed::Head(Box::new(ObjectHead::try_from(head)?))),
        Some(Event::Chunk(chunk)) => {
            let hash: ChunkHash = shoal_proto::wire::id_from("hash", &chunk.hash)?;
            if !chunk.data.is_empty() && ChunkHash::of(&chunk.data) != hash {
                metrics.bad_chunks.inc();
                let message = format!("{peer} sent a chunk that does not match its hash");
                return Err(RpcError::new(ErrorKind::Corrupt, message));
            }
            metrics.bytes_in.inc_by(chunk.data.len() as u64);
            Ok(Followed::Chunk { index: chunk.index, hash, data: chunk.data })
        }
        Some(Event::Members(members)) => Ok(Followed::Members {
            nodes: members.node_ids.into_iter().map(NodeId).collect(),
            growth: members.growth,
        }),
        Some(Event::Done(done)) => {
            let missing = || RpcError::new(ErrorKind::Bug, "a fill's end without a manifest");
            let manifest = done.manifest.ok_or_else(missing)?;
            Ok(Followed::Done(Box::new(Manifest::try_from(manifest)?)))
        }
        Some(Event::Failed(failed)) => Ok(Followed::Failed(failed.reason(), failed.message)),
        None => Err(RpcError::new(ErrorKind::Bug, "an empty message from a fill")),
    }
}

fn corrupt(peer: &Member, what: &str) -> RpcError {
    RpcError::new(ErrorKind::Corrupt, format!("{} {what}", peer.name))
}
