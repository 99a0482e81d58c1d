//! The run as it goes: a bar on a terminal, a line every few seconds elsewhere. All on stderr, so
//! that stdout holds the report alone.

use std::{
    collections::VecDeque,
    io::{IsTerminal, Write, stderr},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use serde_json::json;

use super::ledger::{Ledger, Live};
use crate::{
    clock::{Clock, wall_unix_ms},
    sample::{Failure, recorder::Example},
    units::show_bytes,
};

/// How often the bar is redrawn and waiting failures are judged.
pub const TICK_MS: u64 = 200;
/// How often the sums are told as a line of JSON.
pub const FOLLOW_EVERY_MS: u64 = 1_000;
/// How often a line is written where there is no terminal.
pub const LINE_EVERY_MS: u64 = 5_000;
/// The span over which the bar's rates are taken.
const BAR_SPAN_MS: u64 = 2_000;

const TEMPLATE: &str = "{bar:28.cyan/blue} {msg}";

/// Where progress is shown. Clones show in the same place.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Sums are told as lines of JSON.
    lines: bool,
}

impl Progress {
    /// For a run that sends for `duration`.
    #[must_use]
    pub fn new(duration: Duration, lines: bool) -> Self {
        let shows_bar = !lines && stderr().is_terminal();
        Self { bar: shows_bar.then(|| bar(duration)), lines }
    }

    /// Shows one message among the progress.
    pub fn note(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.println(message),
            // Progress is a courtesy: a closed stderr must not end a run.
            None => drop(writeln!(stderr(), "{message}")),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Shows counts and judges waiting failures until the task is aborted.
    pub async fn follow(self, ledger: Arc<Ledger>, clock: Clock) {
        let mut rates = Rates::default();
        let span = if self.bar.is_some() { BAR_SPAN_MS } else { LINE_EVERY_MS };
        let line_every = match self.lines {
            true => Duration::from_millis(FOLLOW_EVERY_MS),
            false => Duration::from_millis(LINE_EVERY_MS),
        };
        let mut line_at = line_every;
        loop {
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
            let now = clock.now();
            ledger.settle(now);
            let live = ledger.live();
            rates.push(now, live, Duration::from_millis(span));
            if let Some(bar) = &self.bar {
                bar.set_position(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
                bar.set_message(rates.line(now, &live));
            } else if now >= line_at {
                line_at += line_every;
                if self.lines {
                    self.note(&told(now, &live, ledger.take_failures()));
                } else {
                    self.note(&rates.line(now, &live));
                }
            }
        }
    }
}

/// The sums so far and the failures since the last line, as a line of JSON; its fields are in
/// docs/loadtest-json.md.
fn told(now: Duration, live: &Live, failures: Vec<Example>) -> String {
    let ms = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    let failures: Vec<_> = failures
        .into_iter()
        .map(|example| {
            let Failure { kind, detail } = example.failure;
            json!({ "at_ms": ms(example.at), "kind": kind, "detail": detail })
        })
        .collect();
    json!({
        "at_ms": ms(now), "at_unix_ms": wall_unix_ms(),
        "verified": live.verified, "failed": live.failed, "wrong": live.wrong,
        "resent": live.resent, "received_bytes": live.received_bytes, "failures": failures,
    })
    .to_string()
}

fn bar(duration: Duration) -> ProgressBar {
    let length = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("━━─"))
}

/// Rates over the last moments (PURE).
#[derive(Clone, Debug, Default)]
struct Rates {
    points: VecDeque<(Duration, Live)>,
}

impl Rates {
    fn push(&mut self, now: Duration, live: Live, span: Duration) {
        self.points.push_back((now, live));
        // One point at or before the span's start stays, so that the rates cover all of it.
        while self.points.get(1).is_some_and(|(at, _)| *at + span <= now) {
            self.points.pop_front();
        }
    }

    fn line(&self, now: Duration, live: &Live) -> String {
        let (since, base) = self.points.front().copied().unwrap_or_default();
        let seconds = now.saturating_sub(since).as_secs_f64();
        let per_s = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
        let requests = per_s(live.verified - base.verified);
        let bytes = per_s(live.received_bytes - base.received_bytes);
        let mut line = format!(
            "{:>4} s  {requests:>6.0} requests/s  {:>10}/s  {} failed",
            now.as_secs(),
            show_bytes(bytes as u64),
            live.failed
        );
        for (count, word) in [(live.wrong, "wrong"), (live.abandoned, "abandoned")] {
            if count > 0 {
                line.push_str(&format!("  {count} {word}"));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::FailureKind;

    #[test]
    fn rates_are_of_the_last_span_only() {
        let mut rates = Rates::default();
        let span = Duration::from_secs(2);
        let mut live = Live::default();
        for second in 0..10_u64 {
            live.verified += if second < 5 { 1000 } else { 100 };
            live.received_bytes += 1 << 20;
            rates.push(Duration::from_secs(second), live, span);
        }
        let line = rates.line(Duration::from_secs(9), &live);
        assert_eq!(line, "   9 s     100 requests/s    1.00 MiB/s  0 failed");
        assert_eq!(rates.points.len(), 3);
    }

    #[test]
    fn sums_are_told_as_json_with_the_failures_since() {
        let live = Live { verified: 7, failed: 1, resent: 2, ..Live::default() };
        let failure = Failure::new(FailureKind::Closed, "seen");
        let example = Example { edge: Some(0), object: 3, at: Duration::from_millis(900), failure };
        let line = told(Duration::from_secs(1), &live, vec![example]);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["at_ms"], &line["verified"]), (&json!(1000), &json!(7)));
        assert_eq!((&line["failed"], &line["resent"]), (&json!(1), &json!(2)));
        let expected = json!([{ "at_ms": 900, "kind": "closed", "detail": "seen" }]);
        assert_eq!(line["failures"], expected);
    }

    #[test]
    fn what_is_bad_is_shown_when_it_happens() {
        let live = Live { failed: 3, wrong: 1, abandoned: 2, ..Live::default() };
        let line = Rates::default().line(Duration::ZERO, &live);
        assert!(line.ends_with("3 failed  1 wrong  2 abandoned"), "{line}");
    }
}
