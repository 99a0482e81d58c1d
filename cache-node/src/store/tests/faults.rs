//! A disk that fails or forgets: the store keeps nothing wrong, and says honestly what it could not
//! keep.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;

use super::*;

/// What is done to a body file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Act {
    Read,
    Write,
    Sync,
    Punch,
}

/// The file layer's faults, and its memory of what was never synced.
#[derive(Debug, Default)]
pub(in crate::store) struct Faults {
    next: Mutex<Option<(Act, Errno)>>,
    unsynced: Mutex<BTreeSet<FileId>>,
}

impl Faults {
    /// Called before each act; the act that was announced fails once.
    pub(in crate::store) fn meet(&self, file: FileId, act: Act) -> io::Result<()> {
        let mut next = lock(&self.next);
        if let Some((_, errno)) = next.take_if(|(wanted, _)| *wanted == act) {
            return Err(errno.into());
        }
        match act {
            Act::Write => drop(lock(&self.unsynced).insert(file)),
            Act::Sync => drop(lock(&self.unsynced).remove(&file)),
            Act::Read | Act::Punch => {}
        }
        Ok(())
    }
}

pub(super) fn fail_next(store: &Store, act: Act, errno: Errno) {
    *lock(&store.shared.disk.bodies.faults.next) = Some((act, errno));
}

#[tokio::test]
async fn a_chunk_whose_write_fails_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let body = body(1, 2 * CHUNK);
    let partial = store.begin(head(1, Some(body.len()))).await.unwrap();
    write(&partial, 0, body.slice(..CHUNK)).await.unwrap();
    fail_next(&store, Act::Write, Errno::IO);
    let error = write(&partial, 1, body.slice(CHUNK..)).await.unwrap_err();
    assert!(matches!(error, StoreError::Body { .. }), "{error}");
    assert!(error.to_string().contains("check the disk under it"), "{error}");
    assert!(!partial.has_chunk(1));
    let error = partial.finish(body.len() as u64).await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { chunk: 1, .. }), "{error}");
    write(&partial, 1, body.slice(CHUNK..)).await.unwrap();
    partial.finish(body.len() as u64).await.unwrap();
    assert_stored(&store, 1, 2 * CHUNK).await;
}

#[tokio::test]
async fn a_write_that_finds_the_disk_full_evicts_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    drop(put(&store, 1, 2 * CHUNK).await);
    let partial = store.begin(head(2, Some(CHUNK))).await.unwrap();
    fail_next(&store, Act::Write, Errno::NOSPC);
    write(&partial, 0, body(2, CHUNK)).await.unwrap();
    partial.finish(CHUNK as u64).await.unwrap();
    assert!(store.get(&key(1)).await.is_none(), "it gave way");
    assert_stored(&store, 2, CHUNK).await;

    // With nobody to give way it is an error that says what is full.
    store.remove(&key(2)).await.unwrap();
    let partial = store.begin(head(3, Some(CHUNK))).await.unwrap();
    fail_next(&store, Act::Write, Errno::NOSPC);
    let error = write(&partial, 0, body(3, CHUNK)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRoom { cause: Full::Disk, .. }), "{error}");
    assert!(!partial.has_chunk(0));
}

/// After a failed sync the kernel may drop what it could not write and call the next sync a
/// success.
#[tokio::test]
async fn what_a_failed_sync_may_have_lost_is_never_stored() {
    for errno in [Errno::IO, Errno::NOSPC] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), 64 * MIB, 0).await;
        let partial = store.begin(head(1, Some(CHUNK))).await.unwrap();
        write(&partial, 0, body(1, CHUNK)).await.unwrap();
        fail_next(&store, Act::Sync, errno);
        partial.finish(CHUNK as u64).await.unwrap_err();
        let error = partial.finish(CHUNK as u64).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(store.get(&key(1)).await.is_none());
        drop(partial);
        store.shared.disk.reclaim_waiting();
        assert_eq!((store.usage().bytes, files(dir.path()).len()), (0, 0));
    }
}

#[tokio::test]
async fn a_large_body_is_synced_on_its_way() {
    const CHUNKS: usize = 260;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 128 * MIB, 0).await;
    let partial = store.begin(head(1, Some(CHUNKS * CHUNK))).await.unwrap();
    let chunk = body(1, CHUNK);
    fail_next(&store, Act::Sync, Errno::IO);
    let mut failed = Vec::new();
    for index in 0..CHUNKS as u32 {
        if write(&partial, index, chunk.clone()).await.is_err() {
            failed.push(index);
        }
    }
    assert_eq!(failed, [255], "once, after 64 MiB");
    let error = write(&partial, 255, chunk).await;
    assert!(error.is_ok(), "{error:?}");
    let error = partial.finish((CHUNKS * CHUNK) as u64).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_read_that_fails_gives_no_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, 0).await;
    let object = put(&store, 1, CHUNK).await;
    fail_next(&store, Act::Read, Errno::MFILE);
    let error = object.read_chunk(0).await.unwrap_err();
    assert!(matches!(error, StoreError::Body { .. }), "{error}");
    assert_stored(&store, 1, CHUNK).await;

    fail_next(&store, Act::Read, Errno::IO);
    let error = object.read_chunk(0).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(store.get(&key(1)).await.is_none(), "dropped: the disk cannot give it back");
}

/// What a power cut leaves: of files that were never synced anything, of the catalog's log any
/// first part.
fn cut_power(store: &Store, from: &Path, to: &Path, seed: u64) {
    copy_directory(from, to);
    let unsynced = lock(&store.shared.disk.bodies.faults.unsynced).clone();
    for file in unsynced {
        let name = file.to_string();
        let path = to.join("store/bodies").join(&name[..2]).join(&name);
        let Ok(length) = std::fs::metadata(&path).map(|facts| facts.len()) else { continue };
        match seed % 3 {
            0 => std::fs::write(&path, vec![0; length as usize]).unwrap(),
            1 => std::fs::write(&path, []).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
    }
    for file in std::fs::read_dir(to.join("store/catalog")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let length = log.metadata().unwrap().len();
            log.set_len(length * (20 - seed) / 20).unwrap();
        }
    }
}

#[tokio::test]
async fn a_power_cut_loses_the_newest_and_tears_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 3 * MIB, 0).await;
    let mut found = 0;
    for seed in 0..20 {
        for number in seed * 6..seed * 6 + 6 {
            put(&store, number, [300, CHUNK + 1, 70 * KIB][(number % 3) as usize]).await;
        }
        let filling = store.begin(head(10_000 + seed, Some(2 * CHUNK))).await.unwrap();
        write(&filling, 0, body(1, CHUNK)).await.unwrap();
        let after = tempfile::tempdir().unwrap();
        cut_power(&store, dir.path(), after.path(), seed);
        drop(filling);

        let store = open(after.path(), 3 * MIB, 0).await;
        assert!(store.usage().bytes <= 3 * MIB as u64);
        scrub::done(&store.shared).await;
        for (key, _) in store.list(None, LIST_MAX) {
            let number = u64::from_be_bytes(key.as_bytes()[..8].try_into().unwrap());
            assert!(number < 10_000, "never finished");
            assert_stored(&store, number, [300, CHUNK + 1, 70 * KIB][(number % 3) as usize]).await;
            found += 1;
        }
        let large = |number: u64| !number.is_multiple_of(3);
        let listed = store.list(None, LIST_MAX).into_iter();
        let stored = listed
            .filter(|(key, _)| large(u64::from_be_bytes(key.as_bytes()[..8].try_into().unwrap())));
        assert_eq!(files(after.path()).len(), stored.count(), "no leftovers");
    }
    assert!(found > 100, "{found} objects survived");
}
