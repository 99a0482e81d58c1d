//! Which chunks of an object being filled are written, and whether that is all of them. PURE.
//!
//! Invariant: every chunk but the last is whole, so that the chunks' lengths and the body's agree.

use shoal_proto::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_MAX};
use shoal_proto::manifest::{chunk_count, chunk_length};
use shoal_proto::wire::WireError;
use shoal_proto::{ChunkHash, ObjectHead};

/// The chunks written so far.
#[derive(Debug)]
pub(super) struct Written {
    chunk_size: u32,
    length: Option<u64>,
    hashes: Vec<Option<ChunkHash>>,
    count: u32,
    /// Of an unknown length, the chunk that proved to be the last, and its length.
    last: Option<(u32, u32)>,
}

impl Written {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the head's chunk size or length is beyond the limits.
    pub(super) fn new(head: &ObjectHead) -> Result<Self, WireError> {
        let ObjectHead { chunk_size, length, .. } = *head;
        if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_size) {
            return Err(WireError::field("chunk_size", chunk_size, "256 KiB to 1 MiB"));
        }
        if length.is_some_and(|length| length > u64::from(CHUNKS_MAX) * u64::from(chunk_size)) {
            let length = length.unwrap_or_default();
            return Err(WireError::field("length", length, "at most 65,536 chunks"));
        }
        Ok(Self { chunk_size, length, hashes: Vec::new(), count: 0, last: None })
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// One more than the highest index written.
    pub(super) fn chunks_end(&self) -> u32 {
        self.hashes.len() as u32
    }

    pub(super) fn hash(&self, index: u32) -> Option<ChunkHash> {
        self.hashes.get(index as usize).copied().flatten()
    }

    /// Bytes in a written chunk.
    pub(super) fn chunk_length(&self, index: u32) -> u32 {
        match (self.length, self.last) {
            (Some(length), _) => chunk_length(length, self.chunk_size, index),
            (None, Some((last, bytes))) if last == index => bytes,
            (None, _) => self.chunk_size,
        }
    }

    pub(super) fn offset(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.chunk_size)
    }

    /// Whether a chunk of that length may stand there.
    ///
    /// # Errors
    /// When it is longer or shorter than its place, or beyond the end.
    pub(super) fn check(&self, index: u32, bytes: usize) -> Result<(), WireError> {
        if index >= CHUNKS_MAX {
            return Err(WireError::field("chunk index", index, "at most 65,535"));
        }
        let whole = self.chunk_size as usize;
        let wanted = match (self.length, self.last) {
            (Some(length), _) => chunk_length(length, self.chunk_size, index) as usize,
            (None, Some((last, _))) if index > last => 0,
            (None, Some((last, length))) if index == last => length as usize,
            (None, Some(_)) => whole,
            // A short chunk ends the body: none may stand behind it yet.
            (None, None) if self.hashes.len() as u64 > u64::from(index) => whole,
            (None, None) => bytes.clamp(1, whole),
        };
        if wanted == 0 {
            return Err(WireError::field("chunk index", index, "an index within the body"));
        }
        if bytes != wanted {
            return Err(WireError::field("chunk length", bytes, format!("{wanted} bytes")));
        }
        Ok(())
    }

    /// Records a chunk that was checked and is written; false when it was recorded before.
    pub(super) fn record(&mut self, index: u32, bytes: usize, hash: ChunkHash) -> bool {
        let at = index as usize;
        if self.hashes.len() <= at {
            self.hashes.resize(at + 1, None);
        }
        if self.hashes[at].replace(hash).is_some() {
            return false;
        }
        self.count += 1;
        if self.length.is_none() && bytes < self.chunk_size as usize {
            self.last = Some((index, bytes as u32));
        }
        true
    }

    /// All hashes of a body of that length.
    ///
    /// # Errors
    /// The first chunk that is missing, or that is not as long as its place.
    pub(super) fn complete(&self, length: u64) -> Result<Vec<ChunkHash>, u32> {
        let chunks = chunk_count(length, self.chunk_size);
        if self.hashes.len() as u64 > u64::from(chunks) {
            return Err(chunks);
        }
        let right = |index| {
            let wanted = chunk_length(length, self.chunk_size, index);
            self.hash(index).filter(|_| self.chunk_length(index) == wanted).ok_or(index)
        };
        (0..chunks.min(CHUNKS_MAX)).map(right).collect()
    }
}

#[cfg(test)]
mod tests {
    use shoal_proto::{Freshness, ObjectKey};

    use super::*;

    const SIZE: usize = CHUNK_BYTES_MIN as usize;

    fn written(length: Option<u64>) -> Written {
        Written::new(&head(length)).unwrap()
    }

    fn head(length: Option<u64>) -> ObjectHead {
        ObjectHead {
            key: ObjectKey::new([1; 32]),
            site: "docs".into(),
            status: 200,
            headers: Vec::new(),
            length,
            chunk_size: CHUNK_BYTES_MIN,
            freshness: Freshness::default(),
            fence_position: 0,
            labels: shoal_proto::Labels::default(),
        }
    }

    fn put(written: &mut Written, index: u32, bytes: usize) -> bool {
        written.check(index, bytes).unwrap();
        written.record(index, bytes, ChunkHash::of(&index.to_le_bytes()))
    }

    #[test]
    fn a_known_length_fixes_every_chunk() {
        let mut written = written(Some(SIZE as u64 + 5));
        assert!(written.check(0, SIZE - 1).is_err());
        assert!(written.check(1, SIZE).is_err());
        assert!(written.check(2, 1).is_err());
        assert!(put(&mut written, 1, 5));
        assert!(!put(&mut written, 1, 5));
        assert_eq!(written.complete(SIZE as u64 + 5), Err(0));
        assert!(put(&mut written, 0, SIZE));
        assert_eq!(written.complete(SIZE as u64 + 5).unwrap().len(), 2);
        assert_eq!((written.count(), written.chunk_length(1)), (2, 5));
    }

    #[test]
    fn of_an_unknown_length_a_short_chunk_is_the_last() {
        let mut written = written(None);
        assert!(put(&mut written, 2, 7));
        assert!(written.check(3, SIZE).is_err());
        assert!(written.check(1, 7).is_err());
        assert!(written.check(2, 8).is_err());
        assert!(put(&mut written, 0, SIZE));
        assert!(put(&mut written, 1, SIZE));
        assert_eq!(written.complete(2 * SIZE as u64 + 8), Err(2), "another length");
        assert_eq!(written.complete(2 * SIZE as u64 + 7).unwrap().len(), 3);
        assert_eq!(written.complete(2 * SIZE as u64), Err(2), "one chunk too many");
    }

    #[test]
    fn no_short_chunk_before_a_written_one() {
        let mut written = written(None);
        assert!(put(&mut written, 1, SIZE));
        assert!(written.check(0, 7).is_err());
        assert!(written.check(1, 7).is_err());
        assert!(written.check(0, SIZE + 1).is_err());
        assert!(written.check(2, 0).is_err());
        assert_eq!(written.complete(2 * SIZE as u64), Err(0));
    }

    #[test]
    fn limits_hold() {
        assert!(Written::new(&ObjectHead { chunk_size: 1, ..head(None) }).is_err());
        let long = u64::from(CHUNKS_MAX) * SIZE as u64;
        assert!(Written::new(&head(Some(long))).is_ok());
        assert!(Written::new(&head(Some(long + 1))).is_err());
        assert!(written(None).check(CHUNKS_MAX, SIZE).is_err());
        assert_eq!(written(Some(0)).complete(0), Ok(Vec::new()));
        assert!(written(None).complete(u64::MAX).is_err());
    }
}
