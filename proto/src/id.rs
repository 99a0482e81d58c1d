//! Identifiers as types. Hashes are BLAKE3, 32 bytes, printed as lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use crate::limits::CLUSTER_ID_BYTES_MAX;

/// Length of every hash, in bytes.
pub const HASH_BYTES: usize = 32;
/// Length of a reference to an object, in bytes.
pub const OBJECT_REF_BYTES: usize = 12;

/// An identifier that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// A hash of the wrong length.
    #[error("{what}: {length} bytes, expected {HASH_BYTES}")]
    Length {
        /// Which identifier.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// A hash that is not hexadecimal.
    #[error("{what}: not {HASH_BYTES} bytes in hexadecimal")]
    Hex {
        /// Which identifier.
        what: &'static str,
    },
    /// A cluster id that is empty, too long or not printable.
    #[error(
        "cluster id {value:?}: expected 1 to {CLUSTER_ID_BYTES_MAX} letters, digits, '-', '_' or '.'"
    )]
    Cluster {
        /// The value given.
        value: String,
    },
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; HASH_BYTES]);

        impl $name {
            /// From its bytes.
            pub const fn new(bytes: [u8; HASH_BYTES]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
                &self.0
            }

            /// Its bytes as a field of a message.
            pub fn to_wire(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                <[u8; HASH_BYTES]>::try_from(bytes)
                    .map(Self)
                    .map_err(|_| IdError::Length { what: $what, length: bytes.len() })
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                blake3::Hash::from_hex(text)
                    .map(|hash| Self(*hash.as_bytes()))
                    .map_err(|_| IdError::Hex { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_string()[..8])
            }
        }
    };
}

hash_id!(
    /// The canonical identity of a cacheable response, hashed under the cluster's secret, so that
    /// an index or a log names no URL.
    ObjectKey,
    "object key"
);
hash_id!(
    /// One stored version of the response for a key: the hash of key, length, chunk size and chunk
    /// hashes. A revalidation changes the manifest and leaves the object as it is.
    ObjectId,
    "object id"
);
hash_id!(
    /// A manifest's own hash.
    ManifestId,
    "manifest id"
);
hash_id!(
    /// A chunk's hash.
    ChunkHash,
    "chunk hash"
);

/// The first 96 bits of an object id: the name of an object in lists of holders, where millions of
/// them are kept. Two objects share one with a probability of 1e-11 among a billion, and then no
/// worse comes of it than a holder asked in vain: what it sends is verified against the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef(pub [u8; OBJECT_REF_BYTES]);

impl ObjectRef {
    /// The references that stand one after the other in a field; `None` when the last is cut off.
    pub fn list(field: &[u8]) -> Option<impl ExactSizeIterator<Item = Self> + Clone + '_> {
        let (refs, rest) = field.as_chunks::<OBJECT_REF_BYTES>();
        rest.is_empty().then(|| refs.iter().map(|bytes| Self(*bytes)))
    }

    /// The reference that a field is; `None` when it has another length.
    pub fn read(field: &[u8]) -> Option<Self> {
        field.try_into().ok().map(Self)
    }
}

impl From<&ObjectId> for ObjectRef {
    fn from(id: &ObjectId) -> Self {
        let mut bytes = [0; OBJECT_REF_BYTES];
        bytes.copy_from_slice(&id.as_bytes()[..OBJECT_REF_BYTES]);
        Self(bytes)
    }
}

impl ChunkHash {
    /// The hash of a chunk's bytes.
    pub fn of(chunk: &[u8]) -> Self {
        Self(*blake3::hash(chunk).as_bytes())
    }
}

/// A member's number: drawn at random when its data directory is made, kept there, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A fill lease's number, unique in its cluster with the odds of 64 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A cluster's name for itself, drawn when the cluster is made; data of another is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(String);

impl ClusterId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.len() > CLUSTER_ID_BYTES_MAX || !text.chars().all(plain) {
            return Err(IdError::Cluster { value: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_round_trip_through_text() {
        let hash = ChunkHash::of(b"shoal");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("00".parse::<ChunkHash>(), Err(IdError::Hex { what: "chunk hash" }));
    }

    #[test]
    fn a_short_hash_is_refused() {
        let refused = ObjectKey::try_from(&[1u8; 31][..]);
        assert_eq!(refused, Err(IdError::Length { what: "object key", length: 31 }));
    }

    #[test]
    fn cluster_ids_are_plain_text() {
        assert!("prod-eu.1".parse::<ClusterId>().is_ok());
        for bad in ["", "a b", "a/b", &"x".repeat(CLUSTER_ID_BYTES_MAX + 1)] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
        }
    }
}
