//! The two processes of a transfer. Each says what there is to say as lines of JSON on its standard
//! output, and ends when its standard input does.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use shoal_node::{
    membership::Member,
    metrics::{Metrics, StoreMetrics, TransferMetrics},
    rpc::{self, Channels, Door, Refusals},
    store::{CUT_FROM_BYTES, Store, StoreConfig},
    tasks::Tasks,
    tls::Security,
    transfer::{CopyWishes, Fills, Lanes, Live, PeerService, Peers, Sealer, Wanted},
};
use shoal_proto::{
    ChunkHash, Freshness, Labels, Manifest, NodeId, ObjectHead, ObjectId, ObjectKey,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{TransferError, identities};
use crate::{
    clock::Clock,
    process::usage,
    scenario::transfer::{EndArgs, Way},
};

const KEY: ObjectKey = ObjectKey::new([5; 32]);
const SECRET: [u8; 32] = [7; 32];
/// For a stopped listener's calls.
const GRACE: Duration = Duration::from_millis(500);

/// Runs one end until `stop`; `say` prints a line.
///
/// # Errors
/// When it fails.
pub async fn end(
    args: &EndArgs,
    stop: CancellationToken,
    say: impl Fn(serde_json::Value),
) -> Result<(), TransferError> {
    match &args.peer {
        None => upload(args, stop, say).await,
        Some(peer) => {
            tokio::select! {
                done = download(args, peer, &say) => done?,
                () = stop.cancelled() => {}
            }
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn upload(
    args: &EndArgs,
    stop: CancellationToken,
    say: impl Fn(serde_json::Value),
) -> Result<(), TransferError> {
    let metrics = Metrics::new().map_err(failed)?;
    let data = tempfile::tempdir_in(&args.folder)?;
    let store = store(data.path(), args, &metrics).await?;
    let object = fill(&store, args).await?;
    let wishes = CopyWishes {
        queue: mpsc::channel(1).0,
        prefetches: mpsc::channel(1).0,
        sealer: Sealer::new(&SECRET),
    };
    let transfer = TransferMetrics::new(&metrics).map_err(failed)?;
    let fills = Arc::<Fills>::default();
    let service = PeerService::new(NodeId(1), store, fills, wishes, transfer);
    let (peer, lanes) = service.into_servers();
    let security = security(&args.folder, identities::NAMES[0])?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let listen = listener.local_addr()?;
    let door = Door::new(listener, &security, Some(Arc::new(lanes)), Refusals::default());
    let router = rpc::server(Refusals::default()).add_service(peer);
    say(serde_json::json!({ "listen": listen, "object_id": hex(&object.to_wire()) }));
    rpc::serve_at(router, door.map_err(failed)?, stop, GRACE).await.map_err(failed)
}

/// An object in memory, as a node keeps those that are asked for often.
async fn fill(store: &Arc<Store>, args: &EndArgs) -> Result<ObjectId, TransferError> {
    let head = ObjectHead {
        key: KEY,
        site: "transfer".into(),
        status: 200,
        headers: Vec::new(),
        length: Some(args.hot),
        chunk_size: args.chunk,
        freshness: Freshness::default(),
        fence_position: 0,
        labels: Labels::default(),
    };
    let live = Live::new(store.begin(head).await.map_err(failed)?, None);
    let mut left = args.hot;
    let mut stream = blake3::Hasher::new().update(b"transfer").finalize_xof();
    for index in 0.. {
        let mut chunk = vec![0; usize::try_from(left.min(args.chunk.into())).unwrap_or_default()];
        if chunk.is_empty() {
            break;
        }
        left -= chunk.len() as u64;
        stream.fill(&mut chunk);
        let hash = ChunkHash::of(&chunk);
        live.put_chunk(index, Bytes::from(chunk), hash).await.map_err(failed)?;
    }
    let stored = live.finish(args.hot).await.map_err(failed)?;
    for index in 0..stored.manifest().chunk_count() {
        stored.read_chunk(index).await.map_err(failed)?;
    }
    Ok(stored.object_id())
}

async fn store(dir: &Path, args: &EndArgs, metrics: &Metrics) -> Result<Arc<Store>, TransferError> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        budget_bytes: args.hot * 2 + (64 << 20),
        memory_bytes: args.hot * 2,
        objects_max: 1 << 20,
        cut_from_bytes: CUT_FROM_BYTES,
    };
    let metrics = StoreMetrics::new(metrics).map_err(failed)?;
    Store::open(config, metrics).await.map_err(failed)
}

async fn download(
    args: &EndArgs,
    peer: &str,
    say: &impl Fn(serde_json::Value),
) -> Result<(), TransferError> {
    let security = security(&args.folder, identities::NAMES[1])?;
    let metrics = Metrics::new().map_err(failed)?;
    let transfer = TransferMetrics::new(&metrics).map_err(failed)?;
    let channels = Channels::new(security.clone());
    let peers = Peers::new(channels, Sealer::new(&SECRET), transfer);
    let tasks = Tasks::new();
    let peers = match args.way {
        Way::Grpc => peers,
        Way::Lane => peers.with_lanes(Lanes::new(&security, tasks.clone()).map_err(failed)?),
    };
    let holder = member(peer);
    let object: ObjectId = unhex(&args.object)?;
    let (manifest, _) = peers.manifest(&holder, KEY, object).await.map_err(failed)?;
    let puller = Puller { peers, holder, object, manifest };
    puller.pull(0).await?;
    let (clock, before) = (Clock::start(), usage::of(std::process::id()).cpu);
    say(serde_json::json!({}));
    let bytes = puller.pull_all(args.size, args.in_flight.into()).await?;
    let elapsed_us = u64::try_from(clock.now().as_micros()).unwrap_or(u64::MAX);
    let cpu = usage::of(std::process::id()).cpu.saturating_sub(before);
    let cpu_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
    say(serde_json::json!({ "elapsed_us": elapsed_us, "bytes": bytes, "cpu_ms": cpu_ms }));
    Ok(())
}

/// Asks for chunks and verifies them, as a swarm's session does.
struct Puller {
    peers: Peers,
    holder: Member,
    object: ObjectId,
    manifest: Manifest,
}

impl Puller {
    /// Pulls the object's chunks again and again, so many at a time, until there were so many bytes.
    async fn pull_all(&self, size: u64, in_flight: usize) -> Result<u64, TransferError> {
        let mut chunks = (0..self.manifest.chunk_count()).cycle();
        let mut bytes = 0;
        let mut pulls = FuturesUnordered::new();
        loop {
            let chunk_bytes = u64::from(self.manifest.head().chunk_size);
            while pulls.len() < in_flight && bytes + pulls.len() as u64 * chunk_bytes < size {
                pulls.extend(chunks.next().map(|chunk| self.pull(chunk)));
            }
            match pulls.next().await {
                Some(pulled) => bytes += pulled?,
                None => return Ok(bytes),
            }
        }
    }

    async fn pull(&self, chunk: u32) -> Result<u64, TransferError> {
        let wanted = Wanted { key: KEY, object: Some(self.object), growth: 0 };
        let mut pieces = self.peers.chunks(&self.holder, wanted, &[chunk]).await.map_err(failed)?;
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            let (index, data) = piece.map_err(failed)?;
            if self.manifest.hash(index) != Some(ChunkHash::of(&data)) {
                return Err(TransferError::Failed(format!("chunk {index} is wrong")));
            }
            bytes += data.len() as u64;
        }
        match bytes {
            0 => Err(TransferError::Failed(format!("chunk {chunk} did not come"))),
            bytes => Ok(bytes),
        }
    }
}

fn member(address: &str) -> Member {
    Member {
        cluster_address: address.to_owned(),
        ..Member::node(NodeId(1), identities::NAMES[0].to_owned())
    }
}

fn security(folder: &Path, name: &str) -> Result<Security, TransferError> {
    Security::from_files(&identities::files(folder, name)).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> TransferError {
    TransferError::Failed(error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<ObjectId, TransferError> {
    let bad = || failed(format!("--object {text:?}; expected {} hex digits", 64));
    let digits: Option<Vec<u8>> = (0..text.len() / 2)
        .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    let bytes: [u8; 32] = digits.ok_or_else(bad)?.try_into().map_err(|_| bad())?;
    Ok(ObjectId::new(bytes))
}
