//! Every bound that two processes share, with its unit; related ones are checked against each
//! other at compile time. Bounds of one process alone stand in the module that keeps them.

use crate::id::OBJECT_REF_BYTES;

/// Largest message of any service, in bytes.
pub const RPC_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Chunk size of bodies up to [`SMALL_CHUNK_BODY_BYTES_MAX`] and of unknown length, in bytes.
pub const CHUNK_BYTES_MIN: u32 = 256 * 1024;
/// Chunk size of larger bodies, in bytes.
pub const CHUNK_BYTES_MAX: u32 = 1024 * 1024;
/// Longest body that is cut into chunks of [`CHUNK_BYTES_MIN`].
pub const SMALL_CHUNK_BODY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most chunks of one object: keeps its manifest within one message.
pub const CHUNKS_MAX: u32 = 65_536;
/// Longest body that is cached at all, in bytes: 64 GiB.
pub const OBJECT_BYTES_MAX: u64 = CHUNKS_MAX as u64 * CHUNK_BYTES_MAX as u64;
/// Longest body of unknown length that is cached, in bytes: 16 GiB.
pub const UNKNOWN_LENGTH_BYTES_MAX: u64 = CHUNKS_MAX as u64 * CHUNK_BYTES_MIN as u64;

/// Bodies up to this travel with their manifest, in one round trip, in bytes.
pub const INLINE_BODY_BYTES_MAX: u32 = 64 * 1024;

/// Longest response header block that is kept, in bytes of names and values.
pub const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Most response headers that are kept.
pub const HEADERS_MAX: usize = 256;

/// Path prefixes of an object that purges can match, from the root on; deeper ones share the last.
pub const PATH_LEVELS_MAX: usize = 16;
/// Tags of an object that purges can match; one with more is matched by every tag's purge.
pub const TAGS_MAX: usize = 32;
/// Most labels of an object: its path's prefixes, the path itself, its tags.
pub const LABELS_MAX: usize = PATH_LEVELS_MAX + 1 + TAGS_MAX;

/// Longest site name, node name or zone, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest cluster id, in bytes.
pub const CLUSTER_ID_BYTES_MAX: usize = 64;
/// Longest address in a message, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Most members of a cluster.
pub const MEMBERS_MAX: usize = 4_096;

/// Most holders named in one answer.
pub const HOLDERS_ANSWERED_MAX: usize = 16;
/// Most ranges in one request for chunks.
pub const CHUNK_RANGES_MAX: usize = 256;
/// Most holder changes in one announcement.
pub const ANNOUNCE_CHANGES_MAX: usize = 16_384;
/// Most bytes of references and bitmaps in one announcement.
pub const ANNOUNCE_BYTES_MAX: usize = 1024 * 1024;
/// Longest bitmap of one holder, in bytes: a bit a chunk.
pub const BITMAP_BYTES_MAX: usize = CHUNKS_MAX.div_ceil(8) as usize;
/// Most objects in one request for holders.
pub const LOCATE_OBJECTS_MAX: usize = 1_024;
/// Most leases in one renewal.
pub const RENEW_LEASES_MAX: usize = 4_096;
/// Most fences kept and sent: older ones are compacted into their site's.
pub const FENCES_MAX: usize = 8_192;

/// Most sites of a cluster.
pub const SITES_MAX: usize = 256;
/// Longest definition of one site, in bytes.
pub const SITE_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of all definitions.
pub const SITES_BYTES_MAX: usize = 1024 * 1024;
/// Names of removed sites that are remembered; the oldest is forgotten beyond it.
pub const SITES_REMOVED_MAX: usize = 1_024;

/// A member's session lease, in milliseconds: after so long without the tier's answer it trusts
/// nothing as fresh.
pub const SESSION_LEASE_MS: u32 = 6_000;
/// Between two heartbeats, in milliseconds.
pub const HEARTBEAT_MS: u32 = 500;
/// A fill lease's life without renewal, in milliseconds.
pub const FILL_LEASE_MS: u32 = 10_000;
/// Between two renewals, in milliseconds.
pub const FILL_RENEW_MS: u32 = 2_000;

/// Deadline of a small request between members, in milliseconds.
pub const RPC_DEADLINE_MS: u64 = 2_000;
/// Deadline of a write to the index, elections included, in milliseconds.
pub const WRITE_DEADLINE_MS: u64 = 10_000;
/// For all nodes to apply a change of sites, in milliseconds.
pub const SITES_APPLY_MS: u32 = 5_000;
/// Deadline of an audit of all super-nodes' indexes, in milliseconds.
pub const VERIFY_DEADLINE_MS: u64 = 100_000;
/// Deadline to connect to a member, in milliseconds.
pub const CONNECT_DEADLINE_MS: u64 = 1_000;
/// Longest silence on a stream between peers, in milliseconds.
pub const STREAM_IDLE_MS: u64 = 30_000;

const _: () = {
    assert!(CHUNK_BYTES_MIN <= CHUNK_BYTES_MAX);
    assert!((CHUNK_BYTES_MAX as usize) + 64 * 1024 <= RPC_MESSAGE_BYTES_MAX);
    assert!(SMALL_CHUNK_BODY_BYTES_MAX / CHUNK_BYTES_MIN as u64 <= CHUNKS_MAX as u64);
    assert!(CHUNKS_MAX as usize * 32 + 2 * HEADER_BLOCK_BYTES_MAX <= RPC_MESSAGE_BYTES_MAX);
    assert!(ANNOUNCE_CHANGES_MAX * OBJECT_REF_BYTES <= ANNOUNCE_BYTES_MAX);
    assert!(ANNOUNCE_BYTES_MAX + ANNOUNCE_CHANGES_MAX * 16 <= RPC_MESSAGE_BYTES_MAX / 2);
    assert!(LOCATE_OBJECTS_MAX * HOLDERS_ANSWERED_MAX * 2 * 9 <= RPC_MESSAGE_BYTES_MAX);
    assert!(SITE_BYTES_MAX <= SITES_BYTES_MAX);
    let names_bytes = (SITES_MAX + SITES_REMOVED_MAX) * (NAME_BYTES_MAX + 32);
    assert!(SITES_BYTES_MAX + names_bytes <= RPC_MESSAGE_BYTES_MAX / 2);
    assert!(HEARTBEAT_MS * 4 <= SESSION_LEASE_MS);
    assert!(FILL_RENEW_MS * 3 <= FILL_LEASE_MS);
};
