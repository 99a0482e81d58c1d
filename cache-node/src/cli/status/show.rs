//! PURE. A report as text for people.

use std::time::{Duration, UNIX_EPOCH};

use crate::admin::{Report, SelectionChange, SelectionStatus};
use crate::text::table::{Align, Table};
use crate::text::units::format_size;

const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// The report; with colours only where a terminal shows them.
pub(super) fn text(report: &Report, colours: bool) -> String {
    let leader = report.leader.as_deref().unwrap_or("none known");
    let head = format!(
        "cluster {}, leader {leader}, term {}, applied position {}",
        report.cluster_id, report.term, report.applied_position
    );
    let head = match &report.mode {
        Some(mode) => {
            format!("{head}\nmode {} since {}: {}", mode.name, date(mode.since_ms), mode.why)
        }
        None => head,
    };
    let head = match &report.selection {
        Some(selection) => format!("{head}\n{}", selecting(selection)),
        None => head,
    };
    let (members, nodes) = (members(report), nodes(report));
    let totals = totals(report);
    let plain = format!("{head}\n\n{members}\n{nodes}\n{totals}");
    if colours { coloured(&plain, report) } else { plain }
}

fn members(report: &Report) -> Table {
    let mut table = Table::new(&[
        ("member", Align::Left),
        ("role", Align::Left),
        ("state", Align::Left),
        ("tier", Align::Left),
        ("applied", Align::Right),
        ("cluster", Align::Left),
        ("edge", Align::Left),
        ("admin", Align::Left),
        ("version", Align::Left),
    ]);
    for member in &report.members {
        table.row(vec![
            member.name.clone(),
            if member.auto { "auto".to_owned() } else { member.role.clone() },
            member.standing().to_owned(),
            member.tier(report).to_owned(),
            member.applied_position.map_or_else(dash, |position| position.to_string()),
            or_dash(&member.cluster_address),
            or_dash(&member.edge_address),
            or_dash(&member.admin_address),
            or_dash(&member.version),
        ]);
    }
    table
}

/// What the leader chooses voters by, in a line or two.
fn selecting(selection: &SelectionStatus) -> String {
    let SelectionStatus { wanted, voters, state, last_change, candidates } = selection;
    let scores = candidates.iter().map(|rated| format!("{} {:.1}", rated.name, rated.score));
    let scores = scores.collect::<Vec<_>>().join(", ");
    let line = format!("selection {voters} of {wanted} voters: {state}; scores {scores}");
    let Some(SelectionChange { kind, promoted, demoted, reason, at_ms }) = last_change else {
        return line;
    };
    let who = match (promoted, demoted) {
        (Some(into), Some(out)) => format!("{out} by {into}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => String::new(),
    };
    format!("{line}\nlast change {kind} {who}, {}: {reason}", date(*at_ms))
}

fn nodes(report: &Report) -> Table {
    let figures = ["cached", "objects", "budget", "memory", "disk", "peer", "origin", "pass"];
    let bytes = ["origin in", "peers in", "peers out"];
    let names = figures.into_iter().chain(bytes).map(|name| (name, Align::Right));
    let columns: Vec<_> = [("node", Align::Left)].into_iter().chain(names).collect();
    let mut table = Table::new(&columns);
    for member in report.members.iter().filter(|member| member.role == "node" || member.auto) {
        let hits = member.hits;
        let count = |of: Option<u64>| of.map_or_else(dash, |count| count.to_string());
        let size = |of: Option<u64>| of.map_or_else(dash, format_size);
        table.row(vec![
            member.name.clone(),
            size(member.cached_bytes),
            count(member.cached_objects),
            size(member.budget_bytes),
            count(hits.map(|hits| hits.memory)),
            count(hits.map(|hits| hits.disk)),
            count(hits.map(|hits| hits.peer)),
            count(hits.map(|hits| hits.origin)),
            count(hits.map(|hits| hits.pass)),
            size(member.origin_bytes),
            size(member.peer_bytes_in),
            size(member.peer_bytes_out),
        ]);
    }
    table
}

fn totals(report: &Report) -> String {
    let totals = &report.totals;
    let hits = totals.hits;
    let all = hits.memory + hits.disk + hits.peer + hits.origin + hits.pass;
    let offload = totals.offload_percent.map_or_else(dash, |percent| format!("{percent:.2} %"));
    format!(
        "requests {all}: memory {}, disk {}, peer {}, origin {}, pass {}\n\
         to clients {}, from origins {}, offload {offload}; cached {}\n",
        hits.memory,
        hits.disk,
        hits.peer,
        hits.origin,
        hits.pass,
        format_size(totals.response_bytes),
        format_size(totals.origin_bytes),
        format_size(totals.cached_bytes),
    )
}

/// Headings bold, the lines of members that are not up in red.
fn coloured(plain: &str, report: &Report) -> String {
    let not_up = |line: &str| {
        report.members.iter().any(|member| {
            member.standing() != "up" && line.split(' ').next() == Some(member.name.as_str())
        })
    };
    let lines = plain.lines().map(|line| match line {
        heading if heading.starts_with("member ") || heading.starts_with("node ") => {
            format!("{BOLD}{heading}{PLAIN}\n")
        }
        line if not_up(line) => format!("{RED}{line}{PLAIN}\n"),
        line => format!("{line}\n"),
    });
    lines.collect()
}

/// A moment as people write it.
fn date(unix_ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH);
    httpdate::fmt_http_date(moment)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { dash() } else { text.to_owned() }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::CandidateStatus;
    use crate::admin::report::tests::sample;

    const EXPECTED: &str = "\
cluster c, leader super-1, term 2, applied position 42
mode super-node since Tue, 14 Nov 2023 22:13:20 GMT: 3 voters keep the index

member   role   state   tier    applied  cluster      edge         admin        version
super-0  super  up      voter        41  127.0.0.1:1  -            127.0.0.1:3  0.1.0
super-1  super  up      leader       42  127.0.0.1:1  -            127.0.0.1:3  0.1.0
node-2   node   up      -            41  127.0.0.1:1  127.0.0.1:2  127.0.0.1:3  0.1.0
node-10  node   silent  -             -  127.0.0.1:1  127.0.0.1:2  127.0.0.1:3  0.1.0

node     cached  objects  budget  memory  disk  peer  origin  pass  origin in  peers in  peers out
node-2    3 MiB        7   1 GiB       5     4     3       2     1      125 B      11 B       12 B
node-10       -        -       -       -     -     -       -     -          -         -          -

requests 15: memory 5, disk 4, peer 3, origin 2, pass 1
to clients 1000 B, from origins 125 B, offload 87.50 %; cached 3 MiB
";

    #[test]
    fn people_see_tables() {
        assert_eq!(text(&sample(), false), EXPECTED);
    }

    #[test]
    fn people_see_how_voters_are_chosen() {
        let mut report = sample();
        report.members[0].auto = true;
        (report.members[1].auto, report.members[1].voter) = (true, true);
        (report.members[2].auto, report.members[2].score) = (true, Some(41.25));
        let rated = |name: &str, standing: &str, score| CandidateStatus {
            name: name.into(),
            node_id: format!("id-of-{name}"),
            standing: standing.into(),
            score,
        };
        report.selection = Some(SelectionStatus {
            wanted: 3,
            voters: 3,
            state: "settled".into(),
            last_change: Some(SelectionChange {
                kind: "replace".into(),
                promoted: Some("super-1".into()),
                demoted: Some("node-2".into()),
                reason: "a voter was lost".into(),
                at_ms: 1_700_000_000_000,
            }),
            candidates: vec![rated("super-1", "voter", 52.0), rated("node-2", "standby", 41.25)],
        });
        let shown = text(&report, false);
        let selection = "selection 3 of 3 voters: settled; scores super-1 52.0, node-2 41.2\n\
             last change replace node-2 by super-1, Tue, 14 Nov 2023 22:13:20 GMT: a voter was lost";
        assert!(shown.contains(selection), "{shown}");
        assert!(shown.contains("super-1  auto  up      leader"), "{shown}");
        assert!(shown.contains("node-2   auto  up      standby"), "{shown}");
    }

    #[test]
    fn colours_add_nothing_but_colours() {
        let shown = text(&sample(), true);
        assert!(shown.contains("\x1b[31mnode-10"), "{shown}");
        let mut stripped = shown;
        for code in [RED, BOLD, PLAIN] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, EXPECTED);
    }
}
