//! Hostile requests: each kind meets a named limit or rule, and nothing of it reaches another.

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::*;

/// An origin that tells what it was asked, host and forwarded host included, fresh for a minute.
async fn telling(request: Request<Incoming>) -> Response<OriginBody> {
    let of = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap());
    let told = format!(
        "{} {} host={} xfh={} xff={} fwd={} override={}",
        request.method(),
        request.uri(),
        of("host"),
        of("x-forwarded-host"),
        of("x-forwarded-for"),
        of("forwarded"),
        of("x-http-method-override"),
    );
    Response::builder().header("cache-control", "max-age=60").body(text(told)).unwrap()
}

/// RFC 9112 sections 2.2, 5, 6 and 7.1: ambiguous framing ends the connection. Each request carries
/// a second one that must never be read as such.
#[tokio::test]
async fn ambiguous_framing_smuggles_nothing() {
    let (rig, log) = Rig::new(telling).await;
    const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for (lines, body) in [
        ("Content-Length: 1\r\nContent-Length: 0", ""),
        ("Content-Length: 0, 1", ""),
        ("Content-Length: +0", ""),
        ("Content-Length: 0x0", ""),
        ("Content-Length: 18446744073709551616", ""),
        ("Transfer-Encoding: chunked, identity", ""),
        ("Transfer-Encoding: identity", ""),
        ("Transfer-Encoding: xchunked", ""),
        ("Transfer-Encoding: \u{b}chunked", ""),
        ("Transfer-Encoding : chunked", "0\r\n\r\n"),
        ("X: a\r\n Transfer-Encoding: chunked", ""),
        ("X: a\rTransfer-Encoding: chunked", ""),
        ("X: a\0b", ""),
        (" Folded: first", ""),
    ] {
        let mut stream = rig.connect().await;
        let request = format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\n{body}{HIDDEN}");
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await;
        assert!(ended.is_ok(), "{lines:?} leaves its connection open");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400"), "{lines:?}: {answer}");
        assert!(!answer.contains("/hidden"), "{lines:?}: {answer}");
    }
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
}

/// RFC 9112 section 6.1: of two lengths the coding counts, and nothing more is read after it.
#[tokio::test]
async fn a_chunked_request_is_the_last_on_its_connection() {
    let (rig, log) = Rig::new(telling).await;
    for lines in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 60",
        "Transfer-Encoding: chunked",
    ] {
        let mut stream = rig.connect().await;
        let hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\n");
        let _ = stream.write_all(format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lines}: {answer}");
        assert!(answer.contains("connection: close"), "{lines}: {answer}");
    }
    assert_eq!(*log.lock().unwrap(), ["POST /x"; 3]);
}

/// RFC 9112 section 7.1: a body's chunks are read strictly, and what surrounds them is bounded.
#[tokio::test]
async fn malformed_chunks_are_no_body() {
    let (rig, _) = Rig::new(|request: Request<Incoming>| async move {
        use http_body_util::BodyExt;
        let whole = request.into_body().collect().await;
        Response::new(text(whole.map_or("broken".into(), |body| body.to_bytes())))
    })
    .await;
    let endless = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(64 * 1024));
    let trailers = format!("1\r\nx\r\n0\r\n{}\r\n", "T: 1\r\n".repeat(4096));
    for body in [
        "1\nx\n0\n\n",
        "g\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        &endless,
        &trailers,
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = rig.ask(&format!("{head}{body}")).await;
        assert_ne!(answer.status(), 200, "{:?}: {answer:?}", &body[..body.len().min(40)]);
    }
    let extended = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                    1;a=\"b\"\r\nx\r\n0\r\nTrailer: 1\r\n\r\n";
    let answer = rig.ask(extended).await;
    assert_eq!((answer.status(), answer.body()), (200, "x"), "extensions and trailers end here");
}

/// What a client says of itself or of the host, and what is not in the key, changes no stored answer.
#[tokio::test]
async fn unkeyed_headers_poison_nothing() {
    let (rig, log) = Rig::new(telling).await;
    let clean = "GET / host=";
    let evil = "X-Forwarded-Host: evil.test\r\nX-Host: evil.test\r\nX-Original-URL: /admin\r\n\
                X-Rewrite-URL: /admin\r\nX-Forwarded-Scheme: nothttps\r\nForwarded: host=evil\r\n\
                X-HTTP-Method-Override: POST\r\nX-Forwarded-For: 10.0.0.1\r\n";
    let first = rig.get("/", evil).await;
    let then = rig.get("/", "").await;
    for answer in [&first, &then] {
        assert!(answer.body().starts_with(clean), "{answer:?}");
        assert!(answer.body().ends_with(" xfh=- xff=- fwd=- override=-"), "{answer:?}");
    }
    assert_eq!(log.lock().unwrap().len(), 1, "one answer for both");
}

/// A client cannot take away what decides about caching, or slip a mark of ours into a response.
#[tokio::test]
async fn our_own_words_cannot_be_forged() {
    let (rig, _) = Rig::new(|_| async {
        let response = Response::builder().header("cache-control", "max-age=60");
        let response = response.header("connection", "cache-control, vary, close");
        let response = response.header("shoal-selected", "00").header("vary", "*");
        response.body(text("x")).unwrap()
    })
    .await;
    for _ in 0..2 {
        let answer = rig.get("/", "Connection: authorization\r\nAuthorization: x\r\n").await;
        assert_eq!(answer.cache_status(), "shoal; fwd=uri-miss; fwd-status=200; detail=pass");
        assert_eq!((answer.header("shoal-selected"), answer.header("vary")), (None, Some("*")));
    }
}

#[tokio::test]
async fn targets_are_bounded() {
    let (rig, log) = Rig::new(telling).await;
    let target = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    assert_eq!(rig.get(&target(8 * 1024), "").await.status(), 200);
    assert_eq!(rig.get(&target(8 * 1024 + 1), "").await.status(), 414);
    assert_eq!(rig.get(&target(40_000), "").await.status(), 431, "longer than any head");
    assert_eq!(log.lock().unwrap().len(), 1);
}

/// However many ranges are asked for, no more bytes come than the object has, and their heads.
#[tokio::test]
async fn ranges_amplify_nothing() {
    let (rig, _) = Rig::new(|_| async {
        let fresh = Response::builder().header("cache-control", "max-age=60");
        fresh.body(text("x".repeat(10_000))).unwrap()
    })
    .await;
    rig.get("/x", "").await;
    for ranges in ["0-,".repeat(16), "0-,".repeat(160), "0-1,1000-1001,".repeat(8)] {
        let answer = rig.get("/x", &format!("Range: bytes={ranges}\r\n")).await;
        assert!(answer.body().len() <= 10_000 + 16 * 256, "{}", answer.body().len());
    }
}

/// Only configured sites are ever asked, whatever form names another.
#[tokio::test]
async fn no_other_host_is_ever_asked() {
    let (rig, log) = Rig::new(telling).await;
    for request in [
        "GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test.evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test@evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test,evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test#evil\r\n\r\n",
        "GET //evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET @evil.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        let answer = rig.ask(request).await;
        assert!(matches!(answer.status(), 400 | 421), "{request}: {answer:?}");
    }
    assert!(log.lock().unwrap().is_empty());
    let doubled = rig.get("//evil.test/", "").await;
    assert!(doubled.body().contains(" host=127.0.0.1:"), "a path, and no host: {doubled:?}");
}
