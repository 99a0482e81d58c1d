//! The session with the tier: heartbeats up; view, fences, sites and the session lease down. One
//! session at a time, with any super-node; when it breaks, the next one is tried at once.
//!
//! Invariant: the lease is counted from the moment a heartbeat was *sent*, so that this node never
//! believes in it longer than the super-node does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use shoal_proto::limits::{HEARTBEAT_MS, RPC_DEADLINE_MS};
use shoal_proto::wire::v1::{self, session_down::Event as Down, session_up::Event as Up};
use shoal_proto::{ClusterId, ErrorKind, RpcError};
use tokio::sync::{mpsc, watch};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::clock;
use crate::fences::table::FenceTable;
use crate::membership::{ClusterView, Role};
use crate::metrics::DirectoryMetrics;
use crate::rpc::Channels;
use shoal_proto::wire::v1::index_client::IndexClient;

/// Messages waiting to go up.
const UP_QUEUE_MAX: usize = 16;
/// Heartbeats without an answer before another super-node is tried.
const UNANSWERED_MAX: usize = 4;
/// Pause after every known super-node was tried in vain.
const ROUND_PAUSE_MS: u64 = 200;

/// What the session keeps up to date for everybody else.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: watch::Sender<ClusterView>,
    pub(super) fences: RwLock<FenceTable>,
    /// The position up to which every fence is known.
    pub(super) fenced: watch::Sender<u64>,
    /// Until when the session lease holds, or held.
    pub(super) lease_until: RwLock<Instant>,
    pub(super) welcomed: watch::Sender<bool>,
    /// Counts how often the tier has asked for everything that this node holds.
    pub(super) inventories: watch::Sender<u64>,
    /// Of the sites that were last taken in whole; 0 before that.
    pub(super) sites_revision: AtomicU64,
    pub(super) metrics: DirectoryMetrics,
}

impl Shared {
    pub(super) fn lease_holds(&self) -> bool {
        let holds = clock::monotonic() < self.lease_until();
        self.metrics.session.set(i64::from(holds));
        holds
    }

    pub(super) fn lease_until(&self) -> Instant {
        *self.lease_until.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position up to which every fence is known.
    pub(super) fn fence_position(&self) -> u64 {
        self.fences.read().unwrap_or_else(PoisonError::into_inner).position()
    }

    fn extend_lease(&self, until: Instant) {
        let mut lease = self.lease_until.write().unwrap_or_else(PoisonError::into_inner);
        *lease = (*lease).max(until);
    }

    fn take_view(&self, wire: v1::View) -> Result<(), RpcError> {
        let view = ClusterView::try_from(wire)?;
        self.view.send_if_modified(|current| {
            let newer = view.epoch >= current.epoch && *current != view;
            if newer {
                *current = view;
            }
            newer
        });
        Ok(())
    }

    fn take_fences(&self, batch: &v1::FenceBatch) -> u64 {
        let mut fences = self.fences.write().unwrap_or_else(PoisonError::into_inner);
        batch.fences.iter().for_each(|fence| fences.add(fence));
        fences.advance(batch.position);
        let position = fences.position();
        self.metrics.fence_position.set(i64::try_from(position).unwrap_or(i64::MAX));
        self.fenced.send_if_modified(|last| std::mem::replace(last, position) != position);
        position
    }
}

/// What a session needs to introduce this node.
pub(super) struct Agent {
    pub(super) cluster: ClusterId,
    pub(super) me: v1::NodeInfo,
    /// Addresses of super-nodes, from configuration.
    pub(super) seeds: Vec<String>,
    /// What this node is at any time.
    pub(super) role: watch::Receiver<Role>,
    /// Whether it is about to leave.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) channels: Channels,
    pub(super) stats: Arc<dyn Fn() -> v1::NodeStats + Send + Sync>,
    pub(super) take_sites: Arc<dyn Fn(v1::SiteTable) -> bool + Send + Sync>,
    pub(super) shared: Arc<Shared>,
}

impl Agent {
    /// Keeps a session for as long as it is polled.
    pub(super) async fn run(self) {
        loop {
            for (address, name) in self.super_nodes() {
                if let Err(error) = self.session(&address, &name).await {
                    tracing::debug!(address, %error, "no session with this super-node");
                }
            }
            tokio::time::sleep(Duration::from_millis(ROUND_PAUSE_MS)).await;
        }
    }

    /// Whom to try, in order: live voters of the view, then the configured addresses. Each node
    /// starts at another place, so that sessions spread over the tier.
    fn super_nodes(&self) -> Vec<(String, String)> {
        let view = self.shared.view.borrow().clone();
        let known = view.members.iter().filter(|m| m.role == Role::Super && m.up);
        let mut all: Vec<_> = known.map(|m| (m.cluster_address.clone(), m.name.clone())).collect();
        for seed in &self.seeds {
            if !all.iter().any(|(address, _)| address == seed) {
                all.push((seed.clone(), String::new()));
            }
        }
        if !all.is_empty() {
            let first = self.me.node_id % all.len() as u64;
            all.rotate_left(first as usize);
        }
        all
    }

    async fn session(&self, address: &str, name: &str) -> Result<(), RpcError> {
        let channel: Channel = self.channels.to(address, name)?;
        let (up, queue) = mpsc::channel(UP_QUEUE_MAX);
        let fence_position =
            self.shared.fences.read().unwrap_or_else(PoisonError::into_inner).position();
        let mut role = self.role.clone();
        let now = v1::Role::from(*role.borrow_and_update());
        let hello = v1::Hello {
            cluster_id: self.cluster.to_string(),
            node: Some(v1::NodeInfo {
                role: now.into(),
                draining: *self.draining.borrow(),
                ..self.me.clone()
            }),
            fence_position,
            sites_revision: self.shared.sites_revision.load(Ordering::Relaxed),
        };
        let sites_revision = hello.sites_revision;
        let sent_at = clock::monotonic();
        send(&up, Up::Hello(hello)).await?;
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(queue);
        let mut client =
            IndexClient::new(channel).max_decoding_message_size(crate::rpc::MESSAGE_BYTES_MAX);
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        let mut down = crate::rpc::with_deadline(deadline, client.session(outgoing)).await?;
        let welcome = match tokio::time::timeout(deadline, next(&mut down)).await {
            Ok(first) => first?,
            Err(_) => return Err(RpcError::new(ErrorKind::Retry, "no welcome in time")),
        };
        let Down::Welcome(welcome) = welcome else {
            return Err(RpcError::new(ErrorKind::Bug, "a session began without a welcome"));
        };
        let lease = Duration::from_millis(u64::from(welcome.lease_ms));
        if let Some(view) = welcome.view {
            self.shared.take_view(view)?;
        }
        self.shared.take_fences(&welcome.fences.unwrap_or_default());
        self.shared.extend_lease(sent_at + lease);
        self.shared.metrics.sessions.inc();
        // With other sites, it is welcome once it has them.
        if welcome.sites_revision == sites_revision {
            self.shared.welcomed.send_replace(true);
        }
        if welcome.announce_all {
            self.shared.inventories.send_modify(|count| *count += 1);
        }
        tracing::info!(address, session = welcome.session_id, "session begun");
        tokio::select! {
            ended = self.keep(&up, &mut down, lease) => ended,
            Ok(()) = role.changed() => {
                Err(RpcError::new(ErrorKind::Retry, "this node is something else now"))
            }
        }
    }

    async fn keep(
        &self,
        up: &mpsc::Sender<v1::SessionUp>,
        down: &mut Streaming<v1::SessionDown>,
        lease: Duration,
    ) -> Result<(), RpcError> {
        let mut beat = tokio::time::interval(Duration::from_millis(u64::from(HEARTBEAT_MS)));
        let mut unanswered: VecDeque<(u64, Instant)> = VecDeque::new();
        let mut sequence = 0u64;
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    if unanswered.len() >= UNANSWERED_MAX {
                        return Err(RpcError::new(ErrorKind::Retry, "heartbeats are not answered"));
                    }
                    sequence += 1;
                    unanswered.push_back((sequence, clock::monotonic()));
                    let draining = *self.draining.borrow();
                    let stats = Some(v1::NodeStats { draining, ..(self.stats)() });
                    send(up, Up::Heartbeat(v1::Heartbeat { sequence, stats })).await?;
                }
                event = next(down) => match event? {
                    Down::HeartbeatAck(ack) => {
                        while let Some((number, sent_at)) = unanswered.front().copied() {
                            if number > ack.sequence {
                                break;
                            }
                            unanswered.pop_front();
                            self.shared.extend_lease(sent_at + lease);
                        }
                    }
                    Down::View(view) => self.shared.take_view(view)?,
                    Down::Fences(batch) => {
                        let position = self.shared.take_fences(&batch);
                        send(up, Up::FenceAck(v1::FenceAck { position })).await?;
                    }
                    Down::Sites(table) => {
                        let revision = table.revision;
                        if (self.take_sites)(table) {
                            self.shared.sites_revision.store(revision, Ordering::Relaxed);
                            send(up, Up::SitesAck(v1::SitesAck { revision })).await?;
                        }
                        self.shared.welcomed.send_replace(true);
                    }
                    Down::Welcome(_) => {
                        return Err(RpcError::new(ErrorKind::Bug, "a second welcome"));
                    }
                }
            }
        }
    }
}

async fn send(up: &mpsc::Sender<v1::SessionUp>, event: Up) -> Result<(), RpcError> {
    up.send(v1::SessionUp { event: Some(event) })
        .await
        .map_err(|_| RpcError::new(ErrorKind::Retry, "the session's stream has ended"))
}

async fn next(down: &mut Streaming<v1::SessionDown>) -> Result<Down, RpcError> {
    match down.message().await? {
        Some(v1::SessionDown { event: Some(event) }) => Ok(event),
        Some(_) => Err(RpcError::new(ErrorKind::Bug, "an empty message on the session")),
        None => Err(RpcError::new(ErrorKind::Retry, "the super-node ended the session")),
    }
}
