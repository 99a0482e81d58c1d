//! PURE. The fences that the index knows, and what it has forgotten of them.
//!
//! Invariants: deterministic; bounded; forgetting never makes an object current again. A fill that
//! began before the newest forgotten fence is refused, and a member that missed it is told to fence
//! everything. Heads are looked through from time to time, and what a fence covers is dropped: a
//! forgotten fence that came after the last such look hides every head from before it.

use shoal_proto::limits::FENCES_MAX;
use shoal_proto::wire::v1;

use super::tables::FenceEntry;
use crate::fences::{Fenced, Fences, Matcher, Subject, Verdict};

/// Soft fences among so many newest ones leave their heads where they are; older ones are about to
/// be forgotten, and a look through the heads drops what they cover.
const SOFT_KEPT: usize = FENCES_MAX / 2;

/// What purges have matched.
#[derive(Clone, Debug, Default)]
pub(super) struct FenceTable {
    kept: Fences,
    floor: u64,
    heads_floor: u64,
    /// No head is covered by a fence up to here.
    checked: u64,
}

impl FenceTable {
    /// Takes in a fence; the entries that changed, to be written.
    pub(super) fn add(&mut self, position: u64, fenced: Fenced) -> Vec<FenceEntry> {
        self.kept.add(position, fenced.clone());
        let mut changed = vec![FenceEntry::Fenced(fenced)];
        if self.kept.len() > FENCES_MAX
            && let Some((position, oldest)) = self.kept.forget_oldest()
        {
            self.floor = self.floor.max(position);
            changed.push(FenceEntry::Floor);
            // A key's head was dropped at once.
            let at_once = matches!(oldest, Fenced { matcher: Matcher::Key(_), soft: false });
            if !at_once && position > self.checked {
                self.heads_floor = self.heads_floor.max(position);
                changed.push(FenceEntry::HeadsFloor);
            }
            changed.push(FenceEntry::Fenced(oldest));
        }
        changed
    }

    /// Whether a look through the heads drops this one.
    pub(super) fn outdates(&self, subject: &Subject<'_>) -> bool {
        match self.verdict(subject) {
            Verdict::Clear => false,
            Verdict::Stale => subject.fence_position < self.aged(),
            Verdict::Gone => true,
        }
    }

    /// The newest fence that is no longer among the newest.
    fn aged(&self) -> u64 {
        let surplus = self.kept.len().saturating_sub(SOFT_KEPT);
        let last = surplus.checked_sub(1).and_then(|at| self.kept.after(0).nth(at));
        last.map_or(0, |(position, _)| *position)
    }

    /// Up to where a look that begins now, and drops all that it may, will have held every head
    /// against the fences; `None` when that is of no use.
    pub(super) fn checkable(&self) -> Option<u64> {
        let aged = self.aged();
        let left = self.kept.after(aged).find(|(_, fenced)| fenced.soft);
        let upto = left.map_or(self.position(), |(position, _)| position.saturating_sub(1));
        let at_once = |fenced: &Fenced| matches!(fenced.matcher, Matcher::Key(_)) && !fenced.soft;
        let mut unchecked = self.kept.after(self.checked).take_while(|(at, _)| *at <= upto);
        let wanted = self.heads_floor > 0 || unchecked.any(|(_, fenced)| !at_once(fenced));
        (wanted && upto > self.checked).then_some(upto)
    }

    /// Every head was held against the fences up to `position`, and what they cover was dropped; the
    /// entries that changed.
    pub(super) fn heads_checked(&mut self, position: u64) -> Vec<FenceEntry> {
        self.checked = self.checked.max(position);
        let mut changed = vec![FenceEntry::Checked];
        if self.heads_floor != 0 && self.heads_floor <= self.checked {
            self.heads_floor = 0;
            changed.push(FenceEntry::HeadsFloor);
        }
        changed
    }

    /// Takes in an entry as it was written.
    pub(super) fn restore(&mut self, position: u64, entry: FenceEntry) {
        match entry {
            FenceEntry::Floor => self.floor = position,
            FenceEntry::HeadsFloor => self.heads_floor = position,
            FenceEntry::Checked => self.checked = position,
            FenceEntry::Fenced(fenced) => self.kept.add(position, fenced),
        }
    }

    /// An entry's position, to be written; `None` when it is no longer kept.
    pub(super) fn entry(&self, entry: &FenceEntry) -> Option<u64> {
        match entry {
            FenceEntry::Floor => Some(self.floor),
            FenceEntry::HeadsFloor => Some(self.heads_floor),
            FenceEntry::Checked => Some(self.checked),
            FenceEntry::Fenced(fenced) => self.kept.of(fenced),
        }
    }

    /// Whether a fill may no longer be published: a fence that came after it began covers it, hard
    /// or soft, or may have.
    pub(super) fn refuses(&self, subject: &Subject<'_>) -> bool {
        subject.fence_position < self.floor || self.verdict(subject) != Verdict::Clear
    }

    /// What the fences leave of an object already in the index.
    pub(super) fn verdict(&self, subject: &Subject<'_>) -> Verdict {
        if subject.fence_position < self.heads_floor {
            return Verdict::Gone;
        }
        self.kept.verdict(subject)
    }

    /// The newest fence's position; 0 when there never was one.
    pub(super) fn position(&self) -> u64 {
        self.kept.position().max(self.floor)
    }

    /// Fences that came after `position`, oldest first.
    pub(super) fn after(&self, position: u64) -> Vec<v1::Fence> {
        let forgotten = v1::Fence { position: self.floor, matcher: None };
        let missed = (position < self.floor).then_some(forgotten);
        let to_wire = |(position, fenced): &(u64, Fenced)| v1::Fence {
            position: *position,
            matcher: Some(fenced.into()),
        };
        missed.into_iter().chain(self.kept.after(position).map(to_wire)).collect()
    }
}

/// What fences look at in a head; `None` for one without a key.
pub(super) fn subject<'a>(key: &'a shoal_proto::ObjectKey, head: &'a v1::IndexHead) -> Subject<'a> {
    let labels = head.labels.as_ref();
    Subject {
        key,
        site: &head.site,
        labels: labels.map_or(&[], |labels| &labels.hashes),
        every_tag: labels.is_some_and(|labels| labels.every_tag),
        fence_position: head.fence_position,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_proto::ObjectKey;

    use super::*;

    fn key(n: u64) -> ObjectKey {
        ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    fn of_key(n: u64) -> Fenced {
        Fenced { matcher: Matcher::Key(key(n)), soft: false }
    }

    fn of_site(site: &str) -> Fenced {
        Fenced { matcher: Matcher::Site(site.into()), soft: false }
    }

    fn at<'a>(key: &'a ObjectKey, site: &'a str, fence_position: u64) -> Subject<'a> {
        Subject { key, site, labels: &[1], every_tag: false, fence_position }
    }

    #[test]
    fn a_fence_stands_against_older_fills_that_it_matches() {
        let mut table = FenceTable::default();
        table.add(5, of_key(1));
        table.add(7, of_site("docs"));
        table.add(9, Fenced { matcher: Matcher::Site("apt".into()), soft: true });
        let [one, two] = [key(1), key(2)];
        assert!(table.refuses(&at(&one, "x", 4)));
        assert!(!table.refuses(&at(&one, "x", 5)));
        assert!(table.refuses(&at(&two, "docs", 6)));
        assert!(!table.refuses(&at(&two, "docs", 7)));
        assert!(!table.refuses(&at(&two, "x", 0)));
        assert!(table.refuses(&at(&two, "apt", 8)), "a soft one, too");
        assert_eq!(table.verdict(&at(&two, "apt", 8)), Verdict::Stale);
        assert_eq!(table.position(), 9);
    }

    #[test]
    fn fencing_again_keeps_one_entry() {
        let mut table = FenceTable::default();
        table.add(5, of_key(1));
        table.add(9, of_key(1));
        assert_eq!(table.after(0).len(), 1);
        assert_eq!(table.after(5)[0].position, 9);
        assert!(table.after(9).is_empty());
    }

    fn flood(table: &mut FenceTable, from: u64) {
        for position in from..from + FENCES_MAX as u64 {
            table.add(position, of_key(position));
        }
        assert_eq!(table.kept.len(), FENCES_MAX);
    }

    #[test]
    fn forgotten_fences_still_stand_against_old_fills_and_old_members() {
        let mut table = FenceTable::default();
        table.add(1, of_site("docs"));
        flood(&mut table, 2);
        let k = key(0);
        assert!(table.refuses(&at(&k, "apt", 0)));
        assert_eq!(table.verdict(&at(&k, "docs", 0)), Verdict::Gone, "nobody looked at it");
        assert_eq!(table.verdict(&at(&k, "docs", 1)), Verdict::Clear);
        let missed = table.after(0);
        assert_eq!((missed[0].position, missed[0].matcher.clone()), (1, None));
        assert_eq!(missed.len(), FENCES_MAX + 1);
        assert!(missed.is_sorted_by_key(|fence| fence.position));
        assert_eq!(table.after(1).len(), FENCES_MAX);
    }

    #[test]
    fn fences_that_all_heads_were_held_against_hide_none_when_forgotten() {
        let mut table = FenceTable::default();
        table.add(1, of_site("docs"));
        table.heads_checked(1);
        flood(&mut table, 2);
        let k = key(0);
        assert_eq!(table.verdict(&at(&k, "apt", 0)), Verdict::Clear);
        assert!(table.refuses(&at(&k, "apt", 0)), "a fill of before is refused all the same");
        table.add(10_000, of_site("apt"));
        flood(&mut table, 10_001);
        assert_eq!(table.verdict(&at(&k, "x", 0)), Verdict::Gone);
        table.heads_checked(10_000);
        assert_eq!(table.verdict(&at(&k, "x", 0)), Verdict::Clear, "the look came later");
    }

    #[test]
    fn old_soft_fences_age_into_hard_ones() {
        let soft = || Fenced { matcher: Matcher::Site("docs".into()), soft: true };
        let mut table = FenceTable::default();
        assert_eq!(table.checkable(), None);
        table.add(1, of_key(1));
        assert_eq!(table.checkable(), None, "its head was dropped at once");
        table.add(5, soft());
        table.add(7, of_site("apt"));
        let k = key(0);
        assert!(!table.outdates(&at(&k, "docs", 4)) && table.outdates(&at(&k, "apt", 4)));
        assert_eq!(table.checkable(), None, "what it makes stale stays, and so does it");
        let mut table = FenceTable::default();
        table.add(5, of_site("apt"));
        table.add(7, soft());
        assert_eq!(table.checkable(), Some(6));
        table.heads_checked(6);
        assert_eq!(table.checkable(), None);
        (8..8 + SOFT_KEPT as u64).for_each(|n| drop(table.add(n, of_key(n))));
        assert!(table.outdates(&at(&k, "docs", 4)), "it is about to be forgotten");
        assert_eq!(table.checkable(), Some(7 + SOFT_KEPT as u64));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same_table(
            fences in prop::collection::vec((0..9u64, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let (mut table, mut written) = (FenceTable::default(), std::collections::BTreeMap::new());
            for (at, (n, whole, soft)) in fences.into_iter().enumerate() {
                let site = Matcher::Tag("docs".into(), n);
                let matcher = if whole { site } else { Matcher::Key(key(n)) };
                let mut changed = table.add(at as u64 + 1, Fenced { matcher, soft });
                if n == 0 {
                    changed.extend(table.heads_checked(at as u64));
                }
                for entry in changed {
                    match table.entry(&entry) {
                        Some(position) => written.insert(entry.encode(), position),
                        None => written.remove(&entry.encode()),
                    };
                }
            }
            let mut read = FenceTable::default();
            for (entry, position) in written {
                read.restore(position, FenceEntry::decode(&entry).unwrap());
            }
            prop_assert_eq!(read.after(0), table.after(0));
            prop_assert_eq!((read.floor, read.heads_floor), (table.floor, table.heads_floor));
            prop_assert_eq!(read.checked, table.checked);
        }
    }
}
