//! The command line: parses it, runs one command, turns what came of it into an exit code.
//!
//! Output goes to standard output, everything about failure to standard error.

mod control;
mod drain;
pub mod exit;
mod get;
mod logging;
mod members;
mod node;
mod prefetch;
mod purge;
mod recover;
mod signals;
mod site;
pub mod status;
mod top;
mod up;
mod verify;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;

/// A peer-to-peer content cache: clients speak HTTP to any node, nodes hand chunks to one another,
/// each byte leaves the origin once.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one member of a cluster
    Node(node::NodeArgs),
    /// Runs a whole cluster on this machine
    Up(up::UpArgs),
    /// Shows a cluster's members and what they serve
    Status(status::StatusArgs),
    /// Shows a cluster's figures in a terminal, again and again
    Top(top::TopArgs),
    /// Asks an edge for a URL, and explains where the answer came from
    Get(get::GetArgs),
    /// Makes a cluster forget what it has: by URL, prefix, tag or site
    Purge(purge::PurgeArgs),
    /// Has nodes get objects before anybody asks for them
    Prefetch(prefetch::PrefetchArgs),
    /// Shows and changes the cluster's sites: hosts, origins and rules
    Site(site::SiteArgs),
    /// Shows who is in the tier of super-nodes, and changes it
    Members(members::MembersArgs),
    /// Has a node give away what nobody else has, so that it may be stopped
    Drain(drain::DrainArgs),
    /// Goes on from one super-node when most are lost for good
    Recover(recover::RecoverArgs),
    /// Compares the super-nodes' indexes, record by record
    Verify(verify::VerifyArgs),
    /// Prints the version
    Version,
}

/// Runs the command in `args`, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Asking for help is no failure; the text itself cannot always be delivered.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { exit::OK.into() };
        }
    };
    let done = match cli.command {
        Command::Node(args) => node::run(args),
        Command::Up(args) => up::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Prefetch(args) => prefetch::run(&args),
        Command::Site(args) => site::run(args),
        Command::Members(args) => members::run(args),
        Command::Drain(args) => drain::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Version => print(&format!("shoal {}\n", crate::node::VERSION)),
    };
    match done {
        Ok(()) => exit::OK.into(),
        Err(failure) => {
            let _ = write!(io::stderr().lock(), "shoal: {}", failure.text());
            failure.code().into()
        }
    }
}

/// Writes to standard output, at once.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads us has seen enough: `shoal status | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::run(format!("standard output: {error}"))),
    }
}

/// Runs a client command's future on a small runtime.
fn on_small_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::run(format!("no runtime: {error}")))?.block_on(work)
}
