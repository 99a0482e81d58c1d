//! `policy`'s flags, and the values that make sense together.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

use super::{UsageError, run::JsonTarget};
use crate::units::{UnitError, parse_size};

/// Capacities of one run at most.
pub const CAPACITIES_MAX: usize = 64;

/// Flags of `policy`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A trace is text, one request a line: an id of any form and the object's size in bytes, `id,size`. A
heading, `#` comments and further columns are passed over; gzip is unpacked. The policy is the one
that nodes evict by: the same code, with nothing of a node around it. A miss brings the object in,
whatever else has to go; an object larger than the cache passes by.

Examples:
  shoal-loadtest policy --trace trace.csv.gz --capacity 64MiB --capacity 1GiB
  zstdcat trace.csv.zst | shoal-loadtest policy --trace - --capacity 0.1% --capacity 1%,10%")]
pub struct PolicyArgs {
    /// The trace; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// The cache's size, or its share of the trace's unique bytes such as 1%; may be repeated.
    #[arg(long, value_name = "BYTES", required = true, value_delimiter = ',')]
    pub capacity: Vec<Capacity>,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
}

/// The size of a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capacity {
    /// In bytes.
    Bytes(u64),
    /// In percent of the trace's unique bytes, above 0 and up to 100.
    Percent(f64),
}

impl Capacity {
    /// In bytes, before a trace of so many unique bytes.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of the bytes, to the nearest that a float can tell"
    )]
    pub fn of(self, unique_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (unique_bytes as f64 * percent / 100.0).round() as u64,
        }
    }
}

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return parse_size(text).map(Self::Bytes).map_err(|error: UnitError| error.to_string());
        };
        match percent.trim().parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
            _ => Err(format!("`{text}` is no share; write above 0% and up to 100%")),
        }
    }
}

/// What is replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyScenario {
    /// `--trace`; `None` for standard input.
    pub trace: Option<PathBuf>,
    /// `--capacity`, in the order given.
    pub capacities: Vec<Capacity>,
    /// JSON report.
    pub json: Option<JsonTarget>,
}

impl TryFrom<PolicyArgs> for PolicyScenario {
    type Error = UsageError;

    fn try_from(args: PolicyArgs) -> Result<Self, UsageError> {
        let number = args.capacity.len();
        if number > CAPACITIES_MAX {
            let (value, high) = (number as u64, CAPACITIES_MAX as u64);
            return Err(UsageError::Number { flag: "capacity (how often)", value, low: 1, high });
        }
        Ok(Self {
            trace: (args.trace.as_os_str() != "-").then_some(args.trace),
            capacities: args.capacity,
            json: args.json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_sizes_or_shares() {
        assert_eq!("64KiB".parse(), Ok(Capacity::Bytes(65_536)));
        assert_eq!("0.5%".parse(), Ok(Capacity::Percent(0.5)));
        assert_eq!(Capacity::Percent(0.5).of(1_000), 5);
        for wrong in ["0%", "101%", "-1%", "%", "ten", "1.5"] {
            assert!(wrong.parse::<Capacity>().is_err(), "{wrong}");
        }
    }
}
