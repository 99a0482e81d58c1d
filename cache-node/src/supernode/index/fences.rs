//! PURE. The fences that the index knows.
//!
//! Invariants: one entry a matcher, with its newest position; forgetting never makes an object
//! current again: a fill that began before the newest forgotten fence is refused, and a member that
//! missed it is told to fence everything.

use std::collections::{BTreeSet, HashMap};

use shoal_proto::limits::{FENCES_MAX, NAME_BYTES_MAX};
use shoal_proto::wire::v1::{self, fence_matcher::Matcher};
use shoal_proto::{ObjectKey, wire};

use super::tables::Fenced;

/// What purges have matched.
#[derive(Clone, Debug, Default)]
pub(super) struct FenceTable {
    newest: HashMap<Fenced, u64>,
    in_order: BTreeSet<(u64, Fenced)>,
    floor: u64,
    heads_floor: u64,
}

/// What a matcher names, or `None` when it breaks a limit.
pub(super) fn read_matcher(matcher: &v1::FenceMatcher) -> Option<Fenced> {
    match matcher.matcher.as_ref()? {
        Matcher::Key(key) => wire::id_from("key", key).ok().map(Fenced::Key),
        Matcher::Site(site) if site.is_empty() || site.len() > NAME_BYTES_MAX => None,
        Matcher::Site(site) => Some(Fenced::Site(site.clone())),
    }
}

impl FenceTable {
    /// Takes in a fence; the entries that changed, to be written.
    pub(super) fn add(&mut self, position: u64, fenced: Fenced) -> Vec<Fenced> {
        self.restore(position, fenced.clone());
        let mut changed = vec![fenced];
        if self.newest.len() > FENCES_MAX
            && let Some((forgotten, oldest)) = self.in_order.pop_first()
        {
            self.newest.remove(&oldest);
            self.floor = self.floor.max(forgotten);
            changed.push(Fenced::Floor);
            if matches!(oldest, Fenced::Site(_)) {
                self.heads_floor = self.heads_floor.max(forgotten);
                changed.push(Fenced::HeadsFloor);
            }
            changed.push(oldest);
        }
        changed
    }

    /// Takes in an entry as it was written.
    pub(super) fn restore(&mut self, position: u64, fenced: Fenced) {
        match fenced {
            Fenced::Floor => self.floor = position,
            Fenced::HeadsFloor => self.heads_floor = position,
            fenced => {
                if let Some(older) = self.newest.insert(fenced.clone(), position) {
                    self.in_order.remove(&(older, fenced.clone()));
                }
                self.in_order.insert((position, fenced));
            }
        }
    }

    /// An entry's position, to be written; `None` when it is no longer kept.
    pub(super) fn entry(&self, fenced: &Fenced) -> Option<u64> {
        match fenced {
            Fenced::Floor => Some(self.floor),
            Fenced::HeadsFloor => Some(self.heads_floor),
            fenced => self.newest.get(fenced).copied(),
        }
    }

    /// Whether a fill that began at `fence_position` may no longer be published.
    pub(super) fn refuses(&self, key: &ObjectKey, site: &str, fence_position: u64) -> bool {
        fence_position < self.floor || self.covers(key, site, fence_position)
    }

    /// Whether an object already in the index is purged.
    pub(super) fn covers(&self, key: &ObjectKey, site: &str, fence_position: u64) -> bool {
        let of = |fenced: Fenced| self.newest.get(&fenced).copied().unwrap_or_default();
        let newest = of(Fenced::Key(*key)).max(of(Fenced::Site(site.to_owned())));
        fence_position < newest.max(self.heads_floor)
    }

    /// The newest fence's position; 0 when there never was one.
    pub(super) fn position(&self) -> u64 {
        self.in_order.last().map_or(0, |(position, _)| *position).max(self.floor)
    }

    /// Fences that came after `position`, oldest first.
    pub(super) fn after(&self, position: u64) -> Vec<v1::Fence> {
        let forgotten = v1::Fence { position: self.floor, matcher: None };
        let missed = (position < self.floor).then_some(forgotten);
        let kept = self.in_order.iter().rev().take_while(|(at, _)| *at > position);
        let mut kept: Vec<_> = kept.filter_map(|(at, fenced)| to_wire(*at, fenced)).collect();
        kept.extend(missed);
        kept.reverse();
        kept
    }
}

fn to_wire(position: u64, fenced: &Fenced) -> Option<v1::Fence> {
    let matcher = match fenced {
        Fenced::Key(key) => Matcher::Key(key.to_wire()),
        Fenced::Site(site) => Matcher::Site(site.clone()),
        Fenced::Floor | Fenced::HeadsFloor => return None,
    };
    Some(v1::Fence { position, matcher: Some(v1::FenceMatcher { matcher: Some(matcher) }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> ObjectKey {
        ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_fence_stands_against_older_fills_that_it_matches() {
        let mut table = FenceTable::default();
        table.add(5, Fenced::Key(key(1)));
        table.add(7, Fenced::Site("docs".into()));
        assert!(table.refuses(&key(1), "apt", 4));
        assert!(!table.refuses(&key(1), "apt", 5));
        assert!(table.refuses(&key(2), "docs", 6));
        assert!(!table.refuses(&key(2), "docs", 7));
        assert!(!table.refuses(&key(2), "apt", 0));
        assert_eq!(table.position(), 7);
    }

    #[test]
    fn fencing_again_keeps_one_entry() {
        let mut table = FenceTable::default();
        table.add(5, Fenced::Key(key(1)));
        table.add(9, Fenced::Key(key(1)));
        assert_eq!(table.after(0).len(), 1);
        assert_eq!(table.after(5)[0].position, 9);
        assert!(table.after(9).is_empty());
    }

    #[test]
    fn forgotten_fences_still_stand_against_old_fills_and_old_members() {
        let mut table = FenceTable::default();
        table.add(1, Fenced::Site("docs".into()));
        for position in 2..FENCES_MAX as u64 + 2 {
            table.add(position, Fenced::Key(key(position)));
        }
        assert_eq!(table.newest.len(), FENCES_MAX);
        assert!(table.refuses(&key(0), "apt", 0));
        assert!(table.covers(&key(0), "docs", 0), "a forgotten site's fence hides its heads");
        assert!(!table.covers(&key(0), "docs", 1));
        let missed = table.after(0);
        assert_eq!((missed[0].position, missed[0].matcher.clone()), (1, None));
        assert_eq!(missed.len(), FENCES_MAX + 1);
        assert!(missed.is_sorted_by_key(|fence| fence.position));
        assert_eq!(table.after(1).len(), FENCES_MAX);
    }
}
