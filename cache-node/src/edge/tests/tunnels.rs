//! Connections that switch protocols: only where the site allows it, within limits, and not for
//! longer than the edge.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::*;
use crate::tasks::Tasks;

const ALLOWED: &str = "upgrade = { protocols = [\"websocket\"], max = 2, idle_ms = 1000 }\n";
const ASK: &str = "GET /ws?q HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An origin that switches whoever asks well to an echo; `to` is the protocol that it names.
async fn echo(to: &'static str) -> String {
    let (listener, address) = bind().await;
    let tasks = Tasks::new();
    let inner = tasks.clone();
    tasks.spawn("origin", async move {
        while let Ok((stream, _)) = listener.accept().await {
            inner.spawn("echo", answer(stream, to));
        }
    });
    address.to_string()
}

async fn answer(mut stream: TcpStream, to: &'static str) {
    let head = head(&mut stream).await;
    let meant = head.contains("\r\nupgrade: websocket\r\n")
        && head.contains("\r\nconnection: upgrade\r\n")
        && head.contains("\r\nsec-websocket-key: abc\r\n")
        && head.starts_with("GET /ws?q HTTP/1.1\r\n");
    if !meant {
        let body = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
        let _ = stream.write_all(body.as_bytes()).await;
        return;
    }
    let switched = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\
         Sec-WebSocket-Accept: xyz\r\nX-Hop: 1\r\n\r\nhello"
    );
    let _ = stream.write_all(switched.as_bytes()).await;
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Reads up to a head's end.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    let text = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
    text.replace("get /ws?q http/1.1", "GET /ws?q HTTP/1.1")
}

async fn opened(rig: &Rig) -> TcpStream {
    let mut stream = rig.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: xyz"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello", "what came with the origin's head");
    stream
}

async fn closes(stream: &mut TcpStream, within: Duration) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(within, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the tunnel stays open");
}

#[tokio::test]
async fn an_allowed_protocol_is_carried_both_ways() {
    let rig = Rig::with_site(&echo("websocket").await, ALLOWED).await;
    let mut stream = opened(&rig).await;
    for _ in 0..3 {
        stream.write_all(b"ping\x00\xff").await.unwrap();
        let mut back = [0; 6];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping\x00\xff");
    }
    assert_eq!(rig.edge.metrics.tunnels.get(), 1);
    stream.shutdown().await.unwrap();
    closes(&mut stream, Duration::from_secs(5)).await;
    until(|| rig.edge.metrics.tunnels.get() == 0).await;
}

#[tokio::test]
async fn tunnels_are_bounded_in_number_and_in_silence() {
    let rig = Rig::with_site(&echo("websocket").await, ALLOWED).await;
    let (mut first, mut second) = (opened(&rig).await, opened(&rig).await);
    let mut third = rig.connect().await;
    third.write_all(ASK.as_bytes()).await.unwrap();
    let refused = head(&mut third).await;
    assert!(refused.starts_with("http/1.1 503 "), "{refused}");
    for silent in [&mut first, &mut second] {
        closes(silent, Duration::from_secs(5)).await;
    }
    until(|| rig.edge.metrics.tunnels.get() == 0).await;
    opened(&rig).await;
}

#[tokio::test]
async fn a_leaving_node_closes_its_tunnels() {
    let keys = ALLOWED.replace("1000", "60000");
    let rig = Rig::with_site(&echo("websocket").await, &keys).await;
    let mut stream = opened(&rig).await;
    rig.edge.leaving().store(true, std::sync::atomic::Ordering::Relaxed);
    closes(&mut stream, Duration::from_secs(5)).await;
    let mut late = rig.connect().await;
    late.write_all(ASK.as_bytes()).await.unwrap();
    assert!(head(&mut late).await.starts_with("http/1.1 503 "));
    rig.edge.leaving().store(false, std::sync::atomic::Ordering::Relaxed);
    let mut stream = opened(&rig).await;
    rig.tasks.stop();
    closes(&mut stream, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_origin_that_does_not_switch_has_answered() {
    let rig = Rig::with_site(&echo("websocket").await, ALLOWED).await;
    let answer = rig.ask(&ASK.replace("abc", "other")).await;
    assert_eq!((answer.status(), answer.body()), (426, "no"));
    assert_eq!(rig.edge.metrics.tunnels.get(), 0);
}

#[tokio::test]
async fn an_origin_that_switches_to_something_else_is_not_believed() {
    let rig = Rig::with_site(&echo("h2c").await, ALLOWED).await;
    let mut stream = rig.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 502 "));
    assert_eq!(rig.edge.metrics.tunnels.get(), 0);
}

#[tokio::test]
async fn what_is_not_allowed_goes_on_without() {
    let origin = echo("websocket").await;
    for keys in ["", "upgrade = { protocols = [\"mqtt\"] }\n"] {
        let rig = Rig::with_site(&origin, keys).await;
        let mut stream = rig.connect().await;
        stream.write_all(ASK.as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("http/1.1 426 "), "{keys}");
    }
    let rig = Rig::with_site(&origin, ALLOWED).await;
    for changed in [
        ASK.replace("keep-alive, Upgrade", "keep-alive"),
        ASK.replace("GET", "POST"),
        ASK.replace("Upgrade: websocket", "Upgrade: h2c"),
        ASK.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut stream = rig.connect().await;
        stream.write_all(changed.as_bytes()).await.unwrap();
        let told = head(&mut stream).await;
        assert!(told.contains(" 426 "), "{changed}: {told}");
    }
}
