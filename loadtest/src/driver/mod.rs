//! The open loop: requests go out when they are due, whatever became of those before.
//!
//! A thread of its own keeps the time, since the runtime's timers tick in milliseconds and a hit
//! takes less. `edges`, `pending` and `verify` decide and are pure; `request`, `counts` and
//! `edges_file` talk. Invariant: every request that was due in time is in the sums, as verified,
//! failed (`unsent` included), abandoned, or unfinished after an interruption.

pub mod counts;
pub mod edges;
pub mod edges_file;
pub mod files;
pub mod ledger;
pub mod pending;
pub mod progress;
pub mod request;
pub mod reused;
pub mod uploads;
pub mod verify;

use std::{io, sync::Arc, time::Duration};

use futures::future::join_all;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use self::{
    counts::CountsError, edges_file::EdgesFileError, ledger::Ledger, progress::Progress,
    request::Sender,
};
use crate::{
    clock::Clock,
    origin::stats::StatsDocument,
    sample::{FailureKind, Recorder},
    scenario::{EdgeUrl, Scenario, run::EdgeSource},
    tasks::{self, Group},
    workload::{Catalog, Due, Workload},
};

/// Requests that are due and wait to be taken.
const DUE_QUEUE_MAX: usize = 1024;
/// The longest sleep of the timekeeper, so that it notices the end of a run.
const TIMEKEEPER_SLEEP_MAX_MS: u64 = 100;
/// For the look at the edges before a run.
const PREFLIGHT_TIMEOUT_MS: u64 = 3_000;
/// After the last timeout, for requests to end.
const DRAIN_SLACK_MS: u64 = 1_000;

/// Why a run did not take place.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The list of edges cannot be read.
    #[error(transparent)]
    EdgesFile(#[from] EdgesFileError),
    /// The origin's counts cannot be read.
    #[error(transparent)]
    Counts(#[from] CountsError),
    /// No edge takes a connection.
    #[error("no edge takes a connection: {edge}: {reason}{more}; are they started?")]
    NoEdge {
        /// The first of them.
        edge: EdgeUrl,
        /// What came of it.
        reason: String,
        /// How many others there are.
        more: String,
    },
    /// No thread for the timekeeper.
    #[error("cannot start a thread: {0}; raise the limit on threads")]
    Thread(#[from] io::Error),
}

/// How to end a run early.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Send nothing more; what is in flight may finish.
    pub stop: CancellationToken,
    /// Do not wait for what is in flight.
    pub abort: CancellationToken,
}

/// The origin's counts around a run.
#[derive(Debug)]
pub struct CountsAround {
    /// Before the first request.
    pub before: StatsDocument,
    /// After the last; or why they could not be read.
    pub after: Result<StatsDocument, String>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The sums.
    pub recorder: Recorder,
    /// The edges by number.
    pub edges: Vec<EdgeUrl>,
    /// The objects.
    pub catalog: Arc<Catalog>,
    /// Requests that were due.
    pub due: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// From the start to the last reply.
    pub elapsed: Duration,
    /// True when the run was told to stop early.
    pub interrupted: bool,
    /// With `--origin`.
    pub counts: Option<CountsAround>,
}

impl Outcome {
    /// Requests that were sent and cut off by the end of an interrupted run.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        let recorder = &self.recorder;
        let failed = recorder.failures() - recorder.failures_of(FailureKind::Unsent);
        self.sent.saturating_sub(recorder.verified + recorder.abandoned + failed)
    }
}

/// Runs `scenario` to its end.
///
/// # Errors
/// When it cannot start. What goes wrong afterwards is in the outcome.
pub async fn drive(scenario: &Scenario, signals: &Signals) -> Result<Outcome, DriveError> {
    let (edges, down_grace) = match &scenario.edges {
        EdgeSource::Fixed(edges) => (edges.clone(), None),
        EdgeSource::File { path, down_grace } => (edges_file::read(path).await?, Some(*down_grace)),
    };
    preflight(&edges).await?;
    let connections = Group::new();
    let client = request::client(connections.clone());
    let before = match &scenario.origin {
        Some(origin) => Some((origin, counts::read(&client, origin).await?)),
        None => None,
    };
    let catalog = Arc::new(Workload::catalog(scenario));
    let run = Run {
        scenario,
        signals,
        ledger: Arc::new(Ledger::new(scenario.objects, down_grace)),
        progress: Progress::new(scenario.duration, scenario.follow),
        clock: Clock::start(),
        catalog: Arc::clone(&catalog),
    };
    run.ledger.update_edges(&edges, run.clock.now());
    let sums = run.play(&connections).await?;
    let counts = match before {
        Some((origin, before)) => {
            let after = counts::read_at_rest(&client, origin).await;
            Some(CountsAround { before, after: after.map_err(|error| error.to_string()) })
        }
        None => None,
    };
    run.progress.finish();
    connections.abort();
    let (recorder, edges) = run.ledger.close();
    let Sums { due, sent, elapsed, interrupted } = sums;
    Ok(Outcome { recorder, edges, catalog, due, sent, elapsed, interrupted, counts })
}

/// Refuses to start when not one edge takes a connection.
async fn preflight(edges: &[EdgeUrl]) -> Result<(), DriveError> {
    let looks = join_all(edges.iter().map(|edge| async move {
        let timeout = Duration::from_millis(PREFLIGHT_TIMEOUT_MS);
        match tokio::time::timeout(timeout, TcpStream::connect(edge.authority())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PREFLIGHT_TIMEOUT_MS} ms")),
        }
    }));
    let looks = looks.await;
    if looks.iter().any(Result::is_ok) {
        return Ok(());
    }
    let more = match edges.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    match edges.iter().zip(looks).next() {
        Some((edge, Err(reason))) => Err(DriveError::NoEdge { edge: edge.clone(), reason, more }),
        _ => Ok(()),
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    signals: &'a Signals,
    ledger: Arc<Ledger>,
    progress: Progress,
    clock: Clock,
    catalog: Arc<Catalog>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    due: u64,
    sent: u64,
    elapsed: Duration,
    interrupted: bool,
}

/// What became of a request that was due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    /// It counts as failed.
    Unsent,
    /// The run was told to stop while it waited for room.
    Stopped,
}

impl Run<'_> {
    async fn play(&self, connections: &Group) -> Result<Sums, DriveError> {
        let watchers = Group::new();
        watchers.spawn(self.progress.clone().follow(Arc::clone(&self.ledger), self.clock));
        if let EdgeSource::File { path, .. } = &self.scenario.edges {
            let (ledger, progress) = (Arc::clone(&self.ledger), self.progress.clone());
            watchers.spawn(edges_file::follow(path.clone(), ledger, self.clock, progress));
        }
        let requests = Group::new();
        let mut sums = self.send_all(&requests, connections).await?;
        self.drain(&requests).await;
        sums.elapsed = self.clock.now();
        self.settle().await;
        watchers.abort();
        watchers.finish(Duration::from_millis(DRAIN_SLACK_MS)).await;
        Ok(sums)
    }

    /// Sends what is due until the workload's end or the stop.
    async fn send_all(&self, requests: &Group, connections: &Group) -> Result<Sums, DriveError> {
        let sender = Arc::new(Sender::new(
            self.scenario,
            Arc::clone(&self.catalog),
            self.clock,
            connections.clone(),
        ));
        let room = Arc::new(Semaphore::new(self.scenario.in_flight_max));
        let (queue, mut due_now) = mpsc::channel(DUE_QUEUE_MAX);
        let (workload, clock) = (Workload::new(self.scenario), self.clock);
        let timekeeper = tasks::thread("timekeeper", move || keep_time(workload, clock, &queue))?;
        let mut sums = Sums::default();
        loop {
            let due = tokio::select! {
                biased;
                () = self.signals.stop.cancelled() => {
                    sums.interrupted = true;
                    break;
                }
                due = due_now.recv() => due,
            };
            let Some(due) = due else { break };
            let fate = self.send(due, requests, &sender, &room).await;
            sums.due += u64::from(fate != Fate::Stopped);
            sums.sent += u64::from(fate == Fate::Sent);
        }
        drop(due_now);
        // It ends within one of its sleeps; a panic there has ended the queue already.
        drop(timekeeper);
        Ok(sums)
    }

    /// Starts one request when there is room for it.
    async fn send(
        &self,
        due: Due,
        requests: &Group,
        sender: &Arc<Sender>,
        room: &Arc<Semaphore>,
    ) -> Fate {
        let Some(permit) = self.wait_for_room(room).await else {
            if self.signals.stop.is_cancelled() {
                return Fate::Stopped;
            }
            let detail = format!(
                "--max-in-flight {} requests were in flight until after the end",
                self.scenario.in_flight_max
            );
            self.ledger.unsent(due.object, self.clock.now(), &detail);
            return Fate::Unsent;
        };
        let Some((edge, url)) = self.ledger.pick(due.number) else {
            self.ledger.unsent(due.object, self.clock.now(), "no edge was listed");
            return Fate::Unsent;
        };
        let (ledger, sender) = (Arc::clone(&self.ledger), Arc::clone(sender));
        requests.spawn(async move {
            ledger.finished(sender.send(due, edge, &url).await);
            drop(permit);
        });
        Fate::Sent
    }

    async fn wait_for_room(&self, room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return Some(permit);
        }
        let last = self.clock.at(self.scenario.duration + self.scenario.timeout);
        tokio::select! {
            () = self.signals.stop.cancelled() => None,
            () = tokio::time::sleep_until(last) => None,
            permit = Arc::clone(room).acquire_owned() => permit.ok(),
        }
    }

    /// Waits for what is in flight, as long as its timeout allows.
    async fn drain(&self, requests: &Group) {
        let within = self.scenario.timeout + Duration::from_millis(DRAIN_SLACK_MS);
        tokio::select! {
            () = self.signals.abort.cancelled() => requests.abort(),
            _ = requests.finish(within) => {}
        }
    }

    /// Waits until every failure can be judged.
    async fn settle(&self) {
        if let Some(at) = self.ledger.settled_at() {
            tokio::select! {
                () = self.signals.abort.cancelled() => {}
                () = tokio::time::sleep_until(self.clock.at(at)) => {}
            }
        }
        self.ledger.settle(Duration::MAX);
    }
}

/// Puts each request into the queue at its moment; blocks while the queue is full.
fn keep_time(workload: Workload, clock: Clock, queue: &mpsc::Sender<Due>) {
    let nap_max = Duration::from_millis(TIMEKEEPER_SLEEP_MAX_MS);
    for due in workload {
        loop {
            let left = due.at.saturating_sub(clock.now());
            if left.is_zero() {
                break;
            }
            if queue.is_closed() {
                return;
            }
            std::thread::sleep(left.min(nap_max));
        }
        if queue.blocking_send(due).is_err() {
            return;
        }
    }
}
