//! The same object to the same nodes at the same moment over the same lines, by other means: what
//! nodes' clients get straight from the origin, or by BitTorrent. What leaves the origin's host is
//! counted on its line.
//!
//! | file | purpose |
//! |---|---|
//! | `straight` | every node's client asks the origin |
//! | `aria2` | aria2 on every node, a seeder and a tracker on the origin's host |
//! | `rpc` | what is said to aria2 |
//! | `torrent` | the file that names the object for BitTorrent |

mod aria2;
mod rpc;
mod straight;
mod torrent;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{
    SwarmError,
    cluster::{ORIGIN, host_process},
    lab::{Host, Lab},
    results::{Contest, Get, Ratios},
    say,
};
use crate::{
    process::{Process, find_program},
    scenario::{Contender, SwarmScenario},
};

/// A node's host.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    zone: u16,
    space: String,
}

/// What all contenders run on.
struct Ground<'a> {
    scenario: &'a SwarmScenario,
    folder: PathBuf,
    lab: Lab,
    places: Vec<Place>,
}

/// Finds the programs that contenders need, before anything is measured.
pub(super) fn check(contenders: &[Contender]) -> Result<(), SwarmError> {
    for program in contenders.iter().copied().flat_map(programs) {
        find_program(program, None).ok_or(SwarmError::NoContender { program })?;
    }
    Ok(())
}

fn programs(contender: Contender) -> &'static [&'static str] {
    match contender {
        Contender::Aria2 => &[aria2::ARIA2, aria2::TRACKER],
        Contender::Origin => &[],
    }
}

/// Runs one contender on lines of its own.
pub(super) async fn contend(
    scenario: &SwarmScenario,
    folder: &Path,
    contender: Contender,
) -> Result<Contest, SwarmError> {
    let name = contender.name();
    let folder = folder.join(format!("against-{name}"));
    std::fs::create_dir_all(&folder)?;
    let ground = Ground::lay(scenario, folder)?;
    say(&format!("against {name}"));
    let (gets, sent_bytes) = match contender {
        Contender::Aria2 => aria2::run(&ground).await?,
        Contender::Origin => straight::run(&ground).await?,
    };
    let whole = gets.iter().filter(|get| get.failure.is_none());
    let ideal_ms = scenario.ideal().as_secs_f64() * 1e3;
    let failure = |get: &Get| Some(format!("{}: {}", get.node, get.failure.as_ref()?));
    Ok(Contest {
        name,
        times: Ratios::of(whole.map(|get| get.elapsed_ms as f64 / ideal_ms).collect()),
        failures: gets.iter().filter_map(failure).collect(),
        origin_wire_per_object: sent_bytes as f64 / scenario.size_bytes as f64,
        p99_by_shoal: None,
    })
}

impl<'a> Ground<'a> {
    fn lay(scenario: &'a SwarmScenario, folder: PathBuf) -> Result<Self, SwarmError> {
        let name = |at: u16| format!("node-{at}");
        let zone = |at: u16| at % scenario.zones;
        let nodes = (0..scenario.nodes).map(|at| Host { name: name(at), zone: Some(zone(at)) });
        let origin = Host { name: ORIGIN.to_owned(), zone: None };
        let hosts = nodes.chain([origin]).collect();
        let lab = Lab::new(hosts, scenario.zones, scenario.rate_bits_per_s)?;
        let places = (0..scenario.nodes).map(|at| {
            let (space, _) = lab.place(&name(at)).ok_or(SwarmError::NoHost)?;
            Ok(Place { name: name(at), zone: zone(at), space })
        });
        let places = places.collect::<Result<_, SwarmError>>()?;
        Ok(Self { scenario, folder, lab, places })
    }

    /// The origin's namespace and address.
    fn origin(&self) -> Result<(String, Ipv4Addr), SwarmError> {
        self.lab.place(ORIGIN).ok_or(SwarmError::NoHost)
    }

    /// Runs a program on a host; its log bears the host's and its own name.
    fn run(&self, host: &str, program: &str, args: Vec<String>) -> Result<Process, SwarmError> {
        let found = find_program(program, None).or_else(|| Some(PathBuf::from(program)));
        let log = self.folder.join(format!("{host}.{}.log", short(program)));
        host_process(&self.lab, (host, &log), &found.unwrap_or_default(), args)
    }

    /// Bytes that have left the origin's host, with all headers.
    fn sent(&self) -> u64 {
        self.lab.carried(ORIGIN).0
    }
}

fn short(program: &str) -> String {
    Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
