//! Shoal's node.

pub mod clock;
pub mod directory;
pub mod membership;
pub mod metrics;
pub mod policy;
pub mod rpc;
pub mod supernode;
pub mod tasks;
pub mod tls;
