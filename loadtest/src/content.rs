//! What an object's bytes are (PURE): a function of seed, path, version and offset.
//!
//! Anybody who knows the seed can verify any part of any reply without having seen the rest: the
//! bytes are the output of BLAKE3's keyed extendable output, which seeks. Two paths, versions or
//! seeds share no bytes. Nothing here knows HTTP beyond the form of a path.
//!
//! A path is `/o/<size>/<name>`: exactly `<size>` bytes, a plain number. Percent-escapes are
//! decoded before the bytes are derived, since a cache may normalise them on the way. Of the
//! query only `version` counts.

use blake3::{Hasher, OutputReader};
use thiserror::Error;

use crate::percent;

/// The largest object that the origin offers.
pub const OBJECT_SIZE_MAX_BYTES: u64 = 1 << 40;

/// What every object's path starts with.
pub const OBJECT_PREFIX: &str = "/o/";

const KEY_CONTEXT: &str = "shoal-loadtest object content v1";

/// What a hash is for; the uses share a key but no output.
#[derive(Clone, Copy)]
enum Domain {
    Body = 0,
    Validator = 1,
}

/// Why a path names no object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// The path does not start with `/o/`.
    #[error("`{0}` is no object: a path is /o/<size>/<name>, for example /o/4096/a")]
    NotAnObject(String),
    /// The size is no plain number.
    #[error("`{0}` in the path is no size: write plain bytes, for example /o/4096/a")]
    Size(String),
    /// The size is beyond [`OBJECT_SIZE_MAX_BYTES`].
    #[error("an object of {0} bytes is too large: the limit is {OBJECT_SIZE_MAX_BYTES} bytes")]
    TooLarge(String),
    /// Nothing stands after the size.
    #[error("the object has no name: write /o/<size>/<name>, for example /o/4096/a")]
    NoName,
}

/// An object's identity: its decoded path and version, and the size that the path states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    path: Vec<u8>,
    version: Vec<u8>,
    size_bytes: u64,
}

impl ObjectName {
    /// Reads a path with or without a query.
    ///
    /// # Errors
    /// When it does not have the form `/o/<size>/<name>`.
    pub fn parse(path_and_query: &str) -> Result<Self, PathError> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let rest = path
            .strip_prefix(OBJECT_PREFIX)
            .ok_or_else(|| PathError::NotAnObject(path.to_owned()))?;
        let (size, name) = rest.split_once('/').unwrap_or((rest, ""));
        let size_bytes = parse_size(size)?;
        if name.is_empty() {
            return Err(PathError::NoName);
        }
        let version = percent::pairs(query).find(|(key, _)| *key == "version");
        Ok(Self {
            path: percent::decode(path),
            version: version.map(|(_, value)| percent::decode(value)).unwrap_or_default(),
            size_bytes,
        })
    }

    /// The object's length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The version asked for; empty without one.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        &self.version
    }
}

fn parse_size(text: &str) -> Result<u64, PathError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PathError::Size(text.to_owned()));
    }
    match text.parse() {
        Ok(size) if size <= OBJECT_SIZE_MAX_BYTES => Ok(size),
        _ => Err(PathError::TooLarge(text.to_owned())),
    }
}

/// All objects of one seed.
#[derive(Clone, Debug)]
pub struct Content {
    key: [u8; 32],
}

impl Content {
    /// The objects of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { key: blake3::derive_key(KEY_CONTEXT, &seed.to_le_bytes()) }
    }

    /// Fills `buf` from `offset` on and returns how many bytes there were; fewer than `buf` holds
    /// only at the object's end.
    ///
    /// # Errors
    /// When `path` names no object.
    pub fn read(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, PathError> {
        Ok(self.open(&ObjectName::parse(path)?, offset).read(buf))
    }

    /// The strong entity tag, with its quotes.
    ///
    /// # Errors
    /// When `path` names no object.
    pub fn etag(&self, path: &str) -> Result<String, PathError> {
        Ok(self.etag_of(&ObjectName::parse(path)?))
    }

    /// The strong entity tag of a parsed name, with its quotes.
    #[must_use]
    pub fn etag_of(&self, object: &ObjectName) -> String {
        let hash = self.hasher(object, Domain::Validator).finalize();
        format!("\"{}\"", &hash.to_hex()[..32])
    }

    /// Reads an object piece by piece, from `offset` on.
    #[must_use]
    pub fn open(&self, object: &ObjectName, offset: u64) -> ContentReader {
        let mut output = self.hasher(object, Domain::Body).finalize_xof();
        output.set_position(offset);
        ContentReader { output, left_bytes: object.size_bytes.saturating_sub(offset) }
    }

    fn hasher(&self, object: &ObjectName, domain: Domain) -> Hasher {
        let mut hasher = Hasher::new_keyed(&self.key);
        hasher.update(&[domain as u8]);
        // The length keeps a path's end and a version's start apart.
        hasher.update(&(object.path.len() as u64).to_le_bytes());
        hasher.update(&object.path).update(&object.version);
        hasher
    }
}

/// A position in one object's bytes.
#[derive(Clone, Debug)]
pub struct ContentReader {
    output: OutputReader,
    left_bytes: u64,
}

impl ContentReader {
    /// Fills `buf` with the next bytes and returns how many there were; 0 at the end.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        let len = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buf.len());
        self.output.fill(&mut buf[..len]);
        self.left_bytes -= len as u64;
        len
    }

    /// Bytes between the position and the object's end.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(seed: u64, path: &str) -> Vec<u8> {
        let mut bytes = vec![0; 5000];
        let len = Content::new(seed).read(path, 0, &mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn bytes_follow_from_seed_path_and_version() {
        let base = whole(1, "/o/1000/a");
        assert_eq!(base.len(), 1000);
        assert_eq!(base, whole(1, "/o/1000/a"));
        assert_ne!(base, whole(2, "/o/1000/a"));
        assert_ne!(base, whole(1, "/o/1000/b"));
        assert_ne!(base, whole(1, "/o/1000/a?version=2"));
        assert_ne!(base, whole(1, "/o/1001/a")[..1000]);
        assert_eq!(base, whole(1, "/o/1000/a?cc=no-store&x=1"), "other parameters do not count");
        assert_eq!(base, whole(1, "/o/1000/%61"), "escapes are decoded first");
    }

    #[test]
    fn the_bytes_are_pinned() {
        // A change here would make every recorded reply unverifiable.
        assert_eq!(whole(1, "/o/8/pinned"), [114, 121, 233, 31, 195, 236, 21, 39]);
    }

    #[test]
    fn etags_differ_with_the_version_and_not_with_other_parameters() {
        let content = Content::new(1);
        let etag = content.etag("/o/10/a").unwrap();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 34, "{etag}");
        assert_eq!(etag, content.etag("/o/10/a?delay-ms=1").unwrap());
        assert_ne!(etag, content.etag("/o/10/a?version=b").unwrap());
        assert_ne!(etag, Content::new(2).etag("/o/10/a").unwrap());
    }

    #[test]
    fn only_well_formed_paths_name_objects() {
        let parse = |path| ObjectName::parse(path).map(|object| object.size_bytes());
        assert_eq!(parse("/o/0/a"), Ok(0));
        assert_eq!(parse("/o/12/deep/name.tar.gz?x=1"), Ok(12));
        assert!(matches!(parse("/"), Err(PathError::NotAnObject(_))));
        assert!(matches!(parse("/o/+5/a"), Err(PathError::Size(_))));
        assert!(matches!(parse("/o/4KiB/a"), Err(PathError::Size(_))));
        assert!(matches!(parse("/o//a"), Err(PathError::Size(_))));
        assert!(matches!(parse("/o/1099511627777/a"), Err(PathError::TooLarge(_))));
        assert!(matches!(parse("/o/99999999999999999999999/a"), Err(PathError::TooLarge(_))));
        assert_eq!(parse("/o/5"), Err(PathError::NoName));
        assert_eq!(parse("/o/5/"), Err(PathError::NoName));
        assert_eq!(parse("/o/1099511627776/a"), Ok(OBJECT_SIZE_MAX_BYTES));
    }

    #[test]
    fn the_far_end_of_a_large_object_is_as_near_as_its_start() {
        let path = "/o/1099511627776/huge";
        let mut tail = [0; 64];
        let len = Content::new(1).read(path, OBJECT_SIZE_MAX_BYTES - 10, &mut tail).unwrap();
        assert_eq!(len, 10);
        assert_eq!(Content::new(1).read(path, OBJECT_SIZE_MAX_BYTES, &mut tail), Ok(0));
    }

    proptest! {
        #[test]
        fn any_range_is_that_part_of_the_whole(offset in 0_u64..5200, len in 0_usize..700) {
            let all = whole(9, "/o/5000/r");
            let mut part = vec![0; len];
            let got = Content::new(9).read("/o/5000/r", offset, &mut part).unwrap();
            let start = usize::try_from(offset).unwrap().min(all.len());
            let end = (start + len).min(all.len());
            prop_assert_eq!(&part[..got], &all[start..end]);
        }

        #[test]
        fn pieces_join_without_a_seam(cuts in proptest::collection::vec(1_usize..900, 1..12)) {
            let content = Content::new(4);
            let object = ObjectName::parse("/o/5000/s").unwrap();
            let mut reader = content.open(&object, 0);
            let mut joined = Vec::new();
            for cut in cuts {
                let mut piece = vec![0; cut];
                let len = reader.read(&mut piece);
                joined.extend_from_slice(&piece[..len]);
            }
            prop_assert_eq!(reader.left_bytes(), 5000 - joined.len() as u64);
            prop_assert_eq!(&joined[..], &whole(4, "/o/5000/s")[..joined.len()]);
        }
    }
}
