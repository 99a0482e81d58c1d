//! `transfer`'s flags, and the values that make sense together.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use shoal_proto::{limits::CHUNKS_MAX, manifest::chunk_size_for};

use super::{UsageError, run::JsonTarget};

/// Rounds at most.
const ROUNDS_MAX: u16 = 100;
/// Chunks on their way at most.
const IN_FLIGHT_MAX: u16 = 64;
/// The most that the uploader holds in memory, in bytes.
const HOT_MAX_BYTES: u64 = 4 << 30;

/// A way for chunks from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The peer service.
    Grpc,
    /// Frames of our own on a connection beside it.
    Lane,
}

impl Way {
    /// As flags have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Lane => "lane",
        }
    }
}

/// Flags of `transfer`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
An uploader and a downloader run what nodes run, as processes of their own on loopback, with mutual
TLS; every chunk is verified. The uploader holds an object of --hot bytes in memory, the downloader
takes its chunks again and again. Ways take turns. Build with --release for figures that mean
something.")]
pub struct TransferArgs {
    /// Bytes of one transfer.
    #[arg(long, value_name = "BYTES", default_value = "10GiB", value_parser = size)]
    pub size: u64,
    /// Bytes that the uploader holds in memory.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = size)]
    pub hot: u64,
    /// Ways, in the order in which they take turns.
    #[arg(long, value_name = "WAY", value_delimiter = ',', default_value = "grpc,lane")]
    pub ways: Vec<Way>,
    /// Transfers of each way.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: u16,
    /// Chunks that are asked for and not here yet.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub in_flight: u16,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
}

/// Flags of `transfer-end`, one of the two processes.
#[derive(Clone, Debug, Args)]
pub struct EndArgs {
    /// Where identities stand.
    #[arg(long)]
    pub folder: PathBuf,
    /// Length of the object.
    #[arg(long)]
    pub hot: u64,
    /// Length of its chunks.
    #[arg(long)]
    pub chunk: u32,
    /// Whom to ask; without it this end is asked.
    #[arg(long)]
    pub peer: Option<String>,
    /// The object's id.
    #[arg(long, default_value = "")]
    pub object: String,
    /// The way to ask.
    #[arg(long, value_enum, default_value = "grpc")]
    pub way: Way,
    /// Bytes to take.
    #[arg(long, default_value_t = 0)]
    pub size: u64,
    /// Chunks asked for at a time.
    #[arg(long, default_value_t = 1)]
    pub in_flight: u16,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferScenario {
    /// `--size`
    pub size_bytes: u64,
    /// `--hot`
    hot_bytes: u64,
    /// `--ways`
    pub ways: Vec<Way>,
    /// `--rounds`
    pub rounds: u16,
    /// `--in-flight`
    pub in_flight: u16,
    /// JSON report.
    pub json: Option<JsonTarget>,
}

impl TryFrom<TransferArgs> for TransferScenario {
    type Error = UsageError;

    fn try_from(args: TransferArgs) -> Result<Self, UsageError> {
        let number = |flag, value: u64, low: u64, high: u64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(UsageError::Number { flag, value, low, high }),
        };
        number("rounds", args.rounds.into(), 1, ROUNDS_MAX.into())?;
        number("in-flight", args.in_flight.into(), 1, IN_FLIGHT_MAX.into())?;
        number("hot", args.hot, 1, HOT_MAX_BYTES)?;
        Ok(Self {
            size_bytes: args.size,
            hot_bytes: args.hot,
            ways: args.ways,
            rounds: args.rounds,
            in_flight: args.in_flight,
            json: args.json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File)),
        })
    }
}

impl TransferScenario {
    /// Length of the object that is held.
    #[must_use]
    pub fn hot_bytes(&self) -> u64 {
        self.hot_bytes.min(self.size_bytes)
    }

    /// Chunks are as long as those of an object of the whole size would be.
    #[must_use]
    pub fn chunk_bytes(&self) -> u32 {
        chunk_size_for(Some(self.size_bytes))
    }
}

fn size(text: &str) -> Result<u64, String> {
    let size = crate::units::parse_size(text).map_err(|error| error.to_string())?;
    match (1..=u64::from(CHUNKS_MAX) << 20).contains(&size) {
        true => Ok(size),
        false => Err("must lie between 1 byte and 64GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::{Cli, Command};

    fn scenario(line: &str) -> Result<TransferScenario, String> {
        let words = ["shoal-loadtest", "transfer"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Transfer(args) = cli.command else { return Err("another command".into()) };
        TransferScenario::try_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn chunks_are_those_of_the_whole_size() {
        let asked = scenario("").unwrap();
        assert_eq!((asked.chunk_bytes(), asked.hot_bytes()), (1 << 20, 64 << 20));
        assert_eq!(asked.ways, [Way::Grpc, Way::Lane]);
        let small = scenario("--size 1MiB --ways lane").unwrap();
        assert_eq!((small.chunk_bytes(), small.hot_bytes()), (256 << 10, 1 << 20));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_flag() {
        for (line, flag) in [
            ("--rounds 0", "--rounds"),
            ("--in-flight 65", "--in-flight"),
            ("--hot 5GiB", "--hot"),
            ("--size 0", "--size"),
            ("--ways pigeon", "--ways"),
        ] {
            let told = scenario(line).unwrap_err();
            assert!(told.contains(flag), "{line}: {told}");
        }
    }
}
