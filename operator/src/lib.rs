//! Shoal's Kubernetes operator: custom resources in, pods and changes of the tier out. The layers
//! stand in `ARCHITECTURE.md`.

pub mod autoscale;
pub mod certs;
pub mod cli;
pub mod clock;
pub mod control;
pub mod crd;
pub mod metrics;
pub mod plan;
pub mod resources;
pub mod tasks;
