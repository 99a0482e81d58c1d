//! What was finished is there again after a restart; what was not leaves no trace.

use super::*;

#[tokio::test]
async fn a_restart_keeps_what_was_finished() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, MIB).await;
    for (number, length) in [(1, 0), (2, 500), (3, 2 * CHUNK + 1)] {
        put(&store, number, length).await;
    }
    let listed = store.list(None, 10);
    let usage = store.usage();
    store.close().await;
    drop(store);

    let store = open(dir.path(), 64 * MIB, MIB).await;
    assert_eq!(store.list(None, 10), listed);
    assert_eq!(store.usage(), Usage { memory_bytes: 0, ..usage });
    for (number, length) in [(1, 0), (2, 500), (3, 2 * CHUNK + 1)] {
        assert_stored(&store, number, length).await;
    }
}

/// A copy of the directory while it is in use is what a kill at that moment leaves behind.
#[tokio::test]
async fn a_kill_loses_nothing_finished_and_keeps_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, MIB).await;
    put(&store, 1, 2 * CHUNK + 1).await;
    put(&store, 2, 500).await;
    let removed_but_read = put(&store, 3, CHUNK).await;
    let removed_small = put(&store, 4, 100).await;
    store.remove(&key(3)).await.unwrap();
    store.remove(&key(4)).await.unwrap();
    let unfinished = store.begin(head(5, Some(2 * CHUNK))).await.unwrap();
    write(&unfinished, 1, body(5, CHUNK)).await.unwrap();
    assert_eq!(files(dir.path()).len(), 3);
    let crashed = tempfile::tempdir().unwrap();
    copy_directory(dir.path(), crashed.path());

    let after = open(crashed.path(), 64 * MIB, MIB).await;
    let listed: Vec<ObjectKey> = after.list(None, 10).into_iter().map(|(key, _)| key).collect();
    assert_eq!(listed, [key(1), key(2)]);
    assert_stored(&after, 1, 2 * CHUNK + 1).await;
    assert_stored(&after, 2, 500).await;
    assert_eq!(files(crashed.path()).len(), 1, "leftovers are gone");
    assert_eq!(after.usage().bytes, (cost(2 * CHUNK + 1) + cost(500)) as u64);
    let catalog = &after.shared.disk.catalog;
    assert_eq!(catalog.small_bodies().len(), 1);
    assert_eq!(catalog.leftovers().unwrap(), [], "and no longer noted");
    drop((unfinished, removed_but_read, removed_small));
}

/// What a power cut can do on top: files gone or short that the catalog has.
#[tokio::test]
async fn records_without_their_bytes_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, MIB).await;
    for number in 1..=3 {
        put(&store, number, CHUNK + number as usize).await;
    }
    store.close().await;
    drop(store);
    let with_length = |length: usize| {
        let found = files(dir.path()).into_iter().find(|(_, bytes)| *bytes == length as u64);
        found.unwrap().0
    };
    std::fs::remove_file(with_length(CHUNK + 1)).unwrap();
    let short = std::fs::OpenOptions::new().write(true).open(with_length(CHUNK + 2)).unwrap();
    short.set_len(CHUNK as u64).unwrap();

    let stray = dir.path().join("store/bodies/5a/5a00000000000000");
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, "its note was lost").unwrap();

    let store = open(dir.path(), 64 * MIB, MIB).await;
    let filling = store.begin(head(9, Some(CHUNK))).await.unwrap();
    write(&filling, 0, body(9, CHUNK)).await.unwrap();
    put(&store, 8, CHUNK).await;
    scrub::done(&store.shared).await;
    assert!(!stray.exists());
    filling.finish(CHUNK as u64).await.unwrap();
    for number in [8, 9] {
        assert_stored(&store, number, CHUNK).await;
        store.remove(&key(number)).await.unwrap();
    }
    drop(filling);
    store.shared.disk.reclaim_waiting();
    assert_eq!(store.usage().objects, 1);
    assert_stored(&store, 3, CHUNK + 3).await;
    assert!(store.get(&key(1)).await.is_none());
    assert!(store.get(&key(2)).await.is_none());
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_smaller_budget_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    for number in 1..=4 {
        put(&store, number, CHUNK).await;
        // The order of finishing is kept in milliseconds.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    store.close().await;
    drop(store);
    let store = open(dir.path(), 2 * cost(CHUNK) + 5, 0).await;
    assert_eq!(store.usage().bytes, 2 * cost(CHUNK) as u64);
    assert_stored(&store, 3, CHUNK).await;
    assert_stored(&store, 4, CHUNK).await;
    assert_eq!(files(dir.path()).len(), 2);
}

#[tokio::test]
async fn a_second_opening_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), MIB, 0).await;
    let refused = try_open(dir.path(), MIB, 0).await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    let path = dir.path().join("store").display().to_string();
    assert!(refused.to_string().contains(&path), "{refused}");
    assert!(refused.to_string().contains("directory of its own"), "{refused}");
    store.close().await;
    drop(store);
    open(dir.path(), MIB, 0).await;
}

#[tokio::test]
async fn a_file_in_the_directorys_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, "not a directory").unwrap();
    let refused = try_open(&file, MIB, 0).await.unwrap_err();
    assert!(matches!(refused, StoreError::Directory { .. }), "{refused}");
    assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");
    assert!(refused.to_string().contains("a file stands in its way"), "{refused}");
}
