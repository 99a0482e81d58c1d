//! What clients get: hits, ranges, validations, variants of methods and versions.

use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::rig::*;
use crate::metrics::Tier;

const BODY: &str = "0123456789";

/// An origin whose objects are fresh for a minute.
async fn fresh(request: Request<Incoming>) -> Response<OriginBody> {
    let head = request.method() == Method::HEAD;
    Response::builder()
        .header("cache-control", "max-age=60")
        .header("etag", "\"1\"")
        .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        .header("date", "Sun, 06 Nov 2044 08:49:37 GMT")
        .header("x-free", "kept, \"as\" it; was")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=9")
        .header("content-length", BODY.len())
        .body(text(if head { "" } else { BODY }))
        .unwrap()
}

#[tokio::test]
async fn a_miss_is_stored_and_then_hit() {
    let (rig, log) = Rig::new(fresh).await;
    let miss = rig.get("/x?q=1", "").await;
    assert_eq!((miss.status(), miss.body()), (200, BODY));
    assert_eq!(miss.cache_status(), "shoal; fwd=uri-miss; stored; detail=origin");
    assert_eq!(miss.header("age"), None, "made for this request");
    let hit = rig.get("/x?q=1", "Cache-Control: no-cache, max-age=0\r\n").await;
    assert_eq!((hit.status(), hit.body()), (200, BODY));
    assert!(hit.cache_status().starts_with("shoal; hit; ttl="), "{hit:?}");
    assert!(hit.cache_status().ends_with("; detail=memory"), "{hit:?}");
    assert_eq!(hit.header("age"), Some("0"));
    for answer in [&miss, &hit] {
        assert_eq!(answer.header("via"), Some("1.1 shoal"));
        assert_eq!(answer.header("x-free"), Some("kept, \"as\" it; was"));
        assert_eq!(answer.header("date"), Some("Sun, 06 Nov 2044 08:49:37 GMT"));
        assert_eq!(answer.header("content-length"), Some("10"));
        assert_eq!((answer.header("x-hop"), answer.header("keep-alive")), (None, None));
    }
    rig.get("/x?q=2", "").await;
    assert_eq!(*log.lock().unwrap(), ["GET /x?q=1", "GET /x?q=2"]);
    let metrics = &rig.edge.metrics;
    assert_eq!(metrics.requests.of(Tier::Memory).get(), 1);
    assert_eq!(metrics.response_bytes.of(Tier::Memory).get(), 10);
    assert_eq!(metrics.response_bytes.of(Tier::Origin).get(), 20);
    assert_eq!(metrics.first_byte_seconds.get_sample_count(), 3);
}

#[tokio::test]
async fn several_ranges_come_in_parts() {
    let long = |_| async {
        let fresh = Response::builder().header("cache-control", "max-age=60");
        fresh.header("content-type", "text/x").body(text("0123456789".repeat(30))).unwrap()
    };
    let (rig, _) = Rig::new(long).await;
    rig.get("/x", "").await;
    let answer = rig.get("/x", "Range: bytes=0-2,200-203,-1\r\n").await;
    assert_eq!(answer.status(), 206);
    let content_type = answer.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, bytes: &str| {
        let head = format!("--{boundary}\r\nContent-Type: text/x\r\nContent-Range: bytes {range}");
        format!("{head}/300\r\n\r\n{bytes}\r\n")
    };
    let parts = [part("0-2", "012"), part("200-203", "0123"), part("299-299", "9")].concat();
    assert_eq!(answer.body(), format!("{parts}--{boundary}--\r\n"));
    assert_eq!(answer.header("content-length"), Some(&*answer.body().len().to_string()));
    assert_eq!(answer.header("content-range"), None);
    let again = rig.get("/x", "Range: bytes=0-2,200-203\r\n").await;
    assert_ne!(again.header("content-type"), Some(content_type), "nobody can guess a boundary");
}

#[tokio::test]
async fn ranges_are_cut_from_what_is_stored() {
    let (rig, log) = Rig::new(fresh).await;
    rig.get("/x", "").await;
    for (lines, status, body, content_range) in [
        ("Range: bytes=2-4\r\n", 206, "234", Some("bytes 2-4/10")),
        ("Range: bytes=7-\r\n", 206, "789", Some("bytes 7-9/10")),
        ("Range: bytes=-2\r\n", 206, "89", Some("bytes 8-9/10")),
        ("Range: bytes=10-\r\n", 416, "", Some("bytes */10")),
        ("Range: bytes=0-1,4-5\r\n", 206, "012345", Some("bytes 0-5/10")),
        ("Range: bytes=0-1\r\nRange: bytes=0-1\r\n", 200, BODY, None),
        ("Range: nonsense\r\n", 200, BODY, None),
        ("Range: bytes=2-4\r\nIf-Range: \"1\"\r\n", 206, "234", Some("bytes 2-4/10")),
        ("Range: bytes=2-4\r\nIf-Range: \"2\"\r\n", 200, BODY, None),
        ("Range: bytes=2-4\r\nIf-Match: \"2\"\r\n", 412, "", None),
    ] {
        let answer = rig.get("/x", lines).await;
        assert_eq!((answer.status(), answer.body()), (status, body), "{lines}");
        assert_eq!(answer.header("content-range"), content_range, "{lines}");
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()), "{lines}");
        assert_eq!(answer.header("etag"), Some("\"1\""), "{lines}");
    }
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn clients_preconditions_are_answered_from_the_cache() {
    let (rig, log) = Rig::new(fresh).await;
    rig.get("/x", "").await;
    for (lines, status) in [
        ("If-None-Match: \"0\", W/\"1\"\r\n", 304),
        ("If-None-Match: *\r\n", 304),
        ("If-None-Match: \"2\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 200),
        ("If-Modified-Since: whenever\r\n", 200),
        ("If-None-Match: \"1\"\r\nRange: bytes=0-1\r\n", 304),
        ("If-Match: \"2\"\r\n", 412),
        ("If-Match: \"2\"\r\nRange: bytes=0-1\r\n", 412),
        ("If-Match: \"1\"\r\nRange: bytes=0-1\r\n", 206),
        ("If-Match: \"1\"\r\nIf-None-Match: \"1\"\r\n", 304),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 412),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200),
    ] {
        let answer = rig.get("/x", lines).await;
        assert_eq!(answer.status(), status, "{lines}");
        assert_eq!(answer.header("etag"), Some("\"1\""));
        if status == 304 {
            assert_eq!((answer.body(), answer.header("content-length")), ("", None));
            assert_eq!((answer.header("age"), answer.header("x-free")), (Some("0"), None));
        }
        if status == 412 {
            assert_eq!((answer.body(), answer.header("content-length")), ("", Some("0")));
        }
    }
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (rig, log) = Rig::new(fresh).await;
    let head = "HEAD /x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=0-1\r\n\r\n";
    let passed = rig.ask(head).await;
    assert_eq!((passed.status(), passed.body()), (200, ""));
    assert_eq!(passed.header("content-length"), Some("10"));
    assert!(passed.cache_status().contains("detail=pass"), "{passed:?}");
    rig.get("/x", "").await;
    let hit = rig.ask(head).await;
    assert_eq!((hit.status(), hit.body(), hit.header("content-length")), (200, "", Some("10")));
    assert!(hit.cache_status().starts_with("shoal; hit"), "{hit:?}");
    assert_eq!(*log.lock().unwrap(), ["HEAD /x", "GET /x"]);
}

#[tokio::test]
async fn hosts_select_sites_and_nothing_else_does() {
    let (rig, log) = Rig::new(fresh).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: A.Test:8080\r\n\r\n", 200),
        ("GET http://a.test/ HTTP/1.1\r\nHost: ignored.test\r\n\r\n", 200),
        ("GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 200),
        ("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", 421),
        ("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test:port\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", 400),
        ("GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a.test\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 shoal, 1.1 x, 1.1 shoal, 1.1 shoal, 1.1 shoal\r\n\r\n",
            508,
        ),
        ("TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n", 405),
        ("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n", 501),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", 501),
    ] {
        let answer = rig.ask(request).await;
        assert_eq!(answer.status(), status, "{request}");
    }
    assert_eq!(*log.lock().unwrap(), ["GET /"], "one fetch, for one key");
    let refused = rig.ask("GET /secret HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(refused.body(), "421 Misdirected Request: unknown host\n");
    assert_eq!(refused.cache_status(), "shoal; detail=\"unknown host\"");
    assert_eq!(refused.header("cache-control"), Some("no-store"));
}

/// Echoes method and body.
async fn echo(request: Request<Incoming>) -> Response<OriginBody> {
    let method = request.method().clone();
    let status = if method == "DELETE" { StatusCode::FORBIDDEN } else { StatusCode::OK };
    let response = Response::builder().status(status).header("location", "/made");
    if matches!(method, Method::GET | Method::HEAD) && request.uri().path() != "/echo" {
        return response.header("cache-control", "max-age=60").body(text("stored")).unwrap();
    }
    let body = request.into_body().map_err(|error| crate::fetch::BodyError(error.to_string()));
    response.header("x-method", method.as_str()).body(body.boxed_unsync()).unwrap()
}

#[tokio::test]
async fn nothing_is_upgraded() {
    let (rig, _) = Rig::new(|request: Request<Incoming>| async move {
        let mut names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        Response::new(text(names.join(" ")))
    })
    .await;
    for lines in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
    ] {
        let answer = rig.get("/", lines).await;
        assert_eq!(answer.status(), 200);
        let end_to_end = answer.body().replace("sec-websocket-key ", "");
        assert_eq!(end_to_end, "host surrogate-capability via");
    }
}

#[tokio::test]
async fn other_methods_pass_with_their_bodies() {
    let (rig, log) = Rig::new(echo).await;
    for (method, framing, sent) in [
        ("POST", "Content-Length: 5", "hello"),
        ("POST", "Transfer-Encoding: chunked", "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
        ("BREW", "Content-Length: 5\r\nExpect: 100-continue", "hello"),
        ("GET", "Content-Length: 5", "hello"),
    ] {
        let head = format!("{method} /echo HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n{sent}");
        let mut answer = rig.ask(&head).await;
        answer.text = answer.text.replacen("HTTP/1.1 100 Continue\r\n\r\n", "", 1);
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.header("x-method"), Some(method));
        assert!(answer.body().contains("hello") || answer.body().contains("hel\r\n"), "{answer:?}");
        let word = if method == "GET" { "request" } else { "method" };
        let status = format!("shoal; fwd={word}; fwd-status=200; detail=pass");
        assert_eq!(answer.cache_status(), status);
    }
    assert_eq!(log.lock().unwrap().len(), 4);
    assert_eq!(rig.edge.metrics.requests.of(Tier::Pass).get(), 4);
}

#[tokio::test]
async fn an_upload_is_streamed_not_gathered() {
    let (rig, _) = Rig::new(echo).await;
    let mut client = rig.http2().await;
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
    let body = http_body_util::StreamBody::new(stream).boxed_unsync();
    let request = Request::post("http://a.test/echo").body(body).unwrap();
    let answer = client.send_request(request);
    let frame = |text: &'static str| Ok(hyper::body::Frame::data(text.into()));
    send.send(frame("first")).await.unwrap();
    // The answer's head and first bytes come while the request's body is still open.
    let mut echoed = answer.await.unwrap().into_body();
    let first = echoed.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first");
    send.send(frame("second")).await.unwrap();
    drop(send);
    assert_eq!(echoed.collect().await.unwrap().to_bytes(), "second");
}

#[tokio::test]
async fn a_successful_unsafe_request_invalidates_and_a_failed_one_does_not() {
    let (rig, log) = Rig::new(echo).await;
    let stored = || rig.edge.read_path.stored.lock().unwrap().len();
    for path in ["/x", "/made", "/other"] {
        rig.get(path, "").await;
    }
    assert_eq!(stored(), 3);
    let request = |method| format!("{method} /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(rig.ask(&request("DELETE")).await.status(), 403);
    assert_eq!(rig.ask(&request("OPTIONS")).await.status(), 200);
    assert_eq!(stored(), 3);
    assert_eq!(rig.ask(&request("PUT")).await.status(), 200);
    assert_eq!(stored(), 1, "the target and its Location are gone");
    rig.get("/other", "").await;
    rig.get("/x", "").await;
    assert_eq!(log.lock().unwrap().len(), 7);
}

#[tokio::test]
async fn http2_gets_the_same_without_connection_headers() {
    let (rig, _) = Rig::new(fresh).await;
    let mut client = rig.http2().await;
    for detail in ["origin", "memory"] {
        let request = Request::get("http://a.test/x").body(text("")).unwrap();
        let (head, body) = whole(client.send_request(request).await).await.unwrap();
        assert_eq!((head.status, head.version), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(body, BODY);
        assert_eq!(head.headers["content-length"], "10");
        assert_eq!(head.headers["x-free"], "kept, \"as\" it; was");
        for name in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
            assert!(!head.headers.contains_key(name), "{name}");
        }
        assert!(head.headers["cache-status"].to_str().unwrap().ends_with(detail));
    }
    let request = Request::get("http://a.test/x").header("range", "bytes=1-2");
    let sent = client.send_request(request.body(text("")).unwrap()).await;
    let (head, body) = whole(sent).await.unwrap();
    assert_eq!((head.status, &body[..]), (StatusCode::PARTIAL_CONTENT, &b"12"[..]));
    let request = Request::get("http://b.test/x").body(text("")).unwrap();
    let (head, _) = whole(client.send_request(request).await).await.unwrap();
    assert_eq!(head.status, StatusCode::MISDIRECTED_REQUEST);
    let request = Request::get("http://a.test/x").header("host", "b.test");
    let sent = client.send_request(request.body(text("")).unwrap()).await;
    assert_eq!(whole(sent).await.unwrap().0.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_may_not_be_stored_passes_every_time() {
    let (rig, log) = Rig::new(|request: Request<Incoming>| async move {
        let private = request.uri().path() == "/private";
        let response = Response::builder().header("age", "3").header("cache-status", "up; hit");
        let response = if private {
            response.header("cache-control", "private, max-age=60")
        } else {
            response.header("cache-control", "max-age=60").header("set-cookie", "id=1")
        };
        response.header("via", "1.0 up").body(text("mine")).unwrap()
    })
    .await;
    for path in ["/private", "/cookie"] {
        for _ in 0..2 {
            let answer = rig.get(path, "").await;
            assert_eq!((answer.body(), answer.header("age")), ("mine", Some("3")));
            let said = "up; hit, shoal; fwd=uri-miss; fwd-status=200; detail=pass";
            assert_eq!(answer.cache_status(), said);
            assert_eq!(answer.header("via"), Some("1.0 up, 1.1 shoal"));
        }
    }
    assert_eq!(log.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn age_from_before_goes_on_growing() {
    let (rig, _) = Rig::new(|_| async {
        let response = Response::builder().header("cache-control", "max-age=60");
        response.header("age", "30").body(text("old")).unwrap()
    })
    .await;
    let miss = rig.get("/", "").await;
    assert_eq!(miss.header("age"), Some("30"));
    let hit = rig.get("/", "").await;
    assert_eq!(hit.header("age"), Some("30"));
    let ttl = hit.cache_status().split(['=', ';']).nth(3).unwrap();
    assert!(["29", "30"].contains(&ttl), "{hit:?}");
}
