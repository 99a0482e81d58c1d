//! PURE. The fences that this node knows, and whether they cover an object.
//!
//! Invariant: forgetting never makes an object current again. When the table is full the oldest
//! fences are folded into a floor below which every object counts as fenced.

use std::collections::HashMap;

use shoal_proto::limits::FENCES_MAX;
use shoal_proto::wire::v1::{self, fence_matcher::Matcher};
use shoal_proto::{ObjectHead, ObjectKey};

/// What purges have matched, each with the newest position at which they did.
#[derive(Debug, Default)]
pub(super) struct FenceTable {
    keys: HashMap<ObjectKey, u64>,
    sites: HashMap<String, u64>,
    floor: u64,
    position: u64,
}

impl FenceTable {
    /// Takes in a fence; one that cannot be read fences everything before it.
    pub(super) fn add(&mut self, fence: &v1::Fence) {
        let position = fence.position;
        match fence.matcher.as_ref().and_then(|m| m.matcher.as_ref()) {
            Some(Matcher::Key(key)) => match ObjectKey::try_from(key.as_ref()) {
                Ok(key) => raise(self.keys.entry(key).or_default(), position),
                Err(_) => raise(&mut self.floor, position),
            },
            Some(Matcher::Site(site)) => {
                raise(self.sites.entry(site.clone()).or_default(), position);
            }
            None => raise(&mut self.floor, position),
        }
        self.advance(position);
        if self.keys.len() + self.sites.len() > FENCES_MAX {
            self.fold();
        }
    }

    /// Every fence up to `position` is known.
    pub(super) fn advance(&mut self, position: u64) {
        raise(&mut self.position, position);
    }

    /// The position up to which every fence is known.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether a purge covers the object.
    pub(super) fn covers(&self, head: &ObjectHead) -> bool {
        let by_key = self.keys.get(&head.key).copied().unwrap_or_default();
        let by_site = self.sites.get(&head.site).copied().unwrap_or_default();
        head.fence_position < self.floor.max(by_key).max(by_site)
    }

    fn fold(&mut self) {
        let mut positions: Vec<u64> =
            self.keys.values().chain(self.sites.values()).copied().collect();
        positions.sort_unstable();
        self.floor = self.floor.max(positions[positions.len() / 2]);
        let floor = self.floor;
        self.keys.retain(|_, position| *position > floor);
        self.sites.retain(|_, position| *position > floor);
    }
}

fn raise(value: &mut u64, to: u64) {
    *value = (*value).max(to);
}

#[cfg(test)]
mod tests {
    use shoal_proto::Freshness;

    use super::*;

    fn head(key: u8, fence_position: u64) -> ObjectHead {
        ObjectHead {
            key: ObjectKey::new([key; 32]),
            site: "docs".into(),
            status: 200,
            headers: Vec::new(),
            length: None,
            chunk_size: 256 * 1024,
            freshness: Freshness::default(),
            fence_position,
        }
    }

    fn fence(position: u64, matcher: Matcher) -> v1::Fence {
        v1::Fence { position, matcher: Some(v1::FenceMatcher { matcher: Some(matcher) }) }
    }

    #[test]
    fn a_fence_covers_older_fills_of_its_key_alone() {
        let mut table = FenceTable::default();
        table.add(&fence(5, Matcher::Key(vec![1; 32].into())));
        assert!(table.covers(&head(1, 4)));
        assert!(!table.covers(&head(1, 5)));
        assert!(!table.covers(&head(2, 4)));
        assert_eq!(table.position(), 5);
    }

    #[test]
    fn a_site_fence_covers_all_its_keys() {
        let mut table = FenceTable::default();
        table.add(&fence(7, Matcher::Site("docs".into())));
        assert!(table.covers(&head(9, 6)));
        assert!(!table.covers(&head(9, 7)));
    }

    #[test]
    fn forgetting_fences_more_and_never_less() {
        let mut table = FenceTable::default();
        for position in 1..=(FENCES_MAX as u64 + 1) {
            let key = blake3::hash(&position.to_le_bytes());
            table.add(&fence(position, Matcher::Key(key.as_bytes().to_vec().into())));
        }
        assert!(table.keys.len() <= FENCES_MAX);
        let first = *blake3::hash(&1u64.to_le_bytes()).as_bytes();
        let old = ObjectHead { key: ObjectKey::new(first), ..head(0, 0) };
        assert!(table.covers(&old));
    }

    #[test]
    fn an_unreadable_fence_covers_everything_before_it() {
        let mut table = FenceTable::default();
        table.add(&fence(3, Matcher::Key(vec![1; 4].into())));
        assert!(table.covers(&head(2, 2)));
    }
}
