//! Origins that fail before or within their response: an honest error, or a cut connection.

use http::{Request, Version};

use super::rig::*;
use crate::edge::EdgeConfig;

#[tokio::test]
async fn an_origin_that_cannot_be_had_is_said_so() {
    let unreachable = Rig::before("127.0.0.1:1", EdgeConfig::default()).await;
    let silent = Rig::raw("", false).await;
    let closing = Rig::raw("", true).await;
    let babbling = Rig::raw("nonsense\r\n\r\n", true).await;
    for (rig, status, detail) in [
        (unreachable, 502, "origin unreachable"),
        (silent, 504, "origin timed out"),
        (closing, 502, "origin unreachable"),
        (babbling, 502, "origin response malformed"),
    ] {
        let answer = rig.get("/secret-path", "").await;
        assert_eq!(answer.status(), status, "{detail}");
        assert_eq!(answer.cache_status(), format!("shoal; fwd=uri-miss; detail=\"{detail}\""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body().ends_with(&format!(": {detail}\n")), "{answer:?}");
        assert!(!answer.text.contains("127.0.0.1") && !answer.text.contains("secret"));
        let post = rig.ask("POST / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(post.status(), status);
        assert_eq!(post.cache_status(), format!("shoal; fwd=method; detail=\"{detail}\""));
        assert_eq!(rig.edge.metrics.errors.get(), 2);
    }
}

const SHORT: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nhello";
const OPEN: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\
                    Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
const PRIVATE: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 9\r\n\r\nhello";

/// Origin's answer, and whether it then closes or falls silent.
const BROKEN: [(&str, bool); 6] =
    [(SHORT, true), (SHORT, false), (OPEN, true), (OPEN, false), (PRIVATE, true), (PRIVATE, false)];

#[tokio::test]
async fn a_truncated_body_is_never_a_whole_answer() {
    for (answer, close) in BROKEN {
        let rig = Rig::raw(answer, close).await;
        let got = rig.get("/x", "").await;
        assert_eq!(got.status(), 200);
        match got.header("content-length") {
            Some(length) => {
                assert_eq!(length, "9");
                assert!(got.body().len() < 9, "{got:?}");
            }
            None => {
                assert_eq!(got.header("transfer-encoding"), Some("chunked"));
                assert!(!got.text.ends_with("0\r\n\r\n"), "{got:?}");
            }
        }
        assert!(rig.edge.read_path.stored.lock().unwrap().is_empty(), "not stored");
    }
}

#[tokio::test]
async fn a_truncated_body_resets_its_http2_stream() {
    for (answer, close) in BROKEN {
        let rig = Rig::raw(answer, close).await;
        let mut client = rig.http2().await;
        for _ in 0..2 {
            let request = Request::get("http://a.test/x").body(text("")).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.version(), Version::HTTP_2);
            assert!(whole(Ok(answer)).await.is_err(), "and the connection goes on");
        }
    }
}

#[tokio::test]
async fn a_truncated_body_resets_a_connection_that_would_delimit_it() {
    for close in [true, false] {
        let rig = Rig::raw(OPEN, close).await;
        let got = rig.ask("GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
        assert!(got.reset, "{got:?}");
    }
    let whole = Rig::raw("HTTP/1.1 200 OK\r\n\r\nhello", true).await;
    let got = whole.ask("GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    assert!(!got.reset && got.body() == "hello", "{got:?}");
}

#[tokio::test]
async fn a_broken_upload_never_looks_whole_to_the_origin() {
    use http_body_util::BodyExt;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let (rig, _) = Rig::new(move |request: Request<hyper::body::Incoming>| {
        let log = log.clone();
        async move {
            let came = request.into_body().collect().await.is_ok();
            log.lock().unwrap().push(came);
            http::Response::new(text("done"))
        }
    })
    .await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        use tokio::io::AsyncWriteExt;
        let mut stream = rig.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        until(|| rig.edge.metrics.connections.get() == 1).await;
        drop(stream);
    }
    until(|| seen.lock().unwrap().len() == 2).await;
    assert_eq!(*seen.lock().unwrap(), [false, false]);
}
