//! What the ledger says covers what the disk holds: set aside, in whole blocks, manifests as well.

use std::os::unix::fs::MetadataExt;

use super::*;

fn on_disk(dir: &Path) -> u64 {
    let blocks = |(path, _): (PathBuf, u64)| std::fs::metadata(path).unwrap().blocks() * 512;
    files(dir).into_iter().map(blocks).sum()
}

#[tokio::test]
async fn a_body_being_filled_takes_its_space_at_once_and_no_more_than_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let length = 9 * CHUNK + 70 * KIB + 1;
    let partial = store.begin(head(1, Some(length))).await.unwrap();
    let body = body(1, length);
    assert_eq!(store.usage().bytes, cost(length) as u64);
    for (index, chunk) in chunks(&body) {
        write(&partial, index, chunk).await.unwrap();
        let taken = on_disk(dir.path());
        assert!(taken <= store.usage().bytes, "{taken} on disk, {:?}", store.usage());
        assert!(taken >= length as u64, "{taken} set aside");
    }
    partial.finish(length as u64).await.unwrap();
    assert_stored(&store, 1, length).await;
    assert_eq!(files(dir.path())[0].1, length as u64);
}

#[tokio::test]
async fn newer_headers_that_are_longer_are_reserved_and_kept_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = put(&store, 1, CHUNK).await;
    let longer = |bytes: usize| {
        let header = Header { name: "x-long".into(), value: vec![b'x'; bytes].into() };
        let head = ObjectHead { headers: vec![header], ..object.manifest().head().clone() };
        Manifest::new(head, CHUNK as u64, object.manifest().hashes().to_vec()).unwrap()
    };
    store.refresh(longer(5000)).await.unwrap();
    let taken = store.usage().bytes;
    assert!(taken >= cost(CHUNK) as u64 + 4900, "{taken}");
    store.refresh(longer(10)).await.unwrap();
    assert_eq!(store.usage().bytes, taken, "what was reserved stays");
    drop(object);
    store.close().await;
    drop(store);
    let store = open(dir.path(), 64 * MIB, 0).await;
    assert_eq!(store.usage().bytes, taken, "also after a restart");
    store.remove(&key(1)).await.unwrap();
    assert_eq!(store.usage().bytes, 0);
}

#[tokio::test]
async fn a_store_of_nothing_but_headers_is_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), MIB, 0).await;
    let mut before = 0;
    for number in 0..600 {
        let header = Header { name: "x".into(), value: vec![b'x'; 4000].into() };
        let head = ObjectHead { headers: vec![header], ..head(number, Some(0)) };
        try_put(&store, head, &Bytes::new()).await.unwrap();
        assert!(store.usage().bytes <= MIB as u64);
        before = before.max(store.usage().objects);
    }
    assert!((200..300).contains(&before), "{before} objects of some 4 KB in 1 MiB");
}
