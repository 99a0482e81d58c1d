//! What an object takes of the byte budget: its body, in whole blocks where it has a file, its
//! manifest and its record. PURE.
//!
//! Invariants: a charge is never below what is written for the object, so that the budget holds
//! for all of it; it follows from head and length alone, so that it is reserved before the first
//! byte comes. Not here: what RocksDB keeps of deleted rows until it compacts them, and its log,
//! which [`super::catalog`] bounds.

use shoal_proto::ObjectHead;
use shoal_proto::limits::INLINE_BODY_BYTES_MAX;
use shoal_proto::manifest::chunk_count;

/// A file takes whole blocks of so many bytes.
const BLOCK_BYTES: u64 = 4096;
/// Record, key and the fixed fields of a manifest, each with its row's overhead.
const ROWS_BYTES: u64 = 512;
/// A chunk's hash in the manifest, with its tag and length.
const HASH_BYTES: u64 = 34;
/// What a header or the site costs besides its text: tags and lengths.
const TEXT_BYTES: u64 = 12;
/// Runs of blocks that a file system describes in one block of its own, at least: ext4's 340, less
/// what a run may be split.
const RUNS_PER_BLOCK: u64 = 256;
/// A label in the manifest.
const LABEL_BYTES: u64 = 12;

/// Everything that is written for an object but its body and the hashes of its chunks.
pub(super) fn of_head(head: &ObjectHead) -> u64 {
    let headers = head.headers.iter();
    let text: usize = headers.map(|header| header.name.len() + header.value.len()).sum();
    ROWS_BYTES
        + (text + head.site.len()) as u64
        + (head.headers.len() as u64 + 1) * TEXT_BYTES
        + head.labels.hashes.len() as u64 * LABEL_BYTES
}

/// One chunk more of a body of unknown length, with its hash. Only the first may prove to be all of
/// it, and too small for a file.
pub(super) fn of_chunk(index: u32, bytes: u64) -> u64 {
    let body = if index == 0 { in_blocks(bytes) } else { whole_blocks(bytes) };
    body.saturating_add(HASH_BYTES)
}

/// An object of that length, whole.
pub(super) fn of_object(head: &ObjectHead, length: u64) -> u64 {
    let hashes = u64::from(chunk_count(length, head.chunk_size)) * HASH_BYTES;
    in_blocks(length).saturating_add(hashes).saturating_add(of_head(head))
}

/// An object of that length without any of its chunks: its manifest, and a bit for each of them.
pub(super) fn of_outline(head: &ObjectHead, length: u64) -> u64 {
    let chunks = u64::from(chunk_count(length, head.chunk_size));
    of_head(head) + chunks * HASH_BYTES + of_bits(chunks)
}

/// What it takes to note which of so many chunks are here: a bit for each, and the blocks in which a
/// file system says where a file with holes lies.
pub(super) fn of_bits(chunks: u64) -> u64 {
    let runs = chunks.div_ceil(2);
    let leaves = runs.div_ceil(RUNS_PER_BLOCK);
    let above = u64::from(leaves > 1);
    chunks.div_ceil(8) + TEXT_BYTES + (leaves + above) * BLOCK_BYTES
}

/// A chunk of that length in a file.
pub(super) fn of_piece(bytes: u32) -> u64 {
    whole_blocks(u64::from(bytes))
}

/// What a record says that was written before charges were: not less than the body.
pub(super) fn of_old_record(length: u64, chunks: u32) -> u64 {
    in_blocks(length).saturating_add(u64::from(chunks) * HASH_BYTES).saturating_add(2 * ROWS_BYTES)
}

fn in_blocks(bytes: u64) -> u64 {
    if bytes <= u64::from(INLINE_BODY_BYTES_MAX) {
        return bytes;
    }
    whole_blocks(bytes)
}

fn whole_blocks(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;
    use shoal_proto::wire::v1;
    use shoal_proto::{ChunkHash, Freshness, Header, Labels, Manifest, ObjectKey};

    use super::*;

    const SIZE: u64 = shoal_proto::limits::CHUNK_BYTES_MIN as u64;

    fn head(headers: Vec<(String, Vec<u8>)>, labels: usize) -> ObjectHead {
        let header = |(name, value): (String, Vec<u8>)| Header { name, value: value.into() };
        ObjectHead {
            key: ObjectKey::new([0xff; 32]),
            site: "a-site-with-a-name".into(),
            status: 599,
            headers: headers.into_iter().map(header).collect(),
            length: None,
            chunk_size: SIZE as u32,
            freshness: Freshness {
                response_time_ms: u64::MAX,
                initial_age_ms: u64::MAX,
                lifetime_ms: u64::MAX,
                validate_always: true,
                never_stale: true,
                stale_while_revalidate_ms: u64::MAX,
                stale_if_error_ms: u64::MAX,
            },
            fence_position: u64::MAX,
            labels: Labels { hashes: vec![u64::MAX; labels], every_tag: true },
        }
    }

    proptest! {
        #[test]
        fn is_never_below_what_is_written(
            headers in prop::collection::vec(("[a-z]{1,40}", prop::collection::vec(any::<u8>(), 0..300)), 0..40),
            labels in 0usize..20,
            length in 0..20 * SIZE,
        ) {
            let head = head(headers, labels);
            let charge = of_object(&head, length);
            let mut grown = of_head(&head);
            let count = chunk_count(length, head.chunk_size);
            let whole = length / SIZE;
            grown += (0..whole).map(|index| of_chunk(index as u32, SIZE)).sum::<u64>();
            grown += if length % SIZE > 0 { of_chunk(whole as u32, length % SIZE) } else { 0 };
            let hashes = vec![ChunkHash::of(&Bytes::new()); count as usize];
            let manifest = Manifest::new(head, length, hashes).unwrap();
            let written = v1::Manifest::from(&manifest).encoded_len() as u64 + 128 + length;
            prop_assert!(charge >= written, "{charge} charged, {written} written");
            prop_assert!(grown >= charge, "{grown} as it grew, {charge} at once");
            prop_assert!(charge <= written + BLOCK_BYTES + 1024 + 40 * 24 + 20 * 12);
        }
    }

    #[test]
    fn nothing_overflows() {
        let head = head(Vec::new(), 0);
        assert!(of_object(&head, u64::MAX - 4096) >= u64::MAX - 4096);
        assert_eq!(of_chunk(1, u64::MAX), u64::MAX);
        assert!(of_old_record(5, 1) > 5);
    }
}
