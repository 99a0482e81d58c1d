//! A caching node: edge, read path, store, peer service, session.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::wire::v1;
use shoal_proto::{NodeId, ObjectKey};
use tokio::sync::{mpsc, watch};

use super::purges::Purger;
use super::{NodeError, Running, holdings, mode};
use crate::admin::{Control, Figures, Hits, ModeStatus, StatusDocument};
use crate::config::{CacheConfig, Config};
use crate::directory::{Directory, DirectoryConfig, Local};
use crate::edge::{self, Edge, EdgeConfig};
use crate::fetch::{COPY_QUEUE_MAX, FetchParts, Fetcher};
use crate::membership::mode::Sight;
use crate::metrics::{
    DirectoryMetrics, EdgeMetrics, ModeMetrics, OriginMetrics, StoreMetrics, Tier, TransferMetrics,
};
use crate::origin::OriginClient;
use crate::rpc::{self, Channels};
use crate::store::{Store, StoreConfig};
use crate::tasks::Tasks;
use crate::transfer::{CopyRequest, CopyWishes, Fills, PeerService, Peers, Sealer};

/// For clients' requests to finish at the stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// For running calls of peers to end at the stop.
const CALLS_GRACE: Duration = Duration::from_secs(2);
/// For everything else to end at the stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Listeners {
    pub(super) edge: tokio::net::TcpListener,
    pub(super) cluster: tokio::net::TcpListener,
}

/// Tasks in the order in which they end.
struct Groups {
    edge: Tasks,
    flights: Tasks,
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
    purger: Purger,
}

/// Runs a caching node until `stop`.
pub(super) async fn run(
    (config, me, base): (Config, v1::NodeInfo, StatusDocument),
    listeners: Listeners,
    running: &Running,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let Config { node, cluster, cache, .. } = config;
    let Some(cache) = cache else { return Ok(()) };
    let groups = Groups { edge: Tasks::new(), flights: Tasks::new(), session: Tasks::new() };
    let channels = Channels::new(cluster.security.clone());
    let mut server = rpc::server_with(&cluster.security, running.refusals()?)?;
    let member = Member {
        me,
        directory: DirectoryFacts { cluster: cluster.id, seeds: cluster.super_nodes },
        data_dir: node.data_dir,
        copies: usize::from(cluster.copies),
    };
    let built = build(member, cache, &channels, &groups, running).await?;
    let Built { store, directory, fetcher, wishes, peer_service, figures, edge, purger } = built;
    let (shown, mode) = watch::channel(None);
    groups.session.spawn_until_stopped("mode", {
        let directory = directory.clone();
        let sight = move || Sight {
            tier: directory.session_holds(),
            voters: directory.view().voters().count(),
        };
        mode::watch(sight, shown, ModeMetrics::new(&running.metrics)?)
    });
    running.set_status({
        let (directory, figures) = (directory.clone(), figures.clone());
        move || {
            let mut document = base.clone().with_view(&directory.view());
            document.applied_position = directory.fence_position();
            document.figures = Some(figures());
            document.mode = mode.borrow().as_ref().map(ModeStatus::from);
            document
        }
    });
    running.set_control(purger.add_to(Control::new()));
    let router =
        server.add_service(peer_service.into_server()).add_service(directory.home_service());
    let stopped = groups.session.token();
    groups.session.spawn("cluster-listener", async move {
        if let Err(error) = rpc::serve(router, listeners.cluster, stopped, CALLS_GRACE).await {
            tracing::error!(%error, "the cluster listener failed");
        }
    });
    groups.flights.spawn_until_stopped("fences", fetcher.clone().hold_fences());
    groups.flights.spawn_until_stopped("copies", fetcher.take_copies(wishes));
    for (name, telling) in holdings::all(&store, &directory) {
        groups.session.spawn_until_stopped(name, telling);
    }
    let serving = groups.edge.clone();
    groups.edge.spawn("edge", edge::serve(listeners.edge, edge, serving));
    tokio::pin!(stop);
    let died = tokio::select! {
        () = &mut stop => false,
        () = ready(running, &directory, &groups) => true,
    };
    running.set_ready(false, "stopping");
    shut_down(&groups, &store).await;
    if died { Err(NodeError::Died) } else { Ok(()) }
}

struct DirectoryFacts {
    cluster: shoal_proto::ClusterId,
    seeds: Vec<String>,
}

struct Member {
    me: v1::NodeInfo,
    directory: DirectoryFacts,
    data_dir: std::path::PathBuf,
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
    let Member { me, directory: DirectoryFacts { cluster, seeds }, data_dir, copies } = member;
    let store_config = StoreConfig {
        dir: data_dir,
        budget_bytes: cache.store.budget_bytes,
        memory_bytes: cache.store.memory_bytes,
    };
    let store = Store::open(store_config, store_metrics).await?;
    let node_id = NodeId(me.node_id);
    let stats = {
        let store = store.clone();
        move || {
            let usage = store.usage();
            v1::NodeStats { cached_bytes: usage.bytes, cached_objects: usage.objects as u64 }
        }
    };
    let held = {
        let store = store.clone();
        move |key: &ObjectKey| store.locate(key)
    };
    let directory = Directory::start(
        DirectoryConfig { cluster, me, seeds, fence_position: store.mark().await? },
        channels,
        &groups.session,
        DirectoryMetrics::new(m)?,
        Local { stats: Arc::new(stats), held: Arc::new(held) },
    );
    let fills = Arc::new(Fills::default());
    let (queue, wishes) = mpsc::channel(COPY_QUEUE_MAX);
    let sealer = Sealer::new(cache.secret.as_bytes());
    let peer_service = PeerService::new(
        node_id,
        store.clone(),
        fills.clone(),
        CopyWishes { queue, sealer: sealer.clone() },
        transfer_metrics.clone(),
    );
    let sites = Arc::new(cache.sites);
    let parts = FetchParts {
        store: store.clone(),
        directory: directory.clone(),
        origin: OriginClient::new(origin_metrics.clone(), groups.flights.clone())?,
        peers: Peers::new(channels.clone(), sealer, transfer_metrics.clone()),
        fills,
        sites: sites.clone(),
        metrics: origin_metrics.clone(),
        copies,
        secret: *cache.secret.as_bytes(),
    };
    let fetcher = Fetcher::new(parts, groups.flights.clone());
    let edge_config = EdgeConfig {
        unknown_host: cache.edge.unknown_host,
        connections_max: cache.edge.connections_max,
        ..EdgeConfig::default()
    };
    let secret = *cache.secret.as_bytes();
    let purger =
        Purger { directory: directory.clone(), sites: sites.clone(), secret: cache.secret };
    let edge = Edge::new(edge_config, sites, secret, fetcher.clone(), edge_metrics.clone());
    let figures = figures(store.clone(), edge_metrics, origin_metrics, transfer_metrics);
    let edge = Arc::new(edge);
    Ok(Built { store, directory, fetcher, wishes, peer_service, figures, edge, purger })
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

async fn ready(running: &Running, directory: &Directory, groups: &Groups) {
    running.set_ready(false, "no super-node has welcomed this node yet");
    directory.welcomed().await;
    running.set_ready(true, "ready");
    tokio::select! {
        () = groups.edge.stopped() => {}
        () = groups.flights.stopped() => {}
        () = groups.session.stopped() => {}
    }
}

async fn shut_down(groups: &Groups, store: &Store) {
    for (name, group, deadline) in [
        ("edge", &groups.edge, DRAIN_DEADLINE),
        ("flights", &groups.flights, STOP_DEADLINE),
        ("session", &groups.session, STOP_DEADLINE),
    ] {
        if !group.shutdown(deadline).await {
            tracing::warn!(group = name, "some tasks did not end in time");
        }
    }
    store.close().await;
}
