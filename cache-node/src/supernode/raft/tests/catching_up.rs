//! Logs that stay short, and members that catch up by snapshot while the tier is under load.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use shoal_proto::id::OBJECT_REF_BYTES;
use shoal_proto::wire::v1;
use tempfile::TempDir;

use super::super::compact::Compaction;
use super::super::wire::{Batch, Entry};
use super::cluster::{Cluster, SuperNode};
use super::storage::{apply, entry, log, machine};
use super::{ABSENCE, PATIENCE, commands, holds, mark, propose};
use crate::clock;
use crate::tasks::Tasks;

const MIB: u64 = 1024 * 1024;
/// Most bytes that RocksDB keeps of a purged log: write-ahead log and new tables.
const LOG_SLACK_BYTES: u64 = 176 * MIB;

fn disk_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| entry.metadata().map_or(0, |found| found.len())).sum()
}

/// An entry of about `bytes` that no command comes of.
fn large(index: u64, bytes: usize) -> Entry {
    let matcher = v1::FenceMatcher {
        matcher: Some(v1::fence_matcher::Matcher::Site("x".repeat(bytes))),
        soft: false,
    };
    let command = v1::Command { command: Some(v1::command::Command::Fence(matcher)) };
    let payload = EntryPayload::Normal(Batch(v1::CommandBatch { commands: vec![command] }));
    Entry { payload, ..entry(1, index) }
}

#[tokio::test]
async fn a_long_run_leaves_a_short_log() {
    const ENTRIES: u64 = 600;
    let directory = TempDir::new().unwrap();
    let mut store = log(directory.path(), 1).unwrap();
    let mut most = 0;
    for index in 0..ENTRIES {
        store.blocking_append([large(index, 1024 * 1024)]).await.unwrap();
        if index.is_multiple_of(16) {
            // As if a snapshot were there.
            if let Some(upto) = store.sizes().to_keep(8 * MIB) {
                store.purge(entry(1, upto).log_id).await.unwrap();
            }
            most = most.max(disk_bytes(&directory.path().join("log")));
        }
    }
    assert!(most < LOG_SLACK_BYTES, "{} MiB", most / MIB);
    let state = store.get_log_state().await.unwrap();
    assert!(state.last_purged_log_id.unwrap().index > ENTRIES - 32);
    assert!(store.sizes().after(None) <= 26 * MIB);
    drop(store);
    log(directory.path(), 1).unwrap();
}

/// Proposes at `at` until it is told to stop; how many were acknowledged.
async fn load(at: &SuperNode, stop: &AtomicBool, done: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let tag = 1_000 + done.load(Ordering::Relaxed) % 500;
        at.raft.propose(commands(tag), PATIENCE).await.unwrap();
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_catches_up_by_snapshot_under_load() {
    let compaction = Compaction { every: 50, keep: 10, lag: 100, ..Default::default() };
    let cluster = Cluster::new(compaction);
    let one = cluster.start("one", 1, cluster.directory(), true).await;
    let first = propose(&one, 0).await;
    for tag in 1..120 {
        propose(&one, tag).await;
    }
    let wait = one.raft.inner.core.wait(Some(PATIENCE));
    wait.metrics(|m| m.purged.is_some_and(|id| id.index >= first), "purge").await.unwrap();

    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let join = async {
        let two = cluster.start("two", 2, cluster.directory(), false).await;
        two.raft.learn_address(&one.info);
        one.raft.join(two.info.clone(), ABSENCE, PATIENCE).await.unwrap();
        holds(&two, first, 0).await;
        stop.store(true, Ordering::Relaxed);
        two
    };
    let (two, ()) = tokio::join!(join, load(&one, &stop, &done));
    assert!(done.load(Ordering::Relaxed) > 0);
    assert!(two.raft.inner.metrics.snapshot_received_bytes.get() > 0);
    let sent = one.raft.inner.metrics.snapshot_sent_bytes.get();
    assert_eq!(sent, two.raft.inner.metrics.snapshot_received_bytes.get());
    assert!(one.raft.inner.metrics.apply_pause_seconds.get_sample_count() > 100);
    assert!(one.raft.inner.metrics.apply_pause_max_seconds.get() > 0.0);

    two.kill().await;
    one.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_a_purged_log_catches_up_by_snapshot() {
    let compaction = Compaction { every: 20, keep: 0, lag: 40, ..Default::default() };
    let cluster = Cluster::new(compaction);
    let [one, two, three] = cluster.three().await;
    propose(&one, 1).await;
    let data = three.kill().await;
    let mut position = 0;
    for tag in 0..100 {
        position = propose(&one, tag).await;
    }
    let wait = one.raft.inner.core.wait(Some(PATIENCE));
    let purged = |at: Option<super::super::wire::LogId>| at.is_some_and(|id| id.index > 60);
    wait.metrics(|m| purged(m.purged), "purge").await.unwrap();

    let three = cluster.start("three", 3, data, false).await;
    for other in [&one, &two] {
        other.raft.learn_address(&three.info);
        three.raft.learn_address(&other.info);
    }
    holds(&three, position, 99).await;
    assert!(three.raft.inner.metrics.snapshot_received_bytes.get() > 0);
    assert!(three.raft.inner.state.installed().is_some());
    for node in [one, two, three] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_stops_the_super_node() {
    let cluster = Cluster::new(Compaction::default());
    let one = cluster.start("one", 1, cluster.directory(), true).await;
    propose(&one, 1).await;
    one.raft.inner.state.crash.strike_after("prepare");
    let refused = one.raft.propose(commands(2), Duration::from_secs(5)).await;
    assert!(refused.is_err());
    tokio::time::timeout(PATIENCE, one.stopped()).await.unwrap();
    assert!(one.raft.state().failed.unwrap().contains("crashed after: prepare"));
    // What was not acknowledged may or may not be there; what was, is.
    let data = one.kill().await;
    let one = cluster.start("one", 1, data, false).await;
    let position = propose(&one, 3).await;
    holds(&one, position, 1).await;
    one.kill().await;
}

/// How long applying stands still while a snapshot of many records is built: run it by hand with
/// `SHOAL_TEST_RECORDS=10000000 cargo test --release -- --ignored longest_pause --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and measures"]
async fn the_longest_pause_of_applies_beside_a_snapshot() {
    const CHANGES: u64 = 512;
    let records: u64 =
        std::env::var("SHOAL_TEST_RECORDS").map_or(1_000_000, |text| text.parse().unwrap());
    let directory = TempDir::new().unwrap();
    let (mut machine, state) = machine(directory.path()).unwrap();
    apply(&mut machine, (0..8).map(|index| entry(1, index))).await;
    let holders = |index: u64| {
        let objects = (0..CHANGES).map(|n| blake3::hash(&(index * CHANGES + n).to_le_bytes()));
        let complete: Vec<u8> =
            objects.flat_map(|hash| hash.as_bytes()[..OBJECT_REF_BYTES].to_vec()).collect();
        let held = v1::NodeHolders {
            node_id: 1_000 + index % 8,
            complete: complete.into(),
            ..Default::default()
        };
        let command = v1::command::Command::Holders(held);
        let commands = vec![v1::Command { command: Some(command) }];
        Entry {
            payload: EntryPayload::Normal(Batch(v1::CommandBatch { commands })),
            ..entry(1, index)
        }
    };
    let started = clock::monotonic();
    let mut index = 8;
    while index * CHANGES < records {
        apply(&mut machine, (index..index + 8).map(holders)).await;
        index += 8;
    }
    let (filled, tasks) = (clock::since(started), Tasks::new());
    for round in 1..=3 {
        let mut builder =
            openraft::storage::RaftStateMachine::get_snapshot_builder(&mut machine).await;
        let (told, mut built) = tokio::sync::oneshot::channel();
        tasks.spawn("building", async move {
            let started = clock::monotonic();
            let built = builder.build_snapshot().await.unwrap();
            told.send((built, clock::since(started))).unwrap();
        });
        let (mut longest, mut groups) = (Duration::ZERO, 0);
        let (built, took) = loop {
            if let Ok(built) = built.try_recv() {
                break built;
            }
            let started = clock::monotonic();
            apply(&mut machine, [holders(index)]).await;
            longest = longest.max(clock::since(started));
            (index, groups) = (index + 1, groups + 1);
        };
        let bytes: u64 = built.snapshot.manifest().files.iter().map(|file| file.length).sum();
        let line = format!(
            "round {round}: {} records, {} MiB, filled in {filled:?}; built in {took:?}, \
             {groups} groups of {CHANGES} beside it, longest pause {longest:?}\n",
            index * CHANGES,
            bytes / MIB,
        );
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    }
    assert!(state.contains(&mark(1)));
}
