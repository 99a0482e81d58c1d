//! Kills, lost writes and failed syncs: what was acknowledged is there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

use super::super::disk::Alive;
use super::super::log::LogStore;
use super::super::state::State;
use super::super::wire::{Types, Vote};
use super::damage::{copy_directory, recover};
use super::mark;
use super::storage::{apply, entry, identity, log, machine_over, metrics};

const DIRECTORY: &str = "SHOAL_TEST_RAFT_KILL_DIRECTORY";
const KILLS: u64 = 24;
/// Entries between two snapshots of the child.
const SNAPSHOT_EVERY: u64 = 16;

/// The child: runs only when the test below starts it. It does what the library does with the log
/// and the state, and says what it has acknowledged.
#[tokio::test]
async fn child_that_writes_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let opened = super::super::open(directory, &identity(1), metrics(), Alive::default());
    let (state, mut store) = opened.unwrap();
    let mut machine = recover(&state, &mut store).await;
    let first = store.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
    let vote = store.get_log_reader().await.read_vote().await.unwrap();
    let term = vote.map_or(1, |vote| vote.leader_id.term + 1);
    store.save_vote(&Vote::new_committed(term, 1)).await.unwrap();
    writeln!(std::io::stdout(), "voted {term}").unwrap();
    for index in first.. {
        store.blocking_append([entry(term, index)]).await.unwrap();
        writeln!(std::io::stdout(), "acknowledged {index}").unwrap();
        // What came before is committed by now.
        let next = machine.applied_state().await.unwrap().0.map_or(0, |id| id.index + 1);
        store.save_committed(Some(entry(term, index).log_id)).await.unwrap();
        let mut reader = store.get_log_reader().await;
        let entries = reader.try_get_log_entries(next..index + 1).await.unwrap();
        apply(&mut machine, entries).await;
        if index.is_multiple_of(SNAPSHOT_EVERY) {
            let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
            store.purge(built.meta.last_log_id.unwrap()).await.unwrap();
        }
    }
}

/// Runs the child until it has acknowledged `more` entries, and kills it; its last vote and entry.
fn run_and_kill(directory: &Path, more: usize) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "supernode::raft::tests::crash::child_that_writes_until_killed"])
        .arg("--nocapture")
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let number = |line: &str, word: &str| line.split_once(word)?.1.trim().parse::<u64>().ok();
    let vote = lines.by_ref().find_map(|line| number(&line, "voted ")).unwrap();
    let acknowledged = lines.filter_map(|line| number(&line, "acknowledged ")).take(more).last();
    child.kill().unwrap();
    child.wait().unwrap();
    (vote, acknowledged.unwrap())
}

#[tokio::test]
async fn kills_lose_nothing_acknowledged() {
    let directory = TempDir::new().unwrap();
    for kill in 0..KILLS {
        let more = 1 + usize::try_from(kill * 7 % 23).unwrap();
        let (vote, acknowledged) = run_and_kill(directory.path(), more);
        let copy = TempDir::new().unwrap();
        copy_directory(directory.path(), copy.path());
        let opened = super::super::open(copy.path(), &identity(1), metrics(), Alive::default());
        let (state, mut store) = opened.unwrap();
        recover(&state, &mut store).await;
        let voted = store.get_log_reader().await.read_vote().await.unwrap().unwrap();
        assert_eq!(voted, Vote::new_committed(vote, 1), "kill {kill}");
        let last = store.get_log_state().await.unwrap().last_log_id.unwrap().index;
        assert!(last >= acknowledged, "kill {kill}: {last} < {acknowledged}");
        // The newest may not be known to be committed yet; then a leader says so.
        store.save_committed(Some(entry(vote, last).log_id)).await.unwrap();
        recover(&state, &mut store).await;
        for position in 0..=last {
            assert!(state.contains(&mark(position)), "kill {kill}: {position}");
        }
    }
}

/// A log whose directory as of each sync can be had again.
struct Synced {
    directory: TempDir,
    /// Lengths of the files when they were last synced.
    lengths: Arc<Mutex<Vec<(PathBuf, u64)>>>,
}

impl Synced {
    fn new() -> (Self, LogStore) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let lengths = Arc::new(Mutex::new(Vec::new()));
        let (noting, place) = (Arc::clone(&lengths), path.clone());
        let store = LogStore::open_with(&path, &identity(1), (metrics(), Alive::default()), |db| {
            Box::new(move || {
                // What is there before the sync is there after a power cut from then on.
                let found = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap());
                let lengths = found.map(|entry| (entry.path(), entry.metadata().unwrap().len()));
                let lengths: Vec<_> = lengths.collect();
                db.flush_wal(true).unwrap();
                *noting.lock().unwrap() = lengths;
                Ok(())
            })
        });
        (Self { directory, lengths }, store.unwrap())
    }

    /// The directory after a power cut that keeps `torn` bytes of what was not synced.
    fn power_cut(&self, note: &[u8], torn: u64) -> TempDir {
        let copy = TempDir::new().unwrap();
        copy_directory(self.directory.path(), copy.path());
        fs::write(copy.path().join("log.note"), note).unwrap();
        for (path, synced) in &*self.lengths.lock().unwrap() {
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            let copied = copy.path().join(path.strip_prefix(self.directory.path()).unwrap());
            if is_log {
                let length = fs::metadata(&copied).unwrap().len().min(synced + torn);
                fs::File::options().write(true).open(copied).unwrap().set_len(length).unwrap();
            }
        }
        copy
    }

    fn note(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("log.note")).unwrap()
    }
}

#[tokio::test]
async fn a_power_cut_loses_only_what_was_not_acknowledged() {
    let (synced, mut store) = Synced::new();
    // The note is never synced: after a power cut it may be as it was at any time since the start.
    let mut notes = vec![synced.note()];
    for round in 1..=6 {
        store.save_vote(&Vote::new(round, 2)).await.unwrap();
        store.blocking_append((0..5).map(|n| entry(round, (round - 1) * 5 + n))).await.unwrap();
        notes.push(synced.note());
        // Not synced: known only to be committed.
        store.save_committed(Some(entry(round, round * 5 - 1).log_id)).await.unwrap();
        for note in &notes {
            for torn in [0, 1, 7, 20, 4096] {
                let copy = synced.power_cut(note, torn);
                let mut again = log(copy.path(), 1).unwrap();
                let mut reader = again.get_log_reader().await;
                assert_eq!(reader.read_vote().await.unwrap(), Some(Vote::new(round, 2)));
                let entries = reader.try_get_log_entries(0..round * 5).await.unwrap();
                assert_eq!(entries.len() as u64, round * 5, "round {round}, {torn} bytes torn");
            }
        }
    }
    // The same loss without a power cut to excuse it, since the note was written after the sync.
    let copy = synced.power_cut(&synced.note(), 0);
    let path = synced.lengths.lock().unwrap().iter().find_map(|(path, length)| {
        let name = path.strip_prefix(synced.directory.path()).unwrap();
        path.extension().is_some_and(|e| e == "log").then(|| (copy.path().join(name), *length))
    });
    let (path, length) = path.unwrap();
    fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    assert!(log(copy.path(), 1).is_err());
}

#[tokio::test]
async fn a_cut_of_the_log_is_never_taken_for_a_loss() {
    let (synced, mut store) = Synced::new();
    store.save_vote(&Vote::new(1, 2)).await.unwrap();
    store.blocking_append((0..=9).map(|index| entry(1, index))).await.unwrap();
    store.truncate_after(Some(entry(1, 4).log_id)).await.unwrap();
    let after_cut = synced.note();
    store.blocking_append((5..=6).map(|index| entry(1, index))).await.unwrap();
    for note in [after_cut, synced.note()] {
        let copy = synced.power_cut(&note, 0);
        let mut again = log(copy.path(), 1).unwrap();
        let last = again.get_log_state().await.unwrap().last_log_id;
        assert_eq!(last, Some(entry(1, 6).log_id));
    }
}

#[tokio::test]
async fn a_failed_sync_is_never_made_good() {
    let directory = TempDir::new().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let parts = (metrics(), Alive::default());
    let path = directory.path().join("log");
    let store = LogStore::open_with(&path, &identity(1), parts, |db| {
        Box::new(move || match switch.load(Ordering::Relaxed) {
            true => Err("input/output error".into()),
            false => db.flush_wal(true).map_err(|error| error.to_string()),
        })
    });
    let mut store = store.unwrap();
    store.blocking_append([entry(1, 0), entry(1, 1)]).await.unwrap();
    let state = State::open(directory.path(), &identity(1), Alive::default()).unwrap();
    let mut applying = machine_over(&Arc::new(state), store.progress());
    let mut durable = store.progress();
    assert_eq!(*durable.borrow(), Ok(2));

    let append = async |store: &mut LogStore, index| {
        let (told, outcome) = Types::oneshot();
        store.append([entry(1, index)], IOFlushed::signal(told)).await.unwrap();
        outcome.await.unwrap()
    };
    broken.store(true, Ordering::Relaxed);
    let failed = append(&mut store, 2).await.unwrap_err();
    assert!(failed.to_string().contains("input/output error"), "{failed}");
    // The disk is well again; what it dropped meanwhile nobody knows.
    broken.store(false, Ordering::Relaxed);
    assert!(append(&mut store, 3).await.is_err());
    assert!(store.save_vote(&Vote::new(9, 1)).await.is_err());
    assert!(durable.wait_for(Result::is_err).await.is_ok());
    // Nor is any of it applied.
    let entries = [0, 1, 2].map(|index| Ok((entry(1, index), None)));
    let refused = applying.apply(futures::stream::iter(entries)).await.unwrap_err();
    assert!(refused.to_string().contains("input/output error"), "{refused}");
}
