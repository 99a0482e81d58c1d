//! `shoal node`: one member of a cluster.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::exit::Failure;
use super::{logging, print, signals};
use crate::config::keys::{CONFIG_VARIABLE, KEYS, Key, VARIABLE_PREFIX as PREFIX};
use crate::config::{Config, Setting, Settings, Source, Value};
use crate::node;
use crate::text::suggest::nearest;
use crate::text::table::{Align, Table};
use crate::text::units::format_size;

/// What the command line and the environment say about a member.
#[derive(Debug, Default)]
pub(super) struct NodeArgs {
    config: Option<PathBuf>,
    settings: Settings,
    check: bool,
    exit_with_parent: bool,
}

impl Args for NodeArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .env(CONFIG_VARIABLE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The configuration file, TOML; see docs/configuration.md");
        let check = Arg::new("check")
            .long("check")
            .action(ArgAction::SetTrue)
            .help("Check the configuration, print what would run, and exit");
        let exit_with_parent = Arg::new("exit-with-parent")
            .long("exit-with-parent")
            .action(ArgAction::SetTrue)
            .hide(true)
            .help("Stop when standard input ends");
        command.arg(file).args(KEYS.iter().map(argument)).arg(check).arg(exit_with_parent)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &Key) -> Arg {
    let help = match key.default {
        "" => key.help.to_owned(),
        default => format!("{} [default: {default}]", key.help),
    };
    let argument = Arg::new(key.path)
        .long(key.flag)
        .env(key.variable)
        .value_name(key.value)
        .help(help)
        .hide_env_values(true);
    // A truth may stand alone: `--insecure` is `--insecure=true`.
    if key.default == "false" {
        return argument.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    argument
}

impl FromArgMatches for NodeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.check = matches.get_flag("check");
        self.exit_with_parent = matches.get_flag("exit-with-parent");
        for key in KEYS {
            let Some(text) = matches.get_one::<String>(key.path) else { continue };
            let source = match matches.value_source(key.path) {
                Some(ValueSource::EnvVariable) => Source::Variable(key.variable),
                _ => Source::Flag(key.flag),
            };
            // An empty variable counts as unset: manifests often cannot leave one out.
            if text.is_empty() && matches!(source, Source::Variable(_)) {
                continue;
            }
            self.settings.set(key, Setting { value: Value::Text(text.clone()), source });
        }
        Ok(())
    }
}

/// Runs the member, or checks its configuration.
pub(super) fn run(args: NodeArgs) -> Result<(), Failure> {
    let file = args.config.as_deref();
    let mut config = Config::load(file, args.settings).map_err(Failure::usage)?;
    config.warnings.extend(misspelt_variables(std::env::vars_os().map(|(name, _)| name)));
    if args.check {
        return print(&summary(&config));
    }
    logging::start(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let no_start = |error: io::Error| Failure::run(format!("cannot start: {error}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_start)?;
    runtime.block_on(async {
        let stop = stop(args.exit_with_parent).map_err(no_start)?;
        node::run(config, stop).await.map_err(|error| {
            let of_config = error.is_configuration();
            if of_config { Failure::usage(error) } else { Failure::run(error) }
        })
    })
}

type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

fn stop(exit_with_parent: bool) -> io::Result<Stop> {
    let signals = signals::stop()?;
    if !exit_with_parent {
        return Ok(Box::pin(signals));
    }
    let parent_gone = signals::parent_gone()?;
    Ok(Box::pin(async move {
        tokio::select! {
            () = signals => {}
            () = parent_gone => {}
        }
    }))
}

/// Variables that look like slips of the finger. Others are left alone: Kubernetes sets some of
/// its own for services called "shoal".
fn misspelt_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<&str> = KEYS.iter().map(|key| key.variable).chain([CONFIG_VARIABLE]).collect();
    let ends: Vec<&str> = known.iter().filter_map(|name| name.strip_prefix(PREFIX)).collect();
    let told = names.filter_map(|name| {
        let name = name.into_string().ok().filter(|name| !known.contains(&name.as_str()))?;
        // Without what all have in common, which would make strangers look alike.
        let near = nearest(name.strip_prefix(PREFIX)?, ends.iter().copied())?;
        Some(format!("the variable {name} means nothing to Shoal; did you mean {PREFIX}{near}?"))
    });
    told.collect()
}

/// What would run, for `--check`.
fn summary(config: &Config) -> String {
    let Config { node, cluster, admin, cache, log: _, warnings } = config;
    let mut table = Table::new(&[("the configuration is valid", Align::Left), ("", Align::Left)]);
    let mut fact = |name: &str, value: String| table.row(vec![format!("  {name}"), value]);
    fact("name", node.name.clone());
    fact("role", node.role.name().to_owned());
    fact("cluster", cluster.id.to_string());
    fact("data directory", node.data_dir.display().to_string());
    fact("cluster listener", format!("{} (as {})", cluster.listen, config.address(cluster.listen)));
    fact("admin listener", admin.listen.to_string());
    let tokens: Vec<_> = admin.tokens.iter().map(|token| token.name.as_str()).collect();
    let nobody = "none, control calls are refused".to_owned();
    fact("admin tokens", if tokens.is_empty() { nobody } else { tokens.join(", ") });
    fact("super-nodes", cluster.super_nodes.join(", "));
    let secured = if cluster.tls.is_some() { "mutual TLS" } else { "plain text, unchecked" };
    fact("between members", secured.to_owned());
    if let Some(cache) = cache {
        fact("edge listener", cache.edge.listen.to_string());
        fact("unknown hosts", cache.edge.unknown_host.as_str().to_owned());
        fact("store", format_size(cache.store.budget_bytes));
        fact("memory", format_size(cache.store.memory_bytes));
        let names: Vec<_> = cache.sites.iter().map(|site| site.name.as_str()).collect();
        let none = "none in the file, those of the index alone".to_owned();
        fact("sites", if names.is_empty() { none } else { names.join(", ") });
    }
    let mut text = table.to_string();
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_variables_are_told_and_foreign_ones_are_not() {
        let names = ["SHOAL_EGDE_LISTEN", "SHOAL_NAME", "SHOAL_SERVICE_PORT", "SHOAL_PORT"];
        let told = misspelt_variables(names.into_iter().map(OsString::from));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("SHOAL_EDGE_LISTEN?"), "{told:?}");
    }
}
