//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// `text` with every comment and literal overwritten by spaces, byte for byte: offsets and line
/// numbers stay.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let covered = covered_bytes(rest, out.chars().next_back());
        if covered == 0 {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            let (gone, kept) = rest.split_at(covered);
            out.extend(gone.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = kept;
        }
    }
    out
}

/// The length of the comment or literal that `rest` begins with, or 0.
fn covered_bytes(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_bytes(rest);
    }
    if rest.starts_with('"') {
        return string_bytes(rest);
    }
    if rest.starts_with('\'') {
        return char_bytes(rest);
    }
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return 0;
    }
    raw_string_bytes(rest)
}

fn block_comment_bytes(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string_bytes(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A quote begins a character or, with no quote after one character, a lifetime.
fn char_bytes(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn raw_string_bytes(rest: &str) -> usize {
    let Some(body) = ["br", "cr", "r"].iter().find_map(|prefix| rest.strip_prefix(prefix)) else {
        return 0;
    };
    let hashes = body.len() - body.trim_start_matches('#').len();
    if !body[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let open = rest.len() - body.len() + hashes + 1;
    rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
}

/// The string literal that `text` begins with, its escapes undone, and what follows it.
pub(crate) fn literal(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        return None;
    }
    let (quoted, rest) = text.split_at(string_bytes(text));
    let mut chars = quoted.strip_prefix('"')?.strip_suffix('"')?.chars().peekable();
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('\n')) => while chars.next_if(|c| c.is_whitespace()).is_some() {},
            ('\\', Some('n')) => {
                chars.next();
                value.push('\n');
            }
            ('\\', _) => value.extend(chars.next()),
            _ => value.push(c),
        }
    }
    Some((value, rest))
}

#[test]
fn comments_and_literals_are_blanked() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x \" // y", z)"#, "f(           , z)"),
        (r##"f(r#"a " b"#, z)"##, "f(          , z)"),
        (r"match c { '\'' => 'a, '{' => b }", "match c {      => 'a,     => b }"),
        ("for r in crate_r {}", "for r in crate_r {}"),
    ] {
        assert_eq!(code(text), expected);
        assert_eq!(code(text).len(), text.len());
    }
}

#[test]
fn literals_are_unescaped() {
    let (value, rest) = literal("\"a \\\"b\\\" \\\n   c\", d").unwrap();
    assert_eq!((value.as_str(), rest), ("a \"b\" c", ", d"));
    assert!(literal("name").is_none());
}
