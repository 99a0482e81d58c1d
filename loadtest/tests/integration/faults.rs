//! Query parameters that bend one reply, as integration tests of a cache use them.

use std::time::{Duration, SystemTime};

use shoal_loadtest::clock::{self, Clock};

use crate::support::{Running, bytes_of};

#[tokio::test]
async fn freshness_is_what_the_query_says() {
    let origin = Running::plain().await;
    let reply = origin.get("/o/10/a?cc=private%2C%20max-age%3D5").await;
    assert_eq!(reply.field("cache-control"), Some("private, max-age=5"));
    let reply = origin.get("/o/10/a?cc=").await;
    assert_eq!(reply.field("cache-control"), None);
    let reply = origin.get("/o/10/a?age=12").await;
    assert_eq!(reply.field("age"), Some("12"));
    assert_eq!(origin.get("/o/10/a?age=abc").await.field("age"), Some("abc"));
}

#[tokio::test]
async fn expires_takes_the_place_of_cache_control() {
    let origin = Running::plain().await;
    for (seconds, ahead) in [("100", true), ("-100", false)] {
        let reply = origin.get(&format!("/o/10/a?expires={seconds}")).await;
        assert_eq!(reply.field("cache-control"), None);
        let expires: SystemTime =
            httpdate::parse_http_date(reply.field("expires").unwrap()).unwrap();
        assert_eq!(expires > clock::wall(), ahead, "{seconds}");
    }
}

#[tokio::test]
async fn validators_can_be_left_out() {
    let origin = Running::plain().await;
    let reply = origin.get("/o/10/a?no-validators=1").await;
    assert_eq!((reply.field("etag"), reply.field("last-modified")), (None, None));
    let reply = origin.ask("GET", "/o/10/a?no-validators=1", &[("If-None-Match", "*")]).await;
    assert_eq!(reply.status, 200, "there is nothing to compare");
}

#[tokio::test]
async fn versions_differ_in_bytes_etag_and_date() {
    let origin = Running::plain().await;
    let one = origin.get("/o/100/a?version=1").await;
    let two = origin.get("/o/100/a?version=2").await;
    assert_eq!(one.body, bytes_of("/o/100/a?version=1"));
    assert_ne!(one.body, two.body);
    for name in ["etag", "last-modified"] {
        assert_ne!(one.field(name), two.field(name), "{name}");
    }
    let etag = one.field("etag").unwrap();
    let reply = origin.ask("GET", "/o/100/a?version=2", &[("If-None-Match", etag)]).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn statuses_carry_the_object_where_a_body_may_be() {
    let origin = Running::plain().await;
    for status in [200, 203, 301, 404, 410, 500, 503, 599] {
        let reply = origin.get(&format!("/o/10/a?status={status}")).await;
        assert_eq!((reply.status, reply.body), (status, bytes_of("/o/10/a")));
    }
    let reply = origin.ask("GET", "/o/10/a?status=404", &[("Range", "bytes=0-1")]).await;
    assert_eq!((reply.status, reply.body.len()), (404, 10));
    assert_eq!(origin.get("/o/10/a?status=204").await.body, b"");
    assert_eq!(origin.get("/o/10/a?status=99").await.status, 400);
}

#[tokio::test]
async fn cookies_and_vary() {
    let origin = Running::plain().await;
    let reply = origin.get("/o/10/a?set-cookie=1").await;
    assert!(reply.field("set-cookie").unwrap().starts_with("session="));
    let path = "/o/10/a?vary=x-test-lang";
    let reply = origin.ask("GET", path, &[("X-Test-Lang", "de")]).await;
    assert_eq!(
        (reply.field("vary"), reply.field("x-varied-on")),
        (Some("x-test-lang"), Some("de"))
    );
    assert_eq!(origin.get(path).await.field("x-varied-on"), None);
}

#[tokio::test]
async fn a_body_without_length_is_chunked_and_whole() {
    let origin = Running::plain().await;
    let path = "/o/200000/n?no-length=1";
    let reply = origin.get(path).await;
    assert_eq!(reply.field("content-length"), None);
    assert_eq!(reply.field("transfer-encoding"), Some("chunked"));
    assert!(reply.whole);
    assert_eq!(reply.body, bytes_of(path));
}

#[tokio::test]
async fn a_cut_sends_so_many_bytes_of_the_declared_length() {
    let origin = Running::plain().await;
    for cut in [0, 1, 65_536, 150_000] {
        let path = format!("/o/200000/c{cut}?cut={cut}");
        let reply = origin.get(&path).await;
        assert_eq!(reply.field("content-length"), Some("200000"), "{cut}");
        assert!(!reply.whole);
        assert_eq!(reply.body, bytes_of(&path)[..cut], "{cut}");
        assert_eq!(origin.stats().await.paths[&path].body_bytes, cut as u64);
    }
    let chunked = origin.get("/o/200000/c?cut=100000&no-length=1").await;
    assert!(!chunked.whole, "a cut is visible without a length too");
    assert_eq!(chunked.body.len(), 100_000);
    assert!(origin.get("/o/10/c?cut=10").await.whole, "there is nothing to cut after the end");
}

#[tokio::test]
async fn waits_come_where_they_are_asked_for() {
    let origin = Running::plain().await;
    let clock = Clock::start();
    origin.get("/o/10/d?delay-ms=150").await;
    assert!(clock.now() >= Duration::from_millis(150));
    let clock = Clock::start();
    let reply = origin.get("/o/100000/d?stall-at=70000&stall-ms=150").await;
    assert!(clock.now() >= Duration::from_millis(150));
    assert_eq!(reply.body, bytes_of("/o/100000/d"));
}
