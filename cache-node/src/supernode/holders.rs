//! PURE. Which holders of an object are worth naming to a node that wants it.

use shoal_proto::limits::HOLDERS_ANSWERED_MAX;
use shoal_proto::wire::v1;
use shoal_proto::{NodeId, ObjectKey};

use super::index::Holding;
use crate::membership::{Member, placement};

/// A live holder.
#[derive(Clone, Debug)]
pub(super) struct LiveHolder {
    pub(super) member: Member,
    pub(super) holding: Holding,
}

/// Whether these holders have all of an object's chunks between them.
pub(super) fn cover(holders: &[LiveHolder], chunk_count: u32) -> bool {
    if holders.iter().any(|holder| holder.holding == Holding::Complete) {
        return true;
    }
    let mut all = vec![0u8; chunk_count.div_ceil(8) as usize];
    for holder in holders {
        if let Holding::Bitmap(bitmap) = &holder.holding {
            all.iter_mut().zip(bitmap).for_each(|(byte, more)| *byte |= more);
        }
    }
    let has = |chunk: u32| all[chunk as usize / 8] & (1 << (chunk % 8)) != 0;
    !holders.is_empty() && (0..chunk_count).all(has)
}

/// At most [`HOLDERS_ANSWERED_MAX`] of them: the publisher, who has the newest manifest; then the
/// complete before the partial, the asker's zone before others, and else another order for every
/// asker, so that no holder is everybody's first.
pub(super) fn choose(
    mut holders: Vec<LiveHolder>,
    publisher: NodeId,
    asker: Option<&Member>,
) -> Vec<LiveHolder> {
    let asker_id = asker.map_or(0, |member| member.id.0);
    let zone = asker.map_or("", |member| member.zone.as_str());
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&asker_id.to_le_bytes());
    let ids = holders.iter().map(|holder| holder.member.id);
    let order = placement::rank(&ObjectKey::new(seed), ids);
    holders.sort_by_cached_key(|holder| {
        let id = holder.member.id;
        let partial = holder.holding != Holding::Complete;
        let far = zone.is_empty() || holder.member.zone != zone;
        (id != publisher, partial, far, order.iter().position(|other| *other == id))
    });
    holders.truncate(HOLDERS_ANSWERED_MAX);
    holders
}

impl From<LiveHolder> for v1::Holder {
    fn from(holder: LiveHolder) -> Self {
        let node = Some(v1::NodeInfo::from(&holder.member));
        match holder.holding {
            Holding::Complete => Self { node, complete: true, chunks: Default::default() },
            Holding::Bitmap(bitmap) => Self { node, complete: false, chunks: bitmap.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Role;

    fn member(id: u64, zone: &str) -> Member {
        Member {
            id: NodeId(id),
            name: format!("n{id}"),
            role: Role::Node,
            cluster_address: String::new(),
            edge_address: String::new(),
            admin_address: String::new(),
            zone: zone.into(),
            version: String::new(),
            up: true,
            voter: false,
            auto: false,
            draining: false,
        }
    }

    fn holder(id: u64, zone: &str, holding: Holding) -> LiveHolder {
        LiveHolder { member: member(id, zone), holding }
    }

    #[test]
    fn partial_holders_may_cover_an_object_together() {
        let part = |bits: u8| holder(1, "", Holding::Bitmap(vec![bits, 0]));
        assert!(cover(&[part(0b0101_0101), part(0b1010_1010)], 8));
        assert!(!cover(&[part(0b0101_0101)], 8));
        assert!(!cover(&[part(0b1111_1111)], 9));
        assert!(cover(&[part(0), holder(2, "", Holding::Complete)], 9));
        assert!(!cover(&[], 0), "nobody to ask");
    }

    #[test]
    fn the_publisher_comes_first_then_the_near() {
        let some = Holding::Bitmap(vec![1]);
        let holders = vec![
            holder(1, "a", some),
            holder(2, "b", Holding::Complete),
            holder(3, "a", Holding::Complete),
            holder(4, "b", Holding::Complete),
        ];
        let chosen = choose(holders, NodeId(4), Some(&member(9, "a")));
        assert_eq!(chosen.iter().map(|h| h.member.id.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
    }

    #[test]
    fn many_holders_are_spread_over_askers() {
        let all = || (1..=100).map(|id| holder(id, "", Holding::Complete)).collect::<Vec<_>>();
        let first = |asker| choose(all(), NodeId(0), Some(&member(asker, "")))[0].member.id;
        assert_eq!(choose(all(), NodeId(0), None).len(), HOLDERS_ANSWERED_MAX);
        let firsts: std::collections::BTreeSet<_> = (1_000..1_050).map(first).collect();
        assert!(firsts.len() > 20, "{firsts:?}");
    }
}
