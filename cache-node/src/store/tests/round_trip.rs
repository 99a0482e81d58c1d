//! What goes in comes out: large, small, empty, in any order, of unknown length.

use super::*;
use crate::metrics::Tier;

#[tokio::test]
async fn bodies_of_every_kind_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let lengths = [0, 1, 64 * KIB, 64 * KIB + 1, CHUNK, CHUNK + 1, 3 * MIB + 5];
    for (number, length) in lengths.into_iter().enumerate() {
        let object = put(&store, number as u64, length).await;
        assert_eq!(object.manifest().length(), length as u64);
        assert_eq!(object.object_id(), object.manifest().object_id());
        assert_eq!(object.manifest_id(), object.manifest().id());
    }
    for (number, length) in lengths.into_iter().enumerate() {
        assert_stored(&store, number as u64, length).await;
    }
    assert_eq!(files(dir.path()).len(), 4, "small bodies are in the catalog");
    let usage = store.usage();
    assert_eq!(usage.bytes, lengths.map(cost).iter().sum::<usize>() as u64);
    assert_eq!((usage.objects, usage.memory_bytes), (lengths.len(), 0));
    assert!(store.get(&key(99)).await.is_none());
}

#[tokio::test]
async fn chunks_come_in_any_order_and_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let body = body(1, 2 * CHUNK + 9);
    let partial = store.begin(head(1, Some(body.len()))).await.unwrap();
    let all: Vec<(u32, Bytes)> = chunks(&body).collect();
    for turn in [2, 0, 2, 1, 0] {
        let (index, chunk) = all[turn].clone();
        write(&partial, index, chunk.clone()).await.unwrap();
        assert!(partial.has_chunk(index));
        assert_eq!(partial.read_chunk(index).await.unwrap(), chunk);
    }
    assert_eq!(partial.chunks_written(), 3);
    assert!(store.get(&key(1)).await.is_none(), "not before it is finished");
    let object = partial.finish(body.len() as u64).await.unwrap();
    assert_eq!(read(&object).await.unwrap(), body);
    let again = partial.finish(body.len() as u64).await.unwrap();
    assert!(Arc::ptr_eq(&object, &again));
    assert_eq!(partial.read_chunk(1).await.unwrap(), all[1].1, "its readers go on");
    assert_eq!(store.usage().bytes, cost(body.len()) as u64, "counted once");
}

#[tokio::test]
async fn an_unknown_length_is_reserved_as_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    for (number, length) in [(1, 3 * CHUNK + 1), (2, 2 * CHUNK), (3, 100), (4, 0)] {
        let before = store.usage().bytes;
        let body = body(number, length);
        let partial = store.begin(head(number, None)).await.unwrap();
        let mut written = charge::of_head(partial.head());
        for (index, chunk) in chunks(&body) {
            written += charge::of_chunk(index, chunk.len() as u64);
            write(&partial, index, chunk.clone()).await.unwrap();
            write(&partial, index, chunk).await.unwrap();
            assert_eq!(store.usage().bytes, before + written);
        }
        let object = partial.finish(length as u64).await.unwrap();
        assert_eq!(object.manifest().head().length, Some(length as u64));
        assert_stored(&store, number, length).await;
    }
    assert_eq!(files(dir.path()).len(), 2);
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let body = body(1, CHUNK + 9);
    let partial = store.begin(head(1, Some(body.len()))).await.unwrap();
    let short = write(&partial, 0, body.slice(..9)).await.unwrap_err();
    assert!(matches!(short, StoreError::Invalid(_)), "{short}");
    write(&partial, 0, body.slice(..CHUNK)).await.unwrap();
    let missing = partial.finish(body.len() as u64).await.unwrap_err();
    assert!(matches!(missing, StoreError::Incomplete { chunk: 1, .. }), "{missing}");
    let absent = partial.read_chunk(1).await.unwrap_err();
    assert!(matches!(absent, StoreError::NoChunk { chunk: 1, .. }), "{absent}");
    let other = partial.finish(CHUNK as u64).await.unwrap_err();
    assert!(matches!(other, StoreError::Invalid(_)), "{other}");
    let object = put(&store, 2, 10).await;
    let beyond = object.read_chunk(1).await.unwrap_err();
    assert!(matches!(beyond, StoreError::NoChunk { chunk: 1, .. }), "{beyond}");
    let tiny_chunks = ObjectHead { chunk_size: 10, ..head(3, None) };
    assert!(matches!(store.begin(tiny_chunks).await, Err(StoreError::Invalid(_))));
}

#[tokio::test]
async fn hot_chunks_come_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 2 * MIB).await;
    let object = put(&store, 1, CHUNK + 9).await;
    assert_eq!(object.tier(), Tier::Memory);
    let (first, tier) = object.read_chunk(1).await.unwrap();
    assert_eq!(tier, Tier::Memory);
    let (second, _) = object.read_chunk(1).await.unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr(), "the same bytes, not a copy");
    put(&store, 2, 4 * MIB).await;
    put(&store, 3, 4 * MIB).await;
    assert!(store.usage().memory_bytes <= 2 * MIB as u64);
    assert_eq!(object.tier(), Tier::Disk, "pushed out");
    assert_eq!(object.read_chunk(0).await.unwrap().1, Tier::Disk);
    assert_eq!(object.read_chunk(0).await.unwrap().1, Tier::Memory, "kept when read");
    assert_eq!(put(&store, 4, 0).await.tier(), Tier::Memory);
}

#[tokio::test]
async fn keys_are_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, MIB).await;
    for number in [5, 1, 4, 2, 3] {
        put(&store, number, 10).await;
    }
    let keys = |listed: Vec<(ObjectKey, ObjectId)>| -> Vec<ObjectKey> {
        listed.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(store.list(None, 3)), [key(1), key(2), key(3)]);
    assert_eq!(keys(store.list(Some(key(3)), 3)), [key(4), key(5)]);
    assert!(store.list(Some(key(5)), 3).is_empty());
    let (first, id) = store.list(None, 1)[0];
    assert_eq!(store.get(&first).await.unwrap().object_id(), id);
    assert_eq!(store.locate(&first), Some(id));
}
