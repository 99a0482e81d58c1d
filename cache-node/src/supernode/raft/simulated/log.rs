//! A simulated disk with a super-node's log and vote. What is written is readable at once and
//! durable once a sync that began later has ended; a crash keeps a prefix of what was written since,
//! as a write-ahead log does. Same order of operations as in the product's `log`: votes wait for the
//! sync, appends tell when it is done, all else is not waited for.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;
use openraft::async_runtime::{Mpsc, MpscReceiver, MpscSender};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use prost::Message;

use super::super::wire::{Entry, LogId, Vote, entry_to, vote_to};
use super::runtime::{Runtime, sleep_us};
use super::{EntryFacts, Observer, Parts, Types};
use crate::supernode::sim::planted::Planted;
use crate::supernode::sim::rng::Rng;

/// Syncs that wait for their turn.
const SYNCS_MAX: usize = 1_024;
/// An ordinary sync takes so long, in microseconds.
const SYNC_US: (u64, u64) = (200, 4_000);
/// One in so many syncs stalls, for so long, in microseconds.
const STALLS_ONE_IN: u64 = 150;
const STALL_US: (u64, u64) = (50_000, 1_200_000);

/// Between two looks at whether an entry is durable, in microseconds.
const DURABLE_LOOK_US: u64 = 500;

/// An entry as the library sees it, made into what everybody may see.
pub(super) fn facts(entry: &Entry) -> EntryFacts {
    let configs = match &entry.payload {
        EntryPayload::Membership(members) => Some(members.get_joint_config().clone()),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    };
    let bytes = entry_to(entry.clone()).encode_to_vec();
    let digest = blake3::hash(&bytes);
    let first = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    EntryFacts {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        digest: u64::from_le_bytes(first),
        configs,
    }
}

#[derive(Clone, Default)]
struct Image {
    entries: BTreeMap<u64, Arc<(Entry, EntryFacts)>>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

#[derive(Clone)]
enum Write {
    Append(Arc<(Entry, EntryFacts)>),
    TruncateFrom(u64),
    Purge(LogId),
    Vote(Vote),
    Committed(LogId),
}

impl Image {
    fn take(&mut self, write: Write) {
        match write {
            Write::Append(entry) => {
                self.entries.insert(entry.1.index, entry);
            }
            Write::TruncateFrom(first) => drop(self.entries.split_off(&first)),
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(upto);
            }
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Committed(id) => self.committed = Some(id),
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.0.log_id).or(self.purged)
    }
}

struct Contents {
    now: Image,
    durable: Image,
    waiting: VecDeque<Write>,
    /// How many writes there were, and how many of them are durable.
    written: u64,
    synced: u64,
    rng: Rng,
}

/// The disk; it outlives its super-node's lives.
#[derive(Clone)]
pub(in crate::supernode) struct LogDisk(Arc<Mutex<Contents>>);

impl LogDisk {
    /// An empty disk.
    pub(in crate::supernode) fn new(rng: Rng) -> Self {
        let (now, durable, waiting) = Default::default();
        Self(Arc::new(Mutex::new(Contents { now, durable, waiting, written: 0, synced: 0, rng })))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: Write) -> u64 {
        let mut disk = self.lock();
        disk.now.take(write.clone());
        disk.waiting.push_back(write);
        disk.written += 1;
        disk.written
    }

    fn sync(&self, upto: u64) {
        let mut disk = self.lock();
        while disk.synced < upto {
            let Some(write) = disk.waiting.pop_front() else { return };
            disk.durable.take(write);
            disk.synced += 1;
        }
    }

    /// The power fails: a prefix of what was not synced is there, the rest is not. How many writes
    /// are lost.
    pub(in crate::supernode) fn crash(&self) -> u64 {
        let kept = {
            let mut disk = self.lock();
            let waiting = disk.waiting.len() as u64;
            // Often all or nothing: those are the interesting ones.
            match disk.rng.below(3) {
                0 => 0,
                1 => waiting,
                _ => disk.rng.below(waiting + 1),
            }
        };
        let upto = self.lock().synced + kept;
        self.sync(upto);
        let mut disk = self.lock();
        let lost = disk.waiting.len() as u64;
        disk.waiting.clear();
        disk.synced = disk.written;
        disk.now = disk.durable.clone();
        lost
    }

    /// Waits until an entry would survive a crash: nothing is applied before.
    pub(super) async fn wait_durable(&self, index: u64) {
        while self.durable_term(index) == Ok(None) {
            sleep_us(DURABLE_LOOK_US).await;
        }
    }

    /// The term of the vote that would survive a crash now.
    pub(in crate::supernode) fn durable_vote_term(&self) -> Option<u64> {
        self.lock().durable.vote.map(|vote| vote.leader_id.term)
    }

    /// The term of an entry that would survive a crash now; `Err` when it was purged.
    pub(in crate::supernode) fn durable_term(&self, index: u64) -> Result<Option<u64>, ()> {
        term(&self.lock().durable, index)
    }

    /// The term of an entry; `Err` when it was purged.
    pub(in crate::supernode) fn term(&self, index: u64) -> Result<Option<u64>, ()> {
        term(&self.lock().now, index)
    }
}

fn term(image: &Image, index: u64) -> Result<Option<u64>, ()> {
    if image.purged.is_some_and(|upto| index <= upto.index) {
        return Err(());
    }
    Ok(image.entries.get(&index).map(|entry| entry.1.term))
}

type Done = IOFlushed<Types>;
type Syncs = <<Runtime as openraft::AsyncRuntime>::Mpsc as Mpsc>::Sender<(u64, Done)>;

#[derive(Clone)]
pub(super) struct LogReader(LogDisk);

/// The log of one life.
pub(super) struct LogStore {
    disk: LogDisk,
    syncs: Syncs,
    host: u64,
    observer: Arc<dyn Observer>,
    planted: Option<Planted>,
}

impl LogStore {
    /// Refused, as by the product, when its end was lost.
    pub(super) fn open(parts: &Parts) -> Result<Self, String> {
        let disk = parts.log.clone();
        // What a killed process had written is there, and opening a database makes it durable.
        disk.sync(u64::MAX);
        {
            let disk = disk.lock();
            let (committed, last) = (disk.now.committed, disk.now.last());
            if committed.map(|id| id.index) > last.map(|id| id.index) {
                return Err(format!("the log ends at {last:?}, {committed:?} was committed"));
            }
        }
        let (syncs, waiting) = Types::mpsc(SYNCS_MAX);
        let syncing = disk.clone();
        Types::spawn(async move { sync_all(&syncing, waiting).await });
        let (host, planted) = (parts.id, parts.planted);
        Ok(Self { disk, syncs, host, observer: Arc::clone(&parts.observer), planted })
    }

    async fn submit(&self, upto: u64, done: Done) -> io::Result<()> {
        let gone = |_| io::Error::other("the sync task is gone");
        self.syncs.send((upto, done)).await.map_err(gone)
    }
}

type Waiting = <<Runtime as openraft::AsyncRuntime>::Mpsc as Mpsc>::Receiver<(u64, Done)>;

/// One sync for all that wait.
async fn sync_all(disk: &LogDisk, mut waiting: Waiting) {
    while let Some(first) = waiting.recv().await {
        let mut group = vec![first];
        while let Ok(next) = waiting.try_recv() {
            group.push(next);
        }
        let took_us = {
            let mut disk = disk.lock();
            match disk.rng.below(STALLS_ONE_IN) {
                0 => disk.rng.between(STALL_US),
                _ => disk.rng.between(SYNC_US),
            }
        };
        sleep_us(took_us).await;
        disk.sync(group.iter().map(|(upto, _)| *upto).max().unwrap_or(0));
        group.into_iter().for_each(|(_, done)| done.io_completed(Ok(())));
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let disk = self.0.lock();
        Ok(disk.now.entries.range(range).map(|(_, entry)| entry.0.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.lock().now.vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let disk = self.disk.lock();
        Ok(LogState { last_purged_log_id: disk.now.purged, last_log_id: disk.now.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.disk.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let upto = self.disk.write(Write::Vote(*vote));
        self.observer.voted(self.host, &vote_to(vote));
        if self.planted == Some(Planted::VoteNotSynced) {
            return Ok(());
        }
        let (durable, wait) = Types::oneshot();
        self.submit(upto, IOFlushed::signal(durable)).await?;
        wait.await.map_err(io::Error::other)?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(id) = committed {
            self.disk.write(Write::Committed(id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.disk.lock().now.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: Done) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut upto = 0;
        for entry in entries {
            let facts = facts(&entry);
            let before =
                facts.index.checked_sub(1).and_then(|at| self.disk.term(at).ok().flatten());
            upto = self.disk.write(Write::Append(Arc::new((entry, facts.clone()))));
            self.observer.appended(self.host, &facts, before);
        }
        if self.planted == Some(Planted::AppendNotSynced) {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.submit(upto, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.disk.write(Write::TruncateFrom(last.map_or(0, |id| id.index + 1)));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.disk.write(Write::Purge(upto));
        Ok(())
    }
}
