//! A file system that is full although the budget is not: a small one in a mount namespace of the
//! test's own. Needs root, which CI has; says so where it is not.

use std::process::Command;

use super::*;

const DIRECTORY: &str = "SHOAL_TEST_SMALL_DIRECTORY";

const DISK_SIZE: &str = "200m";

/// The small file system's directory where this runs on it; else runs the test of that name there.
fn small_directory(test: &str) -> Option<tempfile::TempDir> {
    if let Ok(at) = std::env::var(DIRECTORY) {
        let space = rustix::fs::statvfs(at.as_str()).unwrap();
        assert!(space.f_blocks * space.f_frsize <= 400 * MIB as u64, "{at} is not small");
        return Some(tempfile::tempdir_in(at).unwrap());
    }
    if !rustix::process::geteuid().is_root() {
        println!("{test}: needs root for a mount, not run");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    // The mount is seen by this child alone, and ends with it.
    let script = "mount -t tmpfs -o size=\"$2\" shoal-test \"$1\" && shift 2 && exec \"$@\"";
    let ended = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh"])
        .arg(folder.path())
        .arg(DISK_SIZE)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::tests::disk_full::{test}"), "--nocapture"])
        .env(DIRECTORY, folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}{errors}");
    assert!(told.contains("1 passed"), "{told}");
    None
}

#[tokio::test]
async fn a_full_disk_evicts_files_and_goes_on() {
    let Some(dir) = small_directory("a_full_disk_evicts_files_and_goes_on") else { return };
    let store = open(dir.path(), 1024 * MIB, 0).await;
    for number in 0..600 {
        put(&store, number, 3 * CHUNK).await;
    }
    assert!(store.shared.metrics.evictions.get() > 0);
    assert_stored(&store, 599, 3 * CHUNK).await;

    // Nothing left to evict: the error names the place and what is full.
    let endless = store.begin(head(1000, None)).await.unwrap();
    let mut index = 0;
    let error = loop {
        match write(&endless, index, body(u64::from(index), CHUNK)).await {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::NoRoom { cause: Full::Disk, .. }), "{error}");
    let path = dir.path().join("store").display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
    drop(endless);
    store.shared.disk.reclaim_waiting();
    assert_eq!(store.usage().bytes, 0);

    // And with room again it goes on as if nothing had been.
    put(&store, 2, 3 * CHUNK).await;
    assert_stored(&store, 2, 3 * CHUNK).await;
    store.close().await;
    drop(store);
    let store = open(dir.path(), 1024 * MIB, 0).await;
    assert_stored(&store, 2, 3 * CHUNK).await;
}

#[tokio::test]
async fn small_bodies_stop_short_of_a_full_disk() {
    const SMALL: usize = 60 * KIB;
    let test = "small_bodies_stop_short_of_a_full_disk";
    let Some(dir) = small_directory(test) else { return };
    let store = open(dir.path(), 1024 * MIB, 0).await;
    let (mut stored, mut refused) = (0, 0);
    for number in 0..8000 {
        match try_put(&store, head(number, Some(SMALL)), &body(number, SMALL)).await {
            Ok(_) => stored += 1,
            Err(StoreError::NoRoom { cause: Full::Disk, .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(stored > 500 && refused > 0, "{stored} stored, {refused} refused");
    let usage = store.usage();
    assert!(usage.objects > 500, "what was stored stays: {usage:?}");
    for (listed, _) in store.list(None, LIST_MAX) {
        let number = u64::from_be_bytes(listed.as_bytes()[..8].try_into().unwrap());
        assert_stored(&store, number, SMALL).await;
    }
    let (first, _) = store.list(None, 1)[0];
    assert!(store.remove(&first).await.unwrap(), "the catalog can still forget");
    store.close().await;
    drop(store);
    let store = open(dir.path(), 1024 * MIB, 0).await;
    assert_eq!(store.usage().objects, usage.objects - 1);
}
