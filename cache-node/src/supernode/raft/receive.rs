//! Taking in a snapshot, file by file in pieces. What has arrived stays on disk under the hash of
//! its file, so that a transfer that broke off, or another that has files in common, goes on where
//! it stood.
//!
//! Invariants: a file is used, and loses the mark that it is in part, only after its hash was
//! checked; there is one transfer at a time, and what it does not need is removed before it begins.
//! Must not know where pieces come from.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use shoal_proto::wire::v1;
use shoal_proto::{ErrorKind, RpcError};

use super::disk;
use super::snapshot::{self, PIECE_BYTES, SnapshotDir, UNFINISHED, check_manifest};
use crate::tasks;

/// Pieces asked for before the first has arrived.
const PIECES_AHEAD: usize = 4;
/// Left free on the disk, in bytes.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// What a file that is not whole yet ends in.
const PART: &str = "part";

/// What has arrived of a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    directory: PathBuf,
}

impl Incoming {
    /// What has arrived in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Forgets all that has arrived.
    pub(super) fn clear(&self) -> io::Result<()> {
        disk::remove(&self.directory)
    }

    /// Takes in what `manifest` names: files come from `mine` where it has them, and else in pieces
    /// by `fetch(hash, offset)`. Returns a snapshot that has no place yet.
    ///
    /// # Errors
    /// `Retry` when the disk is full or fails, or `fetch` does; what has arrived stays. `Corrupt`
    /// when a file is not what the manifest says; it is removed.
    pub(super) async fn receive<F, Fut>(
        &self,
        manifest: v1::SnapshotManifest,
        mine: Option<SnapshotDir>,
        fetch: F,
    ) -> Result<SnapshotDir, RpcError>
    where
        F: Fn(Bytes, u64) -> Fut,
        Fut: Future<Output = Result<Bytes, RpcError>>,
    {
        let (this, wanted) = (self.clone(), manifest.clone());
        self.work(move || this.prepare(&wanted, mine.as_ref())).await?;
        for file in &manifest.files {
            let path = self.path(file);
            if path.exists() {
                continue;
            }
            let part = path.with_extension(PART);
            self.fetch_file(&part, file, &fetch).await?;
            let (file, part) = (file.clone(), part.clone());
            self.work(move || accept(&part, &path, &file)).await?;
        }
        let this = self.clone();
        self.work(move || this.assemble(&manifest)).await
    }

    async fn work<T, W>(&self, work: W) -> Result<T, RpcError>
    where
        T: Send + 'static,
        W: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let done = tasks::blocking("raft snapshot receive", work).await;
        done.map_err(|lost| RpcError::new(ErrorKind::Closed, lost.to_string()))?
            .map_err(|error| failed(&self.directory, &error))
    }

    async fn fetch_file<F, Fut>(
        &self,
        part: &Path,
        file: &v1::SnapshotFile,
        fetch: &F,
    ) -> Result<(), RpcError>
    where
        F: Fn(Bytes, u64) -> Fut,
        Fut: Future<Output = Result<Bytes, RpcError>>,
    {
        let mut at = part.metadata().map_or(0, |found| found.len());
        let offsets = (at..file.length).step_by(PIECE_BYTES);
        let ask = |offset| fetch(file.hash.clone(), offset);
        let mut pieces = futures::stream::iter(offsets).map(ask).buffered(PIECES_AHEAD);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if piece.len() as u64 != (file.length - at).min(PIECE_BYTES as u64) {
                let message = format!("{} bytes of {} at {at}", piece.len(), file.name);
                return Err(RpcError::new(ErrorKind::Corrupt, message));
            }
            at += piece.len() as u64;
            let path = part.to_owned();
            self.work(move || append(&path, &piece)).await?;
        }
        Ok(())
    }

    fn path(&self, file: &v1::SnapshotFile) -> PathBuf {
        self.directory.join(
            blake3::Hash::from_slice(&file.hash)
                .map_or_else(|_| String::from("unknown"), |hash| hash.to_hex().to_string()),
        )
    }

    fn ready(&self) -> PathBuf {
        self.directory.join("ready").with_extension(UNFINISHED)
    }

    /// Removes what `manifest` does not need, takes what is here already, and checks the space for
    /// the rest.
    fn prepare(
        &self,
        manifest: &v1::SnapshotManifest,
        mine: Option<&SnapshotDir>,
    ) -> io::Result<()> {
        let total = check_manifest(manifest).map_err(disk::other)?;
        std::fs::create_dir_all(&self.directory)?;
        let wanted: BTreeSet<_> = manifest.files.iter().map(|file| self.path(file)).collect();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !wanted.contains(&path.with_extension("")) || path == self.ready() {
                disk::remove(&path)?;
            }
        }
        let mut here = 0;
        for file in &manifest.files {
            let (path, part) = (self.path(file), self.path(file).with_extension(PART));
            let length = |path: &Path| path.metadata().map_or(0, |found| found.len());
            if !path.exists()
                && let Some(same) = mine.and_then(|dir| dir.find(&file.hash, Some(file.length)))
                && snapshot::verify(&same, file).is_ok()
            {
                std::fs::hard_link(same, &path)?;
            }
            if path.exists() && length(&path) != file.length {
                disk::remove(&path)?;
            }
            if length(&part) > file.length {
                disk::remove(&part)?;
            }
            here += length(&path).max(length(&part));
        }
        self.check_space(total.saturating_sub(here))
    }

    fn check_space(&self, needed: u64) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.directory)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed.saturating_add(RESERVE_BYTES) <= free {
            return Ok(());
        }
        let message = format!(
            "a snapshot needs {needed} bytes more and {RESERVE_BYTES} in reserve, \
             and {free} are free: free some space on that disk"
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, message))
    }

    /// Makes a snapshot of what has arrived, which stays too, should its installation break off.
    fn assemble(&self, manifest: &v1::SnapshotManifest) -> io::Result<SnapshotDir> {
        let ready = self.ready();
        disk::remove(&ready)?;
        std::fs::create_dir(&ready)?;
        for file in &manifest.files {
            std::fs::hard_link(self.path(file), ready.join(&file.name))?;
        }
        snapshot::seal(&ready, manifest)?;
        SnapshotDir::open(&ready)
    }
}

fn failed(directory: &Path, error: &io::Error) -> RpcError {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Retry,
    };
    RpcError::new(kind, format!("cannot keep a snapshot in {}: {error}", directory.display()))
}

fn append(path: &Path, piece: &[u8]) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(piece)
}

/// Makes a file that has arrived a whole one, or removes it.
fn accept(part: &Path, whole: &Path, file: &v1::SnapshotFile) -> io::Result<()> {
    let arrived = OpenOptions::new().append(true).create(true).open(part)?;
    arrived.sync_all()?;
    if let Err(error) = snapshot::verify(part, file) {
        disk::remove(part)?;
        return Err(error);
    }
    std::fs::rename(part, whole)?;
    File::open(whole.parent().unwrap_or(whole))?.sync_all()
}
