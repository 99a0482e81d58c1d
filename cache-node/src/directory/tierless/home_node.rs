//! A node as the home of keys while no super-node answers: the lease table that super-nodes keep,
//! over what this node holds itself and what others have told it. It answers whoever asks, whether
//! or not it is without the tier itself: the asker knows why it asks.
//!
//! Must not know of HTTP or origins: what it names is validated by whoever asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_proto::limits::FILL_LEASE_MS;
use shoal_proto::wire::v1::peer_client::PeerClient;
use shoal_proto::wire::v1::{self, acquire_reply};
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, RpcError};
use tokio::sync::{Semaphore, watch};

use super::table::{Held, Table};
use crate::clock;
use crate::directory::HeldHere;
use crate::directory::session::Shared;
use crate::home::{Answer, Ask, Filler, Grant, Home, Lease};
use crate::membership::{ClusterView, Member};
use crate::rpc::{Channels, with_deadline};

/// A filler that does not answer for so long is gone, in milliseconds.
const PROBE_DEADLINE_MS: u64 = 300;
/// Probes under way at once; beyond it a suspected filler is taken to live.
const PROBES_MAX: usize = 64;

/// This node as a home.
pub(in crate::directory) struct HomeNode {
    pub(super) me: NodeId,
    pub(super) channels: Channels,
    view: watch::Receiver<ClusterView>,
    shared: Arc<Shared>,
    held_here: HeldHere,
    leases: Mutex<Home>,
    table: Mutex<Table>,
    probes: Semaphore,
    started: Instant,
}

struct Found {
    object: ObjectId,
    holders: Vec<Member>,
}

impl HomeNode {
    pub(in crate::directory) fn new(
        me: NodeId,
        channels: Channels,
        shared: Arc<Shared>,
        held_here: HeldHere,
    ) -> Self {
        Self {
            me,
            channels,
            view: shared.view.subscribe(),
            shared,
            held_here,
            leases: Mutex::new(Home::new(u64::from(FILL_LEASE_MS))),
            table: Mutex::default(),
            probes: Semaphore::new(PROBES_MAX),
            started: clock::monotonic(),
        }
    }

    pub(super) fn member(&self, id: NodeId) -> Option<Member> {
        self.view.borrow().member(id).cloned()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(clock::since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn leases<T>(&self, use_leases: impl FnOnce(u64, &mut Home) -> T) -> T {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        use_leases(self.now_ms(), &mut leases)
    }

    fn table<T>(&self, use_table: impl FnOnce(u64, &mut Table) -> T) -> T {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        use_table(self.now_ms(), &mut table)
    }

    /// Answers a node that wants a key.
    ///
    /// # Errors
    /// `Retry` when the filler has just left, `Bug` without randomness.
    pub(super) async fn acquire(&self, ask: Ask) -> Result<v1::AcquireReply, RpcError> {
        let found = self.find(&ask);
        let mut answer = self.decide(&ask, found.is_some(), None)?;
        if let Answer::Probe(lease) = answer {
            let alive = self.answers(ask.key, lease).await;
            let settled = if alive { Ask { suspect: None, ..ask.clone() } } else { ask.clone() };
            let gone = (!alive).then_some(lease.id);
            answer = self.decide(&settled, found.is_some(), gone)?;
        }
        self.reply(&ask, answer, found)
    }

    /// What was told of the key, and what is here; what a fill brought since stands first.
    fn find(&self, ask: &Ask) -> Option<Found> {
        let of_use = |id: &NodeId| *id != ask.node && !ask.failed.contains(id);
        let told = self.table(|now_ms, table| table.find(now_ms, &ask.key));
        let here = (self.held_here)(&ask.key).filter(|_| of_use(&self.me));
        let (object, mut holders) = match (told, here) {
            (Some((object, holders)), _) => (object, holders),
            (None, Some(object)) => (object, Vec::new()),
            (None, None) => return None,
        };
        holders.retain(|id| of_use(id) && *id != self.me);
        if here == Some(object) {
            holders.insert(0, self.me);
        }
        let mut holders: Vec<_> = holders.into_iter().filter_map(|id| self.member(id)).collect();
        let mut object = object;
        // Nobody is left of those who were told of, but another version is here.
        if let (true, Some(other)) = (holders.is_empty(), here) {
            object = other;
            holders.extend(self.member(self.me));
        }
        (!holders.is_empty()).then_some(Found { object, holders })
    }

    fn decide(&self, ask: &Ask, have: bool, gone: Option<LeaseId>) -> Result<Answer, RpcError> {
        let bug = |error: std::io::Error| RpcError::new(ErrorKind::Bug, error.to_string());
        let id = LeaseId(clock::random_u64().map_err(bug)?);
        let grant = Grant { id, fence_position: self.shared.fence_position() };
        let filler = |lease: &Lease| match self.member(lease.node) {
            None => Filler::Unknown,
            Some(_) if gone == Some(lease.id) => Filler::Gone,
            Some(_) => Filler::Up,
        };
        Ok(self.leases(|now_ms, home| home.acquire(now_ms, ask, (have, grant), filler)))
    }

    fn reply(
        &self,
        ask: &Ask,
        answer: Answer,
        found: Option<Found>,
    ) -> Result<v1::AcquireReply, RpcError> {
        use acquire_reply::Answer as Wire;
        let left = |what: &str| RpcError::new(ErrorKind::Retry, format!("{what} has just left"));
        let answer = match answer {
            Answer::Have => {
                let Found { object, holders } = found.ok_or_else(|| left("the holder"))?;
                let head = v1::IndexHead {
                    key: ask.key.to_wire(),
                    object_id: object.to_wire(),
                    publisher_node_id: holders.first().map_or(0, |holder| holder.id.0),
                    ..v1::IndexHead::default()
                };
                let complete = |member: &Member| v1::Holder {
                    node: Some(member.into()),
                    complete: true,
                    chunks: Vec::new().into(),
                };
                let holders = holders.iter().map(complete).collect();
                Wire::Have(v1::Have { head: Some(head), holders })
            }
            Answer::Fill(lease) => {
                let known = self.shared.fence_position();
                Wire::Fill(v1::FillLease {
                    lease_id: lease.id.0,
                    lease_ms: FILL_LEASE_MS,
                    fence_position: lease.fence_position.unwrap_or(known),
                    head: None,
                })
            }
            Answer::Follow(lease) | Answer::Probe(lease) => {
                let filler = self.member(lease.node).ok_or_else(|| left("the filler"))?;
                let filler = Some((&filler).into());
                Wire::Follow(v1::FollowFill { lease_id: lease.id.0, filler })
            }
            Answer::Pass => Wire::Pass(v1::Pass {}),
        };
        Ok(v1::AcquireReply { answer: Some(answer) })
    }

    /// Whether a filler answers that it still fills.
    async fn answers(&self, key: ObjectKey, lease: Lease) -> bool {
        let Ok(_probe) = self.probes.try_acquire() else { return true };
        let Some(member) = self.member(lease.node) else { return false };
        let channel = self.channels.to(&member.cluster_address, &member.name);
        let Ok(channel) = channel else { return false };
        let request = v1::PingRequest { key: key.to_wire(), lease_id: lease.id.0 };
        let deadline = Duration::from_millis(PROBE_DEADLINE_MS);
        let reply = with_deadline(deadline, PeerClient::new(channel).ping(request)).await;
        reply.is_ok_and(|reply| reply.node_id == lease.node.0 && reply.holds_lease)
    }

    pub(super) fn shadow(&self, (key, id): (ObjectKey, LeaseId), node: NodeId, ended: bool) {
        self.leases(|now_ms, home| match ended {
            true => home.end(&key, id, node),
            false => home.shadow(now_ms, key, (id, None), node),
        });
    }

    pub(super) fn publish(&self, lease: (ObjectKey, LeaseId), object: ObjectId, node: NodeId) {
        self.leases(|now_ms, home| home.publish_ended(now_ms, lease, node, true));
        let held = Held::JustFilled;
        self.table(|now_ms, table| table.holds(now_ms, (lease.0, object), node, held));
    }

    pub(super) fn release(&self, lease: (ObjectKey, LeaseId), node: NodeId, pass_ms: u32) {
        self.leases(|now_ms, home| home.release(now_ms, lease, node, pass_ms));
    }

    pub(super) fn announce(&self, (key, object): (ObjectKey, ObjectId), node: NodeId, held: bool) {
        self.table(|now_ms, table| match held {
            true => table.holds(now_ms, (key, object), node, Held::Before),
            false => table.dropped(&key, &object, node),
        });
    }

    /// Forgets leases that have run out.
    pub(super) fn sweep(&self) {
        self.leases(|now_ms, home| home.sweep(now_ms));
    }
}

impl std::fmt::Debug for HomeNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HomeNode").field("me", &self.me).finish_non_exhaustive()
    }
}
