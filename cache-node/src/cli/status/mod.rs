//! `shoal status`: asks one member for its view, then every member for its own figures.

mod show;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::exit::Failure;
use super::{control, on_small_runtime, print};
use crate::admin::Report;
use crate::admin::gather::{ask, ask_members};
use crate::clock;

/// `shoal status`'s flags.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The admin listener of any member: URL or host:port
    #[arg(long, env = "SHOAL_ADMIN", default_value = "http://127.0.0.1:9400", value_name = "URL")]
    admin: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print again and again, every so often; with --json, one document a line
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s",
          value_parser = control::timeout)]
    watch: Option<Duration>,
    /// How long to wait for each member
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = control::timeout)]
    timeout: Duration,
}

/// Asks and prints, once or again and again.
pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let address = control::address(&args.admin)?;
    let report = gather(&address, args.timeout)?.map_err(|why| unreachable(&address, &why))?;
    print(&written(args, &report)?)?;
    let Some(every) = args.watch else { return Ok(()) };
    on_small_runtime(async {
        loop {
            tokio::time::sleep(every).await;
            let text = match look(&address, args.timeout).await {
                Ok(report) => written(args, &report)?,
                Err(why) => {
                    let _ = writeln!(io::stderr(), "no status from http://{address}: {why}");
                    continue;
                }
            };
            let again = if args.json { text } else { format!("{}{text}", between()) };
            let mut out = io::stdout().lock();
            match out.write_all(again.as_bytes()).and_then(|()| out.flush()) {
                // Whoever reads us has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                shown => shown.map_err(Failure::run)?,
            }
        }
    })
}

/// What all members say now, or why the member at `address` says nothing.
pub(super) fn gather(address: &str, deadline: Duration) -> Result<Result<Report, String>, Failure> {
    on_small_runtime(async { Ok(look(address, deadline).await) })
}

async fn look(address: &str, deadline: Duration) -> Result<Report, String> {
    let first = ask(address, deadline).await?;
    let answers = ask_members(&first, deadline).await;
    Ok(Report::new(&first, &answers, clock::unix_ms()))
}

fn written(args: &StatusArgs, report: &Report) -> Result<String, Failure> {
    if args.json {
        return Ok(format!("{}\n", serde_json::to_string(report).map_err(Failure::run)?));
    }
    Ok(show::text(report, io::stdout().is_terminal()))
}

/// Before the next report: a terminal is cleared, a file gets an empty line.
fn between() -> &'static str {
    if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "\n" }
}

fn unreachable(address: &str, why: &str) -> Failure {
    Failure::run(format!(
        "no status from http://{address}: {why}\n\
         Give the admin address of a running member with --admin or SHOAL_ADMIN;\n\
         `shoal up` prints its members' (http://127.0.0.1:18180 is its node-0's by default)."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_address_is_named_with_the_remedy() {
        let args = StatusArgs {
            admin: "127.0.0.1:1".into(),
            json: false,
            watch: None,
            timeout: Duration::from_secs(5),
        };
        let refused = run(&args).unwrap_err();
        assert_eq!(refused.code(), super::super::exit::FAILED);
        assert!(refused.text().contains("127.0.0.1:1") && refused.text().contains("--admin"));
    }
}
