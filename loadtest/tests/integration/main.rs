//! The origin and the load test over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod documented;
mod edges;
mod faults;
mod http;
mod index;
mod origin;
mod play;
mod policy;
mod process;
mod run;
mod support;
mod swarm;
mod transfer;
