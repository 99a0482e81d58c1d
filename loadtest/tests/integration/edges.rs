//! Edges that come and go while a run goes on.

use std::{path::Path, time::Duration};

use crate::support::{FalseEdge, Lie, Running, SEED, Said, end, start};

fn write(path: &Path, edges: &[&str]) {
    std::fs::write(path, edges.join("\n")).unwrap();
}

/// Runs against the edges in `before`; the file holds `after` once `origin`, which is one of them,
/// has seen a few requests.
async fn run(origin: &Running, before: &[&str], after: &[&str], flags: &str) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edges");
    write(&path, before);
    let line = format!(
        "run --edges-file {} --seed {SEED} --duration 2s --rate 60 --objects 10 --sizes 100:1 \
         --json {flags}",
        path.display()
    );
    let child = start(&line.split_whitespace().collect::<Vec<_>>());
    while origin.stats().await.totals.requests < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    write(&path, after);
    end(child).await
}

#[tokio::test]
async fn what_fails_at_an_edge_that_leaves_is_abandoned() {
    let origin = Running::plain().await;
    let dying = FalseEdge::start(Lie::Closed).await;
    let (alive, dead) = (origin.url(), dying.url());
    let said = run(&origin, &[&alive, &dead], &[&alive], "--edge-down-grace 5s").await;
    let report = said.json();
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(report["requests"]["failed"], 0);
    assert!(report["requests"]["abandoned"].as_u64().unwrap() > 0);
    let edges = report["edges"].as_array().unwrap();
    assert_eq!(edges[1]["edge"], dead);
    assert_eq!(edges[1]["abandoned"], report["requests"]["abandoned"]);
    assert!(edges[0]["verified"].as_u64() > edges[1]["abandoned"].as_u64());
    assert!(said.err.contains("edges changed: 0 added, 1 removed, 1 listed"), "{}", said.err);
}

#[tokio::test]
async fn what_fails_at_an_edge_that_stays_is_a_failure() {
    let origin = Running::plain().await;
    let dying = FalseEdge::start(Lie::Closed).await;
    let both = [&*origin.url(), &*dying.url()];
    let said = run(&origin, &both, &both, "--edge-down-grace 100ms").await;
    let report = said.json();
    assert_eq!(said.code, 2);
    assert_eq!(report["requests"]["abandoned"], 0);
    assert_eq!(report["edges"][1]["failed"], report["requests"]["failed"]);
}

#[tokio::test]
async fn wrong_bytes_are_not_excused_by_leaving() {
    let origin = Running::plain().await;
    let liar = FalseEdge::start(Lie::FlippedByte).await;
    let (alive, lying) = (origin.url(), liar.url());
    let said = run(&origin, &[&alive, &lying], &[&alive], "--edge-down-grace 5s").await;
    let report = said.json();
    assert_eq!((said.code, &report["requests"]["abandoned"]), (2, &0.into()));
    assert!(report["requests"]["failed"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn new_edges_get_their_share_and_a_half_written_file_changes_nothing() {
    let (first, second) = (Running::plain().await, Running::plain().await);
    let said = run(&first, &[&first.url()], &[&first.url(), &second.url()], "").await;
    let report = said.json();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(report["edges"][1]["verified"].as_u64().unwrap() > 10, "{}", report["edges"]);
    first.ask("POST", "/_origin/reset", &[]).await;
    let said = run(&first, &[&first.url()], &[], "").await;
    assert_eq!(said.json()["requests"]["failed"], 0, "{said:?}");
    first.ask("POST", "/_origin/reset", &[]).await;
    let said = run(&first, &[&first.url()], &["https://no"], "").await;
    assert_eq!(said.code, 0);
    assert_eq!(said.err.matches("line 1: `https://no`").count(), 1, "told once: {}", said.err);
}
