//! The origin as clients and caches see it.

use std::time::Duration;

use shoal_loadtest::{clock::Clock, content::Content, scenario::OriginScenario};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Running, SEED, bytes_of, request};

#[tokio::test]
async fn an_object_is_what_seed_and_path_say() {
    let origin = Running::plain().await;
    for path in ["/o/0/empty", "/o/1/a", "/o/65536/b", "/o/300001/deep/c.tar.gz"] {
        let reply = origin.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.body, bytes_of(path), "{path}");
        assert_eq!(reply.field("etag"), Some(&*Content::new(SEED).etag(path).unwrap()));
        let length = reply.body.len().to_string();
        assert_eq!(reply.field("content-length"), Some(&*length), "{path}");
    }
    let reply = origin.get("/o/10/a").await;
    assert_eq!(reply.field("cache-control"), Some("public, max-age=3600"));
    assert_eq!(reply.field("last-modified"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    assert_eq!(reply.field("accept-ranges"), Some("bytes"));
    assert!(httpdate::parse_http_date(reply.field("date").unwrap()).is_ok());
}

#[tokio::test]
async fn head_has_the_fields_and_no_body() {
    let origin = Running::plain().await;
    let head = origin.ask("HEAD", "/o/5000/a", &[("Range", "bytes=0-9")]).await;
    let get = origin.get("/o/5000/a").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-length", "etag", "last-modified", "cache-control", "accept-ranges"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    let stats = origin.stats().await;
    assert_eq!(stats.paths["/o/5000/a"].body_bytes, 5000, "HEAD sends no body");
}

#[tokio::test]
async fn ranges_are_parts_of_the_whole() {
    let origin = Running::plain().await;
    let path = "/o/200000/r";
    let whole = bytes_of(path);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=65530-131080", 65_530, 131_080),
        ("bytes=199999-", 199_999, 199_999),
        ("bytes=-7", 199_993, 199_999),
        ("bytes=100000-900000", 100_000, 199_999),
    ] {
        let reply = origin.ask("GET", path, &[("Range", range)]).await;
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.body, whole[first..=last], "{range}");
        let wanted = format!("bytes {first}-{last}/200000");
        assert_eq!(reply.field("content-range"), Some(&*wanted));
        assert!(reply.whole);
    }
    let reply = origin.ask("GET", path, &[("Range", "bytes=200000-")]).await;
    assert_eq!((reply.status, reply.field("content-range")), (416, Some("bytes */200000")));
    let reply = origin.ask("GET", path, &[("Range", "bytes=0-1,4-5")]).await;
    assert_eq!((reply.status, reply.body.len()), (200, 200_000));
}

#[tokio::test]
async fn if_range_joins_only_the_same_version() {
    let origin = Running::plain().await;
    let etag = origin.get("/o/100/a?version=1").await.field("etag").unwrap().to_owned();
    let fields = [("Range", "bytes=50-"), ("If-Range", etag.as_str())];
    let same = origin.ask("GET", "/o/100/a?version=1", &fields).await;
    let other = origin.ask("GET", "/o/100/a?version=2", &fields).await;
    assert_eq!((same.status, same.body.len()), (206, 50));
    assert_eq!((other.status, other.body), (200, bytes_of("/o/100/a?version=2")));
}

#[tokio::test]
async fn conditions_are_answered_and_counted() {
    let origin = Running::plain().await;
    let path = "/o/1000/c";
    let first = origin.get(path).await;
    let etag = first.field("etag").unwrap();
    let date = first.field("last-modified").unwrap();
    for field in [("If-None-Match", etag), ("If-Modified-Since", date)] {
        let reply = origin.ask("GET", path, &[field]).await;
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{field:?}");
        assert_eq!(reply.field("etag"), Some(etag));
        assert_eq!(reply.field("cache-control"), Some("public, max-age=3600"));
        assert_eq!(reply.field("content-length"), None);
    }
    let changed = origin.ask("GET", path, &[("If-None-Match", "\"x\"")]).await;
    assert_eq!(changed.status, 200);
    let counts = origin.stats().await.paths[path];
    assert_eq!((counts.requests, counts.conditional_requests), (4, 3));
    assert_eq!((counts.not_modified, counts.body_bytes), (2, 2000));
}

#[tokio::test]
async fn counts_are_exact_by_path_and_query_and_can_be_reset() {
    let origin = Running::plain().await;
    origin.get("/o/1000/a").await;
    origin.get("/o/1000/a?x=1").await;
    origin.ask("GET", "/o/1000/a", &[("Range", "bytes=0-99")]).await;
    origin.get("/nothing").await;
    let stats = origin.stats().await;
    let counts = stats.paths["/o/1000/a"];
    assert_eq!((counts.requests, counts.range_requests, counts.body_bytes), (2, 1, 1100));
    assert_eq!(stats.paths["/o/1000/a?x=1"].body_bytes, 1000);
    assert_eq!(stats.totals.requests, 4, "reading the counts does not count");
    let sum: u64 = stats.paths.values().map(|counts| counts.body_bytes).sum();
    assert_eq!(stats.totals.body_bytes, sum);
    assert_eq!(origin.ask("POST", "/_origin/reset", &[]).await.status, 204);
    let cleared = origin.stats().await;
    assert_eq!((cleared.totals.requests, cleared.paths.len(), cleared.resets), (0, 0, 1));
    assert_eq!(cleared.instance, stats.instance);
}

#[tokio::test]
async fn a_client_that_leaves_is_not_counted_in_full() {
    let origin = Running::plain().await;
    let size = 1_u64 << 30;
    let mut stream = TcpStream::connect(origin.address).await.unwrap();
    let head = format!("GET /o/{size}/big HTTP/1.1\r\nHost: test\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut some = vec![0; 100_000];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let counted = origin.stats().await.totals.body_bytes;
    assert!((100_000 - 1000..size / 4).contains(&counted), "{counted}");
}

#[tokio::test]
async fn other_paths_say_what_there_is() {
    let origin = Running::plain().await;
    let start = origin.get("/").await;
    assert_eq!(
        (start.status, start.field("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert_eq!(start.body, origin.get("/").await.body);
    for (path, wanted) in [
        ("/nope", "objects are at /o/<size>/<name>"),
        ("/o/4KiB/a", "write plain bytes"),
        ("/o/2199023255552/a", "too large"),
        ("/o/5", "no name"),
    ] {
        let reply = origin.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.text().contains(wanted), "{path}: {}", reply.text());
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        assert!(reply.field("content-length").is_some());
    }
    assert_eq!(origin.get("/_origin/reset").await.status, 405);
    assert_eq!(origin.ask("POST", "/_origin/stats", &[]).await.field("allow"), Some("GET, HEAD"));
    assert_eq!(origin.get("/_origin/x").await.status, 404);
}

#[tokio::test]
async fn the_echo_returns_any_method_body_and_what_it_saw() {
    let origin = Running::plain().await;
    let body = bytes_of("/o/1000000/echo");
    let fields = [("X-Test-One", "1"), ("Via", "1.1 a"), ("Via", "1.1 b"), ("X-Other", "no")];
    for method in ["POST", "PUT", "PATCH", "PURGE"] {
        let reply = request(origin.address, method, "/echo", &fields, &body).await;
        assert_eq!((reply.status, reply.field("x-method")), (200, Some(method)));
        assert_eq!(reply.body, body);
        assert_eq!(reply.field("content-length"), Some("1000000"));
        assert_eq!(reply.field("x-seen-via"), Some("1.1 a, 1.1 b"));
        assert_eq!(reply.field("x-seen-host"), Some("test"));
        assert_eq!(reply.field("x-seen-x-test-one"), Some("1"));
        assert_eq!(reply.field("x-seen-x-other"), None);
    }
    assert_eq!(origin.get("/echo").await.body, b"");
}

#[tokio::test]
async fn unsafe_methods_on_objects_succeed_or_fail_as_asked() {
    let origin = Running::plain().await;
    let reply = request(origin.address, "POST", "/o/10/a", &[], b"form").await;
    assert_eq!((reply.status, reply.field("x-method")), (204, Some("POST")));
    let reply = request(origin.address, "DELETE", "/o/10/a?status=500", &[], b"").await;
    assert_eq!(reply.status, 500);
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let origin = Running::plain().await;
    let mut stream = TcpStream::connect(origin.address).await.unwrap();
    for number in 0..20 {
        let path = format!("/o/3/k{number}");
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.windows(4).any(|window| window == b"\r\n\r\n") {
            reply.push(stream.read_u8().await.unwrap());
        }
        let mut body = [0; 3];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(body.to_vec(), bytes_of(&path));
    }
}

#[tokio::test]
async fn the_rate_holds_over_all_connections() {
    let rate = 400_000;
    let scenario =
        OriginScenario { rate_bytes_per_s: Some(rate), ..OriginScenario::loopback(SEED) };
    let origin = Running::start(scenario).await;
    let clock = Clock::start();
    let replies = futures::future::join_all((0..4).map(|_| origin.get("/o/100000/p"))).await;
    let took = clock.now();
    assert!(replies.iter().all(|reply| reply.body.len() == 100_000 && reply.whole));
    // All but the first slice had to wait for its turn.
    let least = Duration::from_secs_f64((400_000.0 - 20_000.0) / rate as f64);
    assert!(took >= least, "400 kB took {took:?}, at least {least:?} at the rate");
}

#[tokio::test]
async fn a_stop_lets_replies_finish_and_takes_no_new_connection() {
    let origin = Running::plain().await;
    let slow = origin.get("/o/1000/s?stall-at=500&stall-ms=1000");
    let stop = async {
        while origin.stats().await.totals.requests == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        origin.stop.cancel();
    };
    let (reply, ()) = futures::join!(slow, stop);
    assert!(reply.whole && reply.body == bytes_of("/o/1000/s"));
    assert!(origin.tasks.finish(Duration::from_secs(30)).await, "the origin ends by itself");
    assert!(TcpStream::connect(origin.address).await.is_err());
}
