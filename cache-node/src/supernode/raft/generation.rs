//! Which tier this super-node's data belongs to, and whether it may take part at all.
//!
//! A tier that lost its majority goes on from one survivor under the next *generation*
//! (`docs/adr/0013`). Super-nodes tell one another theirs in every call: one whose data is of an
//! earlier generation is refused, and takes part no longer as soon as it hears of a later one. So is
//! one that was taken out of the tier. What ended is written down: its data is never used again.
//!
//! Invariants: the generation of a super-node with data never changes while it runs; one that never
//! had any takes that of the tier it comes to. A super-node with data calls nobody for votes, or with
//! entries, before it has asked all that it knows of which generation they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::async_runtime::watch::WatchReceiver;
use shoal_proto::{ErrorKind, NodeId, RpcError};
use tokio::sync::watch;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::{Raft, RaftError, recovery};
use crate::files::{self, FileError};
use crate::tasks::{self, Tasks};

/// The header that carries the caller's generation.
const GENERATION_HEADER: &str = "shoal-generation";
/// The header that carries the id of whom the caller means.
const TARGET_HEADER: &str = "shoal-target";
const GENERATION_FILE: &str = "generation";
const ENDED_FILE: &str = "ended";

/// Why a super-node takes part no longer, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was taken out of the tier.
    Removed,
    /// The tier was recovered from the loss of its majority without it.
    Superseded,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Superseded => "superseded",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Removed, Self::Superseded].into_iter().find(|ended| ended.name() == name.trim())
    }

    /// What happened and what to do, on one line.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Removed => {
                "removed from the tier; empty the data directory to join anew under a new id"
            }
            Self::Superseded => {
                "the tier was recovered without this super-node; empty the data directory to join \
                 it anew under a new id"
            }
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// How often the tier was recovered, as this super-node's data has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation(Arc<AtomicU64>);

impl Generation {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What every call to another super-node bears: the caller's generation, and whom it means. An address
/// says little: one that lost its data comes back at the same under another id, and would answer for
/// its former self, with votes and entries that it never had.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) generation: Generation,
    pub(super) target: u64,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert(GENERATION_HEADER, self.generation.get().into());
        headers.insert(TARGET_HEADER, self.target.into());
        Ok(request)
    }
}

/// A number in a caller's header; 0 when it bears none.
fn told<T>(request: &Request<T>, header: &'static str) -> u64 {
    let text = request.metadata().get(header).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// What is written down beside the log.
#[derive(Debug)]
pub(super) struct Standing {
    folder: PathBuf,
    pub(super) generation: Generation,
    ended: watch::Sender<Option<Ended>>,
    tasks: Tasks,
}

impl Standing {
    /// Reads what stands in `folder`.
    ///
    /// # Errors
    /// When it cannot be read, or this data takes part no longer.
    pub(super) fn open(folder: &Path, tasks: Tasks) -> Result<Self, RaftError> {
        if let Some(ended) = ended(folder)? {
            return Err(RaftError::Ended { path: folder.to_owned(), ended });
        }
        if recovery::is_unfinished(folder)? {
            return Err(RaftError::Recovering { path: folder.to_owned() });
        }
        let generation = Generation(Arc::new(AtomicU64::new(generation(folder)?)));
        let ended = watch::channel(None).0;
        Ok(Self { folder: folder.to_owned(), generation, ended, tasks })
    }
}

/// The generation of the data in `folder`.
pub(super) fn generation(folder: &Path) -> Result<u64, RaftError> {
    let path = folder.join(GENERATION_FILE);
    let text = files::read_small(&path)?.unwrap_or_else(|| "0".to_owned());
    let spoilt = |_| RaftError::Core(format!("{}: {text:?} is no number", path.display()));
    text.trim().parse().map_err(spoilt)
}

/// Writes the generation of the data in `folder`; durable on return.
pub(super) fn set_generation(folder: &Path, generation: u64) -> Result<(), FileError> {
    let text = format!("{generation}\n");
    files::write_whole(&folder.join(GENERATION_FILE), text.as_bytes(), files::PLAIN_MODE)
}

/// Why the data in `folder` is not to be used, if it is not.
pub(super) fn ended(folder: &Path) -> Result<Option<Ended>, RaftError> {
    // A word that a later version wrote still means that it ended.
    let text = files::read_small(&folder.join(ENDED_FILE))?;
    Ok(text.map(|text| Ended::of(&text).unwrap_or(Ended::Removed)))
}

impl Raft {
    /// How often the tier was recovered, as this super-node's data has it.
    pub fn generation(&self) -> u64 {
        self.inner.standing.generation.get()
    }

    /// Whether this super-node takes part no longer, and why.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.inner.standing.ended.subscribe()
    }

    /// From now on this super-node calls others, and so may lead.
    pub fn stand(&self) {
        self.inner.network.book.stand();
    }

    /// Another super-node of this cluster is of that generation. A super-node without data takes it;
    /// one with data of an earlier one takes part no longer.
    ///
    /// # Errors
    /// `Denied` when the two do not belong together.
    pub async fn meet(&self, theirs: u64) -> Result<(), RpcError> {
        let ours = self.generation();
        match theirs.cmp(&ours) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(earlier(ours, theirs)),
            std::cmp::Ordering::Greater if self.is_blank() => self.adopt(theirs).await,
            std::cmp::Ordering::Greater => {
                self.end(Ended::Superseded);
                Err(later(ours, theirs))
            }
        }
    }

    /// Checks that a super-node that asks to be taken in belongs to this tier.
    ///
    /// # Errors
    /// `Denied` when its data is of a tier that is no more; `Retry` when this one's is.
    pub fn expect_generation(&self, theirs: u64) -> Result<(), RpcError> {
        let ours = self.generation();
        match theirs.cmp(&ours) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(earlier(ours, theirs)),
            std::cmp::Ordering::Greater => {
                Err(RpcError::new(ErrorKind::Retry, later(ours, theirs).message))
            }
        }
    }

    /// Checks what a call bears whose caller is known to be a super-node. A later generation is met,
    /// without waiting for what comes of it.
    ///
    /// # Errors
    /// `Denied` when somebody else is meant, or the caller's data is of a tier that is no more;
    /// `Retry` when this one's is.
    pub(super) fn check_stamp<T>(&self, request: &Request<T>) -> Result<(), RpcError> {
        let target = told(request, TARGET_HEADER);
        if target != self.inner.me {
            let (me, target) = (NodeId(self.inner.me), NodeId(target));
            let message = format!("this is super-node {me}, the caller means {target}");
            return Err(RpcError::new(ErrorKind::Denied, message));
        }
        let theirs = told(request, GENERATION_HEADER);
        if theirs > self.generation() {
            let raft = self.clone();
            self.inner.standing.tasks.spawn_until_stopped("raft-generation", async move {
                let _ = raft.meet(theirs).await;
            });
        }
        self.expect_generation(theirs)
    }

    /// Takes part no longer, for good.
    pub fn end(&self, ended: Ended) {
        let standing = &self.inner.standing;
        let first = standing.ended.send_if_modified(|now| {
            let first = now.is_none();
            *now = now.or(Some(ended));
            first
        });
        if !first {
            return;
        }
        tracing::error!(reason = ended.reason(), "this super-node takes part no longer");
        let (core, path) = (self.inner.core.clone(), standing.folder.join(ENDED_FILE));
        core.runtime_config().elect(false);
        standing.tasks.spawn_until_stopped("raft-end", async move {
            let text = format!("{}\n", ended.name());
            let write = move || files::write_whole(&path, text.as_bytes(), files::PLAIN_MODE);
            match tasks::blocking("raft end", write).await {
                Ok(Ok(())) => {}
                failed => tracing::error!(?failed, "that could not be written down"),
            }
            if let Err(error) = core.shutdown().await {
                tracing::error!(%error, "raft ended badly");
            }
        });
    }

    fn is_blank(&self) -> bool {
        let metrics = self.inner.core.metrics().borrow_watched().clone();
        metrics.last_log_index.is_none() && metrics.last_applied.is_none()
    }

    async fn adopt(&self, generation: u64) -> Result<(), RpcError> {
        let standing = &self.inner.standing;
        let folder = standing.folder.clone();
        let write = move || set_generation(&folder, generation);
        let failed = |error: String| RpcError::new(ErrorKind::Retry, error);
        let written = tasks::blocking("raft generation", write).await;
        written.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        standing.generation.0.fetch_max(generation, Ordering::Relaxed);
        Ok(())
    }
}

fn earlier(ours: u64, theirs: u64) -> RpcError {
    let message = format!(
        "this tier was recovered {ours} times, the caller's data is from after {theirs}: its data \
         is of a tier that is no more; empty its data directory to join anew under a new id"
    );
    RpcError::new(ErrorKind::Denied, message)
}

fn later(ours: u64, theirs: u64) -> RpcError {
    let message = format!("the caller's tier was recovered {theirs} times, this one's {ours}");
    RpcError::new(ErrorKind::Denied, message)
}
