//! The admin listener over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::metrics::EdgeMetrics;

mod control;

struct Running {
    handle: AdminHandle,
    ready: watch::Sender<Readiness>,
    control: watch::Sender<Option<Arc<Control>>>,
    calls: AdminMetrics,
}

fn start() -> Running {
    start_with(Tokens::default())
}

fn start_with(tokens: Tokens) -> Running {
    let metrics = Metrics::new().unwrap();
    EdgeMetrics::new(&metrics).unwrap();
    let calls = AdminMetrics::new(&metrics).unwrap();
    let starting = Readiness { ready: false, reason: "starting".into() };
    let (ready, told) = watch::channel(starting);
    let (control, table) = watch::channel(None);
    let state = AdminState {
        metrics,
        ready: told,
        status: Arc::new(|| StatusDocument { name: "node-7".into(), ..Default::default() }),
        control: table,
        tokens,
        calls: calls.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let handle = AdminServer::start(listener, state).unwrap();
    Running { handle, ready, control, calls }
}

fn say(running: &Running, request: &str) -> String {
    let mut stream = TcpStream::connect(running.handle.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(running: &Running, path: &str) -> String {
    say(running, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
}

#[test]
fn it_answers_what_it_lists() {
    let running = start();
    assert!(get(&running, "/livez").starts_with("HTTP/1.1 200 OK"));
    let index = get(&running, "/");
    assert!(index.contains("/readyz") && index.contains("/metrics"), "{index}");
    let metrics = get(&running, "/metrics");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("shoal_edge_requests_total{tier=\"memory\"} 0"), "{metrics}");
    let status = get(&running, "/status?pretty");
    assert!(status.contains("content-type: application/json"), "{status}");
    assert!(status.contains("\"name\":\"node-7\""), "{status}");
    assert!(get(&running, "/secret").starts_with("HTTP/1.1 404"));
    running.handle.stop();
}

#[test]
fn browsers_get_the_page_and_nothing_of_anybody_else() {
    let running = start();
    let page = say(
        &running,
        "GET / HTTP/1.1\r\nhost: a\r\naccept: text/html,*/*\r\nconnection: close\r\n\r\n",
    );
    assert!(page.contains("content-type: text/html") && page.contains("</html>"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none';"), "{page}");
    // Every file that a file of the page names is there, and none is elsewhere.
    let mut named = vec!["/".to_owned()];
    let mut seen = 0;
    while seen < named.len() {
        let path = named[seen].clone();
        seen += 1;
        let content = if path == "/" { page.clone() } else { get(&running, &path) };
        assert!(content.starts_with("HTTP/1.1 200"), "{path}: {content}");
        assert!(!content.contains("https://"), "{path}");
        let quoted = content.split('"').filter(|word| word.starts_with("/page/"));
        let beside = content.split('"').filter_map(|word| word.strip_prefix("./"));
        let files = quoted.map(str::to_owned).chain(beside.map(|file| format!("/page/{file}")));
        let new: Vec<_> = files.filter(|file| !named.contains(file)).collect();
        named.extend(new);
    }
    assert_eq!(seen, 5, "{named:?}");
    running.handle.stop();
}

#[test]
fn the_cluster_is_told_by_any_member() {
    let running = start();
    let told = get(&running, "/cluster");
    assert!(told.contains("content-type: application/json"), "{told}");
    let report: serde_json::Value =
        serde_json::from_str(told.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!(report["at_ms"].as_u64().unwrap() > 0 && report["members"].is_array(), "{report}");
    // Within a second it is the same report, whoever asks.
    assert!(get(&running, "/cluster").contains(&report["at_ms"].to_string()));
    running.handle.stop();
}

#[test]
fn readiness_follows_the_node() {
    let running = start();
    let before = get(&running, "/readyz");
    assert!(before.starts_with("HTTP/1.1 503") && before.ends_with("starting\n"), "{before}");
    running.ready.send_replace(Readiness { ready: true, reason: "serving".into() });
    let after = get(&running, "/readyz");
    assert!(after.starts_with("HTTP/1.1 200") && after.ends_with("serving\n"), "{after}");
    running.handle.stop();
}

#[test]
fn it_only_reads() {
    let running = start();
    let refused = say(&running, "POST /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD"));
    let head = say(&running, "HEAD /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    running.handle.stop();
}

#[test]
fn a_head_without_end_is_refused() {
    let running = start();
    let mut stream = TcpStream::connect(running.handle.address()).unwrap();
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(2 * HEAD_BYTES_MAX));
    // The listener may hang up in the midst of the head.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    running.handle.stop();
}

#[test]
fn stopping_frees_the_port() {
    let running = start();
    let address = running.handle.address();
    let _idle = TcpStream::connect(address).unwrap();
    running.handle.stop();
    TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn the_client_asks_it() {
    let running = start();
    let address = running.handle.address().to_string();
    let deadline = Duration::from_secs(10);
    let (code, body) = client::get(&address, "/status", deadline).await.unwrap();
    assert_eq!(code, StatusCode::OK);
    let document: StatusDocument = serde_json::from_slice(&body).unwrap();
    assert_eq!(document.name, "node-7");
    running.handle.stop();
    let refused = client::get(&address, "/status", deadline).await.unwrap_err();
    assert!(matches!(refused, client::AskError::Unreachable(_)), "{refused}");
}

#[tokio::test]
async fn the_client_does_not_wait_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let deadline = Duration::from_millis(100);
    let refused = client::get(&address, "/status", deadline).await.unwrap_err();
    assert_eq!(refused, client::AskError::Deadline(deadline));
}
