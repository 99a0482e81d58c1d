//! A run against an honest origin, and against edges that lie.

use std::time::Duration;

use serde_json::Value;
use shoal_loadtest::content::Content;

use crate::support::{FalseEdge, Lie, Running, SEED, SLOW_MS, end, loadtest, start};

/// Small, short, and the same in every test.
fn flags() -> String {
    format!("--seed {SEED} --duration 600ms --rate 100 --objects 20 --sizes 1000:50,100000:50")
}

fn count(report: &Value, kind: &str) -> u64 {
    let failures = report["failures"].as_array().unwrap();
    failures.iter().find(|failure| failure["kind"] == kind).unwrap()["count"].as_u64().unwrap()
}

#[tokio::test]
async fn an_origin_as_its_own_edge_is_verified_and_offloads_nothing() {
    let origin = Running::plain().await;
    let url = origin.url();
    let line =
        format!("run --edge {url} --origin {url} {} --max-origin-ratio 1000 --json", flags());
    let said = loadtest(&line).await;
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let verified = report["requests"]["verified"].as_u64().unwrap();
    assert!((30..100).contains(&verified), "{verified}");
    assert_eq!(report["requests"]["due"], verified);
    assert_eq!(report["latency"]["count"], verified);
    assert_eq!(report["requests"]["failed"], 0);
    assert_eq!(report["origin"]["requests"], verified);
    assert_eq!(report["origin"]["origin_bytes"], report["received"]["bytes"]);
    assert_eq!(report["origin"]["elsewhere_bytes"], 0);
    assert_eq!(report["origin"]["offload_bytes_pct"], 0.0);
    let worst = &report["origin"]["worst_object"];
    let path = worst["path"].as_str().unwrap();
    assert_eq!(origin.stats().await.paths[path].body_bytes, worst["origin_bytes"]);
    assert!(Content::new(SEED).etag(path).is_ok());
}

#[tokio::test]
async fn a_missed_threshold_is_said_with_value_and_limit() {
    let origin = Running::plain().await;
    let url = origin.url();
    let line = format!("run --edge {url} --origin {url} {} --min-offload 50", flags());
    let said = loadtest(&line).await;
    assert_eq!(said.code, 2, "{said:?}");
    for wanted in [
        "met     --max-failures: 0, wanted at most 0",
        "missed  --max-origin-ratio: ",
        "wanted at most 1.05",
        "missed  --min-offload: 0, wanted at least 50",
    ] {
        assert!(said.out.contains(wanted), "{wanted} in {}", said.out);
    }
    let said = loadtest(&format!("{line} --json")).await;
    assert_eq!((said.code, &said.json()["ok"]), (2, &Value::Bool(false)));
    assert!(said.err.contains("missed  --min-offload"), "{}", said.err);
}

#[tokio::test]
async fn every_lie_is_found_and_called_by_its_name() {
    for (lie, kind, word) in [
        (Lie::FlippedByte, "wrong", "byte 50"),
        (Lie::Truncated, "truncated", "of 100000 bytes"),
        (Lie::ShortLength, "truncated", "the body ended"),
        (Lie::Surplus, "wrong", "more bytes than the object's"),
        (Lie::Unavailable, "status", "503 Service Unavailable"),
        (Lie::Closed, "closed", ""),
        (Lie::Silent, "timeout", "no reply after 150ms"),
    ] {
        let edge = FalseEdge::start(lie).await;
        // Only where nothing comes is the timeout short: a busy machine must not cause others.
        let timeout = if lie == Lie::Silent { "--timeout 150ms" } else { "" };
        let line = format!("run --edge {} {} {timeout} --json", edge.url(), flags());
        let said = loadtest(&line).await;
        assert_eq!(said.code, 2, "{lie:?}: {said:?}");
        let report = said.json();
        let (failed, due) = (&report["requests"]["failed"], &report["requests"]["due"]);
        assert_eq!(count(&report, kind), *failed, "{lie:?}: {}", report["failures"]);
        assert_eq!(failed, due, "{lie:?}: none came through");
        assert_eq!(edge.seen(), *due, "{lie:?}: every request was sent once");
        let examples = report["failure_examples"].to_string();
        assert!(examples.contains(word), "{lie:?}: {examples}");
        assert!(said.err.contains("missed  --max-failures"), "{lie:?}: {}", said.err);
    }
}

#[tokio::test]
async fn wrong_bytes_have_a_threshold_of_their_own() {
    let edge = FalseEdge::start(Lie::FlippedByte).await;
    let line = format!("run --edge {} {} --max-failures 1000", edge.url(), flags());
    let said = loadtest(&line).await;
    assert_eq!(said.code, 2);
    assert!(said.out.contains("missed  --max-wrong"), "{}", said.out);
    let said = loadtest(&format!("{line} --max-wrong 1000")).await;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test]
async fn a_seed_that_is_not_the_origins_fits_no_byte() {
    let origin = Running::plain().await;
    let line = format!("run --edge {} {} --seed 8 --json", origin.url(), flags());
    let said = loadtest(&line.replace("--seed 7", "")).await;
    let report = said.json();
    assert_eq!(
        (said.code, count(&report, "wrong")),
        (2, report["requests"]["due"].as_u64().unwrap())
    );
}

#[tokio::test]
async fn a_stall_counts_from_when_requests_were_due() {
    let edge = FalseEdge::start(Lie::Slow).await;
    let line = format!(
        "run --edge {} --seed {SEED} --duration 1s --rate 20 --arrivals constant --objects 5 \
         --sizes 100:1 --max-in-flight 1 --json",
        edge.url()
    );
    let report = loadtest(&line).await.json();
    assert_eq!(report["requests"]["verified"], 20);
    // Twenty replies one after the other end after 20 x 100 ms; the last was due at 950 ms.
    let least_us = (20 * SLOW_MS - 950) * 1000;
    let max_us = report["latency"]["max_us"].as_u64().unwrap();
    assert!(max_us >= least_us, "{max_us} us, at least {least_us}");
    let lag_us = report["send_lag"]["max_us"].as_u64().unwrap();
    assert!(lag_us >= least_us - 1000 * SLOW_MS, "{lag_us} us");
}

#[tokio::test]
async fn requests_without_room_until_the_end_are_failures() {
    let edge = FalseEdge::start(Lie::Silent).await;
    let line = format!(
        "run --edge {} --seed {SEED} --duration 300ms --rate 50 --arrivals constant --objects 5 \
         --sizes 100:1 --max-in-flight 1 --timeout 500ms --json",
        edge.url()
    );
    let report = loadtest(&line).await.json();
    assert_eq!(report["requests"]["due"], 15);
    let (unsent, timeouts) = (count(&report, "unsent"), count(&report, "timeout"));
    assert!(unsent >= 10 && timeouts >= 1, "{unsent} unsent, {timeouts} timeouts");
    assert_eq!(report["requests"]["failed"], 15);
    assert_eq!(report["requests"]["sent"], 15 - unsent);
}

#[tokio::test]
async fn an_origin_that_ends_during_the_run_leaves_it_unjudged() {
    let (edge, origin) = (FalseEdge::start(Lie::None).await, Running::plain().await);
    let line = format!("run --edge {} --origin {} {}", edge.url(), origin.url(), flags());
    let child = start(&line.split_whitespace().collect::<Vec<_>>());
    while edge.seen() < 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(origin);
    let said = end(child).await;
    assert_eq!(said.code, 2, "{said:?}");
    for wanted in ["Origin: unknown, --origin", "missed  --max-origin-ratio: could not be measured"]
    {
        assert!(said.out.contains(wanted), "{wanted} in {}", said.out);
    }
}

#[tokio::test]
async fn cache_statuses_are_told_apart() {
    let edge = FalseEdge::start(Lie::None).await;
    let line = format!("run --edge {} {}", edge.url(), flags());
    let report = loadtest(&format!("{line} --json")).await.json();
    let status = &report["cache_statuses"][0];
    assert_eq!((&status["cache_status"], &status["source"]), (&"hit".into(), &"memory".into()));
    assert_eq!(status["requests"], report["requests"]["verified"]);
    let said = loadtest(&line).await;
    assert!(said.out.contains("hit memory"), "{}", said.out);
}

#[tokio::test]
async fn the_host_header_is_what_was_asked_for() {
    let edge = FalseEdge::start(Lie::OneHost).await;
    let line = format!("run --edge {} {}", edge.url(), flags());
    assert_eq!(loadtest(&format!("{line} --host demo.local")).await.code, 0);
    let said = loadtest(&line).await;
    assert_eq!(said.code, 2);
    assert!(said.out.contains("421 Misdirected Request"), "{}", said.out);
}

#[tokio::test]
async fn reports_go_to_files_and_the_page_needs_nothing_else() {
    let origin = Running::plain().await;
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let line = format!(
        "run --edge {} {} --json {} --html {}",
        origin.url(),
        flags(),
        json.display(),
        html.display()
    );
    let said = loadtest(&line).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("Thresholds"), "the table is still printed: {}", said.out);
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(report["ok"], true);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg") && page.contains("prefers-color-scheme:dark"));
    for outside in ["src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}
