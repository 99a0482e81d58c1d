//! The commands from a checked command line to an exit code; the only file that knows every
//! layer.
//!
//! Exit codes: 0 as wished, 1 could not run, 2 a threshold was missed, 64 bad usage.

use std::{
    io::{self, Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{CountsAround, Evidence, Findings},
    clock::Clock,
    compare::{self, CompareError},
    driver::{
        self, DriveError, Outcome, Signals,
        uploads::{self, Uploads},
    },
    index::{self, IndexError},
    origin::{Origin, OriginError},
    play::{Stage, StageError},
    policy::{self, PolicyError},
    report::{
        Report, compare::HttpReport, html, index as index_report, policy as policy_report,
        swarm as swarm_report, table, transfer::TransferReport,
    },
    scenario::{
        Command, HttpScenario, IndexScenario, OriginScenario, PlayScenario, PolicyScenario,
        Scenario, SwarmScenario, TransferScenario, UsageError,
        cli::{ObjectsArgs, OriginArgs, RunArgs},
        http::HttpArgs,
        index::IndexArgs,
        play::{PlayArgs, PlayError, SHIPPED},
        policy::PolicyArgs,
        run::JsonTarget,
        swarm::SwarmArgs,
        transfer::{EndArgs, TransferArgs},
    },
    swarm::{self, SwarmError},
    tasks::{Group, thread},
    transfer::{self, TransferError},
};

/// A threshold was missed.
pub const EXIT_MISSED: u8 = 2;
/// The command line makes no sense (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// It could not run.
pub const EXIT_FAILED: u8 = 1;

/// Why a command ended without having done its work.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The flags contradict one another.
    #[error("{0}\n\nFor more information, try '--help'.")]
    Usage(#[from] UsageError),
    /// The origin did not start.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The run did not start.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The benchmark did not start.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The trace could not be replayed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The swarm did not start.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The scenario makes no sense.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// The scenario's cluster.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// There is no such scenario.
    #[error("{path}: {source}; give a file, or a name that `shoal-loadtest play --list` shows")]
    Scenario {
        /// What was given.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The servers could not be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A report could not be written.
    #[error("--{flag} {path}: {source}; give a file in a folder that exists and can be written to")]
    Write {
        /// Which flag named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The objects could not be written.
    #[error("{path}: {source}; give a folder that can be written to, with room for all objects")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Signals or standard output do not work.
    #[error("standard output or signals: {0}")]
    Io(#[from] io::Error),
    /// The report has no JSON form.
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Play(_) | Self::Scenario { .. } => EXIT_USAGE,
            _ => EXIT_FAILED,
        }
    }
}

/// Carries out a command; says on stderr what went wrong.
pub async fn execute(command: Command) -> ExitCode {
    let result = match command {
        Command::Origin(args) => origin(&args).await,
        Command::Objects(args) => objects(&args),
        Command::Run(args) => run(*args).await,
        Command::Play(args) => play_out(args).await,
        Command::Index(args) => bench(*args).await,
        Command::Policy(args) => replay(args),
        Command::Swarm(args) => bench_swarm(*args).await,
        Command::Transfer(args) => bench_transfer(args).await,
        Command::Http(args) => bench_http(*args).await,
        Command::TransferEnd(args) => transfer_end(&args).await,
    };
    result.unwrap_or_else(|error| {
        // When stderr is closed there is nobody to tell.
        drop(writeln!(stderr(), "error: {error}"));
        ExitCode::from(error.exit_code())
    })
}

async fn origin(args: &OriginArgs) -> Result<ExitCode, CommandError> {
    let origin = Origin::bind(&OriginScenario::from(args)).await?;
    let listen = format!("http://{}", origin.address());
    let pid = std::process::id();
    let signals = Group::new();
    let stops = follow_signals(&signals)?;
    if args.exit_with_parent {
        follow_parent(stops.stop.clone())?;
    }
    let line = if args.json {
        serde_json::json!({ "listen": listen, "seed": args.seed, "pid": pid }).to_string()
    } else {
        format!("listening on {listen}")
    };
    print(&format!("{line}\n"))?;
    origin.serve(stops.stop).await;
    signals.abort();
    Ok(ExitCode::SUCCESS)
}

fn objects(args: &ObjectsArgs) -> Result<ExitCode, CommandError> {
    let written = driver::files::write(&args.folder, &args.catalog);
    let (count, bytes) = written.map_err(|source| {
        let path = args.folder.clone();
        CommandError::Folder { path, source }
    })?;
    print(&format!("{count} objects, {}\n", crate::units::show_bytes(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: RunArgs) -> Result<ExitCode, CommandError> {
    let scenario = Scenario::try_from(args)?;
    let files = files(scenario.json.as_ref(), scenario.html.as_ref());
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    let report = load(&scenario, &signals).await?;
    watch.abort();
    tell(&report, files, scenario.json.as_ref())
}

/// Loads the edges and judges what came of it.
async fn load(scenario: &Scenario, signals: &Signals) -> Result<Report, CommandError> {
    let sent_before = uploads::read(&scenario.admins).await;
    let outcome = driver::drive(scenario, signals).await?;
    let sent_after = uploads::read(&scenario.admins).await;
    let findings = Findings::new(&evidence(&outcome), &scenario.limits);
    let mut report = Report::new(scenario, &outcome, findings);
    let sent = sent_before.zip(sent_after).filter(|(before, _)| !before.is_empty());
    report.uploads = sent.map(|(before, after)| Uploads::between(&before, &after));
    Ok(report)
}

fn tell(
    report: &Report,
    files: Vec<(&'static str, PathBuf)>,
    json: Option<&JsonTarget>,
) -> Result<ExitCode, CommandError> {
    for (flag, path) in files {
        let text = if flag == "html" { html::page(report) } else { report.json()? };
        std::fs::write(&path, text).map_err(|source| CommandError::Write { flag, path, source })?;
    }
    match json {
        Some(JsonTarget::Stdout) => {
            print(&report.json()?)?;
            // The table says it by itself.
            for check in report.thresholds.iter().filter(|check| !check.met) {
                drop(writeln!(stderr(), "{}", table::verdict(check)));
            }
        }
        _ => print(&table::table(report))?,
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_MISSED) })
}

async fn play_out(args: PlayArgs) -> Result<ExitCode, CommandError> {
    let Some(wanted) = args.scenario.as_ref().filter(|_| !args.list) else {
        let lines = SHIPPED.iter().filter_map(|(name, text)| {
            let scenario = PlayScenario::read(name, text, &[]).ok()?;
            Some(format!("{name:<16}{}\n", scenario.about))
        });
        print(&lines.collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    };
    let text = match SHIPPED.iter().find(|(name, _)| name == wanted) {
        Some((_, text)) => (*text).to_owned(),
        None => std::fs::read_to_string(wanted)
            .map_err(|source| CommandError::Scenario { path: wanted.into(), source })?,
    };
    let scenario = PlayScenario::read(wanted, &text, &args.set)?;
    let json = args.json.map(|file| file.map_or(JsonTarget::Stdout, JsonTarget::File));
    let files = files(json.as_ref(), args.html.as_ref());
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    let folder = tempfile::tempdir()?;
    drop(writeln!(stderr(), "{}: {}; starting the cluster", scenario.name, scenario.about));
    let mut stage = tokio::select! {
        stage = Stage::set(&scenario, args.shoal.as_deref(), folder.path()) => stage?,
        () = signals.stop.cancelled() => return Ok(ExitCode::from(EXIT_FAILED)),
    };
    let played = on_stage(&scenario, &mut stage, &signals).await;
    stage.end().await?;
    watch.abort();
    tell(&played?, files, json.as_ref())
}

/// The load and the faults, side by side.
async fn on_stage(
    scenario: &PlayScenario,
    stage: &mut Stage,
    signals: &Signals,
) -> Result<Report, CommandError> {
    let wrong = |reason| PlayError::Load { file: scenario.name.clone(), reason };
    let mut wanted = scenario.load(stage.edges_file(), stage.origin()).map_err(wrong)?;
    if scenario.faults.is_empty() {
        wanted.admins = stage.admins().filter_map(|admin| admin.parse().ok()).collect();
    }
    let over = CancellationToken::new();
    let loading = async {
        let report = load(&wanted, signals).await;
        over.cancel();
        report
    };
    let clock = Clock::start();
    let (report, marks) =
        tokio::join!(loading, stage.break_it(&scenario.faults, clock, over.clone()));
    let mut report = report?;
    // A fault that could not be carried out leaves the question open that the scenario asks.
    report.ok &= marks.iter().all(|mark| mark.done);
    report.marks = marks;
    Ok(report)
}

async fn bench(args: IndexArgs) -> Result<ExitCode, CommandError> {
    let scenario = IndexScenario::try_from(args)?;
    let files = files(scenario.json.as_ref(), scenario.html.as_ref());
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    let results = index::bench(&scenario, &signals.stop).await?;
    watch.abort();
    let report = index_report::IndexReport::new(&scenario, results);
    for (flag, path) in files {
        let text = match flag {
            "html" => index_report::html::page(&report),
            _ => report.json()?,
        };
        std::fs::write(&path, text).map_err(|source| CommandError::Write { flag, path, source })?;
    }
    match scenario.json {
        Some(JsonTarget::Stdout) => print(&report.json()?)?,
        _ => print(&index_report::table::table(&report))?,
    }
    Ok(match (report.failures.is_empty(), report.ok || !scenario.enforce) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(EXIT_MISSED),
        (false, _) => ExitCode::from(EXIT_FAILED),
    })
}

async fn bench_swarm(args: SwarmArgs) -> Result<ExitCode, CommandError> {
    let scenario = SwarmScenario::try_from(args)?;
    let files = files(scenario.json.as_ref(), None);
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    let results = swarm::bench(&scenario, &signals.stop).await?;
    watch.abort();
    let (interrupted, failed) = (results.interrupted, results.failed > 0);
    let report = swarm_report::SwarmReport::new(&scenario, results);
    for (flag, path) in files {
        let text = report.json()?;
        std::fs::write(&path, text).map_err(|source| CommandError::Write { flag, path, source })?;
    }
    match scenario.json {
        Some(JsonTarget::Stdout) => print(&report.json()?)?,
        _ => print(&swarm_report::table::table(&report))?,
    }
    Ok(match (interrupted || failed, report.ok || !scenario.enforce) {
        (true, _) => ExitCode::from(EXIT_FAILED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(EXIT_MISSED),
    })
}

async fn bench_transfer(args: TransferArgs) -> Result<ExitCode, CommandError> {
    let scenario = TransferScenario::try_from(args)?;
    let files = files(scenario.json.as_ref(), None);
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    let results = transfer::bench(&scenario, &signals.stop).await?;
    watch.abort();
    let interrupted = results.interrupted;
    let report = TransferReport::new(&scenario, results);
    for (flag, path) in files {
        let text = report.json()?;
        std::fs::write(&path, text).map_err(|source| CommandError::Write { flag, path, source })?;
    }
    match scenario.json {
        Some(JsonTarget::Stdout) => print(&report.json()?)?,
        _ => print(&report.table())?,
    }
    Ok(if interrupted { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

async fn bench_http(args: HttpArgs) -> Result<ExitCode, CommandError> {
    let scenario = HttpScenario::try_from(args)?;
    let files = files(scenario.json.as_ref(), scenario.html.as_ref());
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    let results = compare::bench(&scenario, &signals.stop).await?;
    watch.abort();
    let report = HttpReport::new(&scenario, results);
    for (flag, path) in files {
        let text = if flag == "html" { report.html() } else { report.json()? };
        std::fs::write(&path, text).map_err(|source| CommandError::Write { flag, path, source })?;
    }
    match scenario.json {
        Some(JsonTarget::Stdout) => print(&report.json()?)?,
        _ => print(&report.table())?,
    }
    Ok(match (report.results.interrupted, report.ok || !scenario.enforce) {
        (true, _) => ExitCode::from(EXIT_FAILED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(EXIT_MISSED),
    })
}

async fn transfer_end(args: &EndArgs) -> Result<ExitCode, CommandError> {
    let watch = Group::new();
    let signals = follow_signals(&watch)?;
    follow_parent(signals.stop.clone())?;
    // When nobody listens the parent is gone, and the end comes by itself.
    let say = |line: serde_json::Value| drop(print(&format!("{line}\n")));
    transfer::end(args, signals.stop.clone(), say).await?;
    watch.abort();
    Ok(ExitCode::SUCCESS)
}

fn replay(args: PolicyArgs) -> Result<ExitCode, CommandError> {
    let scenario = PolicyScenario::try_from(args)?;
    let files = files(scenario.json.as_ref(), None);
    for (flag, path) in &files {
        check_writable(flag, path)?;
    }
    let document = policy::run(&scenario)?;
    let json = serde_json::to_string_pretty(&document)? + "\n";
    for (flag, path) in files {
        std::fs::write(&path, &json).map_err(|source| CommandError::Write {
            flag,
            path,
            source,
        })?;
    }
    match scenario.json {
        Some(JsonTarget::Stdout) => print(&json)?,
        _ => print(&policy_report::table(&document))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn evidence(outcome: &Outcome) -> Evidence<'_> {
    let counts = outcome.counts.as_ref().map(|counts| CountsAround {
        before: &counts.before,
        after: counts.after.as_ref().map_err(String::as_str),
    });
    let Outcome { recorder, catalog, sent, .. } = outcome;
    Evidence { recorder, catalog, sent: *sent, counts }
}

fn files(json: Option<&JsonTarget>, html: Option<&PathBuf>) -> Vec<(&'static str, PathBuf)> {
    let json = match json {
        Some(JsonTarget::File(path)) => Some(("json", path.clone())),
        _ => None,
    };
    json.into_iter().chain(html.map(|path| ("html", path.clone()))).collect()
}

/// Finds out before the run, not after it, that a report has no place to go.
fn check_writable(flag: &'static str, path: &Path) -> Result<(), CommandError> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|source| CommandError::Write { flag, path: path.to_owned(), source })
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Cancels `stop` at the end of standard input: when the parent that holds its other end is gone,
/// however it went, the kernel closes it. On a thread, since such a read cannot be cancelled.
fn follow_parent(stop: CancellationToken) -> Result<(), CommandError> {
    thread("parent", move || {
        // What comes in does not matter, nor how it ends.
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        stop.cancel();
    })?;
    Ok(())
}

/// The first SIGINT or SIGTERM stops, the second aborts.
fn follow_signals(group: &Group) -> Result<Signals, CommandError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let signals = Signals::default();
    let ends: [CancellationToken; 2] = [signals.stop.clone(), signals.abort.clone()];
    group.spawn(async move {
        for end in ends {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            end.cancel();
        }
    });
    Ok(signals)
}
