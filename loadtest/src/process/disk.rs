//! How much a folder holds: the lengths of its files, each counted once however many names it has,
//! so that a checkpoint made of hard links costs nothing. What is reserved and not yet written does
//! not count.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

/// Folders below one another; deeper ones are not looked into.
const DEPTH_MAX: usize = 8;

/// Bytes in `folder` and below it; files that vanish meanwhile do not count.
#[must_use]
pub fn bytes_in(folder: &Path) -> u64 {
    let mut seen = HashSet::new();
    add(folder, DEPTH_MAX, &mut seen)
}

fn add(folder: &Path, depth: usize, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let mut sum = 0;
    for entry in entries.flatten() {
        let Ok(facts) = fs::symlink_metadata(entry.path()) else { continue };
        if facts.is_dir() && depth > 0 {
            sum += add(&entry.path(), depth - 1, seen);
        } else if facts.is_file() && seen.insert((facts.dev(), facts.ino())) {
            sum += facts.len();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(folder.path().join("a"), [0; 100]).unwrap();
        fs::write(below.join("b"), [0; 10]).unwrap();
        fs::hard_link(folder.path().join("a"), below.join("c")).unwrap();
        assert_eq!(bytes_in(folder.path()), 110);
        assert_eq!(bytes_in(&folder.path().join("nowhere")), 0);
    }
}
