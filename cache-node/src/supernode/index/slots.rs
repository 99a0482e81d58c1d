//! PURE. Slots: small numbers that stand for nodes in lists of holders.
//!
//! Invariants: a node has one slot at most, and a slot one node; a slot whose node is gone is void:
//! no reader counts what it holds, nothing is added to it, and it is not given away again before
//! all of it has been cleared.

use std::collections::{BTreeMap, HashMap};

use shoal_proto::NodeId;
use shoal_proto::wire::v1;

use super::slot_list::Slot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    node: NodeId,
    /// The position at which the node was gone.
    void_since: Option<u64>,
    partials: bool,
}

/// A slot whose node is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoidSlot {
    /// Which.
    pub slot: Slot,
    /// The position since which it is void.
    pub since: u64,
    /// There may be partial holdings.
    pub partials: bool,
}

impl From<VoidSlot> for v1::VoidSlot {
    fn from(void: VoidSlot) -> Self {
        Self { slot: void.slot.into(), since: void.since }
    }
}

/// All slots in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    entries: BTreeMap<Slot, Entry>,
    of: HashMap<NodeId, Slot>,
    with_partials: usize,
}

impl Slots {
    /// The node's slot, a new one if it has none; `None` when all are taken. Says whether it is new.
    pub(super) fn take(&mut self, node: NodeId) -> Option<(Slot, bool)> {
        if let Some(slot) = self.of.get(&node) {
            return Some((*slot, false));
        }
        let slot = self.spare()?;
        self.entries.insert(slot, Entry { node, void_since: None, partials: false });
        self.of.insert(node, slot);
        Some((slot, true))
    }

    /// The smallest slot that nobody has: small numbers make short lists.
    fn spare(&self) -> Option<Slot> {
        let taken =
            self.entries.keys().zip(1..=Slot::MAX).take_while(|(slot, at)| *slot == at).count();
        Slot::try_from(taken + 1).ok()
    }

    /// Whether the node has a slot or can have one.
    pub(super) fn has_room_for(&self, node: NodeId) -> bool {
        self.of.contains_key(&node) || self.spare().is_some()
    }

    /// The node is gone; its slot, if it had one.
    pub(super) fn void(&mut self, node: NodeId, position: u64) -> Option<Slot> {
        let slot = self.of.remove(&node)?;
        self.entries.get_mut(&slot)?.void_since = Some(position);
        Some(slot)
    }

    /// Gives a slot free that has been void since then; whether it was.
    pub(super) fn free(&mut self, slot: Slot, since: u64) -> bool {
        let void = self.is_void(slot, since);
        if void && self.entries.remove(&slot).is_some_and(|entry| entry.partials) {
            self.with_partials -= 1;
        }
        void
    }

    /// Whether the slot has been void since then.
    pub(super) fn is_void(&self, slot: Slot, since: u64) -> bool {
        self.entries.get(&slot).is_some_and(|entry| entry.void_since == Some(since))
    }

    /// The slot has partial holdings from now on; whether that is new.
    pub(super) fn has_partials_now(&mut self, slot: Slot) -> bool {
        let entry = self.entries.get_mut(&slot);
        let new = entry.is_some_and(|entry| !std::mem::replace(&mut entry.partials, true));
        self.with_partials += usize::from(new);
        new
    }

    /// Whether any slot may have partial holdings.
    pub(super) fn any_partials(&self) -> bool {
        self.with_partials > 0
    }

    /// Whether the slot may have partial holdings.
    pub(super) fn has_partials(&self, slot: Slot) -> bool {
        self.entries.get(&slot).is_some_and(|entry| entry.partials)
    }

    /// A node's slot.
    pub(super) fn of(&self, node: NodeId) -> Option<Slot> {
        self.of.get(&node).copied()
    }

    /// The node that a slot stands for; `None` for void and unknown ones.
    pub(super) fn node(&self, slot: Slot) -> Option<NodeId> {
        let entry = self.entries.get(&slot)?;
        entry.void_since.is_none().then_some(entry.node)
    }

    /// The void slots.
    pub(super) fn voids(&self) -> impl Iterator<Item = VoidSlot> {
        self.entries.iter().filter_map(|(slot, entry)| {
            let since = entry.void_since?;
            Some(VoidSlot { slot: *slot, since, partials: entry.partials })
        })
    }

    /// Takes in a slot as it was written.
    pub(super) fn restore(&mut self, slot: Slot, record: v1::SlotRecord) {
        let v1::SlotRecord { node_id, void_since, partials } = record;
        let (node, void_since) = (NodeId(node_id), (void_since != 0).then_some(void_since));
        self.entries.insert(slot, Entry { node, void_since, partials });
        self.with_partials += usize::from(partials);
        if void_since.is_none() {
            self.of.insert(node, slot);
        }
    }

    /// A slot's record, to be written; `None` when it is free.
    pub(super) fn record(&self, slot: Slot) -> Option<v1::SlotRecord> {
        let Entry { node, void_since, partials } = *self.entries.get(&slot)?;
        let void_since = void_since.unwrap_or_default();
        Some(v1::SlotRecord { node_id: node.0, void_since, partials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_slot_is_nobodys_until_it_is_free() {
        let mut slots = Slots::default();
        assert_eq!(slots.take(NodeId(5)), Some((1, true)));
        assert_eq!(slots.take(NodeId(6)), Some((2, true)));
        assert_eq!(slots.take(NodeId(5)), Some((1, false)));
        assert_eq!(slots.void(NodeId(5), 9), Some(1));
        assert_eq!(slots.void(NodeId(5), 10), None);
        assert_eq!((slots.node(1), slots.of(NodeId(5))), (None, None));
        assert_eq!(slots.take(NodeId(5)), Some((3, true)), "not the void one");
        assert!(!slots.free(1, 8), "another void");
        assert!(!slots.free(2, 9), "in use");
        assert!(slots.free(1, 9));
        assert_eq!(slots.take(NodeId(7)), Some((1, true)), "the smallest");
    }

    #[test]
    fn slots_run_out() {
        let mut slots = Slots::default();
        for id in 1..=u64::from(Slot::MAX) {
            let slot = Slot::try_from(id).unwrap();
            slots.restore(slot, v1::SlotRecord { node_id: id, void_since: 1, partials: false });
        }
        assert!(!slots.has_room_for(NodeId(70_000)));
        assert_eq!(slots.take(NodeId(70_000)), None);
        assert!(slots.free(77, 1) && slots.has_room_for(NodeId(70_000)));
    }

    #[test]
    fn records_give_back_what_they_were_made_of() {
        let mut slots = Slots::default();
        slots.take(NodeId(5));
        slots.take(NodeId(6));
        assert!(slots.has_partials_now(2) && !slots.has_partials_now(2));
        slots.void(NodeId(6), 4);
        let mut again = Slots::default();
        (1..=2).for_each(|slot| again.restore(slot, slots.record(slot).unwrap()));
        assert_eq!((&again.entries, &again.of), (&slots.entries, &slots.of));
        assert!(again.any_partials());
        assert_eq!(
            again.voids().collect::<Vec<_>>(),
            [VoidSlot { slot: 2, since: 4, partials: true }]
        );
        assert_eq!(slots.record(3), None);
        assert!(again.free(2, 4) && !again.any_partials());
    }
}
