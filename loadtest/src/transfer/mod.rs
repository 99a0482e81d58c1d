//! The benchmark of a transfer from one member to another: what a way of carrying chunks costs, in
//! processor time of either side, memory and time. Uploader and downloader are processes of their
//! own that run what nodes run: the peer service over a store, behind the cluster's listener with
//! mutual TLS, and the client that nodes ask with. Every chunk is verified.
//!
//! | file | purpose |
//! |---|---|
//! | `ends` | the two processes |
//! | `identities` | their certificates |
//! | `results` | what it came to |

mod ends;
mod identities;
pub mod results;

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStdout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    process::{Process, ProcessError, usage},
    scenario::{TransferScenario, transfer::Way},
};
pub use ends::end;
use results::{Results, Run};

/// For an end to say that it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// For all bytes, on top of what they take at [`LEAST_BYTES_PER_S`].
const MORE: Duration = Duration::from_secs(60);
const LEAST_BYTES_PER_S: u64 = 5_000_000;

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum TransferError {
    /// A process that did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No place for its files.
    #[error("a temporary folder: {0}; set TMPDIR to one that can be written to")]
    Folder(#[from] io::Error),
    /// No certificates.
    #[error("certificates cannot be made: {0}; this is a mistake in the benchmark")]
    Certificates(#[from] rcgen::Error),
    /// An end that failed.
    #[error("the {name} {what}; its log ends:\n{said}")]
    End {
        /// Which.
        name: &'static str,
        /// What it did.
        what: String,
        /// The end of its log.
        said: String,
    },
    /// What an end failed with.
    #[error("{0}")]
    Failed(String),
}

/// What the uploader says once it serves.
#[derive(Debug, Deserialize)]
struct Serves {
    listen: String,
    object_id: String,
}

/// What the downloader says once it has its manifest and a first chunk.
#[derive(Debug, Deserialize)]
struct Begins {}

/// What the downloader says at its end.
#[derive(Debug, Deserialize)]
struct Took {
    elapsed_us: u64,
    bytes: u64,
    cpu_ms: u64,
}

/// Runs every way in turn, so often; all processes are gone when it returns.
///
/// # Errors
/// When a transfer cannot begin or fails.
pub async fn bench(
    scenario: &TransferScenario,
    stop: &CancellationToken,
) -> Result<Results, TransferError> {
    let folder = tempfile::Builder::new().prefix("shoal-transfer-").tempdir()?;
    identities::write(folder.path())?;
    let mut results = Results::default();
    for round in 0..scenario.rounds {
        for way in &scenario.ways {
            let run = tokio::select! {
                run = one(scenario, folder.path(), *way) => run?,
                () = stop.cancelled() => {
                    results.interrupted = true;
                    return Ok(results);
                }
            };
            results.runs.push(Run { round, ..run });
        }
    }
    results.sum_up(&scenario.ways);
    Ok(results)
}

async fn one(scenario: &TransferScenario, folder: &Path, way: Way) -> Result<Run, TransferError> {
    let folder_arg = format!("--folder={}", folder.display());
    let mut uploader = End::start(
        "uploader",
        folder,
        &[
            folder_arg.clone(),
            format!("--hot={}", scenario.hot_bytes()),
            format!("--chunk={}", scenario.chunk_bytes()),
        ],
    )?;
    let serves: Serves = uploader.says(READY_DEADLINE).await?;
    let mut downloader = End::start(
        "downloader",
        folder,
        &[
            folder_arg,
            format!("--hot={}", scenario.hot_bytes()),
            format!("--chunk={}", scenario.chunk_bytes()),
            format!("--peer={}", serves.listen),
            format!("--object={}", serves.object_id),
            format!("--way={}", way.name()),
            format!("--size={}", scenario.size_bytes),
            format!("--in-flight={}", scenario.in_flight),
        ],
    )?;
    let Begins {} = downloader.says(READY_DEADLINE).await?;
    let before = usage::of(uploader.process.pid());
    let limit = Duration::from_secs(scenario.size_bytes / LEAST_BYTES_PER_S) + MORE;
    let took: Took = downloader.says(limit).await?;
    let after = usage::of(uploader.process.pid());
    let down = usage::of(downloader.process.pid());
    downloader.process.stop().await?;
    uploader.process.stop().await?;
    let gb = took.bytes as f64 / 1e9;
    Ok(Run {
        round: 0,
        way,
        bytes: took.bytes,
        elapsed_ms: took.elapsed_us / 1_000,
        gb_per_s: gb / (took.elapsed_us as f64 / 1e6),
        up_cpu_s_per_gb: after.cpu.saturating_sub(before.cpu).as_secs_f64() / gb,
        down_cpu_s_per_gb: took.cpu_ms as f64 / 1e3 / gb,
        up_rss_peak_bytes: after.rss_peak_bytes,
        down_rss_peak_bytes: down.rss_peak_bytes,
    })
}

/// One of the two processes.
struct End {
    name: &'static str,
    process: Process,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl End {
    fn start(name: &'static str, folder: &Path, args: &[String]) -> Result<Self, TransferError> {
        let program = std::env::current_exe()?;
        let log = folder.join(format!("{name}.log"));
        let args: Vec<_> = ["transfer-end".to_owned()].iter().chain(args).cloned().collect();
        let mut process = Process::start(name, &program, &args, &log, true)?;
        let lines = process.output().map(|output| BufReader::new(output).lines());
        Ok(Self { name, process, lines })
    }

    /// Its next line.
    async fn says<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, TransferError> {
        let line = match &mut self.lines {
            Some(lines) => tokio::time::timeout(within, lines.next_line()).await,
            None => Ok(Ok(None)),
        };
        let what = match line {
            Ok(Ok(Some(line))) => match serde_json::from_str(&line) {
                Ok(said) => return Ok(said),
                Err(error) => format!("said {line:?}: {error}"),
            },
            Ok(Ok(None)) => "ended".to_owned(),
            Ok(Err(error)) => format!("cannot be read: {error}"),
            Err(_) => format!("said nothing within {} s", within.as_secs()),
        };
        let said = self.process.log_tail();
        Err(TransferError::End { name: self.name, what, said })
    }
}
