//! Shoal's Kubernetes operator: custom resources in, pods and changes of the tier out. The layers
//! stand in `ARCHITECTURE.md`.

pub mod apply;
pub mod autoscale;
pub mod certs;
pub mod cli;
pub mod clock;
pub mod context;
pub mod control;
pub mod controller;
pub mod crd;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod resources;
pub mod run;
pub mod status;
pub mod tasks;
