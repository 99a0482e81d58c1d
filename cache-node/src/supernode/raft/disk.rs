//! What the log and the state have in common on disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rocksdb::{DBRecoveryMode, Options, WriteOptions};

/// Most bytes of write-ahead log before memtables are flushed.
const WAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Files of RocksDB's own log that are kept.
const INFO_LOGS_MAX: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Held by everything that has a database open; when the last is gone the directory is free.
pub(super) type Alive = Arc<()>;

/// Options under which corruption is found and reported, never repaired by leaving records out: a
/// torn end, which nobody was told of, is the only thing that recovery may drop.
pub(super) fn options(memtable_bytes: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_write_buffer_size(memtable_bytes);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options
}

/// A write that is durable when it returns.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Makes a renamed or new name in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

/// Any error as an input/output error, as the consensus library wants them.
pub(super) fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
