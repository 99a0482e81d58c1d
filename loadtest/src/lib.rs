//! Shoal's load test and deterministic origin.
//!
//! The origin serves objects whose bytes follow from a seed; the load test asks edges for them at
//! a fixed rate, verifies every byte, and sets what the clients received against what left the
//! origin. Neither knows anything of a cache but HTTP.
//!
//! The benchmark of the index is another matter: it starts super-nodes itself, speaks their protocol
//! as their members do, and measures etcd at the same work. So is that of a swarm: it lays lines of a
//! known rate between real members, and measures how long an object takes to all of them.
//! Traces are replayed through the node's own eviction policy, the one thing of a node that is linked
//! in here.
//!
//! Layers; imports only go down:
//!
//! | layer | modules |
//! |---|---|
//! | main | `main`, `commands` |
//! | report | `report` |
//! | driver, audit | `driver`, `audit`, `index`, `policy`, `swarm`, `transfer`, `compare` |
//! | workload, origin | `workload`, `origin`, `tier`, `etcd` |
//! | scenario | `scenario` |
//! | content, sample | `content`, `sample`, `process` |
//! | base | `clock`, `percent`, `rng`, `tasks`, `units` |
//!
//! Invariants by absence: only `clock` reads the time, only `tasks` starts tasks and threads,
//! nothing holds a body as a whole, no request is sent twice but where `driver::reused` says so.

pub mod audit;
pub mod clock;
pub mod commands;
pub mod compare;
pub mod content;
pub mod driver;
pub mod etcd;
pub mod index;
pub mod origin;
pub mod percent;
pub mod play;
pub mod policy;
pub mod process;
pub mod report;
pub mod rng;
pub mod sample;
pub mod scenario;
pub mod swarm;
pub mod tasks;
pub mod tier;
pub mod transfer;
pub mod units;
pub mod workload;
