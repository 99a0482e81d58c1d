//! `run`'s flags as values that make sense together.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use super::{
    EdgeUrl, SizeMix, UsageError,
    cli::{EdgeArgs, RunArgs, Spacing},
};

/// Edges that one run keeps apart, over its whole time.
pub const EDGES_MAX: usize = 1024;
/// Objects in one run.
pub const OBJECTS_MAX: usize = 1_000_000;
/// Requests in flight at once.
pub const IN_FLIGHT_MAX: usize = 16_384;
/// `--close-every`.
pub const CLOSE_EVERY_MAX: u64 = 1_000_000;
/// The slowest rate: one request in a hundred seconds.
pub const RATE_MIN_PER_S: f64 = 0.01;
/// The fastest rate.
pub const RATE_MAX_PER_S: f64 = 100_000.0;
/// The steepest popularity; beyond it a single object gets everything.
pub const ZIPF_EXPONENT_MAX: f64 = 10.0;
/// Length of `--prefix`.
pub const PREFIX_MAX_BYTES: usize = 64;
/// The longest run.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest timeout.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// `--edge-down-grace` when it is left out.
pub const EDGE_DOWN_GRACE_DEFAULT: Duration = Duration::from_secs(1);
/// The longest `--edge-down-grace`.
pub const EDGE_DOWN_GRACE_MAX: Duration = Duration::from_secs(300);
/// `--max-origin-ratio` when `--origin` is given without it.
pub const ORIGIN_RATIO_DEFAULT: f64 = 1.05;

/// Where the list of edges comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeSource {
    /// Given once.
    Fixed(Vec<EdgeUrl>),
    /// A file that may change.
    File {
        /// The file.
        path: PathBuf,
        /// See `--edge-down-grace`.
        down_grace: Duration,
    },
}

/// Where the JSON report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTarget {
    /// To standard output, in place of the table.
    Stdout,
    /// To a file, beside the table.
    File(PathBuf),
}

/// What must hold at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Failed requests.
    pub failures_max: u64,
    /// Requests with wrong bytes.
    pub wrong_max: u64,
    /// Origin bytes per unique byte.
    pub origin_ratio_max: Option<f64>,
    /// The same for the worst object.
    pub object_ratio_max: Option<f64>,
    /// Offload by bytes, in percent.
    pub offload_min_pct: Option<f64>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The edges.
    pub edges: EdgeSource,
    /// The origin whose counts are read.
    pub origin: Option<EdgeUrl>,
    /// Admin listeners whose nodes' uploads are read.
    pub admins: Vec<EdgeUrl>,
    /// Host header, if not the edge's address.
    pub host: Option<String>,
    /// How long requests are sent.
    pub duration: Duration,
    /// Mean rate of requests.
    pub rate_per_s: f64,
    /// Their spacing.
    pub spacing: Spacing,
    /// Number of objects.
    pub objects: usize,
    /// Exponent of their popularity.
    pub zipf_exponent: f64,
    /// Their sizes.
    pub sizes: SizeMix,
    /// Seed of the content.
    pub seed: u64,
    /// Seed of the workload.
    pub workload_seed: u64,
    /// Start of the objects' names.
    pub prefix: String,
    /// Requests in flight at once.
    pub in_flight_max: usize,
    /// For one request.
    pub timeout: Duration,
    /// Whether a request that a used connection closed on is sent again.
    pub resend: bool,
    /// Each request of so many is the last of its connection.
    pub close_every: Option<u64>,
    /// Whether the sums are told as lines of JSON while the run goes on.
    pub follow: bool,
    /// Thresholds.
    pub limits: Limits,
    /// JSON report.
    pub json: Option<JsonTarget>,
    /// HTML report.
    pub html: Option<PathBuf>,
}

impl TryFrom<RunArgs> for Scenario {
    type Error = UsageError;

    fn try_from(args: RunArgs) -> Result<Self, UsageError> {
        let RunArgs { edges, load, thresholds, json, html, follow } = args;
        let origin = edges.origin.clone();
        let limits = Limits {
            failures_max: thresholds.max_failures,
            wrong_max: thresholds.max_wrong,
            origin_ratio_max: thresholds
                .max_origin_ratio
                .or(origin.as_ref().map(|_| ORIGIN_RATIO_DEFAULT)),
            object_ratio_max: thresholds.max_object_ratio,
            offload_min_pct: thresholds.min_offload,
        };
        if origin.is_none() {
            limits.check_without_origin()?;
        }
        Ok(Self {
            origin,
            host: edges.host.clone(),
            admins: edges.admins.clone(),
            edges: edge_source(edges)?,
            duration: load.duration,
            rate_per_s: load.rate,
            spacing: load.arrivals,
            objects: load.catalog.objects,
            zipf_exponent: load.zipf,
            sizes: load.catalog.sizes,
            seed: load.catalog.seed,
            workload_seed: load.catalog.workload_seed,
            prefix: load.catalog.prefix,
            in_flight_max: load.max_in_flight,
            timeout: load.timeout,
            resend: load.resend,
            close_every: load.close_every,
            follow,
            limits,
            json: json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File)),
            html,
        })
    }
}

impl Limits {
    fn check_without_origin(&self) -> Result<(), UsageError> {
        let unjudgeable = [
            (self.origin_ratio_max, "max-origin-ratio"),
            (self.object_ratio_max, "max-object-ratio"),
            (self.offload_min_pct, "min-offload"),
        ];
        match unjudgeable.iter().find(|(limit, _)| limit.is_some()) {
            Some(&(_, flag)) => Err(UsageError::NeedsOrigin(flag)),
            None => Ok(()),
        }
    }
}

fn edge_source(args: EdgeArgs) -> Result<EdgeSource, UsageError> {
    if let Some(path) = args.edges_file {
        let down_grace = args.edge_down_grace.unwrap_or(EDGE_DOWN_GRACE_DEFAULT);
        return Ok(EdgeSource::File { path, down_grace });
    }
    if args.edge_down_grace.is_some() {
        return Err(UsageError::NeedsEdgesFile);
    }
    let list: Vec<EdgeUrl> = args.edge.into_iter().chain(args.edges).collect();
    match list.len() {
        0 => return Err(UsageError::NoEdges),
        1..=EDGES_MAX => {}
        count => return Err(UsageError::TooManyEdges(count)),
    }
    let mut seen = HashSet::new();
    if let Some(twice) = list.iter().find(|edge| !seen.insert(*edge)) {
        return Err(UsageError::SameEdge(twice.clone()));
    }
    Ok(EdgeSource::Fixed(list))
}

#[cfg(test)]
mod tests;
