//! Shoal's node.

pub mod clock;
pub mod metrics;
pub mod tasks;
