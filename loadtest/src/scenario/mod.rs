//! The command line, and what it becomes once it is known to make sense (PURE).
//!
//! `cli` says what may be written, `run` and `origin` turn it into values that later layers use
//! without checking again. Nothing here opens a file or a socket.

pub mod cli;
pub mod edge_url;
pub mod http;
pub mod index;
pub mod origin;
pub mod play;
pub mod policy;
pub mod run;
pub mod sizes;
pub mod swarm;
pub mod transfer;

pub use cli::{Cli, Command};
pub use edge_url::EdgeUrl;
pub use http::HttpScenario;
pub use index::IndexScenario;
pub use origin::OriginScenario;
pub use play::PlayScenario;
pub use policy::PolicyScenario;
pub use run::Scenario;
pub use sizes::SizeMix;
pub use swarm::{Contender, SwarmScenario};
pub use transfer::TransferScenario;

use thiserror::Error;

/// A command line that parses but makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    /// Nothing to send requests to.
    #[error("no edge to send requests to: give --edge URL, --edges URL,URL or --edges-file FILE")]
    NoEdges,
    /// More edges than one run keeps apart.
    #[error("{0} edges are too many: one run takes at most {limit}", limit = run::EDGES_MAX)]
    TooManyEdges(usize),
    /// The same edge twice.
    #[error("the edge {0} is given twice: each edge counts once, remove one")]
    SameEdge(EdgeUrl),
    /// A list that cannot change has no use for a grace.
    #[error("--edge-down-grace needs --edges-file FILE: only there can an edge leave the list")]
    NeedsEdgesFile,
    /// A threshold that only the origin's counts can judge.
    #[error("--{0} needs the origin's own counts: add --origin URL, or leave --{0} out")]
    NeedsOrigin(&'static str),
    /// A number out of its bounds.
    #[error("--{flag} is {value}; expected {low} to {high}")]
    Number {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: u64,
        /// The least.
        low: u64,
        /// The most.
        high: u64,
    },
    /// An even number of voters.
    #[error("--super-nodes is {0}; expected 1, 3, 5 or 7, so that a vote has a majority")]
    SuperNodes(u16),
    /// Sizes that an index cannot go through by growing.
    #[error("--records expects up to {limit} sizes, each larger than the one before it",
        limit = index::SIZES_MAX)]
    Records,
}
