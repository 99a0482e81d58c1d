//! The way into the tier: seeds are asked who is there, then the leader to be taken in. On a restart,
//! and whenever what the tier commits does not arrive here, addresses are asked for anew, and ours is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::{ClusterId, ErrorKind, RpcError};

use super::checks;
use super::raft::Ended;
use super::tier::{Tier, ms};
use crate::clock;
use crate::rpc::{Channels, with_deadline};

/// Between two rounds, at first and at most, in milliseconds.
const PAUSE_MS_MIN: u64 = 250;
const PAUSE_MS_MAX: u64 = 2_000;

/// Between two rounds while all is well, in milliseconds: somebody may be there who should know of
/// this tier, or of whom this tier should know.
const INQUIRE_EVERY_MS: u64 = 10_000;

/// Sees to it, for as long as it is polled, that this super-node is a voter of a tier with a leader,
/// or a learner that is held back from being one; ends when it takes part no longer. One whose role
/// the tier chooses does not ask for a place, and only looks for who is there.
pub(super) async fn run(tier: Arc<Tier>, seeds: Vec<String>) {
    let mut ended = tier.raft.ended();
    tokio::select! {
        () = stay(&tier, &seeds) => return,
        _ = ended.wait_for(Option::is_some) => {}
    }
    // Whoever has a session here finds another super-node at once.
    tier.sessions.end_all();
}

async fn stay(tier: &Tier, seeds: &[String]) {
    introduce(tier, seeds).await;
    tier.raft.stand();
    let mut inquired = clock::monotonic();
    let mut raft = tier.raft.watch();
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let state = raft.borrow_and_update().clone();
        let me = tier.me();
        let placed = state.voters.contains(&me) || state.held_back.contains(&me);
        // A leader alone says little: after a restart it may be the one of an earlier life, while
        // the tier looks for us at an address that we have left.
        if placed && state.leader.is_some() && tier.in_touch() {
            pause_ms = PAUSE_MS_MIN;
            let changed = tokio::time::timeout(ms(PAUSE_MS_MAX), raft.changed());
            if matches!(changed.await, Ok(Err(_))) {
                return;
            }
            if clock::since(inquired) >= ms(INQUIRE_EVERY_MS) {
                introduce(tier, seeds).await;
                inquired = clock::monotonic();
            }
            continue;
        }
        let leaders = introduce(tier, seeds).await;
        inquired = clock::monotonic();
        if !placed
            && !tier.info.auto
            && let Err(error) = join(tier, leaders).await
        {
            tracing::info!(%error, "not taken into the tier yet");
        }
        tokio::time::sleep(ms(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Whether a seed knows of a tier: one that has lost its data must not found another beside it, even
/// where its configuration says that it is the founder.
pub(super) async fn finds_tier(
    cluster_id: &ClusterId,
    channels: &Channels,
    seeds: &[String],
) -> bool {
    let asked = seeds.iter().map(|address| async move {
        let mut client = IndexClient::new(channels.to(address, "")?);
        let asking = client.whois(v1::WhoisRequest::default());
        with_deadline(ms(RPC_DEADLINE_MS), asking).await
    });
    let answers = futures::future::join_all(asked).await;
    let mut ours = answers.into_iter().flatten();
    ours.any(|reply| {
        let knows = reply.leader_node_id != 0 || !reply.super_nodes.is_empty();
        reply.cluster_id == cluster_id.as_str() && knows
    })
}

/// Asks every known address who is there; those who may lead, the likeliest first.
async fn introduce(tier: &Tier, seeds: &[String]) -> Vec<v1::NodeInfo> {
    let known = tier.super_nodes().into_iter().filter(|member| member.id != tier.me());
    let mut addresses: BTreeSet<String> = known.map(|member| member.cluster_address).collect();
    addresses.extend(tier.raft.addresses());
    addresses.extend(seeds.iter().cloned());
    addresses.remove(&tier.info.cluster_address);
    let asked = addresses.iter().map(|address| whois(tier, address));
    let mut candidates: Vec<(bool, v1::NodeInfo)> = Vec::new();
    for (address, answer) in addresses.iter().zip(futures::future::join_all(asked).await) {
        match answer {
            Ok(reply) => {
                let leader = reply.leader_node_id;
                let all = reply.super_nodes.into_iter().chain(reply.node);
                candidates.extend(all.map(|info| (info.node_id == leader, info)));
            }
            Err(error) => tracing::debug!(address, %error, "a super-node does not answer"),
        }
    }
    candidates.retain(|(_, info)| info.node_id != tier.info.node_id);
    candidates.sort_by_key(|(leads, info)| (!leads, info.node_id));
    candidates.dedup_by_key(|(_, info)| info.node_id);
    candidates.into_iter().map(|(_, info)| info).collect()
}

pub(super) async fn whois(tier: &Tier, address: &str) -> Result<v1::WhoisReply, RpcError> {
    let mut client = IndexClient::new(tier.channels.to(address, "")?);
    let request = v1::WhoisRequest {
        node: Some(tier.info.clone()),
        cluster_id: tier.cluster_id.to_string(),
        generation: tier.raft.generation(),
    };
    let reply = with_deadline(ms(RPC_DEADLINE_MS), client.whois(request)).await?;
    checks::cluster(&tier.cluster_id, &reply.cluster_id)?;
    tier.raft.meet(reply.generation).await?;
    if reply.removed {
        tier.raft.end(Ended::Removed);
    }
    // Who answers is believed about itself; what it says of others only where nothing is known.
    let itself = checks::member(reply.node.clone())?;
    if itself.role() == v1::Role::Super && itself.node_id != tier.info.node_id {
        tier.raft.learn_address(&itself);
    }
    Ok(reply)
}

/// Asks to be taken in, of one after the other until somebody does it.
async fn join(tier: &Tier, candidates: Vec<v1::NodeInfo>) -> Result<(), RpcError> {
    let mut last = RpcError::new(ErrorKind::Retry, "no super-node answers at the seed addresses");
    for candidate in candidates {
        match join_at(tier, &candidate.cluster_address).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind == ErrorKind::Redirect && !error.address.is_empty() => {
                match join_at(tier, &error.address).await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn join_at(tier: &Tier, address: &str) -> Result<(), RpcError> {
    let mut client = IndexClient::new(tier.channels.to(address, "")?);
    let request = v1::JoinRequest {
        cluster_id: tier.cluster_id.to_string(),
        node: Some(tier.info.clone()),
        generation: tier.raft.generation(),
    };
    with_deadline(ms(WRITE_DEADLINE_MS), client.join(request)).await?;
    tracing::info!(address, "taken into the tier");
    Ok(())
}
