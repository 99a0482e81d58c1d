//! The benchmark's report as a document. Names carry units.

use serde::Serialize;

use crate::{
    clock,
    index::{
        results::{EtcdResults, PhaseFailure, Results, ShoalResults},
        targets::{Ratios, Target, Verdict, judge},
    },
    scenario::{
        IndexScenario,
        index::{Against, Phase, Preset},
    },
};

/// Changes when a key is removed or means something else.
pub const INDEX_REPORT_VERSION: u32 = 1;

/// Everything there is to say about a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct IndexReport {
    /// [`INDEX_REPORT_VERSION`].
    pub report_version: u32,
    /// Version of the tool.
    pub tool_version: &'static str,
    /// When the report was made.
    pub made_at_unix_ms: u64,
    /// True when nothing failed and no measured figure is below its least.
    pub ok: bool,
    /// True when it was ended early.
    pub interrupted: bool,
    /// All phases together.
    pub elapsed_ms: u64,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for.
    pub scenario: Asked,
    /// Figures against what is wanted of them.
    pub targets: Vec<Target>,
    /// Shoal by etcd; all none without `--against etcd`.
    pub ratios: Ratios,
    /// What could not be measured.
    pub failures: Vec<PhaseFailure>,
    /// Shoal's figures.
    pub shoal: ShoalResults,
    /// etcd's; none without `--against etcd`.
    pub etcd: Option<EtcdResults>,
}

/// Where it ran.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// Load over the minute before: others' work makes figures worse.
    pub load_before: f64,
    /// True when the tool was built without optimisation: figures mean little then.
    pub debug_build: bool,
}

/// The scenario, as far as it shapes the result.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `--preset`
    pub preset: Preset,
    /// `--super-nodes`
    pub super_nodes: u16,
    /// `--against`
    pub against: Option<Against>,
    /// `--phases`
    pub phases: Vec<Phase>,
    /// `--records`
    pub records: Vec<u64>,
    /// `--holders`
    pub holders_per_object: u16,
    /// `--members`
    pub members: u16,
    /// `--in-flight`
    pub in_flight: usize,
    /// `--duration`
    pub duration_ms: u64,
    /// `--load-limit`
    pub load_limit_ms: u64,
    /// `--purges`
    pub purges: u32,
    /// `--kills`
    pub kills: u32,
    /// `--max-txn-ops`
    pub txn_ops: usize,
    /// `--insecure`
    pub insecure: bool,
}

impl IndexReport {
    /// Puts together what was asked for and what was found.
    #[must_use]
    pub fn new(scenario: &IndexScenario, results: Results) -> Self {
        let targets = judge(&results);
        let missed = targets.iter().any(|target| target.verdict == Verdict::Missed);
        let ratios = Ratios::of(&results);
        let Results { shoal, etcd, failures, interrupted, load_before, elapsed_ms } = results;
        Self {
            report_version: INDEX_REPORT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION"),
            made_at_unix_ms: clock::wall_unix_ms(),
            ok: failures.is_empty() && !missed && !interrupted,
            interrupted,
            elapsed_ms,
            machine: Machine {
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                load_before,
                debug_build: cfg!(debug_assertions),
            },
            scenario: Asked::from(scenario),
            targets,
            ratios,
            failures,
            shoal,
            etcd,
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

impl From<&IndexScenario> for Asked {
    fn from(scenario: &IndexScenario) -> Self {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            preset: scenario.preset,
            super_nodes: scenario.super_nodes,
            against: scenario.against,
            phases: scenario.phases.clone(),
            records: scenario.records.clone(),
            holders_per_object: scenario.holders,
            members: scenario.members,
            in_flight: scenario.in_flight,
            duration_ms: ms(scenario.duration),
            load_limit_ms: ms(scenario.load_limit),
            purges: scenario.purges,
            kills: scenario.kills,
            txn_ops: scenario.txn_ops,
            insecure: scenario.insecure,
        }
    }
}
