//! `http`'s flags, and the values that make sense together.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{UsageError, cli::run_duration, run::JsonTarget};
use crate::units::parse_size;

/// Connections at most.
const CONNECTIONS_MAX: u16 = 1_000;
/// Connections without a request at most: fewer than a machine has ports.
const IDLE_MAX: u32 = 20_000;
/// Misses at most.
const MISSES_MAX: u32 = 10_000;
/// Rounds at most.
const ROUNDS_MAX: u16 = 20;
/// Processors for a server at most.
const CORES_MAX: usize = 64;
/// Objects at most.
const OBJECTS_MAX: usize = 8;
/// The longest object, in bytes.
const OBJECT_MAX_BYTES: u64 = 1 << 30;

/// Whom Shoal is measured beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rival {
    /// nginx with `proxy_cache`.
    Nginx,
    /// Varnish with its store in memory.
    Varnish,
}

/// Flags of `http`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
One node, as `shoal up` sets it up, and the others before the same nginx as the origin, all on
loopback; each on the same processors, the clients (wrk and h2load) on the others. Programs of
Debian: nginx-light, varnish, wrk, nghttp2-client, util-linux; `ci/deps.sh http` installs them. Build
as docs/performance.md says for figures that mean something.")]
pub struct HttpArgs {
    /// Whom to measure beside.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "nginx,varnish")]
    pub against: Vec<Rival>,
    /// Measure over TLS too, where the server speaks it.
    #[arg(long)]
    pub tls: bool,
    /// Processors of each server.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cores: usize,
    /// Sizes of the hot objects.
    #[arg(long, value_name = "SIZE,SIZE", value_delimiter = ',', value_parser = object)]
    #[arg(default_value = "1KiB,64KiB,100MiB")]
    pub objects: Vec<u64>,
    /// Connections at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: u16,
    /// How long each server gets requests for each object.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = run_duration)]
    pub duration: Duration,
    /// Times that everything is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: u16,
    /// Connections that ask once and then stay.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub idle: u32,
    /// Objects asked for that nobody has.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub misses: u32,
    /// The program shoal [default: beside this one, else on PATH].
    #[arg(long, value_name = "FILE")]
    pub shoal: Option<PathBuf>,
    /// Fail when a figure is missed.
    #[arg(long)]
    pub enforce: bool,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpScenario {
    /// `--against`
    pub against: Vec<Rival>,
    /// `--tls`
    pub tls: bool,
    /// `--cores`
    pub cores: usize,
    /// `--objects`
    pub objects: Vec<u64>,
    /// `--connections`
    pub connections: u16,
    /// `--duration`
    pub duration: Duration,
    /// `--rounds`
    pub rounds: u16,
    /// `--idle`
    pub idle: u32,
    /// `--misses`
    pub misses: u32,
    /// `--shoal`
    pub shoal: Option<PathBuf>,
    /// `--enforce`
    pub enforce: bool,
    /// JSON report.
    pub json: Option<JsonTarget>,
    /// HTML report.
    pub html: Option<PathBuf>,
}

impl TryFrom<HttpArgs> for HttpScenario {
    type Error = UsageError;

    fn try_from(args: HttpArgs) -> Result<Self, UsageError> {
        let number = |flag, value: u64, low: u64, high: u64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(UsageError::Number { flag, value, low, high }),
        };
        number("cores", args.cores as u64, 1, CORES_MAX as u64)?;
        number("connections", args.connections.into(), 1, CONNECTIONS_MAX.into())?;
        number("rounds", args.rounds.into(), 1, ROUNDS_MAX.into())?;
        number("idle", args.idle.into(), 0, IDLE_MAX.into())?;
        number("misses", args.misses.into(), 0, MISSES_MAX.into())?;
        number("objects", args.objects.len() as u64, 1, OBJECTS_MAX as u64)?;
        let mut against = args.against;
        against.sort_unstable();
        against.dedup();
        Ok(Self {
            against,
            tls: args.tls,
            cores: args.cores,
            objects: args.objects,
            connections: args.connections,
            duration: args.duration,
            rounds: args.rounds,
            idle: args.idle,
            misses: args.misses,
            shoal: args.shoal,
            enforce: args.enforce,
            json: args.json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File)),
            html: args.html,
        })
    }
}

fn object(text: &str) -> Result<u64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    match (1..=OBJECT_MAX_BYTES).contains(&size) {
        true => Ok(size),
        false => Err("must lie between 1 byte and 1GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::{Cli, Command};

    fn scenario(line: &str) -> Result<HttpScenario, String> {
        let words = ["shoal-loadtest", "http"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Http(args) = cli.command else { return Err("another command".into()) };
        HttpScenario::try_from(*args).map_err(|error| error.to_string())
    }

    #[test]
    fn everybody_and_three_sizes_unless_told_otherwise() {
        let asked = scenario("").unwrap();
        assert_eq!(asked.against, [Rival::Nginx, Rival::Varnish]);
        assert_eq!(asked.objects, [1 << 10, 64 << 10, 100 << 20]);
        let one = scenario("--against varnish,varnish --objects 5").unwrap();
        assert_eq!((one.against, one.objects), (vec![Rival::Varnish], vec![5]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_flag() {
        for (line, flag) in [
            ("--cores 0", "--cores"),
            ("--connections 0", "--connections"),
            ("--rounds 21", "--rounds"),
            ("--idle 20001", "--idle"),
            ("--misses 10001", "--misses"),
            ("--objects 2GiB", "--objects"),
            ("--against squid", "--against"),
        ] {
            let told = scenario(line).unwrap_err();
            assert!(told.contains(flag), "{line}: {told}");
        }
    }
}
