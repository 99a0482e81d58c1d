//! Files that Shoal keeps for itself: written whole or not at all, in folders that no other user
//! can read and that two processes never share. Errors name the path and the remedy.
//!
//! Must not know what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Folders: for their owner alone.
const FOLDER_MODE: u32 = 0o700;
/// Files with secrets: for their owner alone.
pub const SECRET_MODE: u32 = 0o600;
/// Other files.
pub const PLAIN_MODE: u32 = 0o644;
/// The file whose lock a folder's process holds.
pub const LOCK_FILE: &str = "lock";

/// A file or folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; {remedy}", path.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What would help.
        remedy: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process works in the folder.
    #[error(
        "data directory {} is in use by another process; stop that one or use another directory",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

impl FileError {
    fn refused(action: &'static str, path: &Path, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::PermissionDenied => "make it writable for this user, or use another",
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "a file stands where a directory is needed; move it or use another path"
            }
            io::ErrorKind::StorageFull => "free some space on that disk",
            io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or use another path",
            _ => "check the path and the disk",
        };
        Self::Refused { action, path: path.to_owned(), remedy, source }
    }
}

/// Makes `folder`, and those above it, for their owner alone; an existing one stays as it is.
///
/// # Errors
/// When the operating system refuses.
pub fn make_folder(folder: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|error| FileError::refused("create directory", folder, error))
}

/// Replaces the file at `path`: a reader, or a crash, sees the old content or the new.
///
/// # Errors
/// When the operating system refuses.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let refused = |error| FileError::refused("write", path, error);
    let temporary = temporary_path(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&temporary).map_err(refused)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(refused)?;
    fs::rename(&temporary, path).map_err(refused)?;
    // The rename itself is durable once the folder is.
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused)
}

/// Reads a small file of Shoal's own; `None` when it does not exist.
///
/// # Errors
/// When it exists and cannot be read.
pub fn read_small(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::refused("read", path, error)),
    }
}

/// Removes a file, for good when this returns; one that is not there is no error.
///
/// # Errors
/// When the operating system refuses.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let refused = |error| FileError::refused("remove", path, error);
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(refused)?,
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused)
}

/// Where [`write_whole`] prepares the content of `path`.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// A folder that is this process's alone for as long as this value lives; the kernel lets go of it
/// when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// When another process has it, or it is not writable.
    pub fn take(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(SECRET_MODE);
        let file =
            options.open(&path).map_err(|error| FileError::refused("write to", folder, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(FileError::InUse { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(FileError::refused("lock", &path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_whole(&path, b"first, and long", SECRET_MODE).unwrap();
        write_whole(&path, b"second", SECRET_MODE).unwrap();
        assert_eq!(read_small(&path).unwrap().as_deref(), Some("second"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_small(&folder.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_folder_has_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::write(&path, "").unwrap();
        let refused = make_folder(&path.join("data")).unwrap_err().to_string();
        assert!(refused.contains("taken") && refused.contains("a file stands"), "{refused}");
    }
}
