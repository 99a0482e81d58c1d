//! Another version, another manifest, or none: readers of the old one go on.

use super::*;

#[tokio::test]
async fn a_new_version_replaces_the_old_one_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let mut losses = store.evictions();
    for length in [CHUNK + 9, 100] {
        let old = put(&store, 1, length).await;
        let newer = body(2, length);
        let new = try_put(&store, head(1, Some(length)), &newer).await.unwrap();
        assert_ne!(new.object_id(), old.object_id());
        assert_eq!(losses.try_recv().unwrap(), (key(1), old.object_id()));
        let found = store.get(&key(1)).await.unwrap();
        assert_eq!(read(&found).await.unwrap(), newer);
        assert_eq!(read(&old).await.unwrap(), body(1, length), "its readers go on");
        let usage = store.usage();
        assert_eq!((usage.objects, usage.bytes), (1, 2 * cost(length) as u64));
        drop(old);
        store.shared.disk.reclaim_waiting();
        assert_eq!(store.usage().bytes, cost(length) as u64);
        assert!(store.remove(&key(1)).await.unwrap());
        drop((new, found));
        store.shared.disk.reclaim_waiting();
        losses.try_recv().unwrap();
    }
    assert_eq!(store.usage().bytes, 0);
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn the_same_version_again_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let mut losses = store.evictions();
    put(&store, 1, CHUNK + 9).await;
    put(&store, 1, CHUNK + 9).await;
    assert!(losses.try_recv().is_err());
    assert_stored(&store, 1, CHUNK + 9).await;
    store.shared.disk.reclaim_waiting();
    assert_eq!(store.usage().bytes, cost(CHUNK + 9) as u64);
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_removed_object_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    for length in [2 * CHUNK, 100] {
        put(&store, 1, length).await;
        let reader = store.get(&key(1)).await.unwrap();
        assert!(store.remove(&key(1)).await.unwrap());
        assert!(!store.remove(&key(1)).await.unwrap());
        assert!(store.get(&key(1)).await.is_none());
        assert_eq!(read(&reader).await.unwrap(), body(1, length));
        assert_eq!(store.usage().bytes, cost(length) as u64, "its space is still taken");
        drop(reader);
        store.shared.disk.reclaim_waiting();
        assert_eq!(store.usage().bytes, 0);
    }
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn what_is_removed_leaves_memory_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 8 * MIB).await;
    drop(put(&store, 1, 3 * CHUNK).await);
    drop(put(&store, 2, 100).await);
    assert!(store.usage().memory_bytes > 3 * CHUNK as u64);
    store.remove(&key(1)).await.unwrap();
    store.remove(&key(2)).await.unwrap();
    assert_eq!(store.usage().memory_bytes, 0);
}

#[tokio::test]
async fn a_refresh_keeps_the_object() {
    let dir = tempfile::tempdir().unwrap();
    for memory_bytes in [0, MIB] {
        let store = open(dir.path(), 64 * MIB, memory_bytes).await;
        let old = put(&store, 1, CHUNK + 9).await;
        let fresher = Freshness { lifetime_ms: 7, ..Freshness::default() };
        let refresh = Refresh { freshness: fresher, fence_position: 9, ..Refresh::default() };
        let manifest = old.manifest().refreshed(refresh);
        let new = store.refresh(manifest.clone()).await.unwrap();
        assert_eq!(new.object_id(), old.object_id());
        assert_ne!(new.manifest_id(), old.manifest_id());
        assert_eq!(read(&new).await.unwrap(), read(&old).await.unwrap());
        let found = store.get(&key(1)).await.unwrap();
        assert_eq!(**found.manifest(), manifest);
        drop((old, new, found));
        store.close().await;
        drop(store);

        let store = open(dir.path(), 64 * MIB, memory_bytes).await;
        let found = store.get(&key(1)).await.unwrap();
        assert_eq!(**found.manifest(), manifest);
        assert_stored(&store, 1, CHUNK + 9).await;
        store.remove(&key(1)).await.unwrap();
        let gone = store.refresh(manifest).await.unwrap_err();
        assert!(matches!(gone, StoreError::NotFound { .. }), "{gone}");
        drop(found);
        store.close().await;
    }
}

#[tokio::test]
async fn another_versions_manifest_refreshes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let old = put(&store, 1, 100).await;
    try_put(&store, head(1, Some(100)), &body(2, 100)).await.unwrap();
    let refused = store.refresh((**old.manifest()).clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    assert_ne!(store.locate(&key(1)), Some(old.object_id()));
}

/// A lookup that lost a race: found, and then changed before its manifest was read.
#[tokio::test]
async fn a_lookup_never_takes_one_manifest_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, MIB).await;
    let shared = &store.shared;
    let old = put(&store, 1, 100).await;
    let before = shared.find(&key(1)).unwrap();
    let manifest = old.manifest().refreshed(Refresh { fence_position: 9, ..Refresh::default() });
    let new = store.refresh(manifest).await.unwrap();
    assert!(shared.load(&key(1), &before).unwrap().is_none(), "look again");
    assert_eq!(store.get(&key(1)).await.unwrap().manifest_id(), new.manifest_id());

    let before = shared.find(&key(1)).unwrap();
    let replaced = try_put(&store, head(1, Some(100)), &body(2, 100)).await.unwrap();
    assert!(shared.load(&key(1), &before).unwrap().is_none(), "look again");
    assert_eq!(store.locate(&key(1)), Some(replaced.object_id()), "the newer one is not dropped");
}

#[tokio::test]
async fn an_act_once_begun_ends_though_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let partial = store.begin(head(1, Some(CHUNK))).await.unwrap();
    write(&partial, 0, body(1, CHUNK)).await.unwrap();
    let finish = Box::pin(partial.finish(CHUNK as u64));
    assert!(futures::FutureExt::now_or_never(finish).is_none(), "begun, then dropped");
    drop(partial);
    while store.locate(&key(1)).is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_stored(&store, 1, CHUNK).await;
    assert_eq!(store.usage().bytes, cost(CHUNK) as u64);
}
