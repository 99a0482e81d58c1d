//! The command line: flags and variables in, exit codes out.
//!
//! Must not know what the operator does with them.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::control::ADMIN_PORT;
use crate::crd;
use crate::run::{self, Options};

/// sysexits.h: the command was used incorrectly.
const EX_USAGE: u8 = 64;
/// sysexits.h: an error of the operating system.
const EX_OSERR: u8 = 71;
/// The operator ended, and is to be started again.
const ENDED: u8 = 1;

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
    /// Look after clusters until told to stop
    Run(RunArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Where /livez, /readyz and /metrics are
    #[arg(long, env = "SHOAL_OPERATOR_LISTEN", default_value = "0.0.0.0:8081")]
    listen: SocketAddr,
    /// Namespaces to look after, with commas between them; all unless said
    #[arg(long, env = "SHOAL_OPERATOR_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Where the operators' lease is
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// This operator's name among others
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Where members listen for control calls
    #[arg(long, env = "SHOAL_OPERATOR_ADMIN_PORT", default_value_t = ADMIN_PORT, hide = true)]
    admin_port: u16,
    /// How log lines look
    #[arg(long, env = "SHOAL_OPERATOR_LOG_FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// error, warn, info, debug or trace; or tracing directives
    #[arg(long, env = "SHOAL_OPERATOR_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Human,
    Json,
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
        Command::Run(args) => look_after(args),
    }
}

fn look_after(args: RunArgs) -> ExitCode {
    let filter = match EnvFilter::try_new(&args.log_level) {
        Ok(filter) => filter,
        Err(error) => {
            let level = &args.log_level;
            let said = format!("--log-level is {level:?}: {error}; write info, or debug");
            return failed(&said, EX_USAGE);
        }
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let options = Options {
        listen: args.listen,
        namespaces: args.namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
        lease_namespace: args.lease_namespace,
        identity: args.identity.unwrap_or_else(|| format!("operator-{}", std::process::id())),
        admin_port: args.admin_port,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}"), EX_OSERR),
    };
    match runtime.block_on(run::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string(), ENDED),
    }
}

fn failed(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "shoal-operator: {message}");
    code.into()
}

fn print_crds() -> ExitCode {
    let mut out = std::io::stdout().lock();
    for definition in crd::all() {
        let written = match crd::yaml(&definition) {
            Ok(yaml) => writeln!(out, "---\n{}", yaml.trim_end()).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            return failed(&format!("cannot print: {error}"), EX_OSERR);
        }
    }
    ExitCode::SUCCESS
}
