//! The report of a transfer, for people and for programs (PURE). `docs/loadtest-transfer-json.md` has
//! its keys.

use serde::Serialize;

use crate::{
    clock,
    report::grid::Grid,
    scenario::{TransferScenario, transfer::Way},
    transfer::results::Results,
    units::show_bytes,
};

/// Changes when a key is removed or means something else.
pub const TRANSFER_REPORT_VERSION: u32 = 1;

/// Everything there is to say about transfers.
#[derive(Clone, Debug, Serialize)]
pub struct TransferReport {
    /// [`TRANSFER_REPORT_VERSION`].
    pub report_version: u32,
    /// Version of the tool.
    pub tool_version: &'static str,
    /// When the report was made.
    pub made_at_unix_ms: u64,
    /// Processors that this process may use.
    pub cores: usize,
    /// True when the tool was built without optimisation: figures mean little then.
    pub debug_build: bool,
    /// What was asked for.
    pub scenario: Asked,
    /// What was found.
    pub results: Results,
}

/// The scenario, as far as it shapes the result.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `--size`
    pub size_bytes: u64,
    /// `--hot`, no more than the size.
    pub hot_bytes: u64,
    /// Length of a chunk.
    pub chunk_bytes: u32,
    /// `--ways`
    pub ways: Vec<Way>,
    /// `--rounds`
    pub rounds: u16,
    /// `--in-flight`
    pub in_flight: u16,
}

impl TransferReport {
    /// Puts together what was asked for and what was found.
    #[must_use]
    pub fn new(scenario: &TransferScenario, results: Results) -> Self {
        Self {
            report_version: TRANSFER_REPORT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION"),
            made_at_unix_ms: clock::wall_unix_ms(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            debug_build: cfg!(debug_assertions),
            scenario: Asked {
                size_bytes: scenario.size_bytes,
                hot_bytes: scenario.hot_bytes(),
                chunk_bytes: scenario.chunk_bytes(),
                ways: scenario.ways.clone(),
                rounds: scenario.rounds,
                in_flight: scenario.in_flight,
            },
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

    /// The table for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let asked = &self.scenario;
        let debug = if self.debug_build { ", built without optimisation" } else { "" };
        let ended = if self.results.interrupted { ", ended early" } else { "" };
        let mut text = format!(
            "{} from one member to another, {} rounds, chunks of {}, {} in flight, mutual TLS; \
             {} cores{debug}{ended}\n\n",
            show_bytes(asked.size_bytes),
            asked.rounds,
            show_bytes(asked.chunk_bytes.into()),
            asked.in_flight,
            self.cores,
        );
        let mut grid = Grid::new(&[
            "Way",
            "GB/s",
            "up, CPU s/GB",
            "down, CPU s/GB",
            "both",
            "up, RSS",
            "down, RSS",
        ]);
        for way in &self.results.ways {
            let figure = |value: f64| format!("{value:.3}");
            grid.row(&[
                way.way.name(),
                &figure(way.gb_per_s),
                &figure(way.up_cpu_s_per_gb),
                &figure(way.down_cpu_s_per_gb),
                &figure(way.cpu_s_per_gb),
                &show_bytes(way.up_rss_peak_bytes),
                &show_bytes(way.down_rss_peak_bytes),
            ]);
        }
        text += &grid.text();
        if let Some(ratio) = self.results.cpu_ratio {
            text +=
                &format!("\nThe first takes {ratio:.2} times the processor time of the last.\n");
        }
        text
    }
}
