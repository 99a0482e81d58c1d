//! What is stored and what is not, case by case.

use std::sync::Arc;

use http::HeaderValue;

use super::super::site::Sites;
use super::*;
use crate::policy::headers_tests::headers;

const TIMES: Times = Times { request_ms: 784_111_777_000, response_ms: 784_111_777_000 };

fn site() -> Arc<Site> {
    let text = "name = \"a\"\nhosts = [\"*\"]\norigin = \"http://o\"\nmax_object_bytes = 1000";
    Sites::new(vec![toml::from_str(text).unwrap()]).unwrap().get("a").unwrap()
}

fn verdict(status: u16, lines: &str) -> Result<(), NotStorable> {
    judge(Method::GET, false, status, lines)
}

fn judge(method: Method, authorized: bool, status: u16, lines: &str) -> Result<(), NotStorable> {
    let headers = headers(lines);
    let status = StatusCode::from_u16(status).unwrap();
    let response = ResponseFacts { status, headers: &headers, length: Some(1000), times: TIMES };
    storable(RequestFacts { method: &method, authorized }, response, &site())
}

#[test]
fn stated_freshness_makes_any_final_status_storable() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 404, 410, 499, 500, 503, 599, 999] {
        assert_eq!(verdict(status, "cache-control: max-age=60"), Ok(()), "{status}");
        assert_eq!(verdict(status, ""), Err(NotStorable::NeverReusable), "{status}");
    }
    for status in [206, 304] {
        assert_eq!(verdict(status, "cache-control: max-age=60"), Err(NotStorable::Status));
    }
}

#[test]
fn a_validator_is_enough_for_200_alone() {
    for lines in [
        "etag: \"1\"",
        "etag: W/\"1\"",
        "last-modified: Sun, 06 Nov 1994 08:49:37 GMT",
        "etag: \"1\" | cache-control: no-cache",
        "etag: \"1\" | cache-control: max-age=0",
        "etag: \"1\" | expires: 0",
    ] {
        assert_eq!(verdict(200, lines), Ok(()), "{lines}");
        for status in [201, 202, 404, 403, 502, 503, 504] {
            assert_eq!(verdict(status, lines), Err(NotStorable::NeverReusable), "{lines}");
        }
    }
    assert_eq!(verdict(200, "last-modified: yesterday"), Err(NotStorable::NeverReusable));
}

#[test]
fn what_can_never_be_reused_is_not_kept() {
    for lines in [
        "cache-control: max-age=0",
        "cache-control: max-age=-5",
        "cache-control: max-age=60, no-cache",
        "cache-control: max-age=60 | age: 60",
        "cache-control: public",
        "expires: 0",
        "cache-control: s-maxage=0, stale-if-error=60",
    ] {
        assert_eq!(verdict(200, lines), Err(NotStorable::NeverReusable), "{lines}");
    }
    for lines in [
        "cache-control: max-age=0, stale-while-revalidate=60",
        "cache-control: max-age=0, stale-if-error=60",
        "expires: Sun, 06 Nov 1994 08:49:38 GMT",
    ] {
        assert_eq!(verdict(200, lines), Ok(()), "{lines}");
    }
}

#[test]
fn private_and_no_store_are_never_stored() {
    for control in
        ["no-store, max-age=60", "max-age=60, No-Store", "NO-STORE", "max-age=60, no-store=\"x\""]
    {
        let lines = format!("etag: \"1\" | cache-control: {control}");
        assert_eq!(verdict(200, &lines), Err(NotStorable::NoStore), "{control}");
    }
    for control in ["private, max-age=60", "s-maxage=60, Private", "private=\"x\", public"] {
        let lines = format!("cache-control: {control}");
        assert_eq!(verdict(200, &lines), Err(NotStorable::Private), "{control}");
    }
    let lines = "cache-control: max-age=60 | cache-control: no-store";
    assert_eq!(verdict(200, lines), Err(NotStorable::NoStore), "on a second line");
    let lines = "cache-control: max-age=60 | cdn-cache-control: private";
    assert_eq!(verdict(200, lines), Err(NotStorable::Private));
    let lines = "cache-control: no-store | cdn-cache-control: max-age=60";
    assert_eq!(verdict(200, lines), Ok(()));
}

#[test]
fn must_understand_outweighs_no_store_where_the_status_is_known() {
    let control = "cache-control: max-age=60, no-store, must-understand";
    assert_eq!(verdict(200, control), Ok(()));
    assert_eq!(verdict(599, control), Err(NotStorable::Status));
    assert_eq!(
        verdict(599, "cache-control: max-age=60, must-understand"),
        Err(NotStorable::Status)
    );
}

#[test]
fn credentialed_responses_need_permission() {
    let judge = |control: &str| {
        judge(Method::GET, true, 200, &format!("etag: \"1\" | cache-control: {control}"))
    };
    for control in ["max-age=60", "no-cache", "proxy-revalidate, max-age=60", "public=1"] {
        assert_eq!(judge(control), Err(NotStorable::Authorization), "{control}");
    }
    for control in ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
        assert_eq!(judge(control), Ok(()), "{control}");
    }
    assert_eq!(judge("public, private"), Err(NotStorable::Private));
}

#[test]
fn methods_other_than_get_are_not_stored() {
    for method in [Method::HEAD, Method::POST, Method::OPTIONS, Method::PUT] {
        let found = judge(method, false, 200, "cache-control: max-age=60");
        assert_eq!(found, Err(NotStorable::Method));
    }
}

#[test]
fn cookies_and_variants_pass_through() {
    let fresh = "cache-control: max-age=60, public";
    let with = |line: &str| verdict(200, &format!("{fresh} | {line}"));
    assert_eq!(with("set-cookie: a=b"), Err(NotStorable::SetCookie));
    for vary in ["*", ", *", "accept, *", "a b", "accept | vary: *", " | vary: *"] {
        assert_eq!(with(&format!("vary: {vary}")), Err(NotStorable::Vary), "{vary}");
    }
    for vary in ["", " , ", ",", "accept-encoding", "accept, origin | vary: x"] {
        assert_eq!(with(&format!("vary: {vary}")), Ok(()), "{vary:?}");
    }
    assert_eq!(with("content-range: garbage"), Ok(()), "a 200 stays a 200");
}

#[test]
fn sizes_are_limited() {
    let headers = headers("cache-control: max-age=60");
    let request = RequestFacts { method: &Method::GET, authorized: false };
    let with = |headers: &HeaderMap, length| {
        let response = ResponseFacts { status: StatusCode::OK, headers, length, times: TIMES };
        storable(request, response, &site())
    };
    assert_eq!(with(&headers, None), Ok(()));
    assert_eq!(with(&headers, Some(1001)), Err(NotStorable::TooLarge));
    let mut many = headers.clone();
    for _ in 0..HEADERS_MAX {
        many.append("x", HeaderValue::from_static("1"));
    }
    assert_eq!(with(&many, None), Err(NotStorable::HeadersTooLarge));
    let mut large = headers;
    let value = "v".repeat(HEADER_BLOCK_BYTES_MAX);
    large.insert("x", HeaderValue::from_str(&value).unwrap());
    assert_eq!(with(&large, None), Err(NotStorable::HeadersTooLarge));
}
