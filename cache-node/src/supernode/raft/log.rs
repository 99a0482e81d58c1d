//! The log and the vote, in their own RocksDB under one key space: `e` + index (big-endian) for
//! entries, `m` + name for the vote, the committed and the purged position and the identity.
//!
//! Invariants: a write is readable when its call returns, and durable when its callback runs or,
//! for votes, when its call returns; one thread syncs the write-ahead log once for all that wait.
//! After a failed sync nothing is ever reported durable again. Entries are contiguous; a record
//! that does not decode or stands under a foreign index is an error, never skipped.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use prost::Message;
use rocksdb::{DB, Direction, IteratorMode, WriteBatch};
use shoal_proto::wire::v1;
use tokio::sync::mpsc;

use super::RaftError;
use super::disk::{self, Alive, other};
use super::wire::{Entry, LogId, Types, Vote, entry_from, entry_to, log_id_from, log_id_to};
use super::wire::{vote_from, vote_to};
use crate::metrics::IndexMetrics;
use crate::{clock, tasks};

/// Most appends that wait for one sync.
const SYNC_GROUP_MAX: usize = 1_024;
/// Most entries read at once.
const READ_ENTRIES_MAX: u64 = 256;
/// Most bytes of entries read at once; a single larger entry is read alone.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// The log's memtable, in bytes: small, since purged entries leave it soon.
const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;

const IDENTITY: &[u8] = b"m/identity";
const VOTE: &[u8] = b"m/vote";
const COMMITTED: &[u8] = b"m/committed";
const PURGED: &[u8] = b"m/purged";
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
    syncer: Arc<Syncer>,
    reader: LogReader,
}

impl LogStore {
    /// The log in `path`, made if missing.
    ///
    /// # Errors
    /// When it cannot be read, belongs to somebody else, or has lost its end.
    pub(super) fn open(
        path: &Path,
        identity: &v1::RaftIdentity,
        metrics: IndexMetrics,
        alive: Alive,
    ) -> Result<Self, RaftError> {
        let db = Arc::new(DB::open(&disk::options(MEMTABLE_BYTES), path)?);
        let reader = LogReader { db: Arc::clone(&db), _alive: alive };
        reader.claim(identity)?;
        let committed = reader.meta::<v1::LogId>(COMMITTED)?.map(|id| id.index);
        let last = reader.state()?.last_log_id.map(|id| id.index);
        if committed > last {
            return Err(RaftError::Truncated { path: path.to_owned(), committed, last });
        }
        let syncer = Arc::new(Syncer::start(db, metrics)?);
        Ok(Self { syncer, reader })
    }

    async fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let db = Arc::clone(&self.reader.db);
        tasks::blocking("raft log write", move || db.write(batch))
            .await
            .map_err(other)?
            .map_err(other)
    }

    async fn put<M: Message>(&self, name: &[u8], message: M) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(name, message.encode_to_vec());
        self.write(batch).await
    }
}

impl LogReader {
    fn claim(&self, identity: &v1::RaftIdentity) -> Result<(), RaftError> {
        match self.meta::<v1::RaftIdentity>(IDENTITY)? {
            Some(found) if found == *identity => Ok(()),
            Some(found) => Err(RaftError::Foreign {
                path: self.db.path().to_owned(),
                found: format!("{} of cluster {}", found.node_id, found.cluster_id),
                expected: format!("{} of cluster {}", identity.node_id, identity.cluster_id),
            }),
            None => Ok(self.db.put_opt(IDENTITY, identity.encode_to_vec(), &disk::synced())?),
        }
    }

    fn meta<M: Message + Default>(&self, name: &[u8]) -> io::Result<Option<M>> {
        let found = self.db.get_pinned(name).map_err(other)?;
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
        self.put(VOTE, vote_to(vote)).await?;
        let (durable, wait) = Types::oneshot();
        self.syncer.submit(IOFlushed::signal(durable)).await?;
        wait.await.map_err(other)?
    }

    /// Not synced: losing it costs a replay, and it can never be ahead of the entries, which went
    /// into the same write-ahead log before it.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.put(COMMITTED, log_id_to(id)).await,
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
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(key(entry.log_id.index), entry_to(entry).encode_to_vec());
        }
        self.write(batch).await?;
        self.syncer.submit(callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |id| id.index + 1);
        let mut batch = WriteBatch::default();
        batch.delete_range(&key(first)[..], ENTRIES_END);
        self.write(batch).await
    }

    /// Not synced: entries that come back are covered by a snapshot, which is.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(PURGED, log_id_to(upto).encode_to_vec());
        batch.delete_range(key(0), key(upto.index + 1));
        self.write(batch).await
    }
}

/// The thread that makes writes durable, many at a time.
struct Syncer {
    queue: Option<mpsc::Sender<IOFlushed<Types>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Syncer {
    fn start(db: Arc<DB>, metrics: IndexMetrics) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel(SYNC_GROUP_MAX);
        let thread = tasks::thread("raft-sync", move || sync_all(&db, waiting, &metrics))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    async fn submit(&self, callback: IOFlushed<Types>) -> io::Result<()> {
        let gone = || io::Error::other("the log's sync thread has ended");
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(callback).await.map_err(|_| gone())
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log's sync thread panicked");
        }
    }
}

fn sync_all(db: &DB, mut waiting: mpsc::Receiver<IOFlushed<Types>>, metrics: &IndexMetrics) {
    let mut group = Vec::with_capacity(SYNC_GROUP_MAX);
    let mut failed: Option<String> = None;
    while waiting.blocking_recv_many(&mut group, SYNC_GROUP_MAX) > 0 {
        let started = clock::monotonic();
        if failed.is_none() {
            failed = db.flush_wal(true).err().map(|error| format!("raft log sync: {error}"));
        }
        metrics.sync_seconds.observe(clock::since(started).as_secs_f64());
        for callback in group.drain(..) {
            callback.io_completed(failed.clone().map_or(Ok(()), |why| Err(io::Error::other(why))));
        }
    }
}
