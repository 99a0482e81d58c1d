//! What can go wrong in the store: each message names the place, the value and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use shoal_proto::wire::WireError;
use shoal_proto::{ErrorKind, ObjectKey};

use crate::tasks::LostWork;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used as it is.
    #[error("store directory {path}: cannot {action}: {source}; {remedy}", path = path.display())]
    Directory {
        /// Which directory or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What to do.
        remedy: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process, or another part of this one, has the directory open.
    #[error(
        "store directory {path} is in use by another process; stop that one, or give each node a \
         directory of its own",
        path = path.display()
    )]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// A newer version of Shoal wrote the directory.
    #[error(
        "store directory {path} has format {found}, this version knows up to {known}; run the \
         newer version, or remove the directory to start with an empty cache",
        path = path.display()
    )]
    Format {
        /// Which directory.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The newest known here.
        known: u32,
    },
    /// The catalog failed.
    #[error(
        "catalog {path}: {reason}; check the disk under it, or remove it to start with an empty \
         cache",
        path = path.display()
    )]
    Catalog {
        /// Where it is.
        path: PathBuf,
        /// What RocksDB said.
        reason: String,
    },
    /// A body file failed.
    #[error("body file {path}: cannot {action}: {source}; check the disk under it", path = path.display())]
    Body {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Not stored, and nothing that may be evicted would make the room.
    #[error("no room for {needed_bytes} bytes in {path}: {cause}", path = path.display())]
    NoRoom {
        /// The store's directory.
        path: PathBuf,
        /// How much was asked for, in bytes.
        needed_bytes: u64,
        /// What is full, and what to do.
        cause: Full,
    },
    /// Stored bytes that do not match their hash or cannot be read. The object is dropped.
    #[error("object {key} chunk {chunk} is damaged on disk: {reason}; fetch it elsewhere")]
    Corrupt {
        /// Whose.
        key: ObjectKey,
        /// Which chunk.
        chunk: u32,
        /// How it showed.
        reason: String,
    },
    /// The object is not stored.
    #[error("object {key} is not stored")]
    NotFound {
        /// Which.
        key: ObjectKey,
    },
    /// The chunk does not exist, or is not written yet.
    #[error("object {key} has no chunk {chunk}, or not yet")]
    NoChunk {
        /// Whose.
        key: ObjectKey,
        /// Which chunk.
        chunk: u32,
    },
    /// Finished before all its chunks were written.
    #[error("object {key} cannot be finished without chunk {chunk}")]
    Incomplete {
        /// Whose.
        key: ObjectKey,
        /// The first missing chunk.
        chunk: u32,
    },
    /// The caller's facts do not agree with each other or with a limit.
    #[error(transparent)]
    Invalid(#[from] WireError),
    /// Background work did not come back.
    #[error(transparent)]
    Lost(#[from] LostWork),
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The object is larger than the budget.
    #[error("the whole budget is {budget_bytes} bytes; raise it to store such an object")]
    Budget {
        /// The budget.
        budget_bytes: u64,
    },
    /// What could go is gone; the rest is being read or filled.
    #[error("of {budget_bytes} bytes of budget, {pinned_bytes} are being read or filled")]
    InUse {
        /// The budget.
        budget_bytes: u64,
        /// Bytes that cannot go now.
        pinned_bytes: u64,
    },
    /// The file system is full although the budget is not.
    #[error("its file system is full; free space there, or lower the store's budget")]
    Disk,
    /// As many objects as the store keeps are all in use.
    #[error("all of {objects_max} objects are in use")]
    Objects {
        /// Most objects.
        objects_max: usize,
    },
    /// As many objects as the store takes are being filled.
    #[error("{partials_max} objects are being filled already")]
    Partials {
        /// Most objects being filled.
        partials_max: usize,
    },
}

/// Why a read from disk gave no bytes.
#[derive(Debug)]
pub(super) enum Fault {
    /// They are damaged or gone, and stay so: with the reason.
    Damaged(String),
    /// The same read may succeed later.
    Failed(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl StoreError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Directory { .. } | Self::InUse { .. } | Self::Format { .. } => ErrorKind::Invalid,
            Self::NoRoom { .. } | Self::Catalog { .. } | Self::Body { .. } => ErrorKind::Retry,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::NotFound { .. } | Self::NoChunk { .. } => ErrorKind::NotFound,
            Self::Incomplete { .. } | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Lost(_) => ErrorKind::Closed,
        }
    }

    /// Whether the file system, not the budget, is what is full.
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, Self::NoRoom { cause: Full::Disk, .. })
    }

    pub(super) fn directory(path: &Path, action: &'static str, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "make its owner the user that Shoal runs as, or name another directory"
            }
            io::ErrorKind::ReadOnlyFilesystem => "mount it for writing, or name another directory",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space there",
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "a file stands in its way: move that, or name another directory"
            }
            _ => "check the disk under it, or name another directory",
        };
        Self::Directory { path: path.to_owned(), action, remedy, source }
    }

    /// An error on a body file; a full file system is told apart.
    pub(super) fn body(path: &Path, action: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::disk_full(path, 0),
            _ => Self::Body { path: path.to_owned(), action, source },
        }
    }

    /// An error of RocksDB; a full file system is told apart.
    pub(super) fn catalog(path: &Path, error: &rocksdb::Error) -> Self {
        let reason = error.to_string();
        // RocksDB hands its errors over as text: strerror(ENOSPC), or its own sub-code's name.
        if reason.contains("No space left") || reason.contains("Disk quota exceeded") {
            return Self::disk_full(path, 0);
        }
        Self::Catalog { path: path.to_owned(), reason }
    }

    /// A failed read of a body file: the bytes' fault, unless the process was out of means.
    pub(super) fn read_fault(path: &Path, source: io::Error) -> Fault {
        let means = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM];
        let errno = rustix::io::Errno::from_io_error(&source);
        if errno.is_some_and(|errno| means.contains(&errno)) {
            return Fault::Failed(Self::body(path, "read it", source));
        }
        Fault::Damaged(source.to_string())
    }

    fn disk_full(path: &Path, needed_bytes: u64) -> Self {
        Self::NoRoom { path: path.to_owned(), needed_bytes, cause: Full::Disk }
    }

    /// The same error, naming how much was being written and where the store is.
    pub(super) fn while_writing(self, dir: &Path, bytes: u64) -> Self {
        if self.is_disk_full() { Self::disk_full(dir, bytes) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_room_whoever_says_so() {
        let dir = Path::new("/var/lib/shoal");
        let full = || io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error = StoreError::body(&dir.join("bodies/ab"), "write", full());
        assert!(error.is_disk_full());
        let error = error.while_writing(dir, 700);
        assert_eq!(
            error.to_string(),
            "no room for 700 bytes in /var/lib/shoal: its file system is full; free space there, \
             or lower the store's budget"
        );
        assert_eq!(error.kind(), ErrorKind::Retry);
    }

    #[test]
    fn a_directory_error_names_place_and_remedy() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let text = StoreError::directory(Path::new("/data"), "create it", denied).to_string();
        assert_eq!(
            text,
            "store directory /data: cannot create it: permission denied; make its owner the user \
             that Shoal runs as, or name another directory"
        );
    }
}
