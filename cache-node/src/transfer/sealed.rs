//! What a wish for a copy says of the origin, sealed under the cluster's secret: nodes pass it on
//! without a URL standing in any message, and whoever lacks the secret learns nothing but its length
//! in steps of [`STEP_BYTES`].
//!
//! ChaCha20-Poly1305 (RFC 8439). Every message has a key of its own, derived from the secret and 32
//! random bytes, so that no nonce is ever used twice; the object's key is authenticated with it.

use bytes::Bytes;
use prost::Message;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shoal_proto::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX};
use shoal_proto::wire::{WireError, v1};
use shoal_proto::{ErrorKind, ObjectKey, RpcError};

use crate::clock;

/// For what the derived keys are.
const CONTEXT: &str = "shoal.dev 2026-11 source of a copy v1";
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Sealed texts are padded to a multiple of this.
const STEP_BYTES: usize = 256;
/// Longest path and query, in bytes.
const TARGET_BYTES_MAX: usize = 16 * 1024;
/// Longest sealed text, in bytes.
const SEALED_BYTES_MAX: usize = TARGET_BYTES_MAX + 1_024;

/// Where an object comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The site's name.
    pub site: String,
    /// The authority that the client named.
    pub authority: String,
    /// Path and query at the origin.
    pub target: String,
    /// Which part of what stands there, where it is not all of it.
    pub part: Option<SourcePart>,
}

/// A part of what stands at an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePart {
    /// Which.
    pub number: u32,
    /// The whole's length in bytes.
    pub total: u64,
    /// The whole's strong validator.
    pub tag: Bytes,
    /// The whole's `Last-Modified`.
    pub modified: Option<Bytes>,
}

/// Seals and opens what nodes tell one another of sources.
#[derive(Clone)]
pub struct Sealer {
    secret: [u8; 32],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer of the cluster with that secret.
    pub fn new(cluster_secret: &[u8; 32]) -> Self {
        Self { secret: blake3::derive_key(CONTEXT, cluster_secret) }
    }

    fn cipher(&self, salt: &[u8]) -> Result<LessSafeKey, RpcError> {
        let key = blake3::keyed_hash(&self.secret, salt);
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_bytes());
        key.map(LessSafeKey::new).map_err(|_| RpcError::new(ErrorKind::Bug, "no cipher"))
    }

    /// Seals a source for whoever takes a copy of the key's object.
    ///
    /// # Errors
    /// `Bug` when the operating system gives no randomness.
    pub fn seal(&self, key: &ObjectKey, source: Source) -> Result<Bytes, RpcError> {
        let bug = |_| RpcError::new(ErrorKind::Bug, "no randomness to seal with");
        let mut salt = [0; SALT_BYTES];
        clock::random(&mut salt).map_err(bug)?;
        let Source { site, authority, target, part } = source;
        let part = part.map(|SourcePart { number, total, tag, modified }| v1::CopyPart {
            number,
            total,
            tag,
            modified,
        });
        let source = v1::CopySource { site, authority, target, part };
        let mut text = source.encode_length_delimited_to_vec();
        text.resize(text.len().next_multiple_of(STEP_BYTES), 0);
        let sealed = self.cipher(&salt)?.seal_in_place_append_tag(nonce(), aad(key), &mut text);
        sealed.map_err(|_| RpcError::new(ErrorKind::Bug, "a source cannot be sealed"))?;
        Ok([salt.to_vec(), text].concat().into())
    }

    /// Opens what another node sealed.
    ///
    /// # Errors
    /// `Invalid` when it is too long, was not sealed under this cluster's secret for that key, or
    /// breaks a limit.
    pub fn open(&self, key: &ObjectKey, sealed: &[u8]) -> Result<Source, RpcError> {
        let bad = || WireError::field("sealed", sealed.len(), "a source sealed by a node");
        if !(SALT_BYTES + TAG_BYTES..=SEALED_BYTES_MAX).contains(&sealed.len()) {
            return Err(bad().into());
        }
        let (salt, text) = sealed.split_at(SALT_BYTES);
        let mut text = text.to_vec();
        let opened = self.cipher(salt)?.open_in_place(nonce(), aad(key), &mut text);
        let opened = opened.map_err(|_| bad())?;
        let source = v1::CopySource::decode_length_delimited(&*opened).map_err(|_| bad())?;
        let v1::CopySource { site, authority, target, part } = source;
        let part = part.map(|v1::CopyPart { number, total, tag, modified }| SourcePart {
            number,
            total,
            tag,
            modified,
        });
        let fields = [
            ("site", site.len(), NAME_BYTES_MAX),
            ("authority", authority.len(), ADDRESS_BYTES_MAX),
            ("target", target.len(), TARGET_BYTES_MAX),
        ];
        for (field, length, most) in fields {
            if length > most {
                let expected = format!("at most {most} bytes");
                return Err(WireError::field(field, length, expected).into());
            }
        }
        Ok(Source { site, authority, target, part })
    }
}

/// Every key is used once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn aad(key: &ObjectKey) -> Aad<[u8; 32]> {
    Aad::from(*key.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: ObjectKey = ObjectKey::new([5; 32]);

    fn source(target: &str) -> Source {
        let (site, authority) = ("docs".into(), "docs.test".into());
        Source { site, authority, target: target.into(), part: None }
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_secret_and_key_alone() {
        let sealer = Sealer::new(&[1; 32]);
        let sealed = sealer.seal(&KEY, source("/a?token=secret")).unwrap();
        assert_eq!(sealer.open(&KEY, &sealed), Ok(source("/a?token=secret")));
        fn refused(sealer: &Sealer, key: &ObjectKey, sealed: &[u8]) {
            assert_eq!(sealer.open(key, sealed).unwrap_err().kind, ErrorKind::Invalid);
        }
        refused(&Sealer::new(&[2; 32]), &KEY, &sealed);
        refused(&sealer, &ObjectKey::new([6; 32]), &sealed);
        for at in [0, SALT_BYTES, sealed.len() - 1] {
            let mut forged = sealed.to_vec();
            forged[at] ^= 1;
            refused(&sealer, &KEY, &forged);
        }
        refused(&sealer, &KEY, &vec![0; SEALED_BYTES_MAX + 1]);
    }

    #[test]
    fn nothing_shows_but_a_coarse_length() {
        let sealer = Sealer::new(&[1; 32]);
        let sealed = |target: &str| sealer.seal(&KEY, source(target)).unwrap();
        let (short, long) = (sealed("/"), sealed("/canary-canary-canary"));
        assert_eq!(short.len(), long.len());
        assert_ne!(sealed("/"), short, "two messages under one key");
        assert!(!long.windows(6).any(|bytes| bytes == b"canary"));
        assert_ne!(sealed(&"x".repeat(300)).len(), short.len());
    }

    #[test]
    fn the_longest_target_fits_and_a_longer_one_does_not() {
        let sealer = Sealer::new(&[1; 32]);
        let longest = Source { authority: "a".repeat(ADDRESS_BYTES_MAX), ..source("") };
        let longest = Source { target: "t".repeat(TARGET_BYTES_MAX), ..longest };
        let sealed = sealer.seal(&KEY, longest.clone()).unwrap();
        assert_eq!(sealer.open(&KEY, &sealed), Ok(longest));
        let longer = source(&"t".repeat(TARGET_BYTES_MAX + 1));
        let sealed = sealer.seal(&KEY, longer).unwrap();
        assert!(sealer.open(&KEY, &sealed).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_open(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Sealer::new(&[1; 32]).open(&KEY, &bytes).is_err());
        }
    }
}
