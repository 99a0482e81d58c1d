//! Many seeds at once, one a thread, and what they came to. A run that never reached its faults
//! proves nothing, and fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::plan::Plan;
use super::planted::Planted;
use super::run::{Outcome, run};
use crate::clock;

/// Failing seeds that are reported; beyond it the run ends.
const FAILURES_MAX: usize = 20;
/// Between two lines of progress, in milliseconds: on a terminal, and elsewhere.
const TERMINAL_EVERY_MS: u64 = 200;
const LINE_EVERY_MS: u64 = 15_000;
/// Width of the bar.
const BAR_CHARS: u64 = 30;

/// What all seeds came to.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) seeds: u64,
    pub(super) failures: Vec<Outcome>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) planned: u64,
    totals: Outcome,
    took: Duration,
}

impl Summary {
    fn take(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.planned += outcome.planned;
        for (name, count) in &outcome.faults {
            *self.faults.entry(name).or_default() += count;
        }
        let totals = &mut self.totals;
        totals.virtual_us += outcome.virtual_us;
        totals.events += outcome.events;
        totals.served += outcome.served;
        totals.purged += outcome.purged;
        totals.index_ops += outcome.index_ops;
        totals.committed += outcome.committed;
        totals.elections += outcome.elections;
        totals.fills += outcome.fills;
        totals.messages += outcome.messages;
        if !outcome.violations.is_empty() {
            self.failures.push(outcome);
        }
    }

    /// The summary in words.
    pub(super) fn text(&self) -> String {
        let t = &self.totals;
        let mut text = String::new();
        let (hours, seeds, took) = (t.virtual_us / 3_600_000_000, self.seeds, self.took.as_secs());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{seeds} seeds, {hours} virtual hours, in {took} s");
        let _ = writeln!(
            text,
            "{} requests served, {} purges, {} index operations, {} fills",
            t.served, t.purged, t.index_ops, t.fills
        );
        let _ = writeln!(
            text,
            "{} entries committed, {} elections, {} messages, {} events",
            t.committed, t.elections, t.messages, t.events
        );
        let happened: u64 = self.faults.values().sum();
        let _ = write!(text, "{happened} faults of {} planned:", self.planned);
        for (name, count) in &self.faults {
            let _ = write!(text, " {name} {count},");
        }
        let _ = writeln!(text, "\n{} seeds with violations", self.failures.len());
        for failure in &self.failures {
            text.push_str(&describe(failure));
        }
        text
    }
}

/// A failing seed, and how to see it again.
pub(super) fn describe(outcome: &Outcome) -> String {
    let mut text = format!("\nseed {}: replay with `make sim SEED={0}`\n", outcome.seed);
    for violation in &outcome.violations {
        let at = violation.at_us;
        let (s, us) = (at / 1_000_000, at % 1_000_000);
        let _ = writeln!(text, "  {s}.{us:06} {}: {}", violation.invariant, violation.what);
    }
    for event in &outcome.last {
        let _ = writeln!(text, "    {event}");
    }
    text
}

/// Runs `count` seeds from `first`, on `threads` threads.
pub(super) fn run_many(
    (first, count): (u64, u64),
    threads: usize,
    planted: Option<Planted>,
    progress: bool,
) -> Summary {
    let started = clock::monotonic();
    let next = AtomicU64::new(first);
    let over = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let lock = || summary.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count {
                            return;
                        }
                        let outcome = run(Plan::of(seed), planted, false);
                        let mut summary = lock();
                        summary.take(outcome);
                        let most = if planted.is_some() { 1 } else { FAILURES_MAX };
                        if summary.failures.len() >= most {
                            over.store(true, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let mut shown = started;
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            let terminal = std::io::stderr().is_terminal();
            let every = if terminal { TERMINAL_EVERY_MS } else { LINE_EVERY_MS };
            if progress && clock::since(shown) >= Duration::from_millis(every) {
                shown = clock::monotonic();
                show(lock().seeds, count, clock::since(started), terminal);
            }
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = clock::since(started);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}

/// Says something to whoever looks on.
pub(super) fn say(text: &str) {
    // Whoever does not misses nothing.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn show(done: u64, all: u64, took: Duration, terminal: bool) {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = (all.saturating_sub(done)) as f64 / rate.max(0.001);
    let filled = (done * BAR_CHARS / all.max(1)) as usize;
    let bar = "#".repeat(filled) + &".".repeat((BAR_CHARS as usize).saturating_sub(filled));
    let (start, end) = if terminal { ("\r", "") } else { ("", "\n") };
    let line = format!("{start}[{bar}] {done}/{all} seeds, {rate:.1}/s, {left:.0} s left {end}");
    let mut out = std::io::stderr();
    // Whoever does not look misses nothing.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// The same plan with as few faults as still break something: tries to leave out each.
pub(super) fn shrink(plan: &Plan, planted: Option<Planted>) -> Plan {
    let mut smallest = plan.clone();
    let mut at = smallest.faults.len();
    while at > 0 {
        at -= 1;
        let mut without = smallest.clone();
        without.faults.remove(at);
        if !run(without.clone(), planted, false).violations.is_empty() {
            smallest = without;
        }
    }
    smallest
}
