//! Peers over real sockets: honest ones, lying ones, ones that vanish.

mod refused;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use shoal_proto::limits::CHUNK_BYTES_MIN;
use shoal_proto::wire::v1::peer_server::{Peer, PeerServer};
use shoal_proto::wire::v1::{self, follow_failed::Reason};
use shoal_proto::{
    ChunkHash, Freshness, Labels, LeaseId, Manifest, NodeId, ObjectHead, ObjectId, ObjectKey,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::{CopyWishes, End, Fills, Followed, Live, PeerService, Peers, PullError, Sealer, pull};
use crate::membership::{Member, Role};
use crate::metrics::{Metrics, StoreMetrics, TransferMetrics};
use crate::rpc::{self, Channels};
use crate::store::{Store, StoreConfig};
use crate::tasks::Tasks;
use crate::tls::Security;

const KEY: ObjectKey = ObjectKey::new([5; 32]);
const LENGTH: usize = 20 * CHUNK_BYTES_MIN as usize + 1234;

fn body(length: usize) -> Bytes {
    let mut body = vec![0; length];
    blake3::Hasher::new().update(b"body").finalize_xof().fill(&mut body);
    body.into()
}

fn head(length: Option<usize>) -> ObjectHead {
    ObjectHead {
        key: KEY,
        site: "docs".into(),
        status: 200,
        headers: Vec::new(),
        length: length.map(|length| length as u64),
        chunk_size: CHUNK_BYTES_MIN,
        freshness: Freshness::default(),
        fence_position: 0,
        labels: Labels::default(),
    }
}

struct Node {
    store: Arc<Store>,
    fills: Arc<Fills>,
    peers: Peers,
    metrics: TransferMetrics,
    me: Member,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

fn member(id: u64, address: SocketAddr) -> Member {
    Member {
        id: NodeId(id),
        name: format!("node-{id}"),
        role: Role::Node,
        cluster_address: address.to_string(),
        edge_address: String::new(),
        admin_address: String::new(),
        zone: String::new(),
        version: String::new(),
        up: true,
        voter: false,
        auto: false,
    }
}

async fn listen<S: Peer>(service: PeerServer<S>, id: u64, tasks: &Tasks) -> Member {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let me = member(id, listener.local_addr().unwrap());
    let router = rpc::server(&Security::Insecure).unwrap().add_service(service);
    let stop = tasks.token();
    tasks.spawn("peer", async move {
        rpc::serve(router, listener, stop, Duration::from_millis(100)).await.unwrap();
    });
    me
}

async fn node(id: u64) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let m = Metrics::new().unwrap();
    let metrics = TransferMetrics::new(&m).unwrap();
    let config = StoreConfig {
        dir: dir.path().to_owned(),
        budget_bytes: 64 << 20,
        memory_bytes: 4 << 20,
        objects_max: 1 << 20,
    };
    let store = Store::open(config, StoreMetrics::new(&m).unwrap()).await.unwrap();
    let fills = Arc::new(Fills::default());
    let sealer = Sealer::new(&[7; 32]);
    let wishes = CopyWishes { queue: mpsc::channel(1).0, sealer: sealer.clone() };
    let service =
        PeerService::new(NodeId(id), store.clone(), fills.clone(), wishes, metrics.clone());
    let tasks = Tasks::new();
    let me = listen(service.into_server(), id, &tasks).await;
    let peers = Peers::new(Channels::new(Security::Insecure), sealer, metrics.clone());
    Node { store, fills, peers, metrics, me, tasks, _dir: dir }
}

impl Node {
    async fn begin(&self, length: Option<usize>, lease: Option<LeaseId>) -> Arc<Live> {
        Live::new(self.store.begin(head(length)).await.unwrap(), lease)
    }

    async fn hold(&self, body: &Bytes) -> Manifest {
        let live = self.begin(Some(body.len()), None).await;
        put(&live, body, 0..usize::MAX).await;
        let stored = live.finish(body.len() as u64).await.unwrap();
        stored.manifest().as_ref().clone()
    }

    async fn holds(&self, body: &Bytes) {
        let stored = self.store.get(&KEY).await.unwrap();
        let mut read = Vec::new();
        for index in 0..stored.manifest().chunk_count() {
            read.extend_from_slice(&stored.read_chunk(index).await.unwrap().0);
        }
        assert!(read == *body, "the stored body differs");
    }
}

async fn put(live: &Live, body: &Bytes, chunks: std::ops::Range<usize>) {
    let size = CHUNK_BYTES_MIN as usize;
    for (index, chunk) in body.chunks(size).enumerate().filter(|(i, _)| chunks.contains(i)) {
        let data = body.slice_ref(chunk);
        live.put_chunk(index as u32, data, ChunkHash::of(chunk)).await.unwrap();
    }
}

/// A peer that sends what it should, but for one flipped bit in every chunk.
struct Liar(Bytes);

type Pieces = futures::stream::BoxStream<'static, Result<v1::ChunkPiece, Status>>;
type Events = futures::stream::BoxStream<'static, Result<v1::FollowEvent, Status>>;

#[tonic::async_trait]
impl Peer for Liar {
    type GetChunksStream = Pieces;
    type FollowStream = Events;

    async fn ping(&self, _: Request<v1::PingRequest>) -> Result<Response<v1::PingReply>, Status> {
        Err(Status::unimplemented("ping"))
    }

    async fn get_manifest(
        &self,
        _: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::GetManifestReply>, Status> {
        let other = ObjectHead { key: ObjectKey::new([6; 32]), ..head(Some(0)) };
        let manifest = Manifest::new(other, 0, Vec::new()).unwrap();
        let manifest = Some(v1::Manifest::from(&manifest));
        Ok(Response::new(v1::GetManifestReply { manifest, has_body: true, body: Bytes::new() }))
    }

    async fn get_chunks(
        &self,
        request: Request<v1::GetChunksRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let range = request.into_inner().ranges[0];
        let size = CHUNK_BYTES_MIN as usize;
        let chunks: Vec<_> = self.0.chunks(size).map(<[u8]>::to_vec).collect();
        let pieces = (range.first..range.first + range.count).map(move |index| {
            let mut data = chunks[index as usize].clone();
            data[7] ^= 1;
            Ok(v1::ChunkPiece { index, data: data.into() })
        });
        Ok(Response::new(futures::stream::iter(pieces.collect::<Vec<_>>()).boxed()))
    }

    async fn follow(&self, _: Request<v1::FollowRequest>) -> Result<Response<Events>, Status> {
        let lie = v1::FollowChunk {
            index: 0,
            hash: ChunkHash::of(b"truth").to_wire(),
            data: Bytes::from_static(b"lie"),
        };
        let event = v1::FollowEvent { event: Some(v1::follow_event::Event::Chunk(lie)) };
        Ok(Response::new(futures::stream::iter([Ok(event)]).boxed()))
    }

    async fn take_copy(
        &self,
        _: Request<v1::TakeCopyRequest>,
    ) -> Result<Response<v1::TakeCopyReply>, Status> {
        Ok(Response::new(v1::TakeCopyReply { taken: false }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_is_dropped_and_its_chunks_come_from_an_honest_one() {
    let (honest, taker) = (node(1).await, node(2).await);
    let body = body(LENGTH);
    let manifest = Arc::new(honest.hold(&body).await);
    let liar = listen(PeerServer::new(Liar(body.clone())), 3, &honest.tasks).await;
    let live = taker.begin(Some(LENGTH), None).await;
    let holders = [liar, honest.me.clone()];
    pull(&taker.peers, &manifest, &holders, &live).await.unwrap();
    let stored = live.finish(LENGTH as u64).await.unwrap();
    assert_eq!(stored.object_id(), manifest.object_id());
    taker.holds(&body).await;
    assert_eq!(taker.metrics.bad_chunks.get(), 1, "one bad chunk is enough to drop a peer");
    assert_eq!(taker.metrics.bytes_in.get(), LENGTH as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_honest_peer_the_pull_says_so_and_stores_nothing() {
    let taker = node(1).await;
    let holder = node(2).await;
    let body = body(LENGTH);
    let manifest = Arc::new(holder.hold(&body).await);
    let liar = listen(PeerServer::new(Liar(body)), 3, &holder.tasks).await;
    let live = taker.begin(Some(LENGTH), None).await;
    let failed = pull(&taker.peers, &manifest, &[liar], &live).await;
    assert!(matches!(failed, Err(PullError::NoHolder { .. })), "{failed:?}");
    assert_eq!(live.chunks_in_order(), 0);
    drop(live);
    assert!(taker.store.get(&KEY).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_another_object_is_refused() {
    let node = node(1).await;
    let liar = listen(PeerServer::new(Liar(Bytes::new())), 3, &node.tasks).await;
    let wanted = ObjectId::new([9; 32]);
    let refused = node.peers.manifest(&liar, KEY, wanted).await.unwrap_err();
    assert_eq!(refused.kind, shoal_proto::ErrorKind::Corrupt, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_object_comes_with_its_manifest() {
    let (holder, taker) = (node(1).await, node(2).await);
    let body = body(900);
    let manifest = holder.hold(&body).await;
    let got = taker.peers.manifest(&holder.me, KEY, manifest.object_id()).await.unwrap();
    assert_eq!(got, (manifest, Some(body)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_a_running_fill_from_where_it_stands() {
    let (filler, taker) = (node(1).await, node(2).await);
    let body = body(LENGTH);
    let entry = filler.fills.expect(KEY);
    let lease = LeaseId(77);
    entry.begin(Some(lease));
    let follower = taker.peers.follow(&filler.me, KEY, lease, 3).await;
    let live = filler.begin(Some(LENGTH), Some(lease)).await;
    entry.live(live.clone());
    put(&live, &body, 0..10).await;
    let mut events = std::pin::pin!(follower.unwrap());
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, Followed::Head(got) if *got == head(Some(LENGTH))));
    put(&live, &body, 10..usize::MAX).await;
    live.finish(LENGTH as u64).await.unwrap();
    let mut got = 0;
    let manifest = loop {
        match events.next().await.unwrap().unwrap() {
            Followed::Chunk { index, data, .. } => {
                assert_eq!(index, got);
                assert_eq!(data.is_empty(), index < 3, "chunk {index}");
                got += 1;
            }
            Followed::Done(manifest) => break manifest,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(manifest.chunk_count(), got);
    assert!(matches!(live.end(), Some(End::Done(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_followed_is_said_with_its_reason() {
    let (filler, taker) = (node(1).await, node(2).await);
    let reason = async |lease: u64| {
        let events = taker.peers.follow(&filler.me, KEY, LeaseId(lease), 0).await.unwrap();
        let mut events = std::pin::pin!(events);
        match events.next().await.unwrap().unwrap() {
            Followed::Failed(reason, _) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason(1).await, Reason::Gone);
    let entry = filler.fills.expect(KEY);
    entry.ended(Reason::NotStorable, "private");
    assert_eq!(reason(1).await, Reason::NotStorable);
    let live = filler.begin(None, Some(LeaseId(2))).await;
    entry.live(live);
    assert_eq!(reason(1).await, Reason::Gone, "another lease's fill is not followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_breaks_off_tells_its_followers() {
    let (filler, taker) = (node(1).await, node(2).await);
    let entry = filler.fills.expect(KEY);
    entry.begin(Some(LeaseId(5)));
    let live = filler.begin(None, Some(LeaseId(5))).await;
    entry.live(live.clone());
    put(&live, &body(LENGTH), 0..2).await;
    let events = taker.peers.follow(&filler.me, KEY, LeaseId(5), 0).await.unwrap();
    live.fail("the origin closed early");
    let seen: Vec<_> = events.collect().await;
    assert_eq!(seen.len(), 4, "head, two chunks, failure");
    assert!(matches!(&seen[3], Ok(Followed::Failed(Reason::Origin, why)) if why.contains("early")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_belies_its_own_hash_is_refused() {
    let node = node(1).await;
    let liar = listen(PeerServer::new(Liar(Bytes::new())), 3, &node.tasks).await;
    let events = node.peers.follow(&liar, KEY, LeaseId(1), 0).await.unwrap();
    let seen: Vec<_> = events.collect().await;
    assert!(matches!(&seen[0], Err(error) if error.kind == shoal_proto::ErrorKind::Corrupt));
    assert_eq!(node.metrics.bad_chunks.get(), 1);
}
