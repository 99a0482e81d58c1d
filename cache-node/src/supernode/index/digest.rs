//! PURE. The running digest: what a replica's state became, position by position, in 32 bytes.
//!
//! `D(p) = BLAKE3(D(before p) || p || everything that applying p staged, in order)`, beginning with
//! zeros; positions without commands are passed over. It is written with the position's own writes,
//! so a restart and a snapshot carry it on. Two replicas whose digests differ at a position applied
//! something differently at or before it; how positions were grouped makes no difference.
//!
//! Not here: whether RocksDB still holds what was written; an audit reads it all.

use std::collections::VecDeque;

/// A digest.
pub type Digest = [u8; blake3::OUT_LEN];

/// What goes into digests, and in which form: replicas that differ in it are not compared.
pub const DIGEST_VERSION: u32 = 1;

/// Digests are remembered as of multiples of so many positions.
const REMEMBERED_EVERY: u64 = 64;
/// Digests remembered.
const REMEMBERED_MAX: usize = 512;
const POSITION_BYTES: usize = 8;

/// A digest as of a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestAt {
    /// The position.
    pub position: u64,
    /// The digest of all up to it.
    pub digest: Digest,
}

/// The newest digest, and some before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests {
    last: DigestAt,
    remembered: VecDeque<DigestAt>,
}

impl Digests {
    /// Goes on from what was written.
    pub(super) fn restore(value: &[u8]) -> Option<Self> {
        let (position, digest) = value.split_first_chunk::<POSITION_BYTES>()?;
        let position = u64::from_be_bytes(*position);
        let last = DigestAt { position, digest: digest.try_into().ok()? };
        Some(Self { last, remembered: VecDeque::new() })
    }

    /// What is to be written.
    pub(super) fn record(&self) -> Vec<u8> {
        [&self.last.position.to_be_bytes()[..], &self.last.digest].concat()
    }

    /// Begins the digest of `position`.
    pub(super) fn begin(&self, position: u64) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.last.digest).update(&position.to_be_bytes());
        hasher
    }

    /// Ends it.
    pub(super) fn end(&mut self, position: u64, hasher: &blake3::Hasher) {
        let passed = position.saturating_sub(1) / REMEMBERED_EVERY * REMEMBERED_EVERY;
        if self.last.position > 0 && passed >= self.last.position {
            self.remembered.push_back(DigestAt { position: passed, digest: self.last.digest });
            if self.remembered.len() > REMEMBERED_MAX {
                self.remembered.pop_front();
            }
        }
        self.last = DigestAt { position, digest: *hasher.finalize().as_bytes() };
    }

    /// The newest.
    pub(super) fn last(&self) -> DigestAt {
        self.last
    }

    /// All that are remembered, oldest first, the newest among them.
    pub(super) fn all(&self) -> Vec<DigestAt> {
        let last = (self.last.position > 0).then_some(self.last);
        self.remembered.iter().copied().chain(last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(positions: impl IntoIterator<Item = u64>) -> Digests {
        let mut digests = Digests::default();
        for position in positions {
            let hasher = digests.begin(position);
            digests.end(position, &hasher);
        }
        digests
    }

    #[test]
    fn replicas_remember_the_same_positions_wherever_they_stand() {
        let positions = [1, 5, 63, 64, 65, 70, 200, 201, 1_000];
        let (one, other) = (after(positions), after(positions[..8].iter().copied()));
        let at = |digests: &Digests| digests.all().iter().map(|d| d.position).collect::<Vec<_>>();
        assert_eq!(at(&one), [64, 192, 960, 1_000]);
        assert_eq!(at(&other), [64, 192, 201]);
        assert_eq!(one.all()[..2], other.all()[..2]);
        let differs = after([1, 5, 63, 65, 70, 200]);
        assert_ne!(differs.all()[0].digest, one.all()[0].digest);
    }

    #[test]
    fn a_restart_goes_on() {
        let mut again = Digests::restore(&after([1, 2]).record()).unwrap();
        let hasher = again.begin(3);
        again.end(3, &hasher);
        assert_eq!(again.last(), after([1, 2, 3]).last());
        assert!(Digests::restore(&[0; 39]).is_none() && Digests::restore(&[0; 41]).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let digests = after((1..100_000).step_by(50));
        assert_eq!(digests.all().len(), REMEMBERED_MAX + 1);
    }
}
