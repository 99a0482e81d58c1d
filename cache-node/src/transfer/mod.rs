//! Chunks between nodes: pulling from holders, following fills, serving both. Imports store and
//! membership; must not know origins, keys' homes or HTTP.
//!
//! | file | purpose |
//! |---|---|
//! | `session` | PURE: which chunks are asked of whom |
//! | `pull` | executes a session: all missing chunks of a known manifest |
//! | `client` | asks peers; verifies |
//! | `server` | answers peers |
//! | `live` | a growing object: one writer, many readers |
//! | `registry` | this node's fills, for followers |

mod client;
mod live;
mod pull;
mod registry;
mod server;
pub mod session;
pub mod swarm;

pub use client::{Followed, Peers};
pub use live::{End, Live, Progress};
pub use pull::{PullError, pull};
pub use registry::{Entry, FillEntry, Fills};
pub use server::{CopyRequest, PeerService};

#[cfg(test)]
mod tests;
