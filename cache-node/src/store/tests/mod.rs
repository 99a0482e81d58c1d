//! The store on a real disk with a real catalog. Each file is one promise.

mod budget;
mod damage;
mod disk_full;
mod faults;
mod kill;
mod last_copies;
mod million;
mod partly;
mod replace;
mod restart;
mod round_trip;
mod space;

pub(super) use faults::{Act, Faults};

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use shoal_proto::manifest::chunk_count;
use shoal_proto::{ChunkHash, Freshness, Header, Labels, ObjectHead, ObjectKey, Refresh};

use super::*;
use crate::metrics::Metrics;

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;
const CHUNK: usize = shoal_proto::limits::CHUNK_BYTES_MIN as usize;

fn key(number: u64) -> ObjectKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ObjectKey::new(bytes)
}

fn head(number: u64, length: Option<usize>) -> ObjectHead {
    ObjectHead {
        key: key(number),
        site: "docs".into(),
        status: 200,
        headers: vec![Header { name: "etag".into(), value: Bytes::from_static(b"\"1\"") }],
        length: length.map(|length| length as u64),
        chunk_size: CHUNK as u32,
        freshness: Freshness { lifetime_ms: 60_000, ..Freshness::default() },
        fence_position: 3,
        labels: Labels::default(),
    }
}

/// A body of that length which no other number has.
fn body(number: u64, length: usize) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    let mut bytes = vec![0; length];
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// What an object of that length takes of the budget.
fn cost(length: usize) -> usize {
    charge::of_object(&head(0, Some(length)), length as u64) as usize
}

async fn open(dir: &Path, budget_bytes: usize, memory_bytes: usize) -> Arc<Store> {
    try_open(dir, budget_bytes, memory_bytes).await.unwrap()
}

async fn try_open(
    dir: &Path,
    budget_bytes: usize,
    memory_bytes: usize,
) -> Result<Arc<Store>, StoreError> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        budget_bytes: budget_bytes as u64,
        memory_bytes: memory_bytes as u64,
        objects_max: OBJECTS_MAX,
        cut_from_bytes: CUT_FROM_BYTES,
    };
    open_as(config).await
}

async fn open_as(config: StoreConfig) -> Result<Arc<Store>, StoreError> {
    Store::open(config, StoreMetrics::new(&Metrics::new().unwrap()).unwrap()).await
}

/// Every chunk of a body with its index.
fn chunks(body: &Bytes) -> impl Iterator<Item = (u32, Bytes)> + use<'_> {
    let count = chunk_count(body.len() as u64, CHUNK as u32);
    (0..count).map(|index| {
        let start = index as usize * CHUNK;
        (index, body.slice(start..body.len().min(start + CHUNK)))
    })
}

async fn write(partial: &PartialObject, index: u32, chunk: Bytes) -> Result<(), StoreError> {
    let hash = ChunkHash::of(&chunk);
    partial.write_chunk(index, chunk, hash).await
}

async fn try_put(
    store: &Arc<Store>,
    head: ObjectHead,
    body: &Bytes,
) -> Result<Arc<StoredObject>, StoreError> {
    let partial = store.begin(head).await?;
    for (index, chunk) in chunks(body) {
        write(&partial, index, chunk).await?;
    }
    partial.finish(body.len() as u64).await
}

async fn put(store: &Arc<Store>, number: u64, length: usize) -> Arc<StoredObject> {
    try_put(store, head(number, Some(length)), &body(number, length)).await.unwrap()
}

async fn read(object: &StoredObject) -> Result<Bytes, StoreError> {
    let mut whole = Vec::new();
    for index in 0..object.manifest().chunk_count() {
        whole.extend_from_slice(&object.read_chunk(index).await?.0);
    }
    Ok(whole.into())
}

/// What `number` should hold is what it holds.
async fn assert_stored(store: &Store, number: u64, length: usize) {
    let object = store.get(&key(number)).await.unwrap_or_else(|| panic!("{number} is not stored"));
    assert!(read(&object).await.unwrap() == body(number, length), "{number} holds other bytes");
}

/// Body files on disk, by length.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let parts = std::fs::read_dir(dir.join("store/bodies")).unwrap();
    let files = parts.flat_map(|part| std::fs::read_dir(part.unwrap().path()).unwrap());
    files.map(|file| file.unwrap()).map(|f| (f.path(), f.metadata().unwrap().len())).collect()
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
