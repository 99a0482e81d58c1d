//! Trailers pass by in both directions where both ends take them, and are never stored.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use super::rig::*;

fn trailed(data: &'static str, trailers: HeaderMap) -> OriginBody {
    let frames = [Ok(Frame::data(Bytes::from(data))), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
}

fn sums() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    trailers.insert("cache-control", HeaderValue::from_static("max-age=9"));
    trailers.insert("content-length", HeaderValue::from_static("9"));
    trailers
}

/// Tells the request's trailers and `TE`, with trailers; fresh for a minute when asked for by `GET`.
async fn origin(request: Request<Incoming>) -> Response<OriginBody> {
    let of = |headers: &HeaderMap, name: &str| {
        headers.get(name).map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned())
    };
    let headers = request.headers().clone();
    let response = Response::builder()
        .header("trailer", "x-sum, cache-control")
        .header("x-te", of(&headers, "te"))
        .header("cache-control", if request.method() == "GET" { "max-age=60" } else { "no-store" });
    let body = request.into_body().collect().await.unwrap();
    let came = body.trailers().map_or("-".to_owned(), |trailers| of(trailers, "x-ask"));
    let secret = body.trailers().map_or("-".to_owned(), |trailers| of(trailers, "host"));
    let response = response.header("x-came", came).header("x-secret", secret);
    response.body(trailed("body", sums())).unwrap()
}

const ASK: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n";
const SENT: &str = "\r\n3\r\nabc\r\n0\r\nX-Ask: 7\r\nHost: evil\r\n\r\n";

#[tokio::test]
async fn they_pass_over_http1_to_who_takes_them() {
    let (rig, _) = Rig::new(origin).await;
    let takes = format!("{ASK}TE: trailers\r\nTrailer: X-Ask, Host\r\n{SENT}");
    let answer = rig.ask(&takes).await;
    assert_eq!((answer.header("x-came"), answer.header("x-secret")), (Some("7"), Some("-")));
    assert_eq!(answer.header("x-te"), Some("trailers"));
    assert_eq!(answer.header("trailer"), Some("x-sum, cache-control"));
    assert!(answer.body().ends_with("0\r\nx-sum: 42\r\n\r\n"), "{answer:?}");
    let takes_not = rig.ask(&format!("{ASK}TE: gzip\r\n{SENT}")).await;
    assert_eq!((takes_not.header("x-came"), takes_not.header("x-te")), (Some("-"), Some("-")));
    assert!(takes_not.body().ends_with("\r\n0\r\n\r\n"), "{takes_not:?}");
    assert_eq!(takes_not.header("trailer"), None);
}

#[tokio::test]
async fn they_pass_over_http2_to_who_takes_them() {
    let (rig, _) = Rig::new(origin).await;
    let mut client = rig.http2().await;
    let mut asked = HeaderMap::new();
    asked.insert("x-ask", HeaderValue::from_static("7"));
    for (te, expected) in [(Some("trailers"), Some("42")), (None, None)] {
        let mut request = Request::post("http://a.test/x").header("trailer", "x-ask");
        if let Some(te) = te {
            request = request.header("te", te);
        }
        let request = request.body(trailed("abc", asked.clone())).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers()["x-came"], "7");
        let body = response.into_body().collect().await.unwrap();
        let sum = body.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
        assert_eq!(sum, expected.map(HeaderValue::from_static));
        let kept = body.trailers().map_or(0, HeaderMap::len);
        assert_eq!(kept, usize::from(te.is_some()), "only what may be a trailer");
        assert_eq!(body.to_bytes(), "body");
    }
}

#[tokio::test]
async fn nothing_stored_has_any() {
    let (rig, log) = Rig::new(origin).await;
    for _ in 0..2 {
        let answer = rig.get("/x", "TE: trailers\r\n").await;
        assert_eq!((answer.status(), answer.header("trailer")), (200, None));
        assert!(!answer.body().contains("x-sum"), "{answer:?}");
        assert_eq!(answer.header("x-te"), Some("-"), "a fill takes none");
    }
    assert_eq!(log.lock().unwrap().len(), 1);
}
