//! On the leader: takes out of the index what is of no use any more, a little at a time. Members
//! that have been down for long lose what they hold; what void slots still hold is removed, and the
//! slots are given free; heads that nobody holds or that a fence covers go.
//!
//! Invariants: the leader only proposes, each replica looks again at what it applies; a slot is
//! given free only after one look through all holdings found nothing of it that was not cleared,
//! and nothing can be added to a void slot meanwhile. A new leader begins anew.

use std::collections::HashMap;
use std::sync::Arc;

use shoal_proto::id::OBJECT_REF_BYTES;
use shoal_proto::limits::ANNOUNCE_CHANGES_MAX;
use shoal_proto::wire::v1::{self, command::Command};
use shoal_proto::{NodeId, ObjectKey, RpcError};

use super::index::{CLEAR_HEADS_MAX, Piece, Record, Refs, VoidSlot};
use super::tier::{Tier, bug, ms};

/// Records of holders looked at in one go.
const HOLDERS_PER_LOOK: usize = 128 * 1024;
/// Heads looked at in one go; each takes a look at its holders.
const HEADS_PER_LOOK: usize = 4 * 1024;
/// Most members that expire at once; the others' turn comes at the next look.
const EXPIRED_MAX: usize = 256;

/// Looks again and again, for as long as it is polled.
pub(super) async fn run(tier: Arc<Tier>) {
    let mut clearing = Clearing::default();
    loop {
        tokio::time::sleep(ms(tier.timing.sweep_every_ms())).await;
        if !tier.raft.is_leader() {
            clearing = Clearing::default();
            continue;
        }
        if let Err(error) = clearing.look(&tier).await {
            tracing::debug!(%error, "the index could not be cleared for now");
            clearing.pass = None;
        }
    }
}

#[derive(Default)]
struct Clearing {
    absent: Absent,
    pass: Option<Pass>,
    heads: Heads,
}

/// One look through all holdings for what void slots hold.
struct Pass {
    voids: Vec<VoidSlot>,
    /// Partial holdings come after the complete ones.
    partial: bool,
    from: Vec<u8>,
}

#[derive(Default)]
struct Heads {
    from: Vec<u8>,
    /// Up to where this look will have held every head against the fences.
    checks: Option<u64>,
    rest_until_ms: u64,
}

impl Clearing {
    async fn look(&mut self, tier: &Arc<Tier>) -> Result<(), RpcError> {
        let now_ms = tier.now_ms();
        let due = self.absent.due((now_ms, tier.timing.keep_ms()), &tier.index.records());
        let expired: Vec<_> = due
            .into_iter()
            .filter(|down| tier.index.has_slot(NodeId(down.node_id)))
            .take(EXPIRED_MAX)
            .collect();
        if !expired.is_empty() {
            tracing::info!(members = expired.len(), "what long absent members hold expires");
            submit(tier, v1::Clear { expired, ..Default::default() }).await?;
        }
        self.clear_slots(tier).await?;
        self.clear_heads(tier, now_ms).await
    }

    async fn clear_slots(&mut self, tier: &Arc<Tier>) -> Result<(), RpcError> {
        let Some(mut pass) = self.pass.take().or_else(|| Pass::begin(tier)) else { return Ok(()) };
        let slots: Vec<_> = pass.voids.iter().map(|void| void.slot).collect();
        let (partial, from) = (pass.partial, std::mem::take(&mut pass.from));
        let look = move |tier: &Tier| {
            let index = &tier.index;
            match partial {
                true => index.partial_of(&slots, &from, HOLDERS_PER_LOOK).map_err(bug),
                false => index.complete_of(&slots, &from, HOLDERS_PER_LOOK).map_err(bug),
            }
        };
        let Piece { found, next } = tier.read(look).await?;
        for clear in clears(&pass.voids, partial, found) {
            submit(tier, clear).await?;
        }
        let partials_left = !partial && pass.voids.iter().any(|void| void.partials);
        match next {
            Some(next) => pass.from = next,
            None if partials_left => pass.partial = true,
            None => {
                let slots = pass.voids.into_iter().map(v1::VoidSlot::from).collect();
                return submit(tier, v1::Clear { slots, ..Default::default() }).await;
            }
        }
        self.pass = Some(pass);
        Ok(())
    }

    async fn clear_heads(&mut self, tier: &Arc<Tier>, now_ms: u64) -> Result<(), RpcError> {
        if now_ms < self.heads.rest_until_ms {
            return Ok(());
        }
        let from = self.heads.from.clone();
        if from.is_empty() {
            self.heads.checks = tier.index.checkable();
        }
        let look = move |tier: &Tier| tier.index.useless_heads(&from, HEADS_PER_LOOK).map_err(bug);
        let Piece { found, next } = tier.read(look).await?;
        for keys in found.chunks(CLEAR_HEADS_MAX) {
            let heads: Vec<u8> = keys.iter().flat_map(ObjectKey::as_bytes).copied().collect();
            submit(tier, v1::Clear { heads: heads.into(), ..Default::default() }).await?;
        }
        if next.is_none() {
            if let Some(position) = self.heads.checks.take() {
                tier.submit(Command::HeadsChecked(v1::HeadsChecked { position })).await?;
            }
            self.heads.rest_until_ms = now_ms + tier.timing.touch_ms();
        }
        self.heads.from = next.unwrap_or_default();
        Ok(())
    }
}

impl Pass {
    fn begin(tier: &Tier) -> Option<Self> {
        let voids = tier.index.void_slots();
        (!voids.is_empty()).then_some(Self { voids, partial: false, from: Vec::new() })
    }
}

async fn submit(tier: &Tier, clear: v1::Clear) -> Result<(), RpcError> {
    tier.submit(Command::Clear(clear)).await.map(|_| ())
}

/// What was found of void slots, as commands within the limits: PURE.
fn clears(voids: &[VoidSlot], partial: bool, found: Refs) -> Vec<v1::Clear> {
    let mut clears = Vec::new();
    for void in voids {
        let refs = found.get(&void.slot).map(Vec::as_slice).unwrap_or_default();
        for refs in refs.chunks(ANNOUNCE_CHANGES_MAX * OBJECT_REF_BYTES) {
            let mut holdings =
                v1::VoidHoldings { slot: Some((*void).into()), ..Default::default() };
            let part = if partial { &mut holdings.partial } else { &mut holdings.complete };
            *part = bytes::Bytes::copy_from_slice(refs);
            clears.push(v1::Clear { holdings: vec![holdings], ..Default::default() });
        }
    }
    clears
}

/// PURE. Since when members are down, with the session that ended, in monotonic milliseconds.
#[derive(Debug, Default)]
struct Absent(HashMap<(NodeId, u64), u64>);

impl Absent {
    /// Members that have been down for `keep_ms` by `now_ms`.
    fn due(&mut self, (now_ms, keep_ms): (u64, u64), records: &[Record]) -> Vec<v1::MemberDown> {
        let down = records.iter().filter(|record| !record.member.up);
        let down: Vec<_> = down.map(|record| (record.member.id, record.session_id)).collect();
        self.0 = down
            .iter()
            .map(|absent| (*absent, self.0.get(absent).copied().unwrap_or(now_ms)))
            .collect();
        let over = |absent: &&(NodeId, u64)| {
            self.0.get(*absent).is_some_and(|since| now_ms.saturating_sub(*since) >= keep_ms)
        };
        let gone = |(node, session_id): &(NodeId, u64)| v1::MemberDown {
            node_id: node.0,
            session_id: *session_id,
        };
        down.iter().filter(over).map(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Member, Role};

    fn record(id: u64, session_id: u64, up: bool) -> Record {
        let member = Member {
            id: NodeId(id),
            name: format!("n{id}"),
            role: Role::Node,
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
        Record { member, session_id, super_node: NodeId(1), position: 1 }
    }

    #[test]
    fn members_expire_when_they_are_down_for_long() {
        let mut absent = Absent::default();
        let mut due = |now_ms, records: &[Record]| {
            let due = absent.due((now_ms, 600), records);
            due.iter().map(|down| down.node_id).collect::<Vec<_>>()
        };
        assert_eq!(due(0, &[record(1, 7, false), record(2, 7, true)]), [0; 0]);
        assert_eq!(due(599, &[record(1, 7, false), record(2, 7, false)]), [0; 0]);
        assert_eq!(due(600, &[record(1, 7, false), record(2, 7, false)]), [1]);
        assert_eq!(due(700, &[record(1, 8, false), record(2, 7, true)]), [0; 0], "back meanwhile");
        assert_eq!(due(1_250, &[record(1, 8, false), record(2, 7, false)]), [0; 0]);
        assert_eq!(due(1_300, &[record(1, 8, false), record(2, 7, false)]), [1]);
    }

    #[test]
    fn what_is_cleared_at_once_is_bounded() {
        let void = |slot| VoidSlot { slot, since: 9, partials: true };
        let refs = vec![1; (ANNOUNCE_CHANGES_MAX + 1) * OBJECT_REF_BYTES];
        let found = Refs::from([(3, refs), (4, vec![2; OBJECT_REF_BYTES])]);
        let clears = clears(&[void(3), void(4), void(5)], false, found);
        let lengths: Vec<_> = clears.iter().map(|c| c.holdings[0].complete.len()).collect();
        assert_eq!(lengths, [ANNOUNCE_CHANGES_MAX * 12, 12, 12]);
    }
}
