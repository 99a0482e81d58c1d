//! A hash of the whole state as of one position, taken beside applying: what the running digest
//! cannot see, since it never reads back, comes to light here.
//!
//! Invariants: a snapshot of the database is taken before anything after the position is written;
//! one audit at a time, and few results are kept. The time that it takes is told and decides nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use rocksdb::{DB, IteratorMode, ReadOptions};
use shoal_proto::wire::v1::{self, command::Command};

use super::digest::{Digest, DigestAt};
use super::tables::{COLUMN_FAMILIES, HOLDERS};
use super::{IndexError, storage};
use crate::{clock, tasks};

/// Audits whose results are kept.
const AUDITS_MAX: usize = 8;

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The position.
    pub position: u64,
    /// The running digest as of it.
    pub running: Digest,
    /// The hash of all records as of it.
    pub state: Digest,
    /// How many there were.
    pub records: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How an audit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditState {
    /// It runs.
    Running,
    /// It is through.
    Done(Audited),
    /// It came to nothing.
    Failed(String),
}

/// Whether what `batch` is to be applied with ends with it: an audit wants the state as of there.
pub fn ends_group(batch: &v1::CommandBatch) -> bool {
    audits(batch).next().is_some()
}

/// The audits that a batch asks for.
pub(super) fn audits(batch: &v1::CommandBatch) -> impl Iterator<Item = u64> + '_ {
    batch.commands.iter().filter_map(|command| match &command.command {
        Some(Command::Audit(audit)) => Some(audit.id),
        _ => None,
    })
}

/// The newest audits.
#[derive(Clone, Debug, Default)]
pub(super) struct Audits(Arc<Mutex<VecDeque<(u64, AuditState)>>>);

impl Audits {
    fn all(&self) -> MutexGuard<'_, VecDeque<(u64, AuditState)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How an audit stands; `None` when it is not known here.
    pub(super) fn get(&self, id: u64) -> Option<AuditState> {
        self.all().iter().find(|(known, _)| *known == id).map(|(_, state)| state.clone())
    }

    /// Begins an audit of `db` as it is now. Returns when the database may be written to again.
    pub(super) fn begin(&self, id: u64, db: Arc<DB>, running: DigestAt) {
        {
            let mut all = self.all();
            if all.iter().any(|(known, _)| *known == id) {
                return;
            }
            let busy = all.iter().any(|(_, state)| *state == AuditState::Running);
            let state = match busy {
                true => AuditState::Failed("another audit is under way".into()),
                false => AuditState::Running,
            };
            all.push_back((id, state));
            if all.len() > AUDITS_MAX {
                all.pop_front();
            }
            if busy {
                return;
            }
        }
        let audits = self.clone();
        let (taken, snapshot) = mpsc::sync_channel(1);
        let audit = move || {
            let begun = clock::monotonic();
            let found = hash(&db, &taken).map(|(state, records)| {
                let took_ms = u64::try_from(clock::since(begun).as_millis()).unwrap_or(u64::MAX);
                let DigestAt { position, digest } = running;
                Audited { position, running: digest, state, records, took_ms }
            });
            audits.end(id, found.map_err(|error| error.to_string()));
        };
        match tasks::thread("index-audit", audit) {
            // An error means that the thread ended before it had one: then it has said so.
            Ok(_) => drop(snapshot.recv()),
            Err(error) => self.end(id, Err(error.to_string())),
        }
    }

    fn end(&self, id: u64, found: Result<Audited, String>) {
        let ended = found.map_or_else(AuditState::Failed, AuditState::Done);
        if let Some((_, state)) = self.all().iter_mut().find(|(known, _)| *known == id) {
            *state = ended;
        }
    }
}

/// Hashes all records of `db`, as they are when this is called; `taken` is told when that is settled.
fn hash(db: &DB, taken: &mpsc::SyncSender<()>) -> Result<(Digest, u64), IndexError> {
    let snapshot = db.snapshot();
    // Nobody waits any more: nothing is lost by going on.
    let _ = taken.send(());
    let mut hasher = blake3::Hasher::new();
    let mut records = 0;
    for name in COLUMN_FAMILIES {
        hasher.update(name.as_bytes());
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let family = storage::family(db, name)?;
        for entry in snapshot.iterator_cf_opt(family, options, IteratorMode::Start) {
            let (key, value) = entry?;
            // An empty list is no list: replicas compact at different times.
            if name == HOLDERS && value.is_empty() {
                continue;
            }
            for part in [&key, &value] {
                hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
            }
            records += 1;
        }
    }
    Ok((*hasher.finalize().as_bytes(), records))
}
