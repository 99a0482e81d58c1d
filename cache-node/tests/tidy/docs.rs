//! Documents: one title each, and links that lead somewhere, anchors included.

use crate::tree::Tree;

/// Lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

/// A document has exactly one title.
pub(crate) fn one_title(path: &str, text: &str) -> Vec<String> {
    let titles = prose(text).filter(|(_, line)| line.starts_with("# ")).count();
    if !path.ends_with(".md") || titles == 1 {
        return Vec::new();
    }
    vec![format!("{path}: {titles} titles (`# `), exactly one is wanted")]
}

/// Every link to a file of the tree, and to a heading in it, resolves.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        for (line, target) in targets(text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let found = if file.is_empty() { Some(path.clone()) } else { resolve(path, file) };
            match found {
                Some(found) if tree.has(&found) => {
                    let lost = !anchor.is_empty()
                        && !prose(tree.text(&found)).any(|(_, line)| slug(line) == anchor);
                    if lost {
                        problems.push(format!("{path}:{line}: {target}: no such heading"));
                    }
                }
                _ => problems.push(format!("{path}:{line}: {target}: no such file")),
            }
        }
    }
    problems
}

/// What `[text](target)` points at, absolute addresses left out.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let in_code = line[..at].matches('`').count() % 2 == 1;
            let rest = &line[at + 2..];
            let target = rest.split([')', ' ']).next().unwrap_or(rest);
            if !in_code && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((number, target));
            }
        }
    }
    found
}

/// `target` as seen from the file `from`; nothing when it leaves the tree.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<_> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// A heading's anchor: lower case, punctuation gone, spaces as hyphens. Empty for other lines.
fn slug(line: &str) -> String {
    let heading = line.trim_start_matches('#');
    if heading.len() == line.len() || !heading.starts_with(' ') {
        return String::new();
    }
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn titles_are_counted_outside_code() {
    let fenced = "# A\n```sh\n# a comment\n```\n## B\n";
    assert!(one_title("a.md", fenced).is_empty());
    assert_eq!(one_title("a.md", "## A\n").len(), 1);
    assert_eq!(one_title("a.md", "# A\n# B\n").len(), 1);
}

#[test]
fn broken_links_are_caught() {
    let text = "# A\n## The read path\n[b](docs/b.md) [c](docs/) [d](#the-read-path)\n\
                [e](https://e.example/x) `[f](gone.md)`\n";
    let b = "# B\n[a](../A.md#the-read-path)\n[up](../../out.md)\n";
    let tree = Tree::of(&[("A.md", text), ("docs/b.md", b)]);
    assert_eq!(links(&tree), ["docs/b.md:3: ../../out.md: no such file"]);
    for bad in ["[b](docs/c.md)", "[d](#no-such)", "[b](docs/b.md#no-such)"] {
        let tree = Tree::of(&[("A.md", bad), ("docs/b.md", "# B\n")]);
        assert_eq!(links(&tree).len(), 1, "{bad}");
    }
}
