//! Applies committed entries to the index, and keeps its snapshots. The position applied goes into
//! the same write batch as what it did, so a crash leaves both or neither.
//!
//! Applying does not sync: entries stay in the log until a snapshot covers them, and a snapshot is
//! published only after the state it was taken from is durable. A snapshot is installed by giving
//! its checked file the name `install`, loading it, and renaming it to `current`; a crash on the
//! way is made good at the next start, before anybody reads the state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use prost::Message;
use rocksdb::{ColumnFamilyDescriptor, DB, WriteBatch};
use shoal_proto::wire::v1;
use tokio::sync::watch;

use super::RaftError;
use super::disk::{self, Alive, other};
use super::snapshot::{self, SnapshotFile, family};
use super::wire::{LogId, Members, Meta, StoredMembers, Types, meta_from, meta_to};
use crate::metrics::IndexMetrics;
use crate::supernode::index::{self, Index};
use crate::tasks;

/// Most entries of one write batch.
const GROUP_ENTRIES_MAX: usize = 256;
/// The state's memtables, in bytes.
const MEMTABLE_BYTES: usize = 64 * 1024 * 1024;

const FAMILIES: &[&str] = &index::COLUMN_FAMILIES;
const FAMILY: &str = "machine";
const APPLIED: &[u8] = b"applied";
const CURRENT: &str = "current";
const INSTALL: &str = "install";
const BUILDING: &str = "building.tmp";

type SnapshotOf = openraft::alias::SnapshotOf<Types, SnapshotFile>;

/// The state database and its snapshots; shared by applying, building and receiving.
pub(super) struct State {
    db: Arc<DB>,
    index: Arc<Index>,
    directory: PathBuf,
    /// A snapshot is never taken of a state that is being replaced.
    whole: Mutex<()>,
    received: AtomicU64,
    alive: Alive,
}

impl State {
    /// The state under `directory` (`state`, `snapshots`), made if missing; finishes an
    /// installation that was interrupted.
    ///
    /// # Errors
    /// When the database or a snapshot cannot be read.
    pub(super) fn open(directory: &Path, alive: Alive) -> Result<Self, RaftError> {
        let snapshots = directory.join("snapshots");
        std::fs::create_dir_all(&snapshots)?;
        for entry in std::fs::read_dir(&snapshots)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                std::fs::remove_file(path)?;
            }
        }
        let families = [FAMILY].iter().chain(FAMILIES);
        let options = disk::options(MEMTABLE_BYTES);
        let descriptors = families.map(|name| ColumnFamilyDescriptor::new(*name, options.clone()));
        let path = directory.join("state");
        let db = Arc::new(DB::open_cf_descriptors(&options, path, descriptors)?);
        if let Some(file) = SnapshotFile::open(&snapshots.join(INSTALL))? {
            check(&file, &db)?;
            replace(&db, &snapshots, &file)?;
        }
        let index = Arc::new(Index::open(Arc::clone(&db))?);
        let (whole, received) = Default::default();
        Ok(Self { db, index, directory: snapshots, whole, received, alive })
    }

    /// The index.
    pub(super) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// A name for a snapshot that is about to be received.
    pub(super) fn incoming(&self) -> PathBuf {
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("incoming-{number}.tmp"))
    }

    /// Whether `text` stands anywhere in the index's values.
    #[cfg(test)]
    pub(super) fn contains(&self, text: &str) -> bool {
        let mut values = FAMILIES.iter().flat_map(|name| {
            let family = family(&self.db, name).unwrap();
            self.db.iterator_cf(family, rocksdb::IteratorMode::Start).map(|item| item.unwrap().1)
        });
        values.any(|value| value.windows(text.len()).any(|at| at == text.as_bytes()))
    }

    fn exclusive(&self) -> MutexGuard<'_, ()> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self) -> io::Result<SnapshotOf> {
        let _whole = self.exclusive();
        let snapshot = self.db.snapshot();
        let bytes = snapshot.get_cf(family(&self.db, FAMILY)?, APPLIED).map_err(other)?;
        let applied = decode(bytes)?;
        let meta = meta_from(applied.clone()).map_err(other)?;
        let building = self.directory.join(BUILDING);
        snapshot::write(&building, &self.db, &snapshot, applied, FAMILIES)?;
        // The log may be purged up to here from now on.
        self.db.flush_wal(true).map_err(other)?;
        let path = self.directory.join(CURRENT);
        std::fs::rename(building, &path)?;
        disk::sync_directory(&self.directory)?;
        self.current()?.filter(|found| found.meta == meta).ok_or_else(|| missing(&path))
    }

    fn install(&self, file: &SnapshotFile) -> io::Result<()> {
        let _whole = self.exclusive();
        check(file, &self.db)?;
        let path = self.directory.join(INSTALL);
        std::fs::rename(&file.path, &path)?;
        disk::sync_directory(&self.directory)?;
        replace(&self.db, &self.directory, file)?;
        self.index.replace(Arc::clone(&self.db)).map_err(other)
    }

    fn current(&self) -> io::Result<Option<SnapshotOf>> {
        let Some(file) = SnapshotFile::open(&self.directory.join(CURRENT))? else {
            return Ok(None);
        };
        let meta = meta_from(file.head()?).map_err(other)?;
        Ok(Some(Snapshot { meta, snapshot: file }))
    }

    fn apply(
        &self,
        group: &[(u64, v1::CommandBatch)],
        meta: &Meta,
    ) -> io::Result<Vec<Vec<v1::CommandReply>>> {
        let mut batch = WriteBatch::default();
        let replies = match group.is_empty() {
            true => Vec::new(),
            false => self.index.apply(group, &mut batch).map_err(other)?,
        };
        if replies.len() != group.len() {
            return Err(io::Error::other("the index did not answer every batch"));
        }
        batch.put_cf(family(&self.db, FAMILY)?, APPLIED, meta_to(meta).encode_to_vec());
        self.db.write(batch).map_err(other)?;
        self.index.committed();
        Ok(replies)
    }
}

/// Whom `members` leaves out, as a command to the index: they are retired with the membership's own
/// entry, all or nothing.
fn retired(before: &Members, members: &Members) -> Option<v1::CommandBatch> {
    let gone = before.nodes().filter(|(id, _)| members.get_node(id).is_none());
    let node_ids: Vec<u64> = gone.map(|(id, _)| *id).collect();
    let retire = |node_ids| {
        let retire = v1::command::Command::Retire(v1::RetireSuperNodes { node_ids });
        v1::CommandBatch { commands: vec![v1::Command { command: Some(retire) }] }
    };
    (!node_ids.is_empty()).then(|| retire(node_ids))
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("snapshot {} is gone", path.display()))
}

fn decode(bytes: Option<Vec<u8>>) -> io::Result<v1::AppliedState> {
    let none =
        || v1::AppliedState { membership: Some(v1::Membership::default()), ..Default::default() };
    bytes.map_or_else(|| Ok(none()), |bytes| v1::AppliedState::decode(&bytes[..]).map_err(other))
}

/// Checks a whole snapshot against its digest and `db`'s column families, changing nothing.
fn check(file: &SnapshotFile, db: &DB) -> io::Result<Meta> {
    let applied = file.check(|pair| match FAMILIES.contains(&&*pair.column_family) {
        true => family(db, &pair.column_family).map(drop),
        false => Err(io::Error::other(format!("snapshot: foreign family {}", pair.column_family))),
    })?;
    meta_from(applied).map_err(other)
}

/// Makes `file`, which stands under the name `install`, the state and the current snapshot.
fn replace(db: &DB, directory: &Path, file: &SnapshotFile) -> io::Result<()> {
    snapshot::load(file, db, FAMILIES)?;
    db.put_cf_opt(family(db, FAMILY)?, APPLIED, file.head()?.encode_to_vec(), &disk::synced())
        .map_err(other)?;
    std::fs::rename(directory.join(INSTALL), directory.join(CURRENT))?;
    disk::sync_directory(directory)
}

/// The state machine.
pub(super) struct Machine {
    state: Arc<State>,
    meta: Meta,
    applied: watch::Sender<u64>,
    metrics: IndexMetrics,
    _alive: Alive,
}

impl Machine {
    /// The machine over `state`; what it has applied goes to `applied`.
    ///
    /// # Errors
    /// When what was applied cannot be read.
    pub(super) fn new(
        state: Arc<State>,
        applied: watch::Sender<u64>,
        metrics: IndexMetrics,
    ) -> io::Result<Self> {
        let bytes = state.db.get_cf(family(&state.db, FAMILY)?, APPLIED).map_err(other)?;
        let meta = meta_from(decode(bytes)?).map_err(other)?;
        let _alive = Arc::clone(&state.alive);
        let machine = Self { state, meta, applied, metrics, _alive };
        machine.report();
        Ok(machine)
    }

    fn report(&self) {
        let position = self.meta.last_log_id.map_or(0, |id| id.index);
        self.applied.send_replace(position);
        self.metrics.applied_position.set(i64::try_from(position).unwrap_or(i64::MAX));
    }

    async fn apply_group(
        &mut self,
        group: Vec<io::Result<EntryResponder<Types>>>,
    ) -> io::Result<()> {
        let mut meta = self.meta.clone();
        let (mut commands, mut waiting) = (Vec::new(), Vec::new());
        for item in group {
            let (entry, responder) = item?;
            meta.last_log_id = Some(entry.log_id);
            let batch = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(batch) => Some(batch.0),
                EntryPayload::Membership(members) => {
                    let gone = retired(meta.last_membership.membership(), &members);
                    meta.last_membership = StoredMembers::new(Some(entry.log_id), members);
                    gone
                }
            };
            waiting.push((batch.is_some(), responder));
            commands.extend(batch.map(|batch| (entry.log_id.index, batch)));
        }
        let (state, meta_then) = (Arc::clone(&self.state), meta.clone());
        let work = move || state.apply(&commands, &meta_then);
        let replies = tasks::blocking("raft apply", work).await.map_err(other)??;
        self.meta = meta;
        self.report();
        let mut replies = replies.into_iter();
        for (commands, responder) in waiting {
            let reply = if commands { replies.next().unwrap_or_default() } else { Vec::new() };
            self.metrics.commands.inc_by(reply.len() as u64);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }
}

/// Builds snapshots beside applying.
pub(super) struct Builder(Arc<State>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let state = Arc::clone(&self.0);
        tasks::blocking("raft snapshot", move || state.build()).await.map_err(other)?
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembers)> {
        Ok((self.meta.last_log_id, self.meta.last_membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let mut groups = entries.ready_chunks(GROUP_ENTRIES_MAX);
        while let Some(group) = groups.next().await {
            self.apply_group(group).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(Arc::clone(&self.state))
    }

    async fn install_snapshot(&mut self, meta: &Meta, file: SnapshotFile) -> io::Result<()> {
        let state = Arc::clone(&self.state);
        tasks::blocking("raft install", move || state.install(&file)).await.map_err(other)??;
        self.meta = meta.clone();
        self.report();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let state = Arc::clone(&self.state);
        tasks::blocking("raft snapshot", move || state.current()).await.map_err(other)?
    }
}

/// What a received file holds, once it is checked whole.
pub(super) fn received(state: &State, file: SnapshotFile) -> io::Result<SnapshotOf> {
    Ok(Snapshot { meta: check(&file, &state.db)?, snapshot: file })
}
