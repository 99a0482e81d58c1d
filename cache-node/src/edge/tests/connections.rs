//! Connections: limits against idle and stalled clients, and the drain.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::rig::*;
use crate::edge::EdgeConfig;

#[tokio::test]
async fn a_connection_is_kept_and_pipelined() {
    let (rig, _) = Rig::new(|request: Request<Incoming>| async move {
        Response::new(text(request.uri().path().to_owned()))
    })
    .await;
    let mut stream = rig.connect().await;
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    stream.write_all(format!("{}{}", request("/1"), request("/2")).as_bytes()).await.unwrap();
    let last = "GET /3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    stream.write_all(last.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let bodies: Vec<_> = text.split("\r\n\r\n").skip(1).map(|part| &part[..2]).collect();
    assert_eq!(bodies, ["/1", "/2", "/3"]);
    until(|| rig.edge.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_parked_connection_loses_nothing() {
    let (rig, _) = Rig::new(|request: Request<Incoming>| async move {
        Response::new(text(request.uri().path().to_owned()))
    })
    .await;
    let config = EdgeConfig { park_ms: 20, ..EdgeConfig::default() };
    let mut stream = tokio::net::TcpStream::connect(rig.beside(config).await).await.unwrap();
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let (first, second) = (request("/2"), request("/3"));
    let (half, rest) = second.split_at(20);
    // Alone; with half of the next; its rest; and one more.
    let last = "GET /4 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for sent in [request("/1"), format!("{first}{half}"), rest.to_owned(), last.to_owned()] {
        stream.write_all(sent.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let bodies: Vec<_> = text.split("\r\n\r\n").skip(1).map(|part| &part[..2]).collect();
    assert_eq!(bodies, ["/1", "/2", "/3", "/4"]);
    until(|| rig.edge.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn clients_that_never_finish_a_head_are_closed() {
    let config = EdgeConfig { head_ms: 150, ..EdgeConfig::default() };
    let rig = Rig::before("127.0.0.1:1", config).await;
    // Nothing; half of HTTP/2's preface; half a head; an idle connection, which is parked meanwhile.
    for sent in ["", "PRI * HT", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: b\r\n\r\n"] {
        let mut stream = rig.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "{sent:?} held its connection");
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let (rig, log) = Rig::new(|_| async { Response::new(text("")) }).await;
    let many = "X: 1\r\n".repeat(200);
    assert_eq!(rig.get("/", &many).await.status(), 431);
    let large = format!("X: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(rig.get("/", &large).await.status(), 431);
    let mut client = rig.http2().await;
    let request = Request::get("http://a.test/").header("x", "x".repeat(20 * 1024));
    let answer = client.send_request(request.body(text("")).unwrap()).await;
    assert!(answer.map_or(true, |answer| answer.status() == 431));
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let endless = "x".repeat(32 * 1024 * 1024);
    let (rig, _) = Rig::new(move |_| {
        let body = text(endless.clone());
        async { Response::new(body) }
    })
    .await;
    let config = EdgeConfig { stall_ms: 200, ..EdgeConfig::default() };
    let mut stream = tokio::net::TcpStream::connect(rig.beside(config).await).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    until(|| rig.edge.metrics.connections.get() == 1).await;
    until(|| rig.edge.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn more_connections_than_the_cap_wait() {
    let config = EdgeConfig { connections_max: 1, ..EdgeConfig::default() };
    let rig = Rig::before("127.0.0.1:1", config).await;
    let first = rig.connect().await;
    until(|| rig.edge.metrics.connections.get() == 1).await;
    let mut second = rig.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "served beyond the cap");
    drop(first);
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

/// An origin that answers when it is allowed to.
async fn gated() -> (Rig, Log, &'static Semaphore) {
    let gate: &'static Semaphore = Box::leak(Box::new(Semaphore::new(0)));
    let (rig, log) = Rig::new(move |_| async move {
        gate.acquire().await.unwrap().forget();
        Response::new(text("at last"))
    })
    .await;
    (rig, log, gate)
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let (rig, log, gate) = gated().await;
    let mut idle = rig.connect().await;
    let mut busy = rig.connect().await;
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut client = rig.http2().await;
    let request = Request::get("http://a.test/").body(text("")).unwrap();
    let multiplexed = client.send_request(request);
    until(|| rig.edge.metrics.connections.get() == 3).await;
    until(|| log.lock().unwrap().len() == 2).await;

    rig.tasks.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "an unused connection ends at once");
    assert!(tokio::net::TcpStream::connect(rig.address).await.is_err(), "nothing is accepted");

    gate.add_permits(2);
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("at last") && answer.contains("connection: close"), "{answer}");
    let (head, body) = whole(multiplexed.await).await.unwrap();
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"at last"[..]));
    assert!(rig.tasks.shutdown(Duration::from_secs(5)).await, "the edge has ended");
    assert_eq!(rig.edge.metrics.connections.get(), 0);
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let config = EdgeConfig { drain_ms: 100, ..EdgeConfig::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap().to_string();
    let rig = Rig::before(&origin, config).await;
    let mut stuck = rig.connect().await;
    let upload = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhalf";
    stuck.write_all(upload).await.unwrap();
    until(|| rig.edge.metrics.connections.get() == 1).await;
    assert!(rig.tasks.shutdown(Duration::from_secs(5)).await, "the edge has ended");
    assert_eq!(rig.edge.metrics.connections.get(), 0);
}

#[tokio::test]
async fn every_response_has_a_line_in_the_access_log() {
    use crate::edge::{AccessAddresses, AccessFormat, AccessLog};
    let (rig, _) = Rig::new(|_| async { Response::new(text("0123456789")) }).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let how = (AccessFormat::Common, AccessAddresses::Truncated);
    let lost = rig.edge.metrics.access_lines_lost.clone();
    let (log, lines) = AccessLog::open(&path, how, lost).await.unwrap();
    let (sites, metrics) = (rig.edge.sites.clone(), rig.edge.metrics.clone());
    let (config, read_path) = (EdgeConfig::default(), rig.edge.read_path.clone());
    let edge = crate::edge::Edge::new(config, sites, [7; 32], read_path, metrics);
    let edge = std::sync::Arc::new(edge.with_access_log(log));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = rig.tasks.child();
    tasks.spawn("edge", crate::edge::serve(listener, edge, tasks.clone()));
    rig.tasks.spawn("access-log", lines.write());
    for request in [
        "GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        "HEAD /b HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        "GET /c HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until(|| read().lines().count() == 3).await;
    let lines = read();
    let said: Vec<_> = lines.lines().map(|line| line.split('"').skip(1).collect()).collect();
    let said: Vec<String> = said.into_iter().map(|parts: Vec<&str>| parts.concat()).collect();
    let refused = "421 Misdirected Request: unknown host\n".len();
    let expected = ["GET /a HTTP/1.1 200 10".to_owned(), "HEAD /b HTTP/1.1 200 0".to_owned()];
    assert_eq!(said[..2], expected);
    assert_eq!(said[2], format!("GET /c HTTP/1.1 421 {refused}"));
    assert!(lines.lines().all(|line| line.starts_with("127.0.0.0 - - [")), "{lines}");
}
