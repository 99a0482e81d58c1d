//! PURE. A growing set of chunk numbers, a bit each.

/// A set of chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    words: Vec<u64>,
    len: usize,
}

const WORD_BITS: u32 = u64::BITS;

fn place(chunk: u32) -> (usize, u64) {
    ((chunk / WORD_BITS) as usize, 1 << (chunk % WORD_BITS))
}

impl Chunks {
    /// Takes a chunk in; false when it was in.
    pub(super) fn insert(&mut self, chunk: u32) -> bool {
        let (word, bit) = place(chunk);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(new);
        new
    }

    /// Takes a chunk out; false when it was not in.
    pub(super) fn remove(&mut self, chunk: u32) -> bool {
        let (word, bit) = place(chunk);
        let there = self.contains(chunk);
        if there {
            self.words[word] &= !bit;
            self.len -= 1;
        }
        there
    }

    /// How many are in.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a chunk is in.
    pub(super) fn contains(&self, chunk: u32) -> bool {
        let (word, bit) = place(chunk);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Sixty-four chunks at once, the lowest in the lowest bit.
    pub(super) fn word(&self, word: usize) -> u64 {
        self.words.get(word).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_and_go() {
        let mut chunks = Chunks::default();
        assert!(chunks.insert(70) && !chunks.insert(70));
        assert!(chunks.contains(70) && !chunks.contains(6) && !chunks.contains(700));
        assert_eq!(chunks.len(), 1);
        assert!(chunks.remove(70) && !chunks.remove(70) && !chunks.remove(9_999));
    }
}
