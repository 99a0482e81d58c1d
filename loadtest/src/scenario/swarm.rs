//! `swarm`'s flags, and the values that make sense together.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{UsageError, run::JsonTarget};

/// Nodes at most: each is a process and a network namespace.
pub const NODES_MAX: u16 = 200;
/// Zones at most.
pub const ZONES_MAX: u16 = 16;
/// Rounds at most.
pub const ROUNDS_MAX: u16 = 100;
/// The largest object, in bytes: what clients compare with stands in a file of that length.
pub const SIZE_MAX_BYTES: u64 = 64 << 30;
/// Rates of a line, in bits a second.
pub const RATE_MIN_BITS_PER_S: u64 = 1_000_000;
/// The same, at most.
pub const RATE_MAX_BITS_PER_S: u64 = 100_000_000_000;
/// A round may take so many times the ideal, and so much more.
const LIMIT_TIMES: u32 = 20;
const LIMIT_MORE: Duration = Duration::from_secs(60);

/// What Shoal is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// BitTorrent: aria2 on every node, a seeder in the origin's place, opentracker beside it.
    Aria2,
    /// Every client asks the origin.
    Origin,
}

impl Contender {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aria2 => "aria2",
            Self::Origin => "origin",
        }
    }
}

/// Flags of `swarm`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Every node, super-node and the origin is a real process in a network namespace of its own, on one
bridge a zone; tc's tbf shapes each of their lines to --rate in both directions. All nodes' clients
ask for one object that nobody has, at the same moment, and compare every byte. Needs root, and the
programs ip and tc (Debian: iproute2). Build with --release for figures that mean something: all
nodes share this machine's processors.")]
pub struct SwarmArgs {
    /// Nodes that ask for the object at the same moment.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub nodes: u16,
    /// The object's size.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = size)]
    pub size: u64,
    /// What each line carries each way, such as 100Mbit.
    #[arg(long, value_name = "BITS_PER_S", default_value = "100Mbit", value_parser = rate)]
    pub rate: u64,
    /// Zones that nodes and super-nodes are spread over in turn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub zones: u16,
    /// Nodes killed half way, the filler first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub kill: u16,
    /// Objects, one after the other.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rounds: u16,
    /// Super-nodes: 1, 3, 5 or 7.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub super_nodes: u16,
    /// Then the same by other means, over lines as they were: aria2 (needs aria2c and opentracker),
    /// origin (as many times as long as there are nodes).
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub against: Vec<Contender>,
    /// The program `shoal` [default: beside this one, else on PATH].
    #[arg(long, value_name = "FILE")]
    pub shoal: Option<PathBuf>,
    /// Where everything is kept, and left [default: a temporary folder].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What members log, as `shoal node --log-level` has it.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log_level: String,
    /// Plain text between the members, to see what TLS costs.
    #[arg(long)]
    pub insecure: bool,
    /// Exit code 2 when a figure is below its least.
    #[arg(long)]
    pub enforce: bool,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmScenario {
    /// `--nodes`
    pub nodes: u16,
    /// `--size`, in bytes.
    pub size_bytes: u64,
    /// `--rate`
    pub rate_bits_per_s: u64,
    /// `--zones`
    pub zones: u16,
    /// `--kill`
    pub kill: u16,
    /// `--rounds`
    pub rounds: u16,
    /// `--super-nodes`
    pub super_nodes: u16,
    /// `--against`
    pub against: Vec<Contender>,
    /// `--shoal`
    pub shoal: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--log-level`
    pub log_level: String,
    /// `--insecure`
    pub insecure: bool,
    /// `--enforce`
    pub enforce: bool,
    /// JSON report.
    pub json: Option<JsonTarget>,
}

impl TryFrom<SwarmArgs> for SwarmScenario {
    type Error = UsageError;

    fn try_from(args: SwarmArgs) -> Result<Self, UsageError> {
        let number = |flag, value: u16, low: u16, high: u16| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(UsageError::Number {
                flag,
                value: value.into(),
                low: low.into(),
                high: high.into(),
            }),
        };
        number("nodes", args.nodes, 1, NODES_MAX)?;
        number("zones", args.zones, 1, ZONES_MAX.min(args.nodes))?;
        number("kill", args.kill, 0, args.nodes - 1)?;
        number("rounds", args.rounds, 1, if args.kill > 0 { 1 } else { ROUNDS_MAX })?;
        if ![1, 3, 5, 7].contains(&args.super_nodes) {
            return Err(UsageError::SuperNodes(args.super_nodes));
        }
        Ok(Self {
            nodes: args.nodes,
            size_bytes: args.size,
            rate_bits_per_s: args.rate,
            zones: args.zones,
            kill: args.kill,
            rounds: args.rounds,
            super_nodes: args.super_nodes,
            against: args.against,
            shoal: args.shoal,
            data_dir: args.data_dir,
            log_level: args.log_level,
            insecure: args.insecure,
            enforce: args.enforce,
            json: args.json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File)),
        })
    }
}

impl SwarmScenario {
    /// How long a client would take that had its line to itself and nothing beside the body on it.
    #[must_use]
    pub fn ideal(&self) -> Duration {
        Duration::from_secs_f64(self.size_bytes as f64 * 8.0 / self.rate_bits_per_s as f64)
    }

    /// How long a round may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.ideal() * LIMIT_TIMES + LIMIT_MORE
    }
}

fn size(text: &str) -> Result<u64, String> {
    let size = crate::units::parse_size(text).map_err(|error| error.to_string())?;
    match (1..=SIZE_MAX_BYTES).contains(&size) {
        true => Ok(size),
        false => Err("must lie between 1 byte and 64GiB".to_owned()),
    }
}

/// `100Mbit`, `1Gbit`, `500000kbit`, or bits a second.
fn rate(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("", 1)];
    let found = units.iter().find_map(|(unit, factor)| {
        let digits = lower.strip_suffix(unit)?;
        digits.parse::<u64>().ok()?.checked_mul(*factor)
    });
    let bounds = RATE_MIN_BITS_PER_S..=RATE_MAX_BITS_PER_S;
    found
        .filter(|rate| bounds.contains(rate))
        .ok_or_else(|| "write 1Mbit to 100Gbit, for example 100Mbit".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::{Cli, Command};

    fn scenario(line: &str) -> Result<SwarmScenario, String> {
        let words = ["shoal-loadtest", "swarm"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Swarm(args) = cli.command else { return Err("another command".into()) };
        SwarmScenario::try_from(*args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_ideal_time_is_the_size_by_the_rate() {
        let asked = scenario("--size 125MB --rate 100Mbit").unwrap();
        assert_eq!(asked.ideal(), Duration::from_secs(10));
        assert_eq!(scenario("--rate 1gbit").unwrap().rate_bits_per_s, 1_000_000_000);
        assert_eq!(scenario("--rate 2000000").unwrap().rate_bits_per_s, 2_000_000);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_flag() {
        let lines = [
            ("--nodes 0", "--nodes"),
            ("--nodes 3 --zones 4", "--zones"),
            ("--nodes 3 --kill 3", "--kill"),
            ("--kill 1 --rounds 2", "--rounds"),
            ("--super-nodes 2", "--super-nodes"),
            ("--size 0", "--size"),
            ("--rate 1Mbyte", "--rate"),
            ("--rate 10", "--rate"),
        ];
        for (line, flag) in lines {
            let told = scenario(line).unwrap_err();
            assert!(told.contains(flag), "{line}: {told}");
        }
    }
}
