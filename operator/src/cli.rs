//! The command line: flags and variables in, exit codes out.
//!
//! Must not know what the operator does with them.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::crd;

/// sysexits.h: the command was used incorrectly.
const EX_USAGE: u8 = 64;
/// sysexits.h: an error of the operating system.
const EX_OSERR: u8 = 71;

/// Runs Shoal on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "shoal-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the custom resource definitions as YAML
    Crds,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Crds => print_crds(),
    }
}

fn print_crds() -> ExitCode {
    let mut out = std::io::stdout().lock();
    for definition in crd::all() {
        let written = match crd::yaml(&definition) {
            Ok(yaml) => writeln!(out, "---\n{}", yaml.trim_end()).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            let _ = writeln!(std::io::stderr(), "shoal-operator: cannot print: {error}");
            return EX_OSERR.into();
        }
    }
    ExitCode::SUCCESS
}
