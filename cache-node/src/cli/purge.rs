//! `shoal purge`: asks one node to purge, waits until nobody serves it any more, and says who
//! answered and how long that took.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control::ControlArgs;
use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::admin::ControlError;
use crate::text::table::{Align, Table};

/// `shoal purge`'s flags.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// URLs, as clients ask for them
    #[arg(value_name = "URL", required_unless_present = "site")]
    urls: Vec<String>,
    /// A whole site, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "urls")]
    site: Option<String>,
    /// Do not ask before a whole site is purged
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    control: ControlArgs,
}

/// What `--json` prints; see docs/purge-json.md.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    purges: Vec<Purged>,
    failed: u64,
    took_ms: f64,
}

/// One purge.
#[derive(Debug, Serialize, Deserialize)]
struct Purged {
    #[serde(default)]
    target: String,
    matcher: String,
    site: String,
    position: Option<u64>,
    nodes_acknowledged: Option<u64>,
    nodes_expired: Option<u64>,
    took_ms: f64,
    error: Option<ControlError>,
}

/// Purges and reports.
pub(super) fn run(args: &PurgeArgs) -> Result<(), Failure> {
    if let Some(site) = &args.site {
        confirm(site, args.yes)?;
    }
    let (targets, body) = wishes(args);
    let answer =
        on_small_runtime(async { args.control.call(Method::POST, "/v1/purge", body).await })?;
    let strange = |error| Failure::run(format!("the answer is no report of purges: {error}"));
    let mut report: Report = serde_json::from_value(answer).map_err(strange)?;
    for (purged, target) in report.purges.iter_mut().zip(targets) {
        purged.target = target;
    }
    if args.control.json {
        print(&format!("{}\n", serde_json::to_string(&report).map_err(Failure::run)?))?;
    } else {
        print(&text(&report))?;
    }
    match report.failed {
        0 => Ok(()),
        failed => Err(Failure::run(failures(&report, failed))),
    }
}

/// What to name the purges by, and the call's body.
fn wishes(args: &PurgeArgs) -> (Vec<String>, Value) {
    let mut targets = args.urls.clone();
    let mut purges: Vec<Value> = args.urls.iter().map(|url| json!({ "url": url })).collect();
    if let Some(site) = &args.site {
        targets.push(site.clone());
        purges.push(json!({ "site": site }));
    }
    (targets, json!({ "purges": purges }))
}

/// A whole site is much: a person is asked again, a script is not.
fn confirm(site: &str, yes: bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    let asked = write!(io::stderr().lock(), "Purge everything of site {site:?}? [y/N] ");
    let mut answer = String::new();
    asked.and_then(|()| io::stdin().read_line(&mut answer)).map_err(Failure::run)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::run("nothing was purged")),
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&[
        ("purged", Align::Left),
        ("by", Align::Left),
        ("site", Align::Left),
        ("position", Align::Right),
        ("nodes", Align::Right),
        ("expired", Align::Right),
        ("took", Align::Right),
    ]);
    let count = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for purged in &report.purges {
        table.row(vec![
            purged.target.clone(),
            purged.matcher.clone(),
            purged.site.clone(),
            count(purged.position),
            count(purged.nodes_acknowledged),
            count(purged.nodes_expired),
            format!("{:.1} ms", purged.took_ms),
        ]);
    }
    let done = report.purges.len() as u64 - report.failed.min(report.purges.len() as u64);
    format!("{table}\n{done} purged, {} failed, {:.1} ms in all\n", report.failed, report.took_ms)
}

fn failures(report: &Report, failed: u64) -> String {
    let told = report.purges.iter().filter_map(|purged| {
        let error = purged.error.as_ref()?;
        Some(format!("\n{}: {}\n{}", purged.target, error.message, error.remedy))
    });
    format!("{failed} of {} purges failed{}", report.purges.len(), told.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let answer = json!({
            "purges": [
                {
                    "matcher": "url", "site": "docs", "position": 12,
                    "nodes_acknowledged": 3, "nodes_expired": 0, "took_ms": 4.25,
                },
                {
                    "matcher": "url", "site": "docs", "took_ms": 9.5,
                    "error": { "code": "unavailable", "message": "no leader", "remedy": "wait" },
                },
            ],
            "failed": 1,
            "took_ms": 9.75,
        });
        let mut report: Report = serde_json::from_value(answer).unwrap();
        for (purged, target) in report.purges.iter_mut().zip(["http://d/a", "http://d/b"]) {
            purged.target = target.to_owned();
        }
        report
    }

    #[test]
    fn people_see_a_table() {
        let expected = "\
purged      by   site  position  nodes  expired    took
http://d/a  url  docs        12      3        0  4.2 ms
http://d/b  url  docs         -      -        -  9.5 ms

1 purged, 1 failed, 9.8 ms in all
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn failures_are_named_with_their_remedy() {
        let told = failures(&report(), 1);
        assert_eq!(told, "1 of 2 purges failed\nhttp://d/b: no leader\nwait");
    }
}
