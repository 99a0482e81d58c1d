//! Objects that are here in part: chunks come one by one, the end of a large one leaves first, and
//! at every moment the budget covers what the disk holds.

use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use super::faults::fail_next;
use super::*;
use crate::store::record::HoleRow;

/// The manifest of `number`'s body of that length.
pub(super) fn manifest(number: u64, length: usize) -> Manifest {
    let body = body(number, length);
    let hashes = chunks(&body).map(|(_, chunk)| ChunkHash::of(&chunk)).collect();
    Manifest::new(head(number, Some(length)), length as u64, hashes).unwrap()
}

async fn bring(object: &StoredObject, number: u64, wanted: &[u32]) -> Result<(), StoreError> {
    let body = body(number, object.manifest().length() as usize);
    for (index, chunk) in chunks(&body).filter(|(index, _)| wanted.contains(index)) {
        object.put_chunk(index, chunk).await?;
    }
    Ok(())
}

/// What is here of `number` is as it should be; how many chunks that are.
pub(super) async fn assert_held(store: &Store, number: u64, length: usize) -> usize {
    let object = store.get(&key(number)).await.unwrap_or_else(|| panic!("{number} is not stored"));
    let mut held = 0;
    for (index, chunk) in chunks(&body(number, length)) {
        match object.read_chunk(index).await {
            Ok((found, _)) => assert!(found == chunk, "{number} holds other bytes at {index}"),
            Err(StoreError::NoChunk { .. }) => {
                assert!(!object.has_chunk(index));
                continue;
            }
            Err(error) => panic!("{number}, chunk {index}: {error}"),
        }
        held += 1;
    }
    held
}

fn on_disk(dir: &Path) -> u64 {
    let blocks = |(path, _): (PathBuf, u64)| std::fs::metadata(path).unwrap().blocks() * 512;
    files(dir).into_iter().map(blocks).sum()
}

async fn open_cutting(dir: &Path, budget_bytes: usize, cut_from_bytes: usize) -> Arc<Store> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        budget_bytes: budget_bytes as u64,
        memory_bytes: MIB as u64,
        objects_max: OBJECTS_MAX,
        cut_from_bytes: cut_from_bytes as u64,
    };
    open_as(config).await.unwrap()
}

#[tokio::test]
async fn chunks_come_one_by_one_and_take_space_then() {
    let dir = tempfile::tempdir().unwrap();
    let length = 40 * CHUNK + 5;
    {
        let store = open(dir.path(), 64 * MIB, 0).await;
        let object = store.outline(manifest(1, length)).await.unwrap();
        let described = store.usage().bytes;
        assert!(described < 2 * 4096 && on_disk(dir.path()) <= 4096, "{described}");
        assert!(!object.is_whole() && object.held().is_empty());
        let error = object.read_chunk(3).await.unwrap_err();
        assert!(matches!(error, StoreError::NoChunk { chunk: 3, .. }), "{error}");

        bring(&object, 1, &[3, 4, 40]).await.unwrap();
        bring(&object, 1, &[3]).await.unwrap();
        let taken = described + 2 * CHUNK as u64 + 4096;
        assert_eq!(store.usage().bytes, taken);
        assert!(on_disk(dir.path()) <= taken, "{}", on_disk(dir.path()));
        assert_eq!(object.held(), [3..5, 40..41]);
        assert_eq!(assert_held(&store, 1, length).await, 3);
        let (id, held) = store.holding(&key(1)).unwrap();
        assert_eq!((id, held.unwrap()), (object.object_id(), vec![0b1_1000, 0, 0, 0, 0, 1]));
        let short = object.put_chunk(0, body(1, 7)).await.unwrap_err();
        assert!(matches!(short, StoreError::Invalid(_)), "{short}");
        store.close().await;
    }
    // Another process finds the same.
    let store = open(dir.path(), 64 * MIB, 0).await;
    scrub::done(&store.shared).await;
    assert_eq!(assert_held(&store, 1, length).await, 3);
    let object = store.get(&key(1)).await.unwrap();
    bring(&object, 1, &(0..41).collect::<Vec<_>>()).await.unwrap();
    assert!(object.is_whole() && store.holding(&key(1)).unwrap().1.is_none());
    assert_eq!(assert_held(&store, 1, length).await, 41);
    drop((object, store));
    let store = open(dir.path(), 64 * MIB, 0).await;
    assert!(store.get(&key(1)).await.unwrap().is_whole());
    assert_stored(&store, 1, length).await;
}

#[tokio::test]
async fn newer_headers_of_what_is_here_in_part_cost_their_own_bytes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let length = 100 * CHUNK;
    let object = store.outline(manifest(1, length)).await.unwrap();
    bring(&object, 1, &[7]).await.unwrap();
    let before = store.usage().bytes;
    let header = Header { name: "x-more".into(), value: Bytes::from_static(b"more") };
    let head = ObjectHead { headers: vec![header], ..object.manifest().head().clone() };
    let hashes = object.manifest().hashes().to_vec();
    let newer = Manifest::new(head, length as u64, hashes).unwrap();
    let renewed = store.refresh(newer).await.unwrap();
    assert!(store.usage().bytes - before < 100, "{} after {before}", store.usage().bytes);
    assert_eq!((renewed.held(), renewed.is_whole()), (vec![7..8; 1], false));
    bring(&object, 1, &[8]).await.unwrap();
    assert_eq!(renewed.held(), vec![7..9; 1], "both are the same object");
}

#[tokio::test]
async fn the_end_of_a_large_object_goes_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let length = 12 * CHUNK;
    let budget = cost(length) + 2 * cost(CHUNK);
    let store = open_cutting(dir.path(), budget, MIB).await;
    let id = put(&store, 1, length).await.object_id();
    let mut losses = store.evictions();
    let mut left = 12;
    for number in 2..8 {
        drop(put(&store, number, CHUNK).await);
        let usage = store.usage().bytes;
        assert!(usage <= budget as u64 && on_disk(dir.path()) <= usage, "{usage}");
        assert_stored(&store, number, CHUNK).await;
        if store.locate(&key(1)).is_some() {
            let held = assert_held(&store, 1, length).await;
            assert!(held <= left, "{held} of {left}");
            left = held;
        }
    }
    assert!((2..12).contains(&left), "{left} are left");
    let object = store.get(&key(1)).await.unwrap();
    assert_eq!(object.held(), vec![0..left as u32; 1], "the beginning stayed");
    assert!(store.shared.metrics.parts_evicted.get() > 0);
    assert_eq!(losses.try_recv().unwrap(), (key(1), id), "others are told");
    assert_eq!(store.holding(&key(1)).unwrap().0, id);
    // While somebody reads it nothing of it goes; what left comes back if there is room.
    bring(&object, 1, &[left as u32]).await.unwrap();
    assert_eq!(assert_held(&store, 1, length).await, left + 1);
    drop(object);
    // In the end all of it goes.
    for number in 10..10 + 2 * budget as u64 / CHUNK as u64 {
        drop(put(&store, number, CHUNK).await);
        drop(store.get(&key(number)).await);
        assert!(on_disk(dir.path()) <= store.usage().bytes);
    }
    assert!(store.locate(&key(1)).is_none());
    scrub::done(&store.shared).await;
    assert!(store.shared.disk.catalog.holes().unwrap().is_empty());
}

#[tokio::test]
async fn a_chunk_that_could_not_be_kept_is_not_there_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = store.outline(manifest(1, 8 * CHUNK)).await.unwrap();
    let before = store.usage().bytes;
    for act in [Act::Write, Act::Sync] {
        fail_next(&store, act, Errno::IO);
        let error = bring(&object, 1, &[2]).await.unwrap_err();
        assert!(matches!(error, StoreError::Body { .. }), "{error}");
        assert!(!object.has_chunk(2));
        assert_eq!(store.usage().bytes, before);
        assert!(on_disk(dir.path()) <= 4096, "{}", on_disk(dir.path()));
    }
    drop(put(&store, 9, 2 * CHUNK).await);
    fail_next(&store, Act::Write, Errno::NOSPC);
    bring(&object, 1, &[2]).await.unwrap();
    assert_eq!(assert_held(&store, 1, 8 * CHUNK).await, 1);
    assert!(store.shared.disk.catalog.holes().unwrap().is_empty());
}

#[tokio::test]
async fn what_was_replaced_meanwhile_takes_no_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let old = store.outline(manifest(1, 8 * CHUNK)).await.unwrap();
    bring(&old, 1, &[0]).await.unwrap();
    let new = try_put(&store, head(1, Some(CHUNK)), &body(2, CHUNK)).await.unwrap();
    let error = bring(&old, 1, &[1]).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    assert!(old.read_chunk(0).await.is_ok(), "its reader goes on");
    assert_eq!(read(&new).await.unwrap(), body(2, CHUNK));
    drop(old);
    store.shared.disk.reclaim_waiting();
    assert_eq!(store.usage().bytes, cost(CHUNK) as u64);
}

#[tokio::test]
async fn where_no_part_can_be_given_back_the_whole_goes() {
    let dir = tempfile::tempdir().unwrap();
    let length = 12 * CHUNK;
    let budget = cost(length);
    let store = open_cutting(dir.path(), budget, MIB).await;
    drop(put(&store, 1, length).await);
    fail_next(&store, Act::Punch, Errno::OPNOTSUPP);
    assert!(matches!(
        try_put(&store, head(2, Some(CHUNK)), &body(2, CHUNK)).await,
        Ok(_) | Err(StoreError::Body { .. })
    ));
    drop(put(&store, 3, CHUNK).await);
    assert!(store.locate(&key(1)).is_none());
    assert!(on_disk(dir.path()) <= store.usage().bytes);
    assert_stored(&store, 3, CHUNK).await;
}

/// A kill between the bytes and the record, and one between the record and the hole.
#[tokio::test]
async fn what_no_record_tells_of_is_given_back_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = store.outline(manifest(1, 8 * CHUNK)).await.unwrap();
    bring(&object, 1, &[0, 7]).await.unwrap();
    let file = object.file_number();
    let hole = |chunk: u32| {
        let offset = u64::from(chunk) * CHUNK as u64;
        HoleRow { file, chunk, offset, bytes: CHUNK as u64 }
    };
    for chunk in [0, 3] {
        store.shared.disk.catalog.note_hole(hole(chunk)).unwrap();
    }
    object.body.file().write_at(&body(9, CHUNK), 3 * CHUNK as u64).unwrap();
    drop((object, store));
    assert!(on_disk(dir.path()) > 2 * CHUNK as u64 + 4096);
    let store = open(dir.path(), 64 * MIB, 0).await;
    assert!(on_disk(dir.path()) <= store.usage().bytes, "{}", on_disk(dir.path()));
    assert_eq!(assert_held(&store, 1, 8 * CHUNK).await, 2);
    assert!(store.shared.disk.catalog.holes().unwrap().is_empty());
}

/// After a power cut the note may be lost too.
#[tokio::test]
async fn the_look_at_every_file_finds_it_without_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = store.outline(manifest(1, 8 * CHUNK)).await.unwrap();
    bring(&object, 1, &[0, 7]).await.unwrap();
    object.body.file().write_at(&body(9, 2 * CHUNK), 3 * CHUNK as u64).unwrap();
    drop((object, store));
    let store = open(dir.path(), 64 * MIB, 0).await;
    scrub::done(&store.shared).await;
    assert!(on_disk(dir.path()) <= store.usage().bytes, "{}", on_disk(dir.path()));
    assert_eq!(assert_held(&store, 1, 8 * CHUNK).await, 2);
}

#[tokio::test]
async fn a_damaged_chunk_of_what_is_here_in_part_is_found() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = store.outline(manifest(1, 8 * CHUNK)).await.unwrap();
    bring(&object, 1, &[5]).await.unwrap();
    let (path, _) = files(dir.path()).pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"rot", 5 * CHUNK as u64 + 9).unwrap();
    let error = object.read_chunk(5).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { chunk: 5, .. }), "{error}");
    assert!(store.get(&key(1)).await.is_none());
}
