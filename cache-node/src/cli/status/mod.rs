//! `shoal status`: asks one member for its view, then every member for its own figures.

mod report;
mod show;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use http::StatusCode;

pub use report::{MemberReport, Report, Totals};

use super::exit::Failure;
use super::{control, on_small_runtime, print};
use crate::admin::{StatusDocument, client};

/// Members asked at a time.
const ASKED_AT_ONCE_MAX: usize = 32;

/// `shoal status`'s flags.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The admin listener of any member: URL or host:port
    #[arg(long, env = "SHOAL_ADMIN", default_value = "http://127.0.0.1:9400", value_name = "URL")]
    admin: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// How long to wait for each member
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = control::timeout)]
    timeout: Duration,
}

/// Asks and prints.
pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let address = control::address(&args.admin)?;
    let report = on_small_runtime(async {
        let first = ask(&address, args.timeout).await.map_err(|why| unreachable(&address, &why))?;
        let others = ask_members(&first, args.timeout).await;
        Ok(Report::new(&first, &others))
    })?;
    if args.json {
        let json = serde_json::to_string(&report).map_err(Failure::run)?;
        return print(&format!("{json}\n"));
    }
    print(&show::text(&report, io::stdout().is_terminal()))
}

fn unreachable(address: &str, why: &str) -> Failure {
    Failure::run(format!(
        "no status from http://{address}: {why}\n\
         Give the admin address of a running member with --admin or SHOAL_ADMIN;\n\
         `shoal up` prints its members' (http://127.0.0.1:18180 is its node-0's by default)."
    ))
}

async fn ask(address: &str, deadline: Duration) -> Result<StatusDocument, String> {
    let (code, body) =
        client::get(address, "/status", deadline).await.map_err(|error| error.to_string())?;
    if code != StatusCode::OK {
        return Err(format!("it answers {code}; is that an admin listener of Shoal's?"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("its answer is no status: {error}"))
}

/// What the members of the view say of themselves, those that answer.
async fn ask_members(first: &StatusDocument, deadline: Duration) -> Vec<StatusDocument> {
    let others = first.members.iter().filter(|member| member.node_id != first.node_id);
    let asked = others.filter(|member| !member.admin_address.is_empty()).map(|member| async {
        let answer = ask(&member.admin_address, deadline).await.ok()?;
        // Another member, or another cluster, may have taken the address since.
        let itself = answer.node_id == member.node_id && answer.cluster_id == first.cluster_id;
        itself.then_some(answer)
    });
    let asked: Vec<_> = asked.collect();
    let mut answers: Vec<StatusDocument> = futures::stream::iter(asked)
        .buffer_unordered(ASKED_AT_ONCE_MAX)
        .filter_map(std::future::ready)
        .collect()
        .await;
    answers.push(first.clone());
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_address_is_named_with_the_remedy() {
        let args = StatusArgs {
            admin: "127.0.0.1:1".into(),
            json: false,
            timeout: Duration::from_secs(5),
        };
        let refused = run(&args).unwrap_err();
        assert_eq!(refused.code(), super::super::exit::FAILED);
        assert!(refused.text().contains("127.0.0.1:1") && refused.text().contains("--admin"));
    }
}
