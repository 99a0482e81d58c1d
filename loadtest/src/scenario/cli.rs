//! What may be written on the command line, with the help texts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use super::{
    EdgeUrl, SizeMix,
    http::HttpArgs,
    index::IndexArgs,
    play::PlayArgs,
    policy::PolicyArgs,
    run,
    swarm::SwarmArgs,
    transfer::{EndArgs, TransferArgs},
};
use crate::units::{parse_duration, parse_size, show_duration};

const AFTER_HELP: &str = "\
Examples:
  shoal-loadtest origin --listen 127.0.0.1:9000
  shoal-loadtest run --edge http://127.0.0.1:8080 --origin http://127.0.0.1:9000
  shoal-loadtest run --edges http://127.0.0.1:8080,http://127.0.0.1:8081 \\
      --duration 2m --rate 500 --origin http://127.0.0.1:9000 --html report.html
  shoal-loadtest play cdn-offload --html report.html
  shoal-loadtest index --against etcd --json index.json
  shoal-loadtest policy --trace trace.csv.gz --capacity 1GiB
  shoal-loadtest swarm --nodes 16 --size 256MiB --rate 100Mbit
  shoal-loadtest transfer --size 10GiB
  shoal-loadtest http --against nginx,varnish

Exit codes: 0 as wished, 1 could not run, 2 a threshold was missed, 64 bad usage.";

/// Shoal's load test and deterministic origin.
#[derive(Clone, Debug, Parser)]
#[command(name = "shoal-loadtest", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the tool does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve objects whose every byte follows from seed, path and offset.
    Origin(OriginArgs),
    /// Write the objects that a run asks for as files, for another origin to serve.
    Objects(ObjectsArgs),
    /// Send requests to edges at a fixed rate, verify every byte, and judge the result.
    Run(Box<RunArgs>),
    /// Start a cluster, load it, break it, and judge the result, as a scenario says.
    Play(PlayArgs),
    /// Measure the index of a tier of super-nodes, alone or beside etcd.
    Index(Box<IndexArgs>),
    /// Replay a trace through the policy that nodes evict by, and count what it misses.
    Policy(PolicyArgs),
    /// Measure how one object gets to many nodes at once, over lines shaped to a rate.
    Swarm(Box<SwarmArgs>),
    /// Measure what carrying chunks from one member to another costs.
    Transfer(TransferArgs),
    /// Measure a node's edge beside nginx and Varnish.
    Http(Box<HttpArgs>),
    /// One of the two processes of a transfer.
    #[command(hide = true)]
    TransferEnd(EndArgs),
}

/// Flags of `origin`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Objects are at /o/<size>/<name>: exactly <size> bytes, up to 1 TiB. Query parameters bend one reply:
  cc=TEXT         Cache-Control, percent-encoded; empty for none
  expires=N       Expires in N seconds (may be negative) in place of Cache-Control
  age=TEXT        an Age header
  version=V       other bytes and another ETag
  status=CODE     this status, with the object as body
  vary=NAME       Vary: NAME; X-Varied-On repeats the request's value
  set-cookie=1    a Set-Cookie header
  no-validators=1 neither ETag nor Last-Modified
  no-length=1     chunked, without Content-Length
  cut=N           declare the whole length, close the connection after N bytes of body
  delay-ms=N      wait before the head
  stall-at=N      pause after N bytes of body, for
  stall-ms=N      this long
/echo sends any request's body back. Counts: GET /_origin/stats, cleared by POST /_origin/reset.")]
pub struct OriginArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = listen)]
    pub listen: SocketAddr,
    /// The seed that all bytes follow from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Most body bytes per second over all connections together, for example 20MiB.
    #[arg(long, value_name = "BYTES_PER_S", value_parser = positive_size)]
    pub rate: Option<u64>,
    /// Freshness that replies state.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub max_age: u64,
    /// Wait before every reply's head.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = latency_ms)]
    pub latency_ms: u64,
    /// Print the address as one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Stop when standard input ends, whose other end a parent process holds.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Independent of one another, as from many users.
    Poisson,
    /// Evenly.
    Constant,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The run is an open loop: requests are due at moments that do not depend on the replies, and latency
counts from the moment a request was due, so a stall is not hidden by requests that were never sent.
A request is sent once, never again but for --resend. Every byte of every reply is verified against the seed.

With --edges-file the list may change while the run goes on; the file is read again every 200 ms. A
request whose edge is missing from the file at any time between its start and --edge-down-grace
after its failure is counted as abandoned, not as a failure. Wrong bytes are always a failure. A
file without any URL is taken for one that is just being written, and the list stays as it was.")]
pub struct RunArgs {
    /// Where requests go.
    #[command(flatten)]
    pub edges: EdgeArgs,
    /// What is asked for, and how often.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What must hold at the end.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
    /// Tell the sums so far on standard error, as a line of JSON each second.
    #[arg(long, help_heading = "Report")]
    pub follow: bool,
}

/// Where requests go.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Edges")]
pub struct EdgeArgs {
    /// An edge, for example http://127.0.0.1:8080; may be repeated.
    #[arg(long, value_name = "URL")]
    pub edge: Vec<EdgeUrl>,
    /// Edges separated by commas.
    #[arg(long, value_name = "URL,URL", value_delimiter = ',')]
    pub edges: Vec<EdgeUrl>,
    /// A file with one edge per line, `#` for comments, read again when it changes.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["edge", "edges"])]
    pub edges_file: Option<PathBuf>,
    /// Time after a failure in which its edge may leave the file to excuse it [default: 1s].
    #[arg(long, value_name = "TIME", value_parser = grace)]
    pub edge_down_grace: Option<Duration>,
    /// The origin, whose counts are read before and after the run.
    #[arg(long, value_name = "URL")]
    pub origin: Option<EdgeUrl>,
    /// Admin listeners of the nodes, whose uploads to one another are read before and after the run.
    #[arg(long, value_name = "URL,URL", value_delimiter = ',')]
    pub admins: Vec<EdgeUrl>,
    /// Host header of every request; without it, the edge's address.
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub host: Option<String>,
}

/// What is asked for, and how often.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// How long requests are sent.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = run_duration)]
    pub duration: Duration,
    /// Requests per second.
    #[arg(long, value_name = "N", default_value = "200", value_parser = rate)]
    pub rate: f64,
    /// How requests are spread over time: poisson, as from many users, or constant.
    #[arg(long, value_enum, default_value_t = Spacing::Poisson, hide_possible_values = true)]
    pub arrivals: Spacing,
    /// What there is to ask for.
    #[command(flatten)]
    pub catalog: CatalogArgs,
    /// Exponent of the objects' popularity (Zipf); 0 for all alike.
    #[arg(long, value_name = "S", default_value = "0.9", value_parser = zipf)]
    pub zipf: f64,
    /// Most requests in flight; one that finds no room waits, and its latency goes on.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = in_flight)]
    pub max_in_flight: usize,
    /// Longest time for one request, from sending to last byte.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,
    /// Send again, and count that, what a connection used before closed on without a byte.
    #[arg(long)]
    pub resend: bool,
    /// Each request of N is the last of its connection, so that new ones are made all the time.
    #[arg(long, value_name = "N", value_parser = close_every)]
    pub close_every: Option<u64>,
}

/// The objects of a run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct CatalogArgs {
    /// Different objects.
    #[arg(long, value_name = "N", default_value = "400", value_parser = objects)]
    pub objects: usize,
    /// Sizes of the objects, each with its weight.
    #[arg(long, value_name = "SIZE:WEIGHT,...")]
    #[arg(default_value = "4KiB:50,64KiB:30,1MiB:15,8MiB:5")]
    pub sizes: SizeMix,
    /// The origin's seed, to verify the bytes by.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Seed of popularity, sizes and arrivals; another one asks for other objects.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workload_seed: u64,
    /// Start of the objects' names; another one asks for other objects.
    #[arg(long, value_name = "NAME", default_value = "load", value_parser = prefix)]
    pub prefix: String,
}

/// Flags of `objects`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A run with the same flags asks for these objects: DIR is what a web server has to serve, such as
nginx by `root DIR;`.")]
pub struct ObjectsArgs {
    /// The folder that the files are written to.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Which objects.
    #[command(flatten)]
    pub catalog: CatalogArgs,
}

/// What must hold at the end.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Thresholds (exit code 2 when missed)")]
pub struct ThresholdArgs {
    /// Failed requests of any kind.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_failures: u64,
    /// Requests with a wrong byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_wrong: u64,
    /// Bytes that left the origin per byte of the objects received [default: 1.05 with --origin].
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub max_origin_ratio: Option<f64>,
    /// The same for the worst single object.
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub max_object_ratio: Option<f64>,
    /// Share of the delivered bytes that did not leave the origin.
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub min_offload: Option<f64>,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "write an IP address and a port, for example 127.0.0.1:9000".to_owned())
}

fn positive_size(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Ok(0) => Err("must be at least 1 byte per second; leave the flag out for no limit".into()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

fn latency_ms(text: &str) -> Result<u64, String> {
    whole(text, 0..=crate::scenario::origin::WAIT_MAX_MS)
}

fn between(text: &str, low: Duration, high: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if (low..=high).contains(&duration) {
        return Ok(duration);
    }
    Err(format!("must lie between {} and {}", show_duration(low), show_duration(high)))
}

pub(super) fn run_duration(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(1), run::DURATION_MAX)
}

fn timeout(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(1), run::TIMEOUT_MAX)
}

fn grace(text: &str) -> Result<Duration, String> {
    between(text, Duration::ZERO, run::EDGE_DOWN_GRACE_MAX)
}

fn whole<T>(text: &str, bounds: std::ops::RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let value = text.parse().ok().filter(|value| bounds.contains(value));
    value.ok_or_else(|| {
        format!("must be a whole number between {} and {}", bounds.start(), bounds.end())
    })
}

fn objects(text: &str) -> Result<usize, String> {
    whole(text, 1..=run::OBJECTS_MAX)
}

fn close_every(text: &str) -> Result<u64, String> {
    whole(text, 1..=run::CLOSE_EVERY_MAX)
}

fn in_flight(text: &str) -> Result<usize, String> {
    whole(text, 1..=run::IN_FLIGHT_MAX)
}

fn real(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (low..=high).contains(value));
    value.ok_or_else(|| format!("must be a number between {low} and {high}"))
}

fn rate(text: &str) -> Result<f64, String> {
    real(text, run::RATE_MIN_PER_S, run::RATE_MAX_PER_S)
}

fn zipf(text: &str) -> Result<f64, String> {
    real(text, 0.0, run::ZIPF_EXPONENT_MAX)
}

fn ratio(text: &str) -> Result<f64, String> {
    real(text, 0.0, 1e9)
}

fn percent(text: &str) -> Result<f64, String> {
    real(text, 0.0, 100.0)
}

fn prefix(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if (1..=run::PREFIX_MAX_BYTES).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("must be 1 to {} letters, digits or any of -._~", run::PREFIX_MAX_BYTES))
}

fn host(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::Authority>() {
        Ok(authority) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err("must be a host name, with a port if need be, for example demo.local".to_owned()),
    }
}
