//! PURE. Rendezvous hashing (Thaler and Ravishankar, 1998): each key ranks all candidates, so that
//! losing one moves only its own keys, each to the candidate ranked next.

use shoal_proto::{NodeId, ObjectKey};

/// Candidates in the order in which `key` prefers them.
pub fn rank(key: &ObjectKey, candidates: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut scored: Vec<_> = candidates.into_iter().map(|id| (score(key, id), id)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, id)| id).collect()
}

fn score(key: &ObjectKey, id: NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(&id.0.to_le_bytes());
    let mut first = [0u8; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u64>) -> Vec<NodeId> {
        range.map(NodeId).collect()
    }

    fn key(n: u32) -> ObjectKey {
        ObjectKey::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn order_of_candidates_does_not_matter() {
        let forwards = rank(&key(1), ids(1..8));
        let backwards = rank(&key(1), ids(1..8).into_iter().rev());
        assert_eq!(forwards, backwards);
    }

    #[test]
    fn losing_a_candidate_moves_only_its_keys() {
        for n in 0..500 {
            let before = rank(&key(n), ids(1..6));
            let lost = NodeId(3);
            let after = rank(&key(n), ids(1..6).into_iter().filter(|id| *id != lost));
            let expected: Vec<_> = before.into_iter().filter(|id| *id != lost).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let mut homes = [0u32; 5];
        for n in 0..5_000 {
            homes[rank(&key(n), ids(0..5))[0].0 as usize] += 1;
        }
        assert!(homes.iter().all(|count| (850..1150).contains(count)), "{homes:?}");
    }
}
