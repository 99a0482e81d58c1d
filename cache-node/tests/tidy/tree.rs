//! The workspace's text files, read once for all rules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every text file under the workspace root, by its path from there with `/` between parts.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the tree that this test was built from.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files);
        assert!(files.contains_key("Cargo.toml"), "no workspace at {}", root.display());
        Self { root, files }
    }

    /// A tree of the given files alone.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let own = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { root: PathBuf::new(), files: files.iter().map(own).collect() }
    }

    /// A file's text; empty when there is none, which every rule that needs it reports.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// Whether a file or folder of that path is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self
                .files
                .range(folder.clone()..)
                .next()
                .is_some_and(|(p, _)| p.starts_with(&folder))
    }

    /// The problems that `rule` finds in each file.
    pub(crate) fn each(&self, rule: fn(&str, &str) -> Vec<String>) -> Vec<String> {
        self.files.iter().flat_map(|(path, text)| rule(path, text)).collect()
    }
}

/// Version control, build output (marked by cargo's `CACHEDIR.TAG`) and files that are no text are
/// left out.
fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    if folder.join("CACHEDIR.TAG").exists() {
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == ".git" || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let parts = path.strip_prefix(root).unwrap().iter().map(|part| part.to_string_lossy());
            files.insert(parts.collect::<Vec<_>>().join("/"), text);
        }
    }
}

/// The 1-based line of byte `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `word` stands in `text` with no letter, digit or underscore on either side.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !text[..at].chars().next_back().is_some_and(inner)
            && !text[at + word.len()..].chars().next().is_some_and(inner)
    })
}

#[test]
fn words_are_whole() {
    assert_eq!(words("a bb bbb, bb", "bb").collect::<Vec<_>>(), [2, 10]);
    assert_eq!(line_of("a\nb\nc", 4), 3);
}

#[test]
fn folders_count_as_present() {
    let tree = Tree::of(&[("docs/adr/a.md", ""), ("docs-old", "")]);
    assert!(tree.has("docs") && tree.has("docs/adr") && tree.has("docs/adr/a.md"));
    assert!(!tree.has("doc") && !tree.has("docs/adr/b.md"));
}
