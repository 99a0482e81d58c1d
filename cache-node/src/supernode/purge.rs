//! Purges: one fence in the log, then the wait until no member can serve what it covers.
//!
//! After a fence was committed, a member may still serve what it covers only while it trusts its
//! lease and has not heard of the fence. Whom a super-node vouches for is known to that super-node
//! alone, so each is asked to say when all its members have acknowledged or can trust nothing any
//! more. One that cannot be asked stops vouching by itself (it is out of touch, or knows the fence
//! and vouches for nobody who does not acknowledge it), and its members' leases end: waiting that
//! long is as good as its answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use futures::future::join_all;
use shoal_proto::limits::{RPC_DEADLINE_MS, WRITE_DEADLINE_MS};
use shoal_proto::wire::v1::command::Command;
use shoal_proto::wire::v1::index_client::IndexClient;
use shoal_proto::wire::v1::{self, FencesAckedReply};
use shoal_proto::{ErrorKind, NodeId, RpcError};

use super::index::Record;
use super::ledger::Debt;
use super::tier::{Tier, ms};
use crate::fences::Fenced;
use crate::membership::{Member, Role};
use crate::rpc::with_deadline;

/// Between two looks at who has acknowledged, when nobody tells, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// Between two tries to ask another super-node, in milliseconds.
const ASK_PAUSE_MS: u64 = 100;

/// PURE. Super-nodes that are not up or no longer of the tier, and since when we know: their members
/// may trust for a while.
#[derive(Debug, Default)]
pub(super) struct Absences {
    up: BTreeSet<NodeId>,
    since_ms: HashMap<NodeId, u64>,
}

impl Absences {
    /// Takes in the index's records, and then its retired super-nodes, as they are now. Whoever is
    /// first seen to be absent counts as just gone: it may have come and left while we were behind.
    pub(super) fn update(
        &mut self,
        now_ms: u64,
        records: &[Record],
        retired: &BTreeMap<NodeId, u64>,
    ) {
        let supers = || records.iter().filter(|record| record.member.role == Role::Super);
        let up: BTreeSet<_> =
            supers().filter(|record| record.member.up).map(|record| record.member.id).collect();
        let down = supers().map(|record| record.member.id);
        let left = retired.keys().chain(&self.up).copied();
        let absent = down.chain(left).filter(|id| !up.contains(id));
        for id in absent.collect::<Vec<_>>() {
            self.since_ms.entry(id).or_insert(now_ms);
        }
        self.since_ms.retain(|id, _| !up.contains(id));
        self.up = up;
    }

    /// When the last absent super-node's members trust nothing any more, if that is not over.
    pub(super) fn over_ms(&self, now_ms: u64, blind_ms: u64) -> Option<u64> {
        let over = self.since_ms.values().map(|since| since + blind_ms);
        over.filter(|over| *over > now_ms).max()
    }
}

/// Purges what `matcher` covers; returns when no member can serve it any more.
///
/// # Errors
/// `Retry` when the fence could not be committed in time.
pub(super) async fn purge(
    tier: &Arc<Tier>,
    caller: &Member,
    fenced: &Fenced,
) -> Result<v1::PurgeReply, RpcError> {
    tracing::debug!(caller = caller.name, soft = fenced.soft, "a purge");
    let outcome = tier.submit(Command::Fence(fenced.into())).await?;
    if outcome.reply.refused {
        return Err(RpcError::new(ErrorKind::Invalid, "the matcher breaks a limit"));
    }
    let position = outcome.position;
    tier.raft.wait_applied(position, ms(WRITE_DEADLINE_MS)).await?;
    let committed_ms = tier.now_ms();
    let blind_ms = tier.timing.blind_ms();
    let records = tier.index.records();
    let absent_until = {
        let mut absences = tier.absences.lock().unwrap_or_else(PoisonError::into_inner);
        absences.update(committed_ms, &records, &tier.index.retired());
        absences.over_ms(committed_ms, blind_ms)
    };
    // Of the same records: whoever leaves in between is either asked or waited for.
    let members = records.into_iter().map(|record| record.member);
    let others = members.filter(|m| m.role == Role::Super && m.up && m.id != tier.me());
    let asked = others.map(|member| ask(tier, member, position, committed_ms + blind_ms));
    let absent = async {
        if let Some(until_ms) = absent_until {
            tokio::time::sleep(ms(until_ms.saturating_sub(committed_ms))).await;
        }
    };
    let (here, there, ()) = tokio::join!(acked(tier, position), join_all(asked), absent);
    let sum = |count: fn(&FencesAckedReply) -> u32| {
        there.iter().map(count).fold(count(&here), u32::saturating_add)
    };
    Ok(v1::PurgeReply {
        position,
        nodes_acknowledged: sum(|reply| reply.nodes_acknowledged),
        nodes_expired: sum(|reply| reply.nodes_expired),
    })
}

/// Asks another super-node until it answers, or nobody it vouched for can trust anything any more.
async fn ask(tier: &Tier, member: Member, position: u64, blind_until_ms: u64) -> FencesAckedReply {
    loop {
        let left = blind_until_ms.saturating_sub(tier.now_ms());
        if left == 0 {
            tracing::warn!(name = member.name, position, "purged without this super-node's answer");
            return FencesAckedReply::default();
        }
        match ask_once(tier, &member, position, left).await {
            Ok(reply) => return reply,
            Err(error) => {
                tracing::debug!(name = member.name, %error, "a super-node could not be asked");
                tokio::time::sleep(ms(ASK_PAUSE_MS.min(left))).await;
            }
        }
    }
}

async fn ask_once(
    tier: &Tier,
    member: &Member,
    position: u64,
    left_ms: u64,
) -> Result<FencesAckedReply, RpcError> {
    let channel = tier.channels.to(&member.cluster_address, &member.name)?;
    let request = v1::FencesAckedRequest { position };
    with_deadline(ms(left_ms), IndexClient::new(channel).fences_acked(request)).await
}

/// Another super-node asks: who here has acknowledged the fence at `position`?
///
/// # Errors
/// `Retry` when this super-node does not know the fence yet.
pub(super) async fn answer(tier: &Tier, position: u64) -> Result<FencesAckedReply, RpcError> {
    tier.raft.wait_applied(position, ms(RPC_DEADLINE_MS)).await?;
    Ok(acked(tier, position).await)
}

/// Waits until every member with a session here has acknowledged or can trust nothing any more.
/// Ends by itself: a member that does not acknowledge is not vouched for.
async fn acked(tier: &Tier, position: u64) -> FencesAckedReply {
    let mut acks = tier.sessions.acks();
    let mut members: BTreeMap<NodeId, bool> = BTreeMap::new();
    loop {
        acks.borrow_and_update();
        let now_ms = tier.now_ms();
        let (debts, former_until_ms) = tier
            .sessions
            .ledger(|ledger| (ledger.debts(now_ms, position), ledger.former_until_ms()));
        members.extend(debts.iter().map(|(node, debt)| (*node, *debt == Debt::Acked)));
        let owing = debts.values().any(|debt| matches!(debt, Debt::Owes(_)));
        if !owing && now_ms >= former_until_ms {
            break;
        }
        // Told of acknowledgements; time runs out, and welcomes are acknowledged, untold.
        let _ = tokio::time::timeout(ms(LOOK_EVERY_MS), acks.changed()).await;
    }
    let count = |acked: bool| members.values().filter(|is| **is == acked).count();
    FencesAckedReply {
        nodes_acknowledged: u32::try_from(count(true)).unwrap_or(u32::MAX),
        nodes_expired: u32::try_from(count(false)).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, up: bool) -> Record {
        let member = Member {
            id: NodeId(id),
            name: format!("s{id}"),
            role: Role::Super,
            cluster_address: String::new(),
            edge_address: String::new(),
            admin_address: String::new(),
            zone: String::new(),
            version: String::new(),
            up,
            voter: false,
            auto: false,
            draining: false,
        };
        Record { member, session_id: id, super_node: NodeId(id), position: 1 }
    }

    #[test]
    fn the_absent_are_waited_for_once() {
        let mut absences = Absences::default();
        let mut look = |now_ms, records: &[Record]| {
            absences.update(now_ms, records, &BTreeMap::new());
            absences.over_ms(now_ms, 50)
        };
        assert_eq!(look(100, &[record(1, true), record(2, true)]), None);
        assert_eq!(look(200, &[record(1, true), record(2, false)]), Some(250));
        assert_eq!(look(220, &[record(1, true), record(2, false)]), Some(250));
        assert_eq!(look(250, &[record(1, true), record(2, false)]), None);
        assert_eq!(look(300, &[record(2, true)]), Some(350), "1 is no member any more");
    }

    #[test]
    fn who_left_before_our_first_look_is_waited_for() {
        let mut absences = Absences::default();
        let retired = BTreeMap::from([(NodeId(1), 7)]);
        absences.update(100, &[], &BTreeMap::new());
        assert_eq!(absences.over_ms(100, 50), None);
        // Taken in with a snapshot: 1 was never seen here.
        absences.update(120, &[record(2, true)], &retired);
        absences.update(140, &[record(2, true)], &retired);
        assert_eq!(absences.over_ms(140, 50), Some(170));
        assert_eq!(absences.over_ms(170, 50), None);
    }
}
