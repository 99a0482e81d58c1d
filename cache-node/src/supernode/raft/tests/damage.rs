//! Data on disk that is not what was written: found, named, and never voted with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use tempfile::TempDir;

use super::super::RaftError;
use super::super::disk::Alive;
use super::super::log::LogStore;
use super::super::machine::Machine;
use super::super::state::State;
use super::super::wire::Vote;
use super::mark;
use super::storage::{apply, entry, identity, log, machine_over, metrics};

/// Bytes flipped, and lengths cut to, in each file.
const SAMPLES: u64 = 20;

pub(super) fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        match path.is_dir() {
            true => copy_directory(&path, &to),
            false => drop(fs::copy(&path, to).unwrap()),
        }
    }
}

fn open(directory: &Path) -> Result<(Arc<State>, LogStore), RaftError> {
    super::super::open(directory, &identity(1), metrics(), Alive::default())
}

/// A log with entries in tables and in its write-ahead log, and a vote.
async fn write_log(directory: &Path) {
    let mut store = log(directory, 1).unwrap();
    store.save_vote(&Vote::new(1, 1)).await.unwrap();
    store.blocking_append((0..=20).map(|index| entry(1, index))).await.unwrap();
    drop(store);
    let mut store = log(directory, 1).unwrap();
    store.blocking_append((21..=30).map(|index| entry(1, index))).await.unwrap();
    store.save_committed(Some(entry(1, 30).log_id)).await.unwrap();
    store.save_vote(&Vote::new(2, 3)).await.unwrap();
}

async fn assert_whole(mut store: LogStore, what: &str) {
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(Vote::new(2, 3)), "{what}");
    let entries = reader.try_get_log_entries(0..31).await.unwrap();
    assert_eq!(entries, (0..=30).map(|index| entry(1, index)).collect::<Vec<_>>(), "{what}");
    let last = store.get_log_state().await.unwrap().last_log_id;
    assert_eq!(last, Some(entry(1, 30).log_id), "{what}");
}

/// Opens the log after `damage` to a copy of one of its files: it is whole, or refused by name.
async fn is_whole_or_refused(good: &Path, name: &Path, what: &str, damage: impl Fn(&Path)) -> bool {
    let copy = TempDir::new().unwrap();
    copy_directory(good, copy.path());
    damage(&copy.path().join(name));
    let what = format!("{what} of {}", name.display());
    match log(copy.path(), 1) {
        Ok(store) => {
            assert_whole(store, &what).await;
            false
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(copy.path().to_str().unwrap()), "{what}: {message}");
            assert!(message.contains("join under a new node id"), "{what}: {message}");
            // Trying again does not make it better.
            assert!(log(copy.path(), 1).is_err(), "{what}");
            true
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let names = |path: PathBuf| {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let all = names(directory.join("log")).into_iter().chain([directory.join("log.note")]);
    // RocksDB's own log says nothing that matters.
    let data = all.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("LO"));
    data.map(|path| path.strip_prefix(directory).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_damaged_log_is_refused_or_whole() {
    let good = TempDir::new().unwrap();
    write_log(good.path()).await;
    let (mut cases, mut refused) = (0, 0);
    for name in files(good.path()) {
        let length = fs::metadata(good.path().join(&name)).unwrap().len();
        for sample in 0..SAMPLES.min(length) {
            let at = length * sample / SAMPLES.min(length);
            let flip = |path: &Path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[usize::try_from(at).unwrap()] ^= 0x10;
                fs::write(path, bytes).unwrap();
            };
            let cut = |path: &Path| {
                fs::File::options().write(true).open(path).unwrap().set_len(at).unwrap();
            };
            let what = format!("byte {at} flipped");
            refused += u32::from(is_whole_or_refused(good.path(), &name, &what, flip).await);
            let what = format!("all after {at} cut");
            refused += u32::from(is_whole_or_refused(good.path(), &name, &what, cut).await);
            cases += 2;
        }
        let remove = |path: &Path| fs::remove_file(path).unwrap();
        refused += u32::from(is_whole_or_refused(good.path(), &name, "loss", remove).await);
        cases += 1;
    }
    // Of the identity and options files RocksDB needs nothing.
    assert!(refused * 2 > cases, "{refused} of {cases}");
}

#[tokio::test]
async fn a_log_that_is_gone_while_the_state_is_there_is_refused() {
    let directory = TempDir::new().unwrap();
    let (mut machine, state, store) = written(directory.path(), 20, None).await;
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    drop((machine, state, store));
    for with_note in [true, false] {
        let copy = TempDir::new().unwrap();
        copy_directory(directory.path(), copy.path());
        fs::remove_dir_all(copy.path().join("log")).unwrap();
        if !with_note {
            fs::remove_file(copy.path().join("log.note")).unwrap();
        }
        assert!(open(copy.path()).is_err(), "note: {with_note}");
    }
    // Somebody else's state is refused by name.
    let foreign = super::super::open(directory.path(), &identity(2), metrics(), Alive::default());
    assert!(matches!(foreign.map(drop), Err(RaftError::Foreign { .. })));
    open(directory.path()).unwrap();
}

/// A super-node that has written and applied so many entries; its log is purged up to `purged` after
/// a snapshot, when given.
async fn written(
    directory: &Path,
    entries: u64,
    purged: Option<u64>,
) -> (Machine, Arc<State>, LogStore) {
    let (state, mut store) = open(directory).unwrap();
    let mut machine = machine_over(&state, store.progress());
    store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    store.blocking_append((0..=entries).map(|index| entry(1, index))).await.unwrap();
    store.save_committed(Some(entry(1, entries).log_id)).await.unwrap();
    apply(&mut machine, (0..=entries).map(|index| entry(1, index))).await;
    if let Some(purged) = purged {
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        store.purge(entry(1, purged).log_id).await.unwrap();
    }
    (machine, state, store)
}

/// Does what the library does at a start: installs a newer snapshot, applies what was committed.
pub(super) async fn recover(state: &Arc<State>, store: &mut LogStore) -> Machine {
    let mut machine = machine_over(state, store.progress());
    if let Some(current) = machine.get_current_snapshot().await.unwrap()
        && current.meta.last_log_id > machine.applied_state().await.unwrap().0
    {
        machine.install_snapshot(&current.meta, current.snapshot).await.unwrap();
    }
    let next = machine.applied_state().await.unwrap().0.map_or(0, |id| id.index + 1);
    let end = store.read_committed().await.unwrap().map_or(0, |id| id.index + 1);
    let mut reader = store.get_log_reader().await;
    let missed = reader.try_get_log_entries(next..end).await.unwrap();
    if end > next {
        assert_eq!(missed.first().unwrap().log_id.index, next);
        apply(&mut machine, missed).await;
    }
    machine
}

#[tokio::test]
async fn a_damaged_state_is_rebuilt_from_the_snapshot_and_the_log() {
    let good = TempDir::new().unwrap();
    drop(written(good.path(), 20, Some(15)).await);
    let remove = |path: PathBuf| move |at: &Path| fs::remove_file(at.join(&path)).unwrap();
    let table = fs::read_dir(good.path().join("state-1")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.ends_with(".sst").then_some(name)
    });
    let table = PathBuf::from("state-1").join(table.unwrap());
    type Damage = Box<dyn Fn(&Path)>;
    let damages: [(&str, Damage); 5] = [
        ("no pointer", Box::new(remove("current".into()))),
        ("no table", Box::new(remove(table.clone()))),
        ("no database", Box::new(remove("state-1/CURRENT".into()))),
        ("a short table", Box::new(move |at: &Path| fs::write(at.join(&table), b"short").unwrap())),
        (
            "found while applying",
            Box::new(|at: &Path| {
                super::super::disk::write_checked(&at.join("state.damaged"), &[]).unwrap();
            }),
        ),
    ];
    for (what, damage) in damages {
        let copy = TempDir::new().unwrap();
        copy_directory(good.path(), copy.path());
        damage(copy.path());
        let (state, mut store) = open(copy.path()).unwrap();
        assert!(!state.contains(&mark(15)), "{what}");
        let mut machine = recover(&state, &mut store).await;
        let applied = machine.applied_state().await.unwrap().0;
        assert_eq!(applied, Some(entry(1, 20).log_id), "{what}");
        assert!((0..=20).all(|position| state.contains(&mark(position))), "{what}");
        drop((machine, state, store));
        // Once is enough.
        assert!(open(copy.path()).unwrap().0.contains(&mark(15)), "{what}");
    }
}

#[tokio::test]
async fn a_state_that_nothing_here_can_rebuild_is_refused() {
    for purged in [None, Some(15)] {
        let directory = TempDir::new().unwrap();
        drop(written(directory.path(), 20, purged).await);
        fs::remove_file(directory.path().join("current")).unwrap();
        let snapshots = directory.path().join("snapshots");
        for snapshot in fs::read_dir(&snapshots).unwrap() {
            // The hash finds what lengths and names do not.
            let file = snapshot.unwrap().path().join("CURRENT");
            let mut bytes = fs::read(&file).unwrap();
            bytes[0] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
        match (open(directory.path()), purged) {
            (Ok((state, mut store)), None) => {
                recover(&state, &mut store).await;
                assert!(state.contains(&mark(20)));
            }
            (Err(error @ RaftError::Lost { .. }), Some(_)) => {
                assert!(error.to_string().contains("join under a new node id"), "{error}");
            }
            (other, _) => panic!("{purged:?}: {:?}", other.map(drop)),
        }
    }
}

#[tokio::test]
async fn what_a_snapshot_overtook_is_cut_from_the_log() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut sending, _, _log) = written(there.path(), 20, None).await;
    let built = sending.get_snapshot_builder().await.build_snapshot().await.unwrap();
    // Entries of a leader that was deposed, further than the snapshot goes, and never committed.
    let (state, mut store) = open(here.path()).unwrap();
    store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    store.blocking_append((0..=30).map(|index| entry(0, index))).await.unwrap();
    state.install(&built.snapshot).unwrap();
    drop((state, store));

    let (state, mut store) = open(here.path()).unwrap();
    assert!(state.contains(&mark(20)));
    let found = store.get_log_state().await.unwrap();
    assert_eq!(found.last_log_id, built.meta.last_log_id);
    assert_eq!(found.last_purged_log_id, built.meta.last_log_id);
}
