//! Bit rot is found when read, and never served.

use std::os::unix::fs::FileExt;

use super::*;

fn flip_a_byte(dir: &Path, offset: u64) {
    let (path, _) = files(dir).pop().unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_the_object_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = put(&store, 1, 2 * CHUNK + 9).await;
    let mut losses = store.evictions();
    flip_a_byte(dir.path(), CHUNK as u64 + 3);
    assert!(object.read_chunk(0).await.is_ok(), "the other chunks are whole");
    let error = object.read_chunk(1).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { chunk: 1, .. }), "{error}");
    assert_eq!(error.kind(), shoal_proto::ErrorKind::Corrupt);
    assert_eq!(store.shared.metrics.corrupt_chunks.get(), 1);
    assert!(store.get(&key(1)).await.is_none());
    assert_eq!(losses.try_recv().unwrap(), (key(1), object.object_id()));
    assert!(object.read_chunk(2).await.is_ok(), "its reader may go on with what is whole");
    drop(object);
    store.shared.disk.reclaim_waiting();
    assert_eq!((store.usage().bytes, files(dir.path()).len()), (0, 0));
    put(&store, 1, 2 * CHUNK + 9).await;
    assert_stored(&store, 1, 2 * CHUNK + 9).await;
}

#[tokio::test]
async fn damage_of_an_old_version_spares_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let old = put(&store, 1, CHUNK).await;
    flip_a_byte(dir.path(), 0);
    let new = try_put(&store, head(1, Some(CHUNK)), &body(2, CHUNK)).await.unwrap();
    let error = old.read_chunk(0).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(store.locate(&key(1)), Some(new.object_id()));
    assert_eq!(read(&new).await.unwrap(), body(2, CHUNK));
}

#[tokio::test]
async fn a_file_that_vanished_is_damage_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    drop(put(&store, 1, CHUNK).await);
    let (path, _) = files(dir.path()).pop().unwrap();
    std::fs::remove_file(path).unwrap();
    let object = store.get(&key(1)).await.unwrap();
    let error = object.read_chunk(0).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { chunk: 0, .. }), "{error}");
    assert!(store.get(&key(1)).await.is_none());
}

#[tokio::test]
async fn a_small_body_is_verified_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = put(&store, 1, 100).await;
    let catalog = &store.shared.disk.catalog;
    catalog.overwrite_body(catalog.small_bodies()[0], b"something else");
    let error = object.read_chunk(0).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { chunk: 0, .. }), "{error}");
    assert!(store.get(&key(1)).await.is_none());
}

#[tokio::test]
async fn another_objects_manifest_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    put(&store, 1, 100).await;
    let other = put(&store, 2, 200).await;
    let manifest = ObjectHead { key: key(1), ..other.manifest().head().clone() };
    let forged = Manifest::new(manifest, 200, other.manifest().hashes().to_vec()).unwrap();
    store.shared.disk.catalog.put_manifest(&forged, 1).unwrap();
    assert!(store.get(&key(1)).await.is_none());
    assert_eq!(store.locate(&key(1)), None, "dropped");
    assert_stored(&store, 2, 200).await;
}

#[tokio::test]
async fn damage_while_filling_stops_the_finish() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let body = body(1, CHUNK);
    let partial = store.begin(head(1, Some(CHUNK))).await.unwrap();
    write(&partial, 0, body).await.unwrap();
    flip_a_byte(dir.path(), 0);
    let error = partial.read_chunk(0).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let error = partial.finish(CHUNK as u64).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(store.get(&key(1)).await.is_none());
}

/// Flips a byte in the middle of every table file of the catalog.
fn damage_catalog(dir: &Path) {
    for file in std::fs::read_dir(dir.join("store/catalog")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = std::fs::read(&path).unwrap();
            for byte in &mut bytes[20..60] {
                *byte ^= 0xff;
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_catalog_starts_an_empty_cache() {
    let dir = tempfile::tempdir().unwrap();
    let tables = |dir: &Path| damage_catalog(dir);
    let current = |dir: &Path| {
        std::fs::write(dir.join("store/catalog/CURRENT"), "no such manifest").unwrap();
    };
    let damages: [&dyn Fn(&Path); 2] = [&tables, &current];
    for damage in damages {
        let store = open(dir.path(), 64 * MIB, 0).await;
        put(&store, 1, CHUNK).await;
        put(&store, 2, 100).await;
        store.close().await;
        drop(store);
        damage(dir.path());
        let store = open(dir.path(), 64 * MIB, 0).await;
        assert_eq!((store.usage().objects, store.usage().bytes), (0, 0));
        assert!(files(dir.path()).is_empty());
        put(&store, 1, CHUNK).await;
        assert_stored(&store, 1, CHUNK).await;
        store.close().await;
    }
}
