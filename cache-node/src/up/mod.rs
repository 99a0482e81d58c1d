//! `shoal up`: a whole cluster on this machine, as child processes on loopback. The children are
//! ordinary members with ordinary configuration files; nothing here is special to them but who
//! starts them, and that they end when it does.
//!
//! Everything is checked before anything is changed or started.

mod children;
mod layout;
mod plan;
mod ports;
mod present;
mod ready;
mod settle;

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use crate::ca::CaError;
use crate::files::FileError;
use children::Children;
use layout::Layout;
use plan::Plan;
use settle::Question;

pub use plan::{BASE_PORT_DEFAULT, COUNT_DEFAULT};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// Super-nodes; as the data directory says, or [`COUNT_DEFAULT`].
    pub super_nodes: Option<u16>,
    /// Nodes; likewise.
    pub nodes: Option<u16>,
    /// So many nodes whose role the tier chooses, in the place of the others; likewise.
    pub auto: Option<u16>,
    /// The origin's URL; a demo origin is started where there is none.
    pub origin: Option<String>,
    /// The demo origin is wanted in so many words.
    pub demo_origin: bool,
    /// The demo origin's bytes per second, as `shoal-loadtest origin --rate` takes them.
    pub demo_origin_rate: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The first port; as the data directory says, or [`BASE_PORT_DEFAULT`].
    pub base_port: Option<u16>,
    /// Each node's `store.budget`.
    pub store_budget: Option<String>,
    /// Each node's `store.memory`.
    pub store_memory: Option<String>,
    /// Each node's `edge.unknown_host`.
    pub unknown_host: Option<u16>,
    /// Each member's `cluster.super_nodes_wanted`.
    pub super_nodes_wanted: Option<String>,
    /// Each member's `cluster.replace_after`.
    pub replace_after: Option<String>,
    /// The site's `first_byte_timeout_ms`.
    pub first_byte_timeout: Option<Duration>,
    /// More hosts that the site serves.
    pub hosts: Vec<String>,
    /// More of the site's keys, each as a line of TOML.
    pub site: Vec<String>,
    /// Plain text between the members.
    pub insecure: bool,
    /// Facts as one JSON document, not as a table.
    pub json: bool,
}

/// Why the cluster is not up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// Ports are in use.
    #[error("{0}")]
    Ports(String),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificates could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The demo origin's program is missing.
    #[error(
        "shoal-loadtest, which is the demo origin, is neither beside {} nor on PATH; \
         install it there (cargo build -p shoal-loadtest), or give --origin URL",
        shoal.display()
    )]
    NoDemoOrigin {
        /// This program.
        shoal: PathBuf,
    },
    /// A process could not be started or watched.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A member ended before it was ready.
    #[error("{name} ended before it was ready ({status}); its log {} ends:\n{tail}", log.display())]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Members were not ready in time.
    #[error("not ready after {after:?}: {who}; the log {} ends:\n{tail}", log.display())]
    NotReady {
        /// How long was waited.
        after: Duration,
        /// Who is not, and what they say.
        who: String,
        /// The log of the first of them.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
}

impl UpError {
    /// Whether what was asked for is at fault, not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

/// Runs the cluster until `stop`; facts go to `out` once it is ready, what befalls the members to
/// `report`.
///
/// # Errors
/// When it cannot be started; members that were are stopped first.
pub async fn run(
    options: UpOptions,
    stop: impl Future<Output = ()>,
    out: &mut impl Write,
    report: &mut impl Write,
) -> Result<(), UpError> {
    let (plan, layout, is_old) = prepare(&options)?;
    let mut children = Children::new(layout.logs());
    let mut stop = pin!(stop);
    let up = async {
        start(&plan, &layout, &mut children)?;
        ready::wait(&plan, &mut children).await?;
        let question = Question {
            plan: &plan,
            folder: layout.folder(),
            token_file: &layout.token_file(),
            is_old,
            is_asked: options.asks_for_a_site(),
        };
        settle::settle(&question).await
    };
    let started = tokio::select! {
        started = up => started.map(Some),
        () = stop.as_mut() => Ok(None),
    };
    let told = match started {
        Ok(Some(settled)) => {
            let (words, origin) = settled.unzip();
            if let Some(words) = words {
                // Nobody may be reading any more; the cluster goes on all the same.
                let _ = writeln!(report, "shoal up: {words}").and_then(|()| report.flush());
            }
            let token_file = layout.token_file();
            let places = present::Places { data_dir: layout.folder(), token_file: &token_file };
            let facts = present::Facts::new(&plan, places, &children).with_origin(origin.flatten());
            present(&options, &facts, out)
        }
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    if matches!(told, Ok(true)) {
        attend(&mut children, stop.as_mut(), report).await;
    }
    children.stop(report).await;
    told.map(|_| ())
}

impl UpOptions {
    /// Whether anything is said of the site.
    fn asks_for_a_site(&self) -> bool {
        let Self { origin, demo_origin, first_byte_timeout, hosts, site, .. } = self;
        let lists = !hosts.is_empty() || !site.is_empty();
        origin.is_some() || *demo_origin || first_byte_timeout.is_some() || lists
    }
}

/// Who runs where, and whether the cluster was there before.
fn prepare(options: &UpOptions) -> Result<(Plan, Layout, bool), UpError> {
    let record = layout::inspect(&options.data_dir)?;
    let is_old = record.is_some();
    let plan = Plan::new(options, record.as_ref())?;
    let demo_origin =
        plan.demo_origin.as_ref().map(|_| children::find_demo_origin()).transpose()?;
    let layout = match record {
        // A cluster that is up already is found by its lock, before its ports are.
        Some(record) => {
            let layout = Layout::open(&options.data_dir, record)?;
            ports::all_free(&plan)?;
            layout
        }
        None => {
            ports::all_free(&plan)?;
            Layout::create(&options.data_dir, &plan)?
        }
    };
    let layout = layout.with_demo_origin(demo_origin);
    layout.write(&plan)?;
    Ok((plan, layout, is_old))
}

fn start(plan: &Plan, layout: &Layout, children: &mut Children) -> Result<(), UpError> {
    if let (Some(origin), Some(program)) = (&plan.demo_origin, &layout.demo_origin) {
        children.start_demo_origin(program, origin)?;
    }
    for member in plan.members() {
        children.start_member(member, &layout.config_file(member))?;
    }
    Ok(())
}

fn present(
    options: &UpOptions,
    facts: &present::Facts,
    out: &mut impl Write,
) -> Result<bool, UpError> {
    let text = if options.json { facts.json() } else { facts.text() };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(UpError::Output)?;
    Ok(true)
}

/// Until `stop`, tells of members that end; the others go on.
async fn attend(
    children: &mut Children,
    mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    report: &mut impl Write,
) {
    loop {
        let ended = tokio::select! {
            () = stop.as_mut() => return,
            ended = children.next_end() => ended,
        };
        // Nobody may be reading any more; the cluster goes on all the same.
        let _ = writeln!(report, "shoal up: {ended}").and_then(|()| report.flush());
    }
}

/// Where clusters are kept unless said otherwise: `shoal/up` in the user's data directory (XDG Base
/// Directory Specification); `None` when there is none.
pub fn default_data_dir() -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let of = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(absolute);
    let data = of("XDG_DATA_HOME").or_else(|| of("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join(Path::new("shoal/up")))
}
