//! Peers over real sockets: honest ones, lying ones, ones that vanish.

mod bad_peers;
mod refused;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
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
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tower_service::Service;

use super::{CopyWishes, End, Fills, Followed, GatherError, Gatherer};
use super::{Live, PeerService, Peers, Sealer};
use crate::membership::{ClusterView, Member, Role};
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

async fn listen<S>(service: S, id: u64, tasks: &Tasks) -> Member
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let me = member(id, listener.local_addr().unwrap());
    let router = rpc::server(&Security::Insecure).unwrap().add_service(service);
    let stop = tasks.token();
    tasks.spawn("peer", async move {
        rpc::serve(router, listener, stop, Duration::from_millis(100)).await.unwrap();
    });
    me
}

async fn store(dir: &Path, metrics: &Metrics) -> Arc<Store> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        budget_bytes: 64 << 20,
        memory_bytes: 4 << 20,
        objects_max: 1 << 20,
    };
    Store::open(config, StoreMetrics::new(metrics).unwrap()).await.unwrap()
}

async fn node(id: u64) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let m = Metrics::new().unwrap();
    let metrics = TransferMetrics::new(&m).unwrap();
    let store = store(dir.path(), &m).await;
    let fills = Arc::new(Fills::default());
    let sealer = Sealer::new(&[7; 32]);
    let wishes = CopyWishes {
        queue: mpsc::channel(1).0,
        prefetches: mpsc::channel(1).0,
        sealer: sealer.clone(),
    };
    let service =
        PeerService::new(NodeId(id), store.clone(), fills.clone(), wishes, metrics.clone());
    let tasks = Tasks::new();
    let me = listen(service.into_server(), id, &tasks).await;
    let peers = Peers::new(Channels::new(Security::Insecure), sealer, metrics.clone());
    Node { store, fills, peers, metrics, me, tasks, _dir: dir }
}

impl Node {
    fn gatherer(&self, others: &[&Member]) -> Gatherer {
        let members = others.iter().map(|other| (*other).clone()).collect();
        let view = ClusterView { members, ..ClusterView::default() };
        Gatherer { peers: self.peers.clone(), me: self.me.id, view: watch::channel(view).1 }
    }

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

/// What is wrong with what a peer sends.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// One bit of every chunk is another.
    Flipped,
    /// Every chunk lacks its last byte.
    Cut,
    /// Half of the chunks asked for, then the end.
    Short,
    /// Nothing, and no end.
    Late,
    /// The last chunk asked for comes first.
    Reordered,
    /// The first chunk asked for, again and again.
    Endless,
    /// Chunks that nobody asked for.
    Unasked,
    /// It says that it has all, and has nothing.
    Gone,
}

/// A peer that lies about the chunks of a body.
struct Liar(Bytes, Lie);

impl Liar {
    fn pieces(&self, wanted: Vec<u32>) -> Pieces {
        let size = CHUNK_BYTES_MIN as usize;
        let body = self.0.clone();
        let piece = move |index: u32| {
            let start = (index as usize * size).min(body.len());
            (index, body.slice(start..(start + size).min(body.len())))
        };
        let changed = |pieces: Vec<(u32, Bytes)>, change: fn(&mut Vec<u8>)| {
            let pieces = pieces.into_iter().map(move |(index, data)| {
                let mut data = data.to_vec();
                change(&mut data);
                (index, Bytes::from(data))
            });
            futures::stream::iter(pieces.collect::<Vec<_>>()).boxed()
        };
        let half = wanted.len() / 2;
        let right: Vec<_> = wanted.iter().map(|index| piece(*index)).collect();
        let pieces = match self.1 {
            Lie::Flipped => changed(right, |data| data[7] ^= 1),
            Lie::Cut => changed(right, |data| data.truncate(data.len() - 1)),
            Lie::Short => changed(right.into_iter().take(half).collect(), |_| {}),
            Lie::Late => futures::stream::pending().boxed(),
            Lie::Reordered => changed(right.into_iter().rev().collect(), |_| {}),
            Lie::Endless => futures::stream::repeat(right[0].clone()).boxed(),
            Lie::Unasked => {
                let all = futures::stream::iter(0..u32::MAX).map(move |i| piece(i % 3));
                all.boxed()
            }
            Lie::Gone => changed(Vec::new(), |_| {}),
        };
        pieces.map(|(index, data)| Ok(v1::ChunkPiece { index, data })).boxed()
    }
}

type Pieces = futures::stream::BoxStream<'static, Result<v1::ChunkPiece, Status>>;
type Availability = futures::stream::BoxStream<'static, Result<v1::AvailabilityEvent, Status>>;
type Events = futures::stream::BoxStream<'static, Result<v1::FollowEvent, Status>>;

#[tonic::async_trait]
impl Peer for Liar {
    type GetChunksStream = Pieces;
    type AvailabilityStream = Availability;
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
        let ranges = request.into_inner().ranges;
        let wanted = ranges.into_iter().flat_map(|r| r.first..r.first + r.count);
        Ok(Response::new(self.pieces(wanted.collect())))
    }

    async fn availability(
        &self,
        _: Request<v1::AvailabilityRequest>,
    ) -> Result<Response<Availability>, Status> {
        let all = v1::AvailabilityEvent { has: Vec::new(), all: true };
        Ok(Response::new(futures::stream::iter([Ok(all)]).boxed()))
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

    async fn prefetch(
        &self,
        _: Request<v1::PrefetchRequest>,
    ) -> Result<Response<v1::PrefetchReply>, Status> {
        Ok(Response::new(v1::PrefetchReply::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_is_dropped_and_its_chunks_come_from_an_honest_one() {
    let (honest, taker) = (node(1).await, node(2).await);
    let body = body(LENGTH);
    let manifest = Arc::new(honest.hold(&body).await);
    let liar = listen(PeerServer::new(Liar(body.clone(), Lie::Flipped)), 3, &honest.tasks).await;
    let live = taker.begin(Some(LENGTH), None).await;
    let holders = [honest.me.clone(), liar];
    taker.gatherer(&[]).pull(&manifest, &holders, &live).await.unwrap();
    let stored = live.finish(LENGTH as u64).await.unwrap();
    assert_eq!(stored.object_id(), manifest.object_id());
    taker.holds(&body).await;
    // What else it had sent by then is not even looked at.
    assert_eq!(taker.metrics.bad_chunks.get(), 1, "one bad chunk is enough to drop a peer");
    assert_eq!(taker.metrics.bytes_in.get(), LENGTH as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_honest_peer_the_pull_says_so_and_stores_nothing() {
    let taker = node(1).await;
    let holder = node(2).await;
    let body = body(LENGTH);
    let manifest = Arc::new(holder.hold(&body).await);
    let liar = listen(PeerServer::new(Liar(body, Lie::Flipped)), 3, &holder.tasks).await;
    let live = taker.begin(Some(LENGTH), None).await;
    let failed = taker.gatherer(&[]).pull(&manifest, &[liar], &live).await;
    assert!(matches!(failed, Err(GatherError::Stuck { .. })), "{failed:?}");
    assert_eq!(live.chunks_in_order(), 0);
    drop(live);
    assert!(taker.store.get(&KEY).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_another_object_is_refused() {
    let node = node(1).await;
    let liar = listen(PeerServer::new(Liar(Bytes::new(), Lie::Flipped)), 3, &node.tasks).await;
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

async fn follows(taker: Node, filler: Member, others: Vec<Member>) -> Node {
    let (me, others) = (taker.me.id, others.iter().collect::<Vec<_>>());
    let events = taker.peers.follow(&filler, KEY, LeaseId(77), me).await.unwrap();
    let mut events = events.boxed();
    let head_sent = events.next().await.unwrap().unwrap();
    assert!(matches!(head_sent, Followed::Head(got) if *got == head(Some(LENGTH))));
    let Followed::Members { growth, nodes } = events.next().await.unwrap().unwrap() else {
        panic!()
    };
    let live = taker.begin(Some(LENGTH), None).await;
    live.name_growth(growth);
    taker.fills.grows(&live);
    let gatherer = taker.gatherer(&others);
    let manifest = gatherer.follow(&filler, &live, nodes, events).await.unwrap();
    let stored = live.finish(LENGTH as u64).await.unwrap();
    taker.fills.grown(KEY, growth, stored.object_id());
    assert_eq!(stored.manifest().as_ref(), &manifest);
    taker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_of_a_fill_give_to_one_another() {
    let (filler, one, two) = (node(1).await, node(2).await, node(3).await);
    let body = body(LENGTH);
    let entry = filler.fills.expect(KEY);
    let lease = LeaseId(77);
    entry.begin(Some(lease));
    let live = filler.begin(Some(LENGTH), Some(lease)).await;
    filler.fills.grows(&live);
    entry.live(live.clone());
    let everybody = vec![filler.me.clone(), one.me.clone(), two.me.clone()];
    let (of_one, of_two) = (filler.me.clone(), filler.me.clone());
    let one = follows(one, of_one, everybody.clone());
    let two = follows(two, of_two, everybody);
    let fills = async {
        for chunk in 0..LENGTH.div_ceil(CHUNK_BYTES_MIN as usize) {
            put(&live, &body, chunk..chunk + 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stored = live.finish(LENGTH as u64).await.unwrap();
        filler.fills.grown(KEY, live.growth(), stored.object_id());
    };
    let (one, two, ()) = tokio::join!(one, two, fills);
    assert!(matches!(live.end(), Some(End::Done(_))));
    one.holds(&body).await;
    two.holds(&body).await;
    let given = one.metrics.bytes_out.get() + two.metrics.bytes_out.get();
    let sent = filler.metrics.bytes_out.get();
    // On a busy machine a few may be asked of a second node too.
    let spare = LENGTH as u64 / 4;
    assert!(sent <= LENGTH as u64 + spare, "the filler sends each chunk once: {sent}");
    assert!(given + sent >= 2 * LENGTH as u64 && given <= LENGTH as u64 + spare, "{given}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fetches_into_one_object_do_not_mix_their_bytes() {
    let node = node(1).await;
    let live = node.begin(Some(LENGTH), None).await;
    assert!(live.announce(0, ChunkHash::of(b"known")));
    let (rest, hole, known) = (live.open_tail(), live.open_tail(), live.open_tail());
    rest.push(4, b"four");
    hole.push(1, b"one");
    known.push(0, b"kn");
    rest.push(4, b"teen");
    assert_eq!((&rest.bytes(4)[..], &hole.bytes(1)[..]), (&b"fourteen"[..], &b"one"[..]));
    assert_eq!(live.tail_from(4, 4).unwrap(), "teen");
    assert_eq!(live.tail_from(1, 1).unwrap(), "ne");
    assert_eq!(known.bytes(0), "kn");
    assert!(live.tail_from(0, 0).is_none(), "it is not held against its hash yet");
    drop(hole);
    assert!(live.tail_from(1, 0).is_none());
    rest.push(5, b"next");
    assert!(live.tail_from(4, 0).is_none() && rest.bytes(4).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mates_mend_what_a_lost_filler_left_unfinished() {
    let (one, two) = (node(1).await, node(2).await);
    let body = body(LENGTH);
    let (mine, theirs) = (one.begin(Some(LENGTH), None).await, two.begin(Some(LENGTH), None).await);
    put(&mine, &body, 0..3).await;
    put(&theirs, &body, 2..12).await;
    for (index, chunk) in body.chunks(CHUNK_BYTES_MIN as usize).enumerate().take(12) {
        assert!(mine.announce(index as u32, ChunkHash::of(chunk)));
    }
    for live in [&mine, &theirs] {
        live.name_growth(5);
    }
    mine.meet_mates(&[two.me.id].into());
    let gatherer = one.gatherer(&[&two.me]);
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        two.fills.grows(&theirs);
    };
    // It is told of before it has a place for the object.
    let (mended, ()) = tokio::join!(gatherer.mend(&mine, 12), late);
    mended.unwrap();
    assert_eq!(mine.chunks_in_order(), 12);
    assert_eq!(two.metrics.bytes_out.get(), 9 * u64::from(CHUNK_BYTES_MIN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_followed_is_said_with_its_reason() {
    let (filler, taker) = (node(1).await, node(2).await);
    let reason = async |lease: u64| {
        let events =
            taker.peers.follow(&filler.me, KEY, LeaseId(lease), taker.me.id).await.unwrap();
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
    let events = taker.peers.follow(&filler.me, KEY, LeaseId(5), taker.me.id).await.unwrap();
    live.fail("the origin closed early");
    let seen: Vec<_> = events.collect().await;
    assert_eq!(seen.len(), 5, "head, members, two chunks, failure");
    assert!(matches!(&seen[4], Ok(Followed::Failed(Reason::Origin, why)) if why.contains("early")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_belies_its_own_hash_is_refused() {
    let node = node(1).await;
    let liar = listen(PeerServer::new(Liar(Bytes::new(), Lie::Flipped)), 3, &node.tasks).await;
    let events = node.peers.follow(&liar, KEY, LeaseId(1), node.me.id).await.unwrap();
    let seen: Vec<_> = events.collect().await;
    assert!(matches!(&seen[0], Err(error) if error.kind == shoal_proto::ErrorKind::Corrupt));
    assert_eq!(node.metrics.bad_chunks.get(), 1);
}
