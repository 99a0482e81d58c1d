//! The TOML file as settings, each with its line. Unknown keys are faults, with a suggestion.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS};
use super::problem::{Problem, Source};
use super::settings::{Setting, Settings, Value};
use crate::text::suggest::nearest;

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The name of the tables that describe sites.
pub(super) const SITE: &str = "site";
/// The name of the tables that describe tokens of control calls.
pub(super) const TOKENS: &str = "admin.tokens";

/// The text of a file, to turn positions into lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Document<'_> {
    pub(super) fn source(&self, at: usize, path: &str) -> Source {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Source::File { file: self.name.to_owned(), line, path: path.to_owned() }
    }
}

/// A `[[site]]` or `[[admin.tokens]]` table as it stands in the file.
pub(super) type ListTable<'a> = Spanned<DeValue<'a>>;

/// The lists of tables in the file, as they stand there.
#[derive(Debug, Default)]
pub(super) struct Lists<'a> {
    pub(super) sites: Vec<ListTable<'a>>,
    pub(super) tokens: Vec<ListTable<'a>>,
}

/// The file's text.
pub(super) fn load(path: &Path) -> Result<String, Problem> {
    let name = path.display();
    let failed = |error: std::io::Error| {
        Problem::text(format!("{name}: {error}; expected a readable TOML file"))
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        let text = format!("{name}: {size} bytes; expected at most {FILE_BYTES_MAX}");
        return Err(Problem::text(text));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Reads the settings of `document` into `settings`; returns its lists of tables.
pub(super) fn read<'a>(
    document: Document<'a>,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) -> Lists<'a> {
    let (root, errors) = DeTable::parse_recoverable(document.text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let Source::File { file, line, .. } = document.source(at, "") else { continue };
        let message = error.message();
        problems.push(Problem::text(format!("{file}:{line}: not TOML: {message}")));
    }
    let mut lists = Lists::default();
    let mut reader = Reader { document, settings, problems, lists: &mut lists };
    for (key, value) in root.into_inner() {
        reader.entry("", key.get_ref(), key.span().start, value);
    }
    lists
}

struct Reader<'a, 'r> {
    document: Document<'a>,
    settings: &'r mut Settings,
    problems: &'r mut Vec<Problem>,
    lists: &'r mut Lists<'a>,
}

impl<'a> Reader<'a, '_> {
    fn entry(&mut self, above: &str, name: &str, at: usize, value: Spanned<DeValue<'a>>) {
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        let source = self.document.source(at, &path);
        if path == SITE || path == TOKENS {
            return self.tables_of(&path, &source, value);
        }
        if let Some(key) = keys::by_path(&path) {
            let value = plain(value.get_ref());
            self.settings.set(key, Setting { value, source });
            return;
        }
        let inside = format!("{path}.");
        if !KEYS.iter().any(|key| key.path.starts_with(&inside)) {
            return self.unknown(above, name, &source);
        }
        match value.into_inner() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.entry(&path, key.get_ref(), key.span().start, value);
                }
            }
            other => {
                let problem = Problem::value(&source, &plain(&other).to_string(), "a table");
                self.problems.push(problem);
            }
        }
    }

    fn tables_of(&mut self, path: &str, source: &Source, value: Spanned<DeValue<'a>>) {
        let list = if path == SITE { &mut self.lists.sites } else { &mut self.lists.tokens };
        match value.into_inner() {
            DeValue::Array(tables) => list.extend(tables),
            other => {
                let expected = format!("tables [[{path}]], with two brackets");
                let shown = plain(&other).to_string();
                self.problems.push(Problem::value(source, &shown, &expected));
            }
        }
    }

    fn unknown(&mut self, above: &str, name: &str, source: &Source) {
        let prefix = if above.is_empty() { String::new() } else { format!("{above}.") };
        let below = KEYS.iter().filter_map(|key| key.path.strip_prefix(prefix.as_str()));
        let mut known: Vec<&str> = below.filter_map(|rest| rest.split('.').next()).collect();
        match above {
            "" => known.push(SITE),
            "admin" => known.push("tokens"),
            _ => {}
        }
        known.dedup();
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {prefix}{near}?"),
            None => match KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(name)) {
                Some(elsewhere) => format!("did you mean {}?", elsewhere.path),
                None => format!("expected one of {}", known.join(", ")),
            },
        };
        self.problems.push(Problem::about(source, &format!("is an unknown key; {hint}")));
    }
}

/// A TOML value without its dress.
pub(super) fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(truth) => Value::Text(truth.to_string()),
        DeValue::Integer(number) => Value::Text(integer(number.as_str(), number.radix())),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| plain(item.get_ref()).to_string()).collect())
        }
        DeValue::Float(number) => Value::Text(number.as_str().to_owned()),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Table(_) => Value::Table,
    }
}

fn integer(text: &str, radix: u32) -> String {
    match i128::from_str_radix(text, radix) {
        Ok(number) => number.to_string(),
        Err(_) => text.to_owned(),
    }
}
