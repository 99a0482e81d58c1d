//! PURE. What the tier is owed: what this node filled, dropped and invalidated while no super-node
//! answered, told once one does.
//!
//! Invariants: the latest change of a key stands; the book is bounded, and says so when it could not
//! hold everything: then everything held is told instead, and what was dropped stays a stale record,
//! which costs its finder one hop.

use std::collections::{HashMap, HashSet};

use shoal_proto::{ObjectId, ObjectKey};

use crate::fences::Matcher;

/// Most keys in the book.
const DEBTS_MAX: usize = 65_536;
/// Most URLs to be purged; of more, other nodes keep what they hold until it is stale.
const PURGES_MAX: usize = 65_536;

/// What is to be told of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debt {
    /// The object was filled or validated here: it is to be the key's head, unless a purge that
    /// came meanwhile covers it.
    Publish(ObjectId),
    /// The object is held here.
    Held(ObjectId),
    /// The object is not held here any more.
    Dropped(ObjectId),
}

/// A URL of which nobody is to serve anything any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// Its key.
    pub key: ObjectKey,
    /// Its site.
    pub site: String,
    /// The label of its variants that have keys of their own.
    pub variants: u64,
}

impl Url {
    /// What purges match it by: all of them are needed.
    pub fn matchers(&self) -> [Matcher; 2] {
        [Matcher::Key(self.key), Matcher::Prefix(self.site.clone(), self.variants)]
    }
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Owed {
    debts: HashMap<ObjectKey, Debt>,
    purges: HashSet<Url>,
    everything: bool,
}

/// Some of what is owed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// URLs to be purged, before anything else is told of them.
    pub purges: Vec<Url>,
    /// What is to be told of keys.
    pub debts: Vec<(ObjectKey, Debt)>,
    /// More was owed than the book could hold: all that is held is to be told.
    pub everything: bool,
}

impl Part {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.purges.is_empty() && self.debts.is_empty() && !self.everything
    }
}

impl Owed {
    /// Writes down a change.
    pub(super) fn record(&mut self, key: ObjectKey, debt: Debt) {
        if !self.debts.contains_key(&key) && self.debts.len() >= DEBTS_MAX {
            self.everything = true;
            return;
        }
        let debt = match (self.debts.get(&key), debt) {
            // To hold it is part of having published it.
            (Some(Debt::Publish(known)), Debt::Held(object)) if *known == object => return,
            _ => debt,
        };
        self.debts.insert(key, debt);
    }

    /// Writes down that nobody is to serve what anybody holds of the URL now.
    pub(super) fn purge(&mut self, url: Url) {
        if self.purges.len() < PURGES_MAX {
            self.purges.insert(url);
        }
    }

    /// Takes at most `max` entries out of the book, purges first.
    pub(super) fn take(&mut self, max: usize) -> Part {
        let purges: Vec<_> = self.purges.iter().take(max).cloned().collect();
        purges.iter().for_each(|url| {
            self.purges.remove(url);
        });
        let left = if self.purges.is_empty() { max - purges.len() } else { 0 };
        let keys: Vec<_> = self.debts.keys().take(left).copied().collect();
        let debts: Vec<_> = keys.iter().filter_map(|key| self.debts.remove_entry(key)).collect();
        // Everything comes last: what is told of single keys is newer than what the store lists.
        let everything = purges.is_empty() && debts.is_empty() && self.everything;
        self.everything &= !everything;
        Part { purges, debts, everything }
    }

    /// Puts back what could not be told, unless something newer is written there.
    pub(super) fn put_back(&mut self, part: Part) {
        part.purges.into_iter().for_each(|url| self.purge(url));
        for (key, debt) in part.debts {
            if !self.debts.contains_key(&key) {
                self.record(key, debt);
            }
        }
        self.everything |= part.everything;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> ObjectKey {
        ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    const OLD: ObjectId = ObjectId::new([1; 32]);
    const NEW: ObjectId = ObjectId::new([2; 32]);

    #[test]
    fn the_latest_change_of_a_key_stands() {
        let mut owed = Owed::default();
        owed.record(key(1), Debt::Publish(OLD));
        owed.record(key(1), Debt::Held(OLD));
        owed.record(key(2), Debt::Publish(OLD));
        owed.record(key(2), Debt::Dropped(OLD));
        owed.record(key(3), Debt::Publish(OLD));
        owed.record(key(3), Debt::Held(NEW));
        let mut debts = owed.take(10).debts;
        debts.sort_by_key(|(key, _)| *key);
        let mut expected = vec![
            (key(1), Debt::Publish(OLD)),
            (key(2), Debt::Dropped(OLD)),
            (key(3), Debt::Held(NEW)),
        ];
        expected.sort_by_key(|(key, _)| *key);
        assert_eq!(debts, expected);
        assert!(owed.take(10).is_empty());
    }

    #[test]
    fn purges_are_told_before_everything_else() {
        let mut owed = Owed::default();
        owed.record(key(1), Debt::Held(OLD));
        let url = |n| Url { key: key(n), site: "docs".into(), variants: n };
        (0..5).for_each(|n| owed.purge(url(n)));
        let first = owed.take(3);
        assert_eq!((first.purges.len(), first.debts.len()), (3, 0));
        let second = owed.take(3);
        assert_eq!((second.purges.len(), second.debts.len()), (2, 1));
    }

    #[test]
    fn what_could_not_be_told_comes_again_unless_it_is_outdated() {
        let mut owed = Owed::default();
        owed.record(key(1), Debt::Publish(OLD));
        owed.record(key(2), Debt::Publish(OLD));
        let part = owed.take(10);
        owed.record(key(1), Debt::Publish(NEW));
        owed.put_back(part);
        let again = owed.take(10).debts;
        assert!(again.contains(&(key(1), Debt::Publish(NEW))));
        assert!(again.contains(&(key(2), Debt::Publish(OLD))));
    }

    #[test]
    fn a_full_book_says_so_once_at_the_end() {
        let mut owed = Owed::default();
        for n in 0..=DEBTS_MAX as u64 {
            owed.record(key(n), Debt::Held(OLD));
        }
        let first = owed.take(DEBTS_MAX);
        assert_eq!((first.debts.len(), first.everything), (DEBTS_MAX, false));
        assert!(owed.take(1).everything);
        assert!(owed.take(1).is_empty());
    }
}
