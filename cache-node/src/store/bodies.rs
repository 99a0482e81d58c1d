//! Body files: one sparse file an object, `bodies/<2 hex>/<16 hex>`, each chunk at its own offset.
//! One of a known length has its space set aside at once, so that its chunks lie together and a
//! full disk shows before the first of them.
//!
//! Invariants: a file's number is drawn once and never used again; at most [`OPEN_FILES_MAX`] are
//! kept open, beyond that each access opens and closes; names come from numbers alone, so that no
//! input ever makes a path, and no link is followed.
//! It must not know: keys, manifests, hashes, budget.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::error::{Fault, StoreError};
use super::{FileId, lock};

/// Most body files kept open between accesses.
pub(super) const OPEN_FILES_MAX: usize = 512;

/// Nobody but the owner reads other people's responses.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes a directory and those above it, for the owner alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// The directory of all body files.
#[derive(Debug)]
pub(super) struct Bodies {
    dir: PathBuf,
    open: AtomicUsize,
    /// Files made by this process and not removed again, while somebody asks who belongs to nothing.
    born: Mutex<Option<HashSet<FileId>>>,
    #[cfg(test)]
    pub(super) faults: super::tests::Faults,
}

impl Bodies {
    pub(super) fn new(dir: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            dir,
            open: AtomicUsize::new(0),
            born: Mutex::new(Some(HashSet::new())),
            #[cfg(test)]
            faults: super::tests::Faults::default(),
        })
    }

    pub(super) fn path(&self, id: FileId) -> PathBuf {
        let name = id.to_string();
        self.dir.join(&name[..2]).join(name)
    }

    /// Removes a file; that there is none is as good.
    pub(super) fn remove(&self, id: FileId) -> Result<(), StoreError> {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::body(&path, "remove it", error))
            }
            _ => {
                if let Some(born) = lock(&self.born).as_mut() {
                    born.remove(&id);
                }
                Ok(())
            }
        }
    }

    /// The body files whose names begin with that byte. What is not named like one is not ours.
    pub(super) fn part(&self, part: u8) -> Result<Vec<FileId>, StoreError> {
        let path = self.dir.join(format!("{part:02x}"));
        let failed = |error| StoreError::body(&path, "list it", error);
        let files = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(failed)?,
        };
        let mut ids = Vec::new();
        for file in files {
            let name = file.map_err(failed)?.file_name();
            let id = name.to_str().and_then(FileId::parse);
            ids.extend(id.filter(|id| id.0 >> 56 == u64::from(part)));
        }
        Ok(ids)
    }

    /// Gives back the space of so many bytes at `offset`; false where the file system cannot do that.
    pub(super) fn punch(&self, id: FileId, offset: u64, bytes: u64) -> Result<bool, StoreError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = Self::options().write(true).open(self.path(id)).and_then(|file| {
            #[cfg(test)]
            self.faults.meet(id, super::tests::Act::Punch)?;
            rustix::fs::fallocate(file, flags, offset, bytes).map_err(io::Error::from)
        });
        match punched {
            Ok(()) => Ok(true),
            // A file that is gone takes no space.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(StoreError::body(&self.path(id), "give space back", error)),
        }
    }

    /// A file's length; `None` when there is none.
    pub(super) fn length(&self, id: FileId) -> io::Result<Option<u64>> {
        match std::fs::symlink_metadata(self.path(id)) {
            Ok(facts) => Ok(Some(facts.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this process made the file. Only while [`Bodies::forget_born`] was not called.
    pub(super) fn is_born(&self, id: FileId) -> bool {
        lock(&self.born).as_ref().is_none_or(|born| born.contains(&id))
    }

    /// Nobody asks any more.
    pub(super) fn forget_born(&self) {
        *lock(&self.born) = None;
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits();
        options.read(true).custom_flags(i32::try_from(no_follow).unwrap_or(0));
        options
    }

    fn open_or_create(&self, id: FileId) -> io::Result<File> {
        if let Some(born) = lock(&self.born).as_mut() {
            born.insert(id);
        }
        let path = self.path(id);
        let mut options = Self::options();
        options.write(true).create(true).mode(FILE_MODE);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), make_directory)?;
                options.open(&path)
            }
            opened => opened,
        }
    }
}

/// One body file, opened when first used.
#[derive(Debug)]
pub(super) struct BodyFile {
    id: FileId,
    bodies: Arc<Bodies>,
    kept: OnceLock<KeptOpen>,
}

/// A descriptor that counts, until it closes.
#[derive(Debug)]
pub(super) struct KeptOpen {
    file: File,
    bodies: Arc<Bodies>,
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.bodies.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl BodyFile {
    pub(super) fn new(id: FileId, bodies: Arc<Bodies>) -> Self {
        Self { id, bodies, kept: OnceLock::new() }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Its descriptor, to be closed elsewhere.
    pub(super) fn take_open(&mut self) -> Option<KeptOpen> {
        self.kept.take()
    }

    /// Writes all of `data` at `offset`; makes the file when there is none.
    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> Result<(), StoreError> {
        let open = |bodies: &Bodies| bodies.open_or_create(self.id);
        self.with(open, |file| {
            #[cfg(test)]
            self.bodies.faults.meet(self.id, super::tests::Act::Write)?;
            file.write_all_at(data, offset)
        })
        .map_err(|error| self.error("write to it", error))
    }

    /// Sets space aside for so many bytes; the file is no longer for it. False where the file
    /// system cannot do that.
    pub(super) fn set_aside(&self, bytes: u64) -> Result<bool, StoreError> {
        let open = |bodies: &Bodies| bodies.open_or_create(self.id);
        let set_aside = self.with(open, |file| {
            rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes)
                .map_err(io::Error::from)
        });
        match set_aside {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(self.error("set space aside", error)),
        }
    }

    /// Makes the file that long, without any space for it.
    pub(super) fn outline(&self, bytes: u64) -> Result<(), StoreError> {
        let open = |bodies: &Bodies| bodies.open_or_create(self.id);
        self.with(open, |file| file.set_len(bytes)).map_err(|error| self.error("size it", error))
    }

    /// Brings the file's bytes and length to the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let open = |bodies: &Bodies| bodies.open_or_create(self.id);
        self.with(open, |file| {
            #[cfg(test)]
            self.bodies.faults.meet(self.id, super::tests::Act::Sync)?;
            file.sync_data()
        })
        .map_err(|error| self.error("sync it", error))
    }

    /// Exactly `length` bytes from `offset`, or an error: never fewer.
    pub(super) fn read_at(&self, length: usize, offset: u64) -> Result<Bytes, Fault> {
        let mut buffer = vec![0; length];
        let open = |bodies: &Bodies| Bodies::options().open(bodies.path(self.id));
        let read = |file: &File| {
            #[cfg(test)]
            self.bodies.faults.meet(self.id, super::tests::Act::Read)?;
            file.read_exact_at(&mut buffer, offset)
        };
        self.with(open, read)
            .map_err(|error| StoreError::read_fault(&self.bodies.path(self.id), error))?;
        Ok(buffer.into())
    }

    fn with<T>(
        &self,
        open: impl FnOnce(&Bodies) -> io::Result<File>,
        work: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(kept) = self.kept.get() {
            return work(&kept.file);
        }
        let file = open(&self.bodies)?;
        let one_more = |open: usize| (open < OPEN_FILES_MAX).then_some(open + 1);
        let counted = self.bodies.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        if counted.is_err() {
            return work(&file);
        }
        let kept = KeptOpen { file, bodies: Arc::clone(&self.bodies) };
        // Of two that open it at once, the first is kept and serves both.
        work(&self.kept.get_or_init(|| kept).file)
    }

    fn error(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::body(&self.bodies.path(self.id), action, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> (tempfile::TempDir, Arc<Bodies>) {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(dir.path().to_owned());
        (dir, bodies)
    }

    #[test]
    fn chunks_land_at_their_offsets_in_any_order() {
        let (_dir, bodies) = bodies();
        let file = BodyFile::new(FileId(0xab << 56), Arc::clone(&bodies));
        file.write_at(b"tail", 1024 * 1024).unwrap();
        file.write_at(b"head", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(file.read_at(4, 1024 * 1024).unwrap(), "tail");
        assert_eq!(file.read_at(6, 0).unwrap(), &b"head\0\0"[..]);
        assert!(matches!(file.read_at(5, 1024 * 1024), Err(Fault::Damaged(_))), "cut short");
        assert!(bodies.path(file.id()).ends_with("ab/ab00000000000000"));
    }

    #[test]
    fn space_is_set_aside_and_the_file_no_longer_for_it() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, bodies) = bodies();
        let file = BodyFile::new(FileId(7), Arc::clone(&bodies));
        assert!(file.set_aside(1 << 20).unwrap(), "the tests' file system can do it");
        file.write_at(b"head", 0).unwrap();
        let facts = std::fs::metadata(bodies.path(FileId(7))).unwrap();
        assert_eq!(facts.len(), 4);
        assert!(facts.blocks() * 512 >= 1 << 20, "{} blocks", facts.blocks());
    }

    #[test]
    fn lists_its_own_files_only() {
        let (dir, bodies) = bodies();
        BodyFile::new(FileId(1), Arc::clone(&bodies)).write_at(b"one", 0).unwrap();
        std::fs::write(dir.path().join("00/notes.txt"), "not ours").unwrap();
        std::fs::write(dir.path().join("00/ff00000000000000"), "in the wrong folder").unwrap();
        std::fs::write(dir.path().join("README"), "not ours").unwrap();
        assert_eq!(bodies.part(0).unwrap(), [FileId(1)]);
        assert_eq!(bodies.part(0xff).unwrap(), []);
        assert_eq!(bodies.length(FileId(1)).unwrap(), Some(3));
        assert_eq!(bodies.length(FileId(2)).unwrap(), None);
        assert!(bodies.is_born(FileId(1)) && !bodies.is_born(FileId(0xff << 56)));
        bodies.remove(FileId(1)).unwrap();
        bodies.remove(FileId(1)).unwrap();
    }

    #[test]
    fn beyond_the_bound_files_are_opened_and_closed_each_time() {
        let (_dir, bodies) = bodies();
        bodies.open.store(OPEN_FILES_MAX - 1, Ordering::Release);
        let file = |id| BodyFile::new(FileId(id), Arc::clone(&bodies));
        let (kept, passing) = (file(1), file(2));
        kept.write_at(b"kept", 0).unwrap();
        passing.write_at(b"passing", 0).unwrap();
        assert_eq!(bodies.open.load(Ordering::Acquire), OPEN_FILES_MAX);
        assert!(passing.kept.get().is_none());
        assert_eq!(passing.read_at(7, 0).unwrap(), "passing");
        drop(kept);
        assert_eq!(bodies.open.load(Ordering::Acquire), OPEN_FILES_MAX - 1);
    }

    #[test]
    fn a_link_in_a_files_place_is_not_followed() {
        let (dir, bodies) = bodies();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        std::fs::create_dir(dir.path().join("00")).unwrap();
        std::os::unix::fs::symlink(&secret, bodies.path(FileId(1))).unwrap();
        let file = BodyFile::new(FileId(1), bodies);
        assert!(file.read_at(6, 0).is_err());
        assert!(file.write_at(b"x", 0).is_err());
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    }
}
