//! The fill leases that this node holds, kept alive at the key's two first homes: when the first
//! is lost, the second already knows who fills, and nobody asks the origin again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_proto::limits::{FILL_LEASE_MS, FILL_RENEW_MS, RPC_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::{LeaseId, NodeId, ObjectKey, RpcError};

use super::Lease;
use super::homes::Homes;
use crate::rpc::with_deadline;

/// Homes that know a lease: the key's own and the one that takes over from it.
const HOMES_TOLD: usize = 2;
/// How long a fill waits for the second home before it starts.
const SHADOW_DEADLINE_MS: u64 = 250;

/// The leases held now.
#[derive(Debug, Default)]
pub(super) struct HeldLeases {
    held: Mutex<HashMap<ObjectKey, Lease>>,
}

impl HeldLeases {
    pub(super) fn insert(&self, key: ObjectKey, lease: Lease) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key, lease);
    }

    pub(super) fn remove(&self, key: &ObjectKey, lease: LeaseId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(key).is_some_and(|held| held.id == lease) {
            held.remove(key);
        }
    }

    pub(super) fn contains(&self, key: &ObjectKey, lease: LeaseId) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).is_some_and(|held| held.id == lease)
    }

    pub(super) fn list(&self) -> Vec<(ObjectKey, Lease)> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|(key, lease)| (*key, *lease)).collect()
    }
}

/// Tells the key's second home of a new lease; a lost or slow one is not waited for.
pub(super) async fn shadow(homes: &Homes, node: NodeId, key: ObjectKey, lease: Lease) {
    let Some(second) = homes.ranked(&key).into_iter().nth(1) else { return };
    let request = request(node, key, lease, false);
    let deadline = Duration::from_millis(SHADOW_DEADLINE_MS);
    if let Ok(mut client) = homes.client(&second) {
        let told = with_deadline(deadline, client.shadow(request)).await;
        if let Err(error) = told {
            tracing::debug!(home = second.name, %error, "the second home was not told of a lease");
        }
    }
}

/// Tells the key's second home that the lease has ended.
pub(super) async fn unshadow(homes: &Homes, node: NodeId, key: ObjectKey, lease: Lease) {
    tell(homes, request(node, key, lease, true), key).await;
}

/// Renews every held lease, again and again.
pub(super) async fn renew(homes: Arc<Homes>, held: Arc<HeldLeases>, node: NodeId) {
    loop {
        tokio::time::sleep(Duration::from_millis(u64::from(FILL_RENEW_MS))).await;
        for (key, lease) in held.list() {
            tell(&homes, request(node, key, lease, false), key).await;
        }
    }
}

async fn tell(homes: &Homes, request: v1::ShadowRequest, key: ObjectKey) {
    let told = homes.ranked(&key).into_iter().take(HOMES_TOLD).map(|home| {
        let request = request.clone();
        async move {
            let deadline = Duration::from_millis(RPC_DEADLINE_MS);
            let mut client = homes.client(&home)?;
            with_deadline(deadline, client.shadow(request)).await
        }
    });
    for answer in futures::future::join_all(told).await {
        let answer: Result<v1::ShadowReply, RpcError> = answer;
        if let Err(error) = answer {
            tracing::debug!(%error, "a home was not told of a lease");
        }
    }
}

fn request(node: NodeId, key: ObjectKey, lease: Lease, ended: bool) -> v1::ShadowRequest {
    v1::ShadowRequest {
        key: key.to_wire(),
        lease_id: lease.id.0,
        node_id: node.0,
        lease_ms: FILL_LEASE_MS,
        ended,
        fence_position: lease.fence_position,
    }
}
