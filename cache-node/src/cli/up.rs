//! `shoal up`: a whole cluster on this machine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::Failure;
use super::{on_small_runtime, signals};
use crate::text::units::{DURATION_EXPECTED, parse_duration};
use crate::up::{self, UpOptions};

/// `shoal up`'s flags.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Super-nodes: 1, 3, 5 or 7 [default: as in the data directory, else 3]
    #[arg(long, value_name = "COUNT")]
    super_nodes: Option<u16>,
    /// Nodes: 0 to 50; without any, a tier alone [default: as in the data directory, else 3]
    #[arg(long, value_name = "COUNT")]
    nodes: Option<u16>,
    /// Nodes that choose the super-nodes among themselves, in the place of the others: 1 to 50
    /// [default: as in the data directory, else none]
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["super_nodes", "nodes"])]
    auto: Option<u16>,
    /// The origin to cache, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// Start a demo origin and cache that; so it is without --origin
    #[arg(long, conflicts_with = "origin")]
    demo_origin: bool,
    /// The demo origin's bytes per second, such as 20MiB
    #[arg(long, value_name = "SIZE", conflicts_with = "origin")]
    demo_origin_rate: Option<String>,
    /// Where everything is kept [default: shoal/up in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The first port; edges listen from here on [default: as in the data directory, else 18080]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Most bytes of bodies on each node's disk
    #[arg(long, value_name = "SIZE")]
    store_budget: Option<String>,
    /// Most bytes of bodies in each node's memory
    #[arg(long, value_name = "SIZE")]
    store_memory: Option<String>,
    /// Status for a host that is not served: 421 or 404
    #[arg(long, value_name = "STATUS")]
    unknown_host: Option<u16>,
    /// With --auto: voters that the nodes choose, 1, 3, 5 or 7
    #[arg(long, value_name = "COUNT")]
    super_nodes_wanted: Option<String>,
    /// With --auto: a voter that is away for longer is replaced, such as 15s
    #[arg(long, value_name = "DURATION")]
    replace_after: Option<String>,
    /// How long to wait for the origin's response head, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    first_byte_timeout: Option<Duration>,
    /// One more host to serve, beside loopback and the origin's; can be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// One more key of the site, as in a configuration file: client_directives="all"; can be
    /// repeated
    #[arg(long = "site", value_name = "KEY=VALUE")]
    site: Vec<String>,
    /// Plain text between the members, unchecked
    #[arg(long)]
    insecure: bool,
    /// Print the facts as one line of JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("expected {DURATION_EXPECTED}"))
}

/// Runs the cluster until a signal.
pub(super) fn run(args: &UpArgs) -> Result<(), Failure> {
    let options = options(args)?;
    on_small_runtime(async {
        let stop = signals::stop().map_err(|error| Failure::run(format!("signals: {error}")))?;
        let done = up::run(options, stop, &mut io::stdout(), &mut io::stderr()).await;
        done.map_err(
            |error| {
                if error.is_usage() { Failure::usage(error) } else { Failure::run(error) }
            },
        )
    })
}

fn options(args: &UpArgs) -> Result<UpOptions, Failure> {
    let no_home = "--data-dir is missing, and neither XDG_DATA_HOME nor HOME says where your data \
                   is; give --data-dir DIR";
    let data_dir = args.data_dir.clone().or_else(up::default_data_dir);
    Ok(UpOptions {
        super_nodes: args.super_nodes,
        nodes: args.nodes,
        auto: args.auto,
        origin: args.origin.clone(),
        demo_origin: args.demo_origin,
        demo_origin_rate: args.demo_origin_rate.clone(),
        data_dir: data_dir.ok_or_else(|| Failure::usage(no_home))?,
        base_port: args.base_port,
        store_budget: args.store_budget.clone(),
        store_memory: args.store_memory.clone(),
        unknown_host: args.unknown_host,
        super_nodes_wanted: args.super_nodes_wanted.clone(),
        replace_after: args.replace_after.clone(),
        first_byte_timeout: args.first_byte_timeout,
        hosts: args.hosts.clone(),
        site: args.site.clone(),
        insecure: args.insecure,
        json: args.json,
    })
}
