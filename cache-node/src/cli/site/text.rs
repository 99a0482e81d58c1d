//! What people see of sites.

use serde_json::Value;

use super::{ANSWERED, Report};
use crate::cli::exit::Failure;
use crate::text::table::{Align, Table};

/// All sites, one a line.
pub(super) fn list(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("site", Align::Left),
        ("hosts", Align::Left),
        ("origin", Align::Left),
        ("from", Align::Left),
        ("revision", Align::Right),
    ]);
    let sites = answer["sites"].as_array();
    for site in sites.into_iter().flatten() {
        let text = |key: &str| site[key].as_str().unwrap_or("-").to_owned();
        table.row(vec![
            text("name"),
            joined(&site["hosts"]),
            text("origin"),
            text("source"),
            text("revision"),
        ]);
    }
    table.to_string()
}

fn joined(list: &Value) -> String {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

/// One site or all of them, as a configuration file has them.
pub(super) fn toml(answer: &Value) -> Result<String, Failure> {
    let sites = match answer.get("sites").and_then(Value::as_array) {
        Some(sites) => sites.clone(),
        None => vec![answer.clone()],
    };
    let mut text = String::new();
    for site in sites {
        let Value::Object(mut keys) = site else { continue };
        let mut answered = |key: &str| keys.remove(key).unwrap_or_default();
        let [revision, source] = ANSWERED.map(&mut answered);
        keys.retain(|_, value| !value.is_null());
        let [revision, source] = [&revision, &source].map(|value| value.as_str().unwrap_or("-"));
        let site = toml::Value::try_from(keys).map_err(Failure::run)?;
        let whole = toml::Table::from_iter([("site".to_owned(), toml::Value::Array(vec![site]))]);
        let written = toml::to_string(&whole).map_err(Failure::run)?;
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("# revision {revision}, from the {source}\n{written}"));
    }
    Ok(text)
}

/// What was changed.
pub(super) fn changes(report: &Report) -> String {
    let mut text = String::new();
    for site in &report.sites {
        let nodes = if site.applied_on == 1 { "node" } else { "nodes" };
        text.push_str(&format!(
            "{} {}: revision {}, applied on {} {nodes}\n",
            site.name, site.change, site.revision, site.applied_on
        ));
        if !site.waiting_for.is_empty() {
            text.push_str(&format!(
                "not yet applied, as far as is known, on {}; look at `shoal status`\n",
                site.waiting_for.join(", ")
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Changed, written};
    use super::*;

    fn answer() -> Value {
        json!({ "revision": "12", "sites": [
            { "name": "docs", "hosts": ["docs.test", "*.docs.test"], "origin": "http://o.test",
              "source": "file", "revision": "7", "max_object_bytes": 1024 },
        ]})
    }

    #[test]
    fn people_see_a_table() {
        let expected = "\
site  hosts                  origin         from  revision
docs  docs.test *.docs.test  http://o.test  file         7
";
        assert_eq!(list(&answer()), expected);
    }

    #[test]
    fn what_is_printed_can_be_set() {
        let text = toml(&answer()).unwrap();
        assert!(text.starts_with("# revision 7, from the file\n[[site]]\n"), "{text}");
        assert_eq!(toml(&answer()["sites"][0]).unwrap(), text);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.toml");
        std::fs::write(&file, &text).unwrap();
        let (name, keys) = written::sites(file.to_str().unwrap()).unwrap().remove(0);
        assert_eq!((name.as_str(), &keys["max_object_bytes"]), ("docs", &json!(1024)));
        assert_eq!(keys.as_object().unwrap().len(), 3);
    }

    fn report(waiting_for: Vec<String>) -> Report {
        let (name, revision) = ("docs".to_owned(), "12".to_owned());
        Report {
            sites: vec![Changed { name, change: "set", revision, applied_on: 2, waiting_for }],
        }
    }

    #[test]
    fn whoever_is_behind_is_named() {
        assert_eq!(changes(&report(vec![])), "docs set: revision 12, applied on 2 nodes\n");
        assert!(changes(&report(vec!["n3".to_owned()])).contains("on n3;"));
    }

    #[test]
    fn the_json_is_documented() {
        const PAGE: &str = include_str!("../../../../docs/site-json.md");
        let example = PAGE.split("```json").nth(1).and_then(|rest| rest.split("```").next());
        let example: Value = serde_json::from_str(example.unwrap()).unwrap();
        let written = serde_json::to_value(report(vec![])).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&example), keys(&written));
        assert_eq!(keys(&example["sites"][0]), keys(&written["sites"][0]));
        for key in keys(&written["sites"][0]) {
            assert!(PAGE.contains(&format!("`sites[].{key}`")), "{key}");
        }
    }
}
