//! Form of single files: length, header, finished words, no prints, no machine's own paths.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::source::code;
use crate::tree::{Tree, line_of, words};

/// Lines of a source file or script at most.
const LINES_MAX: usize = 500;

/// The files that may take exception to `clippy.toml`'s bans: readers of time, spawners.
const EXEMPT: [&str; 6] = [
    "cache-node/src/clock.rs",
    "cache-node/src/tasks.rs",
    "loadtest/src/clock.rs",
    "loadtest/src/tasks.rs",
    "operator/src/clock.rs",
    "operator/src/tasks.rs",
];

/// The crate that may be exchanged one day, and the only folder that knows it (ADR 2).
const CONFINED: (&str, &str) = ("openraft", "cache-node/src/supernode/raft/");

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn in_tests(path: &str) -> bool {
    path.split('/').any(|part| part == "tests")
}

/// No file grows past [`LINES_MAX`].
pub(crate) fn lines(path: &str, text: &str) -> Vec<String> {
    let count = text.lines().count();
    let measured = is_rust(path) || path.ends_with(".sh") || path.ends_with(".proto");
    if !measured || count <= LINES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {count} lines, at most {LINES_MAX}: split it by noun")]
}

/// Every source file says first what it is for.
pub(crate) fn header(path: &str, text: &str) -> Vec<String> {
    let said = text.lines().next().is_some_and(|line| line.len() > "//! ".len());
    if !is_rust(path) || (text.starts_with("//! ") && said) {
        return Vec::new();
    }
    vec![format!("{path}:1: open with `//!`: purpose, invariants, what it must not know")]
}

/// Work is finished or stands in an issue, not in a comment.
pub(crate) fn unfinished(path: &str, text: &str) -> Vec<String> {
    if path == "Cargo.lock" || path == "LICENSE" {
        return Vec::new();
    }
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let found = |mark: &'static str| {
        words(text, mark).map(move |at| {
            format!("{path}:{}: {mark}: finish it, or open an issue", line_of(text, at))
        })
    };
    marks.into_iter().flat_map(found).collect()
}

/// Standard streams are written on purpose, with an error that is seen; build scripts speak to
/// cargo by printing, tests may report.
pub(crate) fn prints(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || path.ends_with("/build.rs") || in_tests(path) {
        return Vec::new();
    }
    let code = code(text);
    let found = |name: &'static str| {
        let calls = words(&code, name).filter(|at| code[at + name.len()..].starts_with('!'));
        let lines: Vec<_> = calls.map(|at| line_of(&code, at)).collect();
        let remedy = "use writeln! on io::stdout() or io::stderr()";
        lines.into_iter().map(move |line| format!("{path}:{line}: {name}!: {remedy}"))
    };
    ["println", "eprintln", "print", "eprint", "dbg"].into_iter().flat_map(found).collect()
}

/// Nothing in the tree depends on where one person works.
pub(crate) fn own_paths(path: &str, text: &str) -> Vec<String> {
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/")];
    let found = |home: &'static str| {
        text.match_indices(home)
            .filter(|&(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            .map(move |(at, _)| {
                format!("{path}:{}: {home} is one machine's own path", line_of(text, at))
            })
    };
    homes.into_iter().flat_map(found).collect()
}

/// The clock has one reader and tasks have one spawner a crate.
pub(crate) fn exemptions(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || in_tests(path) || EXEMPT.contains(&path) {
        return Vec::new();
    }
    let code = code(text);
    let found = words(&code, "disallowed_methods").map(|at| {
        let line = line_of(&code, at);
        format!("{path}:{line}: only {} may except clippy.toml's bans", EXEMPT.join(", "))
    });
    found.collect()
}

/// A crate whose types stay in one folder.
pub(crate) fn confined(path: &str, text: &str) -> Vec<String> {
    let (name, folder) = CONFINED;
    if !is_rust(path) || path.starts_with(folder) {
        return Vec::new();
    }
    let code = code(text);
    let found = words(&code, name);
    found.map(|at| format!("{path}:{}: {name} stays in {folder}", line_of(&code, at))).collect()
}

/// What opens with `#!` can be run.
pub(crate) fn executables(tree: &Tree) -> Vec<String> {
    let scripts = tree.files.iter().filter(|(_, text)| text.starts_with("#!/"));
    let locked = scripts.filter(|(path, _)| {
        let mode = fs::metadata(tree.root.join(path)).map_or(0, |meta| meta.permissions().mode());
        mode & 0o111 != 0o111
    });
    locked.map(|(path, _)| format!("{path}: is a script: chmod +x")).collect()
}

#[test]
fn long_files_are_caught() {
    let long = "//! x\n".repeat(LINES_MAX + 1);
    assert_eq!(lines("a/src/b.rs", &long).len(), 1);
    assert_eq!(lines("a/b.sh", &long).len(), 1);
    assert!(lines("a/src/b.rs", &"//! x\n".repeat(LINES_MAX)).is_empty());
    assert!(lines("Cargo.lock", &long).is_empty());
}

#[test]
fn missing_headers_are_caught() {
    for bad in ["", "use a;\n//! late", "// plain\n", "//!\n//! empty first line\n"] {
        assert_eq!(header("a.rs", bad).len(), 1, "{bad:?}");
    }
    assert!(header("a.rs", "//! A.\n").is_empty());
    assert!(header("a.toml", "a = 1").is_empty());
}

#[test]
fn unfinished_work_is_caught() {
    let mark = concat!("FIX", "ME");
    let found = unfinished("a.rs", &format!("//! A.\n// {mark}: later\n"));
    assert!(found[0].starts_with("a.rs:2: "), "{found:?}");
    assert!(unfinished("a.sh", "mktemp /tmp/a.XXXXXX").is_empty());
}

#[test]
fn prints_are_caught() {
    assert_eq!(prints("a/src/b.rs", "fn a() { println!(\"x\"); dbg!(1) }").len(), 2);
    for good in
        ["// println!(\"x\")", "let a = \"println!\";", "fn print(a: u8) {}", "my_println!()"]
    {
        assert!(prints("a/src/b.rs", good).is_empty(), "{good}");
    }
    assert!(prints("a/build.rs", "println!(\"cargo:rerun\")").is_empty());
    assert!(prints("a/tests/b.rs", "println!(\"figures\")").is_empty());
}

#[test]
fn own_paths_are_caught() {
    let path = concat!("/wo", "rk/tree");
    assert_eq!(own_paths("a.md", &format!("see {path}")).len(), 1);
    assert_eq!(own_paths("a.md", &format!("target=\"{path}\"")).len(), 1);
    assert!(own_paths("a.md", &format!("https://host/net{path}")).is_empty());
}

#[test]
fn exemptions_are_caught() {
    let text = "//! A.\n#![expect(clippy::disallowed_methods, reason = \"in a hurry\")]\n";
    assert_eq!(exemptions("cache-node/src/store/mod.rs", text).len(), 1);
    assert!(exemptions("cache-node/src/clock.rs", text).is_empty());
    assert!(exemptions("cache-node/tests/a.rs", text).is_empty());
}

#[test]
fn strayed_crates_are_caught() {
    let text = "//! Not openraft.\nuse openraft::Raft;\n";
    assert_eq!(confined("cache-node/src/node/mod.rs", text).len(), 1);
    assert!(confined("cache-node/src/supernode/raft/log.rs", text).is_empty());
}

#[test]
fn locked_scripts_are_caught() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run"), "#!/bin/sh\n").unwrap();
    let mut tree = Tree::of(&[("run", "#!/bin/sh\n"), ("notes", "text")]);
    tree.root = folder.path().to_owned();
    assert_eq!(executables(&tree).len(), 1);
}
