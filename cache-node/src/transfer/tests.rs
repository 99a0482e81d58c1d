//! Peers over real sockets: honest ones, lying ones, ones that vanish.

mod bad_peers;
mod liar;
mod refused;
pub(super) mod ways;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use shoal_proto::limits::CHUNK_BYTES_MIN;
use shoal_proto::wire::v1::peer_server::PeerServer;
use shoal_proto::wire::v1::{self, follow_failed::Reason};
use shoal_proto::{
    ChunkHash, Freshness, Labels, LeaseId, Manifest, NodeId, ObjectHead, ObjectId, ObjectKey,
};
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use super::slots::Discipline;
use super::{CopyWishes, End, Fills, Followed, GatherError, Gatherer};
use super::{LaneService, Lanes, Live, PeerService, Peers, Sealer};
use crate::membership::{ClusterView, Member};
use crate::metrics::{Metrics, StoreMetrics, TransferMetrics};
use crate::rpc::{self, Channels};
use crate::store::{Store, StoreConfig};
use crate::tasks::Tasks;
use crate::tls::Security;
use liar::{Liar, Lie};
use ways::Way;

pub(super) const KEY: ObjectKey = ObjectKey::new([5; 32]);
pub(super) const LENGTH: usize = 20 * CHUNK_BYTES_MIN as usize + 1234;

pub(super) fn body(length: usize) -> Bytes {
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

pub(super) struct Node {
    pub(super) store: Arc<Store>,
    pub(super) fills: Arc<Fills>,
    pub(super) peers: Peers,
    pub(super) metrics: TransferMetrics,
    pub(super) me: Member,
    pub(super) tasks: Tasks,
    service: Arc<PeerService>,
    _dir: tempfile::TempDir,
}

pub(super) fn member(id: u64, address: SocketAddr) -> Member {
    Member {
        cluster_address: address.to_string(),
        ..Member::node(NodeId(id), format!("node-{id}"))
    }
}

async fn store(dir: &Path, metrics: &Metrics) -> Arc<Store> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        budget_bytes: 64 << 20,
        memory_bytes: 4 << 20,
        objects_max: 1 << 20,
        cut_from_bytes: 1 << 30,
    };
    Store::open(config, StoreMetrics::new(metrics).unwrap()).await.unwrap()
}

async fn node(id: u64) -> Node {
    node_by(Way::Grpc, id).await
}

/// A node that gives and takes chunks that way.
pub(super) async fn node_by(way: Way, id: u64) -> Node {
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
    let service = Arc::new(service);
    let (grpc, lanes) = PeerService::servers(service.clone());
    let me = way.listen(grpc, Arc::new(lanes), id, &tasks).await;
    let security = way.security(id);
    let lanes = Lanes::new(&security, tasks.clone()).unwrap();
    let peers = Peers::new(Channels::new(security), sealer, metrics.clone()).with_lanes(lanes);
    Node { store, fills, peers, metrics, me, tasks, service, _dir: dir }
}

/// A peer that lies, whichever way it is asked.
async fn liar(way: Way, lie: (Bytes, Lie), tasks: &Tasks) -> Member {
    let (body, lie) = lie;
    let lanes = Arc::new(ways::LaneLiar(body.clone(), lie));
    way.listen(PeerServer::new(Liar(body, lie)), lanes, 3, tasks).await
}

impl Node {
    pub(super) fn grpc(&self) -> Discipline<PeerServer<PeerService>> {
        PeerService::servers(self.service.clone()).0
    }

    pub(super) fn lanes(&self) -> LaneService {
        PeerService::servers(self.service.clone()).1
    }

    fn gatherer(&self, others: &[&Member]) -> Gatherer {
        let members = others.iter().map(|other| (*other).clone()).collect();
        let view = ClusterView { members, ..ClusterView::default() };
        Gatherer { peers: self.peers.clone(), me: self.me.id, view: watch::channel(view).1 }
    }

    async fn begin(&self, length: Option<usize>, lease: Option<LeaseId>) -> Arc<Live> {
        Live::new(self.store.begin(head(length)).await.unwrap(), lease)
    }

    pub(super) async fn hold(&self, body: &Bytes) -> Manifest {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_is_dropped_and_its_chunks_come_from_an_honest_one() {
    for way in Way::ALL {
        dropped_and_taken_elsewhere(way).await;
    }
}

async fn dropped_and_taken_elsewhere(way: Way) {
    let (honest, taker) = (node_by(way, 1).await, node_by(way, 2).await);
    let body = body(LENGTH);
    let manifest = Arc::new(honest.hold(&body).await);
    let liar = liar(way, (body.clone(), Lie::Flipped), &honest.tasks).await;
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
    for way in Way::ALL {
        nothing_stored_of_a_liar(way).await;
    }
}

async fn nothing_stored_of_a_liar(way: Way) {
    let taker = node_by(way, 1).await;
    let holder = node_by(way, 2).await;
    let body = body(LENGTH);
    let manifest = Arc::new(holder.hold(&body).await);
    let liar = liar(way, (body, Lie::Flipped), &holder.tasks).await;
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
    let liar = liar(Way::Grpc, (Bytes::new(), Lie::Flipped), &node.tasks).await;
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
    let liar = liar(Way::Grpc, (Bytes::new(), Lie::Flipped), &node.tasks).await;
    let events = node.peers.follow(&liar, KEY, LeaseId(1), node.me.id).await.unwrap();
    let seen: Vec<_> = events.collect().await;
    assert!(matches!(&seen[0], Err(error) if error.kind == shoal_proto::ErrorKind::Corrupt));
    assert_eq!(node.metrics.bad_chunks.get(), 1);
}
