//! Shoal's node, a request's way through it from the top down:
//!
//! client → [`edge`] → [`fetch`] → [`store`] (memory, disk) → [`directory`] (who has it, who fetches
//! it) → [`transfer`] (peers) → [`origin`]. A super-node is [`supernode`] behind the same listener.
//! ARCHITECTURE.md has the layers, which a test holds.

pub mod admin;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod current;
pub mod directory;
pub mod edge;
pub mod events;
pub mod fences;
pub mod fetch;
pub mod files;
mod home;
pub mod identity;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod origin;
pub mod policy;
pub mod probes;
pub mod refusals;
pub mod rpc;
pub mod store;
pub mod supernode;
pub mod tasks;
pub mod text;
pub mod tls;
pub mod transfer;
pub mod up;
