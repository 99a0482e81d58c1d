//! Opening a store: locks the directory, opens the catalog, and frees what it notes as left over.
//!
//! What a kill leaves behind is a body without a record: being filled, or being freed. The catalog
//! notes each such one, and all of them go before the store is used. So an opening reads the
//! records, and neither manifests nor bodies nor the bodies' directories, however many there are.
//! What only a power cut can leave (a file whose note was lost, a record whose file was) is found
//! by [`super::scrub`] while the store works; until then such a file is in no budget.
//! Then the budget is applied: it may be smaller than last time, and the oldest go for it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use shoal_proto::ObjectKey;

use super::absent::Absent;
use super::bodies::{Bodies, make_directory};
use super::body::Disk;
use super::budget::{Budget, Reservation};
use super::catalog::Catalog;
use super::error::{Fault, StoreError};
use super::memory::Memory;
use super::record::{BodyRow, Place, Record};
use super::scrub::Scrub;
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

/// What the catalog says is stored.
struct Recovered {
    records: Vec<(ObjectKey, Record)>,
    leftover_bodies: usize,
    leftover_records: usize,
}

/// An opened store, and what is still to be looked at.
pub(super) struct Opened {
    pub(super) shared: Shared,
    pub(super) scrub: Scrub,
}

/// Opens the store's directory, making it when there is none. Blocks.
pub(super) fn open(config: &StoreConfig, metrics: StoreMetrics) -> Result<Opened, StoreError> {
    let dir = config.dir.join(STORE_DIR);
    let lock_file = lock_directory(&dir)?;
    let bodies_dir = dir.join(BODIES_DIR);
    make_directory(&bodies_dir)
        .map_err(|error| StoreError::directory(&bodies_dir, "create it", error))?;
    let bodies = Bodies::new(bodies_dir);
    let (catalog, recovered) = open_catalog(&dir.join(CATALOG_DIR), &bodies)?;
    metrics.budget_bytes.set(i64::try_from(config.budget_bytes).unwrap_or(i64::MAX));
    let budget = Budget::new(config.budget_bytes, metrics.bytes.clone());
    let memory = Memory::new(config.memory_bytes, metrics.memory_bytes.clone());
    let disk = Arc::new(Disk::new(catalog, bodies, memory));
    let Recovered { records, leftover_bodies, leftover_records } = recovered;
    let scrub = Scrub::new(&records);
    let objects_max = objects_max(config);
    let table = restore(records, &disk, &budget, objects_max)?;
    let (objects, bytes) = (table.len(), budget.used());
    tracing::info!(
        dir = %dir.display(), objects, bytes, leftover_bodies, leftover_records, "store opened"
    );
    metrics.objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
    let limits = (table, objects_max, config.cut_from_bytes);
    let shared = Shared::new((dir, lock_file), disk, budget, limits, metrics);
    Ok(Opened { shared, scrub })
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

/// Opens the catalog and frees what it notes. A catalog that RocksDB finds damaged is made anew:
/// what a cache has lost, it fetches again.
fn open_catalog(path: &Path, bodies: &Bodies) -> Result<(Catalog, Recovered), StoreError> {
    let attempt = || {
        let catalog = Catalog::open(path)?;
        let recovered = recover(&catalog, bodies)?;
        Ok((catalog, recovered))
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

/// Reads the records, and frees what belongs to none.
fn recover(catalog: &Catalog, bodies: &Bodies) -> Result<Recovered, Fault> {
    let mut records = Vec::new();
    let mut unreadable = Vec::new();
    catalog.visit_records(|key, record| match record {
        Some(record) => records.push((key, record)),
        None => unreadable.push(key),
    })?;
    unreadable.iter().try_for_each(|key| catalog.delete(key, None))?;
    let leftover_bodies = if catalog.is_new() {
        remove_all(bodies)?
    } else {
        let leftovers = catalog.leftovers()?;
        let count = leftovers.len();
        free(leftovers, &records, catalog, bodies)?;
        count
    };
    close_holes(&records, catalog, bodies)?;
    Ok(Recovered { records, leftover_bodies, leftover_records: unreadable.len() })
}

/// Gives back what files may hold beyond what their records say: chunks that were being written or
/// given back.
fn close_holes(
    records: &[(ObjectKey, Record)],
    catalog: &Catalog,
    bodies: &Bodies,
) -> Result<(), Fault> {
    let holes = catalog.holes()?;
    if holes.is_empty() {
        return Ok(());
    }
    let partly = records.iter().filter(|(_, record)| !record.absent.is_empty());
    let absent: HashMap<FileId, Absent> = partly
        .filter_map(|(_, record)| Some((record.file, Absent::read(record.chunks, &record.absent)?)))
        .collect();
    for hole in &holes {
        if absent.get(&hole.file).is_some_and(|absent| absent.has(hole.chunk)) {
            bodies.punch(hole.file, hole.offset, hole.bytes)?;
        }
    }
    catalog.settle_holes(&holes)?;
    Ok(())
}

/// A catalog that was made anew knows none of the bodies.
fn remove_all(bodies: &Bodies) -> Result<usize, StoreError> {
    let mut count = 0;
    for part in 0..=u8::MAX {
        let files = bodies.part(part)?;
        files.iter().try_for_each(|file| bodies.remove(*file))?;
        count += files.len();
    }
    Ok(count)
}

fn free(
    leftovers: Vec<BodyRow>,
    records: &[(ObjectKey, Record)],
    catalog: &Catalog,
    bodies: &Bodies,
) -> Result<(), StoreError> {
    if leftovers.is_empty() {
        return Ok(());
    }
    // Never both; but what has a record stays, whatever a note says.
    let kept: HashSet<FileId> = records.iter().map(|(_, record)| record.file).collect();
    for body in leftovers.into_iter().filter(|body| !kept.contains(&body.file)) {
        if body.place == Place::File {
            bodies.remove(body.file)?;
        }
        catalog.settle(body)?;
    }
    Ok(())
}

/// Fills the table with as many of the newest as the budget has room for. `records` come in key
/// order.
fn restore(
    records: Vec<(ObjectKey, Record)>,
    disk: &Disk,
    budget: &Arc<Budget>,
    objects_max: usize,
) -> Result<Table, StoreError> {
    let mut newest_first: Vec<usize> = (0..records.len()).collect();
    newest_first.sort_by_key(|at| std::cmp::Reverse(records[*at].1.stored_ms));
    let mut reservations: Vec<Option<Reservation>> = Vec::new();
    reservations.resize_with(records.len(), || None);
    let mut kept = 0;
    for at in &newest_first {
        if kept < objects_max {
            reservations[*at] = budget.reserve(records[*at].1.charge_bytes);
            kept += usize::from(reservations[*at].is_some());
        }
    }
    let mut objects = Vec::with_capacity(kept);
    // Where in `objects` a record went; of those that go, nobody asks.
    let mut places = vec![usize::MAX; records.len()];
    for (at, ((key, record), reservation)) in records.into_iter().zip(reservations).enumerate() {
        match reservation {
            Some(reservation) => {
                places[at] = objects.len();
                objects.push((key, Entry::new(&record, reservation, Weak::new())));
            }
            None => drop_surplus(&key, &record, disk)?,
        }
    }
    let mut table = Table::new(budget.limit(), objects_max);
    let oldest_first = newest_first.into_iter().rev().map(|at| places[at]);
    table.restore(objects, oldest_first.filter(|at| *at != usize::MAX));
    Ok(table)
}

fn drop_surplus(key: &ObjectKey, record: &Record, disk: &Disk) -> Result<(), StoreError> {
    disk.catalog.delete(key, Some(record.row()))?;
    if record.place == Place::File {
        disk.bodies.remove(record.file)?;
    }
    disk.catalog.settle(record.row())
}
