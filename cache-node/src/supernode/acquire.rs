//! A node wants a key: what the index has is looked up, the lease table decides, and a filler that
//! the asker could not reach is probed before it loses its lease.

use std::sync::{Arc, PoisonError};

use futures::FutureExt;
use shoal_proto::limits::HOLDERS_ANSWERED_MAX;
use shoal_proto::wire::v1::peer_client::PeerClient;
use shoal_proto::wire::v1::{self, acquire_reply};
use shoal_proto::{ErrorKind, LeaseId, NodeId, ObjectId, ObjectKey, ObjectRef, RpcError, wire};

use super::holders::{self, LiveHolder};
use super::index::{Holders, Holding, Index};
use super::tier::{Probe, Tier, bug, ms};
use crate::clock;
use crate::home::{Answer, Ask, Filler, Grant, Lease};
use crate::membership::Member;
use crate::rpc::with_deadline;

/// A filler that does not answer for so long is gone, in milliseconds.
const PROBE_DEADLINE_MS: u64 = 300;
/// Probes under way at once; beyond it a suspected filler is taken to live.
const PROBES_MAX: usize = 1_024;

/// What the index has for an asker.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) head: Option<v1::IndexHead>,
    pub(super) holders: Vec<LiveHolder>,
    pub(super) fresh: bool,
}

/// Answers a node that wants a key.
///
/// # Errors
/// `Retry` when this super-node may not know all that was committed: what it has could be purged;
/// `Bug` when the index cannot be read.
pub(super) async fn acquire(
    tier: &Arc<Tier>,
    ask: Ask,
    asker: &Member,
) -> Result<v1::AcquireReply, RpcError> {
    tier.until_in_touch().await?;
    let found = look_up(tier, &ask).await?;
    let (mut answer, mut given) = decide(tier, &ask, &found, None)?;
    if let Answer::Probe(lease) = answer {
        let alive = probe(tier, ask.key, lease).await;
        let settled = if alive { Ask { suspect: None, ..ask.clone() } } else { ask.clone() };
        let gone = (!alive).then_some(lease.id);
        (answer, given) = decide(tier, &settled, &found, gone)?;
    }
    let (Answer::Fill(lease), true) = (answer, given) else {
        return reply(tier, answer, found, asker);
    };
    // Between the look and the decision a publish may have ended the lease that stood here: what
    // was published is there now, and a second fill of it would be one too many.
    match look_up(tier, &ask).await {
        Ok(found) if !found.fresh => reply(tier, answer, found, asker),
        published => {
            tier.home(|home| home.end(&ask.key, lease.id, lease.node));
            reply(tier, Answer::Have, published?, asker)
        }
    }
}

async fn look_up(tier: &Arc<Tier>, ask: &Ask) -> Result<Found, RpcError> {
    let wanted = ask.clone();
    tier.read(move |tier| look(&tier.index, &wanted, clock::unix_ms(), |node| is_live(tier, node)))
        .await
}

/// A head is of use when live holders have all of it between them, and the asker does not say
/// otherwise.
pub(super) fn look(
    index: &Index,
    ask: &Ask,
    now_unix_ms: u64,
    is_live: impl Fn(NodeId) -> bool,
) -> Result<Found, RpcError> {
    let Some(head) = index.head(&ask.key).map_err(bug)? else { return Ok(Found::default()) };
    let object = wire::id_from::<ObjectId>("object_id", &head.object_id)?;
    let of_use = |id: &NodeId| *id != ask.node && !ask.failed.contains(id);
    let known = known_holders(index, &object, of_use)?;
    let mut holders = known.clone();
    holders.retain(|holder| is_live(holder.member.id));
    if !holders::cover(&holders, head.chunk_count) {
        // A session that broke is no proof of a lost node: asking one in vain is cheap, the
        // origin's bytes are not.
        holders = known;
    }
    if !holders::cover(&holders, head.chunk_count) {
        return Ok(Found::default());
    }
    let known_stale =
        ask.stale.is_some_and(|stale| stale.as_bytes().as_slice() == head.manifest_id.as_ref());
    let fresh = now_unix_ms < head.fresh_until_ms && !known_stale;
    Ok(Found { head: Some(head), holders, fresh })
}

/// Holders of an object that are up and whose session did not just break.
pub(super) fn live_holders(
    tier: &Tier,
    object: &ObjectId,
    of_use: impl Fn(&NodeId) -> bool,
) -> Result<Vec<LiveHolder>, RpcError> {
    let mut holders = known_holders(&tier.index, object, of_use)?;
    holders.retain(|holder| is_live(tier, holder.member.id));
    Ok(holders)
}

fn is_live(tier: &Tier, node: NodeId) -> bool {
    let session = tier.index.session_of(node);
    session.is_some_and(|id| !tier.sessions.ledger(|ledger| ledger.has_ended(id)))
}

/// Live holders of many objects, by their ids.
pub(super) fn locate(tier: &Tier, objects: &[ObjectRef]) -> Result<Vec<v1::Located>, RpcError> {
    let live = |nodes: Vec<NodeId>| {
        let live = nodes.into_iter().filter(|node| is_live(tier, *node));
        live.take(HOLDERS_ANSWERED_MAX).map(|node| node.0).collect()
    };
    let all = tier.index.locate(objects).map_err(bug)?.into_iter();
    let located = |found: Holders| v1::Located {
        complete: live(found.complete),
        partial: live(found.partial),
    };
    Ok(all.map(located).collect())
}

/// Holders of an object, whether or not they are up.
fn known_holders(
    index: &Index,
    object: &ObjectId,
    of_use: impl Fn(&NodeId) -> bool,
) -> Result<Vec<LiveHolder>, RpcError> {
    let all = index.holders(object).map_err(bug)?.into_iter();
    let known =
        |(id, holding): (NodeId, Holding)| Some(LiveHolder { member: index.member(id)?, holding });
    Ok(all.filter(|(id, _)| of_use(id)).filter_map(known).collect())
}

/// What the lease table says, and whether that is a lease that it gave just now.
fn decide(
    tier: &Tier,
    ask: &Ask,
    found: &Found,
    gone: Option<LeaseId>,
) -> Result<(Answer, bool), RpcError> {
    let filler = |lease: &Lease| filler(&tier.index, lease, gone);
    let id = LeaseId(clock::random_u64().map_err(bug)?);
    let grant = Grant { id, fence_position: tier.index.fence_position() };
    let now_ms = tier.now_ms();
    let answer = tier.home(|home| home.acquire(now_ms, ask, (found.fresh, grant), filler));
    let given = matches!(answer, Answer::Fill(lease) if lease.id == id);
    if given {
        tier.metrics.leases_given.inc();
    }
    Ok((answer, given))
}

/// How a filler is doing, by the index and by who was found gone just now.
pub(super) fn filler(index: &Index, lease: &Lease, gone: Option<LeaseId>) -> Filler {
    match index.member(lease.node) {
        None => Filler::Unknown,
        Some(member) if !member.up || gone == Some(lease.id) => Filler::Gone,
        Some(_) => Filler::Up,
    }
}

fn reply(
    tier: &Tier,
    answer: Answer,
    found: Found,
    asker: &Member,
) -> Result<v1::AcquireReply, RpcError> {
    use acquire_reply::Answer as Wire;
    let Found { head, holders, fresh: _ } = found;
    let answer = match answer {
        Answer::Have => {
            let publisher = head.as_ref().map_or(0, |head| head.publisher_node_id);
            let chosen = holders::choose(holders, NodeId(publisher), Some(asker));
            let holders = chosen.into_iter().map(v1::Holder::from).collect();
            Wire::Have(v1::Have { head, holders })
        }
        Answer::Fill(lease) => Wire::Fill(v1::FillLease {
            lease_id: lease.id.0,
            lease_ms: tier.timing.fill_lease_ms,
            fence_position: lease.fence_position.unwrap_or_else(|| tier.index.fence_position()),
            head,
        }),
        Answer::Follow(lease) | Answer::Probe(lease) => {
            let lost = || RpcError::new(ErrorKind::Retry, "the filler has just left, ask again");
            let filler = tier.index.member(lease.node).ok_or_else(lost)?;
            Wire::Follow(v1::FollowFill { lease_id: lease.id.0, filler: Some((&filler).into()) })
        }
        Answer::Pass => Wire::Pass(v1::Pass {}),
    };
    Ok(v1::AcquireReply { answer: Some(answer) })
}

/// Whether a filler answers that it still fills. All who suspect one fill share one probe.
async fn probe(tier: &Arc<Tier>, key: ObjectKey, lease: Lease) -> bool {
    let running: Probe = {
        let mut probes = tier.probes.lock().unwrap_or_else(PoisonError::into_inner);
        if !probes.contains_key(&lease.id) && probes.len() >= PROBES_MAX {
            return true;
        }
        let start = || ping(Arc::clone(tier), key, lease).boxed().shared();
        probes.entry(lease.id).or_insert_with(start).clone()
    };
    let alive = running.await;
    tier.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.id);
    alive
}

async fn ping(tier: Arc<Tier>, key: ObjectKey, lease: Lease) -> bool {
    let Some(member) = tier.index.member(lease.node) else { return false };
    let Ok(channel) = tier.channels.to(&member.cluster_address, &member.name) else { return false };
    let mut client = PeerClient::new(channel);
    let request = v1::PingRequest { key: key.to_wire(), lease_id: lease.id.0 };
    match with_deadline(ms(PROBE_DEADLINE_MS), client.ping(request)).await {
        Ok(reply) => reply.node_id == lease.node.0 && reply.holds_lease,
        Err(error) => {
            tracing::debug!(filler = member.name, %error, "a suspected filler does not answer");
            false
        }
    }
}
