//! Log lines of this process, to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::clock;
use crate::config::{LogConfig, LogFormat};
use crate::events;

/// Starts logging; a second call, as in tests, changes nothing.
pub(super) fn start(log: &LogConfig) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let kept = events::Keeper { now_ms: clock::unix_ms }.with_filter(LevelFilter::INFO);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(kept).try_init();
}
