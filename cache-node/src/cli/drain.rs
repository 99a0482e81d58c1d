//! `shoal drain`: has a node give away what nobody else has, and waits until it may be stopped.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::control::ControlArgs;
use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::admin::DrainStatus;
use crate::clock;
use crate::text::units::format_size;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// `shoal drain`'s flags.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shoal drain --admin node-3:9400 --token-file token --timeout 10m
  shoal drain --admin node-3:9400 --token-file token --cancel")]
pub(super) struct DrainArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Stay: the node takes part again as before
    #[arg(long, conflicts_with_all = ["status", "no_wait"])]
    cancel: bool,
    /// Only show how far it is
    #[arg(long, conflicts_with = "no_wait")]
    status: bool,
    /// Begin, and do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

/// Drains, cancels or shows.
pub(super) fn run(args: &DrainArgs) -> Result<(), Failure> {
    let status = on_small_runtime(async {
        if args.cancel {
            return ask(args, Method::DELETE).await;
        }
        if args.status {
            return ask(args, Method::GET).await;
        }
        let begun = ask(args, Method::POST).await?;
        if args.no_wait { Ok(begun) } else { wait(args, begun).await }
    })?;
    if args.control.json {
        return print(&format!("{}\n", serde_json::to_string(&status).map_err(Failure::run)?));
    }
    print(&format!("{}\n", line(&status)))
}

async fn ask(args: &DrainArgs, method: Method) -> Result<DrainStatus, Failure> {
    let body = if method == Method::POST { Value::Object(Default::default()) } else { Value::Null };
    let answer = args.control.call(method, "/v1/drain", body).await?;
    let strange = |error| Failure::run(format!("the answer is no state of a drain: {error}"));
    serde_json::from_value(answer).map_err(strange)
}

async fn wait(args: &DrainArgs, mut status: DrainStatus) -> Result<DrainStatus, Failure> {
    let begun = clock::monotonic();
    let mut told = String::new();
    while status.state != "drained" {
        if status.state == "serving" {
            return Err(Failure::run("the drain was cancelled by somebody else"));
        }
        if clock::since(begun) > args.control.timeout {
            let how_far = line(&status);
            return Err(Failure::run(format!(
                "{how_far}\nIt goes on; wait for longer with --timeout, or end it with --cancel."
            )));
        }
        let now = line(&status);
        if now != told {
            // Nobody may be listening: the outcome counts.
            let _ = writeln!(io::stderr().lock(), "{now}");
            told = now;
        }
        tokio::time::sleep(ASK_EVERY).await;
        status = ask(args, Method::GET).await?;
    }
    Ok(status)
}

/// One line for people.
fn line(status: &DrainStatus) -> String {
    let DrainStatus { state, objects_left, handed_off, handed_off_bytes, stalled, why } = status;
    let bytes = format_size(*handed_off_bytes);
    let stalled = if *stalled { ", stalled" } else { "" };
    format!(
        "{state}{stalled}: {objects_left} objects left, {handed_off} given away ({bytes}); {why}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_as_documented() {
        let page = include_str!("../../../docs/drain-json.md");
        let shown = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let shown: Value = serde_json::from_str(shown).unwrap();
        let status: DrainStatus = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(serde_json::to_value(&status).unwrap(), shown);
        let expected = "draining: 120 objects left, 31 given away (48 MiB); copies are being \
                        given away";
        assert_eq!(line(&status), expected);
    }
}
