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
    #[arg(value_name = "URL", required_unless_present_any = ["prefix", "tag", "site"])]
    urls: Vec<String>,
    /// Everything under a URL, whatever its query; can be repeated
    #[arg(long, value_name = "URL")]
    prefix: Vec<String>,
    /// Everything of --site with a tag (Surrogate-Key, Cache-Tag); can be repeated
    #[arg(long, value_name = "TAG", requires = "site")]
    tag: Vec<String>,
    /// The site of the tags; or, without tags, all of that site
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Make it stale and not gone: it is validated before it is served again
    #[arg(long)]
    soft: bool,
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
    if let Some(site) = args.whole_site() {
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

impl PurgeArgs {
    /// The site that is purged as a whole.
    fn whole_site(&self) -> Option<&String> {
        self.site.as_ref().filter(|_| self.tag.is_empty())
    }
}

/// What to name the purges by, and the call's body.
fn wishes(args: &PurgeArgs) -> (Vec<String>, Value) {
    let urls = args.urls.iter().map(|url| (url, json!({ "url": url })));
    let prefixes = args.prefix.iter().map(|url| (url, json!({ "prefix": url })));
    let tags = args.tag.iter().map(|tag| (tag, json!({ "tag": tag, "site": args.site })));
    let site = args.whole_site().map(|site| (site, json!({ "site": site })));
    let all = urls.chain(prefixes).chain(tags).chain(site);
    let (targets, purges): (Vec<String>, Vec<Value>) =
        all.map(|(target, purge)| (target.clone(), purge)).unzip();
    (targets, json!({ "purges": purges, "soft": args.soft }))
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
    fn every_way_to_name_things_becomes_a_purge_of_its_own() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            purge: PurgeArgs,
        }
        let read = |line: &str| {
            let words = std::iter::once("purge").chain(line.split_whitespace());
            <Line as clap::Parser>::try_parse_from(words).map(|line| line.purge)
        };
        let line = "http://d/a http://d/b --prefix http://d/c/ --tag t --tag u --site docs --soft";
        let (targets, body) = wishes(&read(line).unwrap());
        assert_eq!(targets, ["http://d/a", "http://d/b", "http://d/c/", "t", "u"]);
        let expected = json!({ "soft": true, "purges": [
            { "url": "http://d/a" },
            { "url": "http://d/b" },
            { "prefix": "http://d/c/" },
            { "tag": "t", "site": "docs" },
            { "tag": "u", "site": "docs" },
        ]});
        assert_eq!(body, expected);
        let (targets, body) = wishes(&read("--site docs --yes").unwrap());
        assert_eq!((targets, &body["purges"]), (vec!["docs".into()], &json!([{ "site": "docs" }])));
        for wrong in ["", "--tag t", "--soft"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_json_is_documented() {
        const PAGE: &str = include_str!("../../../docs/purge-json.md");
        let example = PAGE.split("```json").nth(1).and_then(|rest| rest.split("```").next());
        let example: Value = serde_json::from_str(example.unwrap()).unwrap();
        let written = serde_json::to_value(report()).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&example), keys(&written));
        assert_eq!(keys(&example["purges"][0]), keys(&written["purges"][0]));
        for key in keys(&written["purges"][0]) {
            assert!(PAGE.contains(&format!("`purges[].{key}`")), "{key}");
        }
    }

    #[test]
    fn failures_are_named_with_their_remedy() {
        let told = failures(&report(), 1);
        assert_eq!(told, "1 of 2 purges failed\nhttp://d/b: no leader\nwait");
    }
}
