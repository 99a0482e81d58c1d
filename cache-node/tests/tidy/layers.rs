//! Imports only go down: the tables in `ARCHITECTURE.md` say who may import whom, and the sources
//! are held to them. A table stands below a line `<!-- layers: PATH -->`; its cells name modules
//! in backticks, `layer N` (every module of that layer), `layers below`, or `nothing`.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::code;
use crate::tree::{Tree, line_of};

/// Who may import whom.
#[derive(Debug, Default)]
struct Table {
    /// Module -> its layer and what it may import.
    rows: BTreeMap<String, (u8, BTreeSet<String>)>,
}

impl Table {
    /// The table below the marker of `name`, with every problem of its own.
    fn parse(markdown: &str, name: &str) -> (Self, Vec<String>) {
        let marker = format!("<!-- layers: {name} -->");
        let Some((_, below)) = markdown.split_once(&marker) else {
            return (Self::default(), vec![format!("ARCHITECTURE.md: no table `{marker}`")]);
        };
        let mut raw = Vec::new();
        for line in below.lines().skip_while(|line| !line.starts_with('|')) {
            let Some(row) = line.strip_prefix('|') else { break };
            let cells: Vec<_> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            if let [layer, modules, imports] = cells[..]
                && let Ok(layer) = layer.parse::<u8>()
            {
                raw.extend(names(modules).into_iter().map(|module| (layer, module, imports)));
            }
        }
        let layers = raw.iter().map(|(layer, module, _)| (module.clone(), *layer)).collect();
        let mut table = Self::default();
        let mut problems = Vec::new();
        for (layer, module, imports) in raw {
            let (may, wrong) = allowed(&layers, &module, imports);
            problems.extend(wrong);
            if table.rows.insert(module.clone(), (layer, may)).is_some() {
                problems.push(format!("ARCHITECTURE.md: {name}: `{module}` stands there twice"));
            }
        }
        (table, problems)
    }
}

/// The words in backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What an imports cell allows, and what is wrong with it: it may only name lower layers.
fn allowed(
    layers: &BTreeMap<String, u8>,
    module: &str,
    cell: &str,
) -> (BTreeSet<String>, Vec<String>) {
    let own = layers.get(module).copied().unwrap_or(0);
    let of = |wanted: &dyn Fn(u8) -> bool| {
        let those = layers.iter().filter(|(_, layer)| wanted(**layer));
        those.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let mut may = BTreeSet::new();
    let mut problems = Vec::new();
    for item in cell.split(',').map(str::trim) {
        match item.strip_prefix("layer ").map(str::parse::<u8>) {
            Some(Ok(layer)) => may.extend(of(&|other| other == layer)),
            _ if item == "layers below" => may.extend(of(&|other| other < own)),
            _ if item == "nothing" => {}
            _ if names(item).len() == 1 => may.extend(names(item)),
            _ => problems.push(format!("ARCHITECTURE.md: `{module}`: cannot read {item:?}")),
        }
    }
    for name in &may {
        match layers.get(name) {
            Some(layer) if *layer < own => {}
            Some(_) => problems.push(format!(
                "ARCHITECTURE.md: `{module}` may not import `{name}`: its layer is not lower"
            )),
            None => problems
                .push(format!("ARCHITECTURE.md: `{module}` imports `{name}`, which has no row")),
        }
    }
    (may, problems)
}

/// Holds the modules directly in `folder` to the table of that name. `library` is the crate as
/// `main.rs` names it.
pub(crate) fn check_modules(
    tree: &Tree,
    markdown: &str,
    folder: &str,
    library: &str,
) -> Vec<String> {
    let (table, mut problems) = Table::parse(markdown, folder);
    let mut present = BTreeSet::new();
    for (path, text) in &tree.files {
        let Some(inside) = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        let Some(inside) = inside.strip_suffix(".rs") else { continue };
        let module = inside.split('/').next().unwrap_or(inside);
        present.insert(module.to_owned());
        problems.extend(check_file(&table, path, inside, text, library));
    }
    for gone in table.rows.keys().filter(|name| !present.contains(*name)) {
        problems.push(format!("ARCHITECTURE.md: {folder}: `{gone}` has a row but no source"));
    }
    problems
}

fn check_file(table: &Table, path: &str, inside: &str, text: &str, library: &str) -> Vec<String> {
    let module = inside.split('/').next().unwrap_or(inside);
    let root = if module == "main" { library } else { "crate" };
    let found = imports(text, inside, root, &|name| table.rows.contains_key(name));
    let Some((layer, may)) = table.rows.get(module) else {
        // `lib.rs` declares the modules and knows none of them.
        if module == "lib" && found.is_empty() {
            return Vec::new();
        }
        return vec![format!("{path}: `{module}` has no row in ARCHITECTURE.md's layer table")];
    };
    let wrong = found.iter().filter(|(_, name)| name != module && !may.contains(name));
    wrong
        .map(|(line, name)| match table.rows.get(name) {
            None => format!("{path}:{line}: imports `{name}`, which has no row"),
            Some((other, _)) => format!(
                "{path}:{line}: `{module}` (layer {layer}) may not import `{name}` (layer {other})"
            ),
        })
        .collect()
}

/// Line and top-level module of every path from the crate's root, spelled `root::`, `super::` as
/// far as the root, or inside braces.
fn imports(
    text: &str,
    inside: &str,
    root: &str,
    known: &dyn Fn(&str) -> bool,
) -> Vec<(usize, String)> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, after) in paths(&code, root) {
        found.extend(heads(after).into_iter().map(|name| (line_of(&code, at), name)));
    }
    let depth = match inside.trim_end_matches("/mod") {
        "main" | "lib" => 0,
        module => module.split('/').count(),
    };
    for (at, mut after) in paths(&code, "super") {
        let mut climbed = 1;
        while let Some(rest) = after.trim_start().strip_prefix("super::") {
            climbed += 1;
            after = rest;
        }
        if climbed == depth + inline_modules(&code[..at]) {
            let names = heads(after).into_iter().filter(|name| known(name));
            found.extend(names.map(|name| (line_of(&code, at), name)));
        }
    }
    found
}

/// Where a path begins with `first::`, and the text after that.
fn paths<'a>(code: &'a str, first: &str) -> Vec<(usize, &'a str)> {
    let start = format!("{first}::");
    let joined = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let all = code.match_indices(&start).map(|(at, _)| (at, &code[at + start.len()..]));
    all.filter(|&(at, _)| !code[..at].ends_with(joined)).collect()
}

/// The first names of a path or of a braced list of paths.
fn heads(after: &str) -> Vec<String> {
    let after = after.trim_start();
    let Some(list) = after.strip_prefix('{') else {
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        let name = &after[..end];
        return if name.is_empty() || name == "self" { Vec::new() } else { vec![name.to_owned()] };
    };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                names.extend(heads(&list[start..at]));
                start = at + 1;
            }
            '}' => {
                names.extend(heads(&list[start..at]));
                break;
            }
            _ => {}
        }
    }
    names
}

/// How many `mod name {` are open at the end of `code`.
fn inline_modules(code: &str) -> usize {
    let mut open = Vec::new();
    let mut start = 0;
    for (at, c) in code.char_indices().filter(|(_, c)| "{};".contains(*c)) {
        if c == '{' {
            open.push(code[start..at].split_whitespace().rev().nth(1) == Some("mod"));
        } else if c == '}' {
            open.pop();
        }
        start = at + 1;
    }
    open.into_iter().filter(|module| *module).count()
}

/// Holds the workspace's crates, named by their folders, to the table `crates`.
pub(crate) fn check_crates(tree: &Tree, markdown: &str) -> Vec<String> {
    let (table, mut problems) = Table::parse(markdown, "crates");
    let manifests = tree.files.iter().filter_map(|(path, text)| {
        let folder = path.strip_suffix("/Cargo.toml")?;
        let name = text.lines().find_map(|line| line.strip_prefix("name = \"shoal-"))?;
        Some((folder, name.trim_end_matches('"'), text))
    });
    let manifests: Vec<_> = manifests.collect();
    for (folder, _, text) in &manifests {
        let Some((_, may)) = table.rows.get(*folder) else {
            problems.push(format!("{folder}: has no row in ARCHITECTURE.md's table of crates"));
            continue;
        };
        let used = manifests.iter().filter(|(_, name, _)| {
            let dependency = format!("shoal-{name}");
            text.lines().any(|line| {
                let rest = line.strip_prefix(&dependency);
                rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            })
        });
        let wrong = used.filter(|(other, _, _)| !may.contains(*other));
        problems.extend(wrong.map(|(other, _, _)| {
            format!("{folder}/Cargo.toml: `{folder}` may not depend on `{other}`")
        }));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Map

<!-- layers: a/src -->
| Layer | Module | May import |
|---|---|---|
| 3 | `main` | `top` |
| 2 | `top` | layers below |
| 1 | `left` | `low`, layer 0 |
| 1 | `right` | nothing |
| 0 | `low`, `clock` | nothing |

| 9 | `not` | nothing |
";

    fn check(path: &str, text: &str) -> Vec<String> {
        let all =
            ["main", "top", "left", "right", "low", "clock"].map(|name| format!("a/src/{name}.rs"));
        let mut files: Vec<_> = all.iter().map(|path| (path.as_str(), "")).collect();
        files.push((path, text));
        check_modules(&Tree::of(&files), TABLE, "a/src", "shoal_a")
    }

    #[test]
    fn allowed_imports_pass() {
        for (path, text) in [
            ("a/src/main.rs", "use shoal_a::top;"),
            ("a/src/top.rs", "use crate::{left::A, right::{B, low}, clock};"),
            (
                "a/src/left.rs",
                "//! [`crate::top`]\nuse crate::clock::now;\nlet a = \"crate::top\";",
            ),
            ("a/src/left/inner.rs", "use super::right; use super::super::low; use crate::left::x;"),
            ("a/src/left.rs", "mod tests { use super::right; }"),
            ("a/src/lib.rs", "pub mod top;"),
        ] {
            assert_eq!(check(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn forbidden_imports_are_caught() {
        for (path, text) in [
            ("a/src/main.rs", "use shoal_a::left;"),
            ("a/src/low.rs", "use crate::left::A;"),
            ("a/src/left.rs", "fn a() { crate::right::b() }"),
            ("a/src/left.rs", "use crate::{clock, right::B};"),
            ("a/src/left.rs", "use crate::{\n    low::{a, b},\n    right,\n};"),
            ("a/src/left/mod.rs", "use super::right;"),
            ("a/src/left/inner.rs", "use super::super::{right::C};"),
            ("a/src/left/inner.rs", "mod tests { use super::super::super::right; }"),
            ("a/src/right.rs", "use crate::nowhere::D;"),
            ("a/src/extra.rs", ""),
            ("a/src/lib.rs", "use crate::left;"),
        ] {
            assert_eq!(check(path, text).len(), 1, "{path}: {text}: {:?}", check(path, text));
        }
    }

    #[test]
    fn problems_name_the_line() {
        let found = check("a/src/low.rs", "//! Low.\n\nuse crate::top;\n");
        assert_eq!(found, ["a/src/low.rs:3: `low` (layer 0) may not import `top` (layer 2)"]);
    }

    #[test]
    fn bad_tables_are_caught() {
        for (from, to) in [
            ("| 1 | `right` | nothing |", "| 1 | `right` | `left` |"),
            ("| 1 | `right` | nothing |", "| 1 | `right` | `nowhere` |"),
            ("| 1 | `right` | nothing |", "| 1 | `right` | anything |"),
            ("| 1 | `right` | nothing |", "| 1 | `right` | layer 2 |"),
            ("`clock` | nothing", "`clock`, `left` | nothing"),
            ("<!-- layers: a/src -->", ""),
        ] {
            assert!(!Table::parse(&TABLE.replace(from, to), "a/src").1.is_empty(), "{to}");
        }
        assert_eq!(Table::parse(TABLE, "a/src").1, Vec::<String>::new());
        assert_eq!(check_modules(&Tree::of(&[]), TABLE, "a/src", "shoal_a").len(), 6);
    }

    #[test]
    fn crates_are_held_to_their_table() {
        let table = "<!-- layers: crates -->\n| 1 | `node` | `wire` |\n| 0 | `wire` | nothing |\n";
        let node =
            "[package]\nname = \"shoal-node\"\n[dependencies]\nshoal-wire.workspace = true\n";
        let wire = "[package]\nname = \"shoal-wire\"\n";
        let good = Tree::of(&[("node/Cargo.toml", node), ("wire/Cargo.toml", wire)]);
        assert_eq!(check_crates(&good, table), Vec::<String>::new());
        let upward = format!("{wire}[dependencies]\nshoal-node = {{ path = \"../node\" }}\n");
        let bad = Tree::of(&[("node/Cargo.toml", node), ("wire/Cargo.toml", &upward)]);
        assert_eq!(check_crates(&bad, table).len(), 1);
        let unknown = Tree::of(&[("other/Cargo.toml", "name = \"shoal-other\"\n")]);
        assert_eq!(check_crates(&unknown, table).len(), 1);
    }
}
