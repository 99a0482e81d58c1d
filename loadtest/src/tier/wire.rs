//! What is asked of super-nodes, in the messages of the protocol: the only place that changes with
//! them. Sessions are in `member`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shoal_proto::{
    ErrorKind, ObjectId, ObjectRef, RpcError,
    id::OBJECT_REF_BYTES,
    limits::{ANNOUNCE_CHANGES_MAX, FILL_LEASE_MS, RPC_DEADLINE_MS, WRITE_DEADLINE_MS},
    wire::v1::{self, acquire_reply::Answer, fence_matcher::Matcher, index_client::IndexClient},
};
use tonic::{Response, Status, transport::Channel};

/// Most changes that one announcement may carry.
pub const CHANGES_MAX: usize = ANNOUNCE_CHANGES_MAX;
/// Bytes of a key or an object id.
const ID_BYTES: usize = 32;
/// The site of keys that leases are asked for.
const SITE: &str = "default";

/// An object as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Hash of its key.
    pub key: [u8; ID_BYTES],
    /// Hash of its version.
    pub id: [u8; ID_BYTES],
}

/// What an object's holder says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// All of it is here.
    Complete,
    /// Nothing of it is here any more.
    Gone,
}

/// A super-node's own view of who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whois {
    /// Its id.
    pub node_id: u64,
    /// The leader's id; 0 when it knows none.
    pub leader_node_id: u64,
    /// Super-nodes that it knows of, itself included.
    pub super_nodes: usize,
}

fn client(channel: &Channel) -> IndexClient<Channel> {
    IndexClient::new(channel.clone())
}

/// Runs a call within `deadline_ms`.
async fn within<T>(
    deadline_ms: u64,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(Duration::from_millis(deadline_ms), call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => {
            let message = format!("no answer within {deadline_ms} ms");
            Err(RpcError::new(ErrorKind::Retry, message))
        }
    }
}

/// Who is there.
///
/// # Errors
/// When it does not answer in time.
pub async fn whois(channel: &Channel) -> Result<Whois, RpcError> {
    let reply = within(RPC_DEADLINE_MS, client(channel).whois(v1::WhoisRequest::default())).await?;
    Ok(Whois {
        node_id: reply.node.map_or(0, |node| node.node_id),
        leader_node_id: reply.leader_node_id,
        super_nodes: reply.super_nodes.len(),
    })
}

/// Announces that `node_id` holds `objects`, or holds them no more; returns once that is durable.
///
/// # Errors
/// When it is not known to be durable in time.
pub async fn announce(
    channel: &Channel,
    node_id: u64,
    objects: &[Object],
    holding: Holding,
) -> Result<(), RpcError> {
    let mut refs = BytesMut::with_capacity(objects.len() * OBJECT_REF_BYTES);
    for object in objects {
        refs.extend_from_slice(&ObjectRef::from(&ObjectId::new(object.id)).0);
    }
    let refs = refs.freeze();
    let (complete, gone) = match holding {
        Holding::Complete => (refs, Bytes::new()),
        Holding::Gone => (Bytes::new(), refs),
    };
    let request = v1::AnnounceRequest { node_id, complete, gone, partial: Vec::new() };
    within(WRITE_DEADLINE_MS, client(channel).announce(request)).await.map(drop)
}

/// How many live holders of `object` the super-node names.
///
/// # Errors
/// When it does not answer in time.
pub async fn locate(channel: &Channel, object: &Object) -> Result<usize, RpcError> {
    let request =
        v1::LocateRequest { object_id: Bytes::copy_from_slice(&object.id), ..Default::default() };
    Ok(within(RPC_DEADLINE_MS, client(channel).locate(request)).await?.holders.len())
}

/// The same of many objects in one call, in their order.
///
/// # Errors
/// When it does not answer in time.
pub async fn locate_many(channel: &Channel, objects: &[Object]) -> Result<Vec<usize>, RpcError> {
    let mut refs = BytesMut::with_capacity(objects.len() * OBJECT_REF_BYTES);
    for object in objects {
        refs.extend_from_slice(&ObjectRef::from(&ObjectId::new(object.id)).0);
    }
    let request = v1::LocateRequest { object_refs: refs.freeze(), ..Default::default() };
    let reply = within(RPC_DEADLINE_MS, client(channel).locate(request)).await?;
    Ok(reply.located.iter().map(|found| found.complete.len()).collect())
}

/// A fill lease from its first home to its end, as a node goes through it: acquired, told to the
/// second home, released at both.
///
/// # Errors
/// When a home does not answer in time, or gives no lease for a key that nobody has.
pub async fn lease(
    homes: [&Channel; 2],
    node_id: u64,
    key: [u8; ID_BYTES],
) -> Result<(), RpcError> {
    let [first, second] = homes;
    let key = Bytes::copy_from_slice(&key);
    let ask = v1::AcquireRequest {
        key: key.clone(),
        site: SITE.to_owned(),
        node_id,
        ..Default::default()
    };
    let reply = within(RPC_DEADLINE_MS, client(first).acquire(ask)).await?;
    let Some(Answer::Fill(lease)) = reply.answer else {
        let message = "a key that nobody has was answered without a lease";
        return Err(RpcError::new(ErrorKind::Bug, message));
    };
    let shadow = |ended| v1::ShadowRequest {
        key: key.clone(),
        lease_id: lease.lease_id,
        node_id,
        lease_ms: FILL_LEASE_MS,
        ended,
        fence_position: lease.fence_position,
    };
    within(RPC_DEADLINE_MS, client(second).shadow(shadow(false))).await?;
    let release =
        v1::ReleaseRequest { key: key.clone(), node_id, lease_id: lease.lease_id, pass_ms: 0 };
    within(RPC_DEADLINE_MS, client(first).release(release)).await?;
    within(RPC_DEADLINE_MS, client(second).shadow(shadow(true))).await.map(drop)
}

/// What a purge came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Members that acknowledged.
    pub acknowledged: u32,
    /// Members whose lease was waited for instead.
    pub expired: u32,
}

/// Purges one key, as a member.
///
/// # Errors
/// When the fence was not committed in time.
pub async fn purge(channel: &Channel, node_id: u64, object: &Object) -> Result<Purged, RpcError> {
    let matcher = Matcher::Key(Bytes::copy_from_slice(&object.key));
    let matcher = Some(v1::FenceMatcher { matcher: Some(matcher), soft: false });
    let request = v1::PurgeRequest { matcher, node_id };
    let reply = within(2 * WRITE_DEADLINE_MS, client(channel).purge(request)).await?;
    Ok(Purged { acknowledged: reply.nodes_acknowledged, expired: reply.nodes_expired })
}
