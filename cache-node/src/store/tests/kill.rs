//! Real kills: a child process stores, replaces, removes and evicts until it is killed; what it
//! said was finished is there, and nothing is there in part.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::partly::{assert_held, manifest};
use super::*;
use crate::clock;

const DIRECTORY: &str = "SHOAL_TEST_KILL_DIRECTORY";
const SEED: &str = "SHOAL_TEST_KILL_SEED";
const FINISHED_BEFORE_KILL: usize = 25;
/// Kills, over so many directories at a time.
const KILLS: u64 = 200;
const DIRECTORIES: u64 = 4;
/// Small, so that almost every store evicts.
const BUDGET: usize = 3 * MIB;
const KEYS: u64 = 24;
/// Objects of two chunks give back the second, if not more.
const CUT_FROM: usize = 400 * KIB;
const LONGEST_LIFE_MS: u64 = 60;

fn length(number: u64) -> usize {
    [300, 2 * CHUNK + 1, 70 * KIB][(number % 3) as usize]
}

fn blocks(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

fn number(key: &ObjectKey) -> u64 {
    u64::from_be_bytes(key.as_bytes()[..8].try_into().unwrap())
}

/// Between fork and exec a child holds whatever its parent has open, the locks of other stores too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn child(test: &str, dir: &Path, seed: u64) -> Child {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::tests::kill::{test}"), "--nocapture"])
        .env(DIRECTORY, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
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
    let mut child = child("child_that_stores_until_killed", dir.path(), 0);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told = |line: String| line.split_once("finished ")?.1.parse::<u64>().ok();
    let finished: Vec<u64> = lines.filter_map(told).take(FINISHED_BEFORE_KILL).collect();
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(finished.len(), FINISHED_BEFORE_KILL);
    let store = open(dir.path(), 1024 * MIB, MIB).await;
    for number in finished {
        assert_stored(&store, number, length(number)).await;
    }
    // One more may have been finished before the kill struck; none is there in part.
    verify(&store, dir.path()).await;
}

/// Everything that is listed is whole, and nothing else takes space. Says how much is listed.
async fn verify(store: &Store, dir: &Path) -> usize {
    let listed = store.list(None, LIST_MAX);
    let mut large = 0;
    for (key, _) in &listed {
        let number = number(key);
        let held = assert_held(store, number, length(number)).await;
        let object = store.get(key).await.unwrap();
        let chunks = object.manifest().chunk_count() as usize;
        assert_eq!(
            (held == chunks, held),
            (object.is_whole(), object.held().iter().map(Range::len).sum())
        );
        large += usize::from(length(number) > 64 * KIB);
    }
    assert_eq!(files(dir).len(), large, "no leftovers");
    let catalog = &store.shared.disk.catalog;
    assert_eq!(catalog.leftovers().unwrap(), []);
    assert_eq!(catalog.holes().unwrap(), []);
    assert_eq!(catalog.small_bodies().len(), listed.len() - large);
    listed.len()
}

/// The same numbers for a seed at every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

async fn act(store: &Arc<Store>, draw: &mut Draw) {
    let number = draw.below(KEYS);
    match draw.below(11) {
        8 | 9 => bring_some(store, number, draw).await,
        10 => {
            // What may be here of it already leaves: another file begins without any chunk.
            if length(number) > 64 * KIB {
                let _ = store.outline(manifest(number, length(number))).await;
            }
        }
        0 => drop(store.remove(&key(number)).await.unwrap()),
        1 => {
            if let Ok(partial) = store.begin(head(number, None)).await {
                // Given up half-way.
                let _ = write(&partial, 0, body(number, CHUNK)).await;
            }
        }
        2 => {
            if let Some(object) = store.get(&key(number)).await {
                let head = ObjectHead { status: 203, ..object.manifest().head().clone() };
                let (length, hashes) = (object.manifest().length(), object.manifest().hashes());
                let renewed = Manifest::new(head, length, hashes.to_vec()).unwrap();
                // It may have gone meanwhile.
                let _ = store.refresh(renewed).await;
            }
        }
        turn => {
            let known = (turn % 2 == 0).then_some(length(number));
            let put = try_put(store, head(number, known), &body(number, length(number))).await;
            assert!(matches!(put, Ok(_) | Err(StoreError::NoRoom { .. })), "{put:?}");
        }
    }
}

/// Chunks of what is here in part come, as far as there is room.
async fn bring_some(store: &Arc<Store>, number: u64, draw: &mut Draw) {
    let Some(object) = store.get(&key(number)).await else { return };
    for (index, chunk) in chunks(&body(number, length(number))) {
        if draw.below(3) > 0 {
            let put = object.put_chunk(index, chunk).await;
            let fine = matches!(put, Err(StoreError::NoRoom { .. } | StoreError::NotFound { .. }));
            assert!(put.is_ok() || fine, "{put:?}");
        }
    }
}

async fn open_cutting(dir: &Path) -> Arc<Store> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        budget_bytes: BUDGET as u64,
        memory_bytes: MIB as u64,
        objects_max: OBJECTS_MAX,
        cut_from_bytes: CUT_FROM as u64,
    };
    open_as(config).await.unwrap()
}

/// The child of the many kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_fills_and_evicts_until_killed() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let store = open_cutting(Path::new(&dir)).await;
    writeln!(std::io::stdout(), "opened").unwrap();
    let work = (0..4).map(|worker| {
        let store = Arc::clone(&store);
        async move {
            let mut draw = Draw(seed * 4 + worker);
            loop {
                act(&store, &mut draw).await;
            }
        }
    });
    futures::future::join_all(work).await;
}

/// A life, and what it left: how many objects are listed and whole.
fn live_and_die(dir: &Path, seed: u64, draw: &mut Draw) -> usize {
    let mut child = child("child_that_fills_and_evicts_until_killed", dir, seed);
    // One in eight dies at its start, opening what the one before left.
    if draw.below(8) > 0 {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let opened = lines.map_while(Result::ok).any(|line| line.contains("opened"));
        assert!(opened, "the store of life {seed} did not open");
    }
    std::thread::sleep(Duration::from_micros(draw.below(LONGEST_LIFE_MS * 1000)));
    child.kill().unwrap();
    child.wait().unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open_cutting(dir).await;
        let taken = store.usage().bytes;
        assert!(taken <= BUDGET as u64);
        let on_disk = files(dir).into_iter().map(|(path, _)| blocks(&path)).sum::<u64>();
        assert!(on_disk <= taken, "{on_disk} bytes on disk, {taken} in the ledger");
        let whole = verify(&store, dir).await;
        scrub::done(&store.shared).await;
        assert_eq!(store.usage().objects, whole, "the look at every file found nothing");
        // The next life replays the same log, unless this one wrote it out.
        if seed.is_multiple_of(2) {
            store.close().await;
        }
        whole
    })
}

#[test]
fn two_hundred_kills_tear_nothing() {
    let seed = clock::unix_ms();
    println!("seed {seed}");
    let lives = |directory: u64| {
        let dir = tempfile::tempdir().unwrap();
        let mut draw = Draw(seed + directory);
        let lives = 0..KILLS / DIRECTORIES;
        lives
            .map(|life| live_and_die(dir.path(), seed + life, &mut draw))
            .filter(|n| *n > 3)
            .count()
    };
    let full: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..DIRECTORIES).map(|directory| scope.spawn(move || lives(directory))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(full as u64 > KILLS / 2, "of {KILLS} kills {full} had something to tear");
}
