//! The log and the vote, in a RocksDB of their own: entries by index (`e` and eight bytes, big
//! endian), and in a column family of its own the vote, the committed and the purged position and
//! the identity. Apart, tables of entries never overlap: they are moved, not merged, as they age,
//! and purged by removing files.
//!
//! Invariants: a write is readable when its call returns, and durable when its callback runs or,
//! for votes, when its call returns. Entries are contiguous; a record that does not decode or
//! stands under a foreign index is an error, never skipped. A log that is damaged, or lacks what it
//! once made durable, does not open: who has lost what others count on must not vote.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use prost::Message;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, Direction, ErrorKind, IteratorMode, ReadOptions,
    WriteBatch,
};
use shoal_proto::wire::v1;
use tokio::sync::watch;

use super::RaftError;
use super::disk::{self, Alive, other};
use super::durable::{self, Durable, Noted, Progress, Sync};
use super::sizes::Sizes;
use super::wire::{Entry, LogId, Types, Vote, entry_from, entry_to, log_id_from, log_id_to};
use super::wire::{vote_from, vote_to};
use crate::metrics::IndexMetrics;
use crate::tasks;

/// Most entries read at once.
const READ_ENTRIES_MAX: u64 = 256;
/// Most bytes of entries read at once; a single larger entry is read alone.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// Read ahead of a scan of the whole log, in bytes.
const READ_AHEAD_BYTES: usize = 2 * 1024 * 1024;
/// The log's memtable, in bytes: small, since purged entries leave it soon.
const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;
/// The note of what is durable, beside the database.
const NOTE: &str = "note";

/// Most bytes of write-ahead log: it holds all that its oldest table lacks, however small that is.
const WAL_BYTES_MAX: u64 = 4 * MEMTABLE_BYTES as u64;
/// Tables before they are moved to where they can be removed.
const NEW_TABLES_MAX: i32 = 2;

const META: &str = "meta";
const IDENTITY: &[u8] = b"identity";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const ENTRIES_END: &[u8] = b"f";

fn key(index: u64) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Reads the log.
#[derive(Clone)]
pub(super) struct LogReader {
    db: Arc<DB>,
    _alive: Alive,
}

/// Writes the log. Clones share one sync thread.
#[derive(Clone)]
pub(super) struct LogStore {
    durable: Arc<Durable>,
    sizes: Arc<Sizes>,
    reader: LogReader,
}

impl LogStore {
    /// The log in `path`, made if missing.
    ///
    /// # Errors
    /// When it cannot be read, belongs to somebody else, or is not what was written.
    pub(super) fn open(
        path: &Path,
        identity: &v1::RaftIdentity,
        metrics: IndexMetrics,
        alive: Alive,
    ) -> Result<Self, RaftError> {
        Self::open_with(path, identity, (metrics, alive), |db| {
            Box::new(move || db.flush_wal(true).map_err(|error| error.to_string()))
        })
    }

    /// As [`LogStore::open`], with another way to make what was written durable.
    pub(super) fn open_with(
        path: &Path,
        identity: &v1::RaftIdentity,
        (metrics, alive): (IndexMetrics, Alive),
        sync: impl FnOnce(Arc<DB>) -> Sync,
    ) -> Result<Self, RaftError> {
        let damaged = |what: String| RaftError::Damaged { path: path.to_owned(), what };
        let note = note_path(path);
        let noted = durable::read(&note).map_err(|error| damaged(error.to_string()))?;
        // The note comes after the database: a log that has one is never made anew.
        let db = Arc::new(open_db(path, noted.is_none()).map_err(|error| {
            let gone = error.kind() == ErrorKind::InvalidArgument;
            match gone || disk::is_damage(&error) {
                true => damaged(error.to_string()),
                false => error.into(),
            }
        })?);
        let reader = LogReader { db: Arc::clone(&db), _alive: alive };
        let (held, sizes) = reader.check(path, identity, noted).map_err(|error| match error {
            RaftError::Io(error) => damaged(error.to_string()),
            error => error,
        })?;
        let durable = Arc::new(Durable::start(&note, held, sync(db), metrics)?);
        Ok(Self { durable, sizes: Arc::new(sizes), reader })
    }

    /// Tells how far the log is durable.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.durable.progress()
    }

    /// Up to where entries were purged.
    pub(super) fn purged(&self) -> io::Result<Option<LogId>> {
        Ok(self.reader.state()?.last_purged_log_id)
    }

    /// How much stands where in the log.
    pub(super) fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    /// Makes the log agree with a state that holds all up to `applied`, before anybody uses either.
    /// `installed` is the snapshot that the state began as, whose entries need not be in the log.
    ///
    /// # Errors
    /// When the log lacks entries that were applied.
    pub(super) fn reconcile(
        &self,
        applied: Option<LogId>,
        installed: Option<LogId>,
    ) -> Result<(), RaftError> {
        let Some(applied) = applied else { return Ok(()) };
        let path = self.reader.db.path();
        let voted = self.reader.meta::<v1::Vote>(VOTE)?.map_or(0, |vote| vote.term);
        if applied.leader_id.term > voted {
            let term = applied.leader_id.term;
            let what = format!("entries of term {term} were applied, but the vote is of {voted}");
            return Err(RaftError::Damaged { path: path.to_owned(), what });
        }
        let last = self.reader.state()?.last_log_id;
        if last.map(|id| id.index) < Some(applied.index) {
            return match Some(applied) == installed {
                true => Ok(()),
                false => Err(RaftError::Truncated {
                    path: path.to_owned(),
                    committed: Some(applied.index),
                    last: last.map(|id| id.index),
                }),
            };
        }
        let there = self.reader.read(applied.index, applied.index + 1, 0)?;
        if there.first().is_some_and(|entry| entry.log_id != applied) {
            // Never committed, or it would be the same: what a snapshot overtook.
            self.durable.cutting(applied.index + 1)?;
            let mut batch = WriteBatch::default();
            batch.put_cf(self.reader.family()?, PURGED, log_id_to(applied).encode_to_vec());
            batch.delete_range(&key(0)[..], ENTRIES_END);
            self.reader.db.write_opt(batch, &disk::synced())?;
        }
        Ok(())
    }

    /// Makes the log one of which all was purged up to `at`, and the vote `vote`, in one step; durable
    /// on return. For a recovery, before anybody uses the log.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn begin_after(&self, at: LogId, vote: v1::Vote) -> Result<(), RaftError> {
        let (mut batch, meta) = (WriteBatch::default(), self.reader.family()?);
        for name in [PURGED, COMMITTED] {
            batch.put_cf(meta, name, log_id_to(at).encode_to_vec());
        }
        batch.put_cf(meta, VOTE, vote.encode_to_vec());
        batch.delete_range(&key(0)[..], ENTRIES_END);
        Ok(self.reader.db.write_opt(batch, &disk::synced())?)
    }

    async fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let db = Arc::clone(&self.reader.db);
        tasks::blocking("raft log write", move || db.write(batch))
            .await
            .map_err(other)?
            .map_err(other)
    }

    /// Not on the blocking pool: a few bytes into a memtable.
    fn put<M: Message>(&self, name: &[u8], message: M) -> io::Result<()> {
        let family = self.reader.family()?;
        self.reader.db.put_cf(family, name, message.encode_to_vec()).map_err(other)
    }
}

/// Opens the database in `path`, or makes it.
pub(super) fn open_db(path: &Path, create: bool) -> Result<DB, rocksdb::Error> {
    let mut options = disk::options(MEMTABLE_BYTES);
    options.create_if_missing(create);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_level_zero_file_num_compaction_trigger(NEW_TABLES_MAX);
    let families = ["default", META];
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    DB::open_cf_descriptors(&options, path, families)
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension(NOTE)
}

impl LogReader {
    /// Checks the whole log against itself and what was noted of it; says what it holds.
    fn check(
        &self,
        path: &Path,
        identity: &v1::RaftIdentity,
        noted: Option<Noted>,
    ) -> Result<(Noted, Sizes), RaftError> {
        let damaged = |what: String| RaftError::Damaged { path: path.to_owned(), what };
        let is_new = self.claim(path, identity)?;
        let sizes = self.scan()?;
        let last = self.state()?.last_log_id.map(|id| id.index);
        let vote = self.meta::<v1::Vote>(VOTE)?;
        let held = Noted { end: last.map_or(0, |last| last + 1), vote };
        let noted = match noted {
            Some(noted) => noted,
            None if is_new || held == Noted::default() => Noted::default(),
            None => return Err(damaged("the note of what it must hold is missing".into())),
        };
        let older =
            |vote: Option<Vote>, noted| vote.partial_cmp(&noted).is_none_or(Ordering::is_lt);
        if older(vote.map(vote_from), noted.vote.map(vote_from)) {
            return Err(damaged(format!("it lost the vote of {:?}", noted.vote)));
        }
        let committed = self.meta::<v1::LogId>(COMMITTED)?.map(|id| id.index);
        let needed = committed.max(noted.end.checked_sub(1));
        if needed > last {
            let path = path.to_owned();
            return Err(RaftError::Truncated { path, committed: needed, last });
        }
        Ok((held, sizes))
    }

    /// Whether the log was nobody's.
    fn claim(&self, path: &Path, identity: &v1::RaftIdentity) -> Result<bool, RaftError> {
        match self.meta::<v1::RaftIdentity>(IDENTITY)? {
            Some(found) if found == *identity => Ok(false),
            Some(found) => Err(RaftError::foreign(path, &found, identity)),
            None => {
                let bytes = identity.encode_to_vec();
                self.db.put_cf_opt(self.family()?, IDENTITY, bytes, &disk::synced())?;
                Ok(true)
            }
        }
    }

    /// Reads every entry.
    fn scan(&self) -> io::Result<Sizes> {
        let purged = self.meta::<v1::LogId>(PURGED)?.map(|id| id.index);
        let mut options = ReadOptions::default();
        options.set_readahead_size(READ_AHEAD_BYTES);
        options.fill_cache(false);
        options.set_iterate_upper_bound(ENTRIES_END);
        let mode = IteratorMode::From(&key(0), Direction::Forward);
        let (sizes, mut before) = (Sizes::default(), purged);
        for item in self.db.iterator_opt(mode, options) {
            let (key, value) = item.map_err(other)?;
            let index = decode(&key, &value)?.log_id.index;
            if before.map_or(0, |before| before + 1) != index {
                return Err(corrupt(format!("a hole before entry {index}")));
            }
            sizes.add(index, value.len() as u64);
            before = Some(index);
        }
        Ok(sizes)
    }

    fn family(&self) -> io::Result<&ColumnFamily> {
        self.db.cf_handle(META).ok_or_else(|| corrupt(format!("no column family {META:?}")))
    }

    fn meta<M: Message + Default>(&self, name: &[u8]) -> io::Result<Option<M>> {
        let found = self.db.get_pinned_cf(self.family()?, name).map_err(other)?;
        found.map(|bytes| M::decode(&*bytes).map_err(other)).transpose()
    }

    fn state(&self) -> io::Result<LogState<Types>> {
        let last_purged_log_id = self.meta::<v1::LogId>(PURGED)?.map(log_id_from);
        let mode = IteratorMode::From(&key(u64::MAX), Direction::Reverse);
        let last = self.db.iterator(mode).next().transpose().map_err(other)?;
        let last = last.map(|(key, value)| decode(&key, &value)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    /// Entries from `start` to before `end`, as many as fit into the bounds but at least one.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for item in self.db.iterator(IteratorMode::From(&key(start), Direction::Forward)) {
            let (key, value) = item.map_err(other)?;
            bytes += value.len();
            if *key >= *ENTRIES_END || (!entries.is_empty() && bytes > bytes_max) {
                break;
            }
            let entry = decode(&key, &value)?;
            if entry.log_id.index >= end {
                break;
            }
            let expected = entries.last().map(|last| last.log_id.index + 1);
            if expected.is_some_and(|expected| expected != entry.log_id.index) {
                return Err(corrupt(format!("a hole before entry {}", entry.log_id.index)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn read_some(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let reader = self.clone();
        let read = move || reader.read(start, end, bytes_max);
        tasks::blocking("raft log read", read).await.map_err(other)?
    }
}

fn corrupt(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("raft log: {what}"))
}

fn decode(at: &[u8], value: &[u8]) -> io::Result<Entry> {
    let wire = v1::LogEntry::decode(value).map_err(other)?;
    let entry = entry_from(wire).map_err(other)?;
    match key(entry.log_id.index) == at {
        true => Ok(entry),
        false => Err(corrupt(format!("entry {} under another's key", entry.log_id.index))),
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        self.read_some(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read_some(start, end.min(start.saturating_add(READ_ENTRIES_MAX)), READ_BYTES_MAX).await
    }

    /// Reads piece by piece: what is to be applied may be far more than memory should hold.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let pieces =
            futures::stream::try_unfold((self.clone(), start), move |(mut log, at)| async move {
                let piece = log.limited_get_log_entries(at, end).await?;
                let next = piece.last().map(|entry| entry.log_id.index + 1);
                Ok::<_, io::Error>(
                    next.map(|next| {
                        (futures::stream::iter(piece.into_iter().map(Ok)), (log, next))
                    }),
                )
            });
        pieces.try_flatten().boxed()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.meta::<v1::Vote>(VOTE)?.map(vote_from))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.reader.state()
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put(VOTE, vote_to(vote))?;
        let (durable, wait) = Types::oneshot();
        self.durable.vote(vote_to(vote), IOFlushed::signal(durable)).await?;
        wait.await.map_err(other)?
    }

    /// Not synced: losing it costs a replay, and it can never be ahead of the entries, which went
    /// into the same write-ahead log before it.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.put(COMMITTED, log_id_to(id)),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.reader.meta::<v1::LogId>(COMMITTED)?.map(log_id_from))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let (mut batch, mut end) = (WriteBatch::default(), 0);
        for entry in entries {
            let index = entry.log_id.index;
            let bytes = entry_to(entry).encode_to_vec();
            batch.put(key(index), &bytes);
            self.sizes.add(index, bytes.len() as u64);
            end = index + 1;
        }
        self.write(batch).await?;
        self.durable.entries(end, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let end = last.map_or(0, |id| id.index + 1);
        let durable = Arc::clone(&self.durable);
        let cutting = move || durable.cutting(end);
        tasks::blocking("raft log cut", cutting).await.map_err(other)??;
        let mut batch = WriteBatch::default();
        batch.delete_range(&key(end)[..], ENTRIES_END);
        self.sizes.cut(end);
        self.write(batch).await?;
        self.durable.cut(end).await
    }

    /// Not synced: entries that come back are covered by a snapshot, which is.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.reader.family()?, PURGED, log_id_to(upto).encode_to_vec());
        batch.delete_range(key(0), key(upto.index + 1));
        let db = Arc::clone(&self.reader.db);
        let purge = move || {
            db.write(batch)?;
            db.delete_file_in_range(key(0), key(upto.index))
        };
        tasks::blocking("raft log purge", purge).await.map_err(other)?.map_err(other)?;
        self.sizes.purge(upto.index);
        Ok(())
    }
}
