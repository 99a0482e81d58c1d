//! What a response says: headers of the stored or passed one, `Age`, `Via`, `Cache-Status`
//! (RFC 9211), and the answers made here (`304`, `412`, `416`, errors).
//!
//! Invariants: `Date`, `Expires` and unknown headers go out as the origin sent them; hop-by-hop
//! ones never; lengths are declared exactly where they are known.

use std::ops::Range;

use http::header::{
    AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, TRAILER, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use shoal_proto::ObjectHead;

use super::body::ClientBody;
use super::multipart::Multipart;
use super::request::Asked;
use super::stream::Abort;
use crate::fetch::{FetchedObject, Hit, Lookup, OriginResponse};
use crate::metrics::Tier;
use crate::policy::conditional::{self, Preconditions};
use crate::policy::doors::takes_trailers;
use crate::policy::hop;
use crate::policy::range::{self, Part};
use crate::policy::site::Site;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Longest time that `Cache-Status` writes, in seconds: a Structured Field integer.
const TTL_S_MAX: u64 = 999_999_999_999_999;

/// A response, and what is counted of it.
pub(super) struct Reply {
    pub(super) response: Response<ClientBody>,
    pub(super) tier: Tier,
    /// An error of 500 or more that was made here.
    pub(super) failed: bool,
}

/// Why a request went to the origin, in the words of RFC 9211 section 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    Miss,
    Method,
    Request,
    Bypass,
}

impl Forwarded {
    fn name(self) -> &'static str {
        match self {
            Self::Miss => "uri-miss",
            Self::Method => "method",
            Self::Request => "request",
            Self::Bypass => "bypass",
        }
    }
}

impl Reply {
    fn new(status: StatusCode, headers: HeaderMap, body: ClientBody, tier: Tier) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Self { response, tier, failed: false }
    }

    /// A request that is not looked up or forwarded at all.
    pub(super) fn refused(status: StatusCode, detail: &'static str) -> Self {
        Self::made_here(status, &format!("shoal; detail=\"{detail}\""), detail)
    }

    /// A method that the site does not let through.
    pub(super) fn not_allowed(methods: &[Method]) -> Self {
        let mut reply = Self::refused(StatusCode::METHOD_NOT_ALLOWED, "method");
        let names: Vec<_> = methods.iter().map(Method::as_str).collect();
        insert(reply.response.headers_mut(), ALLOW, &names.join(", "));
        reply
    }

    /// The origin has switched protocols, and so does this connection.
    pub(super) fn switched(headers: HeaderMap) -> Self {
        let mut headers = headers;
        append(&mut headers, CACHE_STATUS, "shoal; fwd=bypass; fwd-status=101; detail=tunnel");
        Self::new(StatusCode::SWITCHING_PROTOCOLS, headers, ClientBody::empty(), Tier::Pass)
    }

    /// A document of the edge's own.
    pub(super) fn document(status: StatusCode, body: &serde_json::Value) -> Self {
        let text = format!("{body}\n");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        append(&mut headers, CACHE_STATUS, "shoal; detail=purge");
        Self::new(status, headers, ClientBody::text(text), Tier::Edge)
    }

    /// With what the site does to headers; those that carry tags end here.
    pub(super) fn edited(mut self, site: &Site) -> Self {
        let headers = self.response.headers_mut();
        for name in &site.rules.tags {
            headers.remove(name);
        }
        site.response_headers.apply(headers);
        self
    }

    /// A request that was forwarded in vain.
    pub(super) fn failed(status: StatusCode, forwarded: Forwarded, detail: &'static str) -> Self {
        let cache_status = format!("shoal; fwd={}; detail=\"{detail}\"", forwarded.name());
        Self::made_here(status, &cache_status, detail)
    }

    fn made_here(status: StatusCode, cache_status: &str, detail: &str) -> Self {
        let text = format!("{status}: {detail}\n");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        append(&mut headers, CACHE_STATUS, cache_status);
        let failed = status.is_server_error();
        let body = ClientBody::text(text);
        Self { failed, ..Self::new(status, headers, body, Tier::Edge) }
    }

    /// For clients of HTTP/1.0, as [`ClientBody::aborting`].
    pub(super) fn aborting(mut self, abort: Option<Abort>) -> Self {
        if let Some(abort) = abort {
            self.response = self.response.map(|body| body.aborting(abort));
        }
        self
    }
}

fn status_of(head: &ObjectHead) -> StatusCode {
    StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY)
}

/// What is said of an object beside its own headers.
fn finish(headers: &mut HeaderMap, head: &ObjectHead, found: (Tier, Lookup), now_ms: u64) {
    set_age(headers, head, found, now_ms);
    append(headers, VIA, "1.1 shoal");
    append(headers, CACHE_STATUS, &cache_status(head, found, now_ms));
}

/// The headers of a whole hit in memory.
pub(super) fn headers_of_hit(head: &ObjectHead, now_ms: u64) -> HeaderMap {
    let mut headers = hop::from_stored(&head.headers);
    finish(&mut headers, head, (Tier::Memory, Lookup::Hit), now_ms);
    declare(&mut headers, status_of(head), head.length);
    headers
}

/// The answer from an object in memory that is asked for whole, with those headers.
pub(super) fn whole(method: &Method, hit: &Hit, headers: HeaderMap) -> Reply {
    let status = status_of(hit.manifest().head());
    let body = match *method == Method::HEAD || is_bodyless(status) {
        true => ClientBody::empty(),
        false => ClientBody::whole(hit.body().clone()),
    };
    Reply::new(status, headers, body, Tier::Memory)
}

/// What an object is asked for with.
pub(super) type Asking<'a> = (&'a Method, &'a HeaderMap);

/// The answer from an object: whole, a range of it, or `304`.
pub(super) fn object(asked: Asking<'_>, object: FetchedObject, now_ms: u64) -> Reply {
    let head = std::sync::Arc::clone(&object.head);
    let (tier, lookup) = (object.tier, object.lookup);
    let status = status_of(&head);
    let finish = |headers: &mut HeaderMap| finish(headers, &head, (tier, lookup), now_ms);
    let judged = match conditional::preconditions(asked.1, &head) {
        Preconditions::Hold => None,
        Preconditions::NotModified => Some(StatusCode::NOT_MODIFIED),
        Preconditions::Failed => Some(StatusCode::PRECONDITION_FAILED),
    };
    if let Some(status) = judged {
        let mut headers = conditional::not_modified_headers(&head.headers);
        finish(&mut headers);
        if status == StatusCode::PRECONDITION_FAILED {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        return Reply::new(status, headers, ClientBody::empty(), Tier::Edge);
    }
    let mut headers = hop::from_stored(&head.headers);
    finish(&mut headers);
    match (part(asked, &head), head.length) {
        (Part::Bytes(wanted), Some(length)) => {
            let count = wanted.end - wanted.start;
            headers.insert(CONTENT_LENGTH, HeaderValue::from(count));
            insert(&mut headers, CONTENT_RANGE, &range::content_range(&wanted, length));
            let body = ClientBody::stream(object.body(Some(wanted)), Some(count));
            Reply::new(StatusCode::PARTIAL_CONTENT, headers, body, tier)
        }
        (Part::Several(ranges), Some(length)) => several(object, headers, (ranges, length)),
        (Part::Unsatisfiable, Some(length)) => {
            let mut headers = conditional::not_modified_headers(&head.headers);
            finish(&mut headers);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            insert(&mut headers, CONTENT_RANGE, &range::unsatisfied(length));
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            Reply::new(status, headers, ClientBody::empty(), Tier::Edge)
        }
        (_, length) => {
            declare(&mut headers, status, length);
            let body = if *asked.0 == Method::HEAD || is_bodyless(status) {
                ClientBody::empty()
            } else {
                ClientBody::stream(object.body(None), length)
            };
            Reply::new(status, headers, body, tier)
        }
    }
}

/// `206` with a part for each range.
fn several(
    object: FetchedObject,
    mut headers: HeaderMap,
    (ranges, length): (Vec<Range<u64>>, u64),
) -> Reply {
    let tier = object.tier;
    let part_type = headers.get(CONTENT_TYPE).cloned();
    let Some(parts) = Multipart::new(object, (ranges, length), part_type.as_ref()) else {
        return Reply::refused(StatusCode::SERVICE_UNAVAILABLE, "no randomness");
    };
    insert(&mut headers, CONTENT_TYPE, &parts.content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(parts.length));
    let body = ClientBody::stream(parts.body, Some(parts.length));
    Reply::new(StatusCode::PARTIAL_CONTENT, headers, body, tier)
}

/// RFC 9110 section 14.2: ranges are for `GET`, of a success, once other preconditions hold.
fn part((method, headers): Asking<'_>, head: &ObjectHead) -> Part {
    let mut ranges = headers.get_all(RANGE).iter();
    let wanted = ranges.next().map(HeaderValue::as_bytes);
    let ignored = *method != Method::GET
        || head.status != 200
        || ranges.next().is_some()
        || !conditional::range_applies(headers, head);
    if ignored { Part::Whole } else { range::select(wanted, head.length) }
}

/// The origin's own response.
pub(super) fn passed(asked: &Asked, response: OriginResponse, forwarded: Forwarded) -> Reply {
    let OriginResponse { status, mut headers, length, body, trailers } = response;
    let word = forwarded.name();
    let said = format!("shoal; fwd={word}; fwd-status={}; detail=pass", status.as_u16());
    append(&mut headers, VIA, "1.1 shoal");
    append(&mut headers, CACHE_STATUS, &said);
    declare(&mut headers, status, length);
    let body = if asked.method == Method::HEAD || is_bodyless(status) {
        ClientBody::empty()
    } else if takes_trailers(&asked.headers) {
        let names = trailers.declared().filter(|_| length.is_none());
        headers.extend(names.map(|names| (TRAILER, names.clone())));
        ClientBody::stream(body, length).trailed(trailers)
    } else {
        ClientBody::stream(body, length)
    };
    Reply::new(status, headers, body, Tier::Pass)
}

fn is_bodyless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// `Content-Length`, where there may be one (RFC 9110 section 8.6).
fn declare(headers: &mut HeaderMap, status: StatusCode, length: Option<u64>) {
    headers.remove(CONTENT_LENGTH);
    if let Some(length) = length.filter(|_| !is_bodyless(status)) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// `Age` says that a response was not made or validated for this request (RFC 9111 section 5.1): a
/// response straight from the origin keeps the `Age` that it came with, growing.
fn set_age(headers: &mut HeaderMap, head: &ObjectHead, found: (Tier, Lookup), now_ms: u64) {
    let straight = match found {
        (Tier::Origin, Lookup::Miss | Lookup::Replaced) | (_, Lookup::Revalidated) => true,
        (_, Lookup::Hit | Lookup::Stale | Lookup::Miss | Lookup::Collapsed | Lookup::Replaced) => {
            false
        }
    };
    if !straight || headers.contains_key(AGE) {
        headers.insert(AGE, HeaderValue::from(head.freshness.age_ms(now_ms) / 1_000));
    }
}

fn cache_status(head: &ObjectHead, (tier, lookup): (Tier, Lookup), now_ms: u64) -> String {
    let detail = tier.name();
    match lookup {
        Lookup::Hit | Lookup::Stale => {
            format!("shoal; hit; ttl={}; detail={detail}", ttl_s(head, now_ms))
        }
        Lookup::Miss => format!("shoal; fwd=uri-miss; stored; detail={detail}"),
        Lookup::Collapsed => format!("shoal; fwd=uri-miss; collapsed; detail={detail}"),
        Lookup::Revalidated => format!("shoal; fwd=stale; fwd-status=304; detail={detail}"),
        Lookup::Replaced => {
            let status = head.status;
            format!("shoal; fwd=stale; fwd-status={status}; stored; detail={detail}")
        }
    }
}

/// Seconds of freshness left; negative when stale.
fn ttl_s(head: &ObjectHead, now_ms: u64) -> String {
    let age_ms = head.freshness.age_ms(now_ms);
    let lifetime_ms = head.freshness.lifetime_ms;
    let seconds = lifetime_ms.abs_diff(age_ms) / 1_000;
    let sign = if age_ms > lifetime_ms && seconds > 0 { "-" } else { "" };
    format!("{sign}{}", seconds.min(TTL_S_MAX))
}

/// Adds a member at a list header's end: the one nearest to the client (RFC 9211 section 2, RFC
/// 9110 section 7.6.3).
fn append(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    let mut list = Vec::new();
    for line in headers.get_all(&name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(member.as_bytes());
    // Members joined by commas are a valid value.
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
