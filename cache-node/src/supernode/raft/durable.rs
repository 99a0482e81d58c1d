//! What of the log is durable: one thread syncs the write-ahead log for all that wait, and notes
//! how far it got in a small file beside the log.
//!
//! The note is what tells an end that was torn off by a crash, which nobody was told of, from one
//! that was lost, which others counted on. It is written after the sync that it speaks of and never
//! synced itself, so it is never ahead of the log; before the log is cut it is cut and synced first.
//!
//! Invariants: after a failed sync nothing is ever reported durable again. Entries are durable here
//! before they are applied here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::IOFlushed;
use prost::Message;
use shoal_proto::wire::v1;
use tokio::sync::{mpsc, watch};

use super::disk;
use super::wire::Types;
use crate::metrics::IndexMetrics;
use crate::{clock, tasks};

/// Most appends that wait for one sync.
const SYNC_GROUP_MAX: usize = 1_024;
/// The note, in bytes: less than a sector, so that it is never torn.
const NOTE_BYTES: usize = 128;

/// What the log must at least hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Noted {
    /// The position after the last durable entry's.
    pub(super) end: u64,
    /// The last durable vote.
    pub(super) vote: Option<v1::Vote>,
}

/// The position after the last durable entry's, or why no more will be durable.
pub(super) type Progress = Result<u64, String>;

/// One thing to be made durable.
pub(super) struct Waiting {
    what: What,
    done: Option<IOFlushed<Types>>,
}

enum What {
    /// Entries before a position, of the log as it was cut so many times.
    Entries {
        cuts: u64,
        end: u64,
    },
    Vote(v1::Vote),
}

/// How a test makes a sync fail.
pub(super) type Sync = Box<dyn Fn() -> Result<(), String> + Send>;

struct Note {
    file: File,
    noted: Noted,
    cuts: u64,
}

impl Note {
    fn write(&self) -> io::Result<()> {
        self.file.write_all_at(&encode(&self.noted), 0)
    }
}

fn encode(noted: &Noted) -> [u8; NOTE_BYTES] {
    let message = v1::LogNote { end: noted.end, vote: noted.vote };
    let content = message.encode_length_delimited_to_vec();
    let mut note = [0; NOTE_BYTES];
    let (digest, rest) = note.split_at_mut(blake3::OUT_LEN);
    rest[..content.len()].copy_from_slice(&content);
    digest.copy_from_slice(blake3::hash(rest).as_bytes());
    note
}

fn decode(note: &[u8]) -> Option<Noted> {
    let (digest, rest) = note.split_at_checked(blake3::OUT_LEN)?;
    let message = v1::LogNote::decode_length_delimited(rest).ok()?;
    let noted = Noted { end: message.end, vote: message.vote };
    (blake3::hash(rest).as_bytes() == digest).then_some(noted)
}

/// What stands in the note at `path`; `None` when there is none.
///
/// # Errors
/// `InvalidData` when it cannot be read back.
pub(super) fn read(path: &Path) -> io::Result<Option<Noted>> {
    match std::fs::read(path) {
        Ok(note) => decode(&note).map(Some).ok_or_else(|| disk::corrupt(path, "is damaged")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes writes durable, many at a time. Dropped, it waits for those under way.
pub(super) struct Durable {
    note: Arc<Mutex<Note>>,
    progress: watch::Receiver<Progress>,
    queue: Option<mpsc::Sender<Waiting>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn locked(note: &Mutex<Note>) -> MutexGuard<'_, Note> {
    note.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Durable {
    /// Begins with a log of which all is durable, as `noted` says; keeps the note at `path`.
    ///
    /// # Errors
    /// When the note cannot be written, or no thread started.
    pub(super) fn start(
        path: &Path,
        noted: Noted,
        sync: Sync,
        metrics: IndexMetrics,
    ) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let note = Note { file, noted, cuts: 0 };
        note.write()?;
        note.file.sync_all()?;
        disk::sync_directory(path.parent().unwrap_or(path))?;
        let note = Arc::new(Mutex::new(note));
        let (told, progress) = watch::channel(Ok(noted.end));
        let (queue, waiting) = mpsc::channel(SYNC_GROUP_MAX);
        let worker = Worker { note: Arc::clone(&note), told, sync, metrics };
        let thread = tasks::thread("raft-sync", move || worker.run(waiting))?;
        Ok(Self { note, progress, queue: Some(queue), thread: Some(thread) })
    }

    /// Tells how far the log is durable.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Entries before `end` are written: `done` is told when they are durable.
    pub(super) async fn entries(&self, end: u64, done: IOFlushed<Types>) -> io::Result<()> {
        let what = What::Entries { cuts: locked(&self.note).cuts, end };
        self.submit(Waiting { what, done: Some(done) }).await
    }

    /// A vote is written: `done` is told when it is durable.
    pub(super) async fn vote(&self, vote: v1::Vote, done: IOFlushed<Types>) -> io::Result<()> {
        self.submit(Waiting { what: What::Vote(vote), done: Some(done) }).await
    }

    /// The log is about to be cut at `end`. To be called before it is; blocks.
    pub(super) fn cutting(&self, end: u64) -> io::Result<()> {
        let mut note = locked(&self.note);
        note.cuts += 1;
        note.noted.end = note.noted.end.min(end);
        note.write()?;
        note.file.sync_data()
    }

    /// The log was cut at `end`.
    pub(super) async fn cut(&self, end: u64) -> io::Result<()> {
        let what = What::Entries { cuts: locked(&self.note).cuts, end };
        self.submit(Waiting { what, done: None }).await
    }

    async fn submit(&self, waiting: Waiting) -> io::Result<()> {
        let gone = || io::Error::other("the log's sync thread has ended");
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(waiting).await.map_err(|_| gone())
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log's sync thread panicked");
        }
    }
}

struct Worker {
    note: Arc<Mutex<Note>>,
    told: watch::Sender<Progress>,
    sync: Sync,
    metrics: IndexMetrics,
}

impl Worker {
    fn run(&self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut group = Vec::with_capacity(SYNC_GROUP_MAX);
        let mut failed: Option<String> = None;
        while waiting.blocking_recv_many(&mut group, SYNC_GROUP_MAX) > 0 {
            let started = clock::monotonic();
            if failed.is_none() {
                failed = self.sync_group(&group).err();
                self.metrics.sync_seconds.observe(clock::since(started).as_secs_f64());
            }
            if let Some(why) = &failed {
                self.told
                    .send_if_modified(|told| std::mem::replace(told, Err(why.clone())).is_ok());
            }
            let outcome = || failed.clone().map_or(Ok(()), |why| Err(io::Error::other(why)));
            for done in group.drain(..).filter_map(|waiting| waiting.done) {
                done.io_completed(outcome());
            }
        }
    }

    fn sync_group(&self, group: &[Waiting]) -> Result<(), String> {
        (self.sync)().map_err(|error| format!("raft log sync: {error}"))?;
        let mut note = locked(&self.note);
        let before = note.noted;
        for waiting in group {
            match waiting.what {
                What::Entries { cuts, end } if cuts == note.cuts => {
                    note.noted.end = note.noted.end.max(end);
                }
                // The log was cut since: what was durable of these is no longer all there.
                What::Entries { .. } => {}
                What::Vote(vote) => note.noted.vote = Some(vote),
            }
        }
        if note.noted != before {
            note.write().map_err(|error| format!("raft log note: {error}"))?;
        }
        drop(self.told.send_replace(Ok(note.noted.end)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_or_refused() {
        let vote = Some(v1::Vote { term: u64::MAX, node_id: u64::MAX, committed: true });
        for noted in [Noted::default(), Noted { end: u64::MAX, vote }] {
            let mut note = encode(&noted);
            assert_eq!(decode(&note), Some(noted));
            note[40] ^= 1;
            assert_eq!(decode(&note), None);
        }
        assert_eq!(decode(&[]), None);
    }
}
