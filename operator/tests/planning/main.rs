//! The plans under random specs, crashes and losses, against small models of a cluster.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nodes;
mod pools;
mod supers;
mod world;
