//! A node's view of the super-nodes: who is there, what is fenced, who has or fills a key, what
//! this node holds. Knows the tier only through its RPCs; must not know the tier's insides.
//!
//! | file | purpose |
//! |---|---|
//! | `session` | heartbeats up; view, fences and the session lease down |
//! | `homes` | calls to a key's home and past it |
//! | `leases` | keeps held fill leases alive at two homes |
//! | `announce` | batches of what this node holds |
//! | `fences` | PURE: does a purge cover an object? |

mod announce;
mod fences;
mod homes;
mod leases;
mod session;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use shoal_proto::limits::{RPC_DEADLINE_MS, SESSION_LEASE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{
    ClusterId, ErrorKind, LeaseId, Manifest, ManifestId, NodeId, ObjectHead, ObjectKey, RpcError,
};
use tokio::sync::{mpsc, watch};

pub use announce::Change;

use crate::membership::{ClusterView, Member};
use crate::metrics::DirectoryMetrics;
use crate::rpc::{Channels, with_deadline};
use crate::tasks::Tasks;

/// How long a node without a session looks for a super-node before it goes on alone.
const ALONE_AFTER_MS: u64 = 500;

/// How a node finds the tier.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// The cluster that both sides must belong to.
    pub cluster: ClusterId,
    /// This node, as it introduces itself.
    pub me: v1::NodeInfo,
    /// Addresses of super-nodes.
    pub seeds: Vec<String>,
}

/// What a home answers to a node that wants a key.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// Somebody has it.
    Have {
        /// Its head in the index.
        head: v1::IndexHead,
        /// Who has it.
        holders: Vec<Member>,
    },
    /// Somebody fetches it.
    Follow {
        /// The fill's lease.
        lease: LeaseId,
        /// Who.
        filler: Member,
    },
    /// This node is to fetch it.
    Fill(Lease),
    /// Its responses could not be stored lately: everybody asks the origin for himself.
    Pass,
}

/// The right and the duty to fetch a key from its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// Fences from here on hold against the fill.
    pub fence_position: u64,
}

/// What the asker already knows about a key.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The manifest that it has and found stale.
    pub stale: Option<ManifestId>,
    /// The filler that it lost, and that filler's lease.
    pub suspect: Option<(NodeId, LeaseId)>,
    /// Holders that could not give it the object.
    pub failed: Vec<NodeId>,
}

/// What a purge covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// One key's object.
    Key(ObjectKey),
    /// All objects of a site.
    Site(String),
}

/// A node's side of the tier. Shared by everything that asks for keys.
#[derive(Debug)]
pub struct Directory {
    me: v1::NodeInfo,
    homes: Arc<homes::Homes>,
    held: Arc<leases::HeldLeases>,
    shared: Arc<session::Shared>,
    changes: mpsc::Sender<Change>,
    welcomed: watch::Receiver<bool>,
    view: watch::Receiver<ClusterView>,
}

impl Directory {
    /// Starts looking for the tier; returns at once.
    pub fn start(
        config: DirectoryConfig,
        channels: &Channels,
        tasks: &Tasks,
        metrics: DirectoryMetrics,
        stats: Arc<dyn Fn() -> v1::NodeStats + Send + Sync>,
    ) -> Arc<Self> {
        let DirectoryConfig { cluster, me, seeds } = config;
        let (view_sender, view) = watch::channel(ClusterView::default());
        let (welcomed_sender, welcomed) = watch::channel(false);
        let (changes, queue) = mpsc::channel(announce::QUEUE_MAX);
        let node = NodeId(me.node_id);
        let homes = Arc::new(homes::Homes::new(channels.clone(), view.clone(), metrics.clone()));
        let held = Arc::new(leases::HeldLeases::default());
        let shared = Arc::new(session::Shared {
            view: view_sender,
            fences: RwLock::default(),
            lease_until: Mutex::default(),
            welcomed: welcomed_sender,
            inventories: watch::Sender::new(1),
            metrics,
        });
        let agent = session::Agent {
            cluster,
            me: me.clone(),
            seeds,
            channels: channels.clone(),
            stats,
            shared: shared.clone(),
        };
        tasks.spawn_until_stopped("directory-session", agent.run());
        tasks.spawn_until_stopped(
            "directory-leases",
            leases::renew(homes.clone(), held.clone(), node),
        );
        tasks.spawn_until_stopped("directory-announce", announce::run(homes.clone(), node, queue));
        Arc::new(Self { me, homes, held, shared, changes, welcomed, view })
    }

    /// This node's number.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.me.node_id)
    }

    /// The last known view.
    pub fn view(&self) -> ClusterView {
        self.view.borrow().clone()
    }

    /// Follows the view.
    pub fn watch_view(&self) -> watch::Receiver<ClusterView> {
        self.view.clone()
    }

    /// Waits until a super-node has welcomed this node once.
    pub async fn welcomed(&self) {
        let mut welcomed = self.welcomed.clone();
        // The sender lives as long as this directory.
        let _ = welcomed.wait_for(|welcomed| *welcomed).await;
    }

    /// Changes whenever the tier wants to be told everything that this node holds; once at the
    /// start, since a restart may have lost the newest objects.
    pub fn inventories(&self) -> watch::Receiver<u64> {
        self.shared.inventories.subscribe()
    }

    /// Whether the session lease holds: without it nothing counts as fresh.
    pub fn session_holds(&self) -> bool {
        self.shared.lease_holds()
    }

    /// The position up to which this node knows every fence.
    pub fn fence_position(&self) -> u64 {
        self.shared.fences.read().unwrap_or_else(PoisonError::into_inner).position()
    }

    /// Whether a purge covers the object.
    pub fn fenced(&self, head: &ObjectHead) -> bool {
        self.shared.fences.read().unwrap_or_else(PoisonError::into_inner).covers(head)
    }

    /// Asks the key's home who has it, who fetches it, or for the lease to do so.
    ///
    /// # Errors
    /// When no super-node answers.
    pub async fn acquire(
        &self,
        key: ObjectKey,
        site: &str,
        known: &Known,
    ) -> Result<Acquired, RpcError> {
        let (suspect_node, suspect_lease) =
            known.suspect.map_or((0, 0), |(node, lease)| (node.0, lease.0));
        let request = v1::AcquireRequest {
            key: key.to_wire(),
            site: site.to_owned(),
            node_id: self.me.node_id,
            stale_manifest_id: known.stale.map(ManifestId::to_wire).unwrap_or_default(),
            suspect_node_id: suspect_node,
            suspect_lease_id: suspect_lease,
            failed_holders: known.failed.iter().map(|id| id.0).collect(),
        };
        // While the session lease holds the tier is there, if slow or electing: waiting for it
        // costs a miss some time, going on without it costs the origin the same bytes twice.
        let patience_ms = if self.session_holds() { WRITE_DEADLINE_MS } else { ALONE_AFTER_MS };
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        let reply = self
            .homes
            .call(&key, Duration::from_millis(patience_ms), |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.acquire(request)).await }
            })
            .await?;
        let acquired = read_answer(reply)?;
        if let Acquired::Fill(lease) = acquired {
            self.held.insert(key, lease.id);
            leases::shadow(&self.homes, self.node_id(), key, lease.id).await;
        }
        Ok(acquired)
    }

    /// Ends a fill with an object: false when a fence that came after it began matches. On an
    /// error the lease is still held.
    ///
    /// # Errors
    /// When the tier could not commit it in time.
    pub async fn publish(
        &self,
        lease: Option<Lease>,
        manifest: &Manifest,
    ) -> Result<bool, RpcError> {
        let key = manifest.head().key;
        let request = v1::PublishRequest {
            node_id: self.me.node_id,
            lease_id: lease.map_or(0, |lease| lease.id.0),
            head: Some(index_head(manifest, self.node_id())),
        };
        let deadline = Duration::from_millis(WRITE_DEADLINE_MS);
        let reply = self
            .homes
            .call(&key, deadline, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.publish(request)).await }
            })
            .await?;
        self.end_lease(key, lease).await;
        Ok(reply.current)
    }

    /// Ends a fill without an object; for `pass_ms` nobody waits for another's fill of the key.
    pub async fn release(&self, key: ObjectKey, lease: Option<Lease>, pass_ms: u32) {
        let Some(held) = lease else { return };
        let request = v1::ReleaseRequest {
            key: key.to_wire(),
            node_id: self.me.node_id,
            lease_id: held.id.0,
            pass_ms,
        };
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        let released = self
            .homes
            .call(&key, deadline, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.release(request)).await }
            })
            .await;
        if let Err(error) = released {
            tracing::debug!(%error, "a lease was not released, it will expire");
        }
        self.end_lease(key, lease).await;
    }

    /// Whether this node still holds the lease.
    pub fn holds(&self, key: ObjectKey, lease: Lease) -> bool {
        self.held.contains(&key, lease.id)
    }

    async fn end_lease(&self, key: ObjectKey, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.held.remove(&key, lease.id);
            leases::unshadow(&self.homes, self.node_id(), key, lease.id).await;
        }
    }

    /// Tells the tier of a change in what this node holds, in time; waits while the queue is full.
    pub async fn announce(&self, change: Change) {
        // The queue closes only when the node stops: there is nobody left to tell then.
        let _ = self.changes.send(change).await;
    }

    /// Purges; returns when no node serves it any more.
    ///
    /// # Errors
    /// When the tier could not commit it in time.
    pub async fn purge(&self, purge: Purge) -> Result<v1::PurgeReply, RpcError> {
        use v1::fence_matcher::Matcher;
        // Any super-node can do it: spread them, and let repeated tries go the same way.
        let (key, matcher) = match purge {
            Purge::Key(key) => (key, Matcher::Key(key.to_wire())),
            Purge::Site(site) => {
                (ObjectKey::new(*blake3::hash(site.as_bytes()).as_bytes()), Matcher::Site(site))
            }
        };
        let request =
            v1::PurgeRequest { matcher: Some(v1::FenceMatcher { matcher: Some(matcher) }) };
        let deadline = Duration::from_millis(WRITE_DEADLINE_MS + u64::from(SESSION_LEASE_MS));
        self.homes
            .call(&key, deadline, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.purge(request)).await }
            })
            .await
    }
}

fn index_head(manifest: &Manifest, publisher: NodeId) -> v1::IndexHead {
    let head = manifest.head();
    v1::IndexHead {
        key: head.key.to_wire(),
        object_id: manifest.object_id().to_wire(),
        manifest_id: manifest.id().to_wire(),
        site: head.site.clone(),
        length: manifest.length(),
        chunk_count: manifest.chunk_count(),
        fresh_until_ms: head.freshness.fresh_until_ms(),
        fence_position: head.fence_position,
        publisher_node_id: publisher.0,
    }
}

fn read_answer(reply: v1::AcquireReply) -> Result<Acquired, RpcError> {
    use v1::acquire_reply::Answer;
    let missing = |what: &str| RpcError::new(ErrorKind::Bug, format!("an answer without {what}"));
    let member = |info: v1::NodeInfo| {
        let up = v1::MemberState::Up.into();
        Member::try_from(v1::Member { info: Some(info), state: up, voter: false })
    };
    match reply.answer.ok_or_else(|| missing("a kind"))? {
        Answer::Have(have) => {
            let head = have.head.ok_or_else(|| missing("a head"))?;
            let nodes = have.holders.into_iter().filter_map(|holder| holder.node);
            let holders = nodes.map(member).collect::<Result<Vec<_>, _>>()?;
            Ok(Acquired::Have { head, holders })
        }
        Answer::Follow(follow) => {
            let filler = follow.filler.ok_or_else(|| missing("a filler"))?;
            Ok(Acquired::Follow { lease: LeaseId(follow.lease_id), filler: member(filler)? })
        }
        Answer::Fill(fill) => Ok(Acquired::Fill(Lease {
            id: LeaseId(fill.lease_id),
            fence_position: fill.fence_position,
        })),
        Answer::Pass(_) => Ok(Acquired::Pass),
    }
}
