//! Large objects that are kept in parts: how the first answer to a range becomes an outline and a
//! part, how a part is filled, and how a response is put together out of parts.
//!
//! What is under the URL's key is a small object, the outline ([`parts`]); each part is looked up,
//! pulled, followed or filled like any object. A response whose first part belongs to another
//! version begins anew before its client has seen anything; one that meets another version later
//! breaks off.

use std::ops::Range;
use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{HeaderMap, Method, StatusCode};
use shoal_proto::limits::CHUNK_BYTES_MIN;
use shoal_proto::wire::v1::follow_failed::Reason;
use shoal_proto::{ChunkHash, ObjectHead};

use super::fencing::Entrance;
use super::flight::Outcome;
use super::job::{Job, Step};
use super::tierless::Word;
use super::types::{
    BodyError, BodyStream, FetchError, FetchRequest, Fetched, FetchedObject, Lookup, OriginResponse,
};
use super::{Fetcher, Found};
use crate::directory::Lease;
use crate::membership::placement;
use crate::metrics::Tier;
use crate::policy::directives::RequestDirectives;
use crate::policy::freshness::Times;
use crate::policy::parts::{self, InParts, Part};
use crate::policy::range;
use crate::policy::resume;
use crate::store::{StoreError, StoredObject};
use crate::transfer::{CopyRequest, FillEntry};

/// Parts that are looked up ahead of the client.
const PARTS_AHEAD: usize = 4;
/// Parts that a node fetches at a time of those that it is to fetch before others do.
const OWN_PARTS_AT_ONCE: usize = 2;

impl FetchRequest {
    /// What the client wants of a whole of that length; none when that is all of it.
    pub(super) fn wanted(&self, length: u64) -> Option<Vec<Range<u64>>> {
        let asked = self.range.as_ref().map(|range| range.as_bytes());
        match range::select(asked, Some(length)) {
            range::Part::Whole => None,
            range::Part::Bytes(range) if range == (0..length) => None,
            range::Part::Bytes(range) => Some(vec![range]),
            range::Part::Several(ranges) => Some(ranges),
            range::Part::Unsatisfiable => Some(Vec::new()),
        }
    }

    /// The request for a part of what this one asks for.
    fn for_part(&self, secret: &[u8; 32], part: Part) -> Self {
        let only_if_cached = self.client.only_if_cached;
        Self {
            key: part.key(secret, &self.key),
            method: Method::GET,
            range: None,
            part: Some(Arc::new(part)),
            whole: false,
            avoid: None,
            // The outline is as young as the client wants it.
            client: RequestDirectives { only_if_cached, ..RequestDirectives::default() },
            interims: None,
            ..self.clone()
        }
    }
}

impl Fetcher {
    /// The response that an outline stands for.
    ///
    /// # Errors
    /// [`FetchError::OtherVersion`] when the first part that is wanted cannot be had any more.
    pub(super) async fn by_parts(
        &self,
        (outline, tier, lookup): (Arc<StoredObject>, Tier, Lookup),
        request: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        let head = Arc::new(parts::whole(outline.manifest().head()));
        let length = head.length.unwrap_or(0);
        let wanted = request.wanted(length).unwrap_or_else(|| vec![0..length; 1]);
        let (mut tier, mut lookup) = (tier, lookup);
        if let (Some(first), true) = (wanted.first(), request.method == Method::GET) {
            let number = parts::covering(first).start;
            let found = self.part(&head, number, request).await?;
            if let (Lookup::Hit, Some((part_tier, part_lookup))) = (lookup, found.origins()) {
                (tier, lookup) = (part_tier, part_lookup);
            }
        }
        let (fetcher, request, whole) = (self.clone(), request.clone(), Arc::clone(&head));
        let body = move |range: Option<Range<u64>>| {
            let range = range.unwrap_or(0..length);
            fetcher.clone().stream(whole.clone(), request.clone(), range)
        };
        Ok(Fetched::Object(FetchedObject::new(head, tier, lookup, body)))
    }

    async fn part(
        &self,
        head: &ObjectHead,
        number: u32,
        request: &FetchRequest,
    ) -> Result<Found, FetchError> {
        let other = || FetchError::OtherVersion { origin: request.site.origin() };
        let part = Part::of(head, number).ok_or_else(other)?;
        let wanted = part.range();
        let mut asked = request.for_part(&self.inner.secret, part);
        let found = self.find(&mut asked).await?;
        let length = found.head().and_then(|head| head.length);
        // Nothing else is ever stored under a part's key; a response that passes through is none.
        if length == Some(wanted.end - wanted.start) { Ok(found) } else { Err(other()) }
    }

    fn stream(self, head: Arc<ObjectHead>, request: FetchRequest, range: Range<u64>) -> BodyStream {
        let numbers = parts::covering(&range);
        // Gone with the stream.
        let read = Arc::new(());
        if request.site.parts == InParts::All && numbers.len() > 2 * PARTS_AHEAD {
            let own = self.own_parts(&head, &request, numbers.clone());
            let ahead = self.clone().ahead(head.clone(), request.clone(), own);
            self.inner.tasks.spawn("parts-ahead", ahead(Arc::downgrade(&read)));
        }
        let pieces = stream::iter(numbers).map(move |number| {
            let _read = &read;
            let (fetcher, head, request) = (self.clone(), head.clone(), request.clone());
            let range = range.clone();
            async move {
                let found = fetcher.part(&head, number, &request).await;
                let found = found.map_err(|error| BodyError(error.to_string()))?;
                let missing = || BodyError("a part of the object is missing".to_owned());
                let part = Part::of(&head, number).ok_or_else(missing)?;
                let bytes = part.range();
                let own = request.for_part(&fetcher.inner.secret, part);
                let within = |at: u64| at.clamp(bytes.start, bytes.end) - bytes.start;
                let wanted = within(range.start)..within(range.end);
                match fetcher.with_backup(found, own) {
                    Fetched::Object(object) => Ok(object.body(Some(wanted))),
                    Fetched::Pass(_) => Err(missing()),
                }
            }
        });
        Box::pin(pieces.buffered(PARTS_AHEAD).try_flatten())
    }
}

impl Fetcher {
    /// Of these parts, those that this node is to fetch before others do.
    fn own_parts(
        &self,
        head: &ObjectHead,
        request: &FetchRequest,
        numbers: Range<u32>,
    ) -> Vec<u32> {
        let view = self.inner.directory.view();
        let me = self.inner.directory.node_id();
        let nodes: Vec<_> = view.nodes_up().map(|member| member.id).collect();
        let own = |number: &u32| {
            let part = Part::of(head, *number).map(|p| p.key(&self.inner.secret, &request.key));
            part.is_some_and(|key| {
                placement::rank(&key, nodes.iter().copied()).first() == Some(&me)
            })
        };
        numbers.filter(own).collect()
    }

    /// Fetches parts ahead of the reader for as long as it reads.
    fn ahead(
        self,
        head: Arc<ObjectHead>,
        request: FetchRequest,
        numbers: Vec<u32>,
    ) -> impl FnOnce(Weak<()>) -> BoxFuture<'static, ()> {
        move |read| {
            let fetched = stream::iter(numbers).map(move |number| {
                let (fetcher, head, request) = (self.clone(), head.clone(), request.clone());
                let read = read.clone();
                async move { fetcher.own_part((&head, number), &request, &read).await }
            });
            Box::pin(fetched.buffer_unordered(OWN_PARTS_AT_ONCE).for_each(|()| async {}))
        }
    }

    async fn own_part(
        &self,
        (head, number): (&ObjectHead, u32),
        request: &FetchRequest,
        read: &Weak<()>,
    ) {
        if read.strong_count() == 0 {
            return;
        }
        if let Ok(found) = self.part(head, number, request).await {
            // What went wrong here, the reader meets in its turn.
            drop(found.whole().await);
        }
    }
}

impl Job {
    /// What to ask the origin for, beside validators.
    pub(super) fn question(&mut self) -> HeaderMap {
        if let Some(part) = &self.request.part {
            return resume::headers(&part.whole(self.part_head(part, 0, 0)), &part.range());
        }
        let first = || parts::first_question(self.request.range.as_ref());
        self.asked = match self.request.site.parts {
            _ if self.request.whole => None,
            InParts::Off => None,
            InParts::Ranges => first(),
            InParts::All => first().or(Some(0..parts::PART_BYTES)),
        };
        self.asked.as_ref().map(parts::question).unwrap_or_default()
    }

    fn part_head(&self, part: &Part, fence_position: u64, response_ms: u64) -> ObjectHead {
        let range = part.range();
        ObjectHead {
            key: self.key(),
            site: self.request.site.name().to_owned(),
            status: StatusCode::OK.as_u16(),
            headers: part.headers(),
            length: Some(range.end - range.start),
            chunk_size: CHUNK_BYTES_MIN,
            freshness: Part::freshness(response_ms),
            fence_position,
            labels: self.labels(&HeaderMap::new()),
        }
    }

    /// The origin was asked for a part of this version; what it answered.
    pub(super) async fn fill_part(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        (word, part): (Word, Arc<Part>),
    ) -> Step {
        let Word { response, times, position } = word;
        let OriginResponse { status, headers, length, .. } = &response;
        let mut head = self.part_head(&part, position, times.response_ms);
        let brought = parts::brings(&part, (*status, headers, *length), head.clone());
        // Tags are those of the response: purges match parts by them as well.
        head.labels = self.labels(headers);
        if !brought || self.whole_of(&response, (head.length, times)).is_none() {
            let origin = self.request.site.origin();
            let error = match status.is_server_error() {
                true => FetchError::Unreachable { origin, reason: format!("status {status}") },
                false => FetchError::OtherVersion { origin },
            };
            entry.ended(Reason::Origin, error.to_string());
            self.fail(error);
            return Step::Landed;
        }
        match self.inner.store.begin(head).await {
            Ok(partial) => self.grow(entry, lease, (partial, response.body)).await,
            Err(error) => {
                tracing::debug!(%error, "no room for a part");
                let origin = self.request.site.origin();
                entry.ended(Reason::Origin, "no room for a part");
                self.fail(FetchError::OtherVersion { origin });
                Step::Landed
            }
        }
    }

    /// The response as that to a question for the whole would have been, if it may be stored.
    fn whole_of(
        &self,
        response: &OriginResponse,
        (length, times): (Option<u64>, Times),
    ) -> Option<HeaderMap> {
        let headers = parts::whole_headers(&response.headers);
        self.storable((StatusCode::OK, &headers, length), times).is_ok().then_some(headers)
    }

    /// The origin was asked for one part of it knows what; what it answered with a part, or with
    /// there being none.
    pub(super) async fn fill_first(
        &mut self,
        entry: &FillEntry,
        lease: Option<Lease>,
        (word, asked): (Word, Range<u64>),
    ) -> Step {
        let Word { response, times, position } = word;
        let OriginResponse { status, headers, length, .. } = &response;
        let answer = parts::first_answer(&asked, (*status, headers, *length));
        let Some((part, total)) = answer else { return self.ask_whole("not the range asked for") };
        let Some(headers) = self.whole_of(&response, (Some(total), times)) else {
            return self.ask_whole("it may not be stored");
        };
        let head = self.head(position, (StatusCode::OK, &headers, Some(total)), times);
        if total >= parts::PARTS_FROM_BYTES {
            let word = Word { response, times, position };
            return self.keep_outline(lease, head, (word, part)).await;
        }
        // Small: the rest is fetched too, each byte once.
        let Some(live) = self.begun(entry, lease, head).await else {
            return self.ask_whole("no room in the store");
        };
        let poured = match self.pour(&live, response.body, part.clone()).await {
            Ok(end) if end == part.end => {
                let rest = [0..part.start, part.end..total];
                let mut fetched = Ok(end);
                for hole in rest {
                    if fetched.is_ok() {
                        fetched = self.fetch_part(&live, hole).await;
                    }
                }
                fetched.map(|_| total)
            }
            Ok(_) => Err("the origin sent less than it said".to_owned()),
            Err(reason) => Err(reason),
        };
        self.finish_poured(&live, poured, lease).await
    }

    fn ask_whole(&mut self, reason: &str) -> Step {
        tracing::debug!(reason, "a part is of no use, asking for the whole");
        self.request.whole = true;
        Step::Again
    }

    /// Stores the outline, and sees to the part that came with it.
    async fn keep_outline(
        &mut self,
        lease: Option<Lease>,
        head: ObjectHead,
        (word, brought): (Word, Range<u64>),
    ) -> Step {
        let number = parts::covering(&brought).start;
        let Some(part) = Part::of(&head, number) else { return self.ask_whole("no validator") };
        let body = parts::outline(part.total, &part.tag);
        let outline = ObjectHead {
            headers: parts::marked(head.headers, Some(part.total)),
            length: Some(body.len() as u64),
            chunk_size: CHUNK_BYTES_MIN,
            ..head
        };
        let stored = {
            let entrance = self.inner.entrance(&outline, 0).await;
            if matches!(entrance, Entrance::Shut) {
                return self.ask_whole("it is older than the purges that this node remembers");
            }
            self.store_small(outline, body).await
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return self.ask_whole(&error.to_string()),
        };
        // Before anybody looks for the part: they are to find it under way.
        let own = self.request.for_part(&self.inner.secret, part);
        if let (_, Some(flight)) = self.inner.flights.join(own.key, true) {
            let mut job = Job::new(self.inner.clone(), own, flight);
            *job.word() = Some(word);
            self.inner.tasks.spawn("part", flown(job));
        }
        let lookup = if self.stale.is_some() { Lookup::Replaced } else { Lookup::Miss };
        self.flight.set(Outcome::Stored(stored.clone(), Tier::Origin, lookup));
        self.flight.land();
        self.turn = None;
        self.publish(lease, stored.manifest()).await;
        if lease.is_some() {
            let object = Some(stored.object_id());
            let copy = CopyRequest { object, lease: None, ..self.copy_request() };
            self.inner.wish_for_copies(copy);
        }
        Step::Landed
    }

    async fn store_small(
        &self,
        head: ObjectHead,
        body: bytes::Bytes,
    ) -> Result<Arc<StoredObject>, StoreError> {
        let (length, hash) = (body.len() as u64, ChunkHash::of(&body));
        let partial = self.inner.store.begin(head).await?;
        partial.write_chunk(0, body, hash).await?;
        partial.finish(length).await
    }
}

/// A flight within a flight: by name, since its type would hold itself.
fn flown(job: Job) -> BoxFuture<'static, ()> {
    Box::pin(job.run())
}
