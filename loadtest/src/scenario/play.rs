//! A scenario file (PURE): a cluster of its own, the load on it, what breaks when, and what must
//! hold in the end.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser};
use serde::Deserialize;
use thiserror::Error;

use super::{Cli, Command, Scenario, UsageError};
use crate::units::parse_duration;

/// Nodes of a scenario's cluster.
pub const NODES_MAX: u16 = 50;
/// Faults of one scenario.
pub const FAULTS_MAX: usize = 256;
/// Largest scenario file, in bytes.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// The scenarios that come along: name and content.
pub const SHIPPED: [(&str, &str); 7] = [
    ("quick-look", include_str!("../../scenarios/quick-look.toml")),
    ("cdn-offload", include_str!("../../scenarios/cdn-offload.toml")),
    ("flash-crowd", include_str!("../../scenarios/flash-crowd.toml")),
    ("big-files", include_str!("../../scenarios/big-files.toml")),
    ("origin-outage", include_str!("../../scenarios/origin-outage.toml")),
    ("losses", include_str!("../../scenarios/losses.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
];

/// Flags of `play`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A scenario says which cluster to start on this machine, the load on it as flags of `run`, what
breaks when, and what must hold. docs/guide/load-testing.md has the form.

Examples:
  shoal-loadtest play --list
  shoal-loadtest play cdn-offload --html report.html
  shoal-loadtest play mine.toml --set duration=10m --json report.json")]
pub struct PlayArgs {
    /// One that comes along, by name, or a file.
    #[arg(value_name = "NAME|FILE", required_unless_present = "list")]
    pub scenario: Option<String>,
    /// List those that come along, and do nothing else.
    #[arg(long)]
    pub list: bool,
    /// A key of [load] or [thresholds] in the place of the scenario's; can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The program `shoal`; beside this one or on PATH where it is left out.
    #[arg(long, value_name = "FILE")]
    pub shoal: Option<PathBuf>,
    /// Print the report as JSON in place of the table; with FILE, write it there beside the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Report")]
    pub json: Option<Option<PathBuf>>,
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
}

/// A scenario that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlayError {
    /// It cannot be read as TOML of that form.
    #[error("{file}: {reason}; docs/guide/load-testing.md has the form")]
    Form {
        /// The file, or the name.
        file: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A key of [load] or [thresholds] is none, or has no such value.
    #[error("{file}: [load], [thresholds] or --set: {reason}")]
    Load {
        /// The file, or the name.
        file: String,
        /// What the command line of `run` says to it.
        reason: String,
    },
    /// A fault that cannot be.
    #[error("{file}: fault {number}: {what}")]
    Fault {
        /// The file, or the name.
        file: String,
        /// From 1.
        number: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A number out of its bounds.
    #[error("{file}: cluster.{key} is {value}; expected {expected}")]
    Cluster {
        /// The file, or the name.
        file: String,
        /// Which.
        key: &'static str,
        /// What it is.
        value: u16,
        /// What it should be.
        expected: &'static str,
    },
}

/// A scenario, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayScenario {
    /// For people.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// What to start.
    pub cluster: ClusterWish,
    /// In the order of time.
    pub faults: Vec<Fault>,
    flags: Vec<String>,
}

/// The cluster to start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterWish {
    /// 1, 3, 5 or 7.
    pub super_nodes: u16,
    /// At least one.
    pub nodes: u16,
    /// Most bytes a second of the origin, such as `40MiB`; no limit when left out.
    pub origin_rate: Option<String>,
    /// Each node's disk budget; the product's default when left out.
    pub store_budget: Option<String>,
}

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
}

/// Whom it is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The super-node that leads at that moment.
    Leader,
    /// Whoever was paused last.
    Paused,
    /// The origin.
    Origin,
    /// A super-node, by number.
    SuperNode(u16),
    /// A node, by number.
    Node(u16),
}

/// Something that breaks, or comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, from the load's start.
    pub at: Duration,
    /// What.
    pub kind: FaultKind,
    /// To whom.
    pub victim: Victim,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    about: String,
    cluster: ClusterWish,
    #[serde(default)]
    load: toml::Table,
    #[serde(default)]
    thresholds: toml::Table,
    #[serde(default)]
    fault: Vec<FaultEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultEntry {
    at: String,
    kind: FaultKind,
    member: String,
}

impl PlayScenario {
    /// Reads a scenario; `set` goes before what it says of the load.
    ///
    /// # Errors
    /// What is wrong with it, before anything is started.
    pub fn read(file: &str, text: &str, set: &[String]) -> Result<Self, PlayError> {
        let form = |reason: String| PlayError::Form { file: file.to_owned(), reason };
        if text.len() > FILE_BYTES_MAX {
            return Err(form(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        let File { name, about, cluster, load, thresholds, fault } =
            toml::from_str(text).map_err(|error| form(error.to_string().trim().to_owned()))?;
        check_cluster(file, &cluster)?;
        let mut keys: toml::Table = load.into_iter().chain(thresholds).collect();
        for pair in set {
            let (key, value) = pair.split_once('=').ok_or_else(|| PlayError::Load {
                file: file.to_owned(),
                reason: format!("--set {pair}: expected KEY=VALUE"),
            })?;
            keys.insert(key.to_owned(), toml::Value::String(value.to_owned()));
        }
        let flags = keys.iter().map(|(key, value)| flag(key, value)).collect();
        let faults = faults(file, &fault, &cluster)?;
        let scenario = Self { name, about, cluster, faults, flags };
        // The edges are not known yet; everything else is checked by what `run` would say.
        let load = scenario.load(&PathBuf::from("edges"), "http://127.0.0.1:1");
        let load = load.map_err(|reason| PlayError::Load { file: file.to_owned(), reason })?;
        match scenario.faults.iter().position(|fault| fault.at >= load.duration) {
            Some(late) => Err(PlayError::Fault {
                file: file.to_owned(),
                number: late + 1,
                what: format!(
                    "it comes after the load's end; load.duration is {:?}",
                    load.duration
                ),
            }),
            None => Ok(scenario),
        }
    }

    /// The load, on these edges.
    ///
    /// # Errors
    /// What `run` says to the keys.
    pub fn load(&self, edges_file: &std::path::Path, origin: &str) -> Result<Scenario, String> {
        let fixed = ["shoal-loadtest".to_owned(), "run".to_owned()];
        let places =
            [format!("--edges-file={}", edges_file.display()), format!("--origin={origin}")];
        let line = fixed.into_iter().chain(places).chain(self.flags.iter().cloned());
        let said = |error: clap::Error| error.render().to_string().trim().to_owned();
        match Cli::try_parse_from(line).map_err(said)?.command {
            Command::Run(args) => {
                Scenario::try_from(*args).map_err(|error: UsageError| error.to_string())
            }
            _ => Err("these are no flags of `run`".to_owned()),
        }
    }
}

fn flag(key: &str, value: &toml::Value) -> String {
    let value = match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("--{}={value}", key.replace('_', "-"))
}

fn check_cluster(file: &str, cluster: &ClusterWish) -> Result<(), PlayError> {
    let wrong = |key, value, expected| {
        Err(PlayError::Cluster { file: file.to_owned(), key, value, expected })
    };
    match cluster {
        ClusterWish { super_nodes, .. } if ![1, 3, 5, 7].contains(super_nodes) => {
            wrong("super_nodes", *super_nodes, "1, 3, 5 or 7")
        }
        ClusterWish { nodes, .. } if !(1..=NODES_MAX).contains(nodes) => {
            wrong("nodes", *nodes, "1 to 50")
        }
        ClusterWish { .. } => Ok(()),
    }
}

fn faults(
    file: &str,
    entries: &[FaultEntry],
    cluster: &ClusterWish,
) -> Result<Vec<Fault>, PlayError> {
    let wrong = |number: usize, what: String| PlayError::Fault {
        file: file.to_owned(),
        number: number + 1,
        what,
    };
    if entries.len() > FAULTS_MAX {
        return Err(wrong(FAULTS_MAX, format!("at most {FAULTS_MAX} are taken")));
    }
    let mut faults = Vec::with_capacity(entries.len());
    for (number, FaultEntry { at, kind, member }) in entries.iter().enumerate() {
        let at = parse_duration(at).map_err(|error| wrong(number, format!("at: {error}")))?;
        let victim = victim(member, cluster).ok_or_else(|| {
            let (super_nodes, nodes) = (cluster.super_nodes - 1, cluster.nodes - 1);
            let right = format!(
                "leader, paused, origin, super-0 to super-{super_nodes}, node-0 to node-{nodes}"
            );
            wrong(number, format!("member is {member:?}; expected {right}"))
        })?;
        faults.push(Fault { at, kind: *kind, victim });
    }
    faults.sort_by_key(|fault| fault.at);
    Ok(faults)
}

fn victim(name: &str, cluster: &ClusterWish) -> Option<Victim> {
    let number = |prefix: &str, count: u16| {
        let number: u16 = name.strip_prefix(prefix)?.parse().ok()?;
        (number < count).then_some(number)
    };
    match name {
        "leader" => Some(Victim::Leader),
        "paused" => Some(Victim::Paused),
        "origin" => Some(Victim::Origin),
        _ => number("super-", cluster.super_nodes)
            .map(Victim::SuperNode)
            .or_else(|| number("node-", cluster.nodes).map(Victim::Node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PlayScenario, PlayError> {
        PlayScenario::read("test.toml", text, &[])
    }

    const SMALL: &str = "name = 'n'\nabout = 'a'\n[cluster]\nsuper_nodes = 3\nnodes = 2\n";

    #[test]
    fn those_that_come_along_make_sense() {
        for (name, text) in SHIPPED {
            let scenario = PlayScenario::read(name, text, &[]).unwrap();
            assert!(!scenario.about.is_empty(), "{name}");
        }
    }

    #[test]
    fn keys_are_flags_of_run_and_set_goes_before_them() {
        let text =
            format!("{SMALL}[load]\nrate = 7\nmax_in_flight = 9\n[thresholds]\nmax_wrong = 1\n");
        let set = ["rate=8".to_owned()];
        let scenario = PlayScenario::read("f", &text, &set).unwrap();
        let load = scenario.load(&PathBuf::from("e"), "http://a:1").unwrap();
        assert_eq!((load.rate_per_s, load.in_flight_max, load.limits.wrong_max), (8.0, 9, 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let told = |text: &str| read(&format!("{SMALL}{text}")).unwrap_err().to_string();
        assert!(told("[load]\nrat = 1\n").contains("--rat"), "{}", told("[load]\nrat = 1\n"));
        assert!(told("[load]\nrate = -1\n").contains("--rate"));
        assert!(told("[lod]\n").contains("lod"));
        let fault = |at: &str, member: &str| {
            told(&format!("[[fault]]\nat = '{at}'\nkind = 'kill'\nmember = '{member}'\n"))
        };
        assert!(fault("1s", "node-2").contains("node-0 to node-1"), "{}", fault("1s", "node-2"));
        assert!(fault("2m", "node-1").contains("after the load's end"));
        assert!(fault("x", "node-1").contains("fault 1: at:"));
        let even = SMALL.replace("super_nodes = 3", "super_nodes = 2");
        assert!(read(&even).unwrap_err().to_string().contains("1, 3, 5 or 7"));
    }

    #[test]
    fn faults_come_in_the_order_of_time() {
        let fault = |at: &str, member: &str| {
            format!("[[fault]]\nat = '{at}'\nkind = 'pause'\nmember = '{member}'\n")
        };
        let text = format!("{SMALL}{}{}", fault("5s", "leader"), fault("2s", "super-2"));
        let victims: Vec<_> = read(&text).unwrap().faults.into_iter().map(|of| of.victim).collect();
        assert_eq!(victims, [Victim::SuperNode(2), Victim::Leader]);
    }
}
