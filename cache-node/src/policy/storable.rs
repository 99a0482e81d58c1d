//! What a shared cache may store (RFC 9111 section 3), and what Shoal declines beyond that.
//!
//! Invariants: a stored response is complete, can be reused at least once (fresh, stale or
//! validated) and belongs to nobody in particular. Stricter than the RFC: no `Set-Cookie` unless
//! its site says so, no `Vary: *`, no reuse of a status without stated freshness unless it is `200` with a validator. The rule of thumb: when in doubt, pass it through.

use http::header::SET_COOKIE;
use http::{HeaderMap, Method, StatusCode};
use shoal_proto::Freshness;
use shoal_proto::limits::{HEADER_BLOCK_BYTES_MAX, HEADERS_MAX};

use super::choices::SetCookie;
use super::directives::ResponseDirectives;
use super::freshness::{Times, explicit_lifetime_ms, freshness, has_validator};
use super::rules::Rules;
use super::site::Site;
use super::vary;

/// What matters of the request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Its method.
    pub method: &'a Method,
    /// It carried `Authorization`.
    pub authorized: bool,
}

/// What matters of the response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end headers.
    pub headers: &'a HeaderMap,
    /// Its body's length in bytes, where known.
    pub length: Option<u64>,
    /// When it was asked for and came.
    pub times: Times,
}

/// Why a response is passed through only.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotStorable {
    /// Only `GET` is stored.
    #[error("method")]
    Method,
    /// `1xx`, `206`, `304`, or not understood where `must-understand` asks for it.
    #[error("status")]
    Status,
    /// `no-store`.
    #[error("no-store")]
    NoStore,
    /// `private`.
    #[error("private")]
    Private,
    /// The request had credentials, and nothing allows to reuse the response.
    #[error("authorization")]
    Authorization,
    /// It sets a cookie.
    #[error("set-cookie")]
    SetCookie,
    /// It varies by more than request headers.
    #[error("vary")]
    Vary,
    /// Neither freshness nor validator, stale windows or any other hope of reuse.
    #[error("no freshness")]
    NeverReusable,
    /// The body is longer than the site caches.
    #[error("too large")]
    TooLarge,
    /// More headers than are kept.
    #[error("headers too large")]
    HeadersTooLarge,
}

/// Whether the response may be stored, once its body is complete.
///
/// # Errors
/// The first reason not to.
pub fn storable(
    request: RequestFacts<'_>,
    response: ResponseFacts<'_>,
    site: &Site,
) -> Result<(), NotStorable> {
    let rules = site.rules.of_status(response.status);
    let directives = ResponseDirectives::of(response.headers, &rules);
    // RFC 9111 section 3: "the request method is understood by the cache".
    if request.method != Method::GET {
        return Err(NotStorable::Method);
    }
    status_is_storable(response.status, &directives)?;
    if directives.private {
        return Err(NotStorable::Private);
    }
    // RFC 9111 section 3.5.
    if request.authorized && !directives.allows_authorized {
        return Err(NotStorable::Authorization);
    }
    // RFC 9111 section 7.3 warns of it, RFC 6265 section 8 of what a cookie can do.
    let passes = site.rules.set_cookie == SetCookie::Pass;
    if passes && response.headers.contains_key(SET_COOKIE) {
        return Err(NotStorable::SetCookie);
    }
    if vary::is_unbounded(response.headers) {
        return Err(NotStorable::Vary);
    }
    if !reusable(response, &rules) {
        return Err(NotStorable::NeverReusable);
    }
    if response.length.is_some_and(|length| length > site.max_object_bytes) {
        return Err(NotStorable::TooLarge);
    }
    let block: usize = response.headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    // One more is added for a variant's mark.
    if response.headers.len() >= HEADERS_MAX || block > HEADER_BLOCK_BYTES_MAX {
        return Err(NotStorable::HeadersTooLarge);
    }
    Ok(())
}

fn status_is_storable(
    status: StatusCode,
    directives: &ResponseDirectives,
) -> Result<(), NotStorable> {
    let partial = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    if status.is_informational() || partial {
        return Err(NotStorable::Status);
    }
    // RFC 9111 section 5.2.2.3: it replaces `no-store` where the status is understood.
    if directives.must_understand {
        return if is_understood(status) { Ok(()) } else { Err(NotStorable::Status) };
    }
    if directives.no_store { Err(NotStorable::NoStore) } else { Ok(()) }
}

/// Final statuses of RFC 9110 section 15 whose caching needs nothing special.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

fn reusable(response: ResponseFacts<'_>, rules: &Rules) -> bool {
    let facts = freshness(response.headers, response.times, rules);
    // A conditional request is evaluated against success alone (RFC 9110 section 13.2.1).
    let ok = response.status == StatusCode::OK;
    if ok && has_validator(response.headers) {
        return true;
    }
    let stated = explicit_lifetime_ms(response.headers, response.times, rules).is_some();
    (ok || stated) && (fresh_once(&facts) || stale_once(&facts))
}

fn fresh_once(facts: &Freshness) -> bool {
    !facts.validate_always && facts.lifetime_ms > facts.initial_age_ms
}

fn stale_once(facts: &Freshness) -> bool {
    !facts.never_stale && (facts.stale_while_revalidate_ms > 0 || facts.stale_if_error_ms > 0)
}

#[cfg(test)]
#[path = "storable_tests.rs"]
mod tests;
