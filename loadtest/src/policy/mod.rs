//! Replays request traces through the node's own eviction policy: the very code that `shoal node`
//! runs, with nothing of a node around it.
//!
//! | file | purpose |
//! |---|---|
//! | `trace` | reads a trace: one request a line, `id,size` |
//! | `replay` | PURE: a cache of a given capacity before the trace |
//!
//! Must not know of sockets or time: a replay is the same on every machine.

pub mod replay;
pub mod trace;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use serde::Serialize;
use thiserror::Error;

use self::replay::{Misses, Shape, replay, shape};
use self::trace::{Request, TraceError, read};
use crate::scenario::PolicyScenario;

/// How a gzip file begins (RFC 1952 section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

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

/// A replay that could not begin.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The trace cannot be opened.
    #[error("--trace {path}: {source}; give a file that exists and can be read")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The trace cannot be read.
    #[error("--trace {path}: {source}")]
    Trace {
        /// The file, or `-`.
        path: PathBuf,
        /// Where and why.
        source: TraceError,
    },
}

/// Reads the trace and replays it once for each capacity. Takes processor time: not for the threads
/// of a runtime.
///
/// # Errors
/// When the trace cannot be read.
pub fn run(scenario: &PolicyScenario) -> Result<Document, PolicyError> {
    let trace = load(scenario.trace.as_deref())?;
    let shape = shape(&trace);
    let sizes = scenario.capacities.iter().map(|capacity| capacity.of(shape.unique_bytes));
    Ok(Document {
        report_version: REPORT_VERSION,
        policy: "s3-fifo",
        trace: scenario.trace.as_deref().unwrap_or(Path::new("-")).display().to_string(),
        shape,
        capacities: sizes.map(|bytes| replay(&trace, &shape, bytes)).collect(),
    })
}

fn load(path: Option<&Path>) -> Result<Vec<Request>, PolicyError> {
    let failed =
        |source| PolicyError::Trace { path: path.unwrap_or(Path::new("-")).into(), source };
    let input: Box<dyn Read> = match path {
        None => Box::new(io::stdin()),
        Some(path) => Box::new(
            File::open(path)
                .map_err(|source| PolicyError::Open { path: path.to_owned(), source })?,
        ),
    };
    let mut input = BufReader::new(input);
    let begin = input.fill_buf().map_err(|source| failed(TraceError::Read { line: 1, source }))?;
    if begin.starts_with(&GZIP_MAGIC) {
        return read(BufReader::new(MultiGzDecoder::new(input))).map_err(failed);
    }
    read(input).map_err(failed)
}
