//! What the log and the state have in common on disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rocksdb::{DBRecoveryMode, Options, WriteOptions};

use crate::files;

/// Files of RocksDB's own log that are kept.
const INFO_LOGS_MAX: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a digest before what it is of.
const DIGEST_BYTES: usize = blake3::OUT_LEN;

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
    File::open(directory)?.sync_all()
}

/// Removes a directory or file with all that is in it, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Any error as an input/output error, as the consensus library wants them.
pub(super) fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Data that is not what was written.
pub(super) fn corrupt(path: &Path, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

/// Writes `content` with a digest before it in place of the file at `path`; durable on return.
pub(super) fn write_checked(path: &Path, content: &[u8]) -> io::Result<()> {
    let digest = blake3::hash(content);
    let whole = [digest.as_bytes(), content].concat();
    files::write_whole(path, &whole, files::PLAIN_MODE).map_err(other)
}

/// Reads what [`write_checked`] wrote; `None` when there is no such file.
///
/// # Errors
/// `InvalidData` when the content is not what was written.
pub(super) fn read_checked(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let whole = match std::fs::read(path) {
        Ok(whole) => whole,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match whole.split_at_checked(DIGEST_BYTES) {
        Some((digest, content)) if blake3::hash(content).as_bytes() == digest => {
            Ok(Some(content.to_vec()))
        }
        _ => Err(corrupt(path, "its digest does not match")),
    }
}

/// Copies a file; the copy is durable once its directory is.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = File::create_new(to)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.flush()?;
    copy.sync_all()
}

/// Whether what failed is that data is not what was written: then it does not help to try again.
pub(super) fn is_damage(error: &rocksdb::Error) -> bool {
    use rocksdb::ErrorKind::{Corruption, IOError, NotFound};
    let gone = || error.as_ref().contains("No such file");
    match error.kind() {
        Corruption | NotFound => true,
        IOError => gone(),
        _ => false,
    }
}

/// Where a test lets a crash strike: the step fails and all after it are not done. Never in
/// production.
#[derive(Debug, Default)]
pub(super) struct Crash {
    #[cfg(test)]
    at: std::sync::Mutex<Option<&'static str>>,
}

impl Crash {
    /// Says that `step` is done.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the test's twin needs both")]
    pub(super) fn after(&self, _step: &'static str) -> io::Result<()> {
        Ok(())
    }

    /// Says that `step` is done, and fails when a crash is to strike then.
    #[cfg(test)]
    pub(super) fn after(&self, step: &'static str) -> io::Result<()> {
        match *self.at.lock().unwrap() {
            Some(at) if at == step => Err(io::Error::other(format!("crashed after: {step}"))),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn strike_after(&self, step: &'static str) {
        *self.at.lock().unwrap() = Some(step);
    }
}
