//! `shoal verify`: has every super-node hash its whole index as of one position, and says whose
//! differs.

use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::ControlArgs;
use super::exit::Failure;
use super::{on_small_runtime, print};
use crate::text::table::{Align, Table};

/// Characters of a digest that people see.
const DIGEST_CHARS: usize = 16;

/// `shoal verify`'s flags.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    control: ControlArgs,
}

/// What `--json` prints; see docs/verify-json.md.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    position: u64,
    same: bool,
    super_nodes: Vec<Verified>,
    took_ms: f64,
}

/// One super-node.
#[derive(Debug, Serialize, Deserialize)]
struct Verified {
    id: String,
    name: String,
    verdict: String,
    running_digest: Option<String>,
    state_digest: Option<String>,
    records: Option<u64>,
    took_ms: Option<u64>,
    failure: Option<String>,
}

/// Verifies and reports.
pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let called = args.control.call(Method::POST, "/v1/verify", Value::Null);
    let answer = on_small_runtime(called)?;
    let strange = |error| Failure::run(format!("the answer is no report of an audit: {error}"));
    let report: Report = serde_json::from_value(answer).map_err(strange)?;
    if args.control.json {
        print(&format!("{}\n", serde_json::to_string(&report).map_err(Failure::run)?))?;
    } else {
        print(&text(&report))?;
    }
    match report.same {
        true => Ok(()),
        false => Err(Failure::run(remedy(&report))),
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&[
        ("super-node", Align::Left),
        ("applied", Align::Left),
        ("state", Align::Left),
        ("records", Align::Right),
        ("", Align::Left),
        ("took", Align::Right),
    ]);
    let short = |digest: &Option<String>| {
        digest.as_deref().map_or("-", |digest| digest.get(..DIGEST_CHARS).unwrap_or(digest)).into()
    };
    for one in &report.super_nodes {
        let verdict = match one.verdict.as_str() {
            "different" => "DIFFERENT".to_owned(),
            other => other.replace('-', " "),
        };
        table.row(vec![
            if one.name.is_empty() { one.id.clone() } else { one.name.clone() },
            short(&one.running_digest),
            short(&one.state_digest),
            one.records.map_or_else(|| "-".into(), |records| records.to_string()),
            verdict,
            one.took_ms.map_or_else(|| "-".into(), |took| format!("{took} ms")),
        ]);
    }
    let Report { position, took_ms, .. } = report;
    format!("{table}\nas of position {position}, {took_ms:.0} ms in all\n")
}

fn remedy(report: &Report) -> String {
    let names = |verdict: &str| {
        let of = report.super_nodes.iter().filter(|one| one.verdict == verdict);
        of.map(|one| format!("{} ({})", one.name, one.id)).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    let (different, silent) = (names("different"), names("no-answer"));
    if !different.is_empty() {
        lines.push(format!(
            "the index differs at {different}; replace it: empty its data directory and have it \
             join again, one at a time"
        ));
    }
    if !silent.is_empty() {
        lines.push(format!("no answer from {silent}; look at its log and try again"));
    }
    if report.super_nodes.is_empty() {
        lines.push("no super-node was there to be asked; look at `shoal status`".into());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        let one = |name: &str, verdict, state: &str| {
            json!({
                "id": format!("{name}-id"), "name": name, "verdict": verdict,
                "running_digest": "ab".repeat(32), "state_digest": state.repeat(32),
                "records": 1200, "took_ms": 15, "failure": null,
            })
        };
        let silent = json!({
            "id": "s3-id", "name": "s3", "verdict": "no-answer", "running_digest": null,
            "state_digest": null, "records": null, "took_ms": null, "failure": "gone",
        });
        let all = [one("s1", "same", "cd"), one("s2", "different", "ce"), silent];
        let report = json!({
            "position": 812, "same": false, "super_nodes": all, "took_ms": 31.5,
        });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn people_see_a_table() {
        let expected = "\
super-node  applied           state             records              took
s1          abababababababab  cdcdcdcdcdcdcdcd     1200  same       15 ms
s2          abababababababab  cececececececece     1200  DIFFERENT  15 ms
s3          -                 -                       -  no answer      -

as of position 812, 32 ms in all
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn the_remedy_names_who() {
        let told = remedy(&report());
        assert!(told.contains("differs at s2 (s2-id); replace it"), "{told}");
        assert!(told.contains("no answer from s3 (s3-id)"), "{told}");
    }
}
