//! What `shoal get -v` says of an answer, for people.

use std::io::{self, Write};

use serde_json::Value;

use super::Report;
use crate::text::cache_status::Handled;
use crate::text::units::format_size;

/// Writes it to standard error.
pub(super) fn tell(report: &Report) {
    // Who closed it wants no explanation.
    let _ = io::stderr().lock().write_all(text(report).as_bytes());
}

fn text(report: &Report) -> String {
    let mut lines = vec![line(
        "answer",
        &format!(
            "{} over {}, {} in {:.1} ms (head after {:.1} ms)",
            report.status,
            report.version,
            format_size(report.bytes),
            report.took_ms,
            report.first_byte_ms
        ),
    )];
    for handled in &report.cache_status {
        lines.push(line("came", &format!("{}: {}", handled.cache, words(handled))));
    }
    if let Some(explained) = &report.explained {
        lines.extend(explanation(explained));
    }
    if let Some(why) = &report.unexplained {
        lines.push(line("no more", &why.replace('\n', "; ")));
    }
    lines.concat()
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<10} {value}\n")
}

/// RFC 9211's words as a sentence.
fn words(handled: &Handled) -> String {
    let tier = handled.detail.as_deref().map(|tier| format!(" ({tier})")).unwrap_or_default();
    let ttl = match handled.ttl {
        Some(ttl) if ttl >= 0 => format!(", fresh for {ttl} s more"),
        Some(ttl) => format!(", stale for {} s", ttl.unsigned_abs()),
        None => String::new(),
    };
    if handled.hit {
        return format!("had it{tier}{ttl}");
    }
    let why = match handled.fwd.as_deref() {
        Some("uri-miss") => "did not have it",
        Some("vary-miss") => "had no variant that fits",
        Some("stale") if handled.fwd_status == Some(304) => "had it stale, and it still stands",
        Some("stale") => "had it stale",
        Some("method") => "passed it on: its method is not cached",
        Some("request") => "passed it on: the request asked for that, or cannot be cached",
        Some("bypass") => "passed it on: the site caches nothing there",
        Some(other) => return format!("went on by {other}{tier}"),
        None => return format!("answered by itself{tier}"),
    };
    let waited = if handled.collapsed { ", waited for another's request" } else { "" };
    let stored = if handled.stored { ", has stored it now" } else { "" };
    format!("{why}{tier}{waited}{stored}")
}

fn explanation(explained: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let seconds = |value: &Value| value.as_u64().unwrap_or_default() / 1_000;
    let mut lines = vec![
        line(
            "site",
            &format!("{}, origin {}", text(&explained["site"]), text(&explained["origin"])),
        ),
        line("key", &text(&explained["key"])),
    ];
    let here = &explained["here"];
    if here.is_null() {
        lines.push(line("stored", &format!("not on {}", text(&explained["node"]))));
        return lines;
    }
    lines.push(line(
        "stored",
        &format!(
            "on {} ({}), {} of {} chunks",
            text(&explained["node"]),
            text(&here["tier"]),
            here["chunks_here"],
            here["chunks"]
        ),
    ));
    let (age, lifetime) = (seconds(&here["age_ms"]), seconds(&here["lifetime_ms"]));
    let state = match (here["fresh"].as_bool(), text(&here["purged"]).as_str()) {
        (_, "yes" | "softly") => "purged",
        (Some(true), _) => "fresh",
        _ => "stale",
    };
    let value = text(&here["lifetime_value"]);
    lines.push(line(
        "freshness",
        &format!(
            "{state}: {age} s old of {lifetime} s, by {} {value}",
            text(&here["lifetime_from"])
        ),
    ));
    let holders = explained["holders"].as_array().into_iter().flatten();
    let names: Vec<_> = holders.map(|holder| text(&holder["node"])).collect();
    let own = text(&explained["node"]);
    let others = if names.is_empty() { "nobody else".to_owned() } else { names.join(", ") };
    lines.push(line("holders", &format!("{own}; {others}")));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::cache_status::read;

    #[test]
    fn an_answer_is_explained_line_by_line() {
        let report = Report {
            url: "http://a.test/x".to_owned(),
            version: "HTTP/1.1".to_owned(),
            status: 200,
            headers: Vec::new(),
            bytes: 1_536,
            first_byte_ms: 1.25,
            took_ms: 2.5,
            cache_status: read("shoal; hit; ttl=58; detail=memory"),
            explained: Some(json!({
                "site": "docs", "origin": "http://o.test", "key": "ab12", "node": "node-0",
                "here": {
                    "tier": "memory", "chunks_here": 1, "chunks": 1, "age_ms": 2_400,
                    "lifetime_ms": 60_000, "lifetime_from": "max-age in cache-control",
                    "lifetime_value": "60", "fresh": true, "purged": "no",
                },
                "holders": [{ "node": "node-1" }],
            })),
            unexplained: None,
        };
        let expected = "\
answer     200 over HTTP/1.1, 1.5 KiB in 2.5 ms (head after 1.2 ms)
came       shoal: had it (memory), fresh for 58 s more
site       docs, origin http://o.test
key        ab12
stored     on node-0 (memory), 1 of 1 chunks
freshness  fresh: 2 s old of 60 s, by max-age in cache-control 60
holders    node-0; node-1
";
        assert_eq!(text(&report), expected);
    }

    #[test]
    fn every_word_of_rfc_9211_has_its_sentence() {
        for (said, expected) in [
            ("a; hit; ttl=-3", "had it, stale for 3 s"),
            (
                "a; fwd=uri-miss; stored; detail=origin",
                "did not have it (origin), has stored it now",
            ),
            ("a; fwd=stale; fwd-status=304", "had it stale, and it still stands"),
            ("a; fwd=uri-miss; collapsed", "did not have it, waited for another's request"),
            ("a; detail=\"unknown host\"", "answered by itself (unknown host)"),
        ] {
            assert_eq!(words(&read(said)[0]), expected);
        }
    }
}
