//! Super-nodes and members for tests.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::wire::v1::{self, acquire_reply, session_down, session_up};
use shoal_proto::{ObjectId, ObjectKey, RpcError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use super::super::selection::Wanted;
use super::super::{SuperConfig, SuperError, SuperNode, Timing};
use super::PATIENCE;
use crate::membership::ClusterView;
use crate::metrics::{IndexMetrics, Metrics};
use crate::rpc::{self, Channels, Door, Refusals};
use crate::tasks::Tasks;
use crate::tls::{MEMBER_NAME, Security, TlsFiles, node_name};

pub(super) const TIMING: Timing =
    Timing { session_lease_ms: 2_400, heartbeat_ms: 150, fill_lease_ms: 4_000 };
const GRACE: Duration = Duration::from_secs(5);

/// A certificate authority: one cluster.
pub(super) struct Rig {
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    scratch: TempDir,
}

/// A running super-node.
pub(super) struct Super {
    pub(super) info: v1::NodeInfo,
    pub(super) node: SuperNode,
    directory: TempDir,
    tasks: Tasks,
}

impl Rig {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), ca, scratch: TempDir::new().unwrap() }
    }

    pub(super) fn security(&self, name: &str) -> Security {
        let key = KeyPair::generate().unwrap();
        let names = vec![MEMBER_NAME.to_owned(), node_name(name)];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let write = |kind: &str, pem: &str| -> PathBuf {
            let path = self.scratch.path().join(format!("{name}.{kind}"));
            std::fs::write(&path, pem).unwrap();
            path
        };
        let (ca, cert) = (write("ca", &self.ca), write("crt", &cert));
        let files = TlsFiles { ca, cert, key: write("key", &key.serialize_pem()) };
        Security::from_files(&files).unwrap()
    }

    /// A tier of one.
    pub(super) async fn single(&self) -> Super {
        let one = self.start("s1", 1, TempDir::new().unwrap(), &[]).await;
        eventually("a tier", || one.node.status().in_touch).await;
        one
    }

    /// Starts a super-node: a new tier without seeds, else a part of theirs.
    pub(super) async fn start(
        &self,
        name: &str,
        id: u64,
        directory: TempDir,
        seeds: &[&Super],
    ) -> Super {
        let started = self.try_start(name, id, directory, seeds).await;
        started.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The same, of one that may be refused.
    pub(super) async fn try_start(
        &self,
        name: &str,
        id: u64,
        directory: TempDir,
        seeds: &[&Super],
    ) -> Result<Super, SuperError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let info = info(name, id, v1::Role::Super, &address);
        let security = self.security(name);
        let tasks = Tasks::new();
        let config = SuperConfig {
            cluster_id: "test".parse().unwrap(),
            me: info.clone(),
            dir: directory.path().to_owned(),
            bootstrap: seeds.is_empty(),
            seeds: seeds.iter().map(|seed| seed.info.cluster_address.clone()).collect(),
            timing: TIMING,
            wanted: Wanted::default(),
        };
        let metrics = IndexMetrics::new(&Metrics::new().unwrap()).unwrap();
        let channels = Channels::new(security.clone());
        let node = SuperNode::start(config, channels, tasks.clone(), metrics).await?;
        let mut server = rpc::server(Refusals::default());
        let door = Door::new(listener, &security, None, Refusals::default()).unwrap();
        let router = server.add_service(node.service()).add_service(node.raft_service());
        let stop = tasks.token();
        tasks.spawn("server", async move {
            rpc::serve_at(router, door, stop, GRACE).await.unwrap();
        });
        Ok(Super { info, node, directory, tasks })
    }

    /// A client of `to` with the certificate of the member called `name`.
    pub(super) fn client(&self, name: &str, to: &Super) -> IndexClient<Channel> {
        let channels = Channels::new(self.security(name));
        IndexClient::new(channels.to(&to.info.cluster_address, &to.info.name).unwrap())
    }

    /// A member with a live session.
    pub(super) async fn member(&self, name: &str, id: u64, with: &Super) -> Member {
        self.member_at(info(name, id, v1::Role::Node, "127.0.0.1:1"), with, 0).await.unwrap()
    }

    pub(super) async fn member_at(
        &self,
        info: v1::NodeInfo,
        with: &Super,
        fence_position: u64,
    ) -> Result<Member, RpcError> {
        let client = self.client(&info.name, with);
        Member::begin(info, client, fence_position).await
    }
}

impl Super {
    /// Ends it without a farewell; its data stays.
    pub(super) async fn kill(self) -> TempDir {
        self.node.tier.raft.shutdown().await;
        assert!(self.tasks.shutdown(GRACE * 2).await);
        self.directory
    }

    /// Ends it in order.
    pub(super) async fn stop(self) -> TempDir {
        self.node.shutdown().await;
        assert!(self.tasks.shutdown(GRACE * 2).await);
        self.directory
    }
}

pub(super) fn info(name: &str, id: u64, role: v1::Role, address: &str) -> v1::NodeInfo {
    v1::NodeInfo {
        node_id: id,
        name: name.to_owned(),
        role: role.into(),
        cluster_address: address.to_owned(),
        ..Default::default()
    }
}

/// Waits until `holds`.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let holding = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, holding).await.is_ok(), "{what} never came");
}

/// What a member was told, and how it behaves.
#[derive(Default)]
pub(super) struct Told {
    view: watch::Sender<ClusterView>,
    /// The newest fence that it was told of.
    pub(super) fences: watch::Sender<u64>,
    pub(super) sites: watch::Sender<v1::SiteTable>,
    pub(super) answered: AtomicU64,
    pub(super) over: AtomicBool,
    /// It keeps its acknowledgements to itself.
    pub(super) sulks: AtomicBool,
    /// It closes its side.
    leaves: CancellationToken,
}

/// A member with a session: heartbeats by itself, and acknowledges.
pub(super) struct Member {
    pub(super) info: v1::NodeInfo,
    pub(super) client: IndexClient<Channel>,
    pub(super) welcome: v1::Welcome,
    pub(super) told: Arc<Told>,
    up: mpsc::Sender<v1::SessionUp>,
    tasks: Tasks,
}

impl Member {
    async fn begin(
        info: v1::NodeInfo,
        mut client: IndexClient<Channel>,
        fence_position: u64,
    ) -> Result<Self, RpcError> {
        let (up, queue) = mpsc::channel(16);
        let (cluster_id, node) = ("test".into(), Some(info.clone()));
        let hello = v1::Hello { cluster_id, node, fence_position, sites_revision: 0 };
        send(&up, session_up::Event::Hello(hello)).await;
        let mut down = client.session(ReceiverStream::new(queue)).await?.into_inner();
        let first = down.message().await?.and_then(|message| message.event);
        let Some(session_down::Event::Welcome(welcome)) = first else {
            panic!("expected a welcome, got {first:?}");
        };
        let told = Arc::new(Told::default());
        let tasks = Tasks::new();
        let (line, hears) = (up.clone(), told.clone());
        tasks.spawn_until_stopped("member", async move { live(line, down, hears).await });
        let member = Self { info, client, welcome, told, up, tasks };
        Ok(member)
    }

    /// Waits for a view of which `wanted` holds.
    pub(super) async fn sees(&self, what: &str, wanted: impl Fn(&ClusterView) -> bool) {
        let mut views = self.told.view.subscribe();
        let seen = tokio::time::timeout(PATIENCE, views.wait_for(|view| wanted(view))).await;
        assert!(seen.is_ok(), "{what} was never seen");
    }

    /// Acknowledges fences up to `position`.
    pub(super) async fn acknowledge(&self, position: u64) {
        send(&self.up, session_up::Event::FenceAck(v1::FenceAck { position })).await;
    }

    /// Its process dies: the connection goes with it.
    pub(super) async fn die(self) {
        self.tasks.shutdown(PATIENCE).await;
    }

    /// Closes its session in order.
    pub(super) async fn leave(self) {
        let Self { tasks, told, up, .. } = self;
        drop(up);
        told.leaves.cancel();
        eventually("the session's end", || told.over.load(Ordering::Relaxed)).await;
        assert!(tasks.shutdown(PATIENCE).await);
    }

    pub(super) async fn acquire(
        &mut self,
        key: ObjectKey,
        with: impl FnOnce(&mut v1::AcquireRequest),
    ) -> acquire_reply::Answer {
        let mut request = v1::AcquireRequest {
            key: key.to_wire(),
            site: "docs".into(),
            node_id: self.info.node_id,
            ..Default::default()
        };
        with(&mut request);
        self.client.acquire(request).await.unwrap().into_inner().answer.unwrap()
    }

    pub(super) async fn publish(&mut self, lease_id: u64, head: v1::IndexHead) -> v1::PublishReply {
        let head = v1::IndexHead { publisher_node_id: self.info.node_id, ..head };
        let request = v1::PublishRequest { node_id: self.info.node_id, lease_id, head: Some(head) };
        self.client.publish(request).await.unwrap().into_inner()
    }
}

async fn send(up: &mpsc::Sender<v1::SessionUp>, event: session_up::Event) {
    // A session that is over takes nothing any more.
    let _ = up.send(v1::SessionUp { event: Some(event) }).await;
}

async fn live(
    up: mpsc::Sender<v1::SessionUp>,
    mut down: Streaming<v1::SessionDown>,
    told: Arc<Told>,
) {
    let mut beat = tokio::time::interval(Duration::from_millis(TIMING.heartbeat_ms.into()));
    let mut sequence = 0;
    loop {
        tokio::select! {
            () = told.leaves.cancelled() => break,
            _ = beat.tick() => {
                sequence += 1;
                let beat = v1::Heartbeat { sequence, stats: None };
                send(&up, session_up::Event::Heartbeat(beat)).await;
            }
            message = down.message() => match message.ok().flatten().and_then(|m| m.event) {
                Some(session_down::Event::HeartbeatAck(ack)) => {
                    told.answered.store(ack.sequence, Ordering::Relaxed);
                }
                Some(session_down::Event::View(view)) => {
                    told.view.send_replace(view.try_into().unwrap());
                }
                Some(session_down::Event::Fences(batch)) => {
                    told.fences.send_replace(batch.position);
                    if !told.sulks.load(Ordering::Relaxed) {
                        let ack = v1::FenceAck { position: batch.position };
                        send(&up, session_up::Event::FenceAck(ack)).await;
                    }
                }
                Some(session_down::Event::Sites(table)) => {
                    let revision = table.revision;
                    told.sites.send_replace(table);
                    if !told.sulks.load(Ordering::Relaxed) {
                        let ack = v1::SitesAck { revision };
                        send(&up, session_up::Event::SitesAck(ack)).await;
                    }
                }
                Some(session_down::Event::Welcome(_)) | None => break,
            }
        }
    }
    drop(up);
    while let Ok(Some(_)) = down.message().await {}
    told.over.store(true, Ordering::Relaxed);
}

pub(super) fn key(n: u8) -> ObjectKey {
    ObjectKey::new([n; 32])
}

/// A fresh head of one chunk.
pub(super) fn head(key: ObjectKey, n: u8, fence_position: u64) -> v1::IndexHead {
    v1::IndexHead {
        key: key.to_wire(),
        object_id: ObjectId::new([n; 32]).to_wire(),
        manifest_id: ObjectId::new([n; 32]).to_wire(),
        site: "docs".into(),
        length: 10,
        chunk_count: 1,
        fresh_until_ms: u64::MAX,
        fence_position,
        publisher_node_id: 0,
        labels: None,
    }
}

/// A server that answers probes: whether it fills is as told.
pub(super) async fn filler(
    rig: &Rig,
    name: &str,
    id: u64,
    tasks: &Tasks,
) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fills = Arc::new(AtomicBool::new(true));
    let service = v1::peer_server::PeerServer::new(Filler { id, fills: fills.clone() });
    let router = rpc::server(Refusals::default()).add_service(service);
    let door = Door::new(listener, &rig.security(name), None, Refusals::default()).unwrap();
    let stop = tasks.token();
    tasks.spawn("filler", async move {
        rpc::serve_at(router, door, stop, Duration::ZERO).await.unwrap();
    });
    (address, fills)
}

struct Filler {
    id: u64,
    fills: Arc<AtomicBool>,
}

type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

fn not_here<T>() -> impl Future<Output = Answer<T>> {
    std::future::ready(Err(tonic::Status::unimplemented("only probes are answered")))
}

#[tonic::async_trait]
impl v1::peer_server::Peer for Filler {
    type GetChunksStream = ReceiverStream<Result<v1::ChunkPiece, tonic::Status>>;
    type AvailabilityStream = ReceiverStream<Result<v1::AvailabilityEvent, tonic::Status>>;
    type FollowStream = ReceiverStream<Result<v1::FollowEvent, tonic::Status>>;

    async fn ping(&self, _: tonic::Request<v1::PingRequest>) -> Answer<v1::PingReply> {
        let holds_lease = self.fills.load(Ordering::Relaxed);
        Ok(tonic::Response::new(v1::PingReply { node_id: self.id, holds_lease }))
    }

    async fn get_manifest(
        &self,
        _: tonic::Request<v1::GetManifestRequest>,
    ) -> Answer<v1::GetManifestReply> {
        not_here().await
    }

    async fn get_chunks(
        &self,
        _: tonic::Request<v1::GetChunksRequest>,
    ) -> Answer<Self::GetChunksStream> {
        not_here().await
    }

    async fn availability(
        &self,
        _: tonic::Request<v1::AvailabilityRequest>,
    ) -> Answer<Self::AvailabilityStream> {
        not_here().await
    }

    async fn follow(&self, _: tonic::Request<v1::FollowRequest>) -> Answer<Self::FollowStream> {
        not_here().await
    }

    async fn take_copy(&self, _: tonic::Request<v1::TakeCopyRequest>) -> Answer<v1::TakeCopyReply> {
        not_here().await
    }

    async fn prefetch(&self, _: tonic::Request<v1::PrefetchRequest>) -> Answer<v1::PrefetchReply> {
        not_here().await
    }

    async fn survey(&self, _: tonic::Request<v1::SurveyRequest>) -> Answer<v1::SurveyReply> {
        not_here().await
    }
}
