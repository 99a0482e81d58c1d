//! Hits in memory: the answer to most requests, at once and with as little work as possible.
//!
//! What is said here is what the long way through [`super::request`] and [`super::respond`] says.
//! Headers are put together once a second for each object, since `Age` and the `ttl` of
//! `Cache-Status` are in seconds; until then they are copied.
//!
//! Invariants: no wait, and no lock that is held for longer than to copy a pointer or headers;
//! whatever is out of the ordinary takes the long way.

use std::sync::{PoisonError, RwLock};

use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE, UPGRADE,
};
use http::{HeaderMap, Method, Request};
use http_body::Body;
use shoal_proto::ObjectHead;

use super::request::{Address, address};
use super::respond::{self, Reply};
use super::{Edge, ReadPath};
use crate::clock;
use crate::fetch::{FetchedObject, Question};
use crate::policy::directives::RequestDirectives;
use crate::policy::key::object_key;

/// With one of these the answer may be another than the whole.
const CONDITIONS: [HeaderName; 5] =
    [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE];

/// The answer, if it is at hand.
pub(super) fn reply<R: ReadPath, B: Body>(
    edge: &Edge<R>,
    request: &Request<B>,
    secure: bool,
) -> Option<Reply> {
    let (method, headers) = (request.method(), request.headers());
    let reads = *method == Method::GET || *method == Method::HEAD;
    if !reads || !request.body().is_end_stream() || headers.contains_key(UPGRADE) {
        return None;
    }
    let Address { site, authority, target } = address(edge, request).ok()?;
    if site.bypass || !site.allows(method) {
        return None;
    }
    let target = site.key.target(&target);
    let url = object_key(&edge.secret, &site, authority, &target);
    let key = site.key.key(&edge.secret, url, headers, secure);
    let client = RequestDirectives::of(headers, site.rules.client_directives);
    let now_ms = clock::unix_ms();
    let hit = edge.read_path.hit(&Question { key, headers, client: &client, now_ms })?;
    let asks_for_all = !CONDITIONS.iter().any(|name| headers.contains_key(name));
    let reply = match hit.note(|_| Said::default()).filter(|_| asks_for_all) {
        Some(said) => {
            let headers = said.now(hit.manifest().head(), now_ms);
            respond::whole(method, &hit, headers)
        }
        None => respond::object((method, headers), FetchedObject::from(hit), now_ms),
    };
    Some(reply.edited(&site))
}

/// What was last said of an object.
#[derive(Default)]
struct Said(RwLock<Option<(Seconds, HeaderMap)>>);

/// Its age, and how far that is from its lifetime: what headers say of them.
type Seconds = (u64, u64);

fn seconds(head: &ObjectHead, now_ms: u64) -> Seconds {
    let age_ms = head.freshness.age_ms(now_ms);
    (age_ms / 1_000, head.freshness.lifetime_ms.saturating_sub(age_ms) / 1_000)
}

impl Said {
    /// The headers of a hit at `now_ms`, when the object is fresh.
    fn now(&self, head: &ObjectHead, now_ms: u64) -> HeaderMap {
        let seconds = seconds(head, now_ms);
        if let Some((of, headers)) = &*self.0.read().unwrap_or_else(PoisonError::into_inner)
            && *of == seconds
        {
            return headers.clone();
        }
        let headers = respond::headers_of_hit(head, now_ms);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((seconds, headers.clone()));
        headers
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_proto::{Freshness, Header, Labels, ObjectKey};

    use super::*;

    fn head() -> ObjectHead {
        let header =
            |name: &str, value: &'static str| Header { name: name.into(), value: value.into() };
        ObjectHead {
            key: ObjectKey::new([1; 32]),
            site: "a".into(),
            status: 200,
            headers: vec![
                header("etag", "\"1\""),
                header("cache-status", "above; hit"),
                header("te", "trailers"),
            ],
            length: Some(5),
            chunk_size: shoal_proto::limits::CHUNK_BYTES_MIN,
            freshness: Freshness {
                response_time_ms: 10_000,
                lifetime_ms: 60_000,
                ..Freshness::default()
            },
            fence_position: 0,
            labels: Labels::default(),
        }
    }

    /// What is copied is what would have been put together, at every moment.
    #[test]
    fn headers_never_lag_behind() {
        let (head, said) = (head(), Said::default());
        for now_ms in (10_000..70_000).step_by(250) {
            let object = FetchedObject::new(
                head.clone().into(),
                crate::metrics::Tier::Memory,
                crate::fetch::Lookup::Hit,
                |_| Box::pin(futures::stream::iter([Ok(Bytes::from_static(b"hello"))])),
            );
            let long = respond::object((&Method::GET, &HeaderMap::new()), object, now_ms);
            assert_eq!(said.now(&head, now_ms), *long.response.headers(), "at {now_ms}");
        }
        let last = said.now(&head, 69_999);
        assert_eq!((&last["age"], &last["content-length"]), (&"59".parse().unwrap(), &5.into()));
        assert_eq!(last["cache-status"], "above; hit, shoal; hit; ttl=0; detail=memory");
    }
}
