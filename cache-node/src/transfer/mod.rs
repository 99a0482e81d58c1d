//! Chunks between nodes: pulling from holders, following fills, serving both. Imports store and
//! membership; must not know origins, keys' homes or HTTP.
//!
//! | file | purpose |
//! |---|---|
//! | `swarm` | PURE: which chunk is asked of whom |
//! | `gather` | executes a swarm's session |
//! | `client` | asks peers; verifies |
//! | `server` | answers peers |
//! | `lane` | chunks in frames of our own, where both sides can |
//! | `slots` | which chunk leaves next |
//! | `follow`, `availability` | the two streams that a swarm lives on |
//! | `source` | what chunks are read from |
//! | `members` | who pulls the same object |
//! | `live` | a growing object: one writer, many readers |
//! | `registry` | this node's fills and pulls, for others |
//! | `sealed` | what is said of origins, under the cluster's secret |

mod availability;
mod client;
mod follow;
mod gather;
mod lane;
mod live;
mod members;
mod registry;
mod sealed;
mod server;
mod slots;
mod source;
mod survey;
pub mod swarm;

pub use client::{Followed, Peers, Wanted};
pub use follow::FOLLOWED_WHOLE_CHUNKS;
pub use gather::{Control, GatherError, Gatherer};
pub use lane::{LaneService, Lanes};
pub use live::{End, Live, Progress, Tail};
pub use registry::{Entry, FillEntry, Fills};
pub use sealed::{Sealer, Source, SourcePart};
pub use server::{CopyRequest, CopyWishes, PeerService, PrefetchWish};

/// Whether bytes begin with the header of a frame that may be sent; for probes.
pub fn is_frame(bytes: &[u8]) -> bool {
    let header = bytes.first_chunk().and_then(|head| lane::frame::Header::decode(*head).ok());
    header.is_some_and(|header| lane::frame::Header::decode(header.encode()) == Ok(header))
}

#[cfg(test)]
mod tests;
