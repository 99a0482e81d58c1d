//! The child processes: started, watched, stopped. Each reads its standard input, whose other end
//! is held here, and stops when that ends: none outlives `shoal up`, even when it is killed.

use std::ffi::OsStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::future::{join_all, select_all};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use super::UpError;
use super::plan::{DemoOrigin, MemberPlan};
use crate::config::keys::VARIABLE_PREFIX;
use crate::files::SECRET_MODE;
use crate::membership::ConfiguredRole;

/// For a child to end after SIGTERM, before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The end of a log that is shown.
const TAIL_BYTES_MAX: usize = 4096;
const TAIL_LINES_MAX: usize = 20;
/// Variables that children do inherit.
const INHERITED: [&str; 2] = ["SHOAL_LOG_LEVEL", "SHOAL_LOG_FORMAT"];
/// The demo origin's program.
const DEMO_ORIGIN_PROGRAM: &str = "shoal-loadtest";
/// Tells a child to stop when its standard input ends.
const EXIT_WITH_PARENT: &str = "--exit-with-parent";
/// The demo origin's name in messages and of its log.
pub(super) const DEMO_ORIGIN_NAME: &str = "demo-origin";

/// In which order children are stopped: those that serve first, those that they lean on later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Node,
    Super,
    Origin,
}

#[derive(Debug)]
struct Process {
    name: String,
    kind: Kind,
    pid: u32,
    process: Child,
    ended: Option<ExitStatus>,
    /// Held for as long as the child is to run. Not in `process`: waiting would close it.
    _stdin: Option<ChildStdin>,
}

/// All children.
#[derive(Debug)]
pub(super) struct Children {
    logs: PathBuf,
    processes: Vec<Process>,
}

/// A child that ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) status: ExitStatus,
    pub(super) log: PathBuf,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, status, log } = self;
        write!(f, "{name} (pid {pid}) ended: {status}; its log is {}", log.display())
    }
}

impl Children {
    pub(super) fn new(logs: PathBuf) -> Self {
        Self { logs, processes: Vec::new() }
    }

    /// Starts a member with the configuration in `config`.
    pub(super) fn start_member(
        &mut self,
        member: &MemberPlan,
        config: &Path,
    ) -> Result<(), UpError> {
        let program = this_program()?;
        let args = [OsStr::new("node"), "--config".as_ref(), config.as_ref()];
        let mut command = Command::new(program);
        command.args(args).arg(EXIT_WITH_PARENT);
        let kind = match member.role {
            ConfiguredRole::Node | ConfiguredRole::Auto => Kind::Node,
            ConfiguredRole::Super => Kind::Super,
        };
        self.start(&member.name, kind, command)
    }

    /// Starts the demo origin.
    pub(super) fn start_demo_origin(
        &mut self,
        program: &Path,
        origin: &DemoOrigin,
    ) -> Result<(), UpError> {
        let mut command = Command::new(program);
        command.args(["origin", "--json", EXIT_WITH_PARENT]);
        command.args(["--listen", &origin.listen.to_string()]);
        if let Some(rate) = &origin.rate {
            command.args(["--rate", rate]);
        }
        self.start(DEMO_ORIGIN_NAME, Kind::Origin, command)
    }

    fn start(&mut self, name: &str, kind: Kind, mut command: Command) -> Result<(), UpError> {
        let failed =
            |what: &str, source| UpError::Process { what: format!("{name}: {what}"), source };
        let log_failed = |source| failed("cannot write its log", source);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(SECRET_MODE);
        let log = options.open(self.log(name)).map_err(log_failed)?;
        // What is set for this process is not meant for its children: variables win over files.
        for (variable, _) in std::env::vars_os() {
            let ours = variable.to_str().is_some_and(|text| text.starts_with(VARIABLE_PREFIX));
            if ours && !INHERITED.iter().any(|kept| variable == *kept) {
                command.env_remove(variable);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(log_failed)?)
            .stderr(log)
            // A group of its own: a terminal's Ctrl-C reaches `shoal up` alone, which then stops
            // its children in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut process = command.spawn().map_err(|source| failed("cannot be started", source))?;
        let stdin = process.stdin.take();
        let pid = process.id().unwrap_or_default();
        let name = name.to_owned();
        self.processes.push(Process { name, kind, pid, process, ended: None, _stdin: stdin });
        Ok(())
    }

    /// The process called `name`.
    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        self.processes.iter().find(|process| process.name == name).map(|process| process.pid)
    }

    /// The log of the process called `name`.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The last lines of that log.
    pub(super) fn log_tail(&self, name: &str) -> String {
        let bytes = std::fs::read(self.log(name)).unwrap_or_default();
        let end = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let text = String::from_utf8_lossy(end);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n")
    }

    /// Waits for the next child to end; for ever when none runs. Can be dropped and called again.
    pub(super) async fn next_end(&mut self) -> End {
        let running = self.processes.iter_mut().enumerate();
        let waits: Vec<_> = running
            .filter(|(_, process)| process.ended.is_none())
            .map(|(at, process)| Box::pin(async move { (at, process.process.wait().await) }))
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        let ((at, waited), _, _) = select_all(waits).await;
        let status = waited.unwrap_or_default();
        let process = &mut self.processes[at];
        process.ended = Some(status);
        let (name, pid) = (process.name.clone(), process.pid);
        End { log: self.log(&name), name, pid, status }
    }

    /// Stops all: nodes first, then super-nodes, then the origin. One that does not end in time is
    /// killed, which is told to `report`.
    pub(super) async fn stop(mut self, report: &mut impl Write) {
        for kind in [Kind::Node, Kind::Super, Kind::Origin] {
            let of_kind = |process: &&mut Process| process.kind == kind && process.ended.is_none();
            let stops = self.processes.iter_mut().filter(of_kind).map(Process::stop);
            for killed in join_all(stops).await.into_iter().flatten() {
                let _ = writeln!(report, "shoal up: {killed}");
            }
        }
    }
}

impl Process {
    /// Ends the process; says so when it had to be killed.
    async fn stop(&mut self) -> Option<String> {
        // `id` is `None` once the process was waited for: no other process is hit by its old pid.
        let pid =
            self.process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)?;
        // It may have ended by itself just now, which is as good.
        let _ = kill_process(pid, Signal::TERM);
        if let Ok(Ok(status)) = tokio::time::timeout(STOP_DEADLINE, self.process.wait()).await {
            self.ended = Some(status);
            return None;
        }
        let killed = self.process.kill().await;
        let how = killed.map_or_else(|error| format!("could not be: {error}"), |()| "was".into());
        let deadline_s = STOP_DEADLINE.as_secs();
        let (name, pid) = (&self.name, self.pid);
        Some(format!("{name} (pid {pid}) did not stop within {deadline_s} s and {how} killed"))
    }
}

fn this_program() -> Result<PathBuf, UpError> {
    let what = || "this program's own path".to_owned();
    std::env::current_exe().map_err(|source| UpError::Process { what: what(), source })
}

/// The demo origin's program: beside this one, else on PATH.
pub(super) fn find_demo_origin() -> Result<PathBuf, UpError> {
    let shoal = this_program()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = shoal.parent().map(Path::to_owned);
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    let found = folders.map(|folder| folder.join(DEMO_ORIGIN_PROGRAM)).find(|at| runnable(at));
    found.ok_or(UpError::NoDemoOrigin { shoal })
}

fn runnable(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests;
