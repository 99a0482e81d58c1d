//! PURE. A running cluster's facts, for people and for programs.

use std::path::Path;

use serde::Serialize;

use super::children::{Children, DEMO_ORIGIN_NAME};
use super::plan::{MemberPlan, Plan};
use crate::text::table::{Align, Table};

/// The JSON of `shoal up --json`: fields are added, never renamed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    data_dir: String,
    token_file: String,
    base_port: u16,
    origin: String,
    demo_origin_pid: Option<u32>,
    super_nodes: Vec<MemberFacts>,
    nodes: Vec<MemberFacts>,
}

#[derive(Clone, Debug, Serialize)]
struct MemberFacts {
    name: String,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<String>,
    admin: String,
    cluster: String,
}

/// Where a cluster keeps what its users need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    pub(super) data_dir: &'a Path,
    /// The file with the token for control calls.
    pub(super) token_file: &'a Path,
}

impl Facts {
    pub(super) fn new(plan: &Plan, places: Places<'_>, children: &Children) -> Self {
        Self::with_pids(plan, places, |name| children.pid(name))
    }

    fn with_pids(plan: &Plan, places: Places<'_>, pid: impl Fn(&str) -> Option<u32>) -> Self {
        let facts = |member: &MemberPlan| MemberFacts {
            name: member.name.clone(),
            pid: pid(&member.name).unwrap_or_default(),
            edge: member.edge.map(|edge| format!("http://{edge}")),
            admin: format!("http://{}", member.admin),
            cluster: member.cluster.to_string(),
        };
        Self {
            data_dir: places.data_dir.display().to_string(),
            token_file: places.token_file.display().to_string(),
            base_port: plan.base_port,
            origin: plan.origin.clone(),
            demo_origin_pid: plan.demo_origin.as_ref().and_then(|_| pid(DEMO_ORIGIN_NAME)),
            super_nodes: plan.super_nodes.iter().map(facts).collect(),
            nodes: plan.nodes.iter().map(facts).collect(),
        }
    }

    /// The same, with the origin that counts.
    pub(super) fn with_origin(self, origin: Option<String>) -> Self {
        let origin = origin.unwrap_or(self.origin);
        Self { origin, ..self }
    }

    /// One line.
    pub(super) fn json(&self) -> String {
        // Strings and numbers only: there is nothing that could not be JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// A table, and where to go from here.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new(&[
            ("name", Align::Left),
            ("role", Align::Left),
            ("pid", Align::Right),
            ("edge", Align::Left),
            ("admin", Align::Left),
        ]);
        let nodes = if self.super_nodes.is_empty() { "auto" } else { "node" };
        let supers = self.super_nodes.iter().map(|member| ("super", member));
        for (role, member) in supers.chain(self.nodes.iter().map(|member| (nodes, member))) {
            let edge = member.edge.clone().unwrap_or_else(|| "-".to_owned());
            let pid = member.pid.to_string();
            table.row(vec![member.name.clone(), role.into(), pid, edge, member.admin.clone()]);
        }
        let demo = self.demo_origin_pid.map(|pid| format!(" (demo origin, pid {pid})"));
        let first = self.nodes.first();
        let admin = first.or(self.super_nodes.first()).map_or("", |member| member.admin.as_str());
        let edge = first.and_then(|node| node.edge.as_deref());
        let (fetch, purge) = edge.map(|edge| self.uses(edge, admin)).unwrap_or_default();
        format!(
            "{table}\n\
             origin   {}{}\n\
             data     {}\n\
             logs     {}/logs\n\
             token    {}\n\
             {fetch}\
             look     shoal status --admin {admin}\n\
             {purge}\
             stop     Ctrl-C\n",
            self.origin,
            demo.unwrap_or_default(),
            self.data_dir,
            self.data_dir,
            self.token_file,
        )
    }

    /// What can be done with an edge.
    fn uses(&self, edge: &str, admin: &str) -> (String, String) {
        let token_file = &self.token_file;
        let fetch = format!("fetch    curl -i {edge}/\n");
        let purge =
            format!("purge    shoal purge {edge}/ --admin {admin} --token-file {token_file}\n");
        (fetch, purge)
    }
}

#[cfg(test)]
mod tests {
    use super::super::UpOptions;
    use super::*;

    fn facts(options: &UpOptions) -> Facts {
        let plan = Plan::new(options, None).unwrap();
        let (data_dir, token_file) = (Path::new("/data"), Path::new("/data/admin-token"));
        let places = Places { data_dir, token_file };
        Facts::with_pids(&plan, places, |name| Some(name.len() as u32))
    }

    #[test]
    fn programs_get_one_line_of_json() {
        let text = facts(&UpOptions::default()).json();
        assert_eq!(text.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["data_dir"], "/data");
        assert_eq!(json["token_file"], "/data/admin-token");
        assert_eq!(json["base_port"], 18_080);
        assert_eq!(json["origin"], "http://127.0.0.1:18580");
        assert_eq!(json["demo_origin_pid"], 11);
        let super_node = serde_json::json!({
            "name": "super-0", "pid": 7,
            "admin": "http://127.0.0.1:18280", "cluster": "127.0.0.1:18480",
        });
        assert_eq!(json["super_nodes"][0], super_node);
        let node = serde_json::json!({
            "name": "node-2", "pid": 6, "edge": "http://127.0.0.1:18082",
            "admin": "http://127.0.0.1:18182", "cluster": "127.0.0.1:18382",
        });
        assert_eq!(json["nodes"][2], node);
    }

    #[test]
    fn an_origin_of_ones_own_has_no_pid() {
        let origin = Some("http://origin.example.com".to_owned());
        let facts = facts(&UpOptions { origin, ..UpOptions::default() });
        let json: serde_json::Value = serde_json::from_str(&facts.json()).unwrap();
        assert!(json["demo_origin_pid"].is_null());
        assert_eq!(json["origin"], "http://origin.example.com");
    }

    #[test]
    fn a_tier_alone_has_nothing_to_fetch_from() {
        let none = UpOptions { super_nodes: Some(1), nodes: Some(0), ..UpOptions::default() };
        let facts = facts(&none);
        let text = facts.text();
        assert!(!text.contains("fetch") && !text.contains("purge"), "{text}");
        assert!(text.contains("shoal status --admin http://127.0.0.1:18280\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&facts.json()).unwrap();
        assert_eq!(json["nodes"], serde_json::json!([]));
    }

    #[test]
    fn people_get_a_table() {
        let one = UpOptions { super_nodes: Some(1), nodes: Some(1), ..UpOptions::default() };
        let expected = "\
name     role   pid  edge                    admin
super-0  super    7  -                       http://127.0.0.1:18280
node-0   node     6  http://127.0.0.1:18080  http://127.0.0.1:18180

origin   http://127.0.0.1:18580 (demo origin, pid 11)
data     /data
logs     /data/logs
token    /data/admin-token
fetch    curl -i http://127.0.0.1:18080/
look     shoal status --admin http://127.0.0.1:18180
purge    shoal purge http://127.0.0.1:18080/ --admin http://127.0.0.1:18180 --token-file /data/admin-token
stop     Ctrl-C
";
        assert_eq!(facts(&one).text(), expected);
    }
}
