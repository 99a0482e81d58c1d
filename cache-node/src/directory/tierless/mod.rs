//! Without the tier: a key's home is then the *node* that rendezvous hashing over the last view
//! puts first. Whatever is learnt this way must be validated with the origin before it is served
//! (ADR 15).
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | asks home nodes, this one included |
//! | `home_node` | this node as a home |
//! | `service` | the same for other nodes |
//! | `table` | PURE: who was said to hold what |

mod home_node;
mod service;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::limits::{ANNOUNCE_CHANGES_MAX, FILL_LEASE_MS, FILL_RENEW_MS};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::home_client::HomeClient;
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, RpcError};
use tonic::transport::Channel;
use tonic::{Response, Status};

pub(super) use home_node::HomeNode;
pub use service::HomeService;
#[cfg(test)]
pub(super) use service::holdings;

use super::announce::{Change, Held};
use super::homes::Avoided;
use super::leases::HeldLeases;
use super::session::Shared;
use super::types::Lease;
use crate::home::Ask;
use crate::membership::{Member, placement};
use crate::rpc::{MESSAGE_BYTES_MAX, with_deadline};

/// Deadline of a request to a home node, in milliseconds.
const HOME_DEADLINE_MS: u64 = 1_000;
/// Home nodes asked before a node goes on by itself.
const HOMES_ASKED_MAX: usize = 3;

/// The nodes as homes of keys.
#[derive(Debug)]
pub(super) struct HomeNodes {
    local: Arc<HomeNode>,
    shared: Arc<Shared>,
    avoided: Avoided,
    held: HeldLeases,
}

impl HomeNodes {
    pub(super) fn new(local: Arc<HomeNode>, shared: Arc<Shared>) -> Self {
        Self { local, shared, avoided: Avoided::default(), held: HeldLeases::default() }
    }

    pub(super) fn service(&self) -> HomeService {
        HomeService::new(self.local.clone())
    }

    pub(super) fn holds(&self, key: &ObjectKey, lease: LeaseId) -> bool {
        self.held.contains(key, lease)
    }

    /// The key's home nodes in order; `None` is this node. Those that just failed come last.
    fn ranked(&self, key: &ObjectKey) -> Vec<Option<Member>> {
        let view = self.shared.view.borrow().clone();
        let me = self.local.me;
        let others = view.nodes_up().filter(|m| m.id != me);
        let ids = others.map(|member| member.id).chain([me]);
        let ranked = self.avoided.last(placement::rank(key, ids));
        ranked.into_iter().map(|id| view.member(id).filter(|_| id != me).cloned()).collect()
    }

    async fn ask<T, F, Fut>(&self, home: &Member, call: F) -> Result<T, RpcError>
    where
        F: FnOnce(HomeClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.local.channels.to(&home.cluster_address, &home.name)?;
        let client = HomeClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let deadline = Duration::from_millis(HOME_DEADLINE_MS);
        let answer = with_deadline(deadline, call(client)).await;
        let failed = answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Retry);
        self.avoided.note(home.id, failed);
        answer
    }

    /// Asks the key's home node, and past it, who has the key, who fetches it, or for the lease.
    pub(super) async fn acquire(
        &self,
        request: &v1::AcquireRequest,
    ) -> Result<v1::AcquireReply, RpcError> {
        let ask = Ask::try_from(request.clone())?;
        let mut last = RpcError::new(ErrorKind::Retry, "no home node");
        for home in self.ranked(&ask.key).into_iter().take(HOMES_ASKED_MAX) {
            let answer = match home {
                None => self.local.acquire(ask.clone()).await,
                Some(home) => {
                    let request = request.clone();
                    self.ask(&home, |mut c| async move { c.acquire(request).await }).await
                }
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A lease was given: the second home node hears of it, and both are kept told.
    pub(super) async fn hold(&self, key: ObjectKey, lease: Lease) {
        self.held.insert(key, lease);
        self.tell_lease(key, lease.id, false).await;
    }

    /// The key's two first home nodes hear that a lease stands, or has ended.
    async fn tell_lease(&self, key: ObjectKey, lease: LeaseId, ended: bool) {
        let me = self.local.me;
        let request = v1::ShadowRequest {
            key: key.to_wire(),
            lease_id: lease.0,
            node_id: me.0,
            lease_ms: FILL_LEASE_MS,
            ended,
            // Home nodes know no fences of the tier's: nobody asks them for a newer fill.
            fence_position: 0,
        };
        let told = self.ranked(&key).into_iter().take(2).map(|home| async {
            let Some(home) = home else {
                self.local.shadow((key, lease), me, ended);
                return Ok(v1::ShadowReply {});
            };
            let request = request.clone();
            self.ask(&home, |mut c| async move { c.shadow(request).await }).await
        });
        for answer in futures::future::join_all(told).await {
            if let Err(error) = answer {
                tracing::debug!(%error, "a home node was not told of a lease");
            }
        }
    }

    /// Ends a lease with an object.
    pub(super) async fn publish(&self, lease: LeaseId, head: v1::IndexHead) {
        let (Ok(key), Ok(object)) =
            (ObjectKey::try_from(head.key.as_ref()), ObjectId::try_from(head.object_id.as_ref()))
        else {
            return;
        };
        self.held.remove(&key, lease);
        let me = self.local.me;
        let request =
            v1::PublishRequest { node_id: me.0, lease_id: lease.0, head: Some(head.clone()) };
        // Both homes: the second may be asked next.
        for home in self.ranked(&key).into_iter().take(2) {
            let Some(home) = home else {
                self.local.publish((key, lease), object, me);
                continue;
            };
            let request = request.clone();
            let told = self.ask(&home, |mut c| async move { c.publish(request).await }).await;
            if let Err(error) = told {
                tracing::debug!(home = home.name, %error, "a home node was not told of a fill");
            }
        }
    }

    /// Ends a lease without an object.
    pub(super) async fn release(&self, key: ObjectKey, lease: LeaseId, pass_ms: u32) {
        self.held.remove(&key, lease);
        let me = self.local.me;
        let request =
            v1::ReleaseRequest { key: key.to_wire(), node_id: me.0, lease_id: lease.0, pass_ms };
        for home in self.ranked(&key).into_iter().take(2) {
            let Some(home) = home else {
                self.local.release((key, lease), me, pass_ms);
                continue;
            };
            let request = request.clone();
            let told = self.ask(&home, |mut c| async move { c.release(request).await }).await;
            if let Err(error) = told {
                tracing::debug!(home = home.name, %error, "a lease was not released, it expires");
            }
        }
    }

    /// Tells the keys' home nodes what this node holds or holds no longer. What they cannot be told
    /// now they are told with the next inventory.
    pub(super) async fn tell(&self, changes: &[Change]) {
        let mut by_home: HashMap<NodeId, (Member, Vec<v1::Holding>)> = HashMap::new();
        for change in changes {
            // This node looks into its own store.
            let Some(Some(home)) = self.ranked(&change.key).into_iter().next() else { continue };
            let (_, batch) = by_home.entry(home.id).or_insert_with(|| (home, Vec::new()));
            batch.push(v1::Holding {
                key: change.key.to_wire(),
                object_id: change.object.to_wire(),
                // Who asks a home node wants all of it.
                gone: change.held != Held::All,
            });
        }
        for (home, holdings) in by_home.into_values() {
            for part in holdings.chunks(ANNOUNCE_CHANGES_MAX) {
                let holdings = part.to_vec();
                let request = v1::TellRequest { node_id: self.local.me.0, holdings };
                let told = self.ask(&home, |mut c| async move { c.tell(request).await }).await;
                if let Err(error) = told {
                    tracing::debug!(home = home.name, %error, "a home node was not told");
                }
            }
        }
    }

    /// Renews every held lease, again and again, and forgets what has run out.
    pub(super) async fn renew(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(u64::from(FILL_RENEW_MS))).await;
            for (key, lease) in self.held.list() {
                self.tell_lease(key, lease.id, false).await;
            }
            self.local.sweep();
        }
    }
}
