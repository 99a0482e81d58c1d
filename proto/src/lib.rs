//! Shoal's wire protocol and the few types that cross process borders: identifiers, manifests,
//! limits and error kinds. No I/O, no clock, no task; imports nothing of Shoal's.
//!
//! | module | purpose |
//! |---|---|
//! | [`id`] | identifiers as types, never bare numbers or byte strings |
//! | [`manifest`] | object heads, manifests and chunk arithmetic |
//! | [`limits`] | every bound that two processes share |
//! | [`error`] | error kinds by what the caller should do |
//! | [`wire`] | the generated messages and the only conversions to and from them |

pub mod error;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod wire;

pub use error::{ErrorKind, RpcError};
pub use id::{ChunkHash, ClusterId, LeaseId, ManifestId, NodeId, ObjectId, ObjectKey, ObjectRef};
pub use manifest::{Freshness, Header, Labels, Manifest, ObjectHead, Refresh};
