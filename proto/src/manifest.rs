//! Object heads, manifests and chunk arithmetic.
//!
//! Invariants: a [`Manifest`] exists only whole (its length is known and its chunk hashes are as
//! many as its length asks for); its id is the hash of its canonical encoding; its object id does
//! not depend on headers or freshness, so that a revalidation keeps the object and its holders.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::id::{ChunkHash, HASH_BYTES, ManifestId, ObjectId, ObjectKey};
use crate::limits;
use crate::wire::{WireError, v1};

/// One response header, its name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower-case name.
    pub name: String,
    /// Value as received.
    pub value: Bytes,
}

/// Freshness facts of a stored response (RFC 9111 section 4.2), fixed when it was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Unix time in milliseconds at which the response head was received.
    pub response_time_ms: u64,
    /// `corrected_initial_age` (RFC 9111 section 4.2.3), in milliseconds.
    pub initial_age_ms: u64,
    /// `freshness_lifetime` (RFC 9111 section 4.2.1), in milliseconds.
    pub lifetime_ms: u64,
    /// Never served without validation (`no-cache`).
    pub validate_always: bool,
    /// Never served stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub never_stale: bool,
    /// RFC 5861 section 3, in milliseconds after the lifetime.
    pub stale_while_revalidate_ms: u64,
    /// RFC 5861 section 4, in milliseconds after the lifetime.
    pub stale_if_error_ms: u64,
}

impl Freshness {
    /// `current_age` (RFC 9111 section 4.2.3) at `now_ms`, in milliseconds.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.initial_age_ms.saturating_add(now_ms.saturating_sub(self.response_time_ms))
    }

    /// Unix time in milliseconds until which the response is fresh.
    pub fn fresh_until_ms(&self) -> u64 {
        if self.validate_always {
            return 0;
        }
        let left = self.lifetime_ms.saturating_sub(self.initial_age_ms);
        if left == 0 { 0 } else { self.response_time_ms.saturating_add(left) }
    }

    /// Whether it may be reused without validation at `now_ms`.
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        !self.validate_always && self.age_ms(now_ms) < self.lifetime_ms
    }
}

/// What purges by prefix and tag match an object by: keyed hashes, each bound to the site, that name
/// neither a path nor a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Of every prefix of the path, of the path itself, and of every tag; at most
    /// [`limits::LABELS_MAX`]. Empty where nobody knows them: every such purge of the site matches.
    pub hashes: Vec<u64>,
    /// There are more tags than are kept: every tag's purge of the site matches.
    pub every_tag: bool,
}

/// What is known of a response before its body: all of a manifest but the chunk hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// The key.
    pub key: ObjectKey,
    /// The site's name.
    pub site: String,
    /// HTTP status code.
    pub status: u16,
    /// End-to-end headers, in the order received.
    pub headers: Vec<Header>,
    /// Body length in bytes; `None` while it is not known.
    pub length: Option<u64>,
    /// Bytes in every chunk but the last.
    pub chunk_size: u32,
    /// Freshness facts.
    pub freshness: Freshness,
    /// Position in the index from which fences hold against the fill.
    pub fence_position: u64,
    /// What purges by prefix and tag match it by.
    pub labels: Labels,
}

impl ObjectHead {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|header| header.name == name).map(|header| &header.value)
    }
}

/// What a validation changes of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refresh {
    /// All headers, old and new.
    pub headers: Vec<Header>,
    /// Freshness facts from now on.
    pub freshness: Freshness,
    /// Position in the index from which fences hold against the validation.
    pub fence_position: u64,
    /// What purges match it by from now on.
    pub labels: Labels,
}

/// A whole object's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    head: Arc<ObjectHead>,
    length: u64,
    hashes: Vec<ChunkHash>,
}

impl Manifest {
    /// A manifest of `length` bytes in the given chunks.
    ///
    /// # Errors
    /// When length, chunk size and number of hashes do not agree, or a limit is passed.
    pub fn new(
        mut head: ObjectHead,
        length: u64,
        hashes: Vec<ChunkHash>,
    ) -> Result<Self, WireError> {
        if head.length.is_some_and(|announced| announced != length) {
            return Err(WireError::field("length", length, "the length announced in the head"));
        }
        head.length = Some(length);
        head.check()?;
        let wanted = chunk_count(length, head.chunk_size);
        if hashes.len() as u64 != u64::from(wanted) {
            return Err(WireError::field("chunk_hashes", hashes.len(), "one hash a chunk"));
        }
        Ok(Self { head: Arc::new(head), length, hashes })
    }

    /// Everything but the chunk hashes; its length is always known.
    pub fn head(&self) -> &ObjectHead {
        &self.head
    }

    /// The same, to be kept.
    pub fn shared_head(&self) -> Arc<ObjectHead> {
        Arc::clone(&self.head)
    }

    /// Body length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// The chunk hashes, in order.
    pub fn hashes(&self) -> &[ChunkHash] {
        &self.hashes
    }

    /// The hash of chunk `index`.
    pub fn hash(&self, index: u32) -> Option<ChunkHash> {
        self.hashes.get(index as usize).copied()
    }

    /// Bytes in chunk `index`; 0 when there is no such chunk.
    pub fn chunk_length(&self, index: u32) -> u32 {
        chunk_length(self.length, self.head.chunk_size, index)
    }

    /// This manifest's name: the hash of its canonical encoding.
    pub fn id(&self) -> ManifestId {
        // Prost writes fields in order and no maps are used, so equal manifests encode equally.
        let encoded = v1::Manifest::from(self).encode_to_vec();
        ManifestId::new(*blake3::hash(&encoded).as_bytes())
    }

    /// The object that this manifest describes.
    pub fn object_id(&self) -> ObjectId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"shoal object v1");
        hasher.update(self.head.key.as_bytes());
        hasher.update(&self.length.to_le_bytes());
        hasher.update(&self.head.chunk_size.to_le_bytes());
        for hash in &self.hashes {
            hasher.update(hash.as_bytes());
        }
        ObjectId::new(*hasher.finalize().as_bytes())
    }

    /// The same object with newer headers and freshness (RFC 9111 section 4.3.4).
    #[must_use]
    pub fn refreshed(&self, refresh: Refresh) -> Self {
        let Refresh { headers, freshness, fence_position, labels } = refresh;
        let before = ObjectHead::clone(&self.head);
        let head = ObjectHead { headers, freshness, fence_position, labels, ..before };
        Self { head: Arc::new(head), length: self.length, hashes: self.hashes.clone() }
    }
}

/// The chunk size for a body of that length, in bytes.
pub fn chunk_size_for(length: Option<u64>) -> u32 {
    match length {
        Some(length) if length > limits::SMALL_CHUNK_BODY_BYTES_MAX => limits::CHUNK_BYTES_MAX,
        _ => limits::CHUNK_BYTES_MIN,
    }
}

/// How many chunks a body of `length` bytes has, saturating at `u32::MAX`.
pub fn chunk_count(length: u64, chunk_size: u32) -> u32 {
    u32::try_from(length.div_ceil(u64::from(chunk_size.max(1)))).unwrap_or(u32::MAX)
}

/// Bytes in chunk `index` of a body; 0 when there is no such chunk.
pub fn chunk_length(length: u64, chunk_size: u32, index: u32) -> u32 {
    let start = u64::from(index) * u64::from(chunk_size);
    length.saturating_sub(start).min(u64::from(chunk_size)) as u32
}

pub(crate) fn hashes_from_wire(joined: &[u8]) -> Result<Vec<ChunkHash>, WireError> {
    let (hashes, rest) = joined.as_chunks::<HASH_BYTES>();
    if !rest.is_empty() || hashes.len() > limits::CHUNKS_MAX as usize {
        return Err(WireError::field(
            "chunk_hashes",
            joined.len(),
            "a multiple of 32 bytes, at most 65,536 hashes",
        ));
    }
    Ok(hashes.iter().copied().map(ChunkHash::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> ObjectHead {
        ObjectHead {
            key: ObjectKey::new([7; 32]),
            site: "docs".into(),
            status: 200,
            headers: vec![Header { name: "etag".into(), value: Bytes::from_static(b"\"1\"") }],
            length: None,
            chunk_size: limits::CHUNK_BYTES_MIN,
            freshness: Freshness { lifetime_ms: 60_000, ..Freshness::default() },
            fence_position: 3,
            labels: Labels { hashes: vec![1, u64::MAX], every_tag: true },
        }
    }

    fn manifest(length: u64) -> Manifest {
        let count = chunk_count(length, limits::CHUNK_BYTES_MIN);
        let hashes = (0..count).map(|i| ChunkHash::of(&i.to_le_bytes())).collect();
        Manifest::new(head(), length, hashes).unwrap()
    }

    #[test]
    fn chunks_cover_the_body() {
        let m = manifest(600 * 1024);
        assert_eq!(m.chunk_count(), 3);
        assert_eq!(m.chunk_length(0), 256 * 1024);
        assert_eq!(m.chunk_length(2), 88 * 1024);
        assert_eq!(m.chunk_length(3), 0);
        assert_eq!(manifest(0).chunk_count(), 0);
    }

    #[test]
    fn a_manifest_round_trips_and_keeps_its_name() {
        let m = manifest(300_000);
        let back = Manifest::try_from(v1::Manifest::from(&m)).unwrap();
        assert_eq!(back, m);
        assert_eq!(back.id(), m.id());
    }

    #[test]
    fn a_revalidation_renames_the_manifest_and_keeps_the_object() {
        let m = manifest(300_000);
        let fresher = Freshness { lifetime_ms: 1, ..Freshness::default() };
        let refresh = Refresh { freshness: fresher, fence_position: 9, ..Refresh::default() };
        let refreshed = m.refreshed(refresh);
        assert_ne!(refreshed.id(), m.id());
        assert_eq!(refreshed.object_id(), m.object_id());
    }

    #[test]
    fn hashes_must_match_the_length() {
        assert!(Manifest::new(head(), 300_000, Vec::new()).is_err());
        let announced = ObjectHead { length: Some(5), ..head() };
        assert!(Manifest::new(announced, 4, vec![ChunkHash::of(b"four")]).is_err());
    }

    #[test]
    fn freshness_counts_the_age_on_arrival() {
        let f = Freshness {
            response_time_ms: 1_000_000,
            initial_age_ms: 20_000,
            lifetime_ms: 60_000,
            ..Freshness::default()
        };
        assert!(f.is_fresh(1_039_999));
        assert!(!f.is_fresh(1_040_000));
        assert_eq!(f.fresh_until_ms(), 1_040_000);
        assert_eq!(Freshness { initial_age_ms: u64::MAX, ..f }.fresh_until_ms(), 0);
    }
}
