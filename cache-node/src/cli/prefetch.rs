//! `shoal prefetch`: has nodes get objects before anybody asks for them, shows how far they are, and
//! names what failed.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control::ControlArgs;
use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::clock;
use crate::text::units::format_size;

/// Where the calls are.
const PATH: &str = "/v1/prefetch";
/// URLs of one call, and their bytes: within what a call may have.
const CALL_URLS_MAX: usize = 2_000;
const CALL_BYTES_MAX: usize = 512 * 1024;
/// Longest list of URLs that is read, in bytes.
const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Failures that are printed.
const SHOWN_MAX: usize = 20;
/// Of the progress bar, in characters.
const BAR_WIDTH: u64 = 30;

/// `shoal prefetch`'s flags.
#[derive(Debug, Args)]
pub(super) struct PrefetchArgs {
    /// URLs, as clients ask for them
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// A file with a URL a line, - for standard input, which is read without any URL too
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// Which nodes: all, their names with commas between, or zone=ZONE
    #[arg(long, default_value = "all", value_name = "NODES", value_parser = whom)]
    to: Whom,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Whom(Value);

/// What `--json` prints; see docs/prefetch-json.md. A call answers the same without `took_ms`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    total: u64,
    done: u64,
    failed: u64,
    bytes: u64,
    failures: Vec<Failed>,
    #[serde(default, skip_serializing)]
    finished: bool,
    #[serde(default)]
    took_ms: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    url: String,
    node: String,
    message: String,
}

#[derive(Deserialize)]
struct Begun {
    id: String,
}

fn whom(text: &str) -> Result<Whom, String> {
    match text.split_once('=') {
        None if text == "all" => Ok(Whom(json!({}))),
        Some(("zone", zone)) if !zone.is_empty() => Ok(Whom(json!({ "zone": zone }))),
        None if text.split(',').all(|name| !name.is_empty()) => {
            Ok(Whom(json!({ "nodes": text.split(',').collect::<Vec<_>>() })))
        }
        _ => Err("expected \"all\", names of nodes with commas between, or \"zone=ZONE\"".into()),
    }
}

/// Prefetches and reports.
pub(super) fn run(args: &PrefetchArgs) -> Result<(), Failure> {
    let urls = args.list()?;
    let begun = clock::monotonic();
    let mut sum = Report::default();
    let all = urls.len() as u64;
    let done = on_small_runtime(async {
        for part in parts(&urls) {
            let body = json!({ "urls": part, "to": args.to.0 });
            let answer = args.control.call(Method::POST, PATH, body).await?;
            let begun: Begun = read(answer)?;
            let part = args.follow(&begun.id, &sum, all).await?;
            sum.add(part);
        }
        Ok(())
    });
    clear();
    done?;
    sum.took_ms = (clock::since(begun).as_secs_f64() * 1e6).round() / 1e3;
    if args.control.json {
        print(&format!("{}\n", serde_json::to_string(&sum).map_err(Failure::run)?))?;
    } else {
        print(&text(&sum))?;
    }
    match sum.failed {
        0 => Ok(()),
        failed => Err(Failure::run(failures(&sum, failed))),
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::run(format!("the answer is no report of a prefetch: {error}")))
}

impl PrefetchArgs {
    /// All URLs that are named.
    fn list(&self) -> Result<Vec<String>, Failure> {
        let mut urls = self.urls.clone();
        let file = match (&self.file, urls.is_empty()) {
            (Some(file), _) => Some(file.as_str()),
            (None, true) if !io::stdin().is_terminal() => Some("-"),
            (None, _) => None,
        };
        if let Some(file) = file {
            let failed = |error| Failure::usage(format!("--file {file}: {error}"));
            let reader: Box<dyn Read> = match file {
                "-" => Box::new(io::stdin()),
                file => Box::new(std::fs::File::open(file).map_err(failed)?),
            };
            let mut text = String::new();
            reader.take(LIST_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
            let lines = text.lines().map(str::trim);
            let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            urls.extend(named.map(str::to_owned));
        }
        if urls.is_empty() {
            let what = "no URL; give some as arguments, with --file, or on standard input";
            return Err(Failure::usage(what));
        }
        Ok(urls)
    }

    /// Waits until a prefetch is over; one that makes no progress for `--timeout` is given up.
    async fn follow(&self, id: &str, before: &Report, urls: u64) -> Result<Report, Failure> {
        let path = format!("{PATH}/{id}");
        let (mut last, mut moved) = ((0, 0), clock::monotonic());
        loop {
            let answer = self.control.call(Method::GET, &path, Value::Null).await?;
            let report: Report = read(answer)?;
            show(before, &report, urls);
            if report.finished {
                return Ok(report);
            }
            let now = (report.done + report.failed, report.bytes);
            if now != last {
                (last, moved) = (now, clock::monotonic());
            }
            if clock::since(moved) >= self.control.timeout {
                let what = format!(
                    "nothing came for {:?}: {} of {} got so far\nIt goes on; look at it with GET {path}, \
                     or wait longer with --timeout.",
                    self.control.timeout, report.done, report.total
                );
                return Err(Failure::run(what));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// As many URLs at a time as a call may have.
fn parts(urls: &[String]) -> Vec<&[String]> {
    let (mut parts, mut rest) = (Vec::new(), urls);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |url: &&String| {
            bytes += url.len() + 3;
            bytes <= CALL_BYTES_MAX
        };
        let count = rest.iter().take(CALL_URLS_MAX).take_while(fits).count().max(1);
        let (part, after) = rest.split_at(count);
        parts.push(part);
        rest = after;
    }
    parts
}

impl Report {
    fn add(&mut self, part: Self) {
        self.total += part.total;
        self.done += part.done;
        self.failed += part.failed;
        self.bytes += part.bytes;
        self.failures.extend(part.failures);
    }
}

/// A bar, for people alone.
fn show(before: &Report, now: &Report, urls: u64) {
    if io::stderr().is_terminal() {
        // Whoever cannot be shown misses nothing.
        let _ = io::stderr().lock().write_all(bar(before, now, urls).as_bytes());
    }
}

fn clear() {
    if io::stderr().is_terminal() {
        let _ = io::stderr().lock().write_all(b"\r\x1b[K");
    }
}

fn bar(before: &Report, now: &Report, urls: u64) -> String {
    let [ended, failed] =
        [before.done + before.failed + now.done + now.failed, before.failed + now.failed];
    let total = (before.total + now.total).max(urls).max(1);
    let full = (ended.min(total) * BAR_WIDTH / total) as usize;
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR_WIDTH as usize - full));
    let bytes = format_size(before.bytes + now.bytes);
    format!("\r\x1b[K[{bar}] {ended}/{total}, {failed} failed, {bytes}")
}

fn text(sum: &Report) -> String {
    let Report { total, done, failed, bytes, took_ms, .. } = sum;
    format!(
        "{done} of {total} got, {failed} failed, {} in {:.1} s\n",
        format_size(*bytes),
        took_ms / 1e3
    )
}

fn failures(sum: &Report, failed: u64) -> String {
    let shown = sum.failures.iter().take(SHOWN_MAX);
    let told = shown.map(|of| format!("\n{} on {}: {}", of.url, of.node, of.message));
    let more = match failed.saturating_sub(sum.failures.len().min(SHOWN_MAX) as u64) {
        0 => String::new(),
        more => format!("\nand {more} more; --json names up to 100 of each call"),
    };
    format!("{failed} of {} failed{}{more}", sum.total, told.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let failed = |n: u64| Failed {
            url: format!("http://d/{n}"),
            node: "node-1".to_owned(),
            message: "the origin answers 404".to_owned(),
        };
        let failures = (0..2).map(failed).collect();
        let (total, done, failed, bytes) = (6, 4, 2, 3 << 20);
        Report { total, done, failed, bytes, failures, finished: true, took_ms: 1_500.0 }
    }

    #[test]
    fn nodes_are_named_three_ways() {
        assert_eq!(whom("all"), Ok(Whom(json!({}))));
        assert_eq!(whom("a,b"), Ok(Whom(json!({ "nodes": ["a", "b"] }))));
        assert_eq!(whom("zone=z1"), Ok(Whom(json!({ "zone": "z1" }))));
        for wrong in ["", "a,", "zone=", "rack=1"] {
            assert!(whom(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn long_lists_go_in_parts() {
        let urls: Vec<_> = (0..2 * CALL_URLS_MAX + 1).map(|n| format!("http://d/{n}")).collect();
        assert_eq!(
            parts(&urls).iter().map(|part| part.len()).collect::<Vec<_>>(),
            [2_000, 2_000, 1]
        );
        let long = vec!["x".repeat(CALL_BYTES_MAX), "y".repeat(10)];
        assert_eq!(parts(&long).len(), 2, "one that is too long for any call is refused there");
        assert!(parts(&[]).is_empty());
    }

    #[test]
    fn people_see_how_far_it_is_and_what_failed() {
        let now = Report { failures: Vec::new(), ..report() };
        let bar = bar(&Report::default(), &now, 12);
        assert!(bar.ends_with("[###############---------------] 6/12, 2 failed, 3 MiB"), "{bar:?}");
        assert_eq!(text(&report()), "4 of 6 got, 2 failed, 3 MiB in 1.5 s\n");
        let told = failures(&report(), 5);
        assert!(
            told.contains("http://d/1 on node-1: the origin answers 404\nand 3 more"),
            "{told}"
        );
    }

    #[test]
    fn the_json_is_documented() {
        const PAGE: &str = include_str!("../../../docs/prefetch-json.md");
        let example = PAGE.split("```json").nth(1).and_then(|rest| rest.split("```").next());
        let example: Value = serde_json::from_str(example.unwrap()).unwrap();
        let written = serde_json::to_value(report()).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&example), keys(&written));
        assert_eq!(keys(&example["failures"][0]), keys(&written["failures"][0]));
        for key in keys(&written) {
            assert!(PAGE.contains(&format!("`{key}")), "{key}");
        }
    }
}
