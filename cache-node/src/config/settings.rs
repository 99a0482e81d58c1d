//! Settings by key, from three layers: flags win over variables, variables over the file. What a
//! setting means is decided by whoever takes it.

use std::collections::BTreeMap;
use std::fmt;

use super::keys::{Key, by_path};
use super::problem::{Problem, Source};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word, a number or a truth.
    Text(String),
    /// An array in the file.
    List(Vec<String>),
    /// A table in the file, where none belongs.
    Table,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(items) => write!(f, "[{}]", items.join(", ")),
            Self::Table => f.write_str("a table"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// Its place.
    pub source: Source,
}

/// All settings that were written, by key.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// Sets `key`, over a lower layer's setting.
    pub fn set(&mut self, key: &Key, setting: Setting) {
        self.0.insert(key.path, setting);
    }

    /// Puts the settings of a higher layer over these.
    pub fn overlay(&mut self, above: Self) {
        self.0.extend(above.0);
    }

    /// The setting at `path`, where it was written.
    pub fn get(&self, path: &'static str) -> Option<&Setting> {
        self.0.get(path)
    }

    /// Where `path` was set.
    pub fn source(&self, path: &'static str) -> Source {
        self.get(path).map_or(Source::Unset { path }, |setting| setting.source.clone())
    }

    /// The settings given as flags.
    pub fn flags(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        let flags = self.0.iter().filter(|(_, at)| matches!(at.source, Source::Flag(_)));
        flags.map(|(path, setting)| (*path, setting))
    }
}

/// Takes settings out as values, and gathers every fault on the way.
#[derive(Debug)]
pub(super) struct Taker<'a> {
    settings: &'a Settings,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Taker<'a> {
    /// Takes from `settings`, reports to `problems`.
    pub(super) fn new(settings: &'a Settings, problems: &'a mut Vec<Problem>) -> Self {
        Self { settings, problems }
    }

    /// The value at `path`, or its default; `None` where there is neither. A value that `read`
    /// refuses is a fault.
    pub(super) fn optional<T>(
        &mut self,
        path: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(setting) = self.settings.get(path) else {
            let default = by_path(path).map_or("", |key| key.default);
            return if default.is_empty() { None } else { read(default) };
        };
        let value = match &setting.value {
            Value::Text(text) => read(text),
            Value::List(_) | Value::Table => None,
        };
        if value.is_none() {
            let shown = setting.value.to_string();
            self.problems.push(Problem::value(&setting.source, &shown, expected));
        }
        value
    }

    /// As [`Taker::optional`], where nothing at all is a fault too.
    pub(super) fn required<T>(
        &mut self,
        path: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.optional(path, expected, read);
        if value.is_none() && self.settings.get(path).is_none() {
            self.missing(path, expected);
        }
        value
    }

    /// The items at `path`, from an array or a text with commas; each is checked by `read`.
    pub(super) fn list<T>(
        &mut self,
        path: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let Some(setting) = self.settings.get(path) else {
            return Vec::new();
        };
        let items: Vec<&str> = match &setting.value {
            Value::Text(text) => text.split(',').map(str::trim).collect(),
            Value::List(items) => items.iter().map(String::as_str).collect(),
            Value::Table => vec!["a table"],
        };
        let mut values = Vec::new();
        for item in items.into_iter().filter(|item| !item.is_empty()) {
            match read(item) {
                Some(value) => values.push(value),
                None => self.problems.push(Problem::value(&setting.source, item, expected)),
            }
        }
        values
    }

    /// Reports that `path` must be set.
    pub(super) fn missing(&mut self, path: &'static str, expected: &str) {
        let ways = by_path(path).map_or_else(String::new, |key| {
            format!(" ({path} in the file, --{} or {})", key.flag, key.variable)
        });
        self.problems.push(Problem::text(format!("{path} is missing{ways}; expected {expected}")));
    }

    /// Reports something about the setting at `path`.
    pub(super) fn fault(&mut self, path: &'static str, what: &str) {
        self.problems.push(Problem::about(&self.settings.source(path), what));
    }

    /// Reports the value at `path`.
    pub(super) fn wrong(&mut self, path: &'static str, value: &str, expected: &str) {
        self.problems.push(Problem::value(&self.settings.source(path), value, expected));
    }

    /// The settings themselves.
    pub(super) fn settings(&self) -> &'a Settings {
        self.settings
    }
}
