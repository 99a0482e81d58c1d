//! `shoal-loadtest`: parse, run, exit code.

use std::{
    io::{Write, stderr},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use shoal_loadtest::{
    commands::{self, EXIT_FAILED, EXIT_USAGE},
    scenario::Cli,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(commands::execute(cli.command)),
        Err(error) => {
            // When stderr is closed there is nobody to tell.
            drop(writeln!(stderr(), "error: no runtime: {error}; raise the limit on threads"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Prints help, the version, or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_USAGE),
    }
}
