//! Opening a store: locks the directory, opens the catalog, and makes disk and catalog agree.
//!
//! What a crash leaves behind is one of: a file or a small body without a record (filled, never
//! finished; or evicted, not yet unlinked), a record without its file or with a short one (the
//! power went before the directory was written). All of these go. What is left was finished.
//! Then the budget is applied: it may be smaller than last time, and the oldest go for it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use shoal_proto::ObjectKey;

use super::bodies::{Bodies, make_directory};
use super::body::Disk;
use super::budget::Budget;
use super::catalog::{Catalog, Place, Record};
use super::error::{Fault, StoreError};
use super::memory::Memory;
use super::shared::Shared;
use super::table::{Entry, Table};
use super::{FileId, StoreConfig, objects_max};
use crate::metrics::StoreMetrics;

/// The folder of all that is the store's, under the configured directory.
const STORE_DIR: &str = "store";
const CATALOG_DIR: &str = "catalog";
const BODIES_DIR: &str = "bodies";
const LOCK_FILE: &str = "LOCK";
const LOCK_MODE: u32 = 0o600;

/// A catalog and a disk that agree.
struct Scrubbed {
    records: Vec<(ObjectKey, Record)>,
    leftover_bodies: usize,
    leftover_records: usize,
}

/// Opens the store's directory, making it when there is none. Blocks.
pub(super) fn open(config: &StoreConfig, metrics: StoreMetrics) -> Result<Shared, StoreError> {
    let dir = config.dir.join(STORE_DIR);
    let lock_file = lock_directory(&dir)?;
    let bodies_dir = dir.join(BODIES_DIR);
    make_directory(&bodies_dir)
        .map_err(|error| StoreError::directory(&bodies_dir, "create it", error))?;
    let bodies = Bodies::new(bodies_dir);
    let (catalog, scrubbed) = open_catalog(&dir.join(CATALOG_DIR), &bodies)?;
    metrics.budget_bytes.set(i64::try_from(config.budget_bytes).unwrap_or(i64::MAX));
    let budget = Budget::new(config.budget_bytes, metrics.bytes.clone());
    let memory = Memory::new(config.memory_bytes, metrics.memory_bytes.clone());
    let disk = Arc::new(Disk::new(catalog, bodies, memory));
    let Scrubbed { records, leftover_bodies, leftover_records } = scrubbed;
    let table = restore(records, &disk, &budget)?;
    let (objects, bytes) = (table.len(), budget.used());
    tracing::info!(
        dir = %dir.display(), objects, bytes, leftover_bodies, leftover_records, "store opened"
    );
    metrics.objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
    Ok(Shared::new((dir, lock_file), disk, budget, table, metrics))
}

fn lock_directory(dir: &Path) -> Result<File, StoreError> {
    make_directory(dir).map_err(|error| StoreError::directory(dir, "create it", error))?;
    let path: PathBuf = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(LOCK_MODE);
    let file =
        options.open(&path).map_err(|error| StoreError::directory(&path, "open it", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::directory(&path, "lock it", error)),
    }
}

/// Opens the catalog and scrubs. A catalog that RocksDB finds damaged is made anew: what a cache
/// has lost, it fetches again.
fn open_catalog(path: &Path, bodies: &Bodies) -> Result<(Catalog, Scrubbed), StoreError> {
    let attempt = || {
        let catalog = Catalog::open(path)?;
        let scrubbed = scrub(&catalog, bodies)?;
        Ok((catalog, scrubbed))
    };
    let reason = match attempt() {
        Ok(opened) => return Ok(opened),
        Err(Fault::Failed(error)) => return Err(error),
        Err(Fault::Damaged(reason)) => reason,
    };
    let catalog = path.display();
    tracing::error!(%catalog, reason, "catalog is damaged: starting with an empty cache");
    Catalog::destroy(path)?;
    attempt().map_err(|fault| match fault {
        Fault::Failed(error) => error,
        Fault::Damaged(reason) => StoreError::Catalog { path: path.to_owned(), reason },
    })
}

/// Removes what belongs to nothing.
fn scrub(catalog: &Catalog, bodies: &Bodies) -> Result<Scrubbed, Fault> {
    let mut records = Vec::new();
    let mut gone = Vec::new();
    catalog.visit_records(|key, record| match record {
        Some(record) => records.push((key, record)),
        None => gone.push(key),
    })?;
    let (whole, leftover_bodies) = scrub_bodies(&records, catalog, bodies)?;
    records.retain(|(key, record)| {
        let keep = record.length == 0 || whole.contains(&record.file);
        if !keep {
            gone.push(*key);
        }
        keep
    });
    gone.iter().try_for_each(|key| catalog.delete(key))?;
    Ok(Scrubbed { records, leftover_bodies, leftover_records: gone.len() })
}

/// The bodies that are all there, and how many others were removed.
fn scrub_bodies(
    records: &[(ObjectKey, Record)],
    catalog: &Catalog,
    bodies: &Bodies,
) -> Result<(HashSet<FileId>, usize), Fault> {
    let known: HashMap<FileId, &Record> =
        records.iter().map(|(_, record)| (record.file, record)).collect();
    let mut whole = HashSet::new();
    let (mut files, mut rows) = (Vec::new(), Vec::new());
    bodies.visit(|id, length| {
        let record = known.get(&id).filter(|record| record.place == Place::File);
        if record.is_some_and(|record| record.length == length) {
            whole.insert(id);
        } else {
            files.push(id);
        }
    })?;
    catalog.visit_bodies(|id| {
        if known.get(&id).is_some_and(|record| record.place == Place::Inline) {
            whole.insert(id);
        } else {
            rows.push(id);
        }
    })?;
    files.iter().try_for_each(|id| bodies.remove(*id))?;
    rows.iter().try_for_each(|id| catalog.delete_body(*id))?;
    Ok((whole, files.len() + rows.len()))
}

/// Fills the table, oldest first, with as many of the newest as the budget has room for.
fn restore(
    mut records: Vec<(ObjectKey, Record)>,
    disk: &Disk,
    budget: &Arc<Budget>,
) -> Result<Table, StoreError> {
    records.sort_by_key(|(_, record)| std::cmp::Reverse(record.stored_ms));
    let mut kept = Vec::new();
    for (key, record) in records {
        let room = kept.len() < objects_max(budget.limit());
        let reservation = if room { budget.reserve(record.length) } else { None };
        let Some(reservation) = reservation else {
            disk.catalog.delete(&key)?;
            match record.place {
                Place::File => disk.bodies.remove(record.file)?,
                Place::Inline => disk.catalog.delete_body(record.file)?,
            }
            continue;
        };
        kept.push((key, Entry::new(&record, reservation, Weak::new())));
    }
    let mut table = Table::new(budget.limit());
    for (key, entry) in kept.into_iter().rev() {
        table.restore(key, entry);
    }
    Ok(table)
}
