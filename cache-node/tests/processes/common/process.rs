//! Child processes with deadlines: nothing waits for ever, nothing is left behind.

#![expect(clippy::disallowed_methods, reason = "waits for real processes in real time")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(25);
/// For a command that is to end by itself.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// Lines of a log that a failure shows.
const LOG_LINES_MAX: usize = 40;

/// Asks `look` until it has an answer.
pub(crate) fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "{what}: not within {deadline:?}");
        thread::sleep(POLL);
    }
}

/// A command of the binary under test, with nothing of the caller's configuration in it.
pub(crate) fn shoal(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHOAL_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running child; killed when it goes out of scope.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its standard error into the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line of its standard output; later ones are read and dropped.
    pub(crate) fn first_line(&mut self, deadline: Duration) -> String {
        let output = self.child.stdout.take().unwrap();
        let (send, receive) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            // The test may have given up.
            let _ = send.send(lines.next());
            lines.for_each(drop);
        });
        match receive.recv_timeout(deadline) {
            Ok(Some(line)) => line,
            Ok(None) => panic!("ended without a word:\n{}", self.last_words()),
            Err(_) => panic!("no word within {deadline:?}:\n{}", self.last_words()),
        }
    }

    /// The end of its standard error.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }

    /// Asks it to stop, as an operator would.
    pub(crate) fn terminate(&mut self) {
        // Once it was reaped, its number may be another's.
        if !self.has_ended() {
            kill_process(pid(self.pid()), Signal::TERM).unwrap();
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() >= deadline {
                panic!("still runs after {deadline:?}:\n{}", self.last_words());
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

/// SIGKILL to a process that a cluster's facts name, and waits until it is gone.
pub(super) fn kill(raw: u32) {
    kill_process(pid(raw), Signal::KILL).unwrap();
    until("a killed process is gone", RUN_DEADLINE, || (!runs(raw)).then_some(()));
}

/// SIGTERM to a process that a cluster's facts name, and waits until it is gone.
pub(super) fn terminate(raw: u32) {
    kill_process(pid(raw), Signal::TERM).unwrap();
    until("a stopped process is gone", RUN_DEADLINE, || (!runs(raw)).then_some(()));
}

/// A process that was stopped in its tracks; goes on when this goes out of scope.
pub(crate) struct Paused(Pid);

impl Paused {
    /// SIGSTOP.
    pub(crate) fn new(raw: u32) -> Self {
        kill_process(pid(raw), Signal::STOP).unwrap();
        Self(pid(raw))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // Fails only when it was killed meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Whether a process runs; one that only waits to be reaped does not.
pub(super) fn runs(raw: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{raw}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// A command that has ended.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs a command that is to end by itself.
pub(crate) fn run(command: &mut Command) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let (output, errors) = (folder.path().join("out"), folder.path().join("err"));
    command.stdin(Stdio::null()).stdout(File::create(&output).unwrap());
    let child = command.stderr(File::create(&errors).unwrap()).spawn().unwrap();
    let mut process = Process { child, log: errors.clone() };
    let code = process.wait(RUN_DEADLINE).code();
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    Finished { code, output: text(output), errors: text(errors) }
}
