//! PURE. A cluster's status, put together from what its members say. The JSON of `shoal status
//! --json`: fields are added, never renamed; figures that nobody gave are null.

use serde::Serialize;

use super::status::{
    DrainStatus, Figures, Hits, MemberStatus, ModeStatus, SelectionStatus, StatusDocument,
};
use crate::events::Happened;

/// Events of all members together.
const EVENTS_MAX: usize = 50;

/// A cluster's status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// When it was put together, in Unix milliseconds.
    pub at_ms: u64,
    /// The cluster.
    pub cluster_id: String,
    /// The name of the tier's leader, where known.
    pub leader: Option<String>,
    /// Its term.
    pub term: u64,
    /// The newest position of the index that a super-node has applied.
    pub applied_position: u64,
    /// The mode of the member that was asked; null when it did not say.
    pub mode: Option<ModeStatus>,
    /// How the leader chooses voters; null where it chooses none, or did not answer.
    pub selection: Option<SelectionStatus>,
    /// All members of the view.
    pub members: Vec<MemberReport>,
    /// All nodes that answered, together.
    pub totals: Totals,
    /// What happened last on those that answered, the newest first.
    pub events: Vec<MemberEvent>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberReport {
    /// Its name.
    pub name: String,
    /// Its id, hexadecimal.
    pub node_id: String,
    /// `super` or `node`.
    pub role: String,
    /// `up` or `down`, in the eyes of the member asked.
    pub state: String,
    /// It has a vote in the tier.
    pub voter: bool,
    /// The tier chooses its role, not its configuration.
    pub auto: bool,
    /// It is about to leave.
    pub draining: bool,
    /// How fit it is to have a vote, from -70 to 70; null where the leader does not choose.
    pub score: Option<f64>,
    /// `host:port` of its cluster listener.
    pub cluster_address: String,
    /// `host:port` of its edge; empty where it has none.
    pub edge_address: String,
    /// `host:port` of its admin listener.
    pub admin_address: String,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// Its version.
    pub version: String,
    /// It answered now.
    pub reachable: bool,
    /// The mode that it is in: `pure`, `hybrid` or `super-node`.
    pub mode: Option<String>,
    /// Body bytes on disk.
    pub cached_bytes: Option<u64>,
    /// Objects stored whole.
    pub cached_objects: Option<u64>,
    /// The store's budget.
    pub budget_bytes: Option<u64>,
    /// Requests answered, by tier.
    pub hits: Option<Hits>,
    /// Body bytes sent to clients.
    pub response_bytes: Option<u64>,
    /// Body bytes received from origins.
    pub origin_bytes: Option<u64>,
    /// Chunk bytes received from peers.
    pub peer_bytes_in: Option<u64>,
    /// Chunk bytes sent to peers.
    pub peer_bytes_out: Option<u64>,
    /// The last position of the index that it has applied.
    pub applied_position: Option<u64>,
    /// How far it is with leaving; null for super-nodes and for who did not answer.
    pub drain: Option<DrainStatus>,
}

/// What happened last, on which member.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberEvent {
    /// The member's name.
    pub member: String,
    /// What happened.
    #[serde(flatten)]
    pub happened: Happened,
}

/// All nodes that answered, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Requests answered, by tier.
    pub hits: Hits,
    /// Body bytes on disk.
    pub cached_bytes: u64,
    /// Body bytes received from origins.
    pub origin_bytes: u64,
    /// Body bytes sent to clients.
    pub response_bytes: u64,
    /// The share of the bytes sent to clients that no origin had to send, in percent; null before
    /// the first byte.
    pub offload_percent: Option<f64>,
}

impl Report {
    /// Puts together the view of `first` and what all of `answers` say of themselves, at `at_ms`.
    pub fn new(first: &StatusDocument, answers: &[StatusDocument], at_ms: u64) -> Self {
        let answer_of =
            |member: &MemberStatus| answers.iter().find(|answer| answer.node_id == member.node_id);
        // Whoever knows of the latest term knows the leader best.
        let latest = answers.iter().filter(|answer| answer.leader.is_some());
        let latest = latest.max_by_key(|answer| answer.term).unwrap_or(first);
        let supers = answers.iter().filter(|answer| answer.role == "super");
        let applied = supers.map(|answer| answer.applied_position).max();
        let figures = answers.iter().filter_map(|answer| answer.figures.as_ref());
        let chooses = answers.iter().filter(|answer| answer.selection.is_some());
        let selection = chooses.max_by_key(|answer| answer.term);
        let selection = selection.and_then(|answer| answer.selection.clone());
        let score = |member: &MemberStatus| {
            let mut rated = selection.iter().flat_map(|selection| &selection.candidates);
            rated.find(|rated| rated.node_id == member.node_id).map(|rated| rated.score)
        };
        let report = |member: &MemberStatus| MemberReport {
            score: score(member),
            ..MemberReport::new(member, answer_of(member))
        };
        let mut members: Vec<_> = first.members.iter().map(report).collect();
        members.sort_by(|left, right| {
            (right.role.as_str(), name_order(&left.name))
                .cmp(&(left.role.as_str(), name_order(&right.name)))
        });
        Self {
            at_ms,
            cluster_id: first.cluster_id.clone(),
            leader: latest.leader.clone(),
            term: latest.term,
            applied_position: applied.unwrap_or(first.applied_position),
            mode: first.mode.clone(),
            selection,
            members,
            totals: Totals::of(figures),
            events: events(answers),
        }
    }
}

/// The newest of all, the newest first.
fn events(answers: &[StatusDocument]) -> Vec<MemberEvent> {
    let all = answers.iter().flat_map(|answer| {
        let of = |happened: &Happened| MemberEvent {
            member: answer.name.clone(),
            happened: happened.clone(),
        };
        answer.events.iter().map(of)
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|event| std::cmp::Reverse(event.happened.at_ms));
    all.truncate(EVENTS_MAX);
    all
}

/// Names in the order that people count: node-2 before node-10.
fn name_order(name: &str) -> (&str, u64, &str) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0), name)
}

impl MemberReport {
    /// How it stands, in a word.
    pub fn standing(&self) -> &'static str {
        match (self.state == "up", self.reachable) {
            (true, true) if self.draining => "draining",
            (true, true) => "up",
            (true, false) => "silent",
            (false, true) => "joining",
            (false, false) => "down",
        }
    }

    /// What it is to the tier, in a word.
    pub fn tier(&self, report: &Report) -> &'static str {
        match (report.leader.as_ref() == Some(&self.name), self.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) if self.role == "super" => "learner",
            (false, false) if self.auto => "standby",
            (false, false) => "-",
        }
    }

    fn new(member: &MemberStatus, answer: Option<&StatusDocument>) -> Self {
        let MemberStatus {
            name,
            node_id,
            role,
            state,
            voter,
            auto,
            draining,
            cluster_address,
            edge_address,
            admin_address,
            zone,
            version,
        } = member.clone();
        let figures = answer.and_then(|answer| answer.figures.as_ref());
        Self {
            name,
            node_id,
            role,
            state,
            voter,
            auto,
            draining,
            score: None,
            cluster_address,
            edge_address,
            admin_address,
            zone,
            version,
            reachable: answer.is_some(),
            mode: answer.and_then(|answer| Some(answer.mode.as_ref()?.name.clone())),
            cached_bytes: figures.map(|of| of.cached_bytes),
            cached_objects: figures.map(|of| of.cached_objects),
            budget_bytes: figures.map(|of| of.budget_bytes),
            hits: figures.map(|of| of.hits),
            response_bytes: figures.map(|of| of.response_bytes),
            origin_bytes: figures.map(|of| of.origin_bytes),
            peer_bytes_in: figures.map(|of| of.peer_bytes_in),
            peer_bytes_out: figures.map(|of| of.peer_bytes_out),
            applied_position: answer.map(|answer| answer.applied_position),
            drain: answer.and_then(|answer| answer.drain.clone()),
        }
    }
}

impl Totals {
    fn of<'a>(figures: impl Iterator<Item = &'a Figures>) -> Self {
        let mut totals = figures.fold(Self::default(), |sum, of| Self {
            hits: sum.hits.plus(of.hits),
            cached_bytes: sum.cached_bytes + of.cached_bytes,
            origin_bytes: sum.origin_bytes + of.origin_bytes,
            response_bytes: sum.response_bytes + of.response_bytes,
            offload_percent: None,
        });
        totals.offload_percent = offload_percent(totals.response_bytes, totals.origin_bytes);
        totals
    }
}

/// To two decimals. Below zero when origins sent more than clients got: broken-off downloads.
fn offload_percent(response_bytes: u64, origin_bytes: u64) -> Option<f64> {
    if response_bytes == 0 {
        return None;
    }
    let share = 1.0 - origin_bytes as f64 / response_bytes as f64;
    Some((share * 10_000.0).round() / 100.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn member(name: &str, role: &str, voter: bool) -> MemberStatus {
        MemberStatus {
            name: name.into(),
            node_id: format!("id-of-{name}"),
            role: role.into(),
            state: "up".into(),
            voter,
            cluster_address: "127.0.0.1:1".into(),
            edge_address: if role == "node" { "127.0.0.1:2".into() } else { String::new() },
            admin_address: "127.0.0.1:3".into(),
            version: "0.1.0".into(),
            ..MemberStatus::default()
        }
    }

    fn answer(name: &str, role: &str, term: u64, leader: Option<&str>) -> StatusDocument {
        let figures = Figures {
            cached_bytes: 3 << 20,
            cached_objects: 7,
            budget_bytes: 1 << 30,
            hits: Hits { memory: 5, disk: 4, peer: 3, origin: 2, pass: 1 },
            response_bytes: 1000,
            origin_bytes: 125,
            peer_bytes_in: 11,
            peer_bytes_out: 12,
        };
        StatusDocument {
            cluster_id: "c".into(),
            name: name.into(),
            node_id: format!("id-of-{name}"),
            role: role.into(),
            leader: leader.map(Into::into),
            term,
            applied_position: 40 + term,
            members: vec![
                member("node-10", "node", false),
                member("super-0", "super", true),
                member("node-2", "node", false),
                member("super-1", "super", false),
            ],
            figures: (role == "node").then_some(figures),
            mode: Some(ModeStatus {
                name: "super-node".into(),
                since_ms: 1_700_000_000_000,
                why: "3 voters keep the index".into(),
            }),
            ..StatusDocument::default()
        }
    }

    /// Two nodes, one of them silent, and two super-nodes, one of them behind.
    pub(crate) fn sample() -> Report {
        let first = answer("node-2", "node", 1, Some("super-0"));
        let answers = [
            first.clone(),
            answer("super-0", "super", 1, Some("super-0")),
            answer("super-1", "super", 2, Some("super-1")),
        ];
        Report::new(&first, &answers, 5)
    }

    #[test]
    fn members_come_in_the_order_people_count() {
        let names: Vec<_> = sample().members.into_iter().map(|member| member.name).collect();
        assert_eq!(names, ["super-0", "super-1", "node-2", "node-10"]);
    }

    #[test]
    fn the_latest_term_names_the_leader() {
        let report = sample();
        assert_eq!((report.leader.as_deref(), report.term), (Some("super-1"), 2));
        assert_eq!(report.applied_position, 42);
    }

    #[test]
    fn figures_that_nobody_gave_are_null() {
        let json = serde_json::to_value(sample()).unwrap();
        let of = |name: &str| {
            let members = json["members"].as_array().unwrap();
            members.iter().find(|member| member["name"] == name).unwrap().clone()
        };
        assert_eq!(of("node-2")["cached_bytes"], 3 << 20);
        assert_eq!(of("node-2")["hits"]["peer"], 3);
        assert_eq!(of("node-10")["reachable"], false);
        assert!(of("node-10")["cached_bytes"].is_null() && of("node-10")["hits"].is_null());
        assert_eq!(of("super-0")["reachable"], true);
        assert!(of("super-0")["cached_bytes"].is_null());
        assert_eq!(of("super-0")["applied_position"], 41);
        assert_eq!(json["totals"]["offload_percent"], 87.5);
        assert_eq!(json["mode"]["name"], "super-node");
        assert_eq!(of("super-0")["mode"], "super-node");
        assert!(of("node-10")["mode"].is_null());
        assert_eq!(json["totals"]["hits"]["memory"], 5);
    }

    #[test]
    fn events_of_all_come_newest_first() {
        let at = |at_ms: u64| Happened { at_ms, text: at_ms.to_string(), ..Happened::default() };
        let first = StatusDocument { events: vec![at(1), at(4)], ..answer("a", "node", 1, None) };
        let other = StatusDocument { events: vec![at(2), at(3)], ..answer("b", "node", 1, None) };
        let report = Report::new(&first, &[first.clone(), other], 5);
        let told: Vec<_> =
            report.events.iter().map(|of| (of.member.as_str(), of.happened.at_ms)).collect();
        assert_eq!(told, [("a", 4), ("b", 3), ("b", 2), ("a", 1)]);
    }

    #[test]
    fn offload_needs_bytes() {
        assert_eq!(offload_percent(0, 0), None);
        assert_eq!(offload_percent(300, 100), Some(66.67));
        assert_eq!(offload_percent(100, 150), Some(-50.0));
    }
}
