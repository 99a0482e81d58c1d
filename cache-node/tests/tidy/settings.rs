//! `docs/configuration.md` lists every key of the configuration: those of
//! `cache-node/src/config/keys.rs` in a table that is written from there, those of a site by hand,
//! with their names held to the fields of `SiteConfig`.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::page;
use crate::source::{code, literal};
use crate::tree::Tree;

const KEYS: &str = "cache-node/src/config/keys.rs";
const SITES: &str = "cache-node/src/policy/site.rs";
const PAGE: &str = "docs/configuration.md";

/// Fields of a key, in the order of the table.
const FIELDS: [&str; 5] = ["path", "flag", "variable", "default", "help"];

/// The keys that `source` lists: each a `Key { .. }` of literals.
fn keys(source: &str) -> Result<Vec<[String; 5]>, String> {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    let source = &source[..end];
    let code = code(source);
    let starts: Vec<_> = code.match_indices("Key {").map(|(at, _)| at).collect();
    let blocks = starts.iter().map(|&at| {
        let end = code[at..].find('}').map_or(code.len(), |length| at + length);
        &source[at..end]
    });
    // The type's own definition names the fields, too, but gives them no literals.
    let found = blocks.filter(|block| block.contains('"')).map(|block| {
        let field = |name: &str| {
            let (_, after) = block.split_once(&format!("{name}:"))?;
            literal(after.trim_start()).map(|(value, _)| value)
        };
        let values = FIELDS.map(field);
        match values {
            [Some(a), Some(b), Some(c), Some(d), Some(e)] => Ok([a, b, c, d, e]),
            _ => Err(format!("{KEYS}: cannot read {block}")),
        }
    });
    let keys: Vec<_> = found.collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(format!("{KEYS}: no keys")) } else { Ok(keys) }
}

fn table(keys: &[[String; 5]]) -> String {
    let mut text =
        "| key | flag | variable | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for [path, flag, variable, default, help] in keys {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let help = help.replace('|', "\\|");
        writeln!(text, "| `{path}` | `--{flag}` | `{variable}` | {default} | {help} |").unwrap();
    }
    text
}

/// The page's table of keys agrees with the source.
pub(crate) fn page(tree: &Tree) -> Vec<String> {
    match keys(tree.text(KEYS)) {
        Ok(keys) => page::check(tree, PAGE, "keys", &table(&keys), KEYS),
        Err(problem) => vec![problem],
    }
}

/// The page names every key of a site, and no other.
pub(crate) fn sites(tree: &Tree) -> Vec<String> {
    let source = code(tree.text(SITES));
    let body =
        source.split_once("pub struct SiteConfig {").and_then(|(_, rest)| rest.split_once('}'));
    let Some((body, _)) = body else {
        return vec![format!("{SITES}: no `pub struct SiteConfig`")];
    };
    let fields =
        body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
    let fields: BTreeSet<_> = fields.collect();
    let words = tree.text(PAGE).split('`').skip(1).step_by(2);
    let named: BTreeSet<_> = words.filter_map(|word| word.strip_prefix("site.")).collect();
    let missing = fields.difference(&named).map(|key| format!("{PAGE}: `site.{key}` is missing"));
    let unknown = named.difference(&fields).map(|key| format!("{PAGE}: no such key: `site.{key}`"));
    missing.chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        pub struct Key { pub path: &'static str, pub help: &'static str }
        pub const KEYS: &[Key] = &[
            Key {
                path: "edge.listen", flag: "edge-listen", variable: "SHOAL_EDGE_LISTEN",
                value: "A", default: "0.0.0.0:8080", help: "Where {clients} connect: a|b",
            },
        ];
    "#;

    #[test]
    fn keys_are_read() {
        assert_eq!(
            table(&keys(SOURCE).unwrap()),
            "| key | flag | variable | default | meaning |\n|---|---|---|---|---|\n\
             | `edge.listen` | `--edge-listen` | `SHOAL_EDGE_LISTEN` | `0.0.0.0:8080` | \
             Where {clients} connect: a\\|b |\n"
        );
        assert!(keys("").is_err());
        assert!(keys(&SOURCE.replace("flag: \"edge-listen\"", "flag: FLAG")).is_err());
    }

    #[test]
    fn a_page_that_differs_is_caught() {
        let right = page::replaced("<!-- keys: begin --><!-- keys: end -->", "keys", &{
            table(&keys(SOURCE).unwrap())
        });
        let right = right.unwrap();
        let of = |text: &str| page(&Tree::of(&[(KEYS, SOURCE), (PAGE, text)]));
        assert_eq!(of(&right), Vec::<String>::new());
        assert_eq!(of(&right.replace("8080", "80")).len(), 1);
        assert_eq!(of("").len(), 1);
    }

    #[test]
    fn keys_of_sites_are_compared() {
        let source = "pub struct SiteConfig {\n    /// Its name.\n    pub name: String,\n    \
                      pub hosts: Vec<String>,\n}\n";
        let of = |text: &str| sites(&Tree::of(&[(SITES, source), (PAGE, text)]));
        assert_eq!(of("`site.name` `site.hosts`"), Vec::<String>::new());
        assert_eq!(of("`site.name`").len(), 1);
        assert_eq!(of("`site.name` `site.hosts` `site.host`").len(), 1);
        assert_eq!(sites(&Tree::of(&[])).len(), 1);
    }
}
