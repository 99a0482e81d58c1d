//! The report of a swarm as a document. Names carry units; `docs/loadtest-swarm-json.md` has them
//! all.

use serde::Serialize;

use crate::{
    clock,
    scenario::{Contender, SwarmScenario},
    swarm::{
        results::Results,
        targets::{Target, judge},
    },
};

/// Changes when a key is removed or means something else.
pub const SWARM_REPORT_VERSION: u32 = 1;

/// Everything there is to say about a swarm.
#[derive(Clone, Debug, Serialize)]
pub struct SwarmReport {
    /// [`SWARM_REPORT_VERSION`].
    pub report_version: u32,
    /// Version of the tool.
    pub tool_version: &'static str,
    /// When the report was made.
    pub made_at_unix_ms: u64,
    /// True when no figure is missed and nothing ended it early.
    pub ok: bool,
    /// Processors that this process may use.
    pub cores: usize,
    /// True when the tool was built without optimisation: figures mean little then.
    pub debug_build: bool,
    /// What was asked for.
    pub scenario: Asked,
    /// Figures against what is wanted of them.
    pub targets: Vec<Target>,
    /// What was found.
    pub results: Results,
}

/// The scenario, as far as it shapes the result.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `--nodes`
    pub nodes: u16,
    /// `--size`
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
    /// `--insecure`
    pub insecure: bool,
    /// `--against`
    pub against: Vec<Contender>,
}

impl SwarmReport {
    /// Puts together what was asked for and what was found.
    #[must_use]
    pub fn new(scenario: &SwarmScenario, results: Results) -> Self {
        let targets = judge(&results);
        Self {
            report_version: SWARM_REPORT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION"),
            made_at_unix_ms: clock::wall_unix_ms(),
            ok: !results.interrupted && targets.iter().all(|target| target.met),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            debug_build: cfg!(debug_assertions),
            scenario: Asked {
                nodes: scenario.nodes,
                size_bytes: scenario.size_bytes,
                rate_bits_per_s: scenario.rate_bits_per_s,
                zones: scenario.zones,
                kill: scenario.kill,
                rounds: scenario.rounds,
                super_nodes: scenario.super_nodes,
                insecure: scenario.insecure,
                against: scenario.against.clone(),
            },
            targets,
            results,
        }
    }

    /// The JSON form, with a final line break.
    ///
    /// # Errors
    /// Never in practice: the document's keys are texts.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}
