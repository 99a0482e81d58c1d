//! Shoal's load test and deterministic origin.
//!
//! The origin serves objects whose bytes follow from a seed; the load test asks edges for them at
//! a fixed rate, verifies every byte, and sets what the clients received against what left the
//! origin. Neither knows anything of a cache but HTTP.
//!
//! Layers; imports only go down:
//!
//! | layer | modules |
//! |---|---|
//! | main | `main`, `commands` |
//! | report | `report` |
//! | driver, audit | `driver`, `audit` |
//! | workload, origin | `workload`, `origin` |
//! | scenario | `scenario` |
//! | content, sample | `content`, `sample` |
//! | base | `clock`, `percent`, `rng`, `tasks`, `units` |
//!
//! Invariants by absence: only `clock` reads the time, only `tasks` starts tasks and threads,
//! nothing holds a body as a whole, no request is sent twice.

pub mod audit;
pub mod clock;
pub mod commands;
pub mod content;
pub mod driver;
pub mod origin;
pub mod percent;
pub mod report;
pub mod rng;
pub mod sample;
pub mod scenario;
pub mod tasks;
pub mod units;
pub mod workload;
