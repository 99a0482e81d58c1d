//! The super-node tier: the index and the consensus that keeps it.

pub mod index;
pub mod raft;
