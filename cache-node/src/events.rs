//! What this process did last: its newest log lines of note, for the status page.
//!
//! Invariants: bounded in number and length; a line that repeats itself is counted, not repeated.
//! What is in no log is not here either.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that are kept.
const KEPT_MAX: usize = 64;
/// Longest text of a line, in bytes.
const TEXT_BYTES_MAX: usize = 400;
/// Lines of other crates are of no interest here.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// A line of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Happened {
    /// Unix milliseconds, of the last time when there were several.
    pub at_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened, with its details.
    pub text: String,
    /// How often, one after the other.
    pub times: u64,
}

#[derive(Debug)]
struct Recent(VecDeque<Happened>);

static RECENT: Mutex<Recent> = Mutex::new(Recent(VecDeque::new()));

impl Recent {
    fn push(&mut self, at_ms: u64, level: &str, text: String) {
        if let Some(last) = self.0.back_mut().filter(|last| last.text == text) {
            (last.at_ms, last.times) = (at_ms, last.times + 1);
            return;
        }
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Happened { at_ms, level: level.to_owned(), text, times: 1 });
    }
}

/// The newest lines, the oldest first.
pub fn recent() -> Vec<Happened> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).0.iter().cloned().collect()
}

/// Keeps the lines of note that pass through a subscriber.
#[derive(Debug)]
pub struct Keeper {
    /// The time, in Unix milliseconds.
    pub now_ms: fn() -> u64,
}

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => return,
        };
        if !metadata.target().starts_with(OWN) {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.text();
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push((self.now_ms)(), level, text);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    details: String,
}

impl Line {
    fn text(self) -> String {
        let mut text = self.message + &self.details;
        if text.len() > TEXT_BYTES_MAX {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.details, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_of_note_are_kept_and_repeated_ones_are_counted() {
        let subscriber = tracing_subscriber::registry().with(Keeper { now_ms: || 1 });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(term = 7, name = "super-0", "leads");
            tracing::debug!("nobody cares");
            tracing::info!(target: "another_crate", "not ours");
            tracing::warn!(count = 2, "lost");
            tracing::warn!(count = 2, "lost");
        });
        let kept = recent();
        let texts: Vec<_> =
            kept.iter().map(|of| (of.level.as_str(), of.text.as_str(), of.times)).collect();
        assert_eq!(texts, [("info", "leads term=7 name=super-0", 1), ("warn", "lost count=2", 2)]);
    }

    #[test]
    fn neither_their_number_nor_their_length_grows() {
        let mut recent = Recent(VecDeque::new());
        for at in 0..1_000 {
            recent.push(at, "info", format!("line {at}"));
        }
        assert_eq!(recent.0.len(), KEPT_MAX);
        assert_eq!(recent.0.back().map(|last| last.text.as_str()), Some("line 999"));
        let long = Line { message: "ü".repeat(TEXT_BYTES_MAX), details: String::new() };
        assert_eq!(long.text().len(), TEXT_BYTES_MAX + "…".len());
    }
}
