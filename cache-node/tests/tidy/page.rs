//! Pages with a part that follows from the sources, between two marks. With `SHOAL_WRITE_DOCS=1`
//! that part is written instead of compared (`make docs`).

use std::fs;

use crate::tree::Tree;

/// Compares the part of `page` between the marks of `name` with `wanted`, which follows from
/// `source`.
pub(crate) fn check(
    tree: &Tree,
    page: &str,
    name: &str,
    wanted: &str,
    source: &str,
) -> Vec<String> {
    // Another rule may have written the page since the tree was read.
    let on_disk = fs::read_to_string(tree.root.join(page)).ok();
    let writes = std::env::var_os("SHOAL_WRITE_DOCS").is_some() && on_disk.is_some();
    let text = on_disk.filter(|_| writes).unwrap_or_else(|| tree.text(page).to_owned());
    let Some(whole) = replaced(&text, name, wanted) else {
        return vec![format!("{page}: no `{}` ... `{}`", begin(name), end(name))];
    };
    if whole == text {
        return Vec::new();
    }
    if writes {
        fs::write(tree.root.join(page), whole).unwrap();
        return Vec::new();
    }
    let missing = whole.lines().filter(|line| !text.lines().any(|other| other == *line));
    let first = missing.take(3).collect::<Vec<_>>().join("\n");
    vec![format!("{page}: differs from {source}: run `make docs`\n{first}")]
}

fn begin(name: &str) -> String {
    format!("<!-- {name}: begin -->")
}

fn end(name: &str) -> String {
    format!("<!-- {name}: end -->")
}

/// The page with the part of `name` replaced; nothing without its two marks.
pub(crate) fn replaced(page: &str, name: &str, wanted: &str) -> Option<String> {
    let (begin, end) = (begin(name), end(name));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{wanted}{end}{after}"))
}

#[test]
fn only_the_part_between_the_marks_is_replaced() {
    let page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
    let new = replaced(page, "x", "new\n").unwrap();
    assert_eq!(new, "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n");
    assert_eq!(replaced(&new, "x", "new\n"), Some(new.clone()));
    assert_eq!(replaced(page, "y", "new\n"), None);
}
