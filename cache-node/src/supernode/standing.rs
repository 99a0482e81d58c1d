//! Whether this super-node may vouch for others: it is a member, and knows all that was committed
//! until a moment ago. Keeps its own membership, as a session with itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shoal_proto::RpcError;
use shoal_proto::limits::RPC_DEADLINE_MS;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::command::Command;

use super::tier::{Tier, ms};

/// Looks again and again, for as long as it is polled.
pub(super) async fn run(tier: Arc<Tier>) {
    while !tier.leaving.load(Ordering::Relaxed) {
        if let Err(error) = look(&tier).await {
            tracing::debug!(%error, "out of touch with the tier");
        }
        tokio::time::sleep(ms(tier.timing.touch_every_ms())).await;
    }
}

async fn look(tier: &Tier) -> Result<(), RpcError> {
    // What the barrier finds is at least what was committed when it was asked for.
    let asked_ms = tier.now_ms();
    tier.raft.read_barrier(ms(RPC_DEADLINE_MS)).await?;
    if !is_registered(tier) && !tier.leaving.load(Ordering::Relaxed) {
        register(tier).await?;
        return Ok(());
    }
    tier.touched.send_replace(Some(asked_ms));
    Ok(())
}

pub(super) fn is_registered(tier: &Tier) -> bool {
    let record = tier.index.record(tier.me());
    record.is_some_and(|record| {
        let same = v1::NodeInfo::from(&record.member) == tier.info;
        same && record.member.up && record.session_id == tier.life
    })
}

async fn register(tier: &Tier) -> Result<(), RpcError> {
    let put = v1::PutMember {
        node: Some(tier.info.clone()),
        session_id: tier.life,
        super_node_id: tier.info.node_id,
    };
    let outcome = tier.submit(Command::PutMember(put)).await?;
    if outcome.reply.refused {
        tracing::error!(
            name = tier.info.name,
            "this super-node is refused as a member: its id is another live member's, or the \
             cluster is full"
        );
    }
    // With the log's help from elsewhere: who leads may have to learn our address from this very
    // entry before it can send us anything.
    tier.raft.wait_applied(outcome.position, ms(RPC_DEADLINE_MS)).await
}
