//! `[[admin.tokens]]` tables as [`Tokens`]. A secret is never kept and never shown, only its hash.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shoal_proto::limits::NAME_BYTES_MAX;

use super::file::{Document, ListTable, TOKENS};
use super::problem::{Problem, Source};
use super::sites::read_one;
use crate::admin::tokens::{
    SCOPES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, Scope, SecretHash, TOKENS_MAX, Token, Tokens,
};

/// A token as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenConfig {
    /// Who it is for; stands in logs.
    name: String,
    /// Its secret's SHA-256, hexadecimal.
    sha256: Option<String>,
    /// Or the file with the secret itself.
    file: Option<PathBuf>,
    /// What it allows.
    scopes: Vec<String>,
}

/// Reads and checks all tokens; `None` when one has a fault.
pub(super) fn read(
    document: Document<'_>,
    folder: &Path,
    tables: Vec<ListTable<'_>>,
    problems: &mut Vec<Problem>,
) -> Option<Tokens> {
    let count = tables.len();
    if count > TOKENS_MAX {
        let source = document.source(0, TOKENS);
        problems.push(Problem::value(&source, &count.to_string(), "at most 256 tokens"));
        return None;
    }
    let mut names = BTreeSet::new();
    let mut tokens = Vec::with_capacity(count);
    for table in tables {
        let at = table.span().start;
        let Some(written) = read_one::<TokenConfig>(document, TOKENS, table, problems) else {
            continue;
        };
        if !names.insert(written.name.clone()) {
            let source = document.source(at, &format!("{TOKENS}.name"));
            problems.push(Problem::value(&source, &written.name, "a name of its own"));
            continue;
        }
        let source = |key: &str| document.source(at, &format!("{TOKENS}.{key}"));
        match check(written, folder, &source) {
            Ok(token) => tokens.push(token),
            Err(problem) => problems.push(problem),
        }
    }
    (tokens.len() == count).then(|| Tokens::new(tokens))
}

fn check(
    written: TokenConfig,
    folder: &Path,
    source: &dyn Fn(&str) -> Source,
) -> Result<Token, Problem> {
    let TokenConfig { name, sha256, file, scopes } = written;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Problem::value(&source("name"), &name, "1 to 128 bytes of text"));
    }
    let secret = match (sha256, file) {
        (Some(hash), None) => SecretHash::from_hex(&hash).ok_or_else(|| {
            // Not shown: it may be the secret itself.
            let what = "is no hash; expected 64 hexadecimal digits, as of \
                        `printf %s \"$TOKEN\" | sha256sum`";
            Problem::about(&source("sha256"), what)
        })?,
        (None, Some(file)) => from_file(&folder.join(file), &source("file"))?,
        (given, _) => {
            let what = if given.is_some() { "has both" } else { "has neither" };
            let what = format!("{name:?} {what} sha256 and file; expected one of the two");
            return Err(Problem::about(&source("name"), &what));
        }
    };
    if !(1..=SCOPES_MAX).contains(&scopes.len()) {
        let count = format!("{} scopes", scopes.len());
        return Err(Problem::value(&source("scopes"), &count, "1 to 64, such as [\"purge\"]"));
    }
    let read = |text: &String| {
        let about =
            |why: String| Problem::about(&source("scopes"), &format!("has {text:?}; {why}"));
        text.parse::<Scope>().map_err(about)
    };
    let scopes = scopes.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Token { name, secret, scopes })
}

fn from_file(path: &Path, source: &Source) -> Result<SecretHash, Problem> {
    let shown = path.display().to_string();
    let wrong = |expected: String| Problem::value(source, &shown, &expected);
    let read = std::fs::read(path).map_err(|error| wrong(format!("a readable file ({error})")))?;
    let secret = read.trim_ascii();
    let right = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len())
        && secret.iter().all(u8::is_ascii_graphic);
    // What the file holds is never shown.
    if !right {
        let expected = format!(
            "a file with one word of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, such as \
             `openssl rand -hex 32` makes"
        );
        return Err(wrong(expected));
    }
    Ok(SecretHash::of(secret))
}
