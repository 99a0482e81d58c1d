//! The command line, and what it becomes once it is known to make sense (PURE).
//!
//! `cli` says what may be written, `run` and `origin` turn it into values that later layers use
//! without checking again. Nothing here opens a file or a socket.

pub mod cli;
pub mod edge_url;
pub mod origin;
pub mod run;
pub mod sizes;

pub use cli::{Cli, Command};
pub use edge_url::EdgeUrl;
pub use origin::OriginScenario;
pub use run::Scenario;
pub use sizes::SizeMix;

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
}
