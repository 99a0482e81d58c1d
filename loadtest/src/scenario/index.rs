//! `index`'s flags, and the values that make sense together.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{UsageError, cli, run::JsonTarget};

/// Members at most.
pub const MEMBERS_MAX: u16 = 1_000;
/// Holder records at most.
pub const RECORDS_MAX: u64 = 100_000_000;
/// Sizes of the index at most.
pub const SIZES_MAX: usize = 8;
/// Calls in flight at most.
pub const IN_FLIGHT_MAX: usize = 1_024;
/// Purges at most.
pub const PURGES_MAX: u32 = 100_000;
/// Kills at most.
pub const KILLS_MAX: u32 = 1_000;
/// Puts in one of etcd's transactions at most; etcd refuses more than its `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 65_536;

/// How much is measured when flags do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// A few seconds: proves that everything can be measured, not how much there is.
    Quick,
    /// Minutes: the figures.
    Full,
}

/// What is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Three members of etcd, the key-value store of Kubernetes.
    Etcd,
}

/// A part of the benchmark. Records are always loaded, and that is measured too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Memory and disk for each record.
    Footprint,
    /// Who holds an object?
    Locates,
    /// Fill leases.
    Leases,
    /// Purges with a session for every member.
    Purges,
    /// Applies while snapshots are taken.
    Pauses,
    /// The leader is killed.
    Failovers,
}

/// Flags of `index`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Starts the super-nodes as real processes on loopback with mutual TLS, as `shoal up` lays them out,
and simulated members with a session each. Build with --release for figures that mean something.

With --against etcd, three members of etcd do the same changes and reads in the same run: one put a
change, and transactions of --max-txn-ops puts. They run with their default durability and, to their
advantage, in plain text. etcd comes with the Debian package etcd-server.")]
pub struct IndexArgs {
    /// How much is measured when the other flags do not say.
    #[arg(long, value_enum, default_value_t = Preset::Full)]
    pub preset: Preset,
    /// Super-nodes: 1, 3, 5 or 7.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub super_nodes: u16,
    /// Compare with another store.
    #[arg(long, value_enum)]
    pub against: Option<Against>,
    /// What is measured beside loading records [default: everything].
    #[arg(long, value_enum, value_delimiter = ',')]
    pub phases: Vec<Phase>,
    /// Sizes of the index in holder records, ascending, such as 1M,10M [default: by preset].
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = records)]
    pub records: Vec<u64>,
    /// Holders of each object.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub holders: u16,
    /// Simulated members, each with a session [default: by preset].
    #[arg(long, value_name = "N")]
    pub members: Option<u16>,
    /// Announcements in flight while records are loaded.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub in_flight: usize,
    /// Time for each level of each measurement [default: by preset].
    #[arg(long, value_name = "TIME", value_parser = cli::run_duration)]
    pub duration: Option<Duration>,
    /// Longest time for loading each size of the index [default: by preset].
    #[arg(long, value_name = "TIME", value_parser = cli::run_duration)]
    pub load_limit: Option<Duration>,
    /// Purges [default: by preset].
    #[arg(long, value_name = "N")]
    pub purges: Option<u32>,
    /// Kills of the leader [default: by preset].
    #[arg(long, value_name = "N")]
    pub kills: Option<u32>,
    /// Puts in one transaction of etcd, and etcd's own limit.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_txn_ops: usize,
    /// The program `shoal` [default: beside this one, else on PATH].
    #[arg(long, value_name = "FILE")]
    pub shoal: Option<PathBuf>,
    /// The program `etcd` [default: on PATH].
    #[arg(long, value_name = "FILE")]
    pub etcd: Option<PathBuf>,
    /// Where everything is kept, and left [default: a temporary folder].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Plain text between the members, to see what TLS costs.
    #[arg(long)]
    pub insecure: bool,
    /// Exit code 2 when a figure is below its least.
    #[arg(long)]
    pub enforce: bool,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
}

/// What is measured, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexScenario {
    /// `--preset`
    pub preset: Preset,
    /// `--super-nodes`
    pub super_nodes: u16,
    /// `--against`
    pub against: Option<Against>,
    /// `--phases`; all when there were none.
    pub phases: Vec<Phase>,
    /// `--records`, ascending.
    pub records: Vec<u64>,
    /// `--holders`
    pub holders: u16,
    /// `--members`
    pub members: u16,
    /// `--in-flight`
    pub in_flight: usize,
    /// `--duration`
    pub duration: Duration,
    /// `--load-limit`
    pub load_limit: Duration,
    /// `--purges`
    pub purges: u32,
    /// `--kills`
    pub kills: u32,
    /// `--max-txn-ops`
    pub txn_ops: usize,
    /// `--shoal`
    pub shoal: Option<PathBuf>,
    /// `--etcd`
    pub etcd: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--insecure`
    pub insecure: bool,
    /// `--enforce`
    pub enforce: bool,
    /// JSON report.
    pub json: Option<JsonTarget>,
    /// HTML report.
    pub html: Option<PathBuf>,
}

/// What a preset stands for.
struct Amounts {
    records: &'static [u64],
    members: u16,
    duration: Duration,
    load_limit: Duration,
    purges: u32,
    kills: u32,
}

const QUICK: Amounts = Amounts {
    records: &[5_000],
    members: 12,
    duration: Duration::from_millis(200),
    load_limit: Duration::from_secs(20),
    purges: 5,
    kills: 1,
};

const FULL: Amounts = Amounts {
    records: &[1_000_000, 10_000_000],
    members: 100,
    duration: Duration::from_secs(5),
    load_limit: Duration::from_secs(600),
    purges: 500,
    kills: 9,
};

impl TryFrom<IndexArgs> for IndexScenario {
    type Error = UsageError;

    fn try_from(args: IndexArgs) -> Result<Self, UsageError> {
        let amounts = match args.preset {
            Preset::Quick => QUICK,
            Preset::Full => FULL,
        };
        let phases = match args.phases.is_empty() {
            true => Phase::value_variants().to_vec(),
            false => args.phases,
        };
        let records = match args.records.is_empty() {
            true => amounts.records.to_vec(),
            false => args.records,
        };
        let scenario = Self {
            preset: args.preset,
            super_nodes: args.super_nodes,
            against: args.against,
            phases,
            records,
            holders: args.holders,
            members: args.members.unwrap_or(amounts.members),
            in_flight: args.in_flight,
            duration: args.duration.unwrap_or(amounts.duration),
            load_limit: args.load_limit.unwrap_or(amounts.load_limit),
            purges: args.purges.unwrap_or(amounts.purges),
            kills: args.kills.unwrap_or(amounts.kills),
            txn_ops: args.max_txn_ops,
            shoal: args.shoal,
            etcd: args.etcd,
            data_dir: args.data_dir,
            insecure: args.insecure,
            enforce: args.enforce,
            json: args.json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File)),
            html: args.html,
        };
        scenario.check()?;
        Ok(scenario)
    }
}

impl IndexScenario {
    /// Whether `phase` is asked for.
    #[must_use]
    pub fn has(&self, phase: Phase) -> bool {
        self.phases.contains(&phase)
    }

    fn check(&self) -> Result<(), UsageError> {
        let number = |flag, value: u64, low: u64, high: u64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(UsageError::Number { flag, value, low, high }),
        };
        if ![1, 3, 5, 7].contains(&self.super_nodes) {
            return Err(UsageError::SuperNodes(self.super_nodes));
        }
        number("members", self.members.into(), 1, MEMBERS_MAX.into())?;
        number("holders", self.holders.into(), 1, self.members.into())?;
        number("in-flight", self.in_flight as u64, 1, IN_FLIGHT_MAX as u64)?;
        number("purges", self.purges.into(), 1, PURGES_MAX.into())?;
        number("kills", self.kills.into(), 1, KILLS_MAX.into())?;
        number("max-txn-ops", self.txn_ops as u64, 1, TXN_OPS_MAX as u64)?;
        if self.records.len() > SIZES_MAX || !self.records.is_sorted_by(|a, b| a < b) {
            return Err(UsageError::Records);
        }
        Ok(())
    }
}

/// `5000`, `500k`, `10M`.
fn records(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let value = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let value = value.filter(|value| (1..=RECORDS_MAX).contains(value));
    value.ok_or_else(|| format!("write 1 to {RECORDS_MAX}, for example 5000, 500k or 10M"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::{Cli, Command};

    fn scenario(line: &str) -> Result<IndexScenario, String> {
        let words = ["shoal-loadtest", "index"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Index(args) = cli.command else { return Err("another command".into()) };
        IndexScenario::try_from(*args).map_err(|error| error.to_string())
    }

    #[test]
    fn presets_fill_in_what_flags_leave_out() {
        let full = scenario("").unwrap();
        assert_eq!((full.records.as_slice(), full.members), (FULL.records, 100));
        assert_eq!(full.phases.len(), 6);
        let quick = scenario("--preset quick --members 20 --phases locates,purges").unwrap();
        assert_eq!((quick.records.as_slice(), quick.members), (QUICK.records, 20));
        assert!(quick.has(Phase::Locates) && !quick.has(Phase::Failovers));
    }

    #[test]
    fn numbers_of_records_are_short_to_write() {
        assert_eq!(
            scenario("--records 5000,500k,10M").unwrap().records,
            [5_000, 500_000, 10_000_000]
        );
        for bad in ["--records 10M,1M", "--records 1,1", "--records 0", "--records 1G"] {
            assert!(scenario(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_flag() {
        let lines = [
            ("--super-nodes 2", "--super-nodes"),
            ("--members 0", "--members"),
            ("--members 5", "--holders"),
            ("--in-flight 0", "--in-flight"),
            ("--max-txn-ops 0", "--max-txn-ops"),
            ("--against redis", "--against"),
            ("--phases all", "--phases"),
        ];
        for (line, flag) in lines {
            let told = scenario(line).unwrap_err();
            assert!(told.contains(flag), "{line}: {told}");
        }
    }
}
