//! Faults of a configuration: each names its place, the value there, and what would be right.

use std::fmt;

/// Most faults that are told at once.
const PROBLEMS_SHOWN_MAX: usize = 50;
/// Longest value that is quoted back, in characters.
const VALUE_CHARS_MAX: usize = 80;

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A line of the file, counted from 1.
    File {
        /// The file as it was named.
        file: String,
        /// The line.
        line: usize,
        /// The key there.
        path: String,
    },
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// Nowhere: the key's default, or a key that is missing.
    Unset {
        /// The key.
        path: &'static str,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, path } => write!(f, "{file}:{line}: {path}"),
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(variable) => f.write_str(variable),
            Self::Unset { path } => f.write_str(path),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A value that is not what it should be.
    pub fn value(source: &Source, value: &str, expected: &str) -> Self {
        Self(format!("{source} is {}; expected {expected}", shown(value)))
    }

    /// Anything else about a setting.
    pub fn about(source: &Source, what: &str) -> Self {
        Self(format!("{source} {what}"))
    }

    /// A fault that belongs to no single setting; the text names its place.
    pub fn text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value, quoted and cut to a readable length.
fn shown(value: &str) -> String {
    if value.chars().count() <= VALUE_CHARS_MAX {
        return format!("{value:?}");
    }
    let cut: String = value.chars().take(VALUE_CHARS_MAX).collect();
    format!("{cut:?}…")
}

/// Every fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has a fault:")?,
            count => writeln!(f, "the configuration has {count} faults:")?,
        }
        for problem in self.0.iter().take(PROBLEMS_SHOWN_MAX) {
            writeln!(f, "  {problem}")?;
        }
        if let Some(more) = self.0.len().checked_sub(PROBLEMS_SHOWN_MAX).filter(|more| *more > 0) {
            writeln!(f, "  and {more} more")?;
        }
        Ok(())
    }
}
