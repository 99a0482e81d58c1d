//! Real processes on free ports of the loopback: clusters by `shoal up`, nginx and the
//! deterministic origin before them, bad input, crashes and restarts.
//!
//! `faults` loses members, lines and disks under load.
//!
//! Tests that start a cluster take turns, so that a machine with two cores is enough. They need the
//! binaries of the whole workspace: `make test`, or `cargo build --workspace` first.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a failing test shows what the processes said")]

mod asking;
mod bad_origins;
mod common;
mod crowds;
mod damage;
mod drains;
mod faults;
mod guide;
mod membership;
mod nginx;
mod origins;
mod page;
mod privacy;
mod purges;
mod ranges;
mod refusals;
mod restarts;
mod rules;
mod sites;
mod variants;
