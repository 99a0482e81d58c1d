//! Conversions from arbitrary bytes and from damaged messages: refused, or within the limits and
//! back again as they came.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::ChunkHash;
use crate::manifest::{Labels, chunk_count};

fn manifest() -> impl Strategy<Value = Manifest> {
    let header = ("[a-z-]{1,12}", prop::collection::vec(any::<u8>(), 0..20));
    let headers = prop::collection::vec(header, 0..5);
    (any::<[u8; 32]>(), 100..1_000u16, headers, 0..2_000_000u64, any::<bool>()).prop_map(
        |(key, status, headers, length, known)| {
            let header = |(name, value)| Header { name, value: Bytes::from(value) };
            let head = ObjectHead {
                key: ObjectKey::new(key),
                site: "docs".into(),
                status,
                headers: headers.into_iter().map(header).collect(),
                length: known.then_some(length),
                chunk_size: limits::CHUNK_BYTES_MIN,
                freshness: Freshness { lifetime_ms: length, ..Freshness::default() },
                fence_position: length,
                labels: Labels { hashes: vec![length], every_tag: known },
            };
            let chunks = chunk_count(length, limits::CHUNK_BYTES_MIN);
            let hashes = (0..chunks).map(|i| ChunkHash::of(&i.to_le_bytes())).collect();
            Manifest::new(head, length, hashes).unwrap()
        },
    )
}

/// Fails unless what the bytes give is within the limits.
fn within_limits(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(Ok(head)) = v1::ObjectHead::decode(bytes).map(ObjectHead::try_from) {
        let sizes = limits::CHUNK_BYTES_MIN..=limits::CHUNK_BYTES_MAX;
        prop_assert!(head.headers.len() <= limits::HEADERS_MAX);
        prop_assert!(head.site.len() <= limits::NAME_BYTES_MAX);
        prop_assert!(sizes.contains(&head.chunk_size));
        prop_assert!(head.length.unwrap_or_default() <= limits::OBJECT_BYTES_MAX);
        prop_assert_eq!(ObjectHead::try_from(v1::ObjectHead::from(&head)), Ok(head));
    }
    if let Ok(Ok(manifest)) = v1::Manifest::decode(bytes).map(Manifest::try_from) {
        prop_assert!(manifest.chunk_count() <= limits::CHUNKS_MAX);
        let again = Manifest::try_from(v1::Manifest::from(&manifest));
        prop_assert_eq!(again, Ok(manifest));
    }
    if let Ok(info) = v1::NodeInfo::decode(bytes)
        && check_node_info(&info).is_ok()
    {
        prop_assert!(info.node_id != 0 && info.name.len() <= limits::NAME_BYTES_MAX);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        within_limits(&bytes)?;
    }

    #[test]
    fn a_manifest_comes_back_as_it_went(manifest in manifest()) {
        prop_assert_eq!(Manifest::try_from(v1::Manifest::from(&manifest)), Ok(manifest));
    }

    #[test]
    fn damaged_manifests(
        manifest in manifest(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = v1::Manifest::from(&manifest).encode_to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        within_limits(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        within_limits(&bytes)?;
    }
}
