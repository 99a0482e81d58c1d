//! The client against real sockets: origins that speak raw bytes, well and badly.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::metrics::Metrics;
use crate::policy::site::{SiteConfig, Sites};

/// What an origin does after it has read a request and written its answer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Then {
    Keep,
    Close,
    Stall,
}

pub(super) struct Rig {
    pub(super) client: OriginClient,
    pub(super) tasks: Tasks,
    address: String,
    /// Request heads that the origin has read, in order.
    pub(super) seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Rig {
    /// An origin that gives the nth request the nth answer, and the last one from then on.
    pub(super) async fn new(script: &'static [(&'static str, Then)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rig = Self::at(listener.local_addr().unwrap().to_string());
        let (seen, connections) = (Arc::clone(&rig.seen), Arc::clone(&rig.connections));
        let tasks = rig.tasks.clone();
        rig.tasks.spawn_until_stopped("origin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tasks.spawn_until_stopped("origin-conn", converse(stream, script, seen.clone()));
            }
        });
        rig
    }

    pub(super) fn at(address: String) -> Self {
        let tasks = Tasks::new();
        let metrics = OriginMetrics::new(&Metrics::new().unwrap()).unwrap();
        let client = OriginClient::new(metrics, tasks.clone()).unwrap();
        Self { client, tasks, address, seen: Arc::default(), connections: Arc::default() }
    }

    pub(super) fn site(&self, more: &str) -> Arc<Site> {
        site(&format!("http://{}", self.address), more)
    }

    pub(super) async fn send(&self, method: &str, body: Option<RequestBody>) -> Sent {
        self.send_to(&self.site(""), method, body).await
    }

    pub(super) async fn send_to(
        &self,
        site: &Site,
        method: &str,
        body: Option<RequestBody>,
    ) -> Sent {
        let request = OriginRequest {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            target: "/x".into(),
            client_authority: "Client.test:8080".into(),
            headers: HeaderMap::new(),
            body,
            interims: None,
        };
        self.client.send(site, request).await
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

pub(super) type Sent = Result<OriginResponse, OriginError>;

pub(super) fn site(origin: &str, more: &str) -> Arc<Site> {
    let text = format!("name = \"a\"\nhosts = [\"*\"]\norigin = {origin:?}\n{more}");
    let config: SiteConfig = toml::from_str(&text).unwrap();
    Sites::new(vec![config]).unwrap().get("a").unwrap()
}

async fn converse(
    mut stream: TcpStream,
    script: &'static [(&'static str, Then)],
    seen: Arc<Mutex<Vec<String>>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        let at = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        let (answer, then) = script[at.min(script.len() - 1)];
        stream.write_all(answer.as_bytes()).await.unwrap();
        match then {
            Then::Keep => {}
            Then::Close => return,
            Then::Stall => std::future::pending().await,
        }
    }
}

/// A head, and the body that its Content-Length or chunks say.
pub(super) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        let byte = stream.read_u8().await.ok()?;
        text.push(char::from(byte));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        let whole = match length {
            Some(length) => body.len() == length,
            None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
            None => true,
        };
        if whole {
            return Some(text);
        }
    }
}

pub(super) async fn collect(sent: Sent) -> Result<String, BodyError> {
    let mut body = sent.unwrap().body;
    let mut text = String::new();
    while let Some(read) = body.next().await {
        text.push_str(std::str::from_utf8(&read?).unwrap());
    }
    Ok(text)
}

pub(super) fn upload(length: Option<u64>, parts: &'static [&'static str]) -> Option<RequestBody> {
    let parts = parts.iter().map(|part| Ok(bytes::Bytes::from_static(part.as_bytes())));
    let (stream, trailers) = (Box::pin(futures::stream::iter(parts)), Trailers::default());
    Some(RequestBody { length, stream, trailers })
}

pub(super) const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn the_origin_sees_what_was_asked_and_no_more() {
    let rig = Rig::new(&[(HELLO, Then::Keep)]).await;
    let lines = [
        ("host", "evil.test"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("content-length", "99"),
        ("x-forwarded-for", "10.0.0.1"),
        ("cookie", "a=1"),
        ("x-free", "text, with \"marks\"; (all)"),
        ("accept", "a"),
        ("accept", "b"),
        ("via", "1.0 before"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, HeaderValue::from_static(value));
    }
    for more in ["", "host_header = \"client\""] {
        let request = OriginRequest {
            method: Method::GET,
            target: "/a//b/../%7Ec;d?x=%2F&&y=a+b".into(),
            client_authority: "Client.test:8080".into(),
            headers: headers.clone(),
            body: None,
            interims: None,
        };
        collect(rig.client.send(&rig.site(more), request).await).await.unwrap();
    }
    let seen = rig.seen();
    let mut lines: Vec<&str> = seen[0].trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let host = format!("host: {}", rig.address);
    assert_eq!(
        lines,
        [
            "GET /a//b/../%7Ec;d?x=%2F&&y=a+b HTTP/1.1",
            "accept: a, b",
            "connection: te",
            "cookie: a=1",
            &host,
            "surrogate-capability: shoal=\"Surrogate/1.0\"",
            "te: trailers",
            "via: 1.0 before, 1.1 shoal",
            "x-free: text, with \"marks\"; (all)",
        ]
    );
    assert!(seen[1].contains("host: client.test:8080\r\n"), "{}", seen[1]);
}

#[tokio::test]
async fn responses_come_with_end_to_end_headers_length_and_date() {
    let rig = Rig::new(&[(
        "HTTP/1.1 299 Odd reason\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nX-Free: kept\r\nLocation: /elsewhere\r\n\r\nok",
        Then::Keep,
    )])
    .await;
    let response = rig.send("GET", None).await.unwrap();
    assert_eq!((response.status.as_u16(), response.length), (299, Some(2)));
    let mut names: Vec<_> = response.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["date", "location", "x-free"]);
    assert_eq!(collect(Ok(response)).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_body_ends_well_only_when_it_is_whole() {
    for (answer, then, outcome) in [
        (HELLO, Then::Close, Ok("hello")),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", Then::Close, Ok("until the end")),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
            Then::Keep,
            Ok("ok"),
        ),
        // What follows the declared length is no part of the body.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", Then::Keep, Ok("ok")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", Then::Close, Err("end of file")),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            Then::Close,
            Err("body"),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz",
            Then::Keep,
            Err("body"),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", Then::Stall, Err("silent for 150")),
    ] {
        let script: &'static [_] = Box::leak(Box::new([(answer, then)]));
        let rig = Rig::new(script).await;
        let site = rig.site("between_bytes_timeout_ms = 150");
        let found = collect(rig.send_to(&site, "GET", None).await).await;
        match (found, outcome) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{answer}"),
            (Err(BodyError(reason)), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, _) => panic!("{answer}: {found:?}"),
        }
        let failed = u64::from(outcome.is_err());
        assert_eq!(rig.client.metrics.failures.get(), failed, "{answer}");
    }
}

#[tokio::test]
async fn framing_that_two_could_read_differently_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let script: &'static [_] = Box::leak(Box::new([(answer, Then::Close)]));
        let refused = Rig::new(script).await.send("GET", None).await.unwrap_err();
        assert!(matches!(refused, OriginError::Malformed { .. }), "{answer}: {refused}");
    }
}

#[tokio::test]
async fn origins_that_do_not_answer_are_named() {
    let closed = Rig::at("127.0.0.1:1".into()).send("GET", None).await.unwrap_err();
    assert!(closed.to_string().starts_with("origin http://127.0.0.1:1 could not be"), "{closed}");

    let rig = Rig::new(&[("", Then::Stall)]).await;
    let silent = rig.send_to(&rig.site("first_byte_timeout_ms = 100"), "GET", None).await;
    assert!(matches!(silent, Err(OriginError::Timeout { waited_ms: 100, .. })), "{silent:?}");
    assert_eq!(rig.client.metrics.failures.get(), 1);

    // TCP opens, TLS never does.
    let tls = site(&format!("https://{}", rig.address), "connect_timeout_ms = 100");
    let stuck = rig.send_to(&tls, "GET", None).await.unwrap_err();
    assert!(stuck.to_string().ends_with("no connection within 100 ms"), "{stuck}");
}

#[tokio::test]
async fn informational_responses_are_no_answer() {
    let rig = Rig::new(&[(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Then::Keep,
    )])
    .await;
    let response = rig.send("GET", None).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert!(!response.headers.contains_key("link"));
    assert_eq!(collect(Ok(response)).await.unwrap(), "hello");
}

#[tokio::test]
async fn heads_without_bodies_keep_their_length() {
    let rig = Rig::new(&[
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", Then::Keep),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", Then::Keep),
        ("HTTP/1.1 204 No Content\r\n\r\n", Then::Keep),
    ])
    .await;
    for (method, length) in [("HEAD", Some(500)), ("GET", None), ("GET", None)] {
        let response = rig.send(method, None).await.unwrap();
        assert_eq!(response.length, length);
        assert_eq!(collect(Ok(response)).await.unwrap(), "");
    }
    assert_eq!(rig.connections(), 1, "all on one connection");
    assert_eq!(rig.client.metrics.not_modified.get(), 1);
    assert_eq!(rig.client.metrics.requests.get(), 3);
}

#[tokio::test]
async fn bodies_are_sent_with_the_framing_they_have() {
    let rig = Rig::new(&[(HELLO, Then::Keep)]).await;
    for (method, length, parts) in [
        ("POST", Some(4), &["ab", "cd"][..]),
        ("POST", None, &["ab", "cd"]),
        ("GET", None, &["ab"]),
        ("BREW", Some(0), &[]),
    ] {
        collect(rig.send(method, upload(length, parts)).await).await.unwrap();
    }
    let seen = rig.seen();
    assert!(seen[0].contains("content-length: 4") && seen[0].ends_with("\r\n\r\nabcd"));
    assert!(seen[1].contains("chunked") && seen[1].ends_with("2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"));
    assert!(seen[2].starts_with("GET") && seen[2].ends_with("2\r\nab\r\n0\r\n\r\n"));
    assert!(seen[3].starts_with("BREW /x"));
    for parts in [&["ab"][..], &["ab", "cdefg"]] {
        assert!(rig.send("POST", upload(Some(4), parts)).await.is_err(), "{parts:?}");
    }
}

#[tokio::test]
async fn an_upload_that_makes_progress_is_not_silence() {
    let rig = Rig::new(&[(HELLO, Then::Keep)]).await;
    let site = rig.site("first_byte_timeout_ms = 300");
    let slow = futures::stream::iter(0..6).then(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(bytes::Bytes::from_static(b"x"))
    });
    let trailers = Trailers::default();
    let body = RequestBody { length: Some(6), stream: Box::pin(slow), trailers };
    let sent = rig.send_to(&site, "POST", Some(body)).await;
    assert_eq!(collect(sent).await.unwrap(), "hello");
}

/// Names that resolve, by number, to the link, to a cloud's metadata, or to this very machine.
#[tokio::test]
async fn an_address_that_no_origin_may_have_is_not_connected_to() {
    let rig = Rig::new(&[(HELLO, Then::Keep)]).await;
    let port = rig.address.rsplit(':').next().unwrap().to_owned();
    for host in ["0", "2852039166"] {
        let there = site(&format!("http://{host}:{port}"), "connect_timeout_ms = 2000");
        let sent = rig.send_to(&there, "GET", None).await;
        assert!(matches!(sent, Err(OriginError::Unreachable { .. })), "{host}: {sent:?}");
    }
    assert!(rig.seen().is_empty());
}
