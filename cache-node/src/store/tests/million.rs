//! A restart with a million objects, and what objects take of memory.
//!
//! ```text
//! cargo test --workspace --locked --lib store::tests::million -- --ignored --nocapture
//! ```

use std::process::{Command, Stdio};
use std::sync::Weak;

use super::*;
use crate::clock;
use crate::store::budget::Budget;
use crate::store::catalog::Catalog;
use crate::store::record::{Place, Record};
use crate::store::table::{Entry, Table, Victims};

const CHILD: &str = "SHOAL_TEST_TABLE_CHILD";
const ENTRIES: u64 = 200_000;
const OBJECTS: u64 = 1_000_000;
/// One in so many has a file.
const FILE_EVERY: u64 = 20;
const SMALL: usize = 2 * KIB;

fn record(number: u64, place: Place, length: u64) -> Record {
    let object_id = ObjectId::new(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let (file, chunks, stored_ms) = (FileId::draw().unwrap(), 1, number);
    let charge_bytes = length + 600;
    let (absent, chunk_size) = (Vec::new(), CHUNK as u32);
    Record { file, place, object_id, length, chunks, stored_ms, charge_bytes, absent, chunk_size }
}

/// As spread as real keys.
fn spread_key(number: u64) -> ObjectKey {
    ObjectKey::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn resident_bytes() -> u64 {
    let facts = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = facts.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

/// The child: alone in its process, so that nobody else's memory counts.
#[test]
fn child_that_fills_a_table() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let gauge = prometheus::IntGauge::new("bytes", "bytes").unwrap();
    let budget = Budget::new(u64::MAX / 4, gauge);
    let before = resident_bytes();
    let mut table = Table::new(ENTRIES * 1000, ENTRIES as usize);
    for number in 0..3 * ENTRIES {
        if table.len() as u64 >= ENTRIES {
            table.take_victim(Victims::Any).unwrap();
        }
        let record = record(number, Place::Inline, 400);
        let reservation = budget.reserve(record.charge_bytes).unwrap();
        table.insert(spread_key(number), Entry::new(&record, reservation, Weak::new()));
    }
    let taken = resident_bytes() - before;
    println!("{} bytes an object", taken / ENTRIES);
    assert!(taken <= ENTRIES * OBJECT_BYTES as u64, "{} bytes an object", taken / ENTRIES);
}

#[test]
fn an_object_takes_no_more_memory_than_is_stated() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::million::child_that_fills_a_table"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn fill(dir: &Path) {
    let catalog_dir = dir.join("store/catalog");
    std::fs::create_dir_all(&catalog_dir).unwrap();
    let catalog = Catalog::open(&catalog_dir).unwrap();
    for number in 0..OBJECTS {
        let is_file = number % FILE_EVERY == 0;
        let (place, length) =
            if is_file { (Place::File, 70 * KIB) } else { (Place::Inline, SMALL) };
        let record = record(number, place, length as u64);
        let head = ObjectHead { key: spread_key(number), ..head(number, Some(length)) };
        let hash = ChunkHash::of(&number.to_le_bytes());
        let manifest = Manifest::new(head, length as u64, vec![hash]).unwrap();
        let small = (!is_file).then(|| body(number, length));
        if is_file {
            let name = record.file.to_string();
            let path = dir.join("store/bodies").join(&name[..2]).join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().set_len(length as u64).unwrap();
        }
        catalog.put(&record, &manifest, small.as_deref(), None).unwrap();
    }
    catalog.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: writes some 3 GB and takes minutes"]
async fn a_restart_with_a_million_objects() {
    let dir = tempfile::tempdir().unwrap();
    let start = clock::monotonic();
    fill(dir.path());
    println!("filled in {:?}", clock::since(start));
    // The page cache would flatter the opening.
    drop(std::fs::write("/proc/sys/vm/drop_caches", "1"));
    let before = resident_bytes();
    let start = clock::monotonic();
    let store = open(dir.path(), 64 * 1024 * MIB, MIB).await;
    println!("opened in {:?}", clock::since(start));
    assert_eq!(store.usage().objects, OBJECTS as usize);
    let start = clock::monotonic();
    assert!(store.locate(&spread_key(OBJECTS / 2)).is_some());
    println!("found in {:?}", clock::since(start));
    let taken = resident_bytes() - before;
    println!("{} bytes of memory an object", taken / OBJECTS);
    assert!(taken <= OBJECTS * OBJECT_BYTES as u64 + 128 * MIB as u64);
    let start = clock::monotonic();
    scrub::done(&store.shared).await;
    println!("every file looked at after {:?} more", clock::since(start));
    assert_eq!(store.usage().objects, OBJECTS as usize);
    store.close().await;
}
