//! The state on disk: which directory holds it, how it is changed, copied and replaced.
//!
//! ```text
//! raft/current       which directory holds the state, whose it is, what it began as
//! raft/state-<n>/    the database
//! raft/snapshots/    checkpoints of it, see `snapshot`
//! raft/incoming/     what has arrived of a snapshot, see `receive`
//! ```
//!
//! Invariants: the position applied goes into the same write batch as what it did, and all column
//! families are flushed together, so a crash leaves the state as of some position. Batches have no
//! write-ahead log: the log keeps all entries that no snapshot covers, and a snapshot is whole and
//! durable before the log is purged up to it. A snapshot becomes the state in a directory of its
//! own; the pointer is what decides, and readers see the old state until all of the new one is
//! there. A damaged state is thrown away: the snapshot and the log say the same.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prost::Message;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Options, WriteBatch};
use shoal_proto::wire::v1;

use super::RaftError;
use super::disk::{self, Alive, Crash, corrupt, other};
use super::snapshot::{self, SnapshotDir, SnapshotOf, Snapshots, UNFINISHED};
use super::wire::{LogId, Meta, log_id_from, log_id_to, meta_from, meta_to};
use crate::supernode::index::{self, Index, IndexError};

/// A column family's memtable, in bytes.
const MEMTABLE_BYTES: usize = 32 * 1024 * 1024;
/// All memtables together, in bytes; then they are flushed.
const MEMTABLES_BYTES: usize = 128 * 1024 * 1024;
/// Memtables of a column family while older ones are flushed: writers do not wait for the disk.
const MEMTABLES_MAX: i32 = 4;

const FAMILY: &str = "machine";
const APPLIED: &[u8] = b"applied";
const POINTER: &str = "current";
const PREFIX: &str = "state-";
/// Stands while the state was found damaged: it is not to be opened again.
const DAMAGED: &str = "state.damaged";

/// The state and its snapshots; shared by applying, building and receiving.
pub(super) struct State {
    index: Arc<Index>,
    directory: PathBuf,
    identity: v1::RaftIdentity,
    snapshots: Snapshots,
    /// The directory that holds the state; held while it is replaced.
    holder: Mutex<Holder>,
    building: Mutex<Building>,
    alive: Alive,
    pub(super) crash: Crash,
}

/// Held while a snapshot is made of the state.
#[derive(Default)]
struct Building {
    /// The state is to be thrown away: nothing is made of it any more.
    abandoned: bool,
}

struct Holder {
    number: u64,
    installed: Option<LogId>,
    /// Directories of old states, with whoever may still read them.
    old: Vec<(Weak<DB>, PathBuf)>,
}

impl State {
    /// The state under `directory`, made if missing. A damaged one is replaced by an empty one, into
    /// which the snapshot and the log are to be brought.
    ///
    /// # Errors
    /// When it is another's, or the disk fails.
    pub(super) fn open(
        directory: &Path,
        identity: &v1::RaftIdentity,
        alive: Alive,
    ) -> Result<Self, RaftError> {
        let snapshots = Snapshots::open(directory.join("snapshots"))?;
        let (index, holder) = match open_current(directory, identity)? {
            Some(opened) => opened,
            None => {
                snapshots.verify_current()?;
                start_empty(directory, identity)?
            }
        };
        remove_others(directory, holder.number)?;
        Ok(Self {
            index: Arc::new(index),
            directory: directory.to_owned(),
            identity: identity.clone(),
            snapshots,
            holder: Mutex::new(holder),
            building: Mutex::default(),
            alive,
            crash: Crash::default(),
        })
    }

    /// The index.
    pub(super) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The snapshots.
    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Where what arrives of a snapshot is kept.
    pub(super) fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// Marks the databases as open while it is held.
    pub(super) fn alive(&self) -> Alive {
        Arc::clone(&self.alive)
    }

    /// What was applied, and in which membership.
    pub(super) fn applied(&self) -> io::Result<Meta> {
        read_applied(&self.index.db()).and_then(|applied| meta_from(applied).map_err(other))
    }

    /// The position of the snapshot that the state began as: entries up to it need not be in the
    /// log.
    pub(super) fn installed(&self) -> Option<LogId> {
        self.holder().installed
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `text` stands anywhere in the index's values.
    #[cfg(test)]
    pub(super) fn contains(&self, text: &str) -> bool {
        let db = self.index.db();
        let mut values = index::COLUMN_FAMILIES.iter().flat_map(|name| {
            let family = family(&db, name).unwrap();
            db.iterator_cf(family, rocksdb::IteratorMode::Start).map(|item| item.unwrap().1)
        });
        values.any(|value| value.windows(text.len()).any(|at| at == text.as_bytes()))
    }

    /// Applies the commands of some positions, after which `meta` is true.
    ///
    /// # Errors
    /// When the disk fails; a damaged state is not opened again.
    pub(super) fn apply(
        &self,
        group: &[(u64, v1::CommandBatch)],
        meta: &Meta,
    ) -> io::Result<Vec<Vec<v1::CommandReply>>> {
        let (db, mut batch) = (self.index.db(), WriteBatch::default());
        let replies = match group.is_empty() {
            true => Vec::new(),
            false => self.index.apply(group, &mut batch).map_err(|e| self.index_failed(e))?,
        };
        if replies.len() != group.len() {
            return Err(io::Error::other("the index did not answer every batch"));
        }
        batch.put_cf(family(&db, FAMILY)?, APPLIED, meta_to(meta).encode_to_vec());
        self.crash.after("prepare")?;
        db.write_without_wal(batch).map_err(|error| self.index_failed(error.into()))?;
        self.index.committed();
        Ok(replies)
    }

    /// Has the next start throw this state away and begin with `snapshot`, which is another
    /// super-node's.
    ///
    /// # Errors
    /// When a snapshot of this state is newer, or the disk fails.
    pub(super) fn abandon(&self, snapshot: &SnapshotDir) -> io::Result<()> {
        let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let position = snapshot.position();
        if self.snapshots.publish(snapshot)?.position() != position {
            return Err(io::Error::other("a newer snapshot was made here meanwhile"));
        }
        building.abandoned = true;
        disk::write_checked(&self.directory.join(DAMAGED), &[])
    }

    fn index_failed(&self, error: IndexError) -> io::Error {
        if is_damage(&error) {
            self.condemn(&error);
        }
        other(error)
    }

    /// The state on disk is not what was written: it is not to be used after the next start.
    fn condemn(&self, error: &IndexError) {
        tracing::error!(%error, "the state is damaged; it is rebuilt at the next start");
        let marked = disk::write_checked(&self.directory.join(DAMAGED), &[]);
        if let Err(error) = marked {
            tracing::error!(%error, "cannot note that the state is damaged");
        }
    }

    /// Makes a snapshot of the state as it is now. Applying goes on: tables are linked, not copied,
    /// and read for their hashes beside it.
    pub(super) fn build(&self) -> io::Result<SnapshotOf> {
        let one = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        if one.abandoned {
            return Err(io::Error::other("this state is to be thrown away"));
        }
        let path = self.snapshots.building();
        disk::remove(&path)?;
        {
            let db = self.index.db();
            let checkpoint = Checkpoint::new(&db).map_err(other)?;
            checkpoint.create_checkpoint(&path).map_err(other)?;
        }
        self.crash.after("checkpoint")?;
        let applied = read_applied(&open_copy(&path)?)?;
        let known = self.snapshots.current();
        let manifest = snapshot::describe(&path, applied, known.as_ref())?;
        snapshot::seal(&path, &manifest)?;
        self.crash.after("seal")?;
        let published = self.snapshots.publish(&SnapshotDir::open(&path)?)?;
        self.remove_old(&mut self.holder());
        published.described()
    }

    /// Makes `snapshot` the state and the current snapshot.
    pub(super) fn install(&self, snapshot: &SnapshotDir) -> io::Result<()> {
        let mut holder = self.holder();
        let position = snapshot.position();
        let snapshot = self.snapshots.publish(snapshot)?;
        if snapshot.position() != position {
            return Err(io::Error::other("a newer snapshot is there already"));
        }
        self.crash.after("publish")?;
        let number = holder.number + 1;
        let path = state_path(&self.directory, number);
        let unfinished = path.with_extension(UNFINISHED);
        disk::remove(&unfinished)?;
        disk::remove(&path)?;
        snapshot.lay_out(&unfinished)?;
        std::fs::rename(&unfinished, &path)?;
        disk::sync_directory(&self.directory)?;
        self.crash.after("lay out")?;
        let db = Arc::new(open_db(&path, false).map_err(other)?);
        if Some(read_applied(&db)?) != snapshot.manifest().applied {
            return Err(corrupt(&path, "holds another position than its snapshot says"));
        }
        write_pointer(&self.directory, &self.identity, number, position)?;
        self.crash.after("point")?;
        let old = self.index.db();
        self.index.replace(db).map_err(other)?;
        let old_path = state_path(&self.directory, holder.number);
        holder.old.push((Arc::downgrade(&old), old_path));
        (holder.number, holder.installed) = (number, position);
        drop(old);
        self.remove_old(&mut holder);
        Ok(())
    }

    /// Removes the directories of old states that nobody reads any more.
    fn remove_old(&self, holder: &mut Holder) {
        holder.old.retain(|(readers, path)| {
            let read = readers.strong_count() > 0;
            if !read && let Err(error) = disk::remove(path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an old state");
            }
            read
        });
    }
}

fn state_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number}"))
}

/// The column family called `name`.
fn family<'a>(db: &'a DB, name: &str) -> io::Result<&'a ColumnFamily> {
    db.cf_handle(name).ok_or_else(|| corrupt(db.path(), format!("no column family {name:?}")))
}

fn read_applied(db: &DB) -> io::Result<v1::AppliedState> {
    let none =
        || v1::AppliedState { membership: Some(v1::Membership::default()), ..Default::default() };
    let bytes = db.get_cf(family(db, FAMILY)?, APPLIED).map_err(other)?;
    bytes.map_or_else(|| Ok(none()), |bytes| v1::AppliedState::decode(&bytes[..]).map_err(other))
}

fn options() -> Options {
    let mut options = disk::options(MEMTABLE_BYTES);
    // Without a write-ahead log only this keeps the column families of one position together.
    options.set_atomic_flush(true);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    options
}

fn families(options: &Options) -> Vec<ColumnFamilyDescriptor> {
    let mut all = index::descriptors(options);
    all.push(ColumnFamilyDescriptor::new(FAMILY, options.clone()));
    all
}

fn open_db(path: &Path, create: bool) -> Result<DB, rocksdb::Error> {
    let mut options = options();
    options.create_if_missing(create);
    DB::open_cf_descriptors(&options, path, families(&options))
}

/// Opens a database that nobody writes to.
fn open_copy(path: &Path) -> io::Result<DB> {
    let options = options();
    DB::open_cf_descriptors_read_only(&options, path, families(&options), false).map_err(other)
}

fn is_damage(error: &IndexError) -> bool {
    match error {
        IndexError::Storage(error) => disk::is_damage(error),
        IndexError::Family { .. } => false,
        IndexError::Corrupt { .. } => true,
    }
}

fn write_pointer(
    directory: &Path,
    identity: &v1::RaftIdentity,
    number: u64,
    installed: Option<LogId>,
) -> io::Result<()> {
    let pointer = v1::StatePointer {
        directory: format!("{PREFIX}{number}"),
        identity: Some(identity.clone()),
        installed: installed.map(log_id_to),
    };
    disk::write_checked(&directory.join(POINTER), &pointer.encode_to_vec())
}

/// The state that the pointer names; `None` when there is none, or it is damaged.
fn open_current(
    directory: &Path,
    identity: &v1::RaftIdentity,
) -> Result<Option<(Index, Holder)>, RaftError> {
    let opened = read_pointer(directory, identity).and_then(|pointer| match pointer {
        Some((number, installed)) => {
            let index = open_state(&state_path(directory, number))?;
            Ok(Some((index, Holder { number, installed, old: Vec::new() })))
        }
        None => Ok(None),
    });
    match opened {
        Err(error) if is_lost(&error) => {
            tracing::error!(
                %error, directory = %directory.display(),
                "the state is damaged: it is rebuilt from the snapshot and the log"
            );
            Ok(None)
        }
        opened => opened,
    }
}

fn is_lost(error: &RaftError) -> bool {
    match error {
        RaftError::Store(error) => disk::is_damage(error),
        RaftError::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        RaftError::Index(error) => is_damage(error),
        _ => false,
    }
}

fn read_pointer(
    directory: &Path,
    identity: &v1::RaftIdentity,
) -> Result<Option<(u64, Option<LogId>)>, RaftError> {
    let path = directory.join(POINTER);
    let Some(bytes) = disk::read_checked(&path)? else { return Ok(None) };
    let bad = |_| corrupt(&path, "cannot be read");
    let pointer = v1::StatePointer::decode(&bytes[..]).map_err(bad)?;
    let found = pointer.identity.unwrap_or_default();
    if found != *identity {
        return Err(RaftError::foreign(&path, &found, identity));
    }
    if directory.join(DAMAGED).exists() {
        return Err(corrupt(&path, "names a state that was found damaged").into());
    }
    let number = pointer.directory.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| corrupt(&path, "names no state"))?;
    Ok(Some((number, pointer.installed.map(log_id_from))))
}

fn open_state(path: &Path) -> Result<Index, RaftError> {
    if !path.join("CURRENT").exists() {
        return Err(corrupt(path, "there is no database in it").into());
    }
    let db = Arc::new(open_db(path, false)?);
    let index = Index::open(Arc::clone(&db))?;
    read_applied(&db).and_then(|applied| meta_from(applied).map_err(|e| corrupt(path, e)))?;
    Ok(index)
}

/// An empty state under a number of its own.
fn start_empty(
    directory: &Path,
    identity: &v1::RaftIdentity,
) -> Result<(Index, Holder), RaftError> {
    let number = |name: &str| name.strip_prefix(PREFIX)?.parse::<u64>().ok();
    let mut last = 0;
    for entry in std::fs::read_dir(directory)? {
        last = last.max(number(&entry?.file_name().to_string_lossy()).unwrap_or(0));
    }
    let number = last + 1;
    let db = open_db(&state_path(directory, number), true)?;
    disk::sync_directory(directory)?;
    let index = Index::open(Arc::new(db))?;
    write_pointer(directory, identity, number, None)?;
    disk::remove(&directory.join(DAMAGED))?;
    Ok((index, Holder { number, installed: None, old: Vec::new() }))
}

/// Removes what an earlier start or an interrupted installation left behind.
fn remove_others(directory: &Path, number: u64) -> io::Result<()> {
    let mine = format!("{PREFIX}{number}");
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(PREFIX) && name.to_string_lossy() != mine {
            disk::remove(&entry.path())?;
        }
    }
    Ok(())
}
