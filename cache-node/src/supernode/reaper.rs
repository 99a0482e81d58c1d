//! What has run out: sessions' leases, fill leases, and on the leader the super-nodes that fell
//! silent.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use shoal_proto::NodeId;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::command::Command;

use super::index::Record;
use super::sweep::Sweep;
use super::tier::{Tier, ms};
use crate::clock;
use crate::membership::Role;

/// Most members declared down at once; the others' turn comes at the next look.
const DOWNS_MAX: usize = 256;

/// Looks again and again, for as long as it is polled.
pub(super) async fn run(tier: Arc<Tier>) {
    let mut sweep = Sweep::default();
    loop {
        tokio::time::sleep(ms(tier.timing.sweep_every_ms())).await;
        let now_ms = tier.now_ms();
        let records = tier.index.records();
        tier.home(|home| home.sweep(now_ms));
        tier.sessions.ledger(|ledger| ledger.sweep(now_ms));
        let retired = tier.index.retired();
        let absences = || tier.absences.lock().unwrap_or_else(PoisonError::into_inner);
        absences().update(now_ms, &records, &retired);
        let heads = tier.index.heads_estimate();
        tier.metrics.heads.set(i64::try_from(heads).unwrap_or(i64::MAX));
        let void_slots = tier.index.void_slots().len();
        tier.metrics.void_slots.set(i64::try_from(void_slots).unwrap_or(i64::MAX));
        let mut downs = lost_sessions(&tier, now_ms);
        downs.extend(former_sessions(&tier, now_ms, &records));
        downs.extend(silent(&tier, &mut sweep, now_ms, &records));
        declare(&tier, downs).await;
    }
}

/// Sessions here whose lease ran out, where they still vouch for their members.
fn lost_sessions(tier: &Tier, now_ms: u64) -> Vec<v1::MemberDown> {
    let lost = tier.sessions.ledger(|ledger| ledger.lost(now_ms));
    let mut downs = Vec::new();
    for (node, session_id) in lost {
        let record = tier.index.record(node);
        if record.is_some_and(|record| record.member.up && record.session_id == session_id) {
            downs.push(v1::MemberDown { node_id: node.0, session_id });
        } else {
            tier.sessions.ledger(|ledger| ledger.settled(session_id));
        }
    }
    downs
}

/// Members for whom an earlier life of this super-node vouched, and who did not come back anywhere.
fn former_sessions(tier: &Tier, now_ms: u64, records: &[Record]) -> Vec<v1::MemberDown> {
    let over = now_ms >= tier.timing.trust_ms();
    let ours = |record: &&Record| {
        record.member.up && record.member.role == Role::Node && record.super_node == tier.me()
    };
    let unknown =
        |record: &&Record| !tier.sessions.ledger(|ledger| ledger.knows(record.session_id));
    let former = records.iter().filter(|_| over).filter(ours).filter(unknown);
    let down = |record: &Record| v1::MemberDown {
        node_id: record.member.id.0,
        session_id: record.session_id,
    };
    former.map(down).collect()
}

/// On the leader: super-nodes that fell silent, and whom they vouched for.
fn silent(tier: &Tier, sweep: &mut Sweep, now_ms: u64, records: &[Record]) -> Vec<v1::MemberDown> {
    if !tier.raft.is_leader() {
        sweep.forget();
        return Vec::new();
    }
    let lease_ms = tier.timing.lease_ms();
    let state = tier.raft.state();
    let now = clock::monotonic();
    let lately = Duration::from_millis(tier.timing.touch_ms());
    let heard = |id: NodeId| {
        let last = state.heartbeats.get(&id).copied().flatten();
        last.is_some_and(|at| now.saturating_duration_since(at) < lately)
    };
    sweep.due((now_ms, lease_ms), tier.me(), records, heard)
}

async fn declare(tier: &Tier, mut downs: Vec<v1::MemberDown>) {
    downs.truncate(DOWNS_MAX);
    let declared = downs.into_iter().map(|down| async move {
        match tier.submit(Command::MemberDown(down)).await {
            Ok(outcome) if !outcome.reply.refused => {
                tracing::info!(node = %NodeId(down.node_id), "a member's lease ran out");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a member could not be declared down yet"),
        }
    });
    join_all(declared).await;
}
