//! Shoal's node.

pub mod clock;
pub mod directory;
pub mod edge;
#[path = "fetch/types.rs"]
pub mod fetch;
pub mod membership;
pub mod metrics;
pub mod origin;
pub mod policy;
pub mod rpc;
pub mod tasks;
pub mod tls;
