//! A snapshot: a directory with the files of a database that nobody writes to, and a manifest that
//! names them with their lengths and hashes. The manifest is written last, and the directory gets
//! its name when all is durable: what has the name is whole.
//!
//! Invariants: one snapshot is current, the newest; an older one goes when its last reader does. A
//! file that came from elsewhere is used only after its hash was checked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use openraft::storage::Snapshot;
use prost::Message;
use shoal_proto::id::HASH_BYTES;
use shoal_proto::wire::{WireError, v1};

use super::disk::{self, corrupt, other};
use super::wire::{LogId, Meta, Types, log_id_from, meta_from};

/// Bytes of a file in one message.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;
/// Most files of a snapshot.
const FILES_MAX: usize = 16 * 1024;
/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest snapshot, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;
/// What is not finished, or is going, ends so; it is removed at the start.
pub(super) const UNFINISHED: &str = "tmp";

const MANIFEST: &str = "snapshot.manifest";
/// RocksDB's own log: no data.
const INFO_LOG: &str = "LOG";
/// Tables: never changed once written, so one may be in several directories.
const TABLE: &str = "sst";

pub(super) type SnapshotOf = openraft::alias::SnapshotOf<Types, SnapshotDir>;

/// A whole snapshot on disk. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SnapshotDir(Arc<Dir>);

#[derive(Debug)]
struct Dir {
    path: PathBuf,
    manifest: v1::SnapshotManifest,
    retired: AtomicBool,
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !self.retired.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = disk::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an old snapshot");
        }
    }
}

impl SnapshotDir {
    /// The snapshot in `path`, all of whose files are there; their content is not read.
    ///
    /// # Errors
    /// When it is not whole.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = path.join(MANIFEST);
        let bytes = disk::read_checked(&file)?.ok_or_else(|| corrupt(&file, "missing"))?;
        let manifest = v1::SnapshotManifest::decode(&bytes[..]).map_err(other)?;
        check_manifest(&manifest).map_err(other)?;
        for file in &manifest.files {
            let path = path.join(&file.name);
            match std::fs::metadata(&path).map(|found| found.len()) {
                Ok(length) if length == file.length => {}
                Ok(length) => {
                    return Err(corrupt(&path, format!("{length} bytes, not {}", file.length)));
                }
                Err(error) => return Err(corrupt(&path, error)),
            }
        }
        Ok(Self::new(path.to_owned(), manifest))
    }

    fn new(path: PathBuf, manifest: v1::SnapshotManifest) -> Self {
        Self(Arc::new(Dir { path, manifest, retired: AtomicBool::new(false) }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// What is in it.
    pub(super) fn manifest(&self) -> &v1::SnapshotManifest {
        &self.0.manifest
    }

    /// Up to where it holds the state.
    pub(super) fn position(&self) -> Option<LogId> {
        self.0.manifest.applied.as_ref()?.last_log_id.map(log_id_from)
    }

    /// As the consensus library knows it.
    pub(super) fn described(self) -> io::Result<SnapshotOf> {
        Ok(Snapshot { meta: self.meta()?, snapshot: self })
    }

    fn meta(&self) -> io::Result<Meta> {
        meta_from(self.0.manifest.applied.clone().unwrap_or_default()).map_err(other)
    }

    /// Reads every file and compares its hash.
    ///
    /// # Errors
    /// `InvalidData` naming the file that is not what it was.
    pub(super) fn verify(&self) -> io::Result<()> {
        self.0
            .manifest
            .files
            .iter()
            .try_for_each(|file| verify(&self.0.path.join(&file.name), file))
    }

    /// Where the file with this hash and length is, if there is one.
    pub(super) fn find(&self, hash: &[u8], length: Option<u64>) -> Option<PathBuf> {
        let wanted = |file: &&v1::SnapshotFile| {
            file.hash == hash && length.is_none_or(|length| file.length == length)
        };
        let found = self.0.manifest.files.iter().find(wanted)?;
        Some(self.0.path.join(&found.name))
    }

    /// Makes `directory` a database of its own with what is in here; durable once its parent is.
    pub(super) fn lay_out(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir(directory)?;
        for file in &self.0.manifest.files {
            let (from, to) = (self.0.path.join(&file.name), directory.join(&file.name));
            match is_table(&file.name) {
                true => std::fs::hard_link(from, to)?,
                false => disk::copy(&from, &to)?,
            }
        }
        disk::sync_directory(directory)
    }
}

fn is_table(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == TABLE)
}

/// Checks that a manifest keeps the bounds and names nothing outside its directory.
pub(super) fn check_manifest(manifest: &v1::SnapshotManifest) -> Result<u64, WireError> {
    meta_from(manifest.applied.clone().unwrap_or_default())?;
    if manifest.files.len() > FILES_MAX {
        return Err(WireError::field("files", manifest.files.len(), "at most 16384"));
    }
    let (mut names, mut total) = (BTreeSet::new(), 0_u64);
    for file in &manifest.files {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let named = file.name.bytes().all(plain)
            && file.name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && file.name.len() <= NAME_BYTES_MAX
            && file.name != MANIFEST;
        if !named || !names.insert(&file.name) {
            return Err(WireError::field("name", &file.name, "a file's plain name, once"));
        }
        if file.hash.len() != HASH_BYTES {
            return Err(WireError::field("hash", file.hash.len(), "32 bytes"));
        }
        total = total.saturating_add(file.length);
    }
    match total {
        ..=SNAPSHOT_BYTES_MAX => Ok(total),
        _ => Err(WireError::field("length", total, "at most 256 GiB in all")),
    }
}

/// Compares a file with what it should be.
pub(super) fn verify(path: &Path, file: &v1::SnapshotFile) -> io::Result<()> {
    match hash(path)? == file.hash {
        true => Ok(()),
        false => Err(corrupt(path, "its hash does not match")),
    }
}

fn hash(path: &Path) -> io::Result<Bytes> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Bytes::copy_from_slice(hasher.finalize().as_bytes()))
}

/// A piece of the file at `path`; shorter than [`PIECE_BYTES`] only at its end.
pub(super) fn read_piece(path: &Path, offset: u64) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let left = file.metadata()?.len().saturating_sub(offset);
    let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES)];
    file.read_exact_at(&mut piece, offset)?;
    Ok(piece.into())
}

/// Describes the database in `directory`, which nobody has open. A file that is the same one as in
/// `known` has the hash that it had: what has gone bad since is found by whoever reads it.
pub(super) fn describe(
    directory: &Path,
    applied: v1::AppliedState,
    known: Option<&SnapshotDir>,
) -> io::Result<v1::SnapshotManifest> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with(INFO_LOG) {
            std::fs::remove_file(path)?;
            continue;
        }
        let found = entry.metadata()?;
        let hash = match known.and_then(|known| known.same_file(&name, &found)) {
            Some(hash) => hash,
            None => hash(&path)?,
        };
        if !is_table(&name) {
            File::open(&path)?.sync_all()?;
        }
        files.push(v1::SnapshotFile { name, length: found.len(), hash });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    let manifest = v1::SnapshotManifest { applied: Some(applied), files };
    check_manifest(&manifest).map_err(other)?;
    Ok(manifest)
}

impl SnapshotDir {
    fn same_file(&self, name: &str, found: &std::fs::Metadata) -> Option<Bytes> {
        let file = self.0.manifest.files.iter().find(|file| file.name == name)?;
        let mine = std::fs::metadata(self.0.path.join(name)).ok()?;
        let same = is_table(name) && (mine.dev(), mine.ino()) == (found.dev(), found.ino());
        (same && file.length == found.len()).then(|| file.hash.clone())
    }
}

/// Writes the manifest that makes `directory` a snapshot.
pub(super) fn seal(directory: &Path, manifest: &v1::SnapshotManifest) -> io::Result<()> {
    disk::write_checked(&directory.join(MANIFEST), &manifest.encode_to_vec())
}

/// The snapshots of one super-node: the current one, and those that somebody still reads.
pub(super) struct Snapshots {
    directory: PathBuf,
    current: Mutex<Option<SnapshotDir>>,
    live: Mutex<Vec<Weak<Dir>>>,
}

impl Snapshots {
    /// Those in `directory`, made if missing: the newest whole one is kept.
    ///
    /// # Errors
    /// When the directory cannot be read or cleaned.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut current: Option<SnapshotDir> = None;
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                disk::remove(&path)?;
                continue;
            }
            match SnapshotDir::open(&path) {
                Ok(found) if current.as_ref().is_none_or(|c| c.position() < found.position()) => {
                    current = Some(found);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a snapshot is damaged and is removed"),
            }
        }
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if current.as_ref().is_none_or(|current| current.path() != path) {
                disk::remove(&path)?;
            }
        }
        let live = Mutex::new(current.iter().map(|dir| Arc::downgrade(&dir.0)).collect());
        Ok(Self { directory, current: Mutex::new(current), live })
    }

    /// Where a snapshot may be prepared.
    pub(super) fn building(&self) -> PathBuf {
        self.directory.join("building").with_extension(UNFINISHED)
    }

    /// The current one.
    pub(super) fn current(&self) -> Option<SnapshotDir> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the sealed snapshot in `prepared` its name and makes it the current one; it is dropped
    /// when one as new is there. Returns the current one.
    pub(super) fn publish(&self, prepared: &SnapshotDir) -> io::Result<SnapshotDir> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newer) = current.as_ref().filter(|c| c.position() >= prepared.position()) {
            if newer.path() != prepared.path() {
                disk::remove(prepared.path())?;
            }
            return Ok(newer.clone());
        }
        let (index, term) = prepared.position().map_or((0, 0), |id| (id.index, id.leader_id.term));
        let path = self.directory.join(format!("{index:020}-{term:020}"));
        std::fs::rename(prepared.path(), &path)?;
        disk::sync_directory(&self.directory)?;
        let published = SnapshotDir::new(path, prepared.manifest().clone());
        if let Some(old) = current.replace(published.clone()) {
            old.0.retired.store(true, Ordering::Release);
        }
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|dir| dir.strong_count() > 0);
        live.push(Arc::downgrade(&published.0));
        Ok(published)
    }

    /// Where the file with this hash is, in a snapshot that is current or still held.
    pub(super) fn find(&self, hash: &[u8]) -> Option<(SnapshotDir, PathBuf)> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let held = live.iter().filter_map(Weak::upgrade).map(SnapshotDir);
        held.rev().find_map(|dir| dir.find(hash, None).map(|path| (dir, path)))
    }

    /// Reads the current one whole, and removes it when it is not what it was.
    ///
    /// # Errors
    /// When it cannot be read or removed.
    pub(super) fn verify_current(&self) -> io::Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = current.as_ref() else { return Ok(()) };
        match found.verify() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "the snapshot is damaged and is removed");
                found.0.retired.store(true, Ordering::Release);
                *current = None;
                Ok(())
            }
            checked => checked,
        }
    }
}
