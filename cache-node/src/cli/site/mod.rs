//! `shoal site`: the cluster's sites, read from the index and changed there; every node applies a
//! change at once.

mod text;
mod written;

use std::io::{self, IsTerminal, Write};

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::control::{ControlArgs, refusal};
use super::exit::Failure;
use super::{on_small_runtime, print};

/// Where the calls are.
const PATH: &str = "/v1/sites";
/// What calls answer of a site beside its keys.
const ANSWERED: [&str; 2] = ["revision", "source"];

/// `shoal site`'s flags.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct SiteArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes or replaces the sites of a file, or changes some keys of one
    Set(Set),
    /// Prints one site, or all of them, as they would be written
    Get(Get),
    /// Lists all sites
    List(ControlArgs),
    /// Deletes a site, and purges all that is cached of it
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Set {
    /// A TOML or JSON file, - for standard input; or, with KEY=VALUE, a site's name
    #[arg(value_name = "FILE|NAME")]
    what: String,
    /// Keys of the site to change, others stay; a value is TOML, or else text
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
    /// A key of the site to put back to its default; can be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Only when the site is of this revision still; 0: when there is none
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Args)]
struct Get {
    /// The site; without it, all
    name: Option<String>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "toml")]
    output: Output,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// As a configuration file has it
    Toml,
    /// As the control call answers it
    Json,
}

#[derive(Debug, Args)]
struct Delete {
    /// The site
    name: String,
    /// Only when it is of this revision still
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    /// Do not ask before
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    control: ControlArgs,
}

/// What `--json` prints of changes; see docs/site-json.md.
#[derive(Debug, Default, Serialize)]
struct Report {
    sites: Vec<Changed>,
}

/// One changed site.
#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    change: &'static str,
    revision: String,
    applied_on: u64,
    waiting_for: Vec<String>,
}

/// What the call answers.
#[derive(Debug, Deserialize)]
struct Applied {
    revision: String,
    #[serde(default)]
    created: bool,
    applied_on: u64,
    waiting_for: Vec<String>,
}

/// Reads or changes.
pub(super) fn run(args: SiteArgs) -> Result<(), Failure> {
    on_small_runtime(async {
        match args.action {
            Action::Set(set) => set.run().await,
            Action::Get(get) => get.run().await,
            Action::List(control) => list(&control).await,
            Action::Delete(delete) => delete.run().await,
        }
    })
}

impl Set {
    async fn run(self) -> Result<(), Failure> {
        if self.keys.is_empty() && self.unset.is_empty() {
            return self.whole().await;
        }
        let (name, control) = (&self.what, &self.control);
        let known = control.ask(Method::GET, &format!("{PATH}/{name}"), Value::Null).await?;
        let (mut keys, seen) = match known {
            Ok(Value::Object(keys)) => {
                let seen = keys.get("revision").and_then(Value::as_str).unwrap_or("0").to_owned();
                (keys, seen)
            }
            Ok(_) => return Err(Failure::run("the answer is no site")),
            Err(error) if error.code == "not-found" => (Map::new(), "0".to_owned()),
            Err(error) => return Err(refusal(&error)),
        };
        for key in ANSWERED.into_iter().chain(self.unset.iter().map(String::as_str)) {
            keys.remove(key);
        }
        for assignment in &self.keys {
            let (key, value) = written::assignment(assignment)?;
            keys.insert(key, value);
        }
        // What others changed meanwhile is not undone.
        let expect = self.expect.map_or(seen, |expect| expect.to_string());
        let site = (name.clone(), Value::Object(keys));
        let changed = put(control, site, Some(&expect)).await?;
        tell(control, Report { sites: vec![changed] })
    }

    /// Every site of a file.
    async fn whole(&self) -> Result<(), Failure> {
        let sites = written::sites(&self.what)?;
        if self.expect.is_some() && sites.len() != 1 {
            let what = format!("--expect is for one site, {} has {}", self.what, sites.len());
            return Err(Failure::usage(what));
        }
        let expect = self.expect.map(|expect| expect.to_string());
        let mut report = Report::default();
        for site in sites {
            let name = site.0.clone();
            match put(&self.control, site, expect.as_deref()).await {
                Ok(changed) => report.sites.push(changed),
                Err(failure) => {
                    let done = report.sites.iter().map(|site| site.name.clone());
                    let done: Vec<_> = done.collect();
                    tell(&self.control, report)?;
                    let after = match done.is_empty() {
                        true => String::new(),
                        false => format!(" (after {})", done.join(", ")),
                    };
                    return Err(Failure::run(format!("{name}{after}: {}", failure.text())));
                }
            }
        }
        tell(&self.control, report)
    }
}

impl Get {
    async fn run(self) -> Result<(), Failure> {
        let path = self.name.as_ref().map_or(PATH.to_owned(), |name| format!("{PATH}/{name}"));
        let answer = self.control.call(Method::GET, &path, Value::Null).await?;
        if self.control.json || self.output == Output::Json {
            return print(&format!("{answer}\n"));
        }
        print(&text::toml(&answer)?)
    }
}

impl Delete {
    async fn run(self) -> Result<(), Failure> {
        let Self { name, expect, yes, control } = self;
        if !yes && io::stdin().is_terminal() {
            confirm(&name)?;
        }
        let query = expect.map_or_else(String::new, |expect| format!("?expect={expect}"));
        let path = format!("{PATH}/{name}{query}");
        let answer = control.call(Method::DELETE, &path, Value::Null).await?;
        let changed = changed(name, answer, Some("deleted"))?;
        tell(&control, Report { sites: vec![changed] })
    }
}

/// A site is much: a person is asked again, a script is not.
fn confirm(name: &str) -> Result<(), Failure> {
    let asked = format!("Delete site {name:?}, and purge all that is cached of it? [y/N] ");
    let mut err = io::stderr().lock();
    err.write_all(asked.as_bytes()).and_then(|()| err.flush()).map_err(Failure::run)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Failure::run)?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::run("nothing was deleted")),
    }
}

async fn list(control: &ControlArgs) -> Result<(), Failure> {
    let answer = control.call(Method::GET, PATH, Value::Null).await?;
    match control.json {
        true => print(&format!("{answer}\n")),
        false => print(&text::list(&answer)),
    }
}

async fn put(
    control: &ControlArgs,
    (name, definition): (String, Value),
    expect: Option<&str>,
) -> Result<Changed, Failure> {
    let query = expect.map_or_else(String::new, |expect| format!("?expect={expect}"));
    let path = format!("{PATH}/{name}{query}");
    let answer = control.call(Method::PUT, &path, definition).await?;
    changed(name, answer, None)
}

fn changed(name: String, answer: Value, change: Option<&'static str>) -> Result<Changed, Failure> {
    let strange = |error| Failure::run(format!("the answer is no report of a site: {error}"));
    let applied: Applied = serde_json::from_value(answer).map_err(strange)?;
    let Applied { revision, created, applied_on, waiting_for } = applied;
    let change = change.unwrap_or(if created { "created" } else { "set" });
    Ok(Changed { name, change, revision, applied_on, waiting_for })
}

fn tell(control: &ControlArgs, report: Report) -> Result<(), Failure> {
    match control.json {
        true => print(&format!("{}\n", serde_json::to_string(&report).map_err(Failure::run)?)),
        false => print(&text::changes(&report)),
    }
}
