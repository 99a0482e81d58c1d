//! The binary: exit codes, messages, signals.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{
    FalseEdge, Lie, Running, bytes_of, end, loadtest, request, signal, start, start_reading,
};

#[tokio::test]
async fn an_origin_tells_its_address_serves_and_stops() {
    let mut child = start(&["origin", "--seed", "7", "--json"]);
    let pid = child.id().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&told["seed"], &told["pid"]), (&7.into(), &pid.into()));
    let address = told["listen"].as_str().unwrap().strip_prefix("http://").unwrap();
    let reply = request(address.parse().unwrap(), "GET", "/o/1000/a", &[], b"").await;
    assert_eq!(reply.body, bytes_of("/o/1000/a"));
    signal(&child, "TERM").await;
    assert_eq!(end(child).await.code, 0);
}

#[tokio::test]
async fn an_origin_can_end_with_its_parent() {
    let mut child = start_reading(&["origin", "--exit-with-parent"], Stdio::piped());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    drop(child.stdin.take());
    assert_eq!(end(child).await.code, 0);
}

#[tokio::test]
async fn an_origin_for_people_says_where_it_listens() {
    let mut child = start(&["origin"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
    signal(&child, "INT").await;
    assert_eq!(end(child).await.code, 0);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy() {
    let origin = Running::plain().await;
    let address = origin.address.to_string();
    let said = loadtest(&format!("origin --listen {address}")).await;
    assert_eq!(said.code, 1);
    for wanted in ["--listen", &address, "in use", "choose another address"] {
        assert!(said.err.contains(wanted), "{wanted} in {}", said.err);
    }
}

#[tokio::test]
async fn bad_usage_is_64() {
    for (line, wanted) in [
        ("", "Usage:"),
        ("origin --listen localhost", "127.0.0.1:9000"),
        ("origin --rate 0", "leave the flag out"),
        ("origin --latency-ms 600001", "between 0 and 600000"),
        ("run", "give --edge URL"),
        ("run --edge http://a:1 --nope", "--nope"),
        ("run --edge http://a:1 --edge-down-grace 1s", "needs --edges-file"),
        ("run --edge http://a:1 --max-object-ratio 1", "add --origin URL"),
    ] {
        let said = loadtest(line).await;
        assert_eq!(said.code, 64, "{line}: {said:?}");
        assert!(said.err.contains(wanted), "{line}: {}", said.err);
    }
}

#[tokio::test]
async fn what_cannot_run_is_1_with_what_where_and_remedy() {
    let edge = FalseEdge::start(Lie::Unavailable).await;
    let url = edge.url();
    // A port that was free a moment ago.
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (line, wanted) in [
        (format!("run --edge {dead}"), vec![&*dead, "refused", "are they started?"]),
        (format!("run --edge {url} --origin {dead}"), vec!["--origin", &dead, "shoal-loadtest"]),
        (format!("run --edge {url} --origin {url}"), vec!["--origin", "/_origin/stats"]),
        ("run --edges-file /nope/e".to_owned(), vec!["--edges-file /nope/e", "one URL per line"]),
        (format!("run --edge {url} --html /nope/r"), vec!["--html /nope/r", "folder that exists"]),
    ] {
        let said = loadtest(&line).await;
        assert_eq!(said.code, 1, "{line}: {said:?}");
        for wanted in wanted {
            assert!(said.err.contains(wanted), "{line}: {wanted} in {}", said.err);
        }
    }
}

#[tokio::test]
async fn help_and_version_are_no_failure() {
    for line in ["--help", "run --help", "origin --help", "--version"] {
        let said = loadtest(line).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}");
        assert!(said.out.lines().all(|text| text.chars().count() <= 130), "{line}: {}", said.out);
    }
    let help = loadtest("run --help").await.out;
    for flag in [
        "--edge ",
        "--edges ",
        "--edges-file",
        "--edge-down-grace",
        "--origin",
        "--host",
        "--duration",
        "--rate",
        "--arrivals",
        "--objects",
        "--zipf",
        "--sizes",
        "--seed",
        "--workload-seed",
        "--prefix",
        "--max-in-flight",
        "--timeout",
        "--max-failures",
        "--max-wrong",
        "--max-origin-ratio",
        "--max-object-ratio",
        "--min-offload",
        "--json",
        "--html",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[tokio::test]
async fn an_interrupted_run_reports_what_it_has() {
    let origin = Running::plain().await;
    let url = origin.url();
    let words = ["run", "--edge", &url, "--seed", "7", "--duration", "1h", "--sizes", "100:1"];
    let child = start(&[&words[..], &["--json"]].concat());
    while origin.stats().await.totals.requests < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal(&child, "INT").await;
    let said = end(child).await;
    let report = said.json();
    assert_eq!((said.code, &report["interrupted"]), (0, &true.into()), "{said:?}");
    assert!(report["requests"]["verified"].as_u64().unwrap() >= 19);
    assert_eq!(report["requests"]["unfinished"], 0);
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_replies() {
    let edge = FalseEdge::start(Lie::Silent).await;
    let url = edge.url();
    let words = ["run", "--edge", &url, "--duration", "1h", "--timeout", "1h", "--json"];
    let child = start(&words);
    while edge.seen() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal(&child, "INT").await;
    // Two signals that come too close are one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    signal(&child, "INT").await;
    let said = tokio::time::timeout(Duration::from_secs(60), end(child)).await.unwrap();
    let requests = said.json()["requests"].clone();
    assert!(requests["unfinished"].as_u64().unwrap() > 0, "{requests}");
    assert_eq!(requests["unfinished"], requests["sent"]);
}
