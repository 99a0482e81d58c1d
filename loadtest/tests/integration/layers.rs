//! Imports only go down: the table in `lib.rs` is the rule.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Layer of each module, the highest first; the base, whose modules may use one another, last.
fn layers() -> BTreeMap<String, usize> {
    let lib = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.filter_map(|row| row.split(" | ").nth(1));
    let named = cells.map(|cell| cell.split('`').skip(1).step_by(2)).enumerate();
    named.flat_map(|(layer, names)| names.map(move |name| (name.to_owned(), layer))).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The first name of every path that starts at the crate, also within `use crate::{...}`.
fn imports(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    names.push(first_name(&group[start..at]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.push(first_name(&group[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(path: &str) -> String {
    path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_only_go_down() {
    let layers = layers();
    let base = layers["clock"];
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    let mut checked = 0;
    for path in paths {
        let inside = path.strip_prefix(source()).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        for name in imports(&std::fs::read_to_string(&path).unwrap()) {
            let (from, to) = (layers[module], layers[&name]);
            let down = from < to || name == module || (from == base && to == base);
            assert!(down, "{} uses {name}, which is not below {module}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} imports were found");
}

#[test]
fn imports_are_found_in_every_form() {
    let text =
        "use crate::{\n    a::{b, c},\n    d,\n    e::f,\n};\nuse crate::g::h; crate::i::j()";
    assert_eq!(imports(text), ["a", "d", "e", "g", "i"]);
}
