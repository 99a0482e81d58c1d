//! Child processes that a benchmark measures: started with a log of their own, stopped in order or
//! killed, and looked at from outside.
//!
//! Invariants: none outlives this process while it ends in order; none inherits settings that were
//! meant for another program.

pub mod disk;
pub mod usage;

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// For a child to end after SIGTERM, before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// The end of a log that is quoted, in bytes.
const TAIL_BYTES_MAX: usize = 2_048;
/// Settings in the environment that would change what is measured.
const FOREIGN_VARIABLES: [&str; 2] = ["SHOAL_", "ETCD_"];

/// A process that could not be started or did not end.
#[derive(Debug, Error)]
#[error("{name}: {what}: {source}")]
pub struct ProcessError {
    name: String,
    what: &'static str,
    source: io::Error,
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Child,
    /// Held for as long as the child is to run: some stop when it closes.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts `program`; what it says goes to `log`, its standard output too unless that is
    /// `piped`.
    ///
    /// # Errors
    /// When it cannot be started or its log not be written.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: &[S],
        log: &Path,
        piped: bool,
    ) -> Result<Self, ProcessError> {
        let failed = |what, source| ProcessError { name: name.to_owned(), what, source };
        let said = OpenOptions::new().append(true).create(true).open(log);
        let said = said.map_err(|source| failed("its log cannot be written", source))?;
        let out = said.try_clone().map_err(|source| failed("its log", source))?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if FOREIGN_VARIABLES.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(if piped { Stdio::piped() } else { out.into() })
            .stderr(said)
            // Ctrl-C in a terminal is for the benchmark, which then stops its children in order.
            .process_group(0)
            .kill_on_drop(true);
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| failed("cannot be started", source))?;
        Ok(Self {
            name: name.to_owned(),
            pid: child.id().unwrap_or_default(),
            log: log.to_owned(),
            _stdin: child.stdin.take(),
            child,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard output, once, when it was piped.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last of what it said.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let end = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        String::from_utf8_lossy(end).into_owned()
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// When the operating system does not kill it.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        let killed = self.child.kill().await;
        killed.map_err(|source| self.failed("cannot be killed", source))
    }

    /// SIGKILL without waiting.
    ///
    /// # Errors
    /// When the operating system does not kill it.
    pub fn kill_now(&mut self) -> Result<(), ProcessError> {
        self.child.start_kill().map_err(|source| self.failed("cannot be killed", source))
    }

    /// SIGTERM; SIGKILL after [`STOP_DEADLINE`].
    ///
    /// # Errors
    /// When it does not even end then.
    pub async fn stop(&mut self) -> Result<(), ProcessError> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if self.ended().is_none()
            && let Some(pid) = pid
        {
            // One that has just ended needs no signal.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            _ => self.kill().await,
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> ProcessError {
        ProcessError { name: self.name.clone(), what, source }
    }
}

/// The program called `name`: where `given` says, else beside this one, else on `PATH`.
#[must_use]
pub fn find_program(name: &str, given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return given.is_file().then(|| given.to_owned());
    }
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_stopped_and_its_last_words_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let shell = find_program("sh", None).unwrap();
        let script = ["-c", "echo here; exec sleep 100"];
        let mut process = Process::start("sh", &shell, &script, &log, false).unwrap();
        assert!(process.pid() > 0);
        while process.log_tail() != "here\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(process.ended().is_none());
        process.stop().await.unwrap();
        assert!(process.ended().is_some());
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        assert_eq!(find_program("no-such-program-here", None), None);
        assert_eq!(find_program("sh", Some(Path::new("/nowhere/sh"))), None);
    }
}
