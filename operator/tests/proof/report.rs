//! The table, and the document that runs of single steps add to.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Found;
use crate::load::Sums;
use crate::settings::Settings;

/// Failures that are shown of a step; the document has them all.
const SHOWN_MAX: usize = 8;

/// A step's figures.
pub(crate) struct Row(Value);

impl Row {
    pub(crate) fn new(
        name: &str,
        found: Found,
        (took_s, origin_bytes): (f64, u64),
        (before, after): (&Sums, &Sums),
    ) -> Self {
        let (note, done) = match found {
            Ok(note) => (note, true),
            Err(why) => (why, false),
        };
        let requests = (after.verified + after.failed) - (before.verified + before.failed);
        Self(json!({
            "step": name, "done": done, "note": note, "seconds": (took_s * 10.0).round() / 10.0,
            "requests": requests,
            "failed": after.failed - before.failed,
            "wrong": after.wrong - before.wrong,
            "resent": after.resent - before.resent,
            "received_bytes": after.received_bytes - before.received_bytes,
            "origin_bytes": origin_bytes,
        }))
    }

    /// Marks a step that has to cost requests: without it nobody knows that the load can fail.
    pub(crate) fn control(mut self) -> Self {
        self.0["control"] = Value::Bool(true);
        self
    }
}

/// All steps so far.
pub(crate) struct Report {
    file: PathBuf,
    document: Value,
}

impl Report {
    pub(crate) fn open(settings: &Settings) -> Self {
        let file = settings.out.join("e2e.json");
        let fresh = settings.wants("install");
        let before = fs::read_to_string(&file).ok().filter(|_| !fresh);
        let document = before.and_then(|text| serde_json::from_str(&text).ok());
        let document = document.unwrap_or_else(|| {
            json!({
                "versions": settings.versions, "rate_per_s": settings.rate,
                "rung": settings.rung, "steps": [],
            })
        });
        Self { file, document }
    }

    fn push(&mut self, row: Value) {
        let steps = self.document["steps"].as_array_mut().unwrap();
        steps.retain(|step| step["step"] != row["step"]);
        say(&line(&row));
        steps.push(row);
        fs::write(&self.file, serde_json::to_string_pretty(&self.document).unwrap()).unwrap();
    }

    /// From `helm install` to the first answer.
    pub(crate) fn say_install(&mut self, found: Result<(f64, String), String>) {
        let (seconds, note) = found.unwrap();
        let row = json!({
            "step": "install", "done": true, "note": note, "seconds": (seconds * 10.0).round() / 10.0,
            "requests": 0, "failed": 0, "wrong": 0, "resent": 0, "received_bytes": 0,
            "origin_bytes": 0,
        });
        self.push(row);
    }

    pub(crate) fn add(&mut self, row: Row, failures: Vec<Value>) {
        let Row(mut row) = row;
        for failure in failures.iter().take(SHOWN_MAX) {
            say(&format!("    {failure}"));
        }
        row["failures"] = Value::Array(failures);
        self.push(row);
    }

    /// Prints all, and fails unless all is well.
    pub(crate) fn finish(self) {
        let steps = self.document["steps"].as_array().unwrap();
        say(&format!("\n{HEAD}"));
        steps.iter().for_each(|row| say(&line(row)));
        let (controls, steps): (Vec<_>, Vec<_>) =
            steps.iter().partition(|row| row["control"] == true);
        let sum = |key: &str| steps.iter().filter_map(|row| row[key].as_u64()).sum::<u64>();
        let failed = (sum("failed"), sum("wrong"));
        say(&format!(
            "{} requests, {} failed, {} with wrong bytes, {} sent again; on {}",
            sum("requests"),
            failed.0,
            failed.1,
            sum("resent"),
            self.document["rung"].as_str().unwrap_or_default()
        ));
        say(&self.file.display().to_string());
        let undone: Vec<_> = steps.iter().filter(|row| row["done"] != true).collect();
        assert!(undone.is_empty(), "not done: {undone:?}");
        let noticed = |row: &&Value| row["failed"].as_u64() > Some(0);
        assert!(controls.iter().all(noticed), "the load did not see what was done to it");
        assert_eq!(failed, (0, 0), "requests failed, or had wrong bytes");
    }
}

/// Whoever started the proof follows it.
fn say(line: &str) {
    drop(writeln!(stdout(), "{line}"));
}

const HEAD: &str = "step                 seconds  requests  failed  wrong  resent  to clients  \
                    from origin  what happened";

fn line(row: &Value) -> String {
    let count = |key: &str| row[key].as_u64().unwrap_or_default();
    let mib = |key: &str| format!("{:.1} MiB", count(key) as f64 / f64::from(1 << 20));
    let done = if row["done"] == true { "" } else { "NOT DONE: " };
    format!(
        "{:<20} {:>7} {:>9} {:>7} {:>6} {:>7} {:>11} {:>12}  {done}{}",
        row["step"].as_str().unwrap_or_default(),
        row["seconds"].as_f64().unwrap_or_default(),
        count("requests"),
        count("failed"),
        count("wrong"),
        count("resent"),
        mib("received_bytes"),
        mib("origin_bytes"),
        row["note"].as_str().unwrap_or_default(),
    )
}
