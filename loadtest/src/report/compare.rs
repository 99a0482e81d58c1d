//! The report of a node beside other caches, for people and for programs (PURE).
//! `docs/loadtest-http-json.md` has its keys.

use std::fmt::Write as _;

use serde::Serialize;

use super::html::{STYLE, date, escape, rows_of};
use crate::{
    clock,
    compare::{
        results::{Name, Protocol, Results, Run},
        targets::{Target, judge},
    },
    report::grid::Grid,
    scenario::{HttpScenario, http::Rival},
    units::{show_bytes, show_us},
};

/// Changes when a key is removed or means something else.
pub const HTTP_REPORT_VERSION: u32 = 1;

/// Everything there is to say.
#[derive(Clone, Debug, Serialize)]
pub struct HttpReport {
    /// [`HTTP_REPORT_VERSION`].
    pub report_version: u32,
    /// Version of the tool.
    pub tool_version: &'static str,
    /// When the report was made.
    pub made_at_unix_ms: u64,
    /// True when no figure is missed and nothing ended it early.
    pub ok: bool,
    /// Processors that this process may use.
    pub cores: usize,
    /// What was asked for.
    pub scenario: Asked,
    /// Figures against what is wanted of them.
    pub targets: Vec<Target>,
    /// Shoal by the others, median by median.
    pub ratios: Vec<Ratio>,
    /// What was found.
    pub results: Results,
}

/// The scenario, as far as it shapes the result.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `--against`
    pub against: Vec<Rival>,
    /// `--tls`
    pub tls: bool,
    /// `--cores`
    pub server_cores: usize,
    /// `--objects`
    pub objects_bytes: Vec<u64>,
    /// `--connections`
    pub connections: u16,
    /// `--duration`
    pub duration_ms: u64,
    /// `--rounds`
    pub rounds: u16,
    /// `--idle`
    pub idle: u32,
    /// `--misses`
    pub misses: u32,
}

/// Shoal by another: more is better, but for latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Beside whom.
    pub against: Name,
    /// How clients speak.
    pub protocol: Protocol,
    /// The object's length.
    pub object_bytes: u64,
    /// Requests in a second.
    pub requests_per_s: f64,
    /// Bytes in a second.
    pub gb_per_s: f64,
    /// Requests for each second of processor time.
    pub requests_per_core_s: f64,
    /// Bytes for each second of processor time.
    pub gb_per_core_s: f64,
    /// The 99th percentile of latency; less is better.
    pub p99: Option<f64>,
}

impl HttpReport {
    /// Puts together what was asked for and what was found.
    #[must_use]
    pub fn new(scenario: &HttpScenario, results: Results) -> Self {
        let targets = judge(&results);
        Self {
            report_version: HTTP_REPORT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION"),
            made_at_unix_ms: clock::wall_unix_ms(),
            ok: !results.interrupted && targets.iter().all(|target| target.met),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            scenario: Asked {
                against: scenario.against.clone(),
                tls: scenario.tls,
                server_cores: scenario.cores,
                objects_bytes: scenario.objects.clone(),
                connections: scenario.connections,
                duration_ms: u64::try_from(scenario.duration.as_millis()).unwrap_or(u64::MAX),
                rounds: scenario.rounds,
                idle: scenario.idle,
                misses: scenario.misses,
            },
            targets,
            ratios: ratios(&results),
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
        let grids = self.sections().into_iter().map(|section| {
            let mut grid = Grid::new(&section.heading);
            for row in &section.rows {
                grid.row(&row.iter().map(String::as_str).collect::<Vec<_>>());
            }
            grid.text()
        });
        std::iter::once(self.heading() + "\n").chain(grids).collect::<Vec<_>>().join("\n")
    }

    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let title = "Shoal beside others";
        let mut html = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta \
             name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}\
             </title><style>{STYLE}</style></head><body><main><h1>{title}</h1>"
        );
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<p class=\"dim\">{}</p><p class=\"dim\">Made at <time>{}</time>, shoal-loadtest {}</p>",
            escape(&self.heading()),
            date(self.made_at_unix_ms),
            self.tool_version
        );
        html.push_str("<h2>Requests for each second of processor time</h2>");
        html.push_str(&self.bars());
        for section in self.sections() {
            let rows = section.rows.into_iter();
            rows_of(&mut html, section.title, &section.heading, rows);
        }
        html.push_str("</main></body></html>\n");
        html
    }

    fn heading(&self) -> String {
        let asked = &self.scenario;
        let ended = if self.results.interrupted { ", ended early" } else { "" };
        format!(
            "{} connections, {} for each object, median of {} rounds; servers on {} of {} \
             processors, clients on the others{ended}",
            asked.connections,
            show_us(asked.duration_ms * 1_000),
            asked.rounds,
            asked.server_cores,
            self.cores,
        )
    }

    /// A bar for each median, as long as its part of the best of its group.
    fn bars(&self) -> String {
        const ROW: f64 = 20.0;
        let medians = &self.results.medians;
        let best = |run: &Run| {
            let same = medians
                .iter()
                .filter(|m| (m.protocol, m.object_bytes) == (run.protocol, run.object_bytes));
            same.map(|m| m.requests_per_core_s).fold(f64::MIN_POSITIVE, f64::max)
        };
        let height = ROW * medians.len() as f64;
        let mut svg = format!(
            "<svg viewBox=\"0 0 760 {height}\" role=\"img\" aria-label=\"Requests for each second \
             of processor time\">"
        );
        for (run, at) in medians.iter().zip(0..) {
            let y = ROW * f64::from(at);
            let class = if run.server == Name::Shoal { "first" } else { "second" };
            let _ = write!(
                svg,
                "<text x=\"250\" y=\"{:.0}\" text-anchor=\"end\">{}, {}, {}</text><rect \
                 class=\"bar {class}\" x=\"258\" y=\"{:.0}\" width=\"{:.1}\" height=\"14\"/><text \
                 x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"start\">{:.0}</text>",
                y + 14.0,
                run.protocol.text(),
                show_bytes(run.object_bytes),
                run.server.text(),
                y + 3.0,
                400.0 * run.requests_per_core_s / best(run),
                266.0 + 400.0 * run.requests_per_core_s / best(run),
                y + 14.0,
                run.requests_per_core_s,
            );
        }
        svg + "</svg>"
    }

    fn sections(&self) -> Vec<Section> {
        let all = [self.figures(), self.loads(), self.ratio_rows(), self.others()];
        all.into_iter().filter(|section| !section.rows.is_empty()).collect()
    }

    fn figures(&self) -> Section {
        let row = |target: &Target| {
            let verdict = match (target.value, target.met) {
                (None, _) => "-",
                (Some(_), false) => "MISSED",
                (Some(_), true) if target.aim_reached() => "aim reached",
                _ => "met",
            };
            let value = target.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            let (least, aim) = (target.least.to_string(), target.aim.to_string());
            vec![target.figure.to_owned(), value, least, aim, verdict.to_owned()]
        };
        Section {
            title: "Figures",
            heading: vec!["Figure", "measured", "least", "aim", ""],
            rows: self.targets.iter().map(row).collect(),
        }
    }

    fn loads(&self) -> Section {
        let time = |us: Option<u64>| us.map_or("-".to_owned(), show_us);
        let row = |run: &Run| {
            vec![
                format!("{}, {}", run.protocol.text(), show_bytes(run.object_bytes)),
                run.server.text().to_owned(),
                format!("{:.0}", run.requests_per_s),
                format!("{:.2}", run.gb_per_s),
                time(run.p50_us),
                time(run.p99_us),
                format!("{:.2}", run.busy_cores),
                format!("{:.2}", run.cpu_us_per_request),
                format!("{:.2}", run.gb_per_core_s),
                show_bytes(run.rss_bytes),
            ]
        };
        Section {
            title: "Hot objects",
            heading: vec![
                "Load",
                "server",
                "req/s",
                "GB/s",
                "p50",
                "p99",
                "cores",
                "CPU µs/req",
                "GB/core s",
                "RSS",
            ],
            rows: self.results.medians.iter().map(row).collect(),
        }
    }

    fn ratio_rows(&self) -> Section {
        let figure = |value: f64| format!("{value:.2}");
        let row = |ratio: &Ratio| {
            vec![
                format!("{}, {}", ratio.protocol.text(), show_bytes(ratio.object_bytes)),
                ratio.against.text().to_owned(),
                figure(ratio.requests_per_s),
                figure(ratio.requests_per_core_s),
                figure(ratio.gb_per_core_s),
                ratio.p99.map_or("-".to_owned(), figure),
            ]
        };
        Section {
            title: "Shoal by others",
            heading: vec!["Shoal by", "", "req/s", "req/core s", "GB/core s", "p99"],
            rows: self.ratios.iter().map(row).collect(),
        }
    }

    fn others(&self) -> Section {
        let results = &self.results;
        let paced = results.paced.iter().map(|paced| {
            let what = format!("{:.0} requests/s: p50, p99", paced.requests_per_s);
            let times = format!("{}, {}", show_us(paced.p50_us), show_us(paced.p99_us));
            vec![what, paced.server.text().to_owned(), times]
        });
        let misses = results.misses.iter().map(|misses| {
            let name = misses.server.map_or("origin alone", Name::text);
            let times = format!("{}, {}", show_us(misses.p50_us), show_us(misses.p99_us));
            vec!["first byte of a miss: p50, p99".to_owned(), name.to_owned(), times]
        });
        let idle = results.idle.iter().map(|idle| {
            let what = format!("RSS with {} idle connections, before", idle.connections);
            let (now, before) = (show_bytes(idle.rss_bytes), show_bytes(idle.rss_before_bytes));
            vec![what, idle.server.text().to_owned(), format!("{now}, {before}")]
        });
        Section {
            title: "Further figures",
            heading: vec!["Further", "server", ""],
            rows: paced.chain(misses).chain(idle).collect(),
        }
    }
}

struct Section {
    title: &'static str,
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn ratios(results: &Results) -> Vec<Ratio> {
    let others = results.medians.iter().filter(|run| run.server != Name::Shoal);
    let by = |other: &Run| {
        let own = results.of(Name::Shoal, other.protocol, other.object_bytes)?;
        let ratio = |of: fn(&Run) -> f64| of(own) / of(other).max(f64::MIN_POSITIVE);
        let p99 = own.p99_us.zip(other.p99_us);
        Some(Ratio {
            against: other.server,
            protocol: other.protocol,
            object_bytes: other.object_bytes,
            requests_per_s: ratio(|run| run.requests_per_s),
            gb_per_s: ratio(|run| run.gb_per_s),
            requests_per_core_s: ratio(|run| run.requests_per_core_s),
            gb_per_core_s: ratio(|run| run.gb_per_core_s),
            p99: p99.map(|(own, other)| own as f64 / other.max(1) as f64),
        })
    };
    others.filter_map(by).collect()
}
