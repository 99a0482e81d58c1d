//! A node's view of the super-nodes: who is there, what is fenced, which sites there are, who has or
//! fills a key, what this node holds. Knows the tier only through its RPCs; must not know the tier's insides.
//!
//! | file | purpose |
//! |---|---|
//! | `session` | heartbeats up; view, fences, sites and the session lease down |
//! | `sites` | reads and changes the cluster's sites |
//! | `fenced` | what purges leave of what this node has |
//! | `homes` | calls to a key's home and past it |
//! | `leases` | keeps held fill leases alive at two homes |
//! | `announce`, `others` | batches of what this node holds; how many others hold it |
//! | `tierless` | home nodes, while no super-node answers |
//! | `types` | what is asked and answered |
//! | `owed` | PURE: what the tier is to be told once it answers again |

mod announce;
mod fenced;
mod homes;
mod leases;
mod others;
mod owed;
mod session;
mod sites;
#[cfg(test)]
mod tests;
mod tierless;
mod types;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use prost::Message;
use shoal_proto::limits::{
    RPC_DEADLINE_MS, SESSION_LEASE_MS, VERIFY_DEADLINE_MS, WRITE_DEADLINE_MS,
};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::home_server::HomeServer;
use shoal_proto::{Manifest, ManifestId, NodeId, ObjectId, ObjectKey, RpcError};
use tokio::sync::{mpsc, watch};

pub use announce::{Change, Held};
pub use others::{OTHERS_OBJECTS_MAX, Others, PartHolder};
pub use owed::{Debt, Part, Url};
pub use tierless::HomeService;
pub use types::{Acquired, DirectoryConfig, Giver, HeldHere, Known, Lease, Local, SitesHere};

use types::{index_head, read_answer};

use crate::clock;
use crate::fences::table::FenceTable;
pub use crate::fences::table::Pass;
pub use crate::fences::{Fenced, Matcher, Verdict};
use crate::membership::ClusterView;
use crate::metrics::DirectoryMetrics;
use crate::rpc::{Channels, MESSAGE_BYTES_MAX, with_deadline};
use crate::tasks::Tasks;

/// How long a node whose session lease has run out looks for a super-node before it does without.
const ALONE_AFTER_MS: u64 = 500;
/// Between two looks meanwhile.
const LOOK_EVERY_MS: u64 = 25;

/// A node's side of the tier. Shared by everything that asks for keys.
#[derive(Debug)]
pub struct Directory {
    me: v1::NodeInfo,
    homes: Arc<homes::Homes>,
    held: Arc<leases::HeldLeases>,
    shared: Arc<session::Shared>,
    changes: mpsc::Sender<Change>,
    home_nodes: Arc<tierless::HomeNodes>,
    owed: Mutex<owed::Owed>,
    welcomed: watch::Receiver<bool>,
    view: watch::Receiver<ClusterView>,
    draining: watch::Sender<bool>,
}

impl Directory {
    /// Starts looking for the tier; returns at once.
    pub fn start(
        config: DirectoryConfig,
        channels: &Channels,
        tasks: &Tasks,
        metrics: DirectoryMetrics,
        local: Local,
    ) -> Arc<Self> {
        let DirectoryConfig { cluster, me, seeds, fence_position, role } = config;
        let (view_sender, view) = watch::channel(ClusterView::default());
        let (welcomed_sender, welcomed) = watch::channel(false);
        let (changes, queue) = mpsc::channel(announce::QUEUE_MAX);
        let node = NodeId(me.node_id);
        let homes = Arc::new(homes::Homes::new(channels.clone(), view.clone(), metrics.clone()));
        let held = Arc::new(leases::HeldLeases::default());
        let draining = watch::Sender::new(false);
        let shared = Arc::new(session::Shared {
            view: view_sender,
            fences: RwLock::new(FenceTable::after_pass(fence_position)),
            fenced: watch::Sender::new(fence_position),
            lease_until: RwLock::new(clock::monotonic()),
            welcomed: welcomed_sender,
            inventories: watch::Sender::new(1),
            sites_revision: local.sites.revision.into(),
            metrics,
        });
        let agent = session::Agent {
            cluster,
            me: me.clone(),
            seeds,
            role,
            draining: draining.subscribe(),
            channels: channels.clone(),
            stats: local.stats,
            take_sites: local.sites.take,
            shared: shared.clone(),
        };
        let home = tierless::HomeNode::new(node, channels.clone(), shared.clone(), local.held);
        let home_nodes = Arc::new(tierless::HomeNodes::new(Arc::new(home), shared.clone()));
        tasks.spawn_until_stopped("home-nodes", home_nodes.clone().renew());
        tasks.spawn_until_stopped("directory-session", agent.run());
        tasks.spawn_until_stopped(
            "directory-leases",
            leases::renew(homes.clone(), held.clone(), node),
        );
        tasks.spawn_until_stopped("directory-announce", announce::run(homes.clone(), node, queue));
        let owed = Mutex::default();
        Arc::new(Self {
            me,
            homes,
            held,
            shared,
            changes,
            home_nodes,
            owed,
            welcomed,
            view,
            draining,
        })
    }

    /// Tells the cluster, with the next heartbeat, that this node is about to leave, or stays.
    pub fn set_draining(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    /// Follows [`Directory::set_draining`].
    pub fn watch_draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
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
        self.shared.fence_position()
    }

    /// Follows [`Directory::fence_position`].
    pub fn watch_fences(&self) -> watch::Receiver<u64> {
        self.shared.fenced.subscribe()
    }

    /// Whether this node has to do without the tier: its session lease has run out, and did not
    /// come back within a moment. What it then serves has to be validated with the origin.
    pub async fn is_tierless(&self) -> bool {
        let alone_at = || self.shared.lease_until() + Duration::from_millis(ALONE_AFTER_MS);
        while !self.session_holds() {
            let left = alone_at().saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                return true;
            }
            tokio::time::sleep(left.min(Duration::from_millis(LOOK_EVERY_MS))).await;
        }
        false
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
        let request = self.acquire_request(key, site, known);
        let deadline = Duration::from_millis(RPC_DEADLINE_MS);
        let start = clock::monotonic();
        let reply = loop {
            // While the session lease holds the tier is there, if slow or electing: waiting for it
            // costs a miss some time, going on without it costs the origin the same bytes twice.
            let lease_left =
                self.shared.lease_until().saturating_duration_since(clock::monotonic());
            let patience = lease_left + Duration::from_millis(ALONE_AFTER_MS);
            let called = self.homes.call(&key, patience, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.acquire(request)).await }
            });
            let waited = || clock::since(start) >= Duration::from_millis(WRITE_DEADLINE_MS);
            match called.await {
                Err(error) if !homes::worth_another(&error) => return Err(error),
                Err(_) if self.session_holds() && !waited() => {}
                answered => break answered?,
            }
        };
        let acquired = read_answer(reply, (Giver::Tier, request.fence_position))?;
        if let Acquired::Fill(lease) = acquired {
            self.held.insert(key, lease);
            leases::shadow(&self.homes, self.node_id(), key, lease).await;
        }
        Ok(acquired)
    }

    /// Asks the key's home node the same, while no super-node answers.
    ///
    /// # Errors
    /// When nobody answers, this node included.
    pub async fn acquire_tierless(
        &self,
        key: ObjectKey,
        site: &str,
        known: &Known,
    ) -> Result<Acquired, RpcError> {
        let request = self.acquire_request(key, site, known);
        let acquired = read_answer(self.home_nodes.acquire(&request).await?, (Giver::Node, 0))?;
        if let Acquired::Fill(lease) = acquired {
            self.home_nodes.hold(key, lease).await;
        }
        Ok(acquired)
    }

    fn acquire_request(&self, key: ObjectKey, site: &str, known: &Known) -> v1::AcquireRequest {
        let (suspect_node, suspect_lease) =
            known.suspect.map_or((0, 0), |(node, lease)| (node.0, lease.0));
        v1::AcquireRequest {
            key: key.to_wire(),
            site: site.to_owned(),
            node_id: self.me.node_id,
            stale_manifest_id: known.stale.map(ManifestId::to_wire).unwrap_or_default(),
            suspect_node_id: suspect_node,
            suspect_lease_id: suspect_lease,
            failed_holders: known.failed.iter().map(|id| id.0).collect(),
            fence_position: self.fence_position(),
            since_position: known.since,
        }
    }

    /// Answers other nodes that have to do without the tier; to be added to the cluster listener.
    pub fn home_service(&self) -> HomeServer<HomeService> {
        HomeServer::new(self.home_nodes.service())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Ends a fill with an object: false when a fence that came after it began matches. On an
    /// error the lease is still held. Without the tier the object is published once it answers
    /// again, and true means nothing but that.
    ///
    /// # Errors
    /// When the tier could not commit it in time.
    pub async fn publish(
        &self,
        lease: Option<Lease>,
        manifest: &Manifest,
    ) -> Result<bool, RpcError> {
        let key = manifest.head().key;
        let head = index_head(manifest, self.node_id());
        if let Some(lease) = lease.filter(|lease| lease.giver == Giver::Node) {
            self.home_nodes.publish(lease.id, head.clone()).await;
        }
        if !self.session_holds() {
            self.owe(key, Debt::Publish(manifest.object_id()));
            return Ok(true);
        }
        let lease = lease.filter(|lease| lease.giver == Giver::Tier);
        let request = v1::PublishRequest {
            node_id: self.me.node_id,
            lease_id: lease.map_or(0, |lease| lease.id.0),
            head: Some(head),
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
        if held.giver == Giver::Node {
            return self.home_nodes.release(key, held.id, pass_ms).await;
        }
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
        match lease.giver {
            Giver::Tier => self.held.contains(&key, lease.id),
            Giver::Node => self.home_nodes.holds(&key, lease.id),
        }
    }

    /// Has all super-nodes hash their whole index as of one position, and compares.
    ///
    /// # Errors
    /// When no super-node could have it done in time.
    pub async fn verify(&self) -> Result<v1::VerifyReply, RpcError> {
        let request = v1::VerifyRequest { node_id: self.me.node_id };
        let deadline = Duration::from_millis(VERIFY_DEADLINE_MS + WRITE_DEADLINE_MS);
        self.homes
            .call(&self.anybody(), deadline, |mut client| async move {
                with_deadline(deadline, client.verify(request)).await
            })
            .await
    }

    /// Which others hold each of those objects whole, as the index knows it; at most
    /// [`OTHERS_OBJECTS_MAX`] at a time.
    ///
    /// # Errors
    /// When no super-node answered in time.
    pub async fn others(&self, objects: &[(ObjectKey, ObjectId)]) -> Result<Vec<Others>, RpcError> {
        others::ask(&self.homes, self.node_id(), objects).await
    }

    /// Who else has chunks of an object, as the index knows it; none while no super-node answers.
    pub async fn holders(&self, key: &ObjectKey, object: &ObjectId) -> Vec<PartHolder> {
        if !self.session_holds() {
            return Vec::new();
        }
        others::holders(&self.homes, self.node_id(), (key, object)).await
    }

    async fn end_lease(&self, key: ObjectKey, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.held.remove(&key, lease.id);
            leases::unshadow(&self.homes, self.node_id(), key, lease).await;
        }
    }

    /// Tells the tier of a change in what this node holds, in time; waits while the queue is full.
    /// Without the tier the key's home node is told, and the tier once it answers again.
    pub async fn announce(&self, change: Change) {
        if self.session_holds() {
            // The queue closes only when the node stops: there is nobody left to tell then.
            let _ = self.changes.send(change).await;
            return;
        }
        let (key, object) = (change.key, change.object);
        let nothing = change.held == Held::Nothing;
        self.owe(key, if nothing { Debt::Dropped(object) } else { Debt::Held(object) });
        self.home_nodes.tell(&[change]).await;
    }

    /// Tells home nodes of what this node holds; for a node that has to do without the tier.
    pub async fn tell_home_nodes(&self, changes: &[Change]) {
        self.home_nodes.tell(changes).await;
    }

    fn owe(&self, key: ObjectKey, debt: Debt) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).record(key, debt);
    }

    /// Takes at most `max` entries of what the tier is owed; whoever takes them tells the tier, or
    /// puts them back.
    pub fn take_owed(&self, max: usize) -> Part {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).take(max)
    }

    /// Puts back what the tier could not be told.
    pub fn put_back(&self, part: Part) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).put_back(part);
    }

    /// Purges a URL with all its variants everywhere, now or, without the tier, once it answers
    /// again: until then every node without it validates what it serves.
    ///
    /// # Errors
    /// When the tier is there and could not commit it in time.
    pub async fn invalidate(&self, url: Url) -> Result<(), RpcError> {
        if self.session_holds() {
            let purges = url
                .matchers()
                .map(|matcher| async move { self.purge(&Fenced { matcher, soft: false }).await });
            return futures::future::try_join_all(purges).await.map(|_| ());
        }
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).purge(url);
        Ok(())
    }

    /// Purges; returns when no node serves it any more.
    ///
    /// # Errors
    /// When the tier could not commit it in time.
    pub async fn purge(&self, fenced: &Fenced) -> Result<v1::PurgeReply, RpcError> {
        let matcher = v1::FenceMatcher::from(fenced);
        // Any super-node can do it: spread them, and let repeated tries go the same way.
        let spread = ObjectKey::new(*blake3::hash(&matcher.encode_to_vec()).as_bytes());
        let request = v1::PurgeRequest { matcher: Some(matcher), node_id: self.me.node_id };
        let deadline = Duration::from_millis(WRITE_DEADLINE_MS + u64::from(SESSION_LEASE_MS));
        self.homes
            .call(&spread, deadline, |mut client| {
                let request = request.clone();
                async move { with_deadline(deadline, client.purge(request)).await }
            })
            .await
    }
}
