//! Attempts to have others served what they must not get: poisoning, deception, errors that stay.

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::*;
use crate::edge::EdgeConfig;

/// An origin that keeps its pages private, whatever they are called, and its errors for a moment.
async fn careless(request: Request<Incoming>) -> Response<OriginBody> {
    let path = request.uri().path().to_owned();
    let odd = request.headers().contains_key("x-odd");
    let response = match path.as_str() {
        _ if odd => Response::builder().status(400),
        path if path.starts_with("/account") => Response::builder(),
        path if path.starts_with("/cookie") => {
            Response::builder().header("set-cookie", "id=1").header("cache-control", "max-age=60")
        }
        _ => Response::builder().header("cache-control", "max-age=60"),
    };
    let told = request.headers().get("cookie").map_or("-", |cookie| cookie.to_str().unwrap());
    response.body(text(format!("{path} {told}"))).unwrap()
}

/// Web cache deception: a name that looks static makes nothing shareable, however it is written.
#[tokio::test]
async fn a_name_that_looks_static_makes_nothing_public() {
    let (rig, _) = Rig::new(careless).await;
    for path in [
        "/account/x.css",
        "/account;x.js",
        "/account%2fx.png",
        "/account%00.css",
        "/account/..%2fx.css",
        "/account?x.css",
        "/cookie/x.css",
    ] {
        rig.get(path, "Cookie: id=victim\r\n").await;
        let then = rig.get(path, "").await;
        assert!(then.body().ends_with(" -"), "{path}: {then:?}");
        assert!(then.cache_status().ends_with("detail=pass"), "{path}: {then:?}");
    }
}

/// Denial by a poisoned cache: what a header made the origin refuse is refused to its sender alone.
#[tokio::test]
async fn an_error_that_a_header_provoked_is_not_kept() {
    let (rig, _) = Rig::new(careless).await;
    assert_eq!(rig.get("/page", "X-Odd: 1\r\n").await.status(), 400);
    let clean = rig.get("/page", "").await;
    assert_eq!((clean.status(), clean.body()), (200, "/page -"));
    let odd = rig.get("/page", "X-Odd: 1\r\n").await;
    assert_eq!(odd.status(), 200, "and what is kept, everybody gets");
}

/// A body in a `GET` is in no key: what comes of it is nobody else's.
#[tokio::test]
async fn a_get_with_a_body_fills_nothing() {
    let (rig, log) = Rig::new(careless).await;
    let fat = "GET /fat HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nevil";
    let answer = rig.ask(fat).await;
    assert!(answer.cache_status().ends_with("detail=pass"), "{answer:?}");
    assert!(rig.get("/fat", "").await.cache_status().contains("stored"));
    assert_eq!(log.lock().unwrap().len(), 2);
}

/// One URL has one key: whatever could be read as another path has another.
#[tokio::test]
async fn paths_are_told_apart_byte_by_byte() {
    let (rig, log) = Rig::new(careless).await;
    let paths =
        ["/a", "/A", "/%61", "//a", "/./a", "/b/../a", "/a/", "/a?", "/a;x", "/a%20", "/a."];
    for path in paths {
        rig.get(path, "").await;
    }
    let asked = log.lock().unwrap().clone();
    assert_eq!(
        asked,
        paths.map(|path| format!("GET {path}")),
        "each went to the origin as it came"
    );
}

/// RFC 9112 section 2.2: a line feed alone ends a line here, and what goes on has none.
#[tokio::test]
async fn a_bare_line_feed_hides_no_header() {
    let (rig, log) = Rig::new(careless).await;
    let mut stream = rig.connect().await;
    let request = "POST /lf HTTP/1.1\r\nHost: a.test\r\nX: y\nTransfer-Encoding: chunked\r\n\
                   Content-Length: 5\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    assert!(!log.lock().unwrap().iter().any(|line| line.contains("hidden")), "{log:?}");
}

/// A client that stops within its upload is given up, and its origin with it.
#[tokio::test]
async fn an_upload_that_stalls_is_cut() {
    let (origin, address) = bind().await;
    let config = EdgeConfig { upload_silence_ms: 200, ..EdgeConfig::default() };
    let rig = Rig::before(&address.to_string(), config).await;
    let mut stream = rig.connect().await;
    let head = "POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut upstream, _) = origin.accept().await.unwrap();
    let mut came = Vec::new();
    let five = std::time::Duration::from_secs(5);
    let ended = tokio::time::timeout(five, upstream.read_to_end(&mut came)).await;
    assert!(ended.is_ok(), "the origin is left waiting");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(five, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the client holds its connection");
}
