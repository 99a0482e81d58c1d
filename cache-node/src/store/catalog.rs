//! The catalog: what is stored, in RocksDB. One small record a key, its manifest, and the bodies
//! too small for a file.
//!
//! Invariants: record, manifest and small body of an object are written in one batch, and the
//! first two go in one; a small body is named by file number, so that readers of an older version
//! keep theirs. Every body without a record, being filled or being freed, is noted as a leftover:
//! in the batch that takes its record, or before its file is made. So an opening knows what to free
//! without a look at all that is kept. Writes reach the operating system before they return (a kill loses nothing), and
//! the disk once in [`SYNC_BYTES`] of bodies: so much of the newest a power cut may lose, whole,
//! since RocksDB replays its log in order and up to a point.
//! It must not know: body files, budget, memory tier.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    Direction, FlushOptions, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch,
};
use shoal_proto::wire::v1;
use shoal_proto::{Manifest, ObjectKey};

use super::FileId;
use super::error::{Fault, StoreError};
use super::record::{BodyRow, HOLE_PREFIX, HoleRow, LEFTOVER_PREFIX, Place, Record};

const RECORDS: &str = "records";
const MANIFESTS: &str = "manifests";
const BODIES: &str = "bodies";

/// Where the default column family says how this catalog is written.
const FORMAT_KEY: &[u8] = b"format";
/// Where it keeps its owner's mark.
const MARK_KEY: &[u8] = b"mark";
/// A file of this name in its directory: a write failed on damage, start anew next time.
const DAMAGED_FILE: &str = "SHOAL-DAMAGED";
/// Read ahead by a walk over all records.
const READAHEAD_BYTES: usize = 2 * 1024 * 1024;
/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

// RocksDB's memory, in all: block cache, write buffers and the table files' readers.
const BLOCK_CACHE_BYTES: usize = 32 * 1024 * 1024;
const WRITE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
const WRITE_BUFFERS_BYTES_MAX: usize = 24 * 1024 * 1024;
const LOG_BYTES_MAX: u64 = 32 * 1024 * 1024;
const TABLE_FILES_OPEN_MAX: i32 = 128;
const BACKGROUND_JOBS_MAX: i32 = 2;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const INFO_LOG_BYTES_MAX: usize = 1024 * 1024;
const INFO_LOGS_MAX: usize = 2;

/// The log is synced once in so many bytes of bodies put.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;
/// What an object counts for besides its body, in bytes.
const SYNC_OBJECT_BYTES: u64 = 4096;

/// What becomes of places in files with a change of what is here.
pub(super) enum Holes<'a> {
    /// Its chunk has come.
    Filled(HoleRow),
    /// Their chunks leave: to be settled when their space is free.
    Left(&'a [HoleRow]),
}

/// The catalog's handle. All calls block.
pub(super) struct Catalog {
    db: DB,
    path: PathBuf,
    /// Whether there was none before.
    is_new: bool,
    unsynced_bytes: AtomicU64,
    /// Held while the mark is changed by what it is.
    marking: Mutex<()>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Opens or makes the catalog.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        if path.join(DAMAGED_FILE).exists() {
            return Err(Fault::Damaged("a write failed on damage".to_owned()));
        }
        let db = open_db(path).map_err(|error| fault(path, &error))?;
        let (path, unsynced_bytes) = (path.to_owned(), AtomicU64::new(0));
        let mut catalog =
            Self { db, path, is_new: false, unsynced_bytes, marking: Mutex::default() };
        catalog.is_new = catalog.check_format()?;
        Ok(catalog)
    }

    /// Whether this opening made it: whatever bodies there are belong to nothing.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Removes a closed catalog.
    pub(super) fn destroy(path: &Path) -> Result<(), StoreError> {
        std::fs::remove_dir_all(path)
            .map_err(|error| StoreError::directory(path, "remove it", error))
    }

    fn check_format(&self) -> Result<bool, Fault> {
        let Some(found) = self.db.get(FORMAT_KEY).map_err(|error| fault(&self.path, &error))?
        else {
            let put = self.db.put(FORMAT_KEY, FORMAT.to_string());
            return put.map(|()| true).map_err(|error| fault(&self.path, &error));
        };
        let found = String::from_utf8_lossy(&found).into_owned();
        if found.parse::<u32>().is_ok_and(|format| format <= FORMAT) {
            return Ok(false);
        }
        let path = self.path.clone();
        Err(Fault::Failed(StoreError::Format { path, found, known: FORMAT }))
    }

    /// Writes an object: from here on it is stored. The body that it replaces becomes a leftover.
    pub(super) fn put(
        &self,
        record: &Record,
        manifest: &Manifest,
        body: Option<&[u8]>,
        replaced: Option<BodyRow>,
    ) -> Result<(), StoreError> {
        let key = manifest.head().key;
        let mut batch = WriteBatch::default();
        batch.put_cf(self.cf(RECORDS)?, key.as_bytes(), record.encode());
        batch.put_cf(self.cf(MANIFESTS)?, key.as_bytes(), encode_manifest(manifest));
        if let Some(body) = body {
            batch.put_cf(self.cf(BODIES)?, record.file.0.to_be_bytes(), body);
        }
        if let Some(replaced) = replaced {
            batch.put(replaced.key(), replaced.value());
        }
        if record.place == Place::File {
            batch.delete(record.row().key());
        }
        self.write(batch)?;
        self.unsynced_bytes.fetch_add(record.length + SYNC_OBJECT_BYTES, Ordering::AcqRel);
        Ok(())
    }

    /// Syncs the log if enough was put since it last was. Of many who call, one waits.
    pub(super) fn sync_when_due(&self) -> Result<(), StoreError> {
        let due = |bytes: u64| (bytes >= SYNC_BYTES).then_some(0);
        match self.unsynced_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, due) {
            Ok(_) => self.db.flush_wal(true).map_err(|error| self.error(&error)),
            Err(_) => Ok(()),
        }
    }

    /// Replaces an object's manifest, and says what it takes of the budget now.
    pub(super) fn put_manifest(
        &self,
        manifest: &Manifest,
        charge_bytes: u64,
    ) -> Result<(), StoreError> {
        let key = manifest.head().key;
        let mut batch = WriteBatch::default();
        if let Some(record) = self.record(&key)? {
            let record = Record { charge_bytes, ..record };
            batch.put_cf(self.cf(RECORDS)?, key.as_bytes(), record.encode());
        }
        batch.put_cf(self.cf(MANIFESTS)?, key.as_bytes(), encode_manifest(manifest));
        self.write(batch)
    }

    /// Notes which chunks of an object are not here, and what it takes of the budget now. `holes` are
    /// places whose chunks have come, or leave with this.
    pub(super) fn put_absent(
        &self,
        key: &ObjectKey,
        (absent, charge_bytes): (Vec<u8>, u64),
        holes: Holes<'_>,
    ) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        if let Some(record) = self.record(key)? {
            let record = Record { charge_bytes, absent, ..record };
            batch.put_cf(self.cf(RECORDS)?, key.as_bytes(), record.encode());
        }
        match holes {
            Holes::Filled(hole) => batch.delete(hole.key()),
            Holes::Left(holes) => holes.iter().for_each(|hole| batch.put(hole.key(), hole.value())),
        }
        self.write(batch)
    }

    /// Notes a place whose chunk is about to be written.
    pub(super) fn note_hole(&self, hole: HoleRow) -> Result<(), StoreError> {
        self.db.put(hole.key(), hole.value()).map_err(|error| self.error(&error))
    }

    /// These places hold what their records say.
    pub(super) fn settle_holes(&self, holes: &[HoleRow]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        holes.iter().for_each(|hole| batch.delete(hole.key()));
        self.write(batch)
    }

    /// Places whose chunks were being written or given back.
    pub(super) fn holes(&self) -> Result<Vec<HoleRow>, Fault> {
        self.noted(HOLE_PREFIX, HoleRow::read)
    }

    /// Forgets an object. Its body is a leftover until [`Catalog::settle`].
    pub(super) fn delete(&self, key: &ObjectKey, body: Option<BodyRow>) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.cf(RECORDS)?, key.as_bytes());
        batch.delete_cf(self.cf(MANIFESTS)?, key.as_bytes());
        if let Some(body) = body {
            batch.put(body.key(), body.value());
        }
        self.write(batch)
    }

    /// Notes a body that has no record yet, before its file is made.
    pub(super) fn note(&self, body: BodyRow) -> Result<(), StoreError> {
        self.db.put(body.key(), body.value()).map_err(|error| self.error(&error))
    }

    /// The body's space is free, or is with this: a small one goes here.
    pub(super) fn settle(&self, body: BodyRow) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        if body.place == Place::Inline {
            batch.delete_cf(self.cf(BODIES)?, body.file.0.to_be_bytes());
        }
        batch.delete(body.key());
        self.write(batch)
    }

    /// Bodies without a record.
    pub(super) fn leftovers(&self) -> Result<Vec<BodyRow>, Fault> {
        self.noted(LEFTOVER_PREFIX, BodyRow::read)
    }

    fn noted<T>(
        &self,
        prefix: &[u8],
        read: impl Fn(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        let from = IteratorMode::From(prefix, Direction::Forward);
        for row in self.db.iterator(from) {
            let (key, value) = row.map_err(|error| fault(&self.path, &error))?;
            if !key.starts_with(prefix) {
                break;
            }
            found.extend(read(&key, &value));
        }
        Ok(found)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.db.write(batch).map_err(|error| self.error(&error))
    }

    /// Notes the owner's mark; whoever finds it finds every earlier write, too.
    pub(super) fn set_mark(&self, mark: u64) -> Result<(), StoreError> {
        self.db.put(MARK_KEY, mark.to_be_bytes()).map_err(|error| self.error(&error))
    }

    /// Takes the owner's mark back to `upto`, if it is further on.
    pub(super) fn lower_mark(&self, upto: u64) -> Result<(), StoreError> {
        let _turn = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.mark()? > upto { self.set_mark(upto) } else { Ok(()) }
    }

    /// The owner's mark; 0 when there is none.
    pub(super) fn mark(&self) -> Result<u64, StoreError> {
        let found = self.db.get(MARK_KEY).map_err(|error| self.error(&error))?;
        let mark = found.and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
        Ok(mark.map_or(0, u64::from_be_bytes))
    }

    /// The manifest stored under a key.
    pub(super) fn manifest(&self, key: &ObjectKey) -> Result<Option<Manifest>, Fault> {
        let cf = self.cf(MANIFESTS)?;
        let found =
            self.db.get_pinned_cf(cf, key.as_bytes()).map_err(|error| fault(&self.path, &error))?;
        let Some(bytes) = found else { return Ok(None) };
        let wire = v1::Manifest::decode(&bytes[..]);
        let wire = wire.map_err(|error| Fault::Damaged(error.to_string()))?;
        Manifest::try_from(wire).map(Some).map_err(|error| Fault::Damaged(error.to_string()))
    }

    /// A small body.
    pub(super) fn body(&self, file: FileId) -> Result<Option<Bytes>, Fault> {
        let cf = self.cf(BODIES)?;
        let found =
            self.db.get_cf(cf, file.0.to_be_bytes()).map_err(|error| fault(&self.path, &error))?;
        Ok(found.map(Bytes::from))
    }

    /// The record of a key.
    pub(super) fn record(&self, key: &ObjectKey) -> Result<Option<Record>, StoreError> {
        let found = self.db.get_pinned_cf(self.cf(RECORDS)?, key.as_bytes());
        let found = found.map_err(|error| StoreError::catalog(&self.path, &error))?;
        Ok(found.and_then(|bytes| Record::decode(&bytes)))
    }

    /// Calls `visit` with every key and its record; `None` for one that cannot be read.
    pub(super) fn visit_records(
        &self,
        mut visit: impl FnMut(ObjectKey, Option<Record>),
    ) -> Result<(), Fault> {
        let mut options = ReadOptions::default();
        // Read once: it need not push anything else out.
        options.fill_cache(false);
        options.set_readahead_size(READAHEAD_BYTES);
        let records = self.cf(RECORDS)?;
        for row in self.db.iterator_cf_opt(records, options, IteratorMode::Start) {
            let (key, value) = row.map_err(|error| fault(&self.path, &error))?;
            if let Ok(key) = ObjectKey::try_from(&key[..]) {
                visit(key, Record::decode(&value));
            }
        }
        Ok(())
    }

    /// Brings everything written so far to the disk.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let families = [self.cf(RECORDS)?, self.cf(MANIFESTS)?, self.cf(BODIES)?];
        let flushed = self.db.flush_wal(true).and_then(|()| {
            let mut options = FlushOptions::default();
            options.set_wait(true);
            self.db.flush_cfs_opt(&families, &options)
        });
        flushed.map_err(|error| self.error(&error))
    }

    /// The file number of every small body.
    #[cfg(test)]
    pub(super) fn small_bodies(&self) -> Vec<FileId> {
        let rows = self.db.iterator_cf(self.cf(BODIES).unwrap(), IteratorMode::Start);
        let keys = rows.map(|row| row.unwrap().0);
        keys.map(|key| FileId(u64::from_be_bytes((*key).try_into().unwrap()))).collect()
    }

    /// What bit rot would do, past RocksDB's own checksums.
    #[cfg(test)]
    pub(super) fn overwrite_body(&self, file: FileId, body: &[u8]) {
        self.db.put_cf(self.cf(BODIES).unwrap(), file.0.to_be_bytes(), body).unwrap();
    }

    fn cf(&self, name: &'static str) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or_else(|| StoreError::Catalog {
            path: self.path.clone(),
            reason: format!("column family {name} is missing"),
        })
    }

    /// A write that fails on damage fails again until the catalog is made anew, which is for the
    /// next opening.
    fn error(&self, error: &rocksdb::Error) -> StoreError {
        if error.kind() == rocksdb::ErrorKind::Corruption
            && let Err(error) = std::fs::write(self.path.join(DAMAGED_FILE), [])
        {
            tracing::warn!(%error, "the catalog's damage was not noted");
        }
        StoreError::catalog(&self.path, error)
    }
}

fn fault(path: &Path, error: &rocksdb::Error) -> Fault {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => Fault::Damaged(error.to_string()),
        _ => Fault::Failed(StoreError::catalog(path, error)),
    }
}

fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    v1::Manifest::from(manifest).encode_to_vec()
}

fn open_db(path: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES_MAX);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_open_files(TABLE_FILES_OPEN_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(INFO_LOGS_MAX);

    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);

    let family = |name, compression| {
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_compression_type(compression);
        ColumnFamilyDescriptor::new(name, options)
    };
    let families = [
        family(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, DBCompressionType::None),
        family(RECORDS, DBCompressionType::None),
        family(MANIFESTS, DBCompressionType::Lz4),
        // Web bodies come compressed where that helps.
        family(BODIES, DBCompressionType::None),
    ];
    DB::open_cf_descriptors(&options, path, families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Catalog::open(dir.path()).unwrap().db.put(FORMAT_KEY, "7").unwrap();
        let Err(Fault::Failed(error)) = Catalog::open(dir.path()) else { panic!("opened") };
        assert!(matches!(error, StoreError::Format { known: FORMAT, .. }), "{error}");
        assert!(error.to_string().contains("format 7"), "{error}");
    }
}
