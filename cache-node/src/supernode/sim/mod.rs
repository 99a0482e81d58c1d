//! Deterministic simulation of a whole cluster: real consensus, the real index, lease tables,
//! ledgers and sweeps, between simulated nodes, on a simulated network, on simulated disks, in
//! virtual time. A seed is a history; the same seed is the same history, event by event. Only for
//! tests.
//!
//! | file | purpose |
//! |---|---|
//! | `rng` | PURE: chance |
//! | `plan` | PURE: what a seed is made of: sizes, faults and when |
//! | `net` | the network |
//! | `world` | what all share: network, origin, processes, what was seen |
//! | `node`, `serving` | a super-node: the product's cores in a thin shell |
//! | `cache`, `filling` | a node: the design's rules for whoever caches, and nothing more |
//! | `faults` | carries out a plan's faults |
//! | `sites` | who changes sites, and what nodes take in |
//! | `clients` | who writes to the index, reads it, and purges |
//! | `check` | Raft's invariants, at every step |
//! | `fills` | at most one fill |
//! | `linear` | PURE: is a history linearizable? |
//! | `history` | histories of registers and of purges, and their models |
//! | `planted` | bugs that must be found |
//! | `run` | one seed from start to verdict |
//! | `many` | many seeds at once, with progress |
//!
//! The shells of the product (`session`, `acquire`, `purge`, `standing`, `reaper`) are bound to
//! sockets and to another runtime; `node` and `serving` say the same things again, briefly, over the
//! same cores. What a node does (`directory`, `fetch`) is said again as well, over its table of
//! fences; home nodes and growing objects are not here.

mod cache;
mod check;
mod clients;
mod faults;
mod filling;
mod fills;
mod history;
mod linear;
mod many;
mod net;
mod node;
mod plan;
pub(in crate::supernode) mod planted;
pub(in crate::supernode) mod rng;
mod run;
mod serving;
mod sites;
mod tests;
mod world;
