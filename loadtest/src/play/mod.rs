//! Plays a scenario's other part: starts the cluster, and breaks it while the load runs.
//!
//! Invariants: a node whose process is to be lost leaves the list of edges first, as a load balancer
//! would have it; everything that was started has ended when [`Stage::end`] returns, paused
//! processes too.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    process::{Process, find_program},
    scenario::play::{Fault, FaultKind, PlayScenario, Victim},
    tier::{
        TierError,
        setup::{self, Facts, UpOptions},
    },
};

/// For the load to see that an edge has left its list; it reads that every 200 ms.
const EDGES_SEEN: Duration = Duration::from_millis(500);
/// For a member to say who leads.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// Between two questions for the leader, and how many there are.
const LEADER_PAUSE: Duration = Duration::from_millis(200);
const LEADER_TRIES: u32 = 50;

/// Why a scenario could not be played.
#[derive(Debug, Error)]
pub enum StageError {
    /// The cluster does not come up.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// There is no program `shoal`.
    #[error("no program `shoal` beside this one or on PATH; name it with --shoal FILE")]
    NoProgram,
    /// A file of the stage's own.
    #[error("{path}: {source}; a temporary folder that can be written to is needed")]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What was done, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// From the load's start.
    pub at_ms: u64,
    /// For people.
    pub what: String,
    /// It was done; else it could not be, and `what` says why.
    pub done: bool,
}

/// A running cluster.
#[derive(Debug)]
pub struct Stage {
    up: Process,
    facts: Facts,
    edges_file: PathBuf,
    lost: Vec<String>,
    paused: Vec<(String, u32)>,
}

impl Stage {
    /// Starts what the scenario wants, in `folder`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn set(
        scenario: &PlayScenario,
        shoal: Option<&Path>,
        folder: &Path,
    ) -> Result<Self, StageError> {
        let program = find_program("shoal", shoal).ok_or(StageError::NoProgram)?;
        let wish = &scenario.cluster;
        let mut more = Vec::new();
        more.extend(wish.origin_rate.as_ref().map(|rate| format!("--demo-origin-rate={rate}")));
        more.extend(wish.store_budget.as_ref().map(|size| format!("--store-budget={size}")));
        let options = UpOptions {
            program,
            folder: folder.to_owned(),
            super_nodes: wish.super_nodes,
            nodes: wish.nodes,
            origin: None,
            insecure: false,
            more,
        };
        let (up, facts) = setup::stay_up(&options).await?;
        let edges_file = folder.join("edges");
        let stage = Self { up, facts, edges_file, lost: Vec::new(), paused: Vec::new() };
        match stage.list_edges() {
            Ok(()) => Ok(stage),
            Err(error) => {
                stage.end().await?;
                Err(error)
            }
        }
    }

    /// The file that lists the edges.
    #[must_use]
    pub fn edges_file(&self) -> &Path {
        &self.edges_file
    }

    /// The origin's base URL.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.facts.origin
    }

    /// The nodes' admin listeners.
    pub fn admins(&self) -> impl Iterator<Item = &str> {
        self.facts.nodes.iter().map(|node| node.admin.as_str())
    }

    fn list_edges(&self) -> Result<(), StageError> {
        let listed = self.facts.nodes.iter().filter(|node| !self.lost.contains(&node.name));
        let lines: String =
            listed.filter_map(|node| Some(format!("{}\n", node.edge.as_ref()?))).collect();
        let path = &self.edges_file;
        let new = path.with_extension("new");
        let written = std::fs::write(&new, lines).and_then(|()| std::fs::rename(&new, path));
        written.map_err(|source| StageError::File { path: path.clone(), source })
    }

    /// Does what breaks the cluster, each at its moment, until the load is `over`; what became of it.
    pub async fn break_it(
        &mut self,
        faults: &[Fault],
        clock: Clock,
        over: CancellationToken,
    ) -> Vec<Mark> {
        let mut marks = Vec::new();
        for fault in faults {
            tokio::select! {
                () = tokio::time::sleep_until(clock.at(fault.at)) => {}
                () = over.cancelled() => return marks,
            }
            let done = self.carry_out(fault).await;
            let at_ms = u64::try_from(clock.now().as_millis()).unwrap_or(u64::MAX);
            let (what, done) = match done {
                Ok(what) => (what, true),
                Err(why) => (why, false),
            };
            marks.push(Mark { at_ms, what, done });
        }
        marks
    }

    async fn carry_out(&mut self, fault: &Fault) -> Result<String, String> {
        let (name, pid) = self.find(&fault.victim).await?;
        let (signal, word) = match fault.kind {
            FaultKind::Kill => (Signal::KILL, "killed"),
            FaultKind::Pause => (Signal::STOP, "paused"),
            FaultKind::Resume => (Signal::CONT, "resumed"),
        };
        if fault.kind == FaultKind::Resume {
            self.paused.retain(|paused| paused.1 != pid);
        } else {
            self.lost.push(name.clone());
            self.list_edges().map_err(|error| error.to_string())?;
            if self.facts.nodes.iter().any(|node| node.name == name) {
                tokio::time::sleep(EDGES_SEEN).await;
            }
        }
        send(pid, signal).map_err(|error| format!("{name} could not be {word}: {error}"))?;
        match fault.kind {
            FaultKind::Pause => self.paused.push((name.clone(), pid)),
            FaultKind::Resume => {
                self.lost.retain(|lost| *lost != name);
                self.list_edges().map_err(|error| error.to_string())?;
            }
            FaultKind::Kill => {}
        }
        let led = if fault.victim == Victim::Leader { " (it led)" } else { "" };
        Ok(format!("{word} {name}{led}"))
    }

    async fn find(&self, victim: &Victim) -> Result<(String, u32), String> {
        let named = |name: &str| {
            let all = self.facts.super_nodes.iter().chain(&self.facts.nodes);
            let found = all.into_iter().find(|member| member.name == name);
            found.map(|member| (name.to_owned(), member.pid))
        };
        let missing = |what: &str| format!("there is no {what}");
        match victim {
            Victim::Leader => {
                let leader = self.leader().await.ok_or_else(|| missing("leader"))?;
                named(&leader).ok_or_else(|| missing(&leader))
            }
            Victim::Paused => {
                self.paused.last().cloned().ok_or_else(|| missing("member that is paused"))
            }
            Victim::Origin => {
                let pid = self.facts.demo_origin_pid.ok_or_else(|| missing("origin of its own"))?;
                Ok(("origin".to_owned(), pid))
            }
            Victim::SuperNode(number) => {
                let name = format!("super-{number}");
                named(&name).ok_or_else(|| missing(&name))
            }
            Victim::Node(number) => {
                let name = format!("node-{number}");
                named(&name).ok_or_else(|| missing(&name))
            }
        }
    }

    /// Who leads, by the word of whichever member knows of the latest term.
    async fn leader(&self) -> Option<String> {
        for _ in 0..LEADER_TRIES {
            let members = self.facts.super_nodes.iter();
            let asked = members.filter(|member| !self.lost.contains(&member.name)).map(|member| {
                let address = member.admin.trim_start_matches("http://").to_owned();
                async move { shoal_node::admin::gather::ask(&address, STATUS_DEADLINE).await.ok() }
            });
            let answers = futures::future::join_all(asked).await.into_iter().flatten();
            let knows = answers.filter(|answer| answer.leader.is_some());
            if let Some(answer) = knows.max_by_key(|answer| answer.term) {
                return answer.leader;
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
        None
    }

    /// Stops everything.
    ///
    /// # Errors
    /// When something does not end.
    pub async fn end(mut self) -> Result<(), StageError> {
        for (_, pid) in &self.paused {
            // One that has ended meanwhile needs no signal.
            let _ = send(*pid, Signal::CONT);
        }
        Ok(self.up.stop().await.map_err(TierError::from)?)
    }
}

fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}
