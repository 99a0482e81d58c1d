//! Last copies of wanted objects leave last, and misses that a larger store would spare are counted.

use super::*;

const SMALL: usize = 32 * KIB;
const ROOM: u64 = 10;

/// As many objects as fit, each asked for once.
async fn filled(dir: &Path) -> Arc<Store> {
    let store = open(dir, ROOM as usize * cost(SMALL), 0).await;
    for number in 0..ROOM {
        put(&store, number, SMALL).await;
    }
    for number in 0..ROOM {
        drop(store.get(&key(number)).await.unwrap());
    }
    store
}

fn here(store: &Store) -> Vec<u64> {
    (0..ROOM).filter(|number| store.locate(&key(*number)).is_some()).collect()
}

#[tokio::test]
async fn copies_that_exist_elsewhere_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let doubtful = store.doubtful(LIST_MAX);
    assert_eq!(doubtful.len(), ROOM as usize, "all are wanted, of none is it known");
    let others = |(key, id): &(ObjectKey, ObjectId)| (*key, *id, u32::from(key.as_bytes()[7] % 2));
    store.note_others(&doubtful.iter().map(others).collect::<Vec<_>>());
    assert!(store.doubtful(LIST_MAX).is_empty());

    for number in 0..ROOM / 2 {
        put(&store, 100 + number, SMALL).await;
    }
    assert!(
        here(&store).iter().filter(|number| *number % 2 == 0).count() == 5,
        "{:?}",
        here(&store)
    );
    assert!(store.shared.metrics.last_copies_spared.get() > 0);
    assert!(!store.doubtful(LIST_MAX).is_empty(), "who was passed over is asked about again");

    // Not for ever.
    for number in 0..20 * ROOM {
        // New ones that are asked for twice take their place.
        put(&store, 200 + number, SMALL).await;
        for _ in 0..2 {
            drop(store.get(&key(200 + number)).await.unwrap());
        }
    }
    assert_eq!(here(&store), [0u64; 0]);
}

#[tokio::test]
async fn without_word_from_others_nothing_is_spared() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    put(&store, 100, SMALL).await;
    assert_eq!(store.shared.metrics.last_copies_spared.get(), 0);
    assert_eq!(here(&store).len(), ROOM as usize - 1);
}

#[tokio::test]
async fn a_last_copy_that_nobody_asked_for_is_not_spared() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ROOM as usize * cost(SMALL), 0).await;
    for number in 0..ROOM {
        put(&store, number, SMALL).await;
        let id = store.locate(&key(number)).unwrap();
        store.note_others(&[(key(number), id, 0)]);
    }
    assert!(store.doubtful(LIST_MAX).is_empty());
    put(&store, 100, SMALL).await;
    assert_eq!(store.shared.metrics.last_copies_spared.get(), 0);
}

#[tokio::test]
async fn a_count_of_another_version_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let other = store.locate(&key(2)).unwrap();
    store.note_others(&[(key(1), other, 0), (key(99), other, 0)]);
    assert_eq!(store.doubtful(LIST_MAX).len(), ROOM as usize);
}

#[tokio::test]
async fn a_miss_that_a_larger_store_would_spare_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ROOM as usize * cost(SMALL), 0).await;
    let metrics = &store.shared.metrics;
    let mut losses = store.evictions();
    for number in 0..ROOM + 3 {
        put(&store, number, SMALL).await;
    }
    let (gone, _) = losses.try_recv().unwrap();
    assert_eq!(metrics.ghost_hits.get(), 0, "nobody asked yet");
    assert!(store.locate(&gone).is_none());
    assert_eq!(metrics.ghost_hits.get(), 0, "nor is that asking");
    assert!(store.get(&gone).await.is_none());
    assert!(store.get(&gone).await.is_none());
    assert!(store.get(&key(9_999)).await.is_none());
    assert_eq!(metrics.ghost_hits.get(), 1);
    assert_eq!(metrics.ghost_hit_bytes.get(), cost(SMALL) as u64);

    // A removal is no eviction, and what left long ago would have left the larger one, too.
    let (gone, _) = losses.try_recv().unwrap();
    store.remove(&key(12)).await.unwrap();
    assert!(store.get(&key(12)).await.is_none());
    for number in 0..ROOM {
        put(&store, 100 + number, SMALL).await;
    }
    assert!(store.get(&gone).await.is_none());
    assert_eq!(metrics.ghost_hits.get(), 1);
}
