//! Who holds what (PURE): every object has the same number of holders among the members, every
//! member goes through its own objects in another order, and keys and ids are hashes to the index.

use crate::{rng::Rng, tier::wire::Object};

/// The streams of the seed.
const KEY_STREAM: u64 = 1;
const ID_STREAM: u64 = 2;

/// A set of objects and their holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// All ids follow from it.
    pub seed: u64,
    /// Members.
    pub members: u64,
    /// Holders of each object; at most `members`.
    pub holders: u64,
}

/// A range of rounds. In each round `members` new objects come, and every member gets `holders`
/// records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// The first.
    pub from: u64,
    /// One after the last.
    pub to: u64,
}

impl Holdings {
    /// The rounds after which there are at least `records`.
    #[must_use]
    pub fn rounds_for(&self, records: u64) -> u64 {
        records.div_ceil(self.members * self.holders).max(1)
    }

    /// Records after so many rounds.
    #[must_use]
    pub fn records(&self, rounds: u64) -> u64 {
        rounds * self.members * self.holders
    }

    /// Objects after so many rounds.
    #[must_use]
    pub fn objects(&self, rounds: u64) -> u64 {
        rounds * self.members
    }

    /// How many records a member gets in `rounds`.
    #[must_use]
    pub fn records_of_member(&self, rounds: Rounds) -> u64 {
        (rounds.to - rounds.from) * self.holders
    }

    /// A member's record number `at` in `rounds`: the number of an object. Members begin at
    /// different places, so that an object's holders announce it far apart in time.
    #[must_use]
    pub fn record(&self, rounds: Rounds, member: u64, at: u64) -> u64 {
        let count = self.records_of_member(rounds);
        let turned = (at + member * count / self.members) % count;
        let round = rounds.from + turned / self.holders;
        let offset = turned % self.holders;
        round * self.members + (member + self.members - offset) % self.members
    }

    /// Object number `number`.
    #[must_use]
    pub fn object(&self, number: u64) -> Object {
        Object { key: self.hash(KEY_STREAM, number), id: self.hash(ID_STREAM, number) }
    }

    fn hash(&self, stream: u64, number: u64) -> [u8; 32] {
        let mut rng = Rng::new(self.seed ^ number.rotate_left(20), stream);
        let mut hash = [0; 32];
        for word in hash.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next_u64().to_le_bytes());
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const HOLDINGS: Holdings = Holdings { seed: 7, members: 12, holders: 5 };

    #[test]
    fn every_object_has_its_number_of_different_holders() {
        let mut holders: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for rounds in [Rounds { from: 0, to: 3 }, Rounds { from: 3, to: 10 }] {
            for member in 0..HOLDINGS.members {
                for at in 0..HOLDINGS.records_of_member(rounds) {
                    let object = HOLDINGS.record(rounds, member, at);
                    assert!(holders.entry(object).or_default().insert(member), "twice");
                }
            }
        }
        assert_eq!(holders.len() as u64, HOLDINGS.objects(10));
        assert!(holders.values().all(|set| set.len() == 5));
        let all: usize = holders.values().map(BTreeSet::len).sum();
        assert_eq!(all as u64, HOLDINGS.records(10));
        assert_eq!(holders.keys().next_back(), Some(&119));
    }

    #[test]
    fn there_are_as_many_records_as_asked_for_or_a_few_more() {
        assert_eq!(HOLDINGS.rounds_for(1), 1);
        assert_eq!(HOLDINGS.rounds_for(60), 1);
        assert_eq!(HOLDINGS.rounds_for(61), 2);
    }

    #[test]
    fn objects_differ() {
        let different: BTreeSet<_> =
            (0..1_000).flat_map(|n| [HOLDINGS.object(n).key, HOLDINGS.object(n).id]).collect();
        assert_eq!(different.len(), 2_000);
        let other = Holdings { seed: 8, ..HOLDINGS };
        assert_ne!(other.object(1), HOLDINGS.object(1));
    }
}
