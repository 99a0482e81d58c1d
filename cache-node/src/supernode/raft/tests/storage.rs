//! The log and the state on disk, without a network.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use prost::Message;
use rocksdb::DB;
use shoal_proto::wire::v1;
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::RaftError;
use super::super::disk::Alive;
use super::super::durable::Progress;
use super::super::log::{LogStore, open_db};
use super::super::machine::Machine;
use super::super::state::State;
use super::super::wire::{Batch, Entry, Types, Vote, log_id_from};
use super::commands;
use crate::metrics::{IndexMetrics, Metrics};

pub(super) fn metrics() -> IndexMetrics {
    IndexMetrics::new(&Metrics::new().unwrap()).unwrap()
}

pub(super) fn identity(node_id: u64) -> v1::RaftIdentity {
    v1::RaftIdentity { cluster_id: "test".into(), node_id }
}

pub(super) fn log(directory: &Path, node_id: u64) -> Result<LogStore, RaftError> {
    LogStore::open(&directory.join("log"), &identity(node_id), metrics(), Alive::default())
}

/// A machine whose log is taken to be durable.
pub(super) fn machine(directory: &Path) -> Result<(Machine, Arc<State>), RaftError> {
    let state = Arc::new(State::open(directory, &identity(1), Alive::default())?);
    Ok((machine_over(&state, watch::channel(Ok(u64::MAX)).1), state))
}

pub(super) fn machine_over(state: &Arc<State>, durable: watch::Receiver<Progress>) -> Machine {
    Machine::new(Arc::clone(state), watch::channel(0).0, durable, metrics()).unwrap()
}

pub(super) fn entry(term: u64, index: u64) -> Entry {
    let log_id = log_id_from(v1::LogId { term, index });
    Entry { log_id, payload: EntryPayload::Normal(Batch(commands(index))) }
}

pub(super) async fn apply(machine: &mut Machine, entries: impl IntoIterator<Item = Entry>) {
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
    store.blocking_append((0..=9).map(|index| entry(7, index))).await.unwrap();
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
    store.blocking_append((0..=5).map(|index| entry(1, index))).await.unwrap();
    store.save_committed(Some(entry(1, 5).log_id)).await.unwrap();
    drop(store);
    assert!(matches!(log(directory.path(), 2), Err(RaftError::Foreign { .. })));

    let damage = |change: &dyn Fn(&DB)| {
        change(&open_db(&directory.path().join("log"), false).unwrap());
    };
    let key = |index: u64| [&b"e"[..], &index.to_be_bytes()].concat();
    let good = super::super::wire::entry_to(entry(1, 2)).encode_to_vec();
    // An entry under another's key, an undecodable one, and a hole are errors, never skipped.
    let misplaced = super::super::wire::entry_to(entry(1, 4)).encode_to_vec();
    let damages: [&dyn Fn(&DB); 3] = [
        &|db| db.put(key(2), &misplaced).unwrap(),
        &|db| db.put(key(2), b"\xff\xff").unwrap(),
        &|db| db.delete(key(2)).unwrap(),
    ];
    for change in damages {
        damage(change);
        assert!(matches!(log(directory.path(), 1), Err(RaftError::Damaged { .. })));
    }
    damage(&|db| db.put(key(2), &good).unwrap());
    log(directory.path(), 1).unwrap();
    // A log that lost its committed end does not start.
    damage(&|db| db.delete(key(5)).unwrap());
    assert!(matches!(log(directory.path(), 1), Err(RaftError::Truncated { .. })));
}
