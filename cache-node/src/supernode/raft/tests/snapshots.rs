//! Snapshots on disk: built, received, installed, and crashes on the way.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, RpcError};
use tempfile::TempDir;

use super::super::machine::Machine;
use super::super::receive::Incoming;
use super::super::snapshot::{PIECE_BYTES, SnapshotDir, SnapshotOf, describe, read_piece, seal};
use super::super::state::State;
use super::mark;
use super::storage::{apply, entry, machine};

async fn build(machine: &mut Machine) -> SnapshotOf {
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap()
}

/// A machine that has applied so many entries, and its snapshot.
async fn sender(directory: &Path, entries: u64) -> (Machine, Arc<State>, SnapshotOf) {
    let (mut machine, state) = machine(directory).unwrap();
    apply(&mut machine, (1..=entries).map(|index| entry(1, index))).await;
    let built = build(&mut machine).await;
    (machine, state, built)
}

/// Receives `from` as over a network that does nothing wrong.
async fn receive(state: &State, from: &SnapshotDir) -> Result<SnapshotDir, RpcError> {
    let fetch = |hash: Bytes, offset| async move {
        Ok(read_piece(&from.find(&hash, None).unwrap(), offset).unwrap())
    };
    let mine = state.snapshots().current();
    Incoming::new(state.incoming()).receive(from.manifest().clone(), mine, fetch).await
}

async fn install(machine: &mut Machine, state: &State, from: &SnapshotOf) -> io::Result<()> {
    let received = receive(state, &from.snapshot).await.map_err(io::Error::other)?;
    machine.install_snapshot(&from.meta, received).await
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_snapshot_replaces_the_state_in_one_step() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut sending, sent, built) = sender(there.path(), 20).await;
    let (mut receiver, state) = machine(here.path()).unwrap();
    apply(&mut receiver, (1..=3).chain([99]).map(|index| entry(1, index))).await;
    let reader = state.index().clone();
    let before = reader.db();

    install(&mut receiver, &state, &built).await.unwrap();
    assert_eq!(receiver.applied_state().await.unwrap(), sending.applied_state().await.unwrap());
    for position in [1, 20, 99] {
        let mark = mark(position);
        assert_eq!(state.contains(&mark), sent.contains(&mark), "{position}");
    }
    assert_eq!(receiver.get_current_snapshot().await.unwrap().unwrap().meta, built.meta);
    // Who was reading the old state still can; it is gone at the next snapshot after that.
    assert!(before.path().exists());
    let old = before.path().to_owned();
    drop(before);
    build(&mut receiver).await;
    assert!(!old.exists());

    // The installed state is there after a restart, and goes on.
    apply(&mut receiver, [entry(1, 21)]).await;
    drop((receiver, state, reader));
    let (mut receiver, state) = machine(here.path()).unwrap();
    let (applied, _) = receiver.applied_state().await.unwrap();
    assert_eq!(applied.map(|id| id.index), Some(21));
    assert!(state.contains(&mark(21)));
    assert_eq!(state.installed(), built.meta.last_log_id);
}

#[tokio::test]
async fn a_newer_snapshot_takes_the_place_of_an_older_one_that_nobody_reads() {
    let directory = TempDir::new().unwrap();
    let (mut machine, state, first) = sender(directory.path(), 20).await;
    apply(&mut machine, [entry(1, 21)]).await;
    let second = build(&mut machine).await;
    let snapshots = directory.path().join("snapshots");
    assert_eq!(names(&snapshots).len(), 2, "the first is still being read");
    let wanted = &first.snapshot.manifest().files[0].hash;
    assert!(state.snapshots().find(wanted).is_some());
    first.snapshot.verify().unwrap();
    drop(first);
    assert_eq!(names(&snapshots), [second.snapshot.path().file_name().unwrap().to_str().unwrap()]);
    // Tables that did not change are the same files, and are not hashed again.
    assert!(second.snapshot.manifest().files.len() > 2);
    second.snapshot.verify().unwrap();
    // Nothing new: the same snapshot.
    assert_eq!(build(&mut machine).await.snapshot.path(), second.snapshot.path());
}

#[tokio::test]
async fn a_file_that_is_not_what_was_announced_is_refused() {
    let (there, here) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (_sending, _, built) = sender(there.path(), 20).await;
    let (mut receiver, state) = machine(here.path()).unwrap();
    apply(&mut receiver, [entry(1, 99)]).await;
    let before = receiver.applied_state().await.unwrap();
    let incoming = Incoming::new(state.incoming());
    let from = &built.snapshot;
    for file in from.manifest().files.iter().filter(|file| file.length > 0) {
        // One flipped bit, a byte too few, a byte too many.
        for spoil in [0, 1, 2] {
            let fetch = |hash: Bytes, offset| async move {
                let mut piece =
                    read_piece(&from.find(&hash, None).unwrap(), offset).unwrap().to_vec();
                if hash == file.hash {
                    match spoil {
                        0 => piece[0] ^= 1,
                        1 => drop(piece.pop()),
                        _ => piece.push(0),
                    }
                }
                Ok(Bytes::from(piece))
            };
            let refused = incoming.receive(from.manifest().clone(), None, fetch).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Corrupt, "{refused}");
        }
    }
    assert!(state.contains(&mark(99)));
    assert_eq!(receiver.applied_state().await.unwrap(), before);
    // A manifest may not name what is not its own.
    for name in ["../state-1/CURRENT", "", ".hidden", "snapshot.manifest", "a/b"] {
        let mut manifest = from.manifest().clone();
        manifest.files[0].name = name.into();
        let fetch = |_, _| async { Err(RpcError::new(ErrorKind::Bug, "never asked")) };
        assert!(incoming.receive(manifest, None, fetch).await.is_err(), "{name}");
    }
}

/// A file of `pieces` and half a piece, that no two of are alike.
fn large_snapshot(directory: &Path, pieces: u64) -> SnapshotDir {
    std::fs::create_dir(directory).unwrap();
    let file = std::fs::File::create(directory.join("000001.sst")).unwrap();
    let length = pieces * PIECE_BYTES as u64 + PIECE_BYTES as u64 / 2;
    let block = |at: u64| *blake3::hash(&at.to_le_bytes()).as_bytes();
    (0..length / 32).for_each(|at| file.write_all_at(&block(at), at * 32).unwrap());
    std::fs::write(directory.join("CURRENT"), b"other").unwrap();
    let applied =
        v1::AppliedState { membership: Some(v1::Membership::default()), ..Default::default() };
    let manifest = describe(directory, applied, None).unwrap();
    seal(directory, &manifest).unwrap();
    SnapshotDir::open(directory).unwrap()
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stood() {
    const PIECES: u64 = 24;
    let directory = TempDir::new().unwrap();
    let from = large_snapshot(&directory.path().join("from"), PIECES);
    let incoming = || Incoming::new(directory.path().join("incoming"));
    let sent = AtomicU64::new(0);
    // It breaks off after every fifth piece, as a connection or the sender does; the receiver keeps
    // nothing in memory over that.
    let (received, breaks) = loop_until_received(&incoming, &from, &sent, 5).await;
    received.verify().unwrap();
    assert!(breaks >= 4, "{breaks}");
    let twice = sent.load(Ordering::Relaxed) - (PIECES + 2);
    // Only pieces that were under way when it broke are sent twice.
    assert!(twice <= breaks * 4, "{twice} pieces sent twice over {breaks} breaks");

    // Another snapshot that has the large file too: only what is new is sent.
    sent.store(0, Ordering::Relaxed);
    std::fs::write(from.path().join("CURRENT"), b"newer").unwrap();
    std::fs::remove_file(from.path().join("snapshot.manifest")).unwrap();
    let applied = from.manifest().applied.clone().unwrap();
    let manifest = describe(from.path(), applied, None).unwrap();
    seal(from.path(), &manifest).unwrap();
    let newer = SnapshotDir::open(from.path()).unwrap();
    let (received, _) = loop_until_received(&incoming, &newer, &sent, 5).await;
    received.verify().unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 1);
}

/// Receives `from` in as many tries as it takes; each breaks off after `pieces`.
async fn loop_until_received(
    incoming: &dyn Fn() -> Incoming,
    from: &SnapshotDir,
    sent: &AtomicU64,
    pieces: u64,
) -> (SnapshotDir, u64) {
    let mut breaks = 0;
    loop {
        let left = AtomicU64::new(pieces);
        let fetch = |hash: Bytes, offset| {
            let path: PathBuf = from.find(&hash, None).unwrap();
            let breaks_off =
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            async move {
                breaks_off.map_err(|_| RpcError::new(ErrorKind::Retry, "broken off"))?;
                sent.fetch_add(1, Ordering::Relaxed);
                Ok(read_piece(&path, offset).unwrap())
            }
        };
        match incoming().receive(from.manifest().clone(), None, fetch).await {
            Ok(received) => return (received, breaks),
            Err(error) => assert_eq!(error.kind, ErrorKind::Retry, "{error}"),
        }
        breaks += 1;
    }
}

#[tokio::test]
async fn a_crash_while_building_leaves_the_old_snapshot_or_the_new() {
    for (step, newer) in [("checkpoint", false), ("seal", false)] {
        let directory = TempDir::new().unwrap();
        let (mut building, state, first) = sender(directory.path(), 20).await;
        apply(&mut building, [entry(1, 21)]).await;
        state.crash.strike_after(step);
        let builder = building.get_snapshot_builder().await.build_snapshot().await;
        assert!(builder.unwrap_err().to_string().contains(step));
        let meta = first.meta.clone();
        drop((building, state, first));

        let (mut again, state) = machine(directory.path()).unwrap();
        let found = again.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(found.meta == meta, !newer, "{step}");
        found.snapshot.verify().unwrap();
        assert_eq!(names(&directory.path().join("snapshots")).len(), 1, "{step}");
        apply(&mut again, [entry(1, 21), entry(1, 22)]).await;
        assert_eq!(build(&mut again).await.meta.last_log_id, Some(entry(1, 22).log_id));
        assert!(state.contains(&mark(22)));
    }
}

#[tokio::test]
async fn a_crash_while_installing_leaves_the_old_state_or_the_new() {
    let there = TempDir::new().unwrap();
    let (mut sending, _, built) = sender(there.path(), 20).await;
    let sent = sending.applied_state().await.unwrap();
    for (step, newer) in [("publish", false), ("lay out", false), ("point", true)] {
        let here = TempDir::new().unwrap();
        let (mut receiver, state) = machine(here.path()).unwrap();
        apply(&mut receiver, (1..=3).map(|index| entry(1, index))).await;
        build(&mut receiver).await;
        let before = receiver.applied_state().await.unwrap();
        state.crash.strike_after(step);
        let crashed = install(&mut receiver, &state, &built).await.unwrap_err();
        assert!(crashed.to_string().contains(step), "{crashed}");
        drop((receiver, state));

        let (mut again, state) = machine(here.path()).unwrap();
        let applied = again.applied_state().await.unwrap();
        assert_eq!(applied, if newer { sent.clone() } else { before }, "{step}");
        assert_eq!(names(here.path()).iter().filter(|name| name.starts_with("state-")).count(), 1);
        // The snapshot was whole: the library installs it at the start, when it is newer.
        let current = again.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(current.meta, built.meta, "{step}");
        again.install_snapshot(&current.meta, current.snapshot).await.unwrap();
        assert_eq!(again.applied_state().await.unwrap(), sent);
        assert!(state.contains(&mark(20)));
    }
}
