//! Replays request traces through the node's own eviction policy: the very code that `shoal node`
//! runs, with nothing of a node around it.
//!
//! | file | purpose |
//! |---|---|
//! | `trace` | reads a trace: one request a line, `id,size` |
//! | `replay` | PURE: a cache of a given capacity before the trace |
//! | `table` | what people read |
//!
//! Must not know of sockets, disks or time: a replay is the same on every machine.

pub mod replay;
pub mod table;
pub mod trace;

use serde::Serialize;

use self::replay::{Misses, Shape};

/// The form of [`Document`].
pub const REPORT_VERSION: u32 = 1;

/// What a run of `shoal-loadtest policy` found, as JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// Version of this document's form.
    pub report_version: u32,
    /// The policy's name.
    pub policy: &'static str,
    /// The trace as it was named.
    pub trace: String,
    /// What is in the trace, whatever the cache.
    pub shape: Shape,
    /// One entry a capacity, in the order asked for.
    pub capacities: Vec<Misses>,
}
