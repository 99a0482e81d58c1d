//! A real kill: a child process stores objects until it is killed; what it said was finished is
//! there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

const DIRECTORY: &str = "SHOAL_TEST_KILL_DIRECTORY";
const FINISHED_BEFORE_KILL: usize = 25;

fn length(number: u64) -> usize {
    [300, 2 * CHUNK + 1, 70 * KIB][(number % 3) as usize]
}

/// The child: runs only when the test below starts it.
#[tokio::test]
async fn child_that_stores_until_killed() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let store = open(Path::new(&dir), 1024 * MIB, MIB).await;
    for number in 0.. {
        put(&store, number, length(number)).await;
        writeln!(std::io::stdout(), "finished {number}").unwrap();
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::kill::child_that_stores_until_killed", "--nocapture"])
        .env(DIRECTORY, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let number = |line: String| line.split_once("finished ")?.1.parse::<u64>().ok();
    let finished: Vec<u64> = lines.filter_map(number).take(FINISHED_BEFORE_KILL).collect();
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(finished.len(), FINISHED_BEFORE_KILL);
    let store = open(dir.path(), 1024 * MIB, MIB).await;
    for number in finished {
        assert_stored(&store, number, length(number)).await;
    }
    // One more may have been finished before the kill struck; none is there in part.
    for (key, _) in store.list(None, LIST_MAX) {
        let object = store.get(&key).await.unwrap();
        read(&object).await.unwrap();
    }
    let large = store.list(None, LIST_MAX).into_iter();
    let large = large.filter(|(key, _)| {
        length(u64::from_be_bytes(key.as_bytes()[..8].try_into().unwrap())) > 64 * KIB
    });
    assert_eq!(files(dir.path()).len(), large.count(), "no leftovers");
}
