//! PURE. The members as text for people.

use crate::admin::{MembersDocument, TierMember};
use crate::text::table::{Align, Table};

const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// The members; with colours only where a terminal shows them.
pub(super) fn text(document: &MembersDocument, colours: bool) -> String {
    let MembersDocument { cluster_id, membership, joint, leader, term, generation, .. } = document;
    let of = |role: &str| document.members.iter().filter(|member| member.role == role).count();
    let mut head = format!(
        "cluster {cluster_id}, membership {membership}, leader {leader}, term {term}\n\
         voters {}, learners {}, nodes {}\n",
        of("voter"),
        of("learner"),
        of("node"),
    );
    if *joint {
        head.push_str("a change of the voters is half-way\n");
    }
    if *generation > 0 {
        head.push_str(&format!("recovered from the loss of a majority: {generation} times\n"));
    }
    let table = table(document).to_string();
    let mut lines = table.lines();
    let mut text = format!("{head}\n{}\n", lines.next().unwrap_or_default());
    for (line, member) in lines.zip(&document.members) {
        let red = colours && member.state != "up";
        text.push_str(&if red { format!("{RED}{line}{PLAIN}\n") } else { format!("{line}\n") });
    }
    if !document.removed.is_empty() {
        let count = document.removed.len();
        text.push_str(&format!("\n{count} removed for ever, the last {}\n", document.removed[0]));
    }
    text
}

fn table(document: &MembersDocument) -> Table {
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("id", Align::Left),
        ("role", Align::Left),
        ("state", Align::Left),
        ("leader", Align::Left),
        ("lag", Align::Right),
        ("heard", Align::Right),
        ("address", Align::Left),
    ]);
    for member in &document.members {
        table.row(vec![
            member.name.clone(),
            member.node_id.clone(),
            role(member),
            member.state.clone(),
            if member.leader { "*" } else { "" }.to_owned(),
            member.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            heard(member),
            member.cluster_address.clone(),
        ]);
    }
    table
}

fn role(member: &TierMember) -> String {
    match member.held_back {
        true => format!("{}, held back", member.role),
        false => member.role.clone(),
    }
}

fn heard(member: &TierMember) -> String {
    match member.silent_ms {
        _ if member.leader => "-".to_owned(),
        None => "-".to_owned(),
        Some(ms) if ms < 1_000 => "now".to_owned(),
        Some(ms) => format!("{} s ago", ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_a_table() {
        let member = |name: &str, role: &str| TierMember {
            name: name.to_owned(),
            node_id: "00a1".to_owned(),
            role: role.to_owned(),
            state: "up".to_owned(),
            cluster_address: "h:1".to_owned(),
            ..TierMember::default()
        };
        let leader =
            TierMember { leader: true, lag: Some(0), silent_ms: Some(0), ..member("s0", "voter") };
        let gone = TierMember {
            state: "down".to_owned(),
            held_back: true,
            lag: Some(12),
            silent_ms: Some(7_300),
            ..member("s1", "learner")
        };
        let document = MembersDocument {
            cluster_id: "demo".to_owned(),
            membership: "412/9f3a01bc".to_owned(),
            leader: "s0".to_owned(),
            term: 4,
            members: vec![leader, gone, member("n0", "node")],
            removed: vec!["00bb".to_owned()],
            ..MembersDocument::default()
        };
        let expected = "\
cluster demo, membership 412/9f3a01bc, leader s0, term 4
voters 1, learners 1, nodes 1

name  id    role                state  leader  lag    heard  address
s0    00a1  voter               up     *         0        -  h:1
s1    00a1  learner, held back  down            12  7 s ago  h:1
n0    00a1  node                up               -        -  h:1

1 removed for ever, the last 00bb
";
        assert_eq!(text(&document, false), expected);
        let coloured = text(&document, true);
        assert!(coloured.contains("\x1b[31ms1 ") && !coloured.contains("\x1b[31ms0"));
    }
}
