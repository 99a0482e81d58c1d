//! What the edge asks of [`super::Fetcher`], and what it gets.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Method};
use shoal_proto::{ManifestId, ObjectHead, ObjectKey};

use crate::metrics::Tier;
use crate::origin::OriginError;
pub use crate::origin::{
    BodyError, BodyStream, Duplex, Interim, Interims, OriginRequest, OriginResponse, RequestBody,
    Switched, Trailers,
};
use crate::policy::directives::RequestDirectives;
use crate::policy::parts::Part;
use crate::policy::site::Site;
use crate::store::Hit;

/// A request for a cacheable response (always answered from a `GET`; `HEAD` differs at the edge).
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The site that the host selected.
    pub site: Arc<Site>,
    /// The key.
    pub key: ObjectKey,
    /// `GET` or `HEAD`.
    pub method: Method,
    /// Path and query, exactly as the client sent them.
    pub target: String,
    /// The authority that the client asked, for `Host` where the site wants it.
    pub client_authority: String,
    /// End-to-end request headers for the origin, without conditionals and `Range`.
    pub headers: HeaderMap,
    /// The client's `Authorization` was present (RFC 9111 section 3.5).
    pub authorized: bool,
    /// What the client asks of a cache, as far as the site listens to it.
    pub client: RequestDirectives,
    /// The client's `Range`, where it has one that may count.
    pub range: Option<HeaderValue>,
    /// The part that is asked for of what the URL names; its key is that of the part then.
    pub part: Option<Arc<Part>>,
    /// Nothing but the whole is of use.
    pub whole: bool,
    /// An object under this manifest is of no use.
    pub avoid: Option<ManifestId>,
    /// Where the origin's informational responses go, if anybody waits for them.
    pub interims: Option<Interims>,
}

/// What a request asks of what is in memory, its headers as the client sent them.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The key.
    pub key: ObjectKey,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// What the client asks of a cache, as far as the site listens to it.
    pub client: &'a RequestDirectives,
    /// Unix time in milliseconds.
    pub now_ms: u64,
}

/// What a fetch came to.
#[derive(Debug)]
pub enum Fetched {
    /// A stored object, or one being filled.
    Object(FetchedObject),
    /// The origin's answer, passed through uncached.
    Pass(OriginResponse),
}

/// How the cache came by the object: the words of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Fresh here: `hit`.
    Hit,
    /// Stale, served under `stale-if-error` or its like: `hit` with a negative `ttl`.
    Stale,
    /// Not here, found elsewhere in the cluster or at the origin: `fwd=uri-miss`.
    Miss,
    /// As [`Lookup::Miss`], waiting with others for one fill: `fwd=uri-miss; collapsed`.
    Collapsed,
    /// Stale here, validated: `fwd=stale; fwd-status=304`.
    Revalidated,
    /// Stale here, replaced: `fwd=stale`.
    Replaced,
}

/// An object's head and the promise of its body.
pub struct FetchedObject {
    /// Status, headers, length, freshness.
    pub head: Arc<ObjectHead>,
    /// Where the body comes from.
    pub tier: Tier,
    /// How it was found.
    pub lookup: Lookup,
    body: Source,
}

enum Source {
    Whole(Bytes),
    Streams(Box<dyn Fn(Option<Range<u64>>) -> BodyStream + Send + Sync>),
}

impl From<Hit> for FetchedObject {
    fn from(hit: Hit) -> Self {
        let head = hit.manifest().shared_head();
        let body = Source::Whole(hit.body().clone());
        Self { head, tier: Tier::Memory, lookup: Lookup::Hit, body }
    }
}

impl FetchedObject {
    /// An object whose body, or the given byte range of it, `body` will stream.
    pub fn new(
        head: Arc<ObjectHead>,
        tier: Tier,
        lookup: Lookup,
        body: impl Fn(Option<Range<u64>>) -> BodyStream + Send + Sync + 'static,
    ) -> Self {
        Self { head, tier, lookup, body: Source::Streams(Box::new(body)) }
    }

    /// The body, or the bytes of `range` (half open, within the length). A stream that ends early
    /// always ends in an error: the client's connection is then cut.
    pub fn body(&self, range: Option<Range<u64>>) -> BodyStream {
        match &self.body {
            Source::Streams(body) => body(range),
            Source::Whole(whole) => {
                let range = range.unwrap_or(0..whole.len() as u64);
                let part = whole.slice(range.start as usize..range.end as usize);
                Box::pin(stream::iter([Ok(part)]))
            }
        }
    }
}

impl std::fmt::Debug for FetchedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchedObject")
            .field("head", &self.head)
            .field("tier", &self.tier)
            .field("lookup", &self.lookup)
            .finish_non_exhaustive()
    }
}

/// Why there is no response at all.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    /// The origin could not be reached or broke off before its head: 502.
    #[error("origin {origin} could not be reached: {reason}")]
    Unreachable {
        /// The origin's base URL.
        origin: String,
        /// What went wrong.
        reason: String,
    },
    /// The origin did not answer in time: 504.
    #[error("origin {origin} sent no response head within {waited_ms} ms")]
    Timeout {
        /// The origin's base URL.
        origin: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The origin's answer cannot be trusted (framing, lengths): 502.
    #[error("origin {origin} sent a malformed response: {reason}")]
    Malformed {
        /// The origin's base URL.
        origin: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A part of a version was wanted that the origin does not have any more: 502.
    #[error("origin {origin} has another version by now, or no parts of it")]
    OtherVersion {
        /// The origin's base URL.
        origin: String,
    },
    /// Nothing stored here answers, and the client wants nothing else: 504.
    #[error("nothing is stored here, and the client asked for nothing else")]
    NotCached,
    /// The node is shutting down: 503.
    #[error("the node is shutting down")]
    Closed,
}

impl From<OriginError> for FetchError {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Unreachable { origin, reason } => Self::Unreachable { origin, reason },
            OriginError::Timeout { origin, waited_ms } => Self::Timeout { origin, waited_ms },
            OriginError::Malformed { origin, reason } => Self::Malformed { origin, reason },
        }
    }
}
