//! PURE. The simulation's only source of chance: SplitMix64 (Steele, Lea and Flood, 2014), so that a
//! seed is a history. Every part draws from a fork of its own: leaving one fault out of a plan does
//! not move the others.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(in crate::supernode) struct Rng(u64);

impl Rng {
    pub(in crate::supernode) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream, for `purpose` and the `number`th of its kind.
    pub(in crate::supernode) fn fork(&self, purpose: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(purpose.as_bytes());
        hasher.update(&number.to_le_bytes());
        let first = hasher.finalize().as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        Self(u64::from_le_bytes(first))
    }

    pub(in crate::supernode) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which must not be 0.
    pub(in crate::supernode) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From the first to the last, both possible.
    pub(in crate::supernode) fn between(&mut self, (first, last): (u64, u64)) -> u64 {
        first + self.below(last - first + 1)
    }

    /// True once in `n`.
    pub(in crate::supernode) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them, which must not be none.
    pub(in crate::supernode) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}
