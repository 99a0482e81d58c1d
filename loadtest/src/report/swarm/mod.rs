//! What the benchmark of a swarm found, for people and for programs. Knows nothing of processes and
//! lines: it shows what it is given.

pub mod document;
pub mod table;

pub use document::SwarmReport;
