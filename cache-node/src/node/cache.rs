//! A caching node: edge, read path, store, peer service, session.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::wire::v1;
use shoal_proto::{ClusterId, NodeId, ObjectId, ObjectKey};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::auto::Auto;
use super::calls::Calls;
use super::drain::{self, Drain};
use super::sites::SiteKeeper;
use super::{NodeError, Running, certificates, holdings, mode, purges};
use crate::admin::tokens::Tokens;
use crate::admin::{Control, Figures, Hits, ModeStatus, StatusDocument};
use crate::config::{self, AccessLogConfig, CacheConfig, Config, EdgeTlsConfig};
use crate::current::Current;
use crate::directory::{Directory, DirectoryConfig, Local};
use crate::edge::{self, AccessLog, Door, Edge, EdgeConfig};
use crate::fetch::{COPY_QUEUE_MAX, FetchParts, Fetcher, PREFETCH_QUEUE_MAX};
use crate::membership::Role;
use crate::membership::mode::{Shown, Sight};
use crate::metrics::{
    DirectoryMetrics, DrainMetrics, EdgeMetrics, ModeMetrics, OriginMetrics, StoreMetrics, Tier,
    TransferMetrics,
};
use crate::origin::OriginClient;
use crate::policy::site::Sites;
use crate::rpc::{self, Channels, MemberRouter};
use crate::store::{CUT_FROM_BYTES, Store, StoreConfig};
use crate::tasks::Tasks;
use crate::transfer::{CopyRequest, CopyWishes, Fills, Lanes, PeerService, Peers, Sealer};

/// For the edge to end at the stop, after what `edge.finish_within` gives to requests.
const EDGE_GRACE: Duration = Duration::from_secs(10);
/// For running calls of peers to end at the stop.
const CALLS_GRACE: Duration = Duration::from_secs(2);
/// For the super-node of this node to hand on what it has and end.
const TIER_DEADLINE: Duration = Duration::from_secs(15);
/// For everything else to end at the stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Listeners {
    pub(super) edge: TcpListener,
    pub(super) edge_tls: Option<TcpListener>,
    pub(super) cluster: TcpListener,
}

/// Tasks in the order in which they end.
#[derive(Default)]
struct Groups {
    edge: Tasks,
    flights: Tasks,
    tier: Tasks,
    session: Tasks,
}

struct Built {
    store: Arc<Store>,
    directory: Arc<Directory>,
    fetcher: Fetcher,
    wishes: mpsc::Receiver<CopyRequest>,
    peer_service: PeerService,
    figures: Arc<dyn Fn() -> Figures + Send + Sync>,
    edge: Arc<Edge<Fetcher>>,
    calls: Calls,
    drain: Drain,
}

/// Runs a caching node until `stop`.
pub(super) async fn run(
    (config, me, base): (Config, v1::NodeInfo, StatusDocument),
    listeners: Listeners,
    running: &Running,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let groups = Groups::default();
    let channels = Channels::new(config.cluster.security.clone());
    let auto = Auto::prepare(&config, &me, &channels, &running.metrics).await?;
    let Config { node, cluster, admin, cache, .. } = config;
    let Some(mut cache) = cache else { return Ok(()) };
    let (tls, stop_wait) = (cache.edge.tls.take(), cache.edge.stop_wait);
    let edge_deadline = cache.edge.finish_within + EDGE_GRACE;
    let refusals = running.refusals()?;
    let mut server = rpc::server(refusals.clone());
    let cluster_id = cluster.id.clone();
    let member = Member {
        directory: directory_facts(cluster.id, cluster.super_nodes, (&me, auto.as_deref())),
        me,
        auto: auto.clone(),
        data_dir: node.data_dir,
        tokens: admin.tokens,
        copies: usize::from(cluster.copies),
    };
    let built = build(member, cache, &channels, &groups, running).await?;
    let Built { store, directory, fetcher, wishes, peer_service, figures, edge, drain, calls } =
        built;
    let (leaving, drained, leave) = (drain.wanted(), drain.shown(), drain.clone());
    let mode = watch_mode(&directory, ModeMetrics::new(&running.metrics)?, &groups.session);
    let shown_auto = auto.clone();
    running.set_status({
        let directory = directory.clone();
        move || {
            let view = directory.view();
            let mut document = base.clone().with_view(&view);
            document.applied_position = directory.fence_position();
            document.figures = Some(figures());
            document.drain = Some(drained.borrow().clone());
            document.mode = mode.borrow().as_ref().map(ModeStatus::from);
            shown_auto.iter().for_each(|auto| auto.show(&mut document, &view));
            document
        }
    });
    let control = drain.add_to(Control::new(), auto.clone());
    running.set_control(calls.add_to(control, (cluster_id, &directory), auto.as_deref()));
    let (peer_server, lanes) = peer_service.into_servers();
    let lanes: Arc<dyn rpc::ServesLanes> = Arc::new(lanes);
    let door = rpc::Door::new(listeners.cluster, &cluster.security, Some(lanes), refusals)?;
    let router = server.add_service(peer_server).add_service(directory.home_service());
    let router = match &auto {
        None => router,
        Some(auto) => auto.add_to(router, directory.watch_view(), &groups.tier),
    };
    listen(router, door, &groups.session);
    groups.session.spawn_until_stopped("certificates", certificates::of_member(&cluster.security));
    groups.flights.spawn_until_stopped("fences", fetcher.clone().hold_fences());
    groups.flights.spawn_until_stopped("copies", fetcher.take_copies(wishes));
    for (name, telling) in holdings::all(&store, &directory) {
        groups.session.spawn_until_stopped(name, telling);
    }
    let doors = (listeners.edge, listeners.edge_tls.zip(tls));
    open_doors(doors, &edge, &groups.edge);
    drop(edge);
    tokio::pin!(stop);
    let died = tokio::select! {
        () = &mut stop => false,
        () = ready(running, &directory, &groups, leaving) => true,
    };
    running.set_ready(false, "stopping");
    if !died && !stop_wait.is_zero() {
        serve_on(&leave, stop_wait, &groups).await;
    }
    shut_down(&groups, &store, edge_deadline).await;
    if died { Err(NodeError::Died) } else { Ok(()) }
}

/// Follows the mode that the node is in.
fn watch_mode(
    directory: &Arc<Directory>,
    metrics: ModeMetrics,
    tasks: &Tasks,
) -> watch::Receiver<Option<Shown>> {
    let (shown, mode) = watch::channel(None);
    let directory = directory.clone();
    let sight = move || Sight {
        tier: directory.session_holds(),
        voters: directory.view().voters().count(),
    };
    tasks.spawn_until_stopped("mode", mode::watch(sight, shown, metrics));
    mode
}

/// Members may come in, by gRPC and by lanes.
fn listen(router: MemberRouter, door: rpc::Door, session: &Tasks) {
    let stopped = session.token();
    session.spawn("cluster-listener", async move {
        if let Err(error) = rpc::serve_at(router, door, stopped, CALLS_GRACE).await {
            tracing::error!(%error, "the cluster listener failed");
        }
    });
}

/// Clients may come in, in clear and, where there is a certificate, by TLS.
fn open_doors(
    (clear, tls): (TcpListener, Option<(TcpListener, EdgeTlsConfig)>),
    edge: &Arc<Edge<Fetcher>>,
    tasks: &Tasks,
) {
    let open = |name, door: Door| {
        tasks.spawn(name, edge::serve(door, edge.clone(), tasks.clone()));
    };
    if let Some((listener, EdgeTlsConfig { shown, .. })) = tls {
        let looked_at = shown.clone();
        let following = certificates::follow("the edge", move || looked_at.look());
        tasks.spawn_until_stopped("edge-certificate", following);
        open("edge-tls", Door { listener, tls: Some(shown) });
    }
    open("edge", clear.into());
}

struct DirectoryFacts {
    cluster: ClusterId,
    seeds: Vec<String>,
    role: watch::Receiver<Role>,
}

fn directory_facts(
    cluster: ClusterId,
    mut seeds: Vec<String>,
    (me, auto): (&v1::NodeInfo, Option<&Auto>),
) -> DirectoryFacts {
    let Some(auto) = auto else {
        return DirectoryFacts { cluster, seeds, role: watch::channel(Role::Node).1 };
    };
    // The first of a new cluster has nobody but itself.
    seeds.push(me.cluster_address.clone());
    DirectoryFacts { cluster, seeds, role: auto.role() }
}

struct Member {
    me: v1::NodeInfo,
    directory: DirectoryFacts,
    auto: Option<Arc<Auto>>,
    data_dir: PathBuf,
    tokens: Tokens,
    copies: usize,
}

async fn build(
    member: Member,
    cache: CacheConfig,
    channels: &Channels,
    groups: &Groups,
    running: &Running,
) -> Result<Built, NodeError> {
    let m = &running.metrics;
    let store_metrics = StoreMetrics::new(m)?;
    let transfer_metrics = TransferMetrics::new(m)?;
    let origin_metrics = OriginMetrics::new(m)?;
    let edge_metrics = EdgeMetrics::new(m)?;
    let Member { me, directory: DirectoryFacts { cluster, seeds, role }, .. } = member;
    let Member { auto, data_dir, tokens, copies, .. } = member;
    let sites = SiteKeeper::open(data_dir.clone(), cache.sites).await;
    let store = Store::open(store_config(data_dir, &cache.store), store_metrics).await?;
    let node_id = NodeId(me.node_id);
    let stats = stats(store.clone(), transfer_metrics.clone(), origin_metrics.clone(), auto);
    let directory = Directory::start(
        DirectoryConfig { cluster, me, seeds, fence_position: store.mark().await?, role },
        channels,
        &groups.session,
        DirectoryMetrics::new(m)?,
        Local { stats: Arc::new(stats), held: Arc::new(held(store.clone())), sites: sites.here() },
    );
    groups.session.spawn_until_stopped("sites", sites.clone().keep(directory.clone()));
    let fills = Arc::new(Fills::default());
    let (queue, wishes) = mpsc::channel(COPY_QUEUE_MAX);
    let (prefetches, prefetch_wishes) = mpsc::channel(PREFETCH_QUEUE_MAX);
    let sealer = Sealer::new(cache.secret.as_bytes());
    let peer_service = PeerService::new(
        node_id,
        store.clone(),
        fills.clone(),
        CopyWishes { queue, prefetches, sealer: sealer.clone() },
        transfer_metrics.clone(),
    );
    let peers = Peers::new(channels.clone(), sealer, transfer_metrics.clone())
        .with_lanes(Lanes::new(channels.security(), groups.flights.clone())?);
    let parts = FetchParts {
        store: store.clone(),
        directory: directory.clone(),
        origin: origins(origin_metrics.clone(), sites.current(), groups)?,
        peers: peers.clone(),
        fills,
        sites: sites.current(),
        metrics: origin_metrics.clone(),
        copies,
        secret: *cache.secret.as_bytes(),
    };
    let fetcher = Fetcher::new(parts, groups.flights.clone());
    let taking = fetcher.clone().take_prefetches(prefetch_wishes);
    groups.flights.spawn_until_stopped("prefetches", taking);
    let (secret, edge_config) = (*cache.secret.as_bytes(), edge_config(&cache.edge));
    let current = sites.current();
    let of = (directory.clone(), current.clone(), cache.secret);
    let calls = Calls::new(of, (fetcher.clone(), peers, store.clone()), groups.flights.clone());
    let edge = Edge::new(edge_config, current, secret, fetcher.clone(), edge_metrics.clone());
    let lost = edge_metrics.access_lines_lost.clone();
    let edge = edge.with_token_purges(purges::by_token(tokens));
    let edge = logging(edge, cache.edge.access_log, lost, &groups.session).await?;
    let figures = figures(store.clone(), edge_metrics, origin_metrics, transfer_metrics);
    let parts = drain::Parts {
        store: store.clone(),
        directory: directory.clone(),
        fetcher: fetcher.clone(),
        leaving: edge.leaving(),
        metrics: DrainMetrics::new(m)?,
    };
    let drain = Drain::start(parts, &groups.session);
    let edge = Arc::new(edge);
    Ok(Built { store, directory, fetcher, wishes, peer_service, figures, edge, calls, drain })
}

/// Which objects are here, all of them: who asks wants all of it.
fn held(store: Arc<Store>) -> impl Fn(&ObjectKey) -> Option<ObjectId> {
    move |key| match store.holding(key) {
        Some((object, None)) => Some(object),
        Some((_, Some(_))) | None => None,
    }
}

/// Asks origins, and how they are.
fn origins(
    metrics: OriginMetrics,
    sites: Arc<Current<Sites>>,
    groups: &Groups,
) -> Result<OriginClient, NodeError> {
    let origin = OriginClient::new(metrics, groups.flights.clone())?;
    groups.session.spawn_until_stopped("origin-health", origin.clone().check_health(sites));
    Ok(origin)
}

fn store_config(dir: PathBuf, store: &config::StoreConfig) -> StoreConfig {
    StoreConfig {
        dir,
        budget_bytes: store.budget_bytes,
        memory_bytes: store.memory_bytes,
        objects_max: store.objects_max,
        cut_from_bytes: CUT_FROM_BYTES,
    }
}

fn edge_config(edge: &config::EdgeConfig) -> EdgeConfig {
    EdgeConfig {
        unknown_host: edge.unknown_host,
        connections_max: edge.connections_max,
        drain_ms: u64::try_from(edge.finish_within.as_millis()).unwrap_or(u64::MAX),
        ..EdgeConfig::default()
    }
}

/// The edge, with its access log where one is configured.
async fn logging(
    edge: Edge<Fetcher>,
    config: Option<AccessLogConfig>,
    lost: prometheus::IntCounter,
    session: &Tasks,
) -> Result<Edge<Fetcher>, NodeError> {
    let Some(AccessLogConfig { path, format, addresses }) = config else { return Ok(edge) };
    let opened = AccessLog::open(&path, (format, addresses), lost).await;
    let (log, lines) = opened.map_err(|source| NodeError::AccessLog { path, source })?;
    // It ends when the edge has: nobody can log any more then.
    session.spawn("access-log", lines.write());
    Ok(edge.with_access_log(log))
}

/// What heartbeats carry.
fn stats(
    store: Arc<Store>,
    transfer: TransferMetrics,
    origin: OriginMetrics,
    auto: Option<Arc<Auto>>,
) -> impl Fn() -> v1::NodeStats {
    move || {
        let usage = store.usage();
        let moved = || transfer.bytes_in.get() + transfer.bytes_out.get() + origin.bytes.get();
        v1::NodeStats {
            cached_bytes: usage.bytes,
            cached_objects: usage.objects as u64,
            capability: auto.as_ref().map(|auto| auto.capability(moved())),
            draining: false,
        }
    }
}

fn figures(
    store: Arc<Store>,
    edge: EdgeMetrics,
    origin: OriginMetrics,
    transfer: TransferMetrics,
) -> Arc<dyn Fn() -> Figures + Send + Sync> {
    Arc::new(move || {
        let usage = store.usage();
        Figures {
            cached_bytes: usage.bytes,
            cached_objects: usage.objects as u64,
            budget_bytes: usage.budget_bytes,
            hits: Hits::of(&edge.requests),
            response_bytes: Tier::ALL.iter().map(|tier| edge.response_bytes.of(*tier).get()).sum(),
            origin_bytes: origin.bytes.get(),
            peer_bytes_in: transfer.bytes_in.get(),
            peer_bytes_out: transfer.bytes_out.get(),
        }
    })
}

/// Shows whether the node is ready until one of its tasks dies.
async fn ready(
    running: &Running,
    directory: &Directory,
    groups: &Groups,
    mut leaving: watch::Receiver<bool>,
) {
    let shown = async {
        running.set_ready(false, "no super-node has welcomed this node yet");
        directory.welcomed().await;
        loop {
            match *leaving.borrow_and_update() {
                true => running.set_ready(false, "draining"),
                false => running.set_ready(true, "ready"),
            }
            if leaving.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        () = shown => {}
        () = one_stopped(groups) => {}
    }
}

/// Drains for so long, while clients are asked to go elsewhere.
async fn serve_on(drain: &Drain, wait: Duration, groups: &Groups) {
    drain.begin();
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = one_stopped(groups) => {}
    }
}

/// Waits until a task dies, which stops its group.
async fn one_stopped(groups: &Groups) {
    tokio::select! {
        () = groups.edge.stopped() => {}
        () = groups.flights.stopped() => {}
        () = groups.tier.stopped() => {}
        () = groups.session.stopped() => {}
    }
}

async fn shut_down(groups: &Groups, store: &Store, edge_deadline: Duration) {
    for (name, group, deadline) in [
        ("edge", &groups.edge, edge_deadline),
        ("flights", &groups.flights, STOP_DEADLINE),
        ("super-node", &groups.tier, TIER_DEADLINE),
        ("session", &groups.session, STOP_DEADLINE),
    ] {
        if !group.shutdown(deadline).await {
            tracing::warn!(group = name, "some tasks did not end in time");
        }
    }
    store.close().await;
}
