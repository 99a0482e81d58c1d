//! PURE. What purges have matched, and whether that covers an object: the one answer that nodes and
//! super-nodes must give alike.
//!
//! A fence stands at a position of the index; it covers what it matches and whose fill began before
//! it. A hard one takes the object away, a soft one makes it stale.
//!
//! Invariants: one entry a matcher and hardness, with its newest position; an object of whose path
//! or tags nothing is known is covered by every such fence of its site. Forgetting is the caller's
//! decision, and what keeps it safe is the caller's too.

pub(crate) mod table;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use shoal_proto::limits::NAME_BYTES_MAX;
use shoal_proto::wire::v1::{self, fence_matcher::Matcher as Wire};
use shoal_proto::wire::{WireError, id_from};
use shoal_proto::{Labels, ObjectHead, ObjectKey};

/// What a fence matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Matcher {
    /// One key's object.
    Key(ObjectKey),
    /// All objects of a site.
    Site(String),
    /// Objects of a site under a path, by its label.
    Prefix(String, u64),
    /// Objects of a site with a tag, by its label.
    Tag(String, u64),
}

/// A matcher and how hard it strikes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fenced {
    /// What it matches.
    pub matcher: Matcher,
    /// It makes stale, and takes nothing away.
    pub soft: bool,
}

impl TryFrom<&v1::FenceMatcher> for Fenced {
    type Error = WireError;

    fn try_from(wire: &v1::FenceMatcher) -> Result<Self, WireError> {
        let missing = || WireError::field("matcher", "missing", "a key, site, prefix or tag");
        let site = |name: &String| match name.len() {
            1..=NAME_BYTES_MAX => Ok(name.clone()),
            _ => Err(WireError::field("site", format!("{name:?}"), "1 to 128 bytes")),
        };
        let matcher = match wire.matcher.as_ref().ok_or_else(missing)? {
            Wire::Key(key) => Matcher::Key(id_from("key", key)?),
            Wire::Site(name) => Matcher::Site(site(name)?),
            Wire::Prefix(of) => Matcher::Prefix(site(&of.site)?, of.label),
            Wire::Tag(of) => Matcher::Tag(site(&of.site)?, of.label),
        };
        Ok(Self { matcher, soft: wire.soft })
    }
}

impl From<&Fenced> for v1::FenceMatcher {
    fn from(Fenced { matcher, soft }: &Fenced) -> Self {
        let of =
            |site: &String, label: &u64| v1::LabelMatcher { site: site.clone(), label: *label };
        let matcher = match matcher {
            Matcher::Key(key) => Wire::Key(key.to_wire()),
            Matcher::Site(site) => Wire::Site(site.clone()),
            Matcher::Prefix(site, label) => Wire::Prefix(of(site, label)),
            Matcher::Tag(site, label) => Wire::Tag(of(site, label)),
        };
        Self { matcher: Some(matcher), soft: *soft }
    }
}

/// What the fences leave of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No fence covers it.
    Clear,
    /// A soft one does: it is stale, whatever its freshness says.
    Stale,
    /// A hard one does: it is not served any more.
    Gone,
}

/// What fences look at in an object.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its key.
    pub key: &'a ObjectKey,
    /// Its site.
    pub site: &'a str,
    /// Its labels' hashes; empty where nobody knows them.
    pub labels: &'a [u64],
    /// Every tag's fence of its site covers it.
    pub every_tag: bool,
    /// Fences after this position hold against it.
    pub fence_position: u64,
}

impl<'a> From<&'a ObjectHead> for Subject<'a> {
    fn from(head: &'a ObjectHead) -> Self {
        let Labels { hashes, every_tag } = &head.labels;
        Self {
            key: &head.key,
            site: &head.site,
            labels: hashes,
            every_tag: *every_tag,
            fence_position: head.fence_position,
        }
    }
}

/// The newest positions of a hard and of a soft fence; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Newest {
    hard: u64,
    soft: u64,
}

impl Newest {
    fn at(&mut self, soft: bool) -> &mut u64 {
        if soft { &mut self.soft } else { &mut self.hard }
    }

    fn and(self, other: Self) -> Self {
        Self { hard: self.hard.max(other.hard), soft: self.soft.max(other.soft) }
    }

    fn on(self, fence_position: u64) -> Verdict {
        match () {
            () if fence_position < self.hard => Verdict::Gone,
            () if fence_position < self.soft => Verdict::Stale,
            () => Verdict::Clear,
        }
    }
}

/// The fences of one site's labels, of one kind.
#[derive(Clone, Debug, Default)]
struct Labelled {
    by_label: HashMap<u64, Newest>,
    newest: Newest,
}

impl Labelled {
    fn set(&mut self, label: u64, soft: bool, position: u64) {
        set(&mut self.by_label, label, soft, position);
        let newest = self.newest.at(soft);
        if position >= *newest {
            *newest = position;
            return;
        }
        // Taken away, or far down: which is the newest now?
        let all = self.by_label.values().copied();
        self.newest = all.fold(Newest::default(), Newest::and);
    }

    fn of(&self, labels: &[u64]) -> Newest {
        if self.by_label.is_empty() {
            return Newest::default();
        }
        let of = |label: &u64| self.by_label.get(label).copied().unwrap_or_default();
        labels.iter().map(of).fold(Newest::default(), Newest::and)
    }
}

/// The fences of one site.
#[derive(Clone, Debug, Default)]
struct OfSite {
    whole: Newest,
    prefixes: Labelled,
    tags: Labelled,
}

/// Sets, or with position 0 takes away, what stands at `key`.
fn set<K: Eq + Hash>(map: &mut HashMap<K, Newest>, key: K, soft: bool, position: u64) {
    let mut entry = match map.entry(key) {
        Entry::Occupied(entry) => entry,
        Entry::Vacant(_) if position == 0 => return,
        Entry::Vacant(entry) => entry.insert_entry(Newest::default()),
    };
    *entry.get_mut().at(soft) = position;
    if *entry.get() == Newest::default() {
        entry.remove();
    }
}

/// A set of fences, found by what they match.
#[derive(Clone, Debug, Default)]
pub struct Fences {
    keys: HashMap<ObjectKey, Newest>,
    sites: HashMap<String, OfSite>,
    in_order: BTreeSet<(u64, Fenced)>,
    positions: HashMap<Fenced, u64>,
}

impl Fences {
    /// Takes in a fence. An older one than is known of its matcher changes nothing.
    pub fn add(&mut self, position: u64, fenced: Fenced) {
        let known = self.positions.get(&fenced).copied();
        if known.is_some_and(|known| known >= position) {
            return;
        }
        if let Some(known) = known {
            self.in_order.remove(&(known, fenced.clone()));
        }
        self.set(&fenced, position);
        self.positions.insert(fenced.clone(), position);
        self.in_order.insert((position, fenced));
    }

    fn set(&mut self, Fenced { matcher, soft }: &Fenced, position: u64) {
        let (site, soft) = match matcher {
            Matcher::Key(key) => return set(&mut self.keys, *key, *soft, position),
            Matcher::Site(site) | Matcher::Prefix(site, _) | Matcher::Tag(site, _) => (site, *soft),
        };
        let of = self.sites.entry(site.clone()).or_default();
        match matcher {
            Matcher::Prefix(_, label) => of.prefixes.set(*label, soft, position),
            Matcher::Tag(_, label) => of.tags.set(*label, soft, position),
            _ => *of.whole.at(soft) = position,
        }
        let empty = of.whole == Newest::default()
            && of.prefixes.by_label.is_empty()
            && of.tags.by_label.is_empty();
        if empty {
            self.sites.remove(site);
        }
    }

    /// Forgets a fence.
    fn remove(&mut self, (position, fenced): &(u64, Fenced)) {
        self.set(fenced, 0);
        self.positions.remove(fenced);
        self.in_order.remove(&(*position, fenced.clone()));
    }

    /// Forgets the fences up to `position`.
    pub fn forget_upto(&mut self, position: u64) {
        while self.in_order.first().is_some_and(|(oldest, _)| *oldest <= position) {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest fence.
    pub fn forget_oldest(&mut self) -> Option<(u64, Fenced)> {
        let oldest = self.in_order.first().cloned()?;
        self.remove(&oldest);
        Some(oldest)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// The newest fence's position; 0 when there is none.
    pub fn position(&self) -> u64 {
        self.in_order.last().map_or(0, |(position, _)| *position)
    }

    /// The newest position of a matcher; `None` when it is not here.
    pub fn of(&self, fenced: &Fenced) -> Option<u64> {
        self.positions.get(fenced).copied()
    }

    /// Fences that came after `position`, oldest first.
    pub fn after(&self, position: u64) -> impl Iterator<Item = &(u64, Fenced)> {
        let kept = self.in_order.iter().rev().take_while(move |(at, _)| *at > position);
        let mut kept: Vec<_> = kept.collect();
        kept.reverse();
        kept.into_iter()
    }

    /// What the fences leave of an object.
    pub fn verdict(&self, subject: &Subject<'_>) -> Verdict {
        if self.is_empty() {
            return Verdict::Clear;
        }
        self.newest(subject).on(subject.fence_position)
    }

    /// The position of the newest fence that covers an object; `None` when it is clear.
    pub fn covering(&self, subject: &Subject<'_>) -> Option<u64> {
        let Newest { hard, soft } = self.newest(subject);
        Some(hard.max(soft)).filter(|newest| subject.fence_position < *newest)
    }

    fn newest(&self, subject: &Subject<'_>) -> Newest {
        let Subject { key, site, labels, every_tag, fence_position: _ } = *subject;
        let mut newest = self.keys.get(key).copied().unwrap_or_default();
        if let Some(OfSite { whole, prefixes, tags }) = self.sites.get(site) {
            newest = newest.and(*whole).and(prefixes.of(labels)).and(tags.of(labels));
            if labels.is_empty() {
                newest = newest.and(prefixes.newest);
            }
            if labels.is_empty() || every_tag {
                newest = newest.and(tags.newest);
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests;
