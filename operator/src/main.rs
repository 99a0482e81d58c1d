//! Shoal's Kubernetes operator. Not here yet: custom resources, controllers, members' life cycle.
//! Until then every command that would need them says so and ends with [`EX_UNAVAILABLE`].

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// sysexits.h: a service is unavailable.
const EX_UNAVAILABLE: u8 = 69;

/// sysexits.h: the command was used incorrectly.
const EX_USAGE: u8 = 64;

/// Runs Shoal on Kubernetes. Not there yet: this version only says so.
#[derive(Debug, Parser)]
#[command(name = "shoal-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the custom resource definitions as YAML (not yet)
    Crds,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Crds => {
            let _ = writeln!(
                std::io::stderr(),
                "shoal-operator: not yet: this version has no custom resources; \
                 run a cluster with `shoal up` or `shoal node`"
            );
            EX_UNAVAILABLE.into()
        }
    }
}
