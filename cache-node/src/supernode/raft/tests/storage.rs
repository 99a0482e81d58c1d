//! The log and the state on disk, without a network.

use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftSnapshotBuilder, StorageError};
use prost::Message;
use rocksdb::DB;
use shoal_proto::wire::v1;
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::RaftError;
use super::super::disk::{self, Alive};
use super::super::log::LogStore;
use super::super::machine::{Machine, State};
use super::super::wire::{Batch, Entry, Types, Vote, log_id_from};
use super::{commands, mark};
use crate::metrics::{IndexMetrics, Metrics};

fn metrics() -> IndexMetrics {
    IndexMetrics::new(&Metrics::new().unwrap()).unwrap()
}

fn log(directory: &Path, node_id: u64) -> Result<LogStore, RaftError> {
    let identity = v1::RaftIdentity { cluster_id: "test".into(), node_id };
    LogStore::open(&directory.join("log"), &identity, metrics(), Alive::default())
}

fn machine(directory: &Path) -> Result<(Machine, Arc<State>), RaftError> {
    let state = Arc::new(State::open(directory, Alive::default())?);
    let machine = Machine::new(Arc::clone(&state), watch::channel(0).0, metrics())?;
    Ok((machine, state))
}

fn entry(term: u64, index: u64) -> Entry {
    let log_id = log_id_from(v1::LogId { term, index });
    Entry { log_id, payload: EntryPayload::Normal(Batch(commands(index))) }
}

async fn apply(machine: &mut Machine, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    machine.apply(futures::stream::iter(entries)).await.unwrap();
}

struct Stores;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let directory = TempDir::new().unwrap();
        let log = log(directory.path(), 1).unwrap();
        let (machine, _) = machine(directory.path()).unwrap();
        Ok((directory, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_librarys_own_suite_passes() {
    Suite::test_all(Stores).await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_there_again() {
    let directory = TempDir::new().unwrap();
    let mut store = log(directory.path(), 1).unwrap();
    store.save_vote(&Vote::new(7, 3)).await.unwrap();
    store.blocking_append((1..=9).map(|index| entry(7, index))).await.unwrap();
    store.truncate_after(Some(entry(7, 6).log_id)).await.unwrap();
    store.purge(entry(7, 2).log_id).await.unwrap();
    drop(store);

    let mut store = log(directory.path(), 1).unwrap();
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(Vote::new(7, 3)));
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(entry(7, 2).log_id));
    assert_eq!(state.last_log_id, Some(entry(7, 6).log_id));
    let entries = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries, (3..=6).map(|index| entry(7, index)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_foreign_or_damaged_log_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut store = log(directory.path(), 1).unwrap();
    store.blocking_append((1..=5).map(|index| entry(1, index))).await.unwrap();
    store.save_committed(Some(entry(1, 5).log_id)).await.unwrap();
    drop(store);
    assert!(matches!(log(directory.path(), 2), Err(RaftError::Foreign { .. })));

    let damage = |change: &dyn Fn(&DB)| {
        change(&DB::open(&disk::options(1 << 20), directory.path().join("log")).unwrap());
    };
    let key = |index: u64| [&b"e"[..], &index.to_be_bytes()].concat();
    // An entry under another's key, an undecodable one, and a hole are errors, never skipped.
    let misplaced = super::super::wire::entry_to(entry(1, 4)).encode_to_vec();
    let damages: [&dyn Fn(&DB); 3] = [
        &|db| db.put(key(2), &misplaced).unwrap(),
        &|db| db.put(key(2), b"\xff\xff").unwrap(),
        &|db| db.delete(key(2)).unwrap(),
    ];
    for change in damages {
        damage(change);
        let mut reader = log(directory.path(), 1).unwrap().get_log_reader().await;
        assert!(reader.try_get_log_entries(1..6).await.is_err());
    }
    // A log that lost its committed end does not start.
    damage(&|db| db.delete(key(5)).unwrap());
    assert!(matches!(log(directory.path(), 1), Err(RaftError::Truncated { .. })));
}

#[tokio::test]
async fn a_snapshot_replaces_the_state_or_leaves_it_alone() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut sender, sent) = machine(there.path()).unwrap();
    apply(&mut sender, (1..=20).map(|index| entry(1, index))).await;
    let built = sender.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let (mut receiver, state) = machine(here.path()).unwrap();
    apply(&mut receiver, (1..=3).chain([99]).map(|index| entry(1, index))).await;
    let before = receiver.applied_state().await.unwrap();

    // One flipped bit anywhere: refused before anything is touched.
    let bytes = std::fs::read(&built.snapshot.path).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let refused = install(&mut receiver, &state, &bad).await.unwrap_err();
        assert!(state.contains(&mark(99)), "{refused}");
        assert_eq!(receiver.applied_state().await.unwrap(), before);
    }
    assert!(install(&mut receiver, &state, &bytes[..bytes.len() - 1]).await.is_err());

    install(&mut receiver, &state, &bytes).await.unwrap();
    let after = receiver.applied_state().await.unwrap();
    assert_eq!(after, sender.applied_state().await.unwrap());
    for position in [1, 20, 99] {
        let mark = mark(position);
        assert_eq!(state.contains(&mark), sent.contains(&mark), "{position}");
    }
    assert_eq!(receiver.get_current_snapshot().await.unwrap().unwrap().meta, built.meta);
}

/// Installs `bytes` as if they had been received.
async fn install(machine: &mut Machine, state: &Arc<State>, bytes: &[u8]) -> io::Result<()> {
    let path = state.incoming();
    std::fs::write(&path, bytes)?;
    let file = super::super::snapshot::SnapshotFile::open(&path)?.unwrap();
    let snapshot = super::super::machine::received(state, file)?;
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await
}

#[tokio::test]
async fn an_interrupted_installation_is_finished_at_the_next_start() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut sender, _) = machine(there.path()).unwrap();
    apply(&mut sender, (1..=20).map(|index| entry(1, index))).await;
    let built = sender.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let (mut receiver, state) = machine(here.path()).unwrap();
    apply(&mut receiver, [entry(1, 99)]).await;
    drop((receiver, state));
    // As a crash leaves it: the file has its name, and the state is in any condition.
    let snapshots = here.path().join("snapshots");
    std::fs::copy(&built.snapshot.path, snapshots.join("install")).unwrap();

    let (mut receiver, state) = machine(here.path()).unwrap();
    assert_eq!(receiver.applied_state().await.unwrap(), sender.applied_state().await.unwrap());
    assert!(state.contains(&mark(20)));
    assert!(!state.contains(&mark(99)));
    assert!(!snapshots.join("install").exists() && snapshots.join("current").exists());
}
