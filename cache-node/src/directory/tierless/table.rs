//! PURE. What a home node was told while there is no tier: who holds which object of a key. Soft:
//! whatever is wrong or missing here costs a peer or the origin one more request, since chunks are
//! verified and every object is validated with its origin before it is served.
//!
//! Invariants: one object a key; the table, and the holders of a key, are bounded; nothing is told
//! of a holder that has not spoken for [`KEPT_MS`].

use std::collections::HashMap;

use shoal_proto::{NodeId, ObjectId, ObjectKey};

/// How long a statement counts, in milliseconds. Nodes repeat theirs within it.
pub(super) const KEPT_MS: u64 = 15 * 60 * 1_000;
/// Most keys; later ones are not learnt until old ones have run out.
const KEYS_MAX: usize = 131_072;
/// Most holders kept of a key; of more, the earliest told is forgotten.
const HOLDERS_MAX: usize = 8;
/// Between two sweeps that a full table makes.
const SWEEP_EVERY_MS: u64 = 1_000;

/// What is known of a key.
#[derive(Debug)]
struct Entry {
    object: ObjectId,
    holders: Vec<NodeId>,
    until_ms: u64,
}

/// The holders of keys.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<ObjectKey, Entry>,
    swept_ms: u64,
}

/// How a node came by an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It has had it for some time: another version that is known here stands.
    Before,
    /// It comes from the origin just now: it stands against what is known here.
    JustFilled,
}

impl Table {
    /// A node says that it holds an object.
    pub(super) fn holds(
        &mut self,
        now_ms: u64,
        (key, object): (ObjectKey, ObjectId),
        node: NodeId,
        held: Held,
    ) {
        if !self.entries.contains_key(&key) && !self.has_room(now_ms) {
            return;
        }
        let fresh = || Entry { object, holders: Vec::new(), until_ms: 0 };
        let entry = self.entries.entry(key).or_insert_with(fresh);
        if entry.object != object {
            if held == Held::Before && now_ms < entry.until_ms {
                return;
            }
            *entry = fresh();
        }
        entry.until_ms = now_ms + KEPT_MS;
        entry.holders.retain(|known| *known != node);
        if entry.holders.len() >= HOLDERS_MAX {
            entry.holders.remove(0);
        }
        entry.holders.push(node);
    }

    /// A node says that it does not hold the object any more.
    pub(super) fn dropped(&mut self, key: &ObjectKey, object: &ObjectId, node: NodeId) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.object == *object {
            entry.holders.retain(|known| *known != node);
            if entry.holders.is_empty() {
                self.entries.remove(key);
            }
        }
    }

    /// The object of a key and who holds it, the latest told first.
    pub(super) fn find(&self, now_ms: u64, key: &ObjectKey) -> Option<(ObjectId, Vec<NodeId>)> {
        let entry = self.entries.get(key).filter(|entry| now_ms < entry.until_ms)?;
        Some((entry.object, entry.holders.iter().rev().copied().collect()))
    }

    fn has_room(&mut self, now_ms: u64) -> bool {
        if self.entries.len() < KEYS_MAX {
            return true;
        }
        if now_ms >= self.swept_ms + SWEEP_EVERY_MS {
            self.swept_ms = now_ms;
            self.entries.retain(|_, entry| now_ms < entry.until_ms);
        }
        self.entries.len() < KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn of(key: u8, object: u8) -> (ObjectKey, ObjectId) {
        (ObjectKey::new([key; 32]), ObjectId::new([object; 32]))
    }

    fn numbered(n: usize) -> ObjectKey {
        ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_fill_stands_against_what_was_known_and_an_announcement_does_not() {
        let mut table = Table::default();
        let (key, old) = of(1, 1);
        let new = of(1, 2).1;
        table.holds(0, (key, old), A, Held::Before);
        table.holds(1, (key, new), B, Held::Before);
        assert_eq!(table.find(2, &key), Some((old, vec![A])));
        table.holds(3, (key, new), B, Held::JustFilled);
        table.holds(4, (key, old), A, Held::Before);
        assert_eq!(table.find(5, &key), Some((new, vec![B])));
        table.dropped(&key, &old, B);
        assert_eq!(table.find(5, &key), Some((new, vec![B])), "another version was dropped");
        table.dropped(&key, &new, B);
        assert_eq!(table.find(5, &key), None);
    }

    #[test]
    fn statements_run_out() {
        let mut table = Table::default();
        table.holds(0, of(1, 1), A, Held::Before);
        assert!(table.find(KEPT_MS - 1, &of(1, 1).0).is_some());
        assert!(table.find(KEPT_MS, &of(1, 1).0).is_none());
        table.holds(KEPT_MS, of(1, 2), B, Held::Before);
        assert_eq!(table.find(KEPT_MS, &of(1, 1).0), Some((of(1, 2).1, vec![B])));
    }

    #[test]
    fn the_latest_holders_are_kept() {
        let mut table = Table::default();
        for node in 1..=HOLDERS_MAX as u64 + 2 {
            table.holds(0, of(1, 1), NodeId(node), Held::Before);
        }
        table.holds(1, of(1, 1), NodeId(5), Held::Before);
        let holders = table.find(2, &of(1, 1).0).unwrap().1;
        assert_eq!(holders.len(), HOLDERS_MAX);
        assert_eq!((holders[0], holders[1]), (NodeId(5), NodeId(10)));
    }

    #[test]
    fn a_full_table_learns_again_once_old_statements_have_run_out() {
        let mut table = Table::default();
        let object = of(0, 0).1;
        for n in 0..=KEYS_MAX {
            table.holds(0, (numbered(n), object), A, Held::Before);
        }
        assert_eq!(table.entries.len(), KEYS_MAX);
        assert_eq!(table.find(1, &numbered(KEYS_MAX)), None);
        table.holds(KEPT_MS, (numbered(KEYS_MAX), object), A, Held::Before);
        assert_eq!(table.entries.len(), 1);
    }
}
