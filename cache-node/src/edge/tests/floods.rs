//! Floods of HTTP/2 frames, made by hand: each meets a limit of `accept.rs`, and costs the origin
//! nothing or next to nothing.

use std::time::Duration;

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::*;
use crate::edge::EdgeConfig;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// `GET http://a.test/` (RFC 7541: three static entries, a literal authority).
fn get() -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x41, 6][..], b"a.test"].concat()
}

/// A connection that has sent its preface and settings.
async fn begun(rig: &Rig) -> TcpStream {
    let mut stream = rig.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Reads frames until the connection ends; the error of its GOAWAY.
async fn ended(stream: &mut TcpStream) -> Option<u32> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "the flood holds its connection");
    let mut rest = &all[..];
    while let [a, b, c, kind, _, _, _, _, _, more @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *kind == GOAWAY {
            return more.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        }
        rest = more.get(length..).unwrap_or_default();
    }
    None
}

#[tokio::test]
async fn streams_opened_and_reset_end_the_connection() {
    let (rig, log) = Rig::new(|_| async { Response::new(text("hello")) }).await;
    let mut stream = begun(&rig).await;
    let mut flood = Vec::new();
    for number in (1..2_000).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, number, &get()));
        flood.extend(frame(RST_STREAM, 0, number, &8u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    if let Some(code) = ended(&mut stream).await {
        assert_eq!(code, ENHANCE_YOUR_CALM);
    }
    let asked = log.lock().unwrap().len();
    assert!(asked < 100, "the origin was asked {asked} times");
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let (rig, log) = Rig::new(|_| async { Response::new(text("hello")) }).await;
    let mut stream = begun(&rig).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &get());
    // A literal header of a kilobyte (RFC 7541 section 6.2.2), again and again.
    let literal = [&[0, 1, b'x', 0x7f, 0xe1, 6][..], &[b'y'; 992]].concat();
    for _ in 0..1_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &literal));
    }
    let _ = stream.write_all(&flood).await;
    ended(&mut stream).await;
    assert!(log.lock().unwrap().is_empty());
    until(|| rig.edge.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn questions_whose_answers_nobody_reads_end_the_connection() {
    for question in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let config = EdgeConfig { stall_ms: 200, ..EdgeConfig::default() };
        let rig = Rig::before("127.0.0.1:1", config).await;
        let mut stream = begun(&rig).await;
        let many = question.repeat(10_000);
        let flood = async { while stream.write_all(&many).await.is_ok() {} };
        let cut = tokio::time::timeout(Duration::from_secs(10), flood).await;
        assert!(cut.is_ok(), "the flood went on");
        until(|| rig.edge.metrics.connections.get() == 0).await;
    }
}
